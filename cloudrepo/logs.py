"""The log file: `cloudrepo.log` beside the state file, readable by its owner only, rotated."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

MAX_BYTES = 5_000_000
GENERATIONS = 5
FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (\d{1,10}) ([A-Z]+) ([^ ]+): (.*)")  # what it makes


class PrivateFileHandler(logging.FileHandler):
    """A rotated file of mode 0600 whose lines cannot be forged: control characters are written escaped.

    Several processes may write one file: one of them rotates it, under a lock. Each looks before a record whether that
    was done, and opens the new file then. `logging.handlers` knows no other processes, and loading it takes longer than
    many a command.
    """

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, to the file that has the name now."""
        try:
            if self.stream is not None:
                self._renew(self.stream)
        except OSError:
            self.handleError(record)
        else:
            super().emit(record)

    def _renew(self, stream: TextIOWrapper) -> None:
        """Rotate a full file, unless another process is the first; leave one that lost the name."""
        if self._is_current(stream):
            if os.fstat(stream.fileno()).st_size < MAX_BYTES:
                return
            fcntl.flock(stream, fcntl.LOCK_EX)  # until it is closed
            if self._is_current(stream):
                self._rotate()
        stream.close()
        self.stream = self._open()

    def _rotate(self) -> None:
        """The file becomes `.1`, that one `.2`, and so on; the oldest goes."""
        names = [self.baseFilename, *(f"{self.baseFilename}.{number}" for number in range(1, GENERATIONS + 1))]
        for older, newer in reversed([*zip(names[1:], names, strict=False)]):
            if os.path.exists(newer):
                os.replace(newer, older)

    def format(self, record: logging.LogRecord) -> str:
        """The record's text; a line break in a message does not begin a line that looks like a record."""
        first, *rest = super().format(record).split("\n")
        return "\n    ".join(map(_printable, [first, *rest]))

    def _is_current(self, stream: TextIOWrapper) -> bool:
        try:
            there = os.stat(self.baseFilename)
        except FileNotFoundError:
            return False
        here = os.fstat(stream.fileno())
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def log_path(state_path: str | os.PathLike[str]) -> Path:
    """Where the log of an installation is."""
    return Path(os.path.realpath(state_path)).parent / "cloudrepo.log"


def configure(state_path: str | os.PathLike[str], level: str = "INFO") -> Path:
    """Send the log to its file, and nowhere else; calling it again only moves it.

    Args:
        state_path: the state file.
        level: least severity: `DEBUG`, `INFO`, `WARNING` or `ERROR`.

    Returns:
        The log's path. When it cannot be written there is no log, and one warning on stderr says so.
    """
    path = log_path(state_path)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, PrivateFileHandler)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.getLogger("paramiko").setLevel(logging.WARNING)  # it tells of every packet
    try:
        handler = PrivateFileHandler(path, encoding="utf-8")
    except OSError as error:
        logging.getLogger(__name__).warning("no log is written: %s: %s", path, error.strerror)
        return path
    handler.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(handler)
    return path


def parsed(line: str) -> dict[str, Any]:
    """A line of the log in its parts.

    Returns:
        `time` (ISO 8601, UTC), `process`, `level`, `logger` and `text`. A line that goes on with the record before it,
        as those of a traceback do, has `text`, and null for the rest.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        return {"time": None, "process": None, "level": None, "logger": None, "text": line.strip()}
    stamp, process, level, logger, text = found.groups()
    moment = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").astimezone(UTC)  # written in the machine's own time
    told = moment.isoformat(timespec="milliseconds")
    return {"time": told, "process": int(process), "level": level, "logger": logger, "text": text}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
