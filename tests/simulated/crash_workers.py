"""Runs crashes in small processes: what a process of pytest has loaded makes every fork of it slow.

`Workers` is the side of the tests. The other side is this module run as a program; it imports all that an orchestrator
may need, so that those forked from it find it there, and ends with the process that started it.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import pkgutil
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import control
from simulated.crashes import Case, Scenario, run
from simulated.leftovers import Known
from simulated.simulator import die_with_parent

HERE = Path(__file__).parent
FOLDERS = (str(HERE.parent.parent), str(HERE.parent))
PROGRAM = "import sys; sys.path[:0] = sys.argv[2:]; from simulated import crash_workers; crash_workers.main()"
#: What pyproject.toml says of warnings.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


class Workers:
    """So many processes that run cases. They end with `close`, or with this process."""

    def __init__(self, count: int) -> None:
        self._all = [_Worker() for _ in range(count)]

    def run(self, scenario: Scenario, todo: list[Case], known: Known) -> list[str]:
        """All cases, each in a world of its own; what is wrong, by case."""
        assert todo, "no case"
        busy = [worker for number, worker in enumerate(self._all) if todo[number:]]
        for number, worker in enumerate(busy):
            worker.line.send((scenario, todo[number :: len(busy)], known))
        return [f"{scenario.name}: {text}" for worker in busy for text in worker.problems()]

    def close(self) -> None:
        """Let them end."""
        for worker in self._all:
            worker.line.close()
        for worker in self._all:
            worker.process.wait()


class _Worker:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            words = (sys.executable, *WARNINGS, "-c", PROGRAM, str(theirs.fileno()), *FOLDERS)
            self.process = subprocess.Popen(words, pass_fds=(theirs.fileno(),))
        self.line = Connection(ours.detach())

    def problems(self) -> list[str]:
        try:
            found: list[str] = self.line.recv()
        except EOFError:
            return [f"a worker ended with status {self.process.wait()}"]
        return found


def main() -> None:
    """Run what comes, until the end of the line."""
    die_with_parent()
    _refuse_networks()
    for module in pkgutil.iter_modules(control.__path__, "control."):
        importlib.import_module(module.name)
    _write_dataclasses()
    line: Connection[list[str], tuple[Scenario, list[Case], Known]] = Connection(int(sys.argv[1]))
    gc.disable()  # a process that is forked collects nothing: that would copy every page it shares
    gc.freeze()
    while True:
        try:
            scenario, todo, known = line.recv()
        except EOFError:
            return
        told = ((case, run(scenario, case, known)) for case in todo)
        line.send([f"{case}: {wrong}" for case, wrong in told if wrong])
        gc.collect()
        gc.freeze()


def _write_dataclasses() -> None:
    """Have the methods of all of them written here, once, and not in each that is forked (`late_dataclass.py`)."""
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()):
            if isinstance(value, type):
                dataclasses.is_dataclass(value)  # to ask is enough


def _refuse_networks() -> None:
    """As `no_real_network` of the tests, which is not in this process."""
    for name in ("connect", "connect_ex"):
        genuine = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, *, _genuine: Any = genuine) -> Any:
            assert self.family == socket.AF_UNIX, f"a simulated orchestrator tried to reach {address}"
            return _genuine(self, address)

        setattr(socket.socket, name, guarded)
