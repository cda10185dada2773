"""Programs in guests by SSH, over a connection that somebody else made: no address of a guest is reached from here.

The keys of guests are pinned by VM, in a file of their own: a VM has its number for good, and its address is shared by
VMs of other links.
"""

from __future__ import annotations

import re
import secrets
import shlex
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cloudrepo.errors import CloudError, HostError
from cloudrepo.guest_agent import GuestRefused, GuestResult, GuestSilent
from cloudrepo.known_hosts import KnownHosts
from cloudrepo.late_dataclass import dataclass
from cloudrepo.ssh_config import Target
from cloudrepo.transports.ssh import SshStream
from cloudrepo.transports.ssh_login import add_pins, pinning_policy

if TYPE_CHECKING:
    import paramiko

MOST_OUTPUT = 16 * 1024 * 1024  # bytes of each stream; what comes after is dropped, as the guest agent does
END_S = 5.0  # for the exit status, once both streams have ended
#: sshd tells no number of a signal that ended a program; a shell does, as 128 + n. `$0` is a word of ours.
_FIRST_ITS_NUMBER = 'echo "$0 $$"; "$@"; exit $?'
_KILL = 'kill $(cat "/proc/$1/task/$1/children")'


class Relayed(Protocol):
    """A connection to a guest's SSH port."""

    def send(self, data: bytes, /) -> Any:
        """Send all bytes."""

    def receive(self, timeout_s: float, /) -> bytes | None:
        """What came; empty when nothing came in time, None at the end."""

    def close(self) -> None:
        """End it."""


@dataclass(frozen=True, kw_only=True)
class GuestLogin:
    """With what a guest is entered.

    Attributes:
        user: the account there.
        key_file: a private key; "" = none is named.
        password: "" = none.
        own_keys: whether the agent and the default keys of this process's account are tried as well.
    """

    user: str
    key_file: str = ""
    password: str = ""
    own_keys: bool = False

    def __repr__(self) -> str:
        """Without the password."""
        return f"GuestLogin(user={self.user!r}, key_file={self.key_file!r})"


class _Socket:
    """A relayed connection as paramiko wants one: that of a socket with a timeout."""

    def __init__(self, channel: Relayed) -> None:
        self._channel = channel
        self._timeout_s = 1.0
        self._rest = b""
        self._closed = False  # paramiko looks at it, as a socket has it

    def settimeout(self, timeout_s: float | None) -> None:
        """How long `recv` waits; None = a while, and again."""
        self._timeout_s = 1.0 if timeout_s is None else timeout_s

    def recv(self, size: int) -> bytes:
        """Some bytes; empty at the end.

        Raises:
            TimeoutError: nothing came in time.
        """
        if not self._rest:
            data = self._channel.receive(self._timeout_s)
            if data is None:
                return b""
            if not data:
                raise TimeoutError
            self._rest = data
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def send(self, data: bytes) -> int:
        """Send all of it; how much that was."""
        self._channel.send(data)
        return len(data)

    def close(self) -> None:
        """End the connection."""
        self._closed = True
        self._channel.close()


def log_in(channel: Relayed, name: str, login: GuestLogin, pins: KnownHosts, timeout_s: float) -> paramiko.SSHClient:
    """Log in to a guest.

    Args:
        channel: a connection to its SSH port.
        name: under which its key is pinned.
        login: with what.
        pins: the keys of guests.
        timeout_s: longest wait for each part of it.

    Raises:
        GuestSilent: what answers is no SSH server, or too slow.
        GuestRefused: it lets none of this in (code `guest.auth`).
        HostKeyError: it shows another key than the pinned one.
    """
    import paramiko

    client = paramiko.SSHClient()
    target = Target(host=name, address=name, port=22, user=login.user)
    known = pins.pins(name)
    if known and pins.mode != "off":
        add_pins(client, target, known)
    client.set_missing_host_key_policy(pinning_policy(pins, target))
    sock: Any = _Socket(channel)
    try:
        client.connect(
            name,
            username=login.user,
            password=login.password or None,
            key_filename=login.key_file or None,
            allow_agent=login.own_keys and not login.key_file,
            look_for_keys=login.own_keys and not login.key_file,
            timeout=timeout_s,
            banner_timeout=timeout_s,
            auth_timeout=timeout_s,
            channel_timeout=timeout_s,
            sock=sock,
        )
    except BaseException as error:
        client.close()
        channel.close()
        raise _explained(error, name, login, pins) from error
    return client


def _explained(error: BaseException, name: str, login: GuestLogin, pins: KnownHosts) -> BaseException:
    """One sentence for each way a login fails."""
    import paramiko

    if isinstance(error, CloudError) or not isinstance(error, Exception):
        return error
    if isinstance(error, paramiko.BadHostKeyException):
        try:
            pins.check(name, 22, error.key.get_name(), error.key.asbytes())
        except HostError as refusal:
            return refusal
    is_no_key = isinstance(error, paramiko.SSHException) and "authentication methods" in str(error)
    if isinstance(error, paramiko.AuthenticationException | FileNotFoundError | PermissionError) or is_no_key:
        return GuestRefused(
            f"the guest lets {login.user} not in",
            evidence=str(error),
            remedy="Say who by --user, and with what by --identity FILE or --password-stdin; a VM's `ssh_keys` and "
            "`users` at its first boot let keys in",
            code="guest.auth",
        )
    text = "the guest does not speak SSH, or too slowly"
    return GuestSilent(text, evidence=str(error) or type(error).__name__, remedy="Wait until it has booted")


def run(client: paramiko.SSHClient, words: Sequence[str], *, stdin: bytes, timeout_s: float) -> GuestResult:
    """Run a program in the guest and wait for its end.

    The words are quoted for the login shell there, and reach the program as they are. One that does not end in time, or
    that is not waited for any more (Ctrl-C), is ended as far as the guest's own `kill` can do that.

    Raises:
        GuestSilent: it did not end in time (code `guest.slow`), or the connection was lost.
    """
    import paramiko

    program = _Program(client, words)
    try:
        program.start(stdin, timeout_s)
        status = program.wait(timeout_s)
    except (paramiko.SSHException, OSError, EOFError) as error:
        evidence = str(error) or type(error).__name__
        raise GuestSilent("the connection to the guest was lost", evidence=evidence) from error
    finally:
        program.close()
    if status is None:
        raise GuestSilent("the connection to the guest was lost", evidence=f"{words[0]} ended without an exit status")
    return GuestResult(status, *program.output())


class _Program:
    """One program in a guest.

    A shell of the guest says its own number first, so that what it runs can be ended: sshd ends nothing when a session
    is closed, and takes signals for it only where it may (RFC 4254, 6.9; OpenSSH not for root).
    """

    def __init__(self, client: paramiko.SSHClient, words: Sequence[str]) -> None:
        self.client = client
        self.words = words
        self.word = f"cloudrepo-{secrets.token_hex(8)}"
        self.out, self.err = bytearray(), bytearray()
        self.stream: SshStream | None = None
        self.is_over = False

    def start(self, stdin: bytes, timeout_s: float) -> None:
        """Start it, and give it its input."""
        self.stream = self._session(timeout_s)
        self.stream.channel.exec_command(shlex.join(["sh", "-c", _FIRST_ITS_NUMBER, self.word, *self.words]))
        threading.Thread(target=_feed, args=(self.stream, stdin), name="guest-stdin", daemon=True).start()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status; None when the connection ended without one.

        Raises:
            GuestSilent: it did not end in time.
        """
        assert self.stream is not None  # noqa: S101  start() was called
        until = time.monotonic() + timeout_s
        while (parts := self.stream.receive(1.0)) is not None:
            for kept, part in zip((self.out, self.err), parts, strict=True):
                kept += part[: max(0, MOST_OUTPUT - len(kept))]
            if time.monotonic() > until:
                text = f"{self.words[0]} did not end within {timeout_s:g} s in the guest"
                raise GuestSilent(text, code="guest.slow")
        self.is_over = True
        return self.stream.status(END_S)

    def output(self) -> tuple[bytes, bytes]:
        """Both outputs, without the number."""
        found = self._number()
        out = bytes(self.out)
        return out[: found.start()] + out[found.end() :] if found is not None else out, bytes(self.err)

    def close(self) -> None:
        """End it if it runs, and the session."""
        if self.stream is not None:
            if not self.is_over:
                self._end()
            self.stream.close()

    def _number(self) -> re.Match[bytes] | None:
        return re.search(rb"%s ([0-9]+)\n" % self.word.encode(), self.out)

    def _end(self) -> None:
        """Ask the guest to end what the shell runs; one that has no `kill` keeps it."""
        import paramiko

        found = self._number()
        if found is None:
            return
        try:
            killer = self._session(END_S)
            killer.channel.exec_command(shlex.join(["sh", "-c", _KILL, "sh", found[1].decode()]))
            killer.status(END_S)
            killer.close()
        except (paramiko.SSHException, OSError, EOFError):
            return  # the connection is gone

    def _session(self, timeout_s: float) -> SshStream:
        transport = self.client.get_transport()
        assert transport is not None  # noqa: S101  log_in() succeeded
        return SshStream(transport.open_session(timeout=timeout_s), lambda: None)


def _feed(stream: SshStream, data: bytes) -> None:
    """Write a program's input; it may end before it has read all."""
    try:
        if data:
            stream.send(data)
    except OSError:
        return
    stream.finish()
