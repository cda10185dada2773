"""Hosts that do not answer an undo, a stop or a delete: what waits for them, and how it ends."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import HostUnreachable
from control import intents, recovery
from crashing import SLICE, Installation
from fakes.host import Device
from recovery_cases import CASES, DOWN, DRAFT, FIRST, NODE, SECOND, UP, alive, contacted, crashed
from worlds import OURS


def test_a_delete_is_finished_when_the_host_is_back_and_only_that_host_is_asked(tmp_path: Path) -> None:
    installation = CASES["delete"].set_up(tmp_path / "a")
    installation.hosts[SECOND].is_up = False
    assert "is not deleted yet" in installation.refused("delete_slice", "admin", SLICE)
    (waiting,) = installation.ok("unfinished_operations")
    assert waiting["is_waiting"] and waiting["hosts"] == [SECOND] and f"waits for {SECOND}" in waiting["text"]
    assert recovery.finish_pending(installation.api.context) == []  # tried, and still away
    assert recovery.finish_pending(installation.api.context, answering={FIRST, NODE}) == []
    assert installation.states()[0] == "deleting" and installation.record()["pending"] == [SECOND]

    installation.hosts[SECOND].is_up = True
    installation.api = installation.orchestrator()
    (said,) = recovery.finish_pending(installation.api.context, answering={SECOND})
    assert "which is deleted" in said and contacted(installation) == {SECOND}
    assert installation.states() == ("gone", [])
    assert not any(host.processes or "tap_1002_eth1" in host.devices for host in installation.hosts.values())


def test_a_monitor_that_dies_at_finishing_a_delete_leaves_it_to_the_next_pass(tmp_path: Path) -> None:
    installation = CASES["delete"].set_up(tmp_path / "a")
    installation.hosts[SECOND].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    installation.hosts[SECOND].is_up = True
    life = installation.killed(8, lambda api: recovery.finish_pending(api.context))
    assert life.is_over and installation.record()["operation"]["kind"] == "delete"
    (waiting,) = installation.ok("unfinished_operations")
    assert waiting["is_waiting"] and waiting["hosts"] == [SECOND]
    assert len(recovery.finish_pending(installation.api.context)) == 1
    assert installation.states() == ("gone", [])


def test_a_host_that_will_never_be_back_is_given_up_by_name(tmp_path: Path) -> None:
    installation = CASES["delete"].set_up(tmp_path / "a")
    installation.hosts[SECOND].is_up = installation.hosts[FIRST].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    assert f"waits for {FIRST}, {SECOND}" in installation.refused("resume", "admin", SLICE, gone=[NODE])
    installation.refused("resume", "admin", SLICE, gone=[SECOND])  # the other one is still away
    assert installation.record()["pending"] == [FIRST]
    installation.hosts[FIRST].is_up = True
    assert f"{FIRST} cleared" in recovery.finish_pending(installation.api.context)[0]
    assert installation.states() == ("gone", [])

    installation = CASES["delete"].set_up(tmp_path / "b")
    installation.hosts[SECOND].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    assert f"{SECOND} given up" in installation.ok("resume", "admin", SLICE, gone=[SECOND])
    assert installation.states() == ("gone", [])


@pytest.mark.parametrize("call", ["delete_slice", "resume"])
def test_a_further_delete_asks_only_the_host_that_is_missing(call: str, tmp_path: Path) -> None:
    installation = CASES["delete"].set_up(tmp_path / "a")
    installation.hosts[SECOND].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    installation.hosts[SECOND].is_up = True
    installation.api = installation.orchestrator()
    assert installation.ok(call, "admin", SLICE) == "Slice deleted"
    assert contacted(installation) == {SECOND}


def test_a_vm_that_was_being_made_goes_with_its_slice(tmp_path: Path) -> None:
    case = CASES["add_vm"]
    life = Installation.killed(case.set_up(tmp_path / "whole"), 0, case.do)
    made = next(number for number, what in enumerate(life.moments, start=1) if "disk is made" in what)
    installation = case.set_up(tmp_path / "a")
    installation.killed(made, case.do)
    installation.hosts[FIRST].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    assert [one["kind"] for one in installation.ok("unfinished_operations")] == ["delete"]
    installation.hosts[FIRST].is_up = True
    assert installation.ok("resume", "admin", SLICE) == "Slice deleted"
    assert not any("mark.json" in path for host in installation.hosts.values() for path in host.files)


def test_a_delete_that_waits_keeps_no_other_slice_waiting(tmp_path: Path) -> None:
    installation = CASES["delete"].set_up(tmp_path / "a")
    other = installation.ok("create_slice", "admin", "other")["slice_id"]
    installation.ok("add_vm_to_slice", "admin", other, "vm1", "cirros", 1)  # on the third host
    installation.hosts[SECOND].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    recovery.finish_pending(installation.api.context)
    installation.ok("deploy_slice", "admin", other)


def test_hosts_of_an_undone_deploy_are_cleared_when_they_are_back(tmp_path: Path) -> None:
    case = CASES["deploy"]
    installation = case.set_up(tmp_path / "a")
    before = installation.picture()

    def progress(event: Any) -> None:
        if event.host == SECOND and event.done and "disk" not in event.label:  # what is new has begun
            installation.hosts[SECOND].is_up = False
            raise HostUnreachable(SECOND, "the connection was lost")

    installation.refused("deploy_slice", "admin", SLICE, progress=progress)
    assert installation.record()["pending"] == [SECOND] and installation.states() == DRAFT
    reason = installation.record()["error"]
    assert "was rolled back already" in installation.refused("rollback", "admin", SLICE)
    assert installation.picture() != before
    installation.hosts[SECOND].is_up = True
    (said,) = recovery.finish_pending(installation.api.context)
    assert SECOND in said
    assert installation.picture() == before
    assert "pending" not in installation.record() and installation.record()["error"] == reason


def test_a_stop_is_complete_when_the_host_is_back(tmp_path: Path) -> None:
    installation = CASES["stop"].set_up(tmp_path / "a")
    installation.hosts[SECOND].is_up = False
    installation.refused("stop_slice", "admin", SLICE)
    assert installation.states()[0] == "error" and installation.record()["error"]
    installation.hosts[SECOND].is_up = True
    recovery.finish_pending(installation.api.context)
    assert installation.states() == DOWN and "error" not in installation.record()


def test_a_host_that_a_slice_does_not_use_any_more_is_cleared_under_a_running_slice(tmp_path: Path) -> None:
    installation = CASES["remove_vm"].set_up(tmp_path / "a")
    installation.ok("remove_vm", "admin", SLICE, 1002)
    installation.hosts[SECOND].devices["tap_1002_eth0"] = Device("tap", alias=f"cloudrepo/{OURS}/{SLICE}/1002/eth0")
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["pending"] = [SECOND]
    installation.hosts[SECOND].is_up = False
    installation.ok("deploy_slice", "admin", SLICE)
    assert recovery.finish_pending(installation.api.context) == []
    assert installation.states() == ("running", ["running"]) and installation.record()["pending"] == [SECOND]
    assert "back" not in installation.record()
    installation.hosts[SECOND].is_up = True
    assert len(recovery.finish_pending(installation.api.context)) == 1
    assert "tap_1002_eth0" not in installation.hosts[SECOND].devices
    assert installation.states() == ("running", ["running"]) and "pending" not in installation.record()
    assert len(installation.hosts[FIRST].processes) == 1


def test_clearing_takes_nothing_from_a_slice_that_runs(tmp_path: Path) -> None:
    """Also where a host is waited for that it uses, as an edit by hand can have it."""
    installation = CASES["stop"].set_up(tmp_path / "a")
    before = installation.picture()
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["pending"] = [FIRST, NODE]
    assert len(recovery.finish_pending(installation.api.context)) == 1
    assert installation.picture() == before and installation.states() == UP
    assert "pending" not in installation.record()


def test_a_stop_from_an_error_is_resumed_and_not_rolled_back(tmp_path: Path) -> None:
    installation = CASES["stop"].set_up(tmp_path / "a")
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["status"] = "error"
    installation.killed(20, CASES["stop"].do)
    message = installation.refused("rollback", "admin", SLICE)
    assert "the slice was in error before" in message and "`./cloud resume 1000`" in message
    assert installation.ok("resume", "admin", SLICE) == "Slice stopped"


def test_a_clearing_that_was_cut_short_is_done_again_and_gives_way_to_a_deploy(tmp_path: Path) -> None:
    installation = CASES["deploy"].set_up(tmp_path / "a")
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["pending"] = [SECOND]
    life = installation.killed(3, lambda api: recovery.finish_pending(api.context))
    assert life.moments[1] == "durable" and installation.record()["operation"]["kind"] == "clean"
    (found,) = installation.ok("unfinished_operations")
    assert found["is_waiting"]
    assert len(recovery.finish_pending(installation.api.context)) == 1
    assert installation.ok("unfinished_operations") == []

    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["pending"] = [SECOND]
    installation.killed(3, lambda api: recovery.finish_pending(api.context))
    installation.ok("deploy_slice", "admin", SLICE)
    assert installation.states() == UP and installation.ok("unfinished_operations") == []


@pytest.mark.parametrize("kind", ["clean", "repair"])
def test_what_the_monitor_does_by_itself_gives_way_to_a_person(kind: str, tmp_path: Path) -> None:
    installation = CASES["stop"].set_up(tmp_path / "a")
    with installation.api.db.transaction() as data:
        record = data["slices"][str(SLICE)]
        record["operation"] = {"number": 1, "kind": kind, "process": alive(), "began": "2026-01-01", "who": "monitor"}
    for other in ("clean", "repair"):
        assert not intents.settle_abandoned(installation.api.context, copy.deepcopy(record), other)
    installation.ok("stop_slice", "admin", SLICE)
    assert installation.states() == DOWN


def test_a_vm_whose_worker_does_not_answer_is_taken_back_and_its_disk_goes_later(tmp_path: Path) -> None:
    installation = CASES["add_vm"].set_up(tmp_path / "a")
    before = installation.picture()
    life = installation.killed(0, CASES["add_vm"].do)
    made = next(number for number, what in enumerate(life.moments, start=1) if "disk is made" in what)
    installation = CASES["add_vm"].set_up(tmp_path / "b")
    installation.killed(made, CASES["add_vm"].do)
    installation.hosts[NODE].is_up = False
    assert "its disk goes when its worker answers" in installation.ok("rollback", "admin", SLICE)
    assert installation.states() == DRAFT and installation.picture() != before
    installation.hosts[NODE].is_up = True
    recovery.finish_pending(installation.api.context)
    assert installation.picture() == before


def test_a_resume_that_a_host_fails_ends_as_the_operation_itself_would(tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    installation.hosts[SECOND].is_up = False
    installation.refused("resume", "admin", SLICE)
    assert installation.states() == DRAFT and installation.record()["pending"] == [SECOND]


def test_a_delete_is_not_rolled_back_where_a_host_cannot_be_asked_for_its_disks(tmp_path: Path) -> None:
    installation = crashed(tmp_path, "delete", part=0)  # later, disks are gone that are asked for first
    installation.hosts[SECOND].is_up = False
    before = installation.state.read_bytes()
    assert SECOND in installation.refused("rollback", "admin", SLICE)
    assert installation.state.read_bytes() == before
