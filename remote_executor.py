"""The only room that knows how hosts are reached: commands, plans, files and tunnels over SSH.

Typical use::

    executor = RemoteExecutor("ubuntu")
    executor.execute_direct("10.0.10.1", "nproc").stdout        # for people: a shell line
    executor.run_plan("10.0.10.1", plan)                        # for our code: a plan, no shell
"""

from __future__ import annotations

import copy
import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cloudrepo.errors import CloudError, HostError
from cloudrepo.gate import Gate
from cloudrepo.host import json_text
from cloudrepo.host.idle import IdleRunners
from cloudrepo.host.message import HELPERS_HOME, encode
from cloudrepo.host.session import OnEvent, PlanSession
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import Checksum, Plan, PlanResult, Step
from cloudrepo.settings import Settings
from cloudrepo.ssh_config import DEFAULT_USER, SshOptions
from cloudrepo.transfer import file_digest, read_blocks
from cloudrepo.transports import Channel, Transport
from cloudrepo.transports.relayed import SerialChannel
from cloudrepo.transports.ssh import SshTransport

__all__ = ["Gate", "RemoteExecutor", "SerialChannel", "Tunnel", "Upload"]

T = TypeVar("T")

UNREACHABLE = 255  # as ssh(1)
OUT_OF_TIME = 124  # as timeout(1)
DEFAULT_KNOWN_HOSTS = Path("~/.ssh/known_hosts_cloudrepo")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that has arrived.

    Attributes:
        path: where it is on the host, absolute.
        size: bytes.
        sha256: of the whole, in hex, as the host computed it.
        sent: bytes sent by this call.
        resumed_from: bytes of an earlier, cut upload that were kept.
    """

    path: str
    size: int
    sha256: str
    sent: int
    resumed_from: int


class RemoteExecutor:
    """Runs things on hosts, over one persistent connection each. All methods may be called from several threads.

    Args:
        remote_user: account on the hosts; `User` in the user's SSH configuration wins over the default only.
        settings: where key, pins, port and waits come from; the options below win over it.
        key_file: private key; empty = `IdentityFile`, the agent, the default keys.
        known_hosts: file of pinned host keys; by default `~/.ssh/known_hosts_cloudrepo`, and an installation
            passes the one beside its state file.
        host_keys: `accept-new`, `strict` or `off`.
        connect_timeout_s: longest wait for a first sign of a host.
        port: of sshd.
        config_file: the user's SSH configuration.
        privilege: `sudo` or `helper`; empty = as set.
        transport: reaches the hosts; SSH when none is given.
    """

    def __init__(
        self,
        remote_user: str = DEFAULT_USER,
        *,
        settings: Settings | None = None,
        key_file: str | None = None,
        known_hosts: str | os.PathLike[str] | None = None,
        host_keys: str | None = None,
        connect_timeout_s: float | None = None,
        port: int | None = None,
        config_file: str | os.PathLike[str] = "~/.ssh/config",
        privilege: str = "",
        transport: Transport | None = None,
    ) -> None:
        settings = settings or Settings.of(_environment())
        ssh = settings.ssh
        self.remote_user = ssh.user if remote_user == DEFAULT_USER else remote_user
        self.options = SshOptions(
            user=self.remote_user,
            port=ssh.port if port is None else port,
            key_file=ssh.key if key_file is None else key_file,
            known_hosts=Path(known_hosts or ssh.known_hosts or DEFAULT_KNOWN_HOSTS).expanduser(),
            host_keys=host_keys or ssh.host_keys,
            connect_timeout_s=ssh.connect_timeout if connect_timeout_s is None else connect_timeout_s,
            login_timeout_s=ssh.login_timeout,
            config_file=Path(config_file),
            privilege=privilege or settings.host.privilege,
        )
        self.transport: Transport = transport or SshTransport(self.options)
        self._runners = IdleRunners() if self.transport.keeps_open else None

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────

    def execute_direct(
        self, remote_ip: str, command: str | Sequence[str], timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the login account and wait for it. For people; our own code runs plans.

        Args:
            remote_ip: the host.
            command: a shell line, run as given, or a sequence of words.
            timeout: seconds for everything, the connection included. A command that takes longer is let go:
                its streams are closed, sshd does not end it.

        Returns:
            The exit status and both texts. An unreachable host, or a connection that ends without an exit
            status, is 255; out of time is 124; `stderr` ends with the reason.
        """
        until = time.monotonic() + timeout
        line = command if isinstance(command, str) else shlex.join(command)
        out, err = bytearray(), bytearray()

        def completed(status: int, reason: str = "") -> subprocess.CompletedProcess[str]:
            text = err.decode("utf-8", "replace")
            text += ("\n" if text and not text.endswith("\n") else "") + reason if reason else ""
            return subprocess.CompletedProcess(command, status, out.decode("utf-8", "replace"), text)

        try:
            stream = self.transport.open_shell(remote_ip, line, timeout)
        except HostError as error:
            return completed(UNREACHABLE, str(error))
        try:
            stream.finish()
            while True:
                left = until - time.monotonic()
                parts = stream.receive(max(0.0, left))
                if parts is None:
                    break
                out += parts[0]
                err += parts[1]
                if left <= 0:
                    return completed(OUT_OF_TIME, f"{remote_ip}: out of time after {timeout:g} s")
            status = stream.status(max(0.5, until - time.monotonic()))
            if status is None:
                return completed(UNREACHABLE, f"{remote_ip}: the connection ended without an exit status")
            return completed(status)
        finally:
            stream.close()

    # ── plans ───────────────────────────────────────────────────────────────────────────────────────────

    def run_plan(
        self,
        host: str,
        plan: Plan,
        *,
        on_event: OnEvent | None = None,
        gates: Mapping[str, Gate] | None = None,
        stop: threading.Event | None = None,
    ) -> PlanResult:
        """Run a plan on a host. A failed step is no exception: it is the result's `failed`.

        Args:
            host: its address.
            plan: one message.
            on_event: called for each `StepEvent`, in this thread.
            gates: by name; each gate of the plan must be there. Closing one ends the plan before that stage.
            stop: when set, no further step is begun; the host still observes.

        Raises:
            HostUnreachable: no connection, or it was lost; `details["ended"]` names the steps that had ended.
            HostKeyError: the host shows another key than the pinned one.
            MessageRefused: another operation holds the lock, or a newer one was here; nothing was changed.
            HostError: the host cannot run messages: no python3, sudo asks for a password.
            ValueError: the plan has a gate that is not in `gates`.
        """
        return PlanSession(
            self.transport, host, plan, on_event=on_event, gates=gates, stop=stop, runners=self._runners
        ).run()

    def gather(self, work: Mapping[str, Callable[[], T]]) -> dict[str, T | CloudError]:
        """Do something for each host, all at once; the answers, or what went wrong, by host.

        An error that is no `CloudError` is a mistake of ours: it is raised once all others have ended.
        """
        if not work:
            return {}
        with ThreadPoolExecutor(max_workers=len(work), thread_name_prefix="host") as pool:
            futures = {host: pool.submit(call) for host, call in work.items()}
            results: dict[str, T | CloudError] = {}
            for host, future in futures.items():
                try:
                    results[host] = future.result()
                except CloudError as error:
                    results[host] = error
            return results

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────

    def home(self, host: str) -> str:
        """The absolute home directory of the login account; asked once per connection."""
        return self.transport.home(host)

    def images_home(self, host: str) -> str:
        """What `~` means in the place of images on a host.

        The home of the login account, or with `host.privilege: helper` a folder of root's: in its own home the account
        could put another directory in the place of ours.
        """
        return HELPERS_HOME if self.transport.has_helper else self.home(host)

    def expand(self, host: str, path: str) -> str:
        """A path with `~` or `~/` replaced by the home directory on the host."""
        return self.home(host) + path[1:] if path == "~" or path.startswith("~/") else path

    def upload(
        self,
        host: str,
        local_path: str | os.PathLike[str],
        remote_path: str,
        *,
        installation: str = "",
        progress: Callable[[int, int], None] | None = None,
        resume: bool = True,
    ) -> Upload:
        """Bring a file to a host, whole or not at all.

        It is sent to a `.part` file named after its content, checked by SHA-256 on the host, then renamed. What
        an earlier cut call left is kept when its checksum equals that of the same part here.

        Args:
            host: where to.
            local_path: the file here.
            remote_path: absolute, or below `~`; its directories are made as the login account.
            installation: in whose store the file is to be; a helper looks into no other. "" = in none.
            progress: called with bytes that are there and bytes in all.
            resume: whether what is there is used.

        Raises:
            HostError: the host cannot be reached, has no room, or got other bytes than were sent.
            OSError: the local file cannot be read.
        """
        local, target = Path(local_path), self.expand(host, remote_path)
        size, digest = local.stat().st_size, file_digest(local)
        part = f"{target}.{digest[:16]}.part"
        report = progress or (lambda done, total: None)
        try:
            with self.transport.files(host) as files:
                files.make_parents(target)
                have = (files.size(part) or 0) if resume else 0
            if have and (have > size or self._checksum(host, part, installation, have) != file_digest(local, have)):
                have = 0
            with self.transport.files(host) as files:
                files.write(part, have, read_blocks(local, have, size, report))
            found = self._checksum(host, part, installation)
            if found != digest:
                raise HostError(
                    host,
                    f"{target} did not arrive as it was sent",
                    evidence=f"SHA-256 {found or 'missing'}, wanted {digest}",
                    remedy="try again; nothing stands under its name",
                    code="host.upload",
                )
            with self.transport.files(host) as files:
                files.rename(part, target)
        except OSError as error:
            raise HostError(
                host,
                f"could not write {target}",
                evidence=str(error) or type(error).__name__,
                remedy="check room and rights of that directory on the host",
                code="host.upload",
            ) from error
        return Upload(path=target, size=size, sha256=digest, sent=size - have, resumed_from=have)

    def _checksum(self, host: str, path: str, installation: str, length: int = 0) -> str:
        act = Checksum(path=path, length=length, timeout_s=600)
        plan = Plan(installation=installation, observe=(Step(name="checksum", label=f"check {path}", act=act),))
        answer = self.run_plan(host, plan).observed["checksum"]
        try:
            return str(json_text.loads(answer.out)["sha256"]) if answer.status == 0 else ""
        except json_text.NOT_UNDERSTOOD:
            return ""

    # ── tunnels ─────────────────────────────────────────────────────────────────────────────────────────

    def open_tunnel(self, host: str, remote_port: int, *, local_port: int = 0) -> Tunnel:
        """Make a port of the host's own loopback reachable at one of ours.

        Raises:
            HostError: the host cannot be reached, or nothing listens there.
        """
        self.transport.connect_port(host, remote_port).close()  # said now rather than to the first visitor
        return Tunnel(lambda: self.transport.connect_port(host, remote_port), local_port)

    def open_serial(self, host: str, socket_path: str) -> SerialChannel:
        """Both ways to a Unix socket on the host, such as a serial console.

        Raises:
            HostError: the host cannot be reached, or nothing listens on that socket.
        """
        return self._relayed(host, {"socket": socket_path}, socket_path)

    def open_guest_ssh(self, node: str, installation: str, vlan_id: int, address: str) -> SerialChannel:
        """Both ways to the SSH port of a guest, from the namespace of its link's VLAN on the network node.

        Args:
            node: the network node.
            installation: whose VLAN it is.
            vlan_id: of a link.
            address: of the guest there; one that our DHCP server keeps for a machine.

        Raises:
            HostError: the node cannot be reached, or nothing answers there (code `host.socket`).
        """
        asked = {"installation": installation, "vlan": vlan_id, "address": address}
        return self._relayed(node, asked, f"port 22 of {address}")

    def _relayed(self, host: str, asked: Mapping[str, Any], name: str) -> SerialChannel:
        stream = self.transport.open_message(host, encode("relay", asked, has_helper=self.transport.has_helper))
        try:
            return SerialChannel(host, name, stream)
        except BaseException:
            stream.close()
            raise

    def another(self) -> RemoteExecutor:
        """One with connections of its own to the same hosts: what is dropped there disturbs nobody here."""
        twin = copy.copy(self)
        if isinstance(self.transport, SshTransport):
            twin.transport = SshTransport(self.options)
        twin._runners = IdleRunners() if twin.transport.keeps_open else None
        return twin

    def drop(self, host: str) -> None:
        """Drop the connection to one host: what hangs on it fails, and the next call makes another."""
        if self._runners is not None:
            self._runners.drop(host)
        self.transport.close(host)

    def close(self) -> None:
        """Drop all connections; the next call makes them anew."""
        if self._runners is not None:
            self._runners.close()
        self.transport.close()

    def __enter__(self) -> RemoteExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Tunnel:
    """A listener on 127.0.0.1 whose visitors reach a port of a host; ends with its context.

    Attributes:
        port: where it listens.
    """

    def __init__(self, connect: Callable[[], Channel], local_port: int = 0) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", local_port))
        self.port: int = self._listener.getsockname()[1]
        self._guard = threading.Lock()
        self._open: set[Any] = set()
        self._is_closed = False
        threading.Thread(target=self._accept, name=f"tunnel-{self.port}", daemon=True).start()

    @property
    def address(self) -> str:
        """What a viewer is given."""
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening and end all visits."""
        with self._guard:
            self._is_closed = True
            ends = list(self._open)
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        except OSError:
            pass  # some systems refuse it on listeners; closing is enough there
        self._listener.close()
        for end in ends:
            _end(end)

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(visitor,), daemon=True).start()

    def _serve(self, visitor: socket.socket) -> None:
        try:
            far = self._connect()
        except CloudError:
            visitor.close()
            return
        with self._guard:
            self._open |= {visitor, far}
            is_closed = self._is_closed
        if not is_closed:
            back = threading.Thread(target=_copy, args=(far, visitor), daemon=True)
            back.start()
            _copy(visitor, far)
            back.join()
        for end in (visitor, far):
            _end(end)
        with self._guard:
            self._open -= {visitor, far}


def _copy(source: Any, target: Any) -> None:
    """Until either side ends; then both are ended, so that the other direction ends too."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass  # a visitor that goes away is the normal end of a visit
    for end in (source, target):
        _shut(end)


def _shut(end: Any) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except (OSError, EOFError):
        pass  # it was shut already


def _end(end: Any) -> None:
    _shut(end)
    end.close()


def _environment() -> dict[str, Any]:
    """The variables about the way to hosts, for an executor that was given no settings."""
    names = {
        "CLOUDREPO_SSH_KEY": "ssh.key",
        "CLOUDREPO_SSH_KNOWN_HOSTS": "ssh.known_hosts",
        "CLOUDREPO_HOST_PRIVILEGE": "host.privilege",
    }
    return {key: os.environ[name] for name, key in names.items() if os.environ.get(name)}
