"""Operations that die half-way, for tests of what comes after: kinds, moments, and an orchestrator that died."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudrepo.leadership import Leadership
from control import handover, processes
from control.jobs import Jobs
from crashing import SLICE, Installation
from orchestrator_api import OrchestratorAPI

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


def contacted(installation: Installation) -> set[str]:
    """The hosts that this orchestrator has sent a message to."""
    return {ip for ip, _ in installation.api.executor.plans}


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
