"""The content of a store in memory, and everything of the contract that does not depend on where it is kept."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from cloudrepo.errors import StateFileError
from cloudrepo.state import (
    COLLECTIONS,
    DOCUMENTED_KEYS,
    Key,
    ShapeError,
    canonical,
    key_text,
    restored,
    shown,
    storable,
    text_key,
)
from cloudrepo.stores.journal import plain
from cloudrepo.stores.store import Change, Compacted, Entry, Follower, LostRace, News

KEPT_CHANGES = 1000  # that a watch can resume from
POLL_S = 0.05
_SIMPLE_KEYS = ("schema_version", *DOCUMENTED_KEYS)


class Table:
    """Values by key, with the revision of each one's last change.

    Attributes:
        prints: each value's fingerprint.
        revision: of the last change.
        floor: changes up to this revision are not known one by one.
    """

    def __init__(self) -> None:
        self.prints: dict[Key, bytes] = {}
        self.revision = 0
        self.floor = 0
        self._revisions: dict[Key, int] = {}
        self._changes: deque[tuple[int, Key, bytes | None]] = deque()

    def reset(self, prints: Mapping[Key, bytes], revision: int) -> None:
        """Hold these values; of those that are new here nobody knows since when."""
        known = {key: self._revisions[key] for key, printed in prints.items() if self.prints.get(key) == printed}
        self.prints = dict(prints)
        self._revisions = {key: known.get(key, revision) for key in prints}
        self._changes.clear()
        self.revision = self.floor = revision

    def apply(self, revision: int, changes: Mapping[Key, bytes | None]) -> None:
        """One change, of any number of keys."""
        self.revision = revision
        for key, printed in changes.items():
            if printed is None:
                self.prints.pop(key, None)
                self._revisions.pop(key, None)
            else:
                self.prints[key] = printed
                self._revisions[key] = revision
            self._changes.append((revision, key, printed))
        while len(self._changes) > KEPT_CHANGES:
            self.floor = self._changes.popleft()[0]

    def entry(self, key: Key) -> Entry | None:
        """A copy of one value."""
        printed = self.prints.get(key)
        return None if printed is None else Entry(key_text(key), restored(printed), self._revisions[key])

    def check(self, key: Key, revision: int) -> None:
        """Refuse when the key has changed since `revision`.

        Raises:
            LostRace: it has, it is gone, or (0) it is there.
        """
        now = self._revisions.get(key)
        if (revision == 0 and now is None) or (now is not None and revision and now <= revision <= self.revision):
            return
        if now is None:
            found = "it is gone"
        elif now <= revision:
            found = f"the state is only at revision {self.revision}"
        else:
            found = f"it changed at revision {now}" if revision else "it is there already"
        raise LostRace(
            f"{key_text(key)} was to be written as of revision {revision}",
            evidence=found,
            remedy="Read it again",
            details={"key": key_text(key), "revision": now},
        )

    def since(self, prefix: str, revision: int) -> list[Change]:
        """The changes from `revision` on.

        Raises:
            Compacted: some of them are not known one by one.
        """
        if revision <= self.floor:
            raise Compacted(
                f"the changes from revision {revision} on are no longer known one by one",
                evidence=f"those up to {self.floor} are in the state file",
                remedy=f"List again, and watch from {self.revision + 1}",
                details={"revision": self.revision},
            )
        return [
            Change(key_text(key), None if printed is None else restored(printed), number, is_gone=printed is None)
            for number, key, printed in self._changes
            if number >= revision and key_text(key).startswith(prefix)
        ]


class KeyedStore(ABC):
    """The store's contract over a table. Where and how it is kept is for the classes that derive from it.

    Attributes:
        lock: guards the table between threads.
        table: what is acknowledged.
        follower: told of the changes of others before they are taken in; it may refuse.
        floors: counters that are known to have been higher than the state says, since it was put back.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.table = Table()
        self.follower: Follower | None = None
        self.floors: dict[str, int] = {}

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """A block in which nobody else changes anything."""

    @abstractmethod
    def news(self) -> News | None:
        """What others did, not yet taken in; None when nothing."""

    @abstractmethod
    def accept(self, news: News) -> None:
        """Take it in."""

    @abstractmethod
    def commit(self, changes: Mapping[Key, bytes | None]) -> int:
        """Write all of these or none, in one's turn; durable on return. The revision."""

    @property
    def prints(self) -> Mapping[Key, bytes]:
        """Each section's acknowledged value as a fingerprint."""
        return self.table.prints

    @property
    def revision(self) -> int:
        """Of the last change that is known here."""
        return self.table.revision

    def get(self, key: str) -> Entry | None:
        """A key's entry, or None."""
        with self.lock:
            self.catch_up()
            return self.table.entry(text_key(key))

    def list(self, prefix: str = "") -> Sequence[Entry]:
        """All entries whose key begins with `prefix`, in the order of the state."""
        with self.lock:
            self.catch_up()
            found = [self.table.entry(key) for key in self.table.prints if key_text(key).startswith(prefix)]
            return [entry for entry in found if entry is not None]

    def put_if(self, key: str, value: Any, revision: int) -> int:
        """Write, if nothing has changed the key since `revision`; 0 = if there is no such key.

        Raises:
            LostRace: something has.
            StateFileError: the value cannot be stored.
        """
        where = text_key(key)
        try:
            if key in COLLECTIONS:
                raise ShapeError((key,), f"what is put there has a key of its own, such as {key}/1")
            printed = storable(canonical(where, plain(value, where)), where)
        except ShapeError as error:
            raise StateFileError(
                f"{shown(key)} cannot be stored", evidence=str(error), remedy="Nothing was changed", code="state.value"
            ) from error
        return self._change(where, printed, revision)

    def delete_if(self, key: str, revision: int) -> int:
        """Delete, if nothing has changed the key since `revision`.

        Raises:
            LostRace: something has.
            StateFileError: a state cannot be without this key.
        """
        if key in _SIMPLE_KEYS:
            raise StateFileError(f"{key} cannot be deleted", evidence="every state has it", code="state.value")
        return self._change(text_key(key), None, revision)

    def _change(self, key: Key, printed: bytes | None, revision: int) -> int:
        with self.lock, self.exclusive():
            self.catch_up()
            self.table.check(key, revision)
            before = self.table.prints.get(key)
            number = self.commit({key: printed})
            if self.follower is not None and printed != before:
                self.follower({key: printed}, {key: before})
            return number

    def watch(self, prefix: str, from_revision: int, *, patience_s: float | None = None) -> Iterator[Change]:
        """Every change from that revision on, in order; first those that were, then those that come.

        Raises:
            Compacted: changes since then are no longer known one by one.
        """
        position, began = from_revision, time.monotonic()
        while True:
            with self.lock:
                self.catch_up()
                found = self.table.since(prefix, position) if position <= self.revision else []
                position = max(position, self.revision + 1)
            yield from found
            if found:
                began = time.monotonic()
            elif patience_s is not None and time.monotonic() - began >= patience_s:
                return
            else:
                time.sleep(POLL_S)

    def catch_up(self) -> None:
        """Take in what others did."""
        news = self.news()
        if news is not None:
            self.accept(news)
