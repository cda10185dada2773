"""A real sshd for one test module: on loopback, a high port, own keys, as the current user."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")


@dataclass(frozen=True)
class PrivateSshd:
    """A running sshd.

    Attributes:
        port: on 127.0.0.1.
        user: who may log in: the current user.
        key_file: the private key that is let in.
        directory: where everything of it is.
        pid: of the listening process.
    """

    port: int
    user: str
    key_file: str
    directory: Path
    pid: int


def make_key(path: Path) -> str:
    """A new key pair without a passphrase; returns the public line."""
    path.unlink(missing_ok=True)
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)), check=True)
    return path.with_suffix(".pub").read_text()


def free_port() -> int:
    """A port of loopback that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def private_sshd(directory: Path, *extra: str, port: int = 0) -> Iterator[PrivateSshd]:
    """Start it; ended by its pid. `extra` are further lines of sshd_config."""
    assert SSHD is not None
    port = port or free_port()
    directory.mkdir(parents=True, exist_ok=True)
    make_key(directory / "host_key")
    if not (directory / "id").exists():
        make_key(directory / "id")
    (directory / "authorized_keys").write_text((directory / "id.pub").read_text())
    lines = (
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {directory}/host_key",
        f"AuthorizedKeysFile {directory}/authorized_keys",
        f"PidFile {directory}/sshd.pid",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "Subsystem sftp internal-sftp",
        "SetEnv SHLVL=2",  # bash then leaves the user's .bashrc alone
        *extra,
    )
    config = directory / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd separates its privileges
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen((SSHD, "-D", "-e", "-f", str(config)), stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_until_listening(port)
        yield PrivateSshd(port, getpass.getuser(), str(directory / "id"), directory, process.pid)
    finally:
        process.terminate()
        process.wait(10)


def wait_until_listening(port: int) -> None:
    """Until somebody listens on a port of loopback, at most 10 s."""
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < until, f"nothing listens on port {port}"
            time.sleep(0.02)
