"""Hosts over SSH (paramiko): one connection per host, kept open, shared by all threads."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloudrepo.errors import HostUnreachable
from cloudrepo.host.message import remote_words
from cloudrepo.known_hosts import KnownHosts
from cloudrepo.ssh_config import SshOptions, Target, resolve
from cloudrepo.transports.ssh_login import CHECK_HOST, Login

if TYPE_CHECKING:
    import paramiko

MAX_SESSIONS = 10  # sshd_config(5), MaxSessions
SESSION_WAIT_S = 60.0  # for a session while as many others of this process are at work on the same host
BLOCK = 32768  # what an SFTP server is bound to take in one write


class SshStream:
    """A command on a host as a stream. Both outputs are drained together: neither can stall the other.

    Arrival is told by an event on the channel's two buffers, not by `Channel.fileno()`: that pipe is closed while the
    connection's thread may be about to write to it, which ends the whole connection, or writes to whoever got the
    number next.
    """

    def __init__(self, channel: paramiko.Channel, release: Callable[[], None]) -> None:
        self.channel = channel
        self._release = release
        self._arrived = threading.Event()
        channel.in_buffer.set_event(self._arrived)
        channel.in_stderr_buffer.set_event(self._arrived)

    def send(self, data: bytes) -> None:
        """Write all of it; raises OSError when the channel is gone."""
        self.channel.sendall(data)

    def finish(self) -> None:
        """Close stdin."""
        try:
            self.channel.shutdown_write()
        except (OSError, EOFError):
            pass  # the channel is gone: its end is met when reading

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """What came on stdout and stderr, None at the end of both."""
        channel = self.channel
        if not (channel.recv_ready() or channel.recv_stderr_ready() or channel.eof_received or channel.closed):
            self._arrived.wait(timeout_s)
        out = channel.recv(1 << 20) if channel.recv_ready() else b""
        err = channel.recv_stderr(1 << 20) if channel.recv_stderr_ready() else b""
        if not out and not err and (channel.eof_received or channel.closed):
            if channel.recv_ready() or channel.recv_stderr_ready():
                return b"", b""  # came in between; read it at the next call
            return None
        return out, err

    def status(self, timeout_s: float) -> int | None:
        """The exit status; None when there is none: an end without one is a failure, never a success."""
        if not self.channel.status_event.wait(timeout_s):
            return None
        status = self.channel.recv_exit_status()
        return None if status == -1 else status

    def close(self) -> None:
        """Close the channel and give its place back."""
        release, self._release = self._release, lambda: None
        self.channel.close()
        release()


class SftpFiles:
    """Files of a host by SFTP."""

    def __init__(self, sftp: paramiko.SFTPClient) -> None:
        self._sftp = sftp

    def size(self, path: str) -> int | None:
        """Bytes of a file, None when there is none."""
        try:
            return self._sftp.stat(path).st_size
        except FileNotFoundError:
            return None

    def make_parents(self, path: str) -> None:
        """Make the directories that `path` will be in."""
        parent = os.path.dirname(path)
        if parent in ("", "/"):
            return
        try:
            self._sftp.stat(parent)
        except FileNotFoundError:
            self.make_parents(parent)
            try:
                self._sftp.mkdir(parent, 0o755)
            except OSError:
                self._sftp.stat(parent)  # somebody else was faster, else this tells what is wrong

    def write(self, path: str, offset: int, blocks: Iterator[bytes]) -> None:
        """Write blocks from `offset` on, without waiting for each answer."""
        if self.size(path) is None:
            self._sftp.open(path, "w").close()
        with self._sftp.open(path, "r+") as file:
            file.truncate(offset)
            file.seek(offset)
            file.set_pipelined(True)
            for block in blocks:
                file.write(block)

    def home(self) -> str:
        """Where a login begins."""
        return self._sftp.normalize(".")

    def rename(self, path: str, target: str) -> None:
        """Put `path` in the place of `target`, at once."""
        self._sftp.posix_rename(path, target)


class Connection:
    """One live connection; made by `SshTransport`."""

    def __init__(self, target: Target, client: paramiko.SSHClient) -> None:
        transport = client.get_transport()
        assert transport is not None  # noqa: S101  connect() succeeded
        self.target = target
        self.client = client
        self.transport = transport
        self.places = threading.BoundedSemaphore(MAX_SESSIONS)
        self._opening = threading.Lock()
        self.home = ""

    @property
    def is_alive(self) -> bool:
        """Whether it still stands, as far as is known."""
        return self.transport.is_active()

    @contextmanager
    def place(self, timeout_s: float) -> Iterator[Callable[[], None]]:
        """Take one of the sessions that sshd grants; the caller keeps it by taking over the release."""
        if not self.places.acquire(timeout=timeout_s):
            raise HostUnreachable(
                self.target.host,
                f"all {MAX_SESSIONS} sessions of the connection are in use",
                remedy="close a console or wait for a running operation",
                code="host.busy",
            )
        try:
            yield self.places.release
        except BaseException:
            self.places.release()
            raise

    def session(self, timeout_s: float, patience_s: float) -> SshStream:
        """A new session, not yet started.

        Args:
            timeout_s: how long the host may take to answer.
            patience_s: how long other threads' work is waited for when all sessions are in use.

        Raises:
            HostUnreachable: all sessions are in use, or sshd grants none.
            OSError, EOFError, paramiko.SSHException: the connection is dead.
        """
        import paramiko

        until = time.monotonic() + patience_s
        with self.place(patience_s) as release:
            while True:
                try:
                    with self._opening:  # the library keeps one failure for all threads that open channels
                        channel = self.transport.open_session(timeout=timeout_s)
                    return SshStream(channel, release)
                except paramiko.ChannelException as error:
                    if time.monotonic() > until:  # a lower MaxSessions than the default: wait for a place
                        raise HostUnreachable(
                            self.target.host, "sshd grants no further session", evidence=str(error), code="host.busy"
                        ) from error
                    time.sleep(0.05)


class SshTransport:
    """Reaches hosts over SSH.

    Args:
        options: account, keys, pins, waits.
    """

    keeps_open = True

    def __init__(self, options: SshOptions) -> None:
        self.options = options
        self.has_helper = options.privilege == "helper"
        self.known_hosts = KnownHosts(options.known_hosts.expanduser(), options.host_keys)
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._connections: dict[str, Connection] = {}
        self._retired: list[Connection] = []  # took no new session in time; others may still run on them

    def open_message(self, host: str, message: bytes) -> SshStream:
        """Start the constant command and send it a message."""
        connection, stream = self._session(host, self.options.connect_timeout_s, SESSION_WAIT_S)
        words = remote_words(connection.target.user, has_helper=self.has_helper)
        return self._start(host, stream, shlex.join(words), message)

    def open_shell(self, host: str, line: str, timeout_s: float) -> SshStream:
        """Start a shell line; the account's login shell runs it."""
        answer_s = min(timeout_s, self.options.connect_timeout_s)
        _, stream = self._session(host, answer_s, answer_s, within_s=timeout_s)
        return self._start(host, stream, line, b"")

    def environment(self, host: str) -> dict[str, str]:
        """Nothing: a real host is what it is."""
        return {}

    @contextmanager
    def files(self, host: str) -> Iterator[SftpFiles]:
        """The host's files, over a session of their own."""
        import paramiko

        connection, stream = self._session(host, self.options.connect_timeout_s, SESSION_WAIT_S)
        try:
            stream.channel.invoke_subsystem("sftp")
            with paramiko.SFTPClient(stream.channel) as sftp:
                yield SftpFiles(sftp)
        except (paramiko.SSHException, EOFError, OSError) as error:
            if isinstance(error, OSError) and connection.is_alive:
                raise  # a file's trouble, not the connection's
            raise self._lost(host, error) from error
        finally:
            stream.close()

    def home(self, host: str) -> str:
        """The home directory of the account that logs in; asked once per connection."""
        connection = self.connection(host)
        if not connection.home:
            with self.files(host) as files:
                connection.home = files.home()
        return connection.home

    def connect_port(self, host: str, port: int) -> paramiko.Channel:
        """A connection to a port on the host's own loopback."""
        import paramiko

        try:
            return self.connection(host).transport.open_channel(
                "direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=self.options.connect_timeout_s
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostUnreachable(
                host, f"no connection to port {port} of the host", evidence=str(error), code="host.port"
            ) from error

    def shown_key(self, host: str) -> tuple[str, bytes]:
        """The key that a host shows now, its type and itself, over a connection of its own and without a login.

        Raises:
            HostError: it shows none.
        """
        target = resolve(host, self.options)
        return Login(target, self.options, self.known_hosts, self._through).look()

    def close(self, host: str | None = None) -> None:
        """Drop the connection to one host, or all."""
        with self._guard:
            names = list(self._connections) if host is None else [host]
            dropped = [self._connections.pop(name) for name in names if name in self._connections]
            if host is None:
                dropped += self._retired
                self._retired = []
        for connection in dropped:
            connection.client.close()

    def connection(self, host: str, *, is_jump: bool = False, within_s: float | None = None) -> Connection:
        """The connection to a host, made or made anew when there is none that lives.

        Args:
            host: the name the caller knows it by.
            is_jump: whether it is only gone through.
            within_s: longest wait for all of it; None = as the options say.

        Raises:
            HostUnreachable, HostKeyError, HostError: why there is none.
        """
        with self._guard:
            lock = self._locks.setdefault(host, threading.Lock())
        with lock:
            known = self._connections.get(host)
            if known is not None and known.is_alive:
                return known
            target = resolve(host, self.options, is_jump=is_jump)
            fresh = Connection(target, Login(target, self.options, self.known_hosts, self._through, within_s).run())
            with self._guard:
                self._connections[host] = fresh
            if known is not None:
                known.client.close()
            return fresh

    def _through(self, jump: str) -> paramiko.Transport:
        return self.connection(jump, is_jump=True).transport

    def _session(
        self, host: str, timeout_s: float, patience_s: float, *, within_s: float | None = None
    ) -> tuple[Connection, SshStream]:
        """A session; a kept connection that turns out dead is replaced once, as nothing was sent on it yet."""
        import paramiko

        for attempt in (1, 2):
            connection = self.connection(host, within_s=within_s)
            try:
                return connection, connection.session(timeout_s, patience_s)
            except (paramiko.SSHException, OSError, EOFError) as error:
                self._retire(host, connection)
                if attempt == 2:
                    raise self._lost(host, error) from error
        raise AssertionError("unreachable")

    def _retire(self, host: str, connection: Connection) -> None:
        with self._guard:
            if self._connections.get(host) is connection:
                del self._connections[host]
            if connection.is_alive:
                self._retired.append(connection)
                return
        connection.client.close()

    def _start(self, host: str, stream: SshStream, line: str, message: bytes) -> SshStream:
        import paramiko

        try:
            stream.channel.exec_command(line)
            if message:
                try:
                    stream.send(message)
                except OSError:
                    pass  # the command ended first: what it says on stderr tells why
        except (paramiko.SSHException, OSError, EOFError) as error:
            stream.close()
            raise self._lost(host, error) from error
        return stream

    @staticmethod
    def _lost(host: str, error: BaseException) -> HostUnreachable:
        return HostUnreachable(
            host,
            "the connection was lost",
            evidence=str(error) or type(error).__name__,
            remedy=CHECK_HOST,
            code="host.lost",
        )
