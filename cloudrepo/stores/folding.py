"""Folding: the journal is brought into the YAML while others go on appending.

A crash between any two steps leaves what loads to exactly the acknowledged state: the record "folded" is in the journal
before the YAML is replaced, so the old journal continues the old YAML and the new one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import Key
from cloudrepo.stores import files, journal as journals, yaml_file
from cloudrepo.stores.tail import Tail
from cloudrepo.stores.yaml_file import YamlFile
from cloudrepo.stores.yaml_text import Spans

if TYPE_CHECKING:
    from cloudrepo.stores.journaled import JournaledStore


@dataclass(frozen=True)
class _Point:
    """What is folded: everything up to a revision."""

    revision: int
    prints: dict[Key, bytes]
    tail: Tail
    yaml: YamlFile
    changed: set[Key]


class Fold:
    """One folding.

    Args:
        store: whose.
        is_end: whether the journal is removed when nothing was appended meanwhile; and another process that folds
            just now is waited for.
    """

    def __init__(self, store: JournaledStore, *, is_end: bool) -> None:
        self.store = store
        self.is_end = is_end
        self.temporary = files.fold_of(store.path)

    def run(self) -> None:
        """Fold, if there is something to fold.

        Raises:
            StateFileError: the YAML cannot be written; the journal holds everything as before.
        """
        if self.store.is_folded() and not self.is_end:
            return
        try:
            while not self._try():
                pass  # another process folded first: what is left is less
        except OSError as error:
            self.store.distrust()
            raise files.cannot_fold(self.store.path, self.store.journal_path, error) from error

    def _try(self) -> bool:
        """Fold once; False when it is to be tried again."""
        descriptor = self._claim()
        if descriptor is None:
            return True  # another process is folding; its YAML holds what this one's would
        try:
            point = self._begin()
            if point is None:
                self._discard(descriptor)
                return True
            return self._fold(point, descriptor) or not self.is_end
        finally:
            os.close(descriptor)

    def _begin(self) -> _Point | None:
        """Note the point up to which is folded. Nobody waits for more than this."""
        store = self.store
        with store.exclusive():
            store.catch_up()
            tail = store.tail
            if tail is None:
                return None
            changed = tail.changed_since(store.yaml.revision)
            if not changed and self.is_end and tail.position.lines == 1:
                store.remove_journal()  # nothing was appended since the last fold
                return None
            if not changed and not self.is_end:
                return None
            return _Point(tail.position.last, dict(store.table.prints), tail, store.yaml, changed)

    def _claim(self) -> int | None:
        """The temporary file, locked: one process folds at a time. What a killed one left in it is overwritten."""
        while True:
            descriptor = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if self.is_end else fcntl.LOCK_NB))
                if _is_still(self.temporary, descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:  # a filesystem without locks
                return descriptor
            os.close(descriptor)  # the other one has made it the state file meanwhile

    def _fold(self, point: _Point, descriptor: int) -> bool:
        """Write and switch; False when the files are others meanwhile."""
        store = self.store
        content, spans = self._render(point)
        sha = files.sha256(content)
        digests = store.digests.of(point.prints)
        try:
            os.ftruncate(descriptor, 0)
            files.give(descriptor, store.owner)
            os.fchmod(descriptor, 0o600)
            files.write_all(descriptor, content)
            os.fsync(descriptor)
            with store.exclusive():
                store.catch_up()
                if store.tail is not point.tail or store.yaml is not point.yaml:
                    self._discard(descriptor)  # folded by another, or edited: the next look decides
                    return False
                self._switch(point, sha, spans, digests)
                return True
        except BaseException:
            self._discard(descriptor)
            raise

    def _discard(self, descriptor: int) -> None:
        """Remove the temporary file, unless it is the state file by now, or another process has made its own."""
        if _is_still(self.temporary, descriptor):
            files.discard(self.temporary)

    def _render(self, point: _Point) -> tuple[bytes, Spans]:
        """The new YAML: sections that did not change are taken from the old one."""
        store = self.store
        old, stamp = yaml_file.read_if_there(store.path)
        texts = point.yaml.texts(old, point.changed) if stamp is not None and stamp == point.yaml.stamp else {}
        return store.renderer.render(point.revision, point.prints, texts)

    def _switch(self, point: _Point, sha: str, spans: Spans, digests: dict[str, str]) -> None:
        """The new YAML takes the old one's place, then the new journal. Under the lock."""
        store, tail = self.store, point.tail
        line = journals.fold_line(sha, point.revision)
        tail.append(line)
        tail.passed(line)
        tail.folded[sha] = point.revision
        os.replace(self.temporary, store.path)
        files.sync_directory(store.path.parent)
        rest = tail.lines_since(point.revision)
        if rest or not self.is_end:
            header = journals.Header(sha, point.revision, point.revision, store.installation(), digests)
            store.replace_journal(journals.header_line(header) + rest)
        else:
            store.remove_journal()
        store.yaml = YamlFile(files.stamp(store.path), sha, point.revision, spans)


def _is_still(path: Path, descriptor: int) -> bool:
    found = files.stamp(path)
    return found is not None and found[:2] == files.stamp_of(os.fstat(descriptor))[:2]
