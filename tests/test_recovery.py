"""Orchestrators that die at their work: what they leave is named, gone on with, or taken back."""

from __future__ import annotations

import copy
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import HostUnreachable, RefusedError
from cloudrepo.leadership import Leadership
from control import handover, intents, processes, recovery, repair, states
from control.jobs import Jobs
from crashing import SLICE, Installation
from database import Database
from fakes.host import Device
from orchestrator_api import OrchestratorAPI
from worlds import OURS

FIRST, SECOND, NODE = "10.0.10.1", "10.0.10.2", "10.0.10.3"
UP = ("running", ["running", "running"])
DOWN = ("stopped", ["stopped", "stopped"])
DRAFT = ("design", ["design", "design"])


@dataclass(frozen=True)
class Case:
    """One kind of operation.

    Attributes:
        before: the calls that lead to where it begins.
        work: the operation.
        resumed: the states after it was resumed, as after it went through.
        rolled_back: the states after it was rolled back.
    """

    before: tuple[tuple[Any, ...], ...]
    work: tuple[Any, ...]
    resumed: tuple[str, list[str]]
    rolled_back: tuple[str, list[str]]

    def do(self, api: OrchestratorAPI) -> Any:
        call, *rest = self.work
        return getattr(api, call)("admin", SLICE, *rest)

    def set_up(self, folder: Path) -> Installation:
        folder.mkdir()
        installation = Installation(folder)
        installation.designed()
        for call, *rest in self.before:
            installation.ok(call, "admin", SLICE, *rest)
        return installation


DEPLOYED = (("deploy_slice",),)
ONE_STOPPED = (*DEPLOYED, ("stop_vm", 1002))
CASES = {
    "deploy": Case((), ("deploy_slice",), UP, DRAFT),
    "start": Case((*DEPLOYED, ("stop_slice",)), ("start_slice",), UP, DOWN),
    "stop": Case(DEPLOYED, ("stop_slice",), DOWN, UP),
    "stop, one VM being down": Case(ONE_STOPPED, ("stop_slice",), DOWN, ("running", ["running", "stopped"])),
    "delete": Case(DEPLOYED, ("delete_slice",), ("gone", []), DOWN),
    "delete of what never ran": Case((), ("delete_slice",), ("gone", []), DRAFT),
    "start_vm": Case(ONE_STOPPED, ("start_vm", 1002), UP, ("running", ["running", "stopped"])),
    "stop_vm": Case(DEPLOYED, ("stop_vm", 1002), ("running", ["running", "stopped"]), UP),
    "add_vm": Case((), ("add_vm_to_slice", "vm3", "cirros", 1), ("design", ["design"] * 3), DRAFT),
    "remove_vm": Case((), ("remove_vm", 1002), ("design", ["design"]), DRAFT),
    "add_vm, where it runs": Case(
        DEPLOYED, ("add_vm_to_slice", "vm3", "cirros", 1, True), ("running", [*UP[1], "design"]), UP
    ),
    "remove_vm, where it runs": Case(DEPLOYED, ("remove_vm", 1002), ("running", ["running"]), UP),
}


def whole_life(case: Case, folder: Path) -> tuple[list[str], Any]:
    """The moments of an operation that nobody disturbs, and the hosts after it."""
    installation = case.set_up(folder)
    life = installation.killed(0, case.do)
    assert installation.states() == case.resumed
    return life.moments, installation.picture()


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


def crashed(folder: Path, name: str = "deploy", *, part: float = 0.5) -> Installation:
    """An installation whose orchestrator died after a part of its steps."""
    case = CASES[name]
    moments, _ = whole_life(case, folder / "whole")
    installation = case.set_up(folder / "crashed")
    steps = [number for number, what in enumerate(moments, start=1) if " begin " in what]
    installation.killed(steps[int(len(steps) * part)], case.do)
    return installation


def note_process(installation: Installation, process: str) -> None:
    """Have the records say that this process is at work on the slice."""
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["operation"]["process"] = process


def alive() -> str:
    """A process of this host that lives, and is not this one."""
    host, _, _, boot = processes.this_process().split(":")
    return f"{host}:{os.getppid()}:{processes._start_ticks(os.getppid())}:{boot}"


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


# ── illegal transitions ─────────────────────────────────────────────────────────────────────────────────

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


# ── hosts that do not answer ────────────────────────────────────────────────────────────────────────────


def contacted(installation: Installation) -> set[str]:
    """The hosts that this orchestrator has sent a message to."""
    return {ip for ip, _ in installation.api.executor.plans}


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


# ── the monitor ─────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def monitor_running(installation: Installation) -> Iterator[None]:
    """A `./cloud monitor` is at work."""
    monitor = Leadership(installation.state.parent / ".cloudrepo", "monitor")
    assert monitor.lead()
    yield
    monitor.release()


def take_over(installation: Installation, *, auto_resume: bool | None = None) -> list[str]:
    """What a monitor takes over, once all of it has ended."""
    jobs = Jobs(at_once=4)
    said = handover.take_over(installation.api.context, jobs.begin, auto_resume=auto_resume)
    assert jobs.wait(30)
    return said


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
