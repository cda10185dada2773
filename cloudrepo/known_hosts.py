"""Our own file of pinned host keys, in OpenSSH's format, safe for several processes at once."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import ipaddress
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudrepo.errors import HostKeyError

log = logging.getLogger("cloudrepo.ssh")

COMPARE = "compare with `ssh-keygen -lf` of /etc/ssh/ssh_host_*_key.pub on the host's own screen"


def fingerprint(key: bytes) -> str:
    """The fingerprint as `ssh-keygen -l` writes it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


class KnownHosts:
    """The pins of all hosts.

    Args:
        path: the file; made at the first pin, 0600, its directory too.
        mode: `accept-new` pins a host at first contact, `strict` refuses hosts without a pin,
            `off` checks and writes nothing.
    """

    def __init__(self, path: Path, mode: str = "accept-new") -> None:
        self.path = path
        self.mode = mode

    def pins(self, host: str, port: int = 22) -> dict[str, bytes]:
        """The pinned keys of a host: key type → key, as it travels in the protocol."""
        wanted = entry_name(host, port)
        found: dict[str, bytes] = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        for line in lines:
            words = line.split()
            if len(words) >= 3 and not line.startswith(("#", "@")) and wanted in words[0].split(","):
                try:
                    found[words[1]] = base64.b64decode(words[2], validate=True)
                except ValueError:
                    continue  # a damaged line pins nothing
        return found

    def check(self, host: str, port: int, kind: str, key: bytes) -> None:
        """Accept the key a host shows, pinning it at first contact if the mode says so.

        Raises:
            HostKeyError: another key is pinned, or none is and the mode is strict.
        """
        if self.mode == "off":
            return
        pins = self.pins(host, port)
        if not pins and self.mode == "accept-new":
            pins = self._pin(host, port, kind, key)
        if pins.get(kind) == key:
            return
        if pins:
            raise self._changed(host, port, kind, key, pins)
        raise HostKeyError(
            host,
            "the host is not pinned, and ssh.host_keys is strict",
            evidence=f"it shows {kind} {fingerprint(key)}",
            remedy=f"{COMPARE}, then {self._way_in(host, port)}",
            code="host.key.unknown",
            details={"shown": fingerprint(key)},
        )

    def replace(self, host: str, port: int, kind: str, key: bytes) -> None:
        """Pin this key of a host, which a person has compared, and no other."""
        with self._locked():
            self._write(host, port, kind, key)
        log.warning("%s: pinned its key %s %s in %s, as asked", host, kind, fingerprint(key), self.path)

    def _pin(self, host: str, port: int, kind: str, key: bytes) -> dict[str, bytes]:
        """Add a pin, unless another process was first; returns the pins that hold."""
        with self._locked():
            found = self.pins(host, port)
            if found:
                return found
            self._write(host, port, kind, key)
        log.warning("%s: first contact, pinned its key %s %s in %s", host, kind, fingerprint(key), self.path)
        return {kind: key}

    def _write(self, host: str, port: int, kind: str, key: bytes) -> None:
        """The file with this pin in the place of all others of the host; under the lock."""
        name = entry_name(host, port)
        before = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        kept = [line for line in before.splitlines() if name not in line.partition(" ")[0].split(",")]
        self._replace("".join(f"{line}\n" for line in [*kept, f"{name} {kind} {base64.b64encode(key).decode()}"]))

    def _replace(self, text: str) -> None:
        number, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with open(number, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(number)
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _way_in(self, host: str, port: int) -> str:
        """How a key comes to be pinned; what is gone through to a worker has a name, and is no worker."""
        try:
            return f"run `./cloud worker trust {ipaddress.ip_address(host)}`"
        except ValueError:
            return f"run `ssh-keygen -f {self.path} -R '{entry_name(host, port)}'`, and connect with accept-new"

    def _changed(self, host: str, port: int, kind: str, key: bytes, pins: dict[str, bytes]) -> HostKeyError:
        pinned_kind = kind if kind in pins else next(iter(pins))
        pinned, shown = fingerprint(pins[pinned_kind]), fingerprint(key)
        return HostKeyError(
            host,
            "the host shows another key than the pinned one; nothing was sent to it",
            evidence=f"pinned {pinned_kind} {pinned}, shown {kind} {shown}",
            remedy=f"if the host was really installed anew, {COMPARE}, and {self._way_in(host, port)}; "
            "else somebody may stand between",
            details={"pinned": pinned, "shown": shown},
        )


def entry_name(host: str, port: int) -> str:
    """How OpenSSH names a host in the file."""
    return host if port == 22 else f"[{host}]:{port}"
