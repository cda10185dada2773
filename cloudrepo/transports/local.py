"""Hosts that are this machine: the same messages and the same runner as a process here, without SSH.

For tests and simulators. A `LocalHost` says what distinguishes one host from another.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field
from pathlib import Path

from cloudrepo.errors import HostUnreachable
from cloudrepo.host.message import PYTHON
from cloudrepo.late_dataclass import dataclass

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def drained(outputs: dict[int, int], timeout_s: float) -> tuple[bytes, bytes] | None:
    """What came on two streams, None at the end of both.

    Args:
        outputs: by descriptor, 0 for stdout and 1 for stderr; one that has ended, or was cut off, is taken out.
        timeout_s: how long to wait for something.
    """
    if not outputs:
        return None
    parts = [b"", b""]
    waiting = select.poll()
    for number in outputs:
        waiting.register(number, select.POLLIN)
    for number, _ in waiting.poll(timeout_s * 1000):
        try:
            data = os.read(number, 1 << 16)
        except ConnectionResetError:
            data = b""
        parts[outputs[number]] = data
        if not data:
            del outputs[number]
    return parts[0], parts[1]


@dataclass(frozen=True, kw_only=True)
class LocalHost:
    """One pretended host.

    Attributes:
        home: the account's home directory.
        path_prefix: directories looked at before the system's for every command: stand-ins for real tools.
        environment: further variables of every command.
        python: what runs the messages.
        is_up: whether it answers.
    """

    home: str = "/tmp"  # noqa: S108  a default for hosts without files of their own
    path_prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    is_up: bool = True


class ProcessStream:
    """A process of this machine as a stream."""

    def __init__(self, words: tuple[str, ...], env: Mapping[str, str], cwd: str) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env), cwd=cwd
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101  all were asked for
        self._stdin = self._process.stdin
        self._outputs = {self._process.stdout.fileno(): 0, self._process.stderr.fileno(): 1}
        self.pid = self._process.pid

    def send(self, data: bytes) -> None:
        """Write all of it to stdin; raises OSError when the process has ended."""
        if self._stdin.closed:
            raise BrokenPipeError("stdin was closed")
        self._stdin.write(data)
        self._stdin.flush()

    def finish(self) -> None:
        """Close stdin."""
        try:
            self._stdin.close()
        except BrokenPipeError:
            pass  # the process ended first: that is no news here

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """What came on stdout and stderr, None at the end of both."""
        return drained(self._outputs, timeout_s)

    def status(self, timeout_s: float) -> int | None:
        """The exit status, None when it runs on."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Let go of it; a process that outlives the end of its stdin for 2 s is killed."""
        self.finish()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        if self.status(2.0) is None:
            self._process.kill()
            self._process.wait()


class LocalFiles:
    """Files of this machine."""

    def size(self, path: str) -> int | None:
        """Bytes of a file, None when there is none."""
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return None

    def make_parents(self, path: str) -> None:
        """Make the directories that `path` will be in."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)

    def write(self, path: str, offset: int, blocks: Iterator[bytes]) -> None:
        """Write blocks from `offset` on."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            for block in blocks:
                file.write(block)

    def rename(self, path: str, target: str) -> None:
        """Put `path` in the place of `target`."""
        os.replace(path, target)


class LocalTransport:
    """Reaches pretended hosts.

    Args:
        hosts: by address; an address that is not in it is unreachable. None = every address is this machine.
    """

    keeps_open = False
    has_helper = False

    def __init__(self, hosts: Mapping[str, LocalHost] | None = None) -> None:
        self.hosts = hosts

    def _host(self, host: str) -> LocalHost:
        known = LocalHost() if self.hosts is None else self.hosts.get(host)
        if known is None or not known.is_up:
            raise HostUnreachable(host, "no connection", evidence="this pretended host is not there or down")
        return known

    def environment(self, host: str) -> dict[str, str]:
        """The pretended host's PATH and variables."""
        known = self._host(host)
        return {"PATH": ":".join((*known.path_prefix, SYSTEM_PATH)), **known.environment}

    def open_message(self, host: str, message: bytes) -> ProcessStream:
        """Start the bootstrap and send it a message."""
        stream = ProcessStream((self._host(host).python, *PYTHON[1:]), {"PATH": SYSTEM_PATH}, "/")
        try:
            stream.send(message)
        except OSError:
            pass  # what it says on stderr tells why
        return stream

    def open_shell(self, host: str, line: str, timeout_s: float) -> ProcessStream:
        """Start a shell line."""
        known = self._host(host)
        env = {"HOME": known.home, **self.environment(host)}
        return ProcessStream(("/bin/sh", "-c", line), env, known.home)

    def files(self, host: str) -> AbstractContextManager[LocalFiles]:
        """This machine's files."""
        self._host(host)
        return nullcontext(LocalFiles())

    def home(self, host: str) -> str:
        """The pretended host's home directory."""
        return self._host(host).home

    def connect_port(self, host: str, port: int) -> socket.socket:
        """A connection to a port on loopback."""
        self._host(host)
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError as error:
            raise HostUnreachable(host, f"nothing listens on port {port} of the host", evidence=str(error)) from error

    def close(self, host: str | None = None) -> None:
        """Nothing is kept open."""


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    """Whether a process of this machine ended in time; a zombie has ended."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False
