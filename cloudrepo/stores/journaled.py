"""The store of an installation: one YAML file, and beside it a journal of what is not in it yet.

A change costs one line of the journal and one fsync. `fold` brings the journal into the YAML. Several processes may
work on one file: each change is made under the lock of the directory, after what others appended was read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cloudrepo.errors import StateFileError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.settings import History
from cloudrepo.state import COLLECTIONS, Key, Record, ShapeError, fingerprints, key_text, normalise, restored, state_of
from cloudrepo.stores import counters, files, journal as journals, opening, yaml_file
from cloudrepo.stores.filesystem import check_owner, warn_of_no_locks, warn_of_remote
from cloudrepo.stores.folding import Fold
from cloudrepo.stores.generations import Generations
from cloudrepo.stores.journal import Digests, Header, Journal, JournalDamage
from cloudrepo.stores.store import News
from cloudrepo.stores.table import KeyedStore
from cloudrepo.stores.tail import Tail
from cloudrepo.stores.yaml_file import FIRST_REVISION, YamlFile
from cloudrepo.stores.yaml_text import Renderer

log = logging.getLogger(__name__)

_LOOKS = 5  # without the lock, while others fold; then with it


@dataclass
class _Pair:
    """A YAML and its journal, read so that they belong together."""

    yaml: YamlFile
    tail: Tail | None
    prints: dict[Key, bytes]
    data: Record
    steps: list[journals.Record]
    revision: int


@dataclass(frozen=True)
class _Token:
    """What was read behind some news: taken on as it is when they are accepted."""

    yaml: YamlFile
    tail: Tail | None
    position: Journal | None
    pair: _Pair | None = None


class JournaledStore(KeyedStore):
    """The state in a YAML file with a journal.

    Args:
        path: the YAML, without symbolic links.
        make: the content of a file that is missing.
        copies: how many generations are kept, and how often one is made.

    Attributes:
        journal_path: the journal.
        renderer: says how much the last fold dumped.
        digests: of the sections, for the journal's first line.
        generations: the copies that are kept.
        yaml, tail: both files as they were last seen.
        owner: who new files are to belong to.
    """

    def __init__(self, path: Path, make: Callable[[], Record], copies: History | None = None) -> None:
        super().__init__()
        self.path = path
        self.journal_path = path.with_name(path.name + ".journal")
        self.renderer = Renderer()
        self.digests = Digests()
        self.generations = Generations(path, copies)
        self._lock = files.DirectoryLock(path, self._pulse, lambda error: warn_of_no_locks(path, error))
        self._has_written = False
        self.owner = check_owner(path)
        warn_of_remote(path)
        if not path.exists():
            self._make(make)
        pair = self._read()
        self.yaml, self.tail = pair.yaml, pair.tail
        self._data = pair.data
        self._found_journal = pair.tail is not None
        self.table.reset(pair.prints, pair.yaml.revision)
        for step in pair.steps:
            self.table.apply(step.revision, step.changes)
        self.table.revision = max(self.table.revision, pair.revision)
        self.floors = counters.put_back(pair.yaml, pair.data, self.generations)

    def _make(self, make: Callable[[], Record]) -> None:
        with self._lock.held():
            if self.path.exists():  # another process was first
                return
            tail = Tail.open(self.journal_path)
            if tail is not None:
                raise opening.missing(self.path, self._read_whole(tail))
            prints = fingerprints(normalise(make()))
            files.replace(self.path, self.renderer.render(FIRST_REVISION, prints, {})[0], self.owner)

    @property
    def needs_end(self) -> bool:
        """Whether something was written, or a journal was found."""
        return self._has_written or self._found_journal

    def take_data(self) -> Record:
        """The state as it was opened, for the one who keeps it in memory; given once."""
        data, self._data = self._data, {}
        return data

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """A block in which no other process changes anything."""
        with self.lock, self._lock.held():
            yield

    def _pulse(self) -> object:
        return files.stamp(self.path), files.stamp(self.journal_path)

    # ------------------------------------------------------------------------------------ reading

    def news(self) -> News | None:
        """What others did; costs two `stat` when nothing.

        Raises:
            StateFileError: a file is damaged now, or the two do not belong together any more.
        """
        yaml, journal = files.stamp(self.path), files.stamp(self.journal_path)
        is_same_yaml = yaml is None or yaml == self.yaml.stamp  # a file that went away is written again
        tail = self.tail
        if tail is None:
            if is_same_yaml and journal is None:
                return None
            return self._begun(yaml) if is_same_yaml else self._reloaded()
        if tail.is_file(journal):
            if is_same_yaml and journal is not None and journal[2] == tail.position.end:
                return None
            return self._appended(tail, yaml, is_same_yaml=is_same_yaml)
        return self._folded(tail, yaml)

    def _begun(self, yaml: files.Stamp | None) -> News | None:
        """Another process began a journal for the YAML that is known here."""
        tail = Tail.open(self.journal_path)
        if tail is None:
            return None
        whole = self._read_whole(tail)
        if whole.header.continues != self.yaml.sha or whole.header.revision > self.revision:
            return self._reloaded()
        tail.follow(whole)
        return _steps(whole.records, _Token(self.yaml, tail, None))

    def _appended(self, tail: Tail, yaml: files.Stamp | None, *, is_same_yaml: bool) -> News | None:
        """Another process appended to the journal that is open here, and perhaps is about to fold it."""
        rest = self._read_rest(tail)
        token = _Token(self.yaml, tail, rest)
        if not is_same_yaml:
            file = self._known_yaml(tail, rest, yaml)
            if file is None:
                return self._reloaded()
            token = _Token(file, tail, rest)
        if rest.end == tail.position.end and token.yaml is self.yaml:
            return None
        return _steps(rest.records, token)

    def _folded(self, tail: Tail, yaml: files.Stamp | None) -> News | None:
        """Another process folded the journal that is open here; its end can still be read."""
        rest = self._read_rest(tail)
        file = self._known_yaml(tail, rest, yaml)
        if file is None:
            return self._reloaded()
        later = Tail.open(self.journal_path)
        if later is None:
            return _steps(rest.records, _Token(file, None, rest)) if file.revision == rest.last else self._reloaded()
        whole = self._read_whole(later)
        if whole.header.continues != file.sha or whole.header.revision > rest.last:
            return self._reloaded()
        later.follow(whole)
        records = [*rest.records, *(record for record in whole.records if record.revision > rest.last)]
        return _steps(records, _Token(file, later, None))

    def _known_yaml(self, tail: Tail, rest: Journal, stamp: files.Stamp | None) -> YamlFile | None:
        """The YAML that is there now, if its content is known by its hash."""
        content, stamp = yaml_file.read(self.path)
        sha = files.sha256(content)
        if sha == self.yaml.sha:
            return YamlFile(stamp, sha, self.yaml.revision, self.yaml.spans, self.yaml.stale, self.yaml.said)
        revision = {**tail.folded, **rest.folded}.get(sha)
        return None if revision is None else YamlFile(stamp, sha, revision)

    def _reloaded(self) -> News | None:
        """What differs after both files were read anew."""
        pair = self._read()
        before = self.table.prints
        changes: dict[Key, bytes | None] = {
            key: printed for key, printed in pair.prints.items() if before.get(key) != printed
        }
        for step in pair.steps:
            changes.update(step.changes)
        changes.update(dict.fromkeys(before.keys() - pair.prints.keys() - changes.keys()))
        changes = {key: printed for key, printed in changes.items() if before.get(key) != printed}
        return News(changes, (), _Token(pair.yaml, pair.tail, None, pair))

    def accept(self, news: News) -> None:
        """Take in what others did."""
        token: _Token = news.token
        if self.follower is not None:
            self.follower(news.changes, {key: self.prints.get(key) for key in news.changes})
        try:
            if token.pair is not None:
                self.floors = counters.highest(self.floors, self._lowered(news.changes))
                prints = {**self.table.prints, **news.changes}
                whole = {key: printed for key, printed in prints.items() if printed is not None}
                ahead = self.revision + 1 if news.changes else self.revision
                self.table.reset(whole, max(ahead, token.pair.revision))
            for revision, changes in news.steps:
                self.table.apply(max(revision, self.revision + 1), changes)
            self.yaml, self.tail = token.yaml, token.tail
            if token.tail is not None and token.position is not None:
                token.tail.follow(token.position)
        except BaseException:
            self.distrust()
            raise

    def _lowered(self, changes: Mapping[Key, bytes | None]) -> dict[str, int]:
        """The counters here that an older file has lower."""
        mine = {name: restored(self.prints[name, ""]) for name in counters.COUNTERS if (name, "") in self.prints}
        theirs = {name: restored(printed) for (name, _), printed in changes.items() if name in mine and printed}
        return counters.behind(theirs, mine)

    def distrust(self) -> None:
        """Read everything anew at the next look: something came between two steps that belong together."""
        self.yaml.stamp, self.tail = None, None

    # ------------------------------------------------------------------------------------ opening

    def _read(self) -> _Pair:
        """Both files, without the lock while that goes well.

        Raises:
            StateFileError: one of them is damaged, or they do not belong together.
        """
        if not self._lock.is_held:
            for _ in range(_LOOKS):
                pair = self._read_once()
                if pair is not None:
                    return pair
        with self._lock.held():
            pair = self._read_once()
            return pair if pair is not None else self._adopted()

    def _read_once(self) -> _Pair | None:
        """Both files, or None when they do not belong together; without the lock that may be a moment's chance."""
        content, stamp = yaml_file.read(self.path)
        tail = Tail.open(self.journal_path)
        whole = self._read_whole(tail) if tail is not None else None
        if files.stamp(self.path) != stamp:
            return None
        if tail is None or whole is None:
            file, data, prints = yaml_file.understand(self.path, content, stamp)
            return _Pair(file, None, prints, data, [], file.revision)
        revision = opening.start_revision(files.sha256(content), whole)
        if revision is None:
            return None
        file, data, prints = yaml_file.understand(self.path, content, stamp)
        file.revision = revision
        tail.follow(whole)
        steps = [record for record in whole.records if record.revision > revision]
        _lay(data, whole.since(revision))
        return _Pair(file, tail, prints, data, steps, max(whole.last, revision))

    def _adopted(self) -> _Pair:
        """A hand edit of the file that the journal continues, merged with it. Under the lock.

        Raises:
            StateFileError: it is no such edit, or both changed the same.
        """
        content, stamp = yaml_file.read(self.path)
        tail = Tail.reopen(self.journal_path)
        whole = self._read_whole(tail)
        file, data, edited = yaml_file.understand(self.path, content, stamp)
        found = opening.mismatch(
            file.sha, file.said, str(data.get("installation", "")), whole, self.generations.hashes()
        )
        if found.kind != "edited":
            raise opening.refusal(self.path, found.kind, whole)
        merged, conflicts = opening.merge(edited, whole, found.since)
        if conflicts:
            raise opening.conflict(self.path, conflicts, whole)
        merged = self._settled(merged)  # what is derived follows from both
        changes: dict[Key, bytes | None] = {key: new for key, new in merged.items() if edited.get(key) != new}
        changes.update(dict.fromkeys(edited.keys() - merged.keys()))
        file.revision = whole.last
        self._begin_journal(file, edited, whole.last, whole.last + 1, changes, str(data.get("installation", "")))
        log.info("%s was edited; what its journal held was merged with it", self.path)
        pair = self._read_once()
        if pair is None:  # somebody writes to the file without the lock
            raise yaml_file.unusable(self.path, "is being edited", "it changed while it was read", "Try again")
        return pair

    def _settled(self, prints: dict[Key, bytes]) -> dict[Key, bytes]:
        try:
            return fingerprints(state_of(prints))
        except ShapeError as error:
            raise yaml_file.unusable(self.path, "and its journal make no state together", str(error)) from error

    def _read_whole(self, tail: Tail) -> Journal:
        try:
            return tail.read_whole()
        except JournalDamage as damage:
            raise opening.damaged(self.journal_path, damage) from damage

    def _read_rest(self, tail: Tail) -> Journal:
        try:
            return tail.read_rest()
        except JournalDamage as damage:
            raise opening.damaged(self.journal_path, damage) from damage

    # ------------------------------------------------------------------------------------ writing

    def commit(self, changes: Mapping[Key, bytes | None]) -> int:
        """Append one record; in one's turn, with all news accepted.

        Raises:
            StateFileError: it cannot be written; nothing has changed.
        """
        last = self.tail.position.last if self.tail is not None else self.revision
        revision = max(last, self.revision) + 1
        try:
            if self.tail is None:
                self._begin_journal(self.yaml, self.table.prints, last, revision, changes, self.installation())
            else:
                line = journals.record_line(revision, last, changes)
                self.tail.append(line)
                self.tail.note(revision, changes, line)
            self.table.apply(revision, changes)
        except ShapeError as error:
            keys = ", ".join(key_text(key) for key in changes)
            raise StateFileError(f"{keys} cannot be stored", evidence=str(error), code="state.value") from error
        except OSError as error:
            raise files.cannot_write(self.journal_path, error) from error
        except BaseException:
            self.distrust()
            raise
        self._has_written = True
        return revision

    def _begin_journal(
        self,
        file: YamlFile,
        prints: Mapping[Key, bytes],
        last: int,
        revision: int,
        changes: Mapping[Key, bytes | None],
        installation: str,
    ) -> None:
        """A journal that continues `file`, which holds `prints`, and its first record."""
        header = Header(file.sha, last, file.said, installation, self.digests.of(prints))
        content = journals.header_line(header) + journals.record_line(revision, last, changes)
        self.replace_journal(content)

    def replace_journal(self, content: bytes) -> None:
        """Put a new journal in the place of the old one, and go on with it."""
        files.replace(self.journal_path, content, self.owner)
        tail = Tail.reopen(self.journal_path)
        tail.follow(tail.read_whole())
        self.tail = tail

    def remove_journal(self) -> None:
        """Go on without a journal; all of it is in the YAML."""
        self.journal_path.unlink()
        files.sync_directory(self.path.parent)
        self.tail = None

    def is_folded(self) -> bool:
        """Whether there is nothing to fold, as far as is known here; costs two `stat`."""
        with self.lock:
            tail, found = self.tail, files.stamp(self.journal_path)
            if tail is None:
                return found is None
            is_read = tail.is_file(found) and found is not None and found[2] == tail.position.end
            return is_read and not tail.changed_since(self.yaml.revision)

    def installation(self) -> str:
        """The installation's mark, or an empty text."""
        printed = self.table.prints.get(("installation", ""))
        return str(restored(printed)) if printed is not None else ""

    def back_up(self) -> None:
        """Copy the YAML to `….backup`, if that is another; it parsed.

        Raises:
            StateFileError: the copy cannot be written.
        """
        with self.exclusive():
            self.generations.back_up(self.owner)

    # ------------------------------------------------------------------------------------ folding

    def keep_generation(self) -> None:
        """Copy the YAML to a generation, if it differs from the newest.

        Raises:
            StateFileError: the copy cannot be written.
        """
        with self.exclusive():
            self.catch_up()  # a copy is only made of what parsed
            self.generations.keep(self.owner)

    def fold(self) -> None:
        """Bring the journal into the YAML; costs a look when there is nothing to fold.

        Raises:
            StateFileError: the YAML cannot be written; the journal holds everything as before.
        """
        Fold(self, is_end=False).run()
        if self._has_written and self.generations.is_due:
            self.keep_generation()

    def close(self) -> None:
        """Fold and remove the journal, if this process wrote, or nobody else is at the journal it found."""
        if self._has_written:
            self._end()
        elif self._found_journal and self.tail is not None and self.tail.is_alone():
            try:
                self._end()
            except StateFileError as error:
                if error.code != files.NOT_WRITTEN:
                    raise
                log.info("the journal of %s stays as it was found: %s", self.path, error)  # reading is done

    def _end(self) -> None:
        Fold(self, is_end=True).run()
        self._has_written = False
        with self.exclusive():
            self.catch_up()  # a copy is only made of what parsed
            self.generations.keep(self.owner)
            for path in (self.journal_path, self.generations.backup_path):
                files.discard(files.beside(path))  # what a killed process left; under the lock nobody writes it


def _steps(records: list[journals.Record], token: _Token) -> News:
    changes: dict[Key, bytes | None] = {}
    for record in records:
        changes.update(record.changes)
    return News(changes, tuple((record.revision, record.changes) for record in records), token)


def _lay(data: Record, changes: Mapping[Key, bytes | None]) -> None:
    """Lay changes over a state."""
    for (top, name), printed in changes.items():
        where, key = (data[top], name) if top in COLLECTIONS else (data, top)
        if printed is None:
            where.pop(key, None)
        else:
            where[key] = restored(printed)
