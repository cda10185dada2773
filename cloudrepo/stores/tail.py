"""A journal that is open: how far it was read, and the end that is appended to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloudrepo import regular_file
from cloudrepo.errors import StateFileError
from cloudrepo.state import Key
from cloudrepo.stores import journal as journals
from cloudrepo.stores.files import Stamp, write_all
from cloudrepo.stores.journal import Journal


class Tail:
    """An open journal. Whoever has it open can read its end also after another has replaced it.

    Args:
        path: the file.
        descriptor: it, open for reading.

    Attributes:
        position: how far it was read: `end`, `lines` and `last` count.
        continues: SHA-256 of the YAML it continues.
        folded: by SHA-256 of a YAML that was made of it, the revision of the state in that.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._file = (found.st_dev, found.st_ino)
        self.position = Journal()
        self.continues = ""
        self.folded: dict[str, int] = {}
        self._records: list[tuple[int, int, frozenset[Key]]] = []  # revision, byte after it, what it changed

    @classmethod
    def open(cls, path: Path) -> Tail | None:
        """Open a journal, or None when there is none.

        Raises:
            StateFileError: it cannot be read.
        """
        try:
            descriptor = regular_file.open_to_read(path, os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateFileError(
                f"{path} cannot be read",
                evidence=error.strerror or str(error),
                remedy="A journal holds what is not in the state file yet: put it back, or move away what is none",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # says: somebody has it open (`is_alone`)
        except OSError:
            pass  # somebody ends just now, or there are no locks
        return cls(path, descriptor)

    @classmethod
    def reopen(cls, path: Path) -> Tail:
        """Open a journal that must be there.

        Raises:
            StateFileError: it is not, or cannot be read.
        """
        tail = cls.open(path)
        if tail is None:
            raise StateFileError(f"{path} was removed just now", remedy="Start again: the state file alone counts now")
        return tail

    def __del__(self) -> None:
        os.close(self._descriptor)

    def is_file(self, stamp: Stamp | None) -> bool:
        """Whether this is the file with that stamp."""
        return stamp is not None and stamp[:2] == self._file

    def is_alone(self) -> bool:
        """Whether no other process has the journal open."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return True

    # ------------------------------------------------------------------------------------ reading

    def bytes_from(self, begin: int) -> bytes:
        """The content from a byte on."""
        length = os.fstat(self._descriptor).st_size - begin
        parts: list[bytes] = []
        while length > 0 and (part := os.pread(self._descriptor, length, begin)):
            parts.append(part)
            begin, length = begin + len(part), length - len(part)
        return b"".join(parts)

    def read_whole(self) -> Journal:
        """All of it.

        Raises:
            JournalDamage: a line is not what was written.
        """
        return journals.read(self.bytes_from(0))

    def read_rest(self) -> Journal:
        """What was appended since `position`; to be given to `follow`."""
        return journals.read(self.bytes_from(self.position.end), begin=self.position)

    def follow(self, journal: Journal) -> None:
        """Go on from where this was read to."""
        if journal.header.continues:
            self.continues = journal.header.continues
        self.folded.update(journal.folded)
        self._records += [(record.revision, record.end, frozenset(record.changes)) for record in journal.records]
        self.position = Journal(end=journal.end, lines=journal.lines, last=journal.last)

    def changed_since(self, revision: int) -> set[Key]:
        """Keys of what was changed after a revision."""
        return {key for number, _end, keys in self._records if number > revision for key in keys}

    def lines_since(self, revision: int) -> bytes:
        """The records after a revision, as they stand."""
        later = [number for number, _end, _keys in self._records if number > revision]
        if not later:
            return b""
        begin = max((end for number, end, _keys in self._records if number <= revision), default=0)
        lines = self.bytes_from(begin)[: self.position.end - begin]
        if not begin:
            lines = lines[lines.index(b"\n") + 1 :]  # the header
        return journals.without_folds(lines)

    # ------------------------------------------------------------------------------------ writing

    def append(self, line: bytes) -> None:
        """Append a line; on return it is on the disk. Under the lock, and read to its end.

        Raises:
            OSError: it could not be written; what was written of it is cut off again.
        """
        end = self.position.end
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_size != end:
                os.ftruncate(descriptor, end)  # a line that was cut by a crash was never acknowledged
            try:
                write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)

    def note(self, revision: int, changes: Mapping[Key, bytes | None] | Iterable[Key], line: bytes) -> None:
        """The line that was just appended was a record."""
        self._records.append((revision, self.position.end + len(line), frozenset(changes)))
        self.position.last = revision
        self.passed(line)

    def passed(self, line: bytes) -> None:
        """Go on behind a line that was just appended."""
        self.position.end += len(line)
        self.position.lines += 1
