"""What plans say of records: a rehearsal in a transaction that is taken back, a digest, a quota. No host is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cloudrepo import quotas
from control.context import Context, Record

T = TypeVar("T")

NOTHING: Record = {"vlans": [], "vms": []}  # is given


class _Over(Exception):
    """The end of a rehearsal: what it found; the transaction is taken back."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found


def rehearsed(context: Context, work: Callable[[Record], T]) -> T:
    """What some work on the records comes to; they are as before."""
    try:
        with context.index_kept(), context.db.transaction() as data:
            raise _Over(work(data))
    except _Over as over:
        found: T = over.found
        return found


def quota_of(context: Context, data: Mapping[str, Any], owner: str) -> Record:
    """What a user has of what is allowed."""
    limit, used = quotas.limits(data["users"].get(owner) or {}, context.settings), quotas.used(data, owner)
    return {
        "user": owner,
        **{
            kind: {"used": quotas.number(used.of(kind)), "limit": quotas.number(limit.of(kind))}
            for kind in quotas.KINDS
        },
    }


def digest_of(record: Mapping[str, Any]) -> str:
    """A slice's record in a few characters: equal as long as nothing of it changes."""
    text = json.dumps(record, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
