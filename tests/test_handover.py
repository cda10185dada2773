"""Operations that the monitor takes over: those that were handed to it, and those whose process died."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudrepo.errors import RefusedError
from control import recovery, repair, states
from crashing import SLICE, Installation
from database import Database
from fakes.host import Device
from recovery_cases import CASES, FIRST, NODE, SECOND, UP, contacted, crashed, monitor_running, take_over, whole_life
from worlds import OURS


@pytest.mark.parametrize("kind", ["deploy", "start", "stop", "delete"])
def test_an_operation_is_handed_to_the_monitor_which_does_it(kind: str, tmp_path: Path) -> None:
    case = CASES[kind]
    installation = case.set_up(tmp_path / "a")
    before = installation.state.read_bytes()
    assert "no `./cloud monitor` runs" in installation.refused("hand_over", "admin", SLICE, kind)
    assert installation.state.read_bytes() == before
    with monitor_running(installation):
        installation.ok("hand_over", "admin", SLICE, kind)
    (found,) = installation.ok("unfinished_operations")
    assert found["is_handed"] and not found["is_dead"] and installation.states()[0] == states.SLICE[kind].during
    assert f"({kind}, handed to the monitor" in installation.refused("delete_slice", "admin", SLICE)
    (text,) = take_over(installation)
    assert "handed to the monitor" in text
    assert installation.states() == case.resumed
    (event,) = [one for one in installation.api.context.events.read() if one.what == kind]
    assert (event.who, event.outcome, event.details["by"]) == ("admin", "done", "monitor")
    assert take_over(installation) == []


@pytest.mark.parametrize("kind", ["deploy", "start", "stop", "delete"])
def test_what_was_handed_over_and_not_begun_is_taken_back_without_a_word_to_a_host(kind: str, tmp_path: Path) -> None:
    installation = CASES[kind].set_up(tmp_path / "a")
    before = installation.states()
    with monitor_running(installation):
        installation.ok("hand_over", "admin", SLICE, kind)
    installation.api = installation.orchestrator()
    installation.ok("rollback", "admin", SLICE)
    assert installation.states() == before and contacted(installation) == set()
    assert "operation" not in installation.record()


def test_a_dead_operation_is_resumed_by_the_monitor_only_when_it_is_asked_to(tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    assert take_over(installation) == []
    assert len(take_over(installation, auto_resume=True)) == 1
    assert installation.states() == UP


def test_what_the_monitor_could_not_resume_is_not_tried_at_each_pass(tmp_path: Path) -> None:
    installation = CASES["remove_vm"].set_up(tmp_path / "a")
    installation.killed(3, CASES["remove_vm"].do)
    installation.hosts[SECOND].is_up = False
    assert len(take_over(installation, auto_resume=True)) == 1
    assert take_over(installation, auto_resume=True) == []
    installation.hosts[SECOND].is_up = True
    installation.ok("resume", "admin", SLICE)
    assert installation.states() == ("design", ["design"])


def test_a_delete_that_was_not_taken_back_is_not_finished_before_all_its_hosts_are_cleared(tmp_path: Path) -> None:
    installation = CASES["deploy"].set_up(tmp_path / "a")
    with Database(installation.state).transaction() as data:
        data["slices"][str(SLICE)]["pending"] = [NODE]  # of an undo
    installation.killed(2, CASES["delete"].do)  # its intent is written, and nothing is done
    installation.hosts[NODE].is_up = False
    installation.refused("rollback", "admin", SLICE)  # the disks are there; the other host cannot be asked
    assert installation.states()[0] == "deleting"
    installation.hosts[NODE].is_up = True
    assert recovery.finish_pending(installation.api.context) == []
    assert "nothing waits for it" in installation.refused("resume", "admin", SLICE, gone=[NODE])
    assert installation.states()[0] == "deleting"
    assert installation.ok("resume", "admin", SLICE) == "Slice deleted"
    assert not any("mark.json" in path for host in installation.hosts.values() for path in host.files)


@pytest.mark.parametrize("kind", ["stop", "delete"])
def test_what_is_handed_over_keeps_its_internet_until_it_is_begun(kind: str, tmp_path: Path) -> None:
    installation = CASES[kind].set_up(tmp_path / "a")
    other = installation.ok("create_slice", "admin", "other")["slice_id"]
    installation.ok("add_vm_to_slice", "admin", other, "vm1", "cirros", 1, True)
    installation.ok("deploy_slice", "admin", other)
    with monitor_running(installation):
        installation.ok("hand_over", "admin", SLICE, kind)
    installation.ok("delete_slice", "admin", other)
    installation.ok("rollback", "admin", SLICE)
    assert installation.states() == UP
    assert "ns-dhcp-vlan400" in installation.hosts[NODE].namespaces


def test_links_can_be_changed_after_a_repair_whose_process_died(tmp_path: Path) -> None:
    installation = CASES["deploy"].set_up(tmp_path / "a")
    installation.hosts[FIRST].devices["tap_1001_eth1"] = Device(
        "tap", user="ubuntu", alias=f"cloudrepo/{OURS}/1000/1001/eth1"
    )
    installation.killed(3, lambda api: repair.set_right(api.context, SLICE, [FIRST], who="op", skip_unreachable=True))
    assert installation.record()["operation"]["kind"] == "repair"
    assert installation.ok("unfinished_operations") == []
    installation.ok("remove_link", "admin", SLICE, 1)
    assert "operation" not in installation.record()
    installation.killed(3, lambda api: repair.set_right(api.context, SLICE, [FIRST], who="op", skip_unreachable=True))
    installation.ok("create_link", "admin", SLICE, 1001, "eth1", 1002, "eth1")


def test_a_delete_that_waits_and_whose_rollback_died_is_not_finished_behind_its_back(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.ok("create_slice", "admin", "lab")
    installation.ok("add_vm_to_slice", "admin", SLICE, "vm1", "cirros", 1, True)
    installation.ok("deploy_slice", "admin", SLICE)
    installation.hosts[FIRST].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    installation.hosts[FIRST].is_up = True
    installation.killed(6, lambda api: api.rollback("admin", SLICE))
    (found,) = installation.ok("unfinished_operations")
    assert (found["kind"], found["of"]) == ("rollback", "delete")
    assert recovery.finish_pending(installation.api.context) == []
    installation.ok("resume", "admin", SLICE)
    assert installation.states() == ("stopped", ["stopped"])


@pytest.mark.parametrize("name", ["start_vm", "stop_vm"])
def test_a_repair_gives_up_nobodys_unfinished_start_or_stop_of_a_vm(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    moments, _ = whole_life(case, tmp_path / "whole")
    step = next(number for number, what in enumerate(moments, start=1) if " begin vm1002" in what)
    for verb, expected in (("resume", case.resumed), ("rollback", case.rolled_back)):
        installation = case.set_up(tmp_path / verb)
        installation.killed(step, case.do)
        before = installation.record()
        with pytest.raises(RefusedError) as refused:
            repair.repair(installation.api.context, SLICE, [FIRST, SECOND])
        assert refused.value.code == "slice.unfinished"
        assert f"its {name} of VM 1002, begun 20" in str(refused.value) and "`./cloud resume 1000`" in str(
            refused.value
        )
        assert installation.record() == before and before["operation"]["kind"] == name
        installation.ok(verb, "admin", SLICE)
        assert installation.states() == expected
        repair.repair(installation.api.context, SLICE, [FIRST, SECOND])
