"""Notices that could not be told before their process ended: kept beside the state for the next one that watches.

A file a process, `untold-TIME-PID.json`, so that two that end at once are in each other's way at no point. Who watches
takes all files there are. A notice whose delivery was under way at the end may be told twice; none is lost by an
orderly end. After a kill they are in the event log only.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloudrepo.watched import Notice

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
PATTERN = "untold-*.json"
LONGEST_AGE = timedelta(days=1)  # by the wall clock: they outlive a boot


def keep(folder: Path, by_way: Mapping[str, Sequence[Notice]]) -> None:
    """Write what each way could not tell.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"untold-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{os.getpid()}.json"
    draft = path.with_name(f".{path.name}.new")
    ways = {name: [asdict(notice) for notice in notices] for name, notices in by_way.items()}
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({"schema_version": SCHEMA_VERSION, "ways": ways}, file, default=str)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def take(folder: Path) -> dict[str, list[Notice]]:
    """What was kept, oldest first, by way; nobody else is given it. Too old a notice is dropped, which is logged."""
    found: dict[str, list[Notice]] = {}
    for path in sorted(folder.glob(PATTERN)):
        for way, notice in _taken(path):
            found.setdefault(way, []).append(notice)
    return {way: _young(way, notices) for way, notices in found.items()}


def _taken(path: Path) -> Iterator[tuple[str, Notice]]:
    """The notices of one file, which is gone before any of them is told."""
    try:
        text = path.read_text(encoding="utf-8")
        path.unlink()
        value = json.loads(text)
        if value["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema {value['schema_version']}")
        kept = [(str(way), Notice(**one)) for way, notices in value["ways"].items() for one in notices]
    except FileNotFoundError:
        return  # another process was faster
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        log.error("the notices in %s are not told: %r", path, error)
        return
    yield from kept


def _young(way: str, notices: Sequence[Notice]) -> list[Notice]:
    now = datetime.now(UTC)
    young = [notice for notice in notices if _age(notice, now) <= LONGEST_AGE]
    if len(young) < len(notices):
        log.error("%s notices are not told by %s: older than %s", len(notices) - len(young), way, LONGEST_AGE)
    return young


def _age(notice: Notice, now: datetime) -> timedelta:
    """How old a notice is; one without a usable time is too old."""
    try:
        return now - datetime.fromisoformat(notice.time)
    except (ValueError, TypeError):
        return timedelta.max
