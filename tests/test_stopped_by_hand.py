"""Ctrl-C in a deploy or a start: what was made is kept, which the records say, or it is rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudrepo.interruption import Interruption
from crashing import SLICE, Installation
from recovery_cases import CASES, DOWN, DRAFT, UP, whole_life

KEPT = ("error", ["error", "error"])


def stopped(name: str, folder: Path, *, keep: bool) -> tuple[Installation, str]:
    """An operation that a person stopped at the fifth event; the answer."""
    installation = CASES[name].set_up(folder)
    stop, told = Interruption(), []

    def progress(event: Any) -> None:
        told.append(event)
        if len(told) == 5:
            stop.choose(keep=keep)
            stop.set()

    return installation, installation.refused(f"{name}_slice", "admin", SLICE, progress=progress, stop=stop)


def machines(installation: Installation) -> int:
    """How many QEMUs run."""
    words = [each.words[0] for host in installation.hosts.values() for each in host.processes.values()]
    return sum("qemu" in word for word in words)


@pytest.mark.parametrize("name", ["deploy", "start"])
def test_what_is_kept_is_an_error_with_its_reason_until_a_deploy_goes_on(name: str, tmp_path: Path) -> None:
    _, whole = whole_life(CASES["deploy"], tmp_path / "whole")
    before = CASES[name].set_up(tmp_path / "before").picture()
    installation, message = stopped(name, tmp_path / "a", keep=True)
    assert "you stopped it: what was made is kept. Deploy it again to go on; or stop or delete it" in message
    assert installation.states() == KEPT and installation.record()["error"] == message
    assert installation.ok("get_slice", "admin", SLICE)["error"] == message
    assert installation.picture() != before and machines(installation) == 0
    assert installation.ok("unfinished_operations") == []
    assert "it is error" in installation.refused("add_vm_to_slice", "admin", SLICE, "vm3", "cirros", 1)
    assert installation.ok("deploy_slice", "admin", SLICE) == "Slice deployed successfully"
    assert installation.states() == UP and "error" not in installation.record()
    assert installation.picture() == whole


@pytest.mark.parametrize("name", ["deploy", "start"])
def test_what_is_kept_can_be_stopped_and_started_and_deleted(name: str, tmp_path: Path) -> None:
    installation, _ = stopped(name, tmp_path / "a", keep=True)
    installation.ok("stop_slice", "admin", SLICE)
    assert installation.states() == DOWN and "error" not in installation.record()
    assert not any(device.startswith("tap_") for host in installation.hosts.values() for device in host.devices)
    installation.ok("start_slice", "admin", SLICE)
    assert installation.states() == UP and machines(installation) == 2

    installation, _ = stopped(name, tmp_path / "b", keep=True)
    assert installation.ok("delete_slice", "admin", SLICE) == "Slice deleted"
    assert installation.states() == ("gone", [])
    for host in installation.hosts.values():
        assert not any("tap_" in device for device in host.devices) and not host.namespaces
        assert not any("mark.json" in path for path in host.files)


@pytest.mark.parametrize(("name", "states"), [("deploy", DRAFT), ("start", DOWN)])
def test_what_is_rolled_back_is_where_it_was(name: str, states: tuple[str, list[str]], tmp_path: Path) -> None:
    before = CASES[name].set_up(tmp_path / "before").picture()
    installation, message = stopped(name, tmp_path / "a", keep=False)
    assert "you stopped it: what was made is removed again" in message
    assert installation.states() == states and machines(installation) == 0
    if name == "deploy":
        assert installation.picture() == before


def test_what_is_kept_is_left_alone_by_what_sets_right(tmp_path: Path) -> None:
    """Nobody has said what should be there."""
    installation, message = stopped("deploy", tmp_path / "a", keep=True)
    before = installation.picture()
    found = installation.ok("drift")
    assert [(one["slice_id"], one["status"], one["busy"]) for one in found["unsettled"]] == [(SLICE, "error", False)]
    assert message in found["unsettled"][0]["why"]
    assert message in installation.refused("drift_fix", SLICE)
    assert installation.picture() == before and installation.states() == KEPT
