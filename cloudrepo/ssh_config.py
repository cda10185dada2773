"""What is known of the way to a host before connecting: our options and the user's `~/.ssh/config`."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudrepo.errors import HostError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.late_module import defer

defer("invoke")  # paramiko wants it for `Match exec` alone, which `MatchExec` does; it takes as long as paramiko itself

DEFAULT_USER = "ubuntu"


@dataclass(frozen=True, kw_only=True)
class SshOptions:
    """How hosts are reached.

    Attributes:
        user: account on the hosts. `User` of the user's SSH configuration counts only when this is the default.
        port: port of sshd; `Port` of the configuration counts only when this is 22.
        key_file: private key; empty = `IdentityFile`, the agent, the user's default keys.
        known_hosts: file of pinned keys.
        host_keys: `accept-new`, `strict` or `off`.
        connect_timeout_s: longest wait for a first sign of the host.
        login_timeout_s: longest wait for connection and login, retries included, once the host was heard.
        config_file: the user's SSH configuration.
        privilege: `sudo` = the account is root there; `helper` = it may run the installed helper.
    """

    user: str = DEFAULT_USER
    port: int = 22
    key_file: str = ""
    known_hosts: Path = Path("~/.ssh/known_hosts_cloudrepo")
    host_keys: str = "accept-new"
    connect_timeout_s: float = 5.0
    login_timeout_s: float = 30.0
    config_file: Path = Path("~/.ssh/config")
    privilege: str = "sudo"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One end of a connection, resolved.

    Attributes:
        host: the name the caller used; pins are kept under it.
        address: where to connect to.
        port: TCP port.
        user: account.
        key_files: private keys to try, in order, that exist.
        only_these_keys: neither the agent nor default keys are tried.
        jumps: hosts to go through, first one first (`ProxyJump`).
        proxy_command: a command whose streams are the connection (`ProxyCommand`).
    """

    host: str
    address: str
    port: int
    user: str
    key_files: tuple[str, ...] = ()
    only_these_keys: bool = False
    jumps: tuple[str, ...] = ()
    proxy_command: str = ""


class MatchExec:
    """Runs the commands of `Match exec` as ssh does: by the account's shell, without an input.

    paramiko would have invoke do it, which reads what is typed into the menu meanwhile.
    """

    def __init__(self, ok: bool) -> None:
        self.ok = ok

    @classmethod
    def run(cls, command: str, **_how: object) -> MatchExec:
        """Whether the command succeeds."""
        shell, nothing = os.environ.get("SHELL") or "/bin/sh", subprocess.DEVNULL
        done = subprocess.run((shell, "-c", command), stdin=nothing, stdout=nothing, check=False)
        return cls(done.returncode == 0)


def read_config(path: Path, host: str) -> Mapping[str, Any]:
    """What the user's SSH configuration says of a host; empty without a file.

    Raises:
        HostError: the file cannot be understood.
    """
    path = path.expanduser()
    if not path.is_file():
        return {}
    import paramiko  # late: a start-up that contacts no host does without it
    import paramiko.config

    paramiko.config.invoke = MatchExec  # type: ignore[attr-defined]
    try:
        return paramiko.SSHConfig.from_path(str(path)).lookup(host)
    except (paramiko.SSHException, OSError, UnicodeError) as error:
        raise HostError(
            host,
            f"{path} cannot be understood",
            evidence=str(error),
            remedy="check it with `ssh -G HOST`",
            code="host.ssh_config",
        ) from error


def resolve(host: str, options: SshOptions, *, is_jump: bool = False) -> Target:
    """Where a host is and how to log in.

    Args:
        host: a worker's address or, for a jump, `[user@]host[:port]`.
        options: ours.
        is_jump: a jump host has its own account: `User`, else the local account, as in OpenSSH.

    Raises:
        HostError: the user's SSH configuration cannot be understood.
    """
    user, port = "", 0
    if is_jump:
        user, host, port = split_jump(host)
    config = read_config(options.config_file, host)
    given_user, given_port = (getpass.getuser(), 22) if is_jump else (options.user, options.port)
    if not user:
        user = config.get("user", given_user) if is_jump or given_user == DEFAULT_USER else given_user
    if not port:
        port = int(config.get("port", 22)) if given_port == 22 else given_port
    names = [options.key_file] if options.key_file else config.get("identityfile", [])
    paths = [Path(name).expanduser() for name in names]
    keys = tuple(str(path) for path in paths if options.key_file or path.is_file())
    jump = config.get("proxyjump", "none")
    command = config.get("proxycommand", "none")
    return Target(
        host=host,
        address=str(config.get("hostname", host)),
        port=port,
        user=str(user),
        key_files=keys,
        only_these_keys=config.get("identitiesonly", "no") == "yes" and bool(keys),
        jumps=() if jump.lower() == "none" else tuple(part.strip() for part in jump.split(",")),
        proxy_command="" if command.lower() == "none" or jump.lower() != "none" else command,
    )


def split_jump(text: str) -> tuple[str, str, int]:
    """User (or empty), host and port (or 0) of `[user@]host[:port]`; an IPv6 address stands in brackets."""
    user, _, rest = text.removeprefix("ssh://").rpartition("@")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    return user, host, int(port) if port.isdigit() else 0
