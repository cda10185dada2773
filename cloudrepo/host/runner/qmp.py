"""QMP: the language of QEMU's control socket."""

from __future__ import annotations

import errno
import json
import os
import stat
import time

from cloudrepo.host.runner.base import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cloudrepo.host.runner.base import Json


class QmpError(Exception):
    """QEMU refused a command, or did not answer."""


class Qmp:
    """One conversation with a QMP socket (QEMU's qmp-spec): greeting, capabilities, commands."""

    def __init__(self, path: str, deadline: float, is_dead: Callable[[], bool] = lambda: False) -> None:
        import socket

        self.deadline = deadline
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.socket.settimeout(max(0.05, deadline - time.monotonic()))
                connect_to(self.socket, path)
                break
            except OSError as error:
                self.socket.close()
                if is_dead():
                    raise QmpError("QEMU has ended") from None
                if time.monotonic() >= deadline or error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                    raise QmpError(f"{path} does not answer: {explain(error)}") from None
                time.sleep(0.005)
        self.lines = self.socket.makefile("rb")
        try:
            self._next("QMP")
            self.ask({"execute": "qmp_capabilities"})
        except QmpError:
            self.close()
            raise

    def ask(self, command: Json) -> Any:
        """Run one command and return its `return` value; events in between are passed over."""
        try:
            self.socket.sendall(json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"the QMP socket broke: {explain(error)}") from None
        answer = self._next("return", "error")
        if "error" in answer:
            raise QmpError(f"{command.get('execute')}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    def _next(self, *keys: str) -> Json:
        while True:
            try:
                self.socket.settimeout(max(0.001, self.deadline - time.monotonic()))
                line = self.lines.readline()
                message = json.loads(line) if line else None
            except (OSError, ValueError) as error:
                raise QmpError(f"no answer from the QMP socket: {explain(error)}") from None
            if message is None:
                raise QmpError("QEMU closed the QMP socket")
            if any(key in message for key in keys):
                return dict(message)

    def close(self) -> None:
        """End the conversation."""
        self.lines.close()
        self.socket.close()


def connect_to(peer: Any, path: str) -> None:
    """Connect to the Unix socket at a path, never to what a symlink there leads to.

    Whoever QEMU runs as may put anything into its machine's directory, and this is root.
    """
    number = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), path)
        peer.connect(f"/proc/self/fd/{number}")
    finally:
        os.close(number)


def ask_qmp(path: str, within_s: float, *commands: Json) -> list[Any]:
    """Run commands on a socket that should answer at once."""
    qmp = Qmp(path, time.monotonic() + within_s)
    try:
        return [qmp.ask(command) for command in commands]
    finally:
        qmp.close()


def command(name: str) -> Json:
    """A QMP command without arguments."""
    return {"execute": name}
