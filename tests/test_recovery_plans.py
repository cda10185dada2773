"""What `resume` and `rollback` say that they would do is what they do, wherever the orchestrator died."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudrepo import record_changes
from control import plan_parts
from crashing import SLICE, Installation
from recovery_cases import CASES, whole_life
from test_dry_runs import in_order, noted, world

FIRST, SECOND = "10.0.10.1", "10.0.10.2"


def moments_of(moments: list[str]) -> list[int]:
    """In the middle of the work of hosts, and at its end."""
    steps = [number for number, what in enumerate(moments, start=1) if " begin " in what or " disk " in what]
    return sorted({steps[len(steps) // 2], steps[-1]})


def disks(installation: Installation) -> dict[str, set[str]]:
    """The disks of each host, by their VM."""
    found = {}
    for ip, host in installation.hosts.items():
        found[ip] = {path.split("/vm-")[1].split("/")[0] for path in host.files if path.endswith("/overlay.qcow2")}
    return found


def hold_against(installation: Installation, call: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Rehearse, which changes nothing, and then do it, which is the same; or both are refused in the same words."""
    before = world(installation)
    states = record_changes.objects(installation.api.db.data)
    had = disks(installation)
    ok, plan = installation.api.rehearse("admin", call, {"slice_id": SLICE, **options})
    assert world(installation) == before
    with noted(installation, monkeypatch) as done:
        went, answer = getattr(installation.api, call)("admin", SLICE, **options)
    assert (went, ok) == (ok, went), (plan, answer)
    if not ok:
        assert str(plan) == str(answer)
        return
    for ip, now in disks(installation).items():  # they are not made by a difference
        made = [{"verb": "add", "kind": "disk", "name": vm_id} for vm_id in sorted(now - had[ip])]
        done.setdefault(ip, []).extend(made)
    actual = {ip: in_order(actions) for ip, actions in done.items() if actions}
    assert {one["host"]: in_order(one["actions"]) for one in plan["hosts"] if one["actions"]} == actual
    changed = record_changes.between(states, record_changes.objects(installation.api.db.data))
    assert plan["records"] == [{**one, **_states(one)} for one in changed if one["key"] in ("", "status")]
    assert plan["differences"] == sum(map(len, actual.values())) + len(plan["records"])


def _states(one: dict[str, Any]) -> dict[str, Any]:
    """An object that goes, with its state alone."""
    if one["key"]:
        return {}
    return {
        side: one[side] and {key: value for key, value in one[side].items() if key == "status"}
        for side in ("before", "after")
    }


@pytest.mark.parametrize("call", ["resume", "rollback"])
@pytest.mark.parametrize("name", CASES)
def test_what_a_recovery_says_is_what_it_does(
    name: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    moments, _ = whole_life(case, tmp_path / "whole")
    for die_at in moments_of(moments):
        installation = case.set_up(tmp_path / f"{die_at}")
        installation.killed(die_at, case.do)
        hold_against(installation, call, monkeypatch)


@pytest.mark.parametrize("name", ["deploy", "delete", "stop"])
def test_hosts_that_are_waited_for_are_cleared_or_given_up_as_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    for gone in ((), (SECOND,)):
        installation = case.set_up(tmp_path / f"{name}{len(gone)}")
        moments, _ = whole_life(case, tmp_path / f"whole{len(gone)}")
        if name == "deploy":
            installation.killed(moments_of(moments)[0], case.do)
        installation.hosts[SECOND].is_up = False
        _done, _answer = installation.api.rollback("admin", SLICE) if name == "deploy" else case.do(installation.api)
        (one,) = installation.ok("unfinished_operations")
        assert one["hosts"] == [SECOND]
        installation.hosts[SECOND].is_up = not gone
        hold_against(installation, "resume", monkeypatch, gone=gone)
        assert installation.ok("unfinished_operations") == []


def test_what_was_handed_over_is_put_back_as_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from control import lifecycle

    installation = CASES["deploy"].set_up(tmp_path / "one")
    lifecycle.hand_over(installation.api.context, "admin", SLICE, "deploy")
    hold_against(installation, "rollback", monkeypatch)
    assert installation.states()[0] == "design"


def test_several_things_of_one_slice_are_one_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM whose disk was being made, and the stop of its slice."""
    for call in ("resume", "rollback"):
        case = CASES["add_vm, where it runs"]
        moments, _ = whole_life(case, tmp_path / f"whole {call}")
        installation = case.set_up(tmp_path / call)
        begins = next(number for number, what in enumerate(moments, start=1) if " disk begins" in what)
        installation.killed(begins, case.do)
        installation.killed(12, lambda api: api.stop_slice("admin", SLICE))
        assert len(installation.ok("unfinished_operations")) == 2
        hold_against(installation, call, monkeypatch)


def test_an_action_is_named_once() -> None:
    """By the last that means it; what is wanted after it was to go is made again."""
    add, remove = ({"verb": verb, "kind": "tap", "name": "a"} for verb in ("add", "remove"))

    def host(*actions: Any) -> dict[str, Any]:
        return {"host": FIRST, "actions": list(actions), "foreign": [], "seen": ["x"], "error": ""}

    for first, second, wanted, left in (
        (add, [remove], (), remove),
        (remove, [], [("tap", "a")], add),
        (remove, [], (), remove),
    ):
        found: dict[str, Any] = {}
        plan_parts.merge(found, host(first))
        plan_parts.merge(found, host(*second), wanted)
        assert found == {FIRST: host(left)}
