"""A store that is only memory: for tests, and for one process that keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cloudrepo.state import Key, Record, fingerprints, normalise, state_of
from cloudrepo.stores.store import News
from cloudrepo.stores.table import KeyedStore


class MemoryStore(KeyedStore):
    """The state in memory.

    Args:
        data: what it holds at first.
    """

    def __init__(self, data: Record) -> None:
        super().__init__()
        self.table.reset(fingerprints(normalise(data)), 1)

    @property
    def needs_end(self) -> bool:
        """Nothing has to be brought anywhere."""
        return False

    def take_data(self) -> Record:
        """A copy of the state."""
        return state_of(self.table.prints)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """A block in which no other thread changes anything."""
        with self.lock:
            yield

    def news(self) -> News | None:
        """Nobody else is at it."""
        return None

    def accept(self, news: News) -> None:
        """There is nothing to take in."""

    def commit(self, changes: Mapping[Key, bytes | None]) -> int:
        """Hold these values from now on."""
        with self.lock:
            self.table.apply(self.revision + 1, changes)
            return self.revision

    def back_up(self) -> None:
        """There is nothing to copy."""

    def keep_generation(self) -> None:
        """There is nothing to keep."""

    def fold(self) -> None:
        """There is nothing to fold."""

    def close(self) -> None:
        """There is nothing to close."""
