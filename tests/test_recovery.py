"""Orchestrators that die at their work: what they leave is named, gone on with, or taken back."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from control import processes, recovery
from crashing import SLICE
from recovery_cases import CASES, DRAFT, UP, alive, crashed, note_process, whole_life


def chosen(moments: list[str]) -> list[int]:
    """The moments to die at: after the intent, before and within the work of hosts, before its end is written."""
    durable = [number for number, what in enumerate(moments, start=1) if what == "durable"]
    steps = [number for number, what in enumerate(moments, start=1) if " begin " in what or " disk " in what]
    some = [steps[len(steps) * part // 5] for part in range(5)] if len(steps) >= 5 else steps
    return sorted({durable[0], durable[-2] + 1 if len(durable) > 1 else durable[0], *some, len(moments) - 1})


@pytest.mark.parametrize("name", CASES)
def test_what_was_under_way_is_named_and_resumed(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    moments, whole = whole_life(case, tmp_path / "whole")
    for die_at in chosen(moments):
        where = f"{die_at}: {moments[die_at - 1]}"
        installation = case.set_up(tmp_path / str(die_at))
        installation.killed(die_at, case.do)
        (found,) = installation.ok("unfinished_operations")
        assert found["kind"] == name.partition(",")[0].partition(" of")[0], where
        assert found["is_dead"] and found["who"] == "admin" and found["began"], where
        installation.ok("resume", "admin", SLICE)
        assert installation.states() == case.resumed, where
        assert installation.picture() == whole, where
        assert installation.ok("unfinished_operations") == []


@pytest.mark.parametrize("name", CASES)
def test_what_was_under_way_is_rolled_back(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    moments, _ = whole_life(case, tmp_path / "whole")
    for die_at in chosen(moments):
        where = f"{die_at}: {moments[die_at - 1]}"
        installation = case.set_up(tmp_path / str(die_at))
        before = installation.picture()
        installation.killed(die_at, case.do)
        done, answer = installation.api.rollback("admin", SLICE)
        if not done:  # a disk is gone: said, and ended by the other way
            assert "cannot be rolled back" in answer and "is gone" in answer and "resume" in answer, (where, answer)
            assert name.startswith(("delete", "remove_vm")), where
            installation.ok("resume", "admin", SLICE)
            assert installation.states() == case.resumed, where
            continue
        assert installation.states() == case.rolled_back, where
        if case.rolled_back[0] != "stopped":
            assert installation.picture() == before, where
        assert installation.ok("unfinished_operations") == []


# ── who may, and when ───────────────────────────────────────────────────────────────────────────────────


RECOVERIES = ("resume", "rollback")


@pytest.mark.parametrize("verb", RECOVERIES)
def test_nothing_unfinished_and_strangers_are_refused(verb: str, tmp_path: Path) -> None:
    installation = CASES["deploy"].set_up(tmp_path / "a")
    before = installation.state.read_bytes()
    assert installation.refused(verb, "admin", SLICE) == "slice 1000 has nothing unfinished: it is design"
    assert installation.refused(verb, "student", SLICE) == "Not authorized"
    assert installation.refused(verb, "nobody", SLICE) == "User not found"
    assert installation.refused(verb, "admin", 7) == "Slice not found"
    assert installation.state.read_bytes() == before


def test_a_slice_of_somebody_else_is_recovered_by_an_administrator_alone(tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["owner"] = "student"
        data["users"]["other"] = {**data["users"]["student"], "username": "other"}
    assert installation.refused("resume", "other", SLICE) == "Not authorized"
    assert installation.ok("unfinished_operations", "other") == []
    assert len(installation.ok("unfinished_operations", "student")) == 1
    assert len(installation.ok("unfinished_operations", "admin")) == 1
    installation.ok("resume", "admin", SLICE)
    assert installation.record()["owner"] == "student"


@pytest.mark.parametrize("verb", RECOVERIES)
def test_a_process_that_lives_is_left_to_its_work(verb: str, tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    with subprocess.Popen(("sleep", "60")) as other:
        ticks = processes._start_ticks(other.pid)
        host, _, _, boot = processes.this_process().split(":")
        note_process(installation, f"{host}:{other.pid}:{ticks}:{boot}")
        before = installation.state.read_bytes()
        message = installation.refused(verb, "admin", SLICE)
        assert f"process {other.pid} on {host} is at it" in message and "begun 20" in message
        assert installation.state.read_bytes() == before
        for call in ("deploy_slice", "delete_slice"):
            assert f"by process {other.pid} on {host} since 20" in installation.refused(call, "admin", SLICE)
        other.kill()
    installation.ok(verb, "admin", SLICE)


def test_a_process_number_that_was_given_again_and_a_reboot_are_recognised(tmp_path: Path) -> None:
    host, pid, ticks, boot = processes.this_process().split(":")
    assert not processes.is_dead(f"{host}:{pid}:{ticks}:{boot}")
    assert processes.is_dead(f"{host}:{pid}:{int(ticks) + 1}:{boot}")
    assert processes.is_dead(f"{host}:{pid}:{ticks}:{'0' * 32}")
    assert not processes.is_dead(f"elsewhere:{pid}:1:{boot}")


@pytest.mark.parametrize("verb", RECOVERIES)
def test_a_process_on_another_host_is_not_known_dead_until_a_person_says_so(verb: str, tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    note_process(installation, "elsewhere:1:1:1")
    message = installation.refused(verb, "admin", SLICE)
    assert "process 1 on elsewhere is at it" in message and "--ended" in message
    installation.ok(verb, "admin", SLICE, ended=True)


def test_ended_does_not_help_against_a_process_that_lives_here(tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    note_process(installation, alive())
    assert "is at it" in installation.refused("resume", "admin", SLICE, ended=True)


def test_of_two_recoveries_at_once_one_is_told(tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    answers: list[tuple[bool, Any]] = []
    second = installation.orchestrator()
    first_of_all = threading.Lock()

    def progress(event: Any) -> None:
        if first_of_all.acquire(blocking=False):
            answers.append(second.rollback("admin", SLICE))

    installation.ok("resume", "admin", SLICE, progress=progress)
    ((done, message),) = answers
    assert not done and "somebody is at work on slice 1000" in message
    assert installation.states() == UP


def test_who_looked_before_another_took_over_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen free is looked at once more in the transaction that takes it."""
    installation = crashed(tmp_path)
    found = recovery.unfinished(installation.api.context)
    taken, may_go_on = threading.Event(), threading.Event()

    def progress(event: Any) -> None:
        taken.set()
        may_go_on.wait(30)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(installation.orchestrator().resume, "admin", SLICE, progress=progress)
        assert taken.wait(30)
        monkeypatch.setattr(recovery, "recoverable", lambda *args, **kwargs: found)
        _, message = installation.api.rollback("admin", SLICE)
        may_go_on.set()
        assert first.result()[0]
    assert "somebody is at work on slice 1000" in message
    assert installation.states() == UP


def test_many_recoveries_at_once_end_as_one_of_them(tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    others = [installation.orchestrator() for _ in range(6)]
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(getattr(api, RECOVERIES[n % 2]), "admin", SLICE) for n, api in enumerate(others)]
        answers = [call.result() for call in calls]
    assert [done for done, _ in answers].count(True) == 1, answers
    assert installation.states() in (UP, DRAFT)
    machines = [words for host in installation.hosts.values() for words in host.picture()["processes"]]
    assert sum("qemu" in words[0] for words in machines) == (2 if installation.states() == UP else 0)


def test_an_operation_whose_place_was_taken_does_nothing_more(tmp_path: Path) -> None:
    """A process that was taken for dead and is not: neither hosts nor records hear of it again."""
    installation = CASES["deploy"].set_up(tmp_path / "a")
    before = installation.picture()
    said: list[Any] = []
    first_of_all = threading.Lock()
    genuine = installation.api.executor.run_plan

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        if plan.stages and first_of_all.acquire(blocking=False):
            note_process(installation, "elsewhere:1:1:1")
            said.append(installation.orchestrator().rollback("admin", SLICE, ended=True))
        return genuine(host, plan, **options)

    installation.api.executor.run_plan = run_plan
    message = installation.refused("deploy_slice", "admin", SLICE)
    assert said == [(True, "Slice 1000 was rolled back: it is design")]
    assert "another one took the place of its deploy" in message or "came too late" in message
    assert installation.states() == DRAFT
    assert "operation" not in installation.record() and "error" not in installation.record()
    assert installation.picture() == before or installation.record()["pending"]


@pytest.mark.parametrize("call", ["deploy_slice", "delete_slice"])
def test_deploy_and_delete_go_on_from_a_dead_operation_as_they_always_did(call: str, tmp_path: Path) -> None:
    installation = crashed(tmp_path)
    installation.ok(call, "admin", SLICE)
    assert installation.states() == (UP if call == "deploy_slice" else ("gone", []))


def test_an_error_that_nobody_foresaw_leaves_an_operation_that_can_be_recovered(tmp_path: Path) -> None:
    """The thread ends, its process lives on: that is no reason to wait for it."""
    installation = CASES["delete"].set_up(tmp_path / "a")
    installation.killed(12, CASES["delete"].do)  # in this very process
    assert installation.record()["operation"]["process"] == processes.this_process()
    assert installation.ok("resume", "admin", SLICE) == "Slice deleted"


@pytest.mark.parametrize("noted", [None, {}, {"kind": "deployed", "process": "x"}, {"number": 1, "process": "a:1:1:1"}])
@pytest.mark.parametrize("verb", RECOVERIES)
def test_a_state_without_a_usable_operation_can_be_left(verb: str, noted: Any, tmp_path: Path) -> None:
    """Written by hand, or by an older version: the state says what was under way."""
    installation = CASES["deploy"].set_up(tmp_path / "a")
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)] |= {"status": "deploying"} | ({} if noted is None else {"operation": noted})
    (found,) = installation.ok("unfinished_operations")
    assert found["kind"] == "deploy" and found["is_dead"]
    assert installation.refused("start_slice", "admin", SLICE)
    installation.ok(verb, "admin", SLICE)
    assert installation.states() == (UP if verb == "resume" else DRAFT)
