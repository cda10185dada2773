"""A slice that several calls change, and nobody else meanwhile: compared in each call's own transaction.

A call that finds another record than the one before it left is refused before it changes anything. What others write
while a call is at its hosts does not stop that call, which would leave it half done, but the next one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cloudrepo import record_changes
from cloudrepo.errors import RefusedError
from cloudrepo.state import find_slice
from control.context import Record
from database import Database

MOST_TOLD = 5
STALE = "plan.stale"  # the code of a refusal


class Expected:
    """The record of one slice, as it is expected from call to call.

    Args:
        db: the records.
        owner: whose slice it is.
        name: what it is called.
        record: as it is expected now; None = there is no such slice yet, and the first call makes it.
        remedy: what a person does when it is another one.
    """

    def __init__(self, db: Database, owner: str, name: str, record: Mapping[str, Any] | None, remedy: str) -> None:
        self._db = db
        self._owner = owner
        self._name = name
        self._slice_id = int(record["slice_id"]) if record is not None else None
        self._record = _plain(record)
        self._remedy = remedy
        self._thread = 0
        self._has_acted = False
        self._moved: list[str] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """The block of all calls, which this thread makes."""
        self._thread = threading.get_ident()
        with self._db.watched(self):
            yield

    def next_call(self) -> None:
        """Another call begins. What can be seen before it is said here; the rest is for its transaction.

        Raises:
            RefusedError: somebody changed the slice, also while the last one was under way.
        """
        self._has_acted = False
        if self._moved:
            raise self._stale(self._moved)
        self._db.refresh()
        with self._db.lock:
            self.begins(self._db.data)

    # -- a watch of the database ---------------------------------------------------------------------------

    def begins(self, data: Mapping[str, Any]) -> None:
        """Compare, when a transaction of the calls begins.

        Raises:
            RefusedError: the record is another one, and the call has not changed it yet.
        """
        if not self._is_ours():
            return
        now = self._now(data)
        if now == self._record:
            return
        moved = _sentences(self._record, now)
        if not self._has_acted:
            raise self._stale(moved)
        self._moved += [one for one in moved if one not in self._moved]

    def ended(self, data: Mapping[str, Any]) -> None:
        """Take note of what a transaction of the calls left."""
        if not self._is_ours():
            return
        now = self._now(data)
        self._has_acted = self._has_acted or now != self._record
        self._record = now
        if now is not None:
            self._slice_id = int(now["slice_id"])

    def _is_ours(self) -> bool:
        """What another thread of this process writes is as another process's."""
        return threading.get_ident() == self._thread

    def _now(self, data: Mapping[str, Any]) -> Record | None:
        if self._slice_id is not None:
            return _plain(find_slice(data, self._slice_id))
        named = (one for one in data["slices"].values() if (one["owner"], one["name"]) == (self._owner, self._name))
        return _plain(next(named, None))

    def _stale(self, moved: list[str]) -> RefusedError:
        told = [*moved[:MOST_TOLD], *(["and more"] if len(moved) > MOST_TOLD else [])]
        return RefusedError(
            "the plan is not gone on with",
            evidence=f"since it was made, {'; '.join(told)}",
            remedy=self._remedy,
            code=STALE,
            details={"moved": list(moved)},
        )


def _plain(record: Mapping[str, Any] | None) -> Record | None:
    """A copy that nobody changes."""
    if record is None:
        return None
    found: Record = json.loads(json.dumps(record, default=dict))
    return found


def _sentences(before: Record | None, now: Record | None) -> list[str]:
    """What is another thing in a slice's record."""
    slice_id = (now or before or {}).get("slice_id")
    known, found = (record_changes.of_slices([one] if one is not None else []) for one in (before, now))
    told = [_sentence(one) for one in record_changes.between(known, found)]
    return told or [f"the record of slice {slice_id} changed"]


def _sentence(one: Mapping[str, Any]) -> str:
    if one["before"] is None and not one["key"]:
        return f"{one['what']} was made"
    if not one["key"]:
        return f"{one['what']} was removed"
    was = f", and was {one['before']}" if one["before"] is not None else ""
    now = "no more" if one["after"] is None else f"{one['after']} now"
    return f"{one['key']} of {one['what']} is {now}{was}"
