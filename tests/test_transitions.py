"""A call that a state does not allow says the state found and the states allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from control import states
from crashing import SLICE
from recovery_cases import CASES, alive

CALLS = {
    "deploy": ("deploy_slice",), "start": ("start_slice",), "stop": ("stop_slice",), "delete": ("delete_slice",),
    "change": ("add_vm_to_slice", "vm3", "cirros", 1), "start_vm": ("start_vm", 1001), "stop_vm": ("stop_vm", 1001),
}  # fmt: skip
STATES = ("design", "deploying", "running", "stopping", "stopped", "deleting", "error")


@pytest.mark.parametrize("kind", CALLS)
def test_an_illegal_transition_says_the_state_found_and_the_states_allowed(kind: str, tmp_path: Path) -> None:
    installation = CASES["deploy"].set_up(tmp_path / "a")
    call, rest = str(CALLS[kind][0]), CALLS[kind][1:]
    allowed = states.SLICE[kind].allowed
    for state in STATES:
        with installation.api.db.transaction() as data:
            record = data["slices"][str(SLICE)]
            record["status"] = state
            if state in states.BUSY:
                record["operation"] = {"number": 1, "kind": "stop", "process": alive(), "began": "2026-01-01"}
            else:
                record.pop("operation", None)
        if state in allowed and state not in states.BUSY:
            continue
        before = installation.state.read_bytes()
        message = installation.refused(call, "admin", SLICE, *rest)
        assert f"it is {state}" in message and f"must be {states.listed(allowed)}" in message
        assert installation.state.read_bytes() == before


@pytest.mark.parametrize(
    ("call", "kind"), [("start_vm", "start_vm"), ("stop_vm", "stop_vm"), ("remove_vm", "remove_vm")]
)
def test_an_illegal_transition_of_a_vm_says_so_too(call: str, kind: str, tmp_path: Path) -> None:
    installation = CASES["deploy"].set_up(tmp_path / "a")
    allowed = states.VM[kind].allowed
    for state in (*STATES, "creating"):
        with installation.api.db.transaction() as data:
            record = data["slices"][str(SLICE)]
            record["status"] = "design" if kind == "remove_vm" else "running"
            record["vms"][0]["status"] = state
            if state == "creating":
                record["vms"][0]["operation"] = {"number": 1, "kind": "add_vm", "process": "x:1:1:1", "began": "now"}
        if state in allowed:
            continue
        message = installation.refused(kind, "admin", SLICE, 1001)
        assert f"VM 1001 cannot be {states.VM[kind].verb}: it is {state}" in message
        assert f"must be {states.listed(allowed)}" in message
