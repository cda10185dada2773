"""Runs messages on a simulated host: the real bootstrap and the real runner, forked where Python runs already.

Starting Python and compiling the runner takes 60 ms; a fork of the simulator takes 3.
"""

from __future__ import annotations

import builtins
import functools
import json
import os
import signal
import socket
import struct
import subprocess  # noqa: F401  loaded before the fork, with all else that the runner imports
import sys
import threading
import traceback
import zlib  # noqa: F401
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn

from cloudrepo.host.message import BOOTSTRAP
from cloudrepo.host.programs import text as text_of
from simulated import jail

#: Acts that change a host without a call of a tool; the simulator is told before and after each.
NOTED_ACTS = ("spawn", "qmp", "write", "mkdir", "remove", "remove if empty", "publish", "adopt", "stop", "signal")
HEAD = struct.Struct(">cI")  # of a frame: its kind, and how long it is
RUNNER: dict[str, Any] = {}  # the runner's names, as they are before a process begins to use them
ACT, PROGRAMS = "#act", "#programs"  # what is no call of a tool
DAEMONS = frozenset(("dnsmasq", "-daemonize"))  # words of calls that leave a process behind


@functools.cache
def compiled(text: str, name: str, mode: str) -> CodeType:
    """As `compile`; each text once in this process and those forked from it."""
    code: CodeType = builtins.compile(text, name, mode)
    return code


def warm_up() -> None:
    """Do what every host will do in the same way: compile both programs, and execute the one that only defines."""
    compiled(BOOTSTRAP, "bootstrap", "exec")
    RUNNER["__name__"] = "cloudrepo_host"
    builtins.exec(compiled(text_of("runner"), "cloudrepo-host", "exec"), RUNNER)  # noqa: S102  the runner's own text


def run(root: Path, simulator: str, channel: int, errors: int, *, shortcut: bool) -> NoReturn:
    """Become the process that sshd would start on the host: its stdin and stdout are `channel`.

    Args:
        root: the host's files.
        simulator: path of the socket that answers the host's tools.
        channel, errors: descriptors.
        shortcut: tools that end at once are asked without a process for each call; see `World`.
    """
    status = 70
    try:
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for target, descriptor in ((0, channel), (1, channel), (2, errors)):
            os.dup2(descriptor, target)
        os.closerange(3, 1024)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  it is this process's for good
        line = Line(simulator)
        jail.enter(str(root), line.programs)
        names: dict[str, Any] = {"__name__": "__main__", "compile": compiled}
        names["exec"] = lambda code, scope=names: execute(code, scope, line, shortcut=shortcut)
        builtins.exec(compiled(BOOTSTRAP, "bootstrap", "exec"), names)  # noqa: S102  the text that SSH is given
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            os.write(2, end.code.encode())
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def execute(code: Any, scope: dict[str, Any], line: Line, *, shortcut: bool) -> None:
    """As `exec`; the runner's acts are noted."""
    if not RUNNER or code is not compiled(text_of("runner"), "cloudrepo-host", "exec"):
        builtins.exec(code, scope)  # noqa: S102  the bootstrap's own text
        return
    for name in NOTED_ACTS:
        RUNNER["ACTS"][name] = noted(name, RUNNER["ACTS"][name], line)
    if shortcut:
        RUNNER["run_words"] = shortened(RUNNER["run_words"], line)
    scope.update(RUNNER)


def noted(name: str, act: Callable[..., Any], line: Line) -> Callable[..., Any]:
    """The act, with a word to the simulator before and after."""

    def do(step: dict[str, Any]) -> Any:
        line.ask((ACT, json.dumps(["before", name, step["name"]])))
        answer = act(step)
        line.ask((ACT, json.dumps(["after", name, step["name"]])))
        return answer

    return do


def shortened(run_words: Callable[..., Any], line: Line) -> Callable[..., Any]:
    """The runner's `run_words`; a tool that leaves no process behind is asked without one."""

    def run(words: list[str], stdin: str = "", user: str = "", timeout_s: float = 30.0) -> tuple[int, str, str]:
        if DAEMONS & {*words}:
            answer: tuple[int, str, str] = run_words(words, stdin, user, timeout_s)
            return answer
        return line.ask(tuple(words), stdin)

    return run


class Line:
    """What a process of a host says to the simulator without the help of a tool; each thread has a connection."""

    def __init__(self, simulator: str) -> None:
        self.simulator = simulator
        self._connect = socket.socket.connect  # before there is a jail
        self._mine = threading.local()

    def programs(self) -> dict[int, str]:
        """The processes that run on this host, each with its network namespace."""
        return {int(pid): space for pid, space in json.loads(self.ask((PROGRAMS,))[1]).items()}

    def ask(self, words: tuple[str, ...], stdin: str = "") -> tuple[int, str, str]:
        """One call; the exit status and both texts."""
        text, data = "\0".join(words).encode(), stdin.encode()
        line = self._line()
        line.sendall(struct.pack(">II", len(text), len(data)) + text + data)
        frames: dict[str, str] = {}
        heard = bytearray()
        while "X" not in frames:
            part = line.recv(1 << 16)
            if not part:
                raise ConnectionError("the simulator hung up")
            heard += part
            while len(heard) >= HEAD.size:
                kind, size = HEAD.unpack_from(heard)
                if len(heard) < HEAD.size + size:
                    break
                frames[kind.decode()] = heard[HEAD.size : HEAD.size + size].decode()
                del heard[: HEAD.size + size]
        return int(frames["X"]), frames.get("O", ""), frames.get("E", "")

    def _line(self) -> socket.socket:
        line: socket.socket | None = getattr(self._mine, "line", None)
        if line is None:
            line = self._mine.line = socket.socket(socket.AF_UNIX)
            self._connect(line, self.simulator)
        return line
