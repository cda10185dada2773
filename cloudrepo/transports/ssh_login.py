"""One login: socket, host key, account; and one sentence for each way it fails."""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloudrepo.errors import HostError, HostUnreachable
from cloudrepo.known_hosts import KnownHosts
from cloudrepo.lab_guard import check_lab
from cloudrepo.ssh_config import SshOptions, Target, resolve

if TYPE_CHECKING:
    import paramiko

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what goes wrong is told once, by our errors

KEEPALIVE_S = 15
LOST_AFTER_MS = 15_000  # unanswered data for so long means that the connection is gone (TCP_USER_TIMEOUT)
CHECK_HOST = "check that the host is up and its cable is in, then try again"


class Login:
    """Makes one connection. Resets before the banner are tried again.

    A host that says nothing is given up soon (`connect_timeout_s`). One that was heard is there: it gets the longer
    `login_timeout_s`, since thirty menus that log in at once are slow, not down.

    Args:
        target: where to.
        options: keys and waits.
        known_hosts: the pins.
        through: the connection to a jump host.
        within_s: what the caller has left for all of it; None = as the options say.
    """

    def __init__(
        self,
        target: Target,
        options: SshOptions,
        known_hosts: KnownHosts,
        through: Callable[[str], paramiko.Transport],
        within_s: float | None = None,
    ) -> None:
        self.target = target
        self.options = options
        self.known_hosts = known_hosts
        self.through = through
        self.began = time.monotonic()
        limit_s = float("inf") if within_s is None else within_s
        self.silence_s = min(options.connect_timeout_s, limit_s)
        self.until = self.began + self.silence_s
        self.login_until = self.began + min(max(options.connect_timeout_s, options.login_timeout_s), limit_s)

    def run(self) -> paramiko.SSHClient:
        """Until logged in, or the time is up.

        Raises:
            HostError: in one of its kinds, why not.
        """
        check_lab(self.target.host, "" if self.target.proxy_command else self._first_hop())
        import paramiko

        pause_s = 0.05
        while True:
            client = paramiko.SSHClient()
            try:
                self._connect(client)
                return client
            except BaseException as error:
                client.close()
                if not self._is_reset(error) or time.monotonic() + pause_s > self.login_until:
                    raise self._explained(error) from error
                self.until = self.login_until
            # sshd at its MaxStartups resets some of many simultaneous logins; each comes back at its own time
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  spreads load, hides nothing
            pause_s = min(1.0, pause_s * 2)

    def look(self) -> tuple[str, bytes]:
        """Which key the host shows, its type and itself. Nothing is sent to it but what the protocol needs for that.

        Raises:
            HostError: why none was seen.
        """
        check_lab(self.target.host, "" if self.target.proxy_command else self._first_hop())
        import paramiko

        try:
            transport = paramiko.Transport(self._socket())
            try:
                prefer(transport, self.known_hosts.pins(self.target.host, self.target.port))
                transport.start_client(timeout=_until(self.login_until))
                key = transport.get_remote_server_key()
                return key.get_name(), key.asbytes()
            finally:
                transport.close()
        except BaseException as error:
            raise self._explained(error) from error

    def _first_hop(self) -> str:
        if not self.target.jumps:
            return self.target.address
        return resolve(self.target.jumps[0], self.options, is_jump=True).address

    def _left(self) -> float:
        return _until(self.until)

    def _connect(self, client: paramiko.SSHClient) -> None:
        target = self.target
        policy = pinning_policy(self.known_hosts, target)
        pins = self.known_hosts.pins(target.host, target.port)
        if pins and self.known_hosts.mode != "off":
            add_pins(client, target, pins)
        client.set_missing_host_key_policy(policy)
        sock = self._socket()
        keys: Any = list(target.key_files) or None  # the library takes a list; its stubs know only one name
        try:
            client.connect(
                target.address,
                port=target.port,
                username=target.user,
                key_filename=keys,
                allow_agent=not target.only_these_keys,
                look_for_keys=not target.only_these_keys and not self.options.key_file,
                timeout=_until(self.login_until),
                banner_timeout=min(self.silence_s, _until(self.login_until)),
                auth_timeout=_until(self.login_until),
                channel_timeout=_until(self.login_until),
                sock=sock,
            )
        except BaseException:
            sock.close()
            raise
        transport = client.get_transport()
        assert transport is not None  # noqa: S101  connect() succeeded
        transport.set_keepalive(KEEPALIVE_S)

    def _socket(self) -> Any:
        import paramiko

        target = self.target
        if target.proxy_command:
            return paramiko.ProxyCommand(target.proxy_command)
        if target.jumps:
            *_, last = target.jumps
            return self.through(last).open_channel(
                "direct-tcpip", (target.address, target.port), ("127.0.0.1", 0), timeout=self._left()
            )
        sock = socket.create_connection((target.address, target.port), timeout=self._left())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_AFTER_MS)
        return sock

    @staticmethod
    def _is_reset(error: BaseException) -> bool:
        """Whether the host ended it before the login: it is there. Silence is no reset."""
        import paramiko

        if isinstance(error, (ConnectionResetError, BrokenPipeError, EOFError)):
            return True
        if isinstance(error.__context__, TimeoutError):
            return False
        return type(error) is paramiko.SSHException and ("banner" in str(error) or "negotiation" in str(error))

    def _explained(self, error: BaseException) -> BaseException:
        """One sentence for each way a login fails."""
        import paramiko

        target = self.target
        where = f"{target.user}@{target.address} port {target.port}"
        if isinstance(error, HostError) or not isinstance(error, Exception):
            return error
        if isinstance(error, paramiko.BadHostKeyException):
            key = error.key
            try:
                self.known_hosts.check(target.host, target.port, key.get_name(), key.asbytes())
            except HostError as refusal:
                return refusal
        if isinstance(error, paramiko.PasswordRequiredException):
            return self._unreachable(
                "the private key needs its passphrase", str(error), "run `ssh-add` first", "host.auth"
            )
        if isinstance(error, paramiko.AuthenticationException):
            remedy = (
                f"try `ssh -o BatchMode=yes {target.user}@{target.address} true`, or `ssh-copy-id` with the right key"
            )
            return self._unreachable(f"{where} lets none of our keys in", str(error), remedy, "host.auth")
        if isinstance(error, FileNotFoundError) and self.options.key_file:
            remedy = "set ssh.key to the right file, or make one with `ssh-keygen -t ed25519`"
            return self._unreachable(f"there is no private key {self.options.key_file}", "", remedy, "host.auth")
        if isinstance(error, paramiko.SSHException) and "authentication methods" in str(error):
            remedy = "make a key with `ssh-keygen -t ed25519` and bring it to the host with `ssh-copy-id`"
            return self._unreachable("there is no SSH key to log in with", str(error), remedy, "host.auth")
        # the library ends a negotiation that ran out of time silently; what it then says is about the next step
        is_silence = isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError)
        if is_silence or "No existing session" in str(error):
            brief = f"no answer from {where} in {max(1, round(time.monotonic() - self.began))} s"
            return self._unreachable(brief, "", CHECK_HOST, "host.unreachable")
        return self._unreachable(
            f"no connection to {where}", str(error) or type(error).__name__, CHECK_HOST, "host.unreachable"
        )

    def _unreachable(self, brief: str, evidence: str, remedy: str, code: str) -> HostUnreachable:
        return HostUnreachable(self.target.host, brief, evidence=evidence, remedy=remedy, code=code)


def _until(moment: float) -> float:
    """Seconds left until then; never none, which some calls take for no limit."""
    return max(0.1, moment - time.monotonic())


def pinning_policy(known_hosts: KnownHosts, target: Target) -> paramiko.MissingHostKeyPolicy:
    """What paramiko asks about a key it does not know: ours decides, under the name the caller used."""
    import paramiko

    class Pinning(paramiko.MissingHostKeyPolicy):
        def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
            known_hosts.check(target.host, target.port, key.get_name(), key.asbytes())

    return Pinning()


def prefer(transport: paramiko.Transport, pins: dict[str, bytes]) -> None:
    """Ask for a key of a pinned type first: a host with keys of several types then shows the one to compare."""
    options = transport.get_security_options()
    known = tuple(options.key_types)
    pinned = tuple(kind for kind in known if kind in pins)
    options.key_types = (*pinned, *(kind for kind in known if kind not in pinned))


def add_pins(client: paramiko.SSHClient, target: Target, pins: dict[str, bytes]) -> None:
    """Tell paramiko the pins, so that it asks the host for a key of a pinned type."""
    import paramiko

    name = target.address if target.port == 22 else f"[{target.address}]:{target.port}"
    for kind, data in pins.items():
        try:
            client.get_host_keys().add(name, kind, paramiko.PKey.from_type_string(kind, data))
        except (paramiko.SSHException, ValueError):
            continue  # a type this library does not know cannot be asked for
