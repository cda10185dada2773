"""What a store of the state can do, whatever it keeps the state in.

A store holds plain values by key. Each change has a *revision*, a number that only grows; an entry knows the revision
of its last change. Whoever read at one revision can write under the condition that nothing has changed since, and can
go on watching from there. This is what etcd offers, so that a store over it fits here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from typing import Any, Protocol

from cloudrepo.errors import CloudError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import Key, Record


@dataclass(frozen=True)
class Entry:
    """A value as it was when it was read.

    Attributes:
        key: such as `slices/1000` or `workers_list`.
        value: a copy.
        revision: nothing has changed it since.
    """

    key: str
    value: Any
    revision: int


@dataclass(frozen=True)
class Change:
    """What happened to one key.

    Attributes:
        key: such as `slices/1000`.
        value: the new value; None when it is gone.
        revision: of the change.
        is_gone: whether the key was deleted.
    """

    key: str
    value: Any
    revision: int
    is_gone: bool = False


class LostRace(CloudError):
    """Somebody else changed the key first; nothing was written."""

    code = "state.race"


class Compacted(CloudError):
    """The changes since that revision are no longer known one by one: list again, and watch from there."""

    code = "state.compacted"


#: Told what is there now and what was there before, by key.
Follower = Callable[[Mapping[Key, bytes | None], Mapping[Key, bytes | None]], None]


class Store(Protocol):
    """The state by key, for any number of processes."""

    @property
    def revision(self) -> int:
        """Of the last change that is known here."""

    def get(self, key: str) -> Entry | None:
        """A key's entry, or None."""

    def list(self, prefix: str = "") -> Sequence[Entry]:
        """All entries whose key begins with `prefix`, in the order of the state."""

    def put_if(self, key: str, value: Any, revision: int) -> int:
        """Write, if nothing has changed the key since `revision`; 0 = if there is no such key.

        Returns:
            The revision of the change.

        Raises:
            LostRace: something has.
            StateFileError: the value cannot be stored.
        """

    def delete_if(self, key: str, revision: int) -> int:
        """Delete, if nothing has changed the key since `revision`; as `put_if`."""

    def watch(self, prefix: str, from_revision: int, *, patience_s: float | None = None) -> Iterator[Change]:
        """Every change from that revision on, in order; first those that were, then those that come.

        Args:
            prefix: of the keys.
            from_revision: the first revision wanted; after a list at revision R that is R + 1.
            patience_s: ends when nothing has come for so long; None = never.

        Raises:
            Compacted: changes since then are no longer known one by one.
        """


@dataclass(frozen=True)
class News:
    """What others did since the last look.

    Attributes:
        changes: by key, what is there now (a fingerprint), or None when it is gone.
        steps: the same, change by change: revision, and what it changed; empty when they are not known one by one.
        token: for the store that made it.
    """

    changes: Mapping[Key, bytes | None]
    steps: tuple[tuple[int, Mapping[Key, bytes | None]], ...] = ()
    token: Any = field(default=None, compare=False)


class SharedStore(Store, Protocol):
    """What `Database` needs of a store besides: changes of several keys at once, and a turn of one's own."""

    follower: Follower | None
    """Told of the changes of others, and of what was there before, when they are taken in."""

    floors: dict[str, int]
    """Counters that are known to have been higher than the state says: raised with the next change, then forgotten."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Taken for everything by every thread; re-entrant."""

    @property
    def prints(self) -> Mapping[Key, bytes]:
        """Each section's acknowledged value as a fingerprint."""

    @property
    def needs_end(self) -> bool:
        """Whether `close` has something to do."""

    def take_data(self) -> Record:
        """The state as it was opened, for the one who keeps it in memory; given once."""

    def exclusive(self) -> AbstractContextManager[None]:
        """A block in which nobody else changes anything."""

    def news(self) -> News | None:
        """What others did, not yet taken in; None when nothing."""

    def accept(self, news: News) -> None:
        """Take it in."""

    def commit(self, changes: Mapping[Key, bytes | None]) -> int:
        """Write all of these or none, in one's turn; durable on return. The revision."""

    def back_up(self) -> None:
        """Keep what is there now, before anything is written."""

    def keep_generation(self) -> None:
        """Keep what is there now under a number, if it is another than the newest one kept."""

    def fold(self) -> None:
        """Bring whatever is kept beside the state's one file into it, if there is something."""

    def close(self) -> None:
        """An orderly end."""
