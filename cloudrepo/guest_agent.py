"""The QEMU guest agent: JSON lines over a guest's agent socket.

Protocol: https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html. A guest whose agent was in the middle of an
answer to somebody else is brought into step with `guest-sync-delimited`: its answer is preceded by the byte 0xFF.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cloudrepo.errors import CloudError
from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass

DELIMITER = b"\xff"
POLL_S = 0.1  # between questions whether a program has ended, at first
SLOWEST_POLL_S = 1.0  # and later: a guest works for each question


class GuestSilent(CloudError):
    """The guest's agent did not answer: the guest boots, hangs, or has no agent."""

    code = "guest.silent"


class GuestRefused(CloudError):
    """The guest's agent answered with an error."""

    code = "guest.refused"


class Channel(Protocol):
    """A connection to the agent's socket."""

    def send(self, data: bytes, /) -> Any:
        """Send all bytes."""

    def receive(self, timeout_s: float, /) -> bytes | None:
        """What came; empty when nothing came in time, None at the end."""


@dataclass(frozen=True)
class GuestResult:
    """What a program in the guest did.

    Attributes:
        status: its exit status; 128 + the signal that ended it.
        out_bytes: its standard output.
        err_bytes: its standard error.
    """

    status: int
    out_bytes: bytes = b""
    err_bytes: bytes = b""

    @property
    def out(self) -> str:
        """Its standard output as text."""
        return self.out_bytes.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """Its standard error as text."""
        return self.err_bytes.decode("utf-8", "replace")


class GuestAgent:
    """Talks to one guest; calls of several threads come one after another, waits do not block each other.

    Args:
        channel: a connection to the agent's socket; only one may be open at a time.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._buffer = b""
        self._lock = threading.Lock()
        self._numbers = itertools.count(time.monotonic_ns() % 1_000_000)

    def wait(self, timeout_s: float) -> None:
        """Wait until the agent answers.

        Raises:
            GuestSilent: it does not within the time.
        """
        until = time.monotonic() + timeout_s
        while True:
            try:
                self._synchronize(min(2.0, max(0.1, until - time.monotonic())))
                return
            except GuestSilent:
                if time.monotonic() >= until:
                    raise

    def call(self, command: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = 10.0) -> Any:
        """One command of the agent; its `return` value.

        Raises:
            GuestSilent: no answer in time.
            GuestRefused: the agent's own words.
        """
        with self._lock:
            self._send({"execute": command, **({"arguments": dict(arguments)} if arguments else {})})
            answer = self._line(timeout_s)
        if "error" in answer:
            raise GuestRefused(f"the guest agent refused {command}", evidence=str(answer["error"].get("desc", answer)))
        return answer.get("return")

    def run(self, words: Sequence[str], *, stdin: str | bytes = "", timeout_s: float = 30.0) -> GuestResult:
        """Run a program in the guest and wait for its end. `words` meet no shell.

        One that does not end in time, or that is not waited for any more (Ctrl-C), is ended as far as the guest's own
        `kill` can do that.

        Raises:
            GuestSilent: it did not end in time, or the agent fell silent.
            GuestRefused: the program could not be started.
        """
        began = time.monotonic()
        until = began + timeout_s
        arguments: dict[str, Any] = {"path": words[0], "arg": list(words[1:]), "capture-output": True}
        if stdin:
            data = stdin.encode() if isinstance(stdin, str) else stdin
            arguments["input-data"] = base64.b64encode(data).decode()
        pid = self.call("guest-exec", arguments)["pid"]
        is_over = False
        try:
            while True:
                status = self.call("guest-exec-status", {"pid": pid})
                if status["exited"]:
                    is_over = True
                    return _result(status)
                now = time.monotonic()
                if now > until:
                    raise GuestSilent(f"{words[0]} did not end within {timeout_s:g} s in the guest", code="guest.slow")
                time.sleep(min(max(POLL_S, (now - began) / 10), SLOWEST_POLL_S, until - now))
        finally:
            if not is_over:
                self._end(pid)

    def _end(self, pid: int) -> None:
        """Ask the guest to end a program; one that has no `kill` keeps it."""
        with contextlib.suppress(CloudError):
            self.call("guest-exec", {"path": "kill", "arg": [str(pid)]}, timeout_s=2.0)

    def _synchronize(self, timeout_s: float) -> None:
        with self._lock:
            number = next(self._numbers)
            self._buffer = b""
            self._send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, before=DELIMITER)
            until = time.monotonic() + timeout_s
            while True:
                answer = self._line(max(0.0, until - time.monotonic()))
                if answer.get("return") == number:
                    return

    def _send(self, message: Mapping[str, Any], before: bytes = b"") -> None:
        try:
            self._channel.send(before + json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise GuestSilent("the guest agent's socket was closed", evidence=str(error)) from error

    def _line(self, timeout_s: float) -> dict[str, Any]:
        """The next answer; what stands before a delimiter is somebody else's."""
        until = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left < 0:
                raise GuestSilent("the guest agent does not answer", evidence="the guest boots, hangs or has no agent")
            data = self._channel.receive(min(left, 1.0))
            if data is None:
                raise GuestSilent("the guest agent's socket was closed by the host")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json_text.loads(line.rpartition(DELIMITER)[2])
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}


def _result(status: Mapping[str, Any]) -> GuestResult:
    code = status["exitcode"] if "exitcode" in status else 128 + int(status.get("signal", 0))
    return GuestResult(int(code), *(base64.b64decode(status.get(key) or "") for key in ("out-data", "err-data")))
