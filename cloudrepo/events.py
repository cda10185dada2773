"""The event log: who did what to which object, and what became of it. One JSON object a line, only ever appended.

`events.jsonl` beside the state file grows up to a size, is then put aside under the time of that moment
(`events-20261124T151200.123456Z.jsonl`) and begun anew; of those put aside the newest are kept. Several processes
append at once: each line is written whole under the file's lock, which is also what keeps a line out of a file
that was just put aside. So who follows the log reads a file to its end, then the next one, and misses nothing.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import asdict, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from cloudrepo.late_dataclass import dataclass

log = logging.getLogger(__name__)

FILE_NAME = "events.jsonl"
SCHEMA_VERSION = 1
MIB = 1024**2
POLL_S = 0.25
LONGEST_TEXT = 500
LARGEST_NUMBER = 10**18
MOST_ENTRIES = 20


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the log.

    Attributes:
        time: when, in UTC, ISO 8601 with milliseconds.
        who: a user's name, or `monitor`.
        what: the act or what happened, such as `deploy_slice` or `vm.died`.
        about: the object: `slice 1000`, `vm 1001`, `worker 10.0.10.1`, `user ann`.
        outcome: `done`, `refused`, `failed`, `left` unfinished by a monitor that ended, or what was noticed.
        details: plain values that say more; never a secret.
    """

    time: str
    who: str
    what: str
    about: str
    outcome: str = "done"
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As programs are given it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def concerns(self, words: str) -> bool:
        """Whether it is about an object that a person names as `slice 1000`, `1000` or `ann`, or by a detail of it."""
        names = [self.about, self.about.partition(" ")[2], self.who]
        names += [f"{key} {value}" for key, value in self.details.items() if key in ("slice", "vm", "worker")]
        names += [name.partition(" ")[2] for name in names[3:]]
        return words in names


def bounded(value: Any, depth: int = 4) -> Any:
    """A plain value that takes no more than a part of a line: what people typed may be of any length.

    Texts and numbers are cut with `…`, collections after so many entries, and what is nested deeper is a text.
    """
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < LARGEST_NUMBER else f"a number of {value.bit_length()} bits"
    if depth and isinstance(value, Mapping):
        entries = list(value.items())[:MOST_ENTRIES]
        return {_cut(str(key)): bounded(entry, depth - 1) for key, entry in entries} | _more(value)
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        entries = [bounded(entry, depth - 1) for entry in list(value)[:MOST_ENTRIES]]
        return [*entries, *_more(value).values()]
    return _cut(value if isinstance(value, str) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def _more(value: Sized) -> dict[str, str]:
    """What is said of the entries that are left out."""
    left = len(value) - MOST_ENTRIES
    return {"…": f"{left} more"} if left > 0 else {}


class EventLog:
    """The log beside a state file. Several processes may append at once.

    Args:
        path: the file; made at the first event, for its owner alone.
        max_bytes: size at which it is put aside.
        keep: how many of those put aside are kept.
    """

    def __init__(self, path: Path, *, max_bytes: int = 10 * MIB, keep: int = 20) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.keep = keep

    # -- writing -----------------------------------------------------------------------------------------

    def record(self, what: str, *, who: str, about: str, outcome: str = "done", **details: Any) -> None:
        """Append one event. An event that cannot be written is logged: the work it tells of goes on."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        names = {"who": who, "what": what, "about": about, "outcome": outcome}
        event = {"time": when, **bounded(names), "details": bounded(details)}
        line = json.dumps(event, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._append(line)
        except OSError as error:
            log.error("event not written to %s: %s", self.path, error)

    def _append(self, line: bytes) -> None:
        descriptor = self._locked()
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash cut the line before
            written = os.write(descriptor, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
            if size + len(line) >= self.max_bytes:
                self._put_aside()
        finally:
            os.close(descriptor)

    def _locked(self) -> int:
        """The file that has the name now, open and locked."""
        while True:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_same(descriptor, self.path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was put aside while we waited

    def _put_aside(self) -> None:
        """Begin a new file; the caller holds the lock of this one."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self.path.with_name(f"{self.path.stem}-{stamp}{self.path.suffix}")
        newest = self.put_aside()[-1:]
        if newest and aside.stem <= newest[0].stem:  # the clock went back: names must go on in the order of the lines
            aside = newest[0].with_name(f"{newest[0].stem}+{newest[0].suffix}")
        os.rename(self.path, aside)
        for old in self.put_aside()[: -self.keep or None]:
            old.unlink(missing_ok=True)

    # -- reading -----------------------------------------------------------------------------------------

    def put_aside(self) -> list[Path]:
        """The files put aside, the oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"), key=lambda path: path.stem)

    def read(self) -> Iterator[Event]:
        """All events, the oldest first. A line that was cut by a crash is passed over."""
        current = _open(self.path)
        try:
            yield from self._until(current)
        finally:
            if current is not None:
                current.close()

    def last(self, count: int, *, about: str = "") -> list[Event]:
        """The last so many events, of one object if it is named."""
        return _last(self.read(), count, about)

    def follow(
        self,
        count: int = 0,
        *,
        about: str = "",
        is_over: Callable[[], bool] = lambda: False,
        poll_s: float = POLL_S,
    ) -> Iterator[Event]:
        """The last so many events, then those that come, also when the file is put aside, emptied or removed meanwhile.

        Args:
            count: how many of those that are there.
            about: only those about this object.
            is_over: asked between two looks.
            poll_s: pause between them.
        """
        passed = self._newest()
        file = _open(self.path)
        yield from _last(self._until(file), count, about)
        try:
            while not is_over():
                if file is None:
                    file = _open(self.path)
                if file is not None:
                    is_current = _is_same(file.fileno(), self.path)  # asked before reading: nothing comes after that
                    if os.fstat(file.fileno()).st_size < file.tell():
                        file.seek(0)  # somebody has emptied it
                    yield from (event for event in _events(file) if not about or event.concerns(about))
                    if not is_current:
                        after, passed = self._next_after(file, passed)
                        if after is not None:
                            file.close()
                            file = after
                            continue
                time.sleep(poll_s)
        finally:
            if file is not None:
                file.close()

    def _until(self, current: BinaryIO | None) -> Iterator[Event]:
        """All events up to the end of this file, which was the current one when it was opened."""
        for path in self.put_aside():
            file = _open(path)
            if file is None:
                continue
            with file:
                if current is not None and os.path.sameopenfile(file.fileno(), current.fileno()):
                    break  # it was put aside since; what is newer comes after it
                yield from _events(file)
        if current is not None:
            yield from _events(current)

    def _newest(self) -> str:
        """The name of the file that was put aside last, "" when none was."""
        return next((path.stem for path in reversed(self.put_aside())), "")

    def _next_after(self, file: BinaryIO, passed: str) -> tuple[BinaryIO | None, str]:
        """What was begun when this file was put aside, or None yet.

        Args:
            file: what was read to its end.
            passed: the name of what was put aside before that; so far back nothing is read again, though this file be
                gone.

        Returns:
            The next file, and the name of what was put aside before it.
        """
        current = _open(self.path)  # before the others are listed: it can only be put aside in between
        files = [path for path in self.put_aside() if path.stem > passed]
        at = next((number for number, path in enumerate(files) if _is_same(file.fileno(), path)), -1)
        if at + 1 == len(files):
            return current, files[at].stem if files and current is not None else passed
        if current is not None:
            current.close()
        return _open(files[at + 1]), files[at].stem if at >= 0 else passed


def _last(events: Iterator[Event], count: int, about: str) -> list[Event]:
    return list(deque((event for event in events if not about or event.concerns(about)), maxlen=count))


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _events(file: BinaryIO) -> Iterator[Event]:
    """The events in the whole lines from here on; the place after them is kept."""
    while line := file.readline():
        if not line.endswith(b"\n"):  # somebody is writing it
            file.seek(-len(line), os.SEEK_CUR)
            return
        try:
            yield Event(**json.loads(line))
        except (ValueError, TypeError):
            continue


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
