"""The line to the orchestrator: what it says, whether it is still there, and what it is told."""

from __future__ import annotations

import os
import select
import threading
import time

from cloudrepo.host.runner.base import to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


PIPE_CHUNK = 4096  # PIPE_BUF: a write this small to a pipe that polls writable does not block


class Control:
    """The orchestrator's end of the line: what it says, whether it is still there."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.heard = time.monotonic()
        self.ending = ""
        self.is_gone = False
        self.gates: dict[str, str] = {}  # "" = open, else why it was closed
        self.news = threading.Condition()
        self.writing = threading.Lock()

    def listen(self) -> None:
        """Read control lines until the end of stdin; runs in a thread of its own."""
        rest = b""
        while True:
            try:
                data = os.read(0, 65536)
            except OSError:
                data = b""
            *lines, rest = (rest + data).split(b"\n")
            with self.news:
                self.heard = time.monotonic()
                for line in lines:
                    self._obey(line.decode("utf-8", "replace"))
                if not data:
                    self._gone("connection lost")
                    return
                self.news.notify_all()

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "stop":
            self.ending = self.ending or "stopped"
        elif word == "open":
            self.gates.setdefault(rest, "")
        elif word == "close":
            name, _, reason = rest.partition(" ")
            self.gates.setdefault(name, reason or "closed")

    def _gone(self, why: str) -> None:
        with self.news:
            self.ending = self.ending or why
            self.is_gone = True
            self.news.notify_all()

    def why_stop(self) -> str:
        """Why no further step may begin, or an empty text."""
        if not self.ending and time.monotonic() - self.heard > self.lease_s:
            self._gone(f"nothing heard from the orchestrator for {self.lease_s:g} s")
        return self.ending

    def wait_gate(self, name: str) -> str:
        """Stand at a gate; empty when it was opened, else why the plan ends here."""
        self.say(event="gate", name=name)
        with self.news:
            while name not in self.gates and not self.why_stop():
                self.news.wait(min(1.0, self.lease_s))
            if name in self.gates:
                reason = self.gates[name]
                return f"gate {name} closed: {reason}" if reason else self.ending
            return self.ending

    def say(self, **event: Any) -> None:
        """Send one line. A peer that reads nothing for a whole lease counts as gone; nothing ever blocks for good."""
        data = memoryview(to_json(event).encode() + b"\n")
        with self.writing:
            if self.is_gone:
                return
            waiting = select.poll()
            waiting.register(1, select.POLLOUT)
            while data:
                try:
                    if not waiting.poll(self.lease_s * 1000):
                        return self._gone("the orchestrator reads nothing")
                    data = data[os.write(1, data[:PIPE_CHUNK]) :]
                except OSError:
                    return self._gone("connection lost")
