"""The seam between the executor and the wire: what a transport offers, so that one can stand for another.

`ssh.SshTransport` is the real one; `local.LocalTransport` runs the same messages with the same runner as a
process of this machine. Both pass one conformance suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Stream(Protocol):
    """One command on a host: its stdin, its two output streams, its end."""

    def send(self, data: bytes) -> None:
        """Write all of it to stdin; raises OSError when the other side is gone."""

    def finish(self) -> None:
        """Close stdin: the command reads its end."""

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """What came on stdout and stderr, both drained; two empty texts when nothing came in time.

        None = both streams have ended.
        """

    def status(self, timeout_s: float) -> int | None:
        """The exit status; None when there is none in time, or the connection is gone."""

    def close(self) -> None:
        """Give the stream back; the command, if it still runs, reads the end of its stdin."""


class RemoteFiles(Protocol):
    """The few things that an upload does on a host, as the account that logs in."""

    def size(self, path: str) -> int | None:
        """Bytes of a file, None when there is none."""

    def make_parents(self, path: str) -> None:
        """Make the directories that `path` will be in."""

    def write(self, path: str, offset: int, blocks: Iterator[bytes]) -> None:
        """Write blocks from `offset` on; what stood there before `offset` stays, what is after goes."""

    def rename(self, path: str, target: str) -> None:
        """Put `path` in the place of `target`."""


class Transport(Protocol):
    """How hosts are reached. All methods may be called from several threads.

    Attributes:
        keeps_open: whether something is kept open between calls until `close`, so that runners may wait too.
        has_helper: whether hosts have the runner installed and take nothing but plans within its grammar.
    """

    keeps_open: bool
    has_helper: bool

    def open_message(self, host: str, message: bytes) -> Stream:
        """Start the constant command as root and send it a message.

        Raises:
            HostError: the host cannot be reached, or shows another key.
        """

    def open_shell(self, host: str, line: str, timeout_s: float) -> Stream:
        """Start a shell line as the account that logs in."""

    def environment(self, host: str) -> dict[str, str]:
        """Variables that the runner shall set for its commands; empty on real hosts."""

    def files(self, host: str) -> AbstractContextManager[RemoteFiles]:
        """The host's files."""

    def home(self, host: str) -> str:
        """The home directory of the account that logs in."""

    def connect_port(self, host: str, port: int) -> Channel:
        """A connection to a TCP port on the host's own loopback."""

    def close(self, host: str | None = None) -> None:
        """Drop the connection to one host, or all."""


class Channel(Protocol):
    """Bytes both ways, as a socket gives them."""

    def recv(self, size: int, /) -> bytes:
        """Some bytes; empty at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""

    def close(self) -> None:
        """End it."""
