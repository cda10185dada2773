"""The state of an installation: users, workers, slices and counters, in one YAML file.

Every change is a transaction::

    with db.transaction() as data:
        data["users"]["ann"]["quota_vms"] = 20

It takes the thread lock and a lock between processes, first takes in what other processes or an editor wrote, and on
leaving the block appends one record to the journal beside the file before it returns. When the block raises, nothing
has changed. `save` brings the journal into the file, `close` also removes it: the file alone is then the whole state.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from cloudrepo.allocation import next_operation
from cloudrepo.errors import StateFileError
from cloudrepo.settings import History
from cloudrepo.state import (
    COLLECTIONS,
    Key,
    Record,
    ShapeError,
    all_slices,
    fingerprint,
    fresh,
    restored,
    settle,
    storable,
)
from cloudrepo.stores.counters import behind
from cloudrepo.stores.journal import is_plain, plain
from cloudrepo.stores.journaled import JournaledStore
from cloudrepo.stores.store import SharedStore
from cloudrepo.stores.turns import short_turns
from cloudrepo.totals import Totals
from cloudrepo.tracking import Touched, Tracker

log = logging.getLogger(__name__)

MANY = 100  # slices
LOOKED_AT = 20  # sections at a time


class Watch(Protocol):
    """Who looks at the records in transactions; see `Database.watched`."""

    def begins(self, data: Mapping[str, Any]) -> None:
        """The records, before a transaction changes anything. What this raises ends it, with nothing changed."""

    def ended(self, data: Mapping[str, Any]) -> None:
        """The records as they are durable now."""


class Database:
    """The state in memory, and its file.

    Attributes:
        data: the state: the documented top-level keys and a few more. Always the same mapping.
        lock: taken by every method that changes something; take it to read several things of `data` at once.
        path: the state file, without symbolic links.
        store: where it is kept.

    Args:
        filepath: the state file; one that is missing is made with the documented content.
        store: where to keep it instead.
        copies: how many generations are kept, and how often one is made; the defaults of the settings.

    Raises:
        StateFileError: the file or its journal is damaged, or is none. It is left as it is.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str] = "database.yaml",
        *,
        store: SharedStore | None = None,
        copies: History | None = None,
    ) -> None:
        self.path = Path(os.path.realpath(filepath))
        self.store: SharedStore = JournaledStore(self.path, _documented, copies) if store is None else store
        self.lock = self.store.lock
        self.data: Record = self.store.take_data()
        self._tracker = Tracker(self.data)
        self._totals = Totals(self.data)
        self._owed: set[Key] = set()  # derived values that others left behind; written with the next change
        self._backed_up = False
        self._watch: Watch | None = None
        self.store.follower = self._follow
        if len(self.data["slices"]) > MANY:
            gc.freeze()  # else each full collection walks through all records: 25-90 ms at 10,000 VMs
        if self.store.needs_end:
            _open_ones.add(self)

    # ------------------------------------------------------------------------------------ changing

    @contextmanager
    def transaction(self) -> Iterator[Record]:
        """The state, to be changed in the block; durable when the block is left, unchanged when it raises.

        Take records from the mapping that is yielded: what was taken before is not watched. Keep the block short and
        away from the network: every other process waits for it. A transaction in a transaction is part of the outer
        one, and is undone alone when it raises.

        Raises:
            StateFileError: the files cannot be read, locked or written; a value cannot be stored; or the files and
                unsaved changes made outside of transactions contradict each other. Nothing has changed.
        """
        try:
            with self.lock:
                if self._tracker.depth:
                    with self._undone_on_error():
                        yield self.data
                    return
                with self.store.exclusive():
                    self._take_in()
                    self._back_up()  # after it: what was just read parsed
                    with self._undone_on_error() as touched:
                        self.data.update(behind(self.data, self.store.floors))
                        watch = self._watch
                        if watch is not None:
                            watch.begins(self.data)
                        yield self.data
                        self._commit(touched)
                        if watch is not None:
                            watch.ended(self.data)
                    self.store.floors.clear()
        except ShapeError as error:  # by a commit, or where something is looked at that was put there before
            raise _cannot_be_stored(error) from error

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """A block in which somebody looks at the records in each transaction of this object.

        Args:
            watch: told when one has begun, after what others wrote was read, and when it is durable. It may refuse.
        """
        self._watch, before = watch, self._watch
        try:
            yield
        finally:
            self._watch = before

    @contextmanager
    def _undone_on_error(self) -> Iterator[Touched]:
        touched = self._tracker.begin()
        try:
            yield touched
        except BaseException:
            touched.undo()
            if self._tracker.depth == 1:  # only a commit counts, and blocks within have none
                for name in {str(name) for top, name in touched.before if top == "slices"}:
                    self._totals.put(name, dict.get(self.data["slices"], name))
            raise
        finally:
            self._tracker.end()

    def _commit(self, touched: Touched) -> None:
        """Write what changed; the caller holds both locks.

        Raises:
            ShapeError: something of it cannot be stored.
        """
        self._tracker.gather()
        changed = self._changed(touched.keys())
        if not changed and not self._owed:
            return
        self.data.setdefault("installation", _fresh_mark())
        settle(self.data, changed)
        self._derive(touched)
        changes = {key: self._plain(key) for key in self._changed([*touched.keys(), *self._owed])}
        if changes:
            self.store.commit(changes)
            _open_ones.add(self)
        self._owed.clear()

    def _changed(self, keys: list[Key]) -> list[Key]:
        """Those of the sections that are not as the store has them."""
        prints = self.store.prints
        return [key for key in keys if self._print(key) != prints.get(key)]

    def _print(self, key: Key) -> bytes | None:
        where, name = _place(self.data, key)
        return fingerprint(dict.__getitem__(where, name), key) if name in where else None

    def _plain(self, key: Key) -> bytes | None:
        """The section as it is stored; what JSON holds in another form is brought to that form here, too."""
        where, name = _place(self.data, key)
        if name not in where:
            return None
        value = dict.__getitem__(where, name)
        if not is_plain(value):
            value = plain(value, key)
            dict.__setitem__(where, name, value)
        return storable(value, key)

    def _derive(self, touched: Touched) -> None:
        """Recompute what follows from slices that were touched, and in users and workers that were."""
        found = {top: {name for part, name in touched.before if part == top} for top in COLLECTIONS}
        for name in found["slices"]:
            owners, used = self._totals.put(name, dict.get(self.data["slices"], name))
            found["users"] |= owners
            found["workers"] |= used
        for top, sums in (("users", self._totals.user), ("workers", self._totals.worker)):
            for name in found[top] & self.data[top].keys():
                derived = sums(name)
                if _differs(self.data[top], name, derived):
                    touched.note(top, name)
                    dict.__getitem__(self.data[top], name).update(derived)

    def save(self) -> None:
        """Write changes that were made to `data` outside of a transaction, and bring the journal into the file.

        Raises:
            StateFileError: as `transaction`.
        """
        with short_turns():
            if self._is_changed_by_hand():
                with self.transaction() as data:
                    for top in COLLECTIONS:
                        data[top].values()  # all of them are looked at
            self.refresh()
            with self.lock:
                is_inside = self._tracker.depth > 0
            if not is_inside:  # a fold waits for others who may wait for this transaction
                self.store.fold()

    def _is_changed_by_hand(self) -> bool:
        try:
            with self.lock:
                keys = [(top, name) for top in COLLECTIONS for name in self.data[top]]
                keys += [(top, "") for top in self.data if top not in COLLECTIONS]
                if len(keys) != len(self.store.prints):
                    return True
            for begin in range(0, len(keys), LOOKED_AT):  # whoever writes meanwhile does not wait for all of them
                with self.lock:
                    if self._changed(keys[begin : begin + LOOKED_AT]):
                        return True
        except (ShapeError, TypeError, KeyError):
            return True  # the transaction says what is wrong
        return False

    def close(self) -> None:
        """An orderly end: everything is in the file, and the journal is gone unless others go on.

        Raises:
            StateFileError: the file cannot be written; the journal holds everything, and the next start reads it.
        """
        _open_ones.discard(self)
        if self._is_changed_by_hand():
            self.save()
        self.store.close()

    def update_slice(self, slice_id: int | str, slice_data: Mapping[str, Any]) -> None:
        """Store a slice's record and save.

        Raises:
            StateFileError: as `transaction`.
        """
        with self.transaction() as data:
            data["slices"][str(slice_id)] = restored(fingerprint(dict(slice_data), ("slices", slice_id)))

    def next_operation(self, above: int = 0) -> int:
        """A new operation number, greater than every one before, in all processes.

        Args:
            above: and greater than this one, which a host has seen; the counter was set back if it does not know it.
        """
        with self.transaction() as data:
            return next_operation(data, above)

    def backup(self) -> None:
        """Keep the file as it is: as `….backup` and as a generation. It parsed, or there would be no Database.

        Raises:
            StateFileError: a copy cannot be written.
        """
        with self.lock, self.store.exclusive():
            self.refresh()
            self._back_up()
            self.store.keep_generation()

    def _back_up(self) -> None:
        """Copy the file to `….backup`, once in a process and before its first write."""
        with self.lock:
            if not self._backed_up:
                self.store.back_up()
                self._backed_up = True

    # ------------------------------------------------------------------------------------ reading

    @property
    def installation(self) -> str:
        """Eight hex digits that mark everything this installation makes; made at the first write."""
        with self.lock:
            if "installation" not in self.data:
                with self.transaction() as data:
                    data.setdefault("installation", _fresh_mark())
            return str(self.data["installation"])

    def refresh(self) -> None:
        """Take in what other processes or an editor wrote since the last look; costs two `stat` when nothing.

        Raises:
            StateFileError: a file is damaged now, or holds what others changed and a program changed here, too, to
                something that cannot be stored; the state in memory stays.
        """
        with _only_plain(), self.lock:
            if not self._tracker.depth:
                self._take_in()

    def get_user(self, username: str) -> Record | None:
        """A copy of a user's record, or None."""
        return self._copy("users", username)

    def get_slice(self, slice_id: int | str) -> Record | None:
        """A copy of a slice's record, or None."""
        return self._copy("slices", str(slice_id))

    def get_worker(self, ip: str) -> Record | None:
        """A copy of a worker's record, or None."""
        return self._copy("workers", ip)

    def list_slices(self, username: str | None = None) -> list[Record]:
        """Copies of all slices, or of a user's, in the order of their ids."""
        with _only_plain(), self.lock:
            self.refresh()
            chosen = [record for record in all_slices(self.data) if username in (None, record["owner"])]
            chosen.sort(key=lambda one: one["slice_id"])
            return [restored(fingerprint(record, ("slices", record["slice_id"]))) for record in chosen]

    def _copy(self, top: str, key: str) -> Record | None:
        with _only_plain(), self.lock:
            self.refresh()
            record = dict.get(self.data[top], key)
            return None if record is None else restored(fingerprint(record, (top, key)))

    # ------------------------------------------------------------------------------------ others

    def _take_in(self) -> None:
        news = self.store.news()
        if news is not None:
            self.store.accept(news)

    def _follow(self, changes: Mapping[Key, bytes | None], before: Mapping[Key, bytes | None]) -> None:
        """Take others' changes into `data`, section by section.

        Raises:
            StateFileError: one of them was changed here, too, outside of a transaction.
        """
        taken: dict[Key, bytes | None] = {}
        for key, theirs in changes.items():
            mine = self._print(key)
            if mine not in (before.get(key), theirs):
                raise StateFileError(
                    f"{self.path} was changed by another program while it was changed here",
                    evidence=f"both changed {'.'.join(filter(None, key))}",
                    remedy="Start again to work with the file as it is now",
                    code="state.conflict",
                )
            if mine != theirs:
                taken[key] = theirs
        for key, theirs in taken.items():
            where, name = _place(self.data, key)
            if theirs is None:
                dict.pop(where, name, None)
            else:
                dict.__setitem__(where, name, restored(theirs))
        self._check_derived(taken, changes)

    def _check_derived(self, taken: Mapping[Key, bytes | None], changes: Mapping[Key, bytes | None]) -> None:
        """Count the slices that others changed; what they did not derive is owed."""
        users, workers = set[str](), set[str]()
        for top, name in taken:
            if top == "slices":
                owners, used = self._totals.put(name, dict.get(self.data["slices"], name))
                users |= owners
                workers |= used
            elif top in ("users", "workers"):
                (users if top == "users" else workers).add(name)
        for top, names, sums in (("users", users, self._totals.user), ("workers", workers, self._totals.worker)):
            for name in names & self.data[top].keys():
                derived = sums(name)
                if _differs(self.data[top], name, derived):
                    dict.__getitem__(self.data[top], name).update(derived)
                    self._owed.add((top, name))


def _fresh_mark() -> str:
    """Eight hex digits for a new installation, drawn by the kernel."""
    return os.urandom(4).hex()


def _documented() -> Record:
    from cloudrepo.accounts import DEFAULT_USERS  # of a new state only

    return {**fresh(DEFAULT_USERS), "installation": _fresh_mark()}


def _place(data: Record, key: Key) -> tuple[Record, str]:
    """The mapping a section is in, and its key there."""
    top, name = key
    return (data[top], name) if top in COLLECTIONS else (data, top)


def _differs(collection: Record, name: str, derived: Mapping[str, Any]) -> bool:
    """Whether derived values are others than those in the record."""
    record = dict.__getitem__(collection, name)
    return any(record.get(part) != value for part, value in derived.items())


@contextmanager
def _only_plain() -> Iterator[None]:
    """A block that only looks at the state, and meets there what a program put into it outside of a transaction."""
    try:
        yield
    except ShapeError as error:
        where = ".".join(str(part) for part in error.path if part != "")
        raise StateFileError(
            f"{where} cannot be read",
            evidence=str(error),
            remedy="Set it right where it was put there, or start again to work with the file as it is",
            code="state.value",
        ) from error


def _cannot_be_stored(error: ShapeError) -> StateFileError:
    where = ".".join(str(part) for part in error.path if part != "")
    return StateFileError(
        f"{where} cannot be stored", evidence=str(error), remedy="Nothing was changed", code="state.value"
    )


_open_ones: set[Database] = set()  # those that have something to bring into their file


def close_all() -> None:
    """Close every database of this process that is still open; the others, too, when one cannot be.

    Raises:
        StateFileError: the first that could not be brought into its file.
    """
    errors: list[StateFileError] = []
    for database in list(_open_ones):
        try:
            database.close()
        except StateFileError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _close_at_exit() -> None:
    """For programs that only end: their journal would be read by the next start, but the file alone is better."""
    try:
        close_all()
    except StateFileError as error:
        log.warning("%s", error)


atexit.register(_close_at_exit)
