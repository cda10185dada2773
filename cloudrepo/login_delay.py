"""The pause after failed logins: it grows with each, is the same in all processes, and is never a lock.

`.cloudrepo/logins.json` holds, by name, how many failed lately. Names are kept as digests: somebody may have typed
a password there. A right password is taken after at most the longest pause, whoever else keeps failing with that
name, so that nobody can be kept out for good. A failure counts before the password is looked at, and is taken back
when it was right: many tries at once wait as many after one another do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudrepo.observations import this_boot

log = logging.getLogger(__name__)

FILE_NAME = "logins.json"
FIRST_S, LONGEST_S = 0.5, 8.0
FORGOTTEN_S = 900.0  # after the last failure
MOST_NAMES = 1000  # whoever invents names fills no disk
_DOUBLINGS = 10
_MOST_BYTES = 1 << 20

Record = dict[str, Any]


def pause_s(failures: int) -> float:
    """The pause before the next answer, in seconds."""
    return 0.0 if failures <= 0 else min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, _DOUBLINGS))


class LoginDelay:
    """The failures of all processes on one state file.

    Args:
        folder: where the file is; None = kept in this process only.
        clock: the monotonic clock.
        boot: which boot of this machine that clock belongs to.
    """

    def __init__(
        self, folder: Path | None, *, clock: Callable[[], float] = time.monotonic, boot: Callable[[], str] = this_boot
    ) -> None:
        self._path = None if folder is None else folder / FILE_NAME
        self._clock = clock
        self._boot = boot
        self._here: Record = {}
        self._lock = threading.Lock()

    def begin(self, username: str) -> float:
        """Count a try as failed, and say how long it waits before it is looked at, in seconds."""
        with self._kept() as (failures, key_of):
            entry = failures.setdefault(key_of(username), {"count": 0, "last": 0.0})
            wait_s = pause_s(entry["count"])
            entry["count"] += 1
            entry["last"] = self._clock()
            for key in sorted(failures, key=lambda one: failures[one]["last"])[:-MOST_NAMES]:
                del failures[key]
            return wait_s

    def succeeded(self, username: str) -> None:
        """Forget the failures of a name."""
        with self._kept() as (failures, key_of):
            failures.pop(key_of(username), None)

    @contextmanager
    def _kept(self) -> Iterator[tuple[Record, Callable[[str], str]]]:
        """The failures by key, to be changed in the block, and what makes a name a key."""
        with self._lock:
            descriptor = self._open()
            try:
                state = self._here if descriptor is None else _read(descriptor)
                state = self._current(state)
                salt = bytes.fromhex(state["salt"])
                yield state["names"], lambda name: _key(name, salt)
                self._here = state
                if descriptor is not None:
                    _write(descriptor, state)
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    def _open(self) -> int | None:
        """The file, locked; None when there can be none: then this process counts for itself."""
        if self._path is None:
            return None
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            log.warning("failed logins are not kept in %s: %s", self._path, error)
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # a filesystem without locks
            log.warning("%s cannot be locked: %s", self._path, error)
        return descriptor

    def _current(self, state: Record) -> Record:
        """Without what is forgotten by now; after a reboot the clock began anew, and so do the entries."""
        boot, now = self._boot(), self._clock()
        names = state.get("names", {})
        if state.get("boot") != boot:
            names = {key: entry | {"last": now} for key, entry in names.items()}
        recent = {key: entry for key, entry in names.items() if now - entry["last"] < FORGOTTEN_S}
        return {"boot": boot, "salt": state.get("salt") or secrets.token_hex(16), "names": recent}


def _key(name: str, salt: bytes) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=salt, digest_size=12).hexdigest()


def _read(descriptor: int) -> Record:
    """What the file holds; nothing when it is damaged, since no login is worth waiting for a repair."""
    try:
        text = os.pread(descriptor, _MOST_BYTES, 0).decode()
        raw, _end = json.JSONDecoder().raw_decode(text or "{}")  # behind it: of an older one that was longer
        names = {
            str(key): {"count": int(entry["count"]), "last": float(entry["last"])}
            for key, entry in raw.get("names", {}).items()
        }
        bytes.fromhex(raw.get("salt", ""))
        return {"boot": str(raw.get("boot", "")), "salt": str(raw.get("salt", "")), "names": names}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the list of failed logins is damaged and begins anew: %r", error)
        return {}


def _write(descriptor: int, state: Record) -> None:
    content = json.dumps(state, separators=(",", ":")).encode()
    try:
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
    except OSError as error:
        log.warning("failed logins are not kept: %s", error)
