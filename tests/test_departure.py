"""A monitor that is told to end in the middle of what it took over: nothing is given up, nothing taken back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import HostUnreachable
from cloudrepo.interruption import Departure, Interruption
from control import handover, recovery
from control.jobs import Jobs
from crashing import SLICE, WORKERS, Installation, Life
from recovery_cases import CASES, DRAFT, FIRST, SECOND, UP, Case, crashed, monitor_running, take_over, whole_life

HANDED = ("deploy", "start", "stop", "delete")


class Told(Life):
    """The life of a monitor that is told to end at one of its moments, and then ends in order."""

    def __init__(self, stop: Departure, told_at: int) -> None:
        super().__init__()
        self.stop = stop
        self.told_at = told_at

    def moment(self, what: str) -> None:
        super().moment(what)
        if len(self.moments) == self.told_at:
            self.stop.set()


def monitored(installation: Installation, told_at: int = 0) -> Told:
    """A monitor takes over what is there, and is told to end at this moment of its work; 0 = never."""
    jobs = Jobs(at_once=4)
    life = Told(jobs.stop, told_at)
    api = installation.orchestrator(life)
    assert len(handover.take_over(api.context, jobs.begin, auto_resume=True)) == 1
    assert jobs.wait(30)
    installation.api = installation.orchestrator()  # the next process
    return life


def prepared(case: Case, name: str, folder: Path) -> Installation:
    """An operation that waits for a monitor: handed to it, or left by a process that died."""
    installation = case.set_up(folder)
    if name in HANDED:
        with monitor_running(installation):
            installation.ok("hand_over", "admin", SLICE, name)
    else:
        installation.killed(3, case.do)  # its intent is durable
    return installation


def begins(what: str) -> bool:
    """Whether a step begins at this moment that is more than a look."""
    return (" begin " in what and not what.endswith(" fences")) or what.endswith("disk begins")


def steps_of(moments: list[str]) -> list[int]:
    """The moments in which a step begins."""
    return [number for number, what in enumerate(moments, start=1) if begins(what)]


def expect_left(installation: Installation, life: Told, name: str, where: str) -> None:
    """The operation is unfinished and nobody's; after the word no host began more than the step it was about to."""
    begun = [what for what in life.moments[life.told_at :] if begins(what)]
    assert len(begun) <= len(WORKERS) - 1 and len({what.split()[0] for what in begun}) == len(begun), (where, begun)
    (found,) = installation.ok("unfinished_operations")
    assert (found["kind"], found["is_dead"], found["is_handed"]) == (name, True, False), (where, found)
    assert not found["is_waiting"] and "has ended" in found["text"] and found["who"] == "admin", (where, found)
    assert "error" not in installation.record(), where
    (event,) = [one for one in installation.api.context.events.read() if one.outcome == "left"]
    assert event.details["by"] == "monitor" and f"`./cloud resume {SLICE}` goes on" in event.details["reason"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("after", ["resume", "rollback", "auto-resume"])
def test_what_a_monitor_was_at_when_it_ended_is_gone_on_with_or_taken_back(
    name: str, after: str, tmp_path: Path
) -> None:
    case = CASES[name]
    kind = name.partition(",")[0].partition(" of")[0]
    _, whole = whole_life(case, tmp_path / "whole")
    steps = steps_of(monitored(prepared(case, name, tmp_path / "counted")).moments)
    for told_at in dict.fromkeys((1, 3, *(steps[len(steps) * part // 4] for part in range(3)))):
        where = f"{name} told at {told_at}"
        installation = prepared(case, name, tmp_path / str(told_at))
        life = monitored(installation, told_at)
        if installation.ok("unfinished_operations") == []:  # it had begun its last step, or all was done
            assert installation.states() == case.resumed and told_at >= steps[0], where
            continue
        expect_left(installation, life, kind, where)
        if after == "auto-resume":
            monitored(installation)
        else:
            done, answer = getattr(installation.api, after)("admin", SLICE)
            if not done:
                assert after == "rollback" and name.startswith(("delete", "remove_vm")), (where, answer)
                assert "is gone" in answer, (where, answer)
                installation.ok("resume", "admin", SLICE)
                continue
        if after == "rollback":
            assert installation.states() == case.rolled_back, where
        else:
            assert installation.states() == case.resumed, where
            assert installation.picture() == whole, where
        assert installation.ok("unfinished_operations") == [], where


@pytest.mark.parametrize("is_told", [False, True])
def test_an_undo_that_a_monitor_was_at_when_it_ended_is_gone_on_with(is_told: bool, tmp_path: Path) -> None:
    """The deploy failed by itself; its rollback is what is left."""
    installation = CASES["deploy"].set_up(tmp_path / "a")
    before = installation.picture()
    with monitor_running(installation):
        installation.ok("hand_over", "admin", SLICE, "deploy")
    installation.hosts[SECOND].fail_at.add("vm1002:start")
    jobs, api = Jobs(at_once=4), installation.orchestrator()
    genuine = api.executor.run_plan

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        if is_told and plan.operation and installation.record()["operation"]["kind"] == "rollback":
            jobs.stop.set()
        return genuine(host, plan, **options)

    api.executor.run_plan = run_plan
    handover.take_over(api.context, jobs.begin)
    assert jobs.wait(30)
    installation.api = installation.orchestrator()
    if is_told:
        (found,) = installation.ok("unfinished_operations")
        assert (found["kind"], found["of"], found["is_dead"]) == ("rollback", "deploy", True)
        assert installation.picture() != before
        installation.ok("resume", "admin", SLICE)
    assert installation.states() == DRAFT and installation.picture() == before
    assert installation.ok("unfinished_operations") == []


@pytest.mark.parametrize("name", ["deploy", "start", "stop", "delete", "add_vm", "remove_vm", "start_vm"])
def test_a_connection_that_is_closed_by_the_end_is_no_failure_of_the_operation(name: str, tmp_path: Path) -> None:
    """A step that takes too long is waited for no more: the hosts are not heard of again."""
    case = CASES[name]
    installation = prepared(case, name, tmp_path / "a")
    jobs = Jobs(at_once=4)
    api = installation.orchestrator()

    def cut(*args: Any, **options: Any) -> Any:
        jobs.stop.set()
        raise HostUnreachable(FIRST, "the connection was closed")

    api.executor.run_plan = cut
    api.deployment_api.qcow_manager.create = cut  # type: ignore[method-assign]
    handover.take_over(api.context, jobs.begin, auto_resume=True)
    assert jobs.wait(30)
    installation.api = installation.orchestrator()
    (found,) = installation.ok("unfinished_operations")
    assert (found["kind"], found["is_dead"], found["is_waiting"]) == (name, True, False)
    assert len(take_over(installation, auto_resume=True)) == 1  # not taken for one that was tried and failed
    assert installation.states() == case.resumed


def test_a_worker_that_could_not_be_asked_because_of_the_end_is_no_failure_of_a_deploy(tmp_path: Path) -> None:
    installation = prepared(CASES["deploy"], "deploy", tmp_path / "a")
    jobs, api = Jobs(at_once=4), installation.orchestrator()

    def cut(*ips: str) -> None:
        jobs.stop.set()
        raise HostUnreachable(FIRST, "the connection was closed")

    api.discovery.ensure_known = cut  # type: ignore[method-assign]
    handover.take_over(api.context, jobs.begin)
    assert jobs.wait(30)
    (found,) = installation.ok("unfinished_operations")
    assert (found["kind"], found["is_dead"]) == ("deploy", True)


def test_disks_that_could_not_be_asked_for_because_of_the_end_keep_no_delete_from_being_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_at = 0
    for folder in ("counted", "a"):  # the second one dies right after the intent of its rollback
        installation = CASES["delete"].set_up(tmp_path / folder)
        installation.killed(3, CASES["delete"].do)
        life = installation.killed(die_at, lambda api: api.rollback("admin", SLICE))
        die_at = life.moments.index("durable") + 2
    jobs = Jobs(at_once=4)

    def cut(*args: Any) -> None:
        jobs.stop.set()
        raise HostUnreachable(FIRST, "the connection was closed")

    with monkeypatch.context() as patch:
        patch.setattr("control.lifecycle.require_disks", cut)
        handover.take_over(installation.api.context, jobs.begin, auto_resume=True)
        assert jobs.wait(30) and jobs.stop.is_set()
    (found,) = installation.ok("unfinished_operations")
    assert (found["kind"], found["of"], found["is_dead"], found["process"] != "") == ("rollback", "delete", True, True)
    assert "error" not in installation.record()
    assert len(take_over(installation, auto_resume=True)) == 1
    assert installation.states() == CASES["delete"].rolled_back


def test_nothing_is_begun_any_more_once_the_end_has_come(tmp_path: Path) -> None:
    installation = prepared(CASES["deploy"], "deploy", tmp_path / "a")
    before = installation.record()
    jobs = Jobs(at_once=4)
    assert jobs.end(1)
    assert handover.take_over(installation.api.context, jobs.begin) == []
    assert installation.record() == before and before["operation"]["handed"]


def test_a_slice_whose_operation_was_taken_over_is_busy_until_it_ends(tmp_path: Path) -> None:
    installation = prepared(CASES["deploy"], "deploy", tmp_path / "a")
    jobs = Jobs(at_once=4)
    seen = []
    genuine = installation.api.executor.run_plan

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        seen.append(jobs.busy())
        return genuine(host, plan, **options)

    installation.api.executor.run_plan = run_plan
    is_over = threading.Event()

    def mend(stop: Interruption) -> None:
        is_over.wait(30)

    assert jobs.begin(f"slice {SLICE}", mend, slice_id=SLICE, in_turn=True)
    assert len(handover.take_over(installation.api.context, jobs.begin)) == 1  # a repair on its way is another job
    is_over.set()
    assert jobs.wait(30)
    assert set(seen) == {frozenset({SLICE})} and jobs.busy() == frozenset()
    assert installation.states() == UP


def test_hosts_that_were_not_cleared_before_the_end_are_still_waited_for(tmp_path: Path) -> None:
    installation = CASES["delete"].set_up(tmp_path / "a")
    installation.hosts[SECOND].is_up = installation.hosts[FIRST].is_up = False
    installation.refused("delete_slice", "admin", SLICE)
    installation.hosts[SECOND].is_up = installation.hosts[FIRST].is_up = True
    stop = Departure()
    stop.set()
    assert recovery.finish_pending(installation.api.context, stop=stop) == []
    assert installation.record()["pending"] == [FIRST, SECOND] and "operation" not in installation.record()
    assert len(recovery.finish_pending(installation.api.context)) == 1
    assert installation.states() == ("gone", [])
    assert not any("mark.json" in path for host in installation.hosts.values() for path in host.files)


def test_a_wish_of_a_person_is_no_departure(tmp_path: Path) -> None:
    """What a crash left is resumed by hand, and stopped by hand: an end is written."""
    installation = crashed(tmp_path)
    stop = Interruption()
    stop.set()
    stop.choose(keep=True)
    message = installation.refused("resume", "admin", SLICE, stop=stop)
    assert "you stopped it: what was made is kept" in message
    assert installation.states()[0] == "error"
    assert installation.ok("unfinished_operations") == []
