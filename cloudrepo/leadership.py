"""Who watches: of all processes on one state file exactly one, by a lock that its death releases.

Two files beside the state, both only ever locked, never removed:

* `monitor.lock` is held by the process that watches, from its first pass until it stops, yields or dies. Its text
  says who that is, for people.
* `monitor.wish` is held by a `./cloud monitor` for all its life. A menu that finds it held does not watch, and gives
  the first lock back if it has it. A second `./cloud monitor` waits for it as a stand-by.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cloudrepo.late_dataclass import dataclass

Kind = Literal["menu", "monitor"]
TRIES = 5  # a look of somebody else at a lock takes a moment, in which we cannot have it
PAUSE_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who watches.

    Attributes:
        host: name of the machine.
        pid: its process id there.
        kind: `menu`, or `monitor` for a `./cloud monitor`.
        since: when it began, ISO 8601 in UTC.
    """

    host: str
    pid: int
    kind: str
    since: str

    def __str__(self) -> str:
        what = "./cloud monitor" if self.kind == "monitor" else "a menu"
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"{what} (process {self.pid}{where}, since {self.since})"

    @property
    def is_us(self) -> bool:
        """Whether it is this process."""
        return (self.host, self.pid) == (socket.gethostname(), os.getpid())


class Leadership:
    """This process's claim to watch. Used by one thread at a time.

    Args:
        folder: where the two files are; made when needed.
        kind: what this process is.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder = folder
        self.kind = kind
        self._lock: int | None = None
        self._wish: int | None = None

    @property
    def leads(self) -> bool:
        """Whether this process watches now."""
        return self._lock is not None

    def lead(self) -> bool:
        """Take, keep or yield; whether this process is the one that watches, until the next call.

        Raises:
            OSError: the files cannot be made.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.kind == "monitor":
            if self._wish is None:
                self._wish = _take(self.folder / "monitor.wish", fcntl.LOCK_EX, TRIES)
            if self._wish is None:  # another one is at it: we stand by
                return False
        elif is_wished_for(self.folder):
            self._give_back()
            return False
        if self._lock is None:
            self._lock = _take(self.folder / "monitor.lock", fcntl.LOCK_EX, TRIES)
            if self._lock is not None:
                self._sign(self._lock)
        return self._lock is not None

    def release(self) -> None:
        """Give everything back; content when there is nothing."""
        self._give_back()
        if self._wish is not None:
            os.close(self._wish)
            self._wish = None

    def _give_back(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _sign(self, descriptor: int) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), kind=self.kind, since=since)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def holder(folder: Path) -> Holder | None:
    """Who watches now, or None: what a dead process wrote does not count."""
    path = folder / "monitor.lock"
    if not _is_held(path):
        return None
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # it has only just taken the lock


def is_wished_for(folder: Path) -> bool:
    """Whether a `./cloud monitor` is there, at work or about to be."""
    return _is_held(folder / "monitor.wish")


def _is_held(path: Path) -> bool:
    """Whether somebody has the lock for himself. Looks do not disturb each other; a taker tries again after one."""
    if not path.exists():
        return False
    try:
        descriptor = _take(path, fcntl.LOCK_SH, 1)
    except OSError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _take(path: Path, how: int, tries: int) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for attempt in range(tries):
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < tries - 1:
                time.sleep(PAUSE_S)
            continue
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    os.close(descriptor)
    return None
