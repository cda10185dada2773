"""Counters that never go back: numbers that were given out are on hosts, also when an older state file is put back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cloudrepo import regular_file
from cloudrepo.state import Record, restored
from cloudrepo.stores.generations import Generations
from cloudrepo.stores.journal import Journal
from cloudrepo.stores.yaml_file import YamlFile

COUNTERS = ("operation", "next_vm_id")

_LINE = re.compile(rb"^(operation|next_vm_id): *(\d+) *\r?$", re.MULTILINE)
_REVISION = re.compile(rb"^revision: *(\d+) *\r?$", re.MULTILINE)
_HEAD = 4096  # bytes; the revision stands in the second line of what we write


def of_text(content: bytes) -> dict[str, int]:
    """The counters in the text of a state file, damaged or not."""
    return {name.decode(): int(number) for name, number in _LINE.findall(content)}


def of_journal(journal: Journal) -> dict[str, int]:
    """The highest values in a journal."""
    values = [
        {name: restored(printed)}
        for record in journal.records
        for (name, _), printed in record.changes.items()
        if name in COUNTERS and printed is not None
    ]
    return highest(*values)


def of_copies(generations: Generations) -> dict[str, int]:
    """The highest values in the backup and the generations."""
    paths = [*(generation.path for generation in generations.list()), generations.backup_path]
    return highest(*(of_text(_read(path)) for path in paths))


def highest(*found: Mapping[str, int]) -> dict[str, int]:
    """The highest value of each counter."""
    values: dict[str, int] = {}
    for each in found:
        for name, number in each.items():
            values[name] = max(number, values.get(name, 0))
    return values


def behind(data: Record, floors: Mapping[str, int]) -> dict[str, int]:
    """Those counters that are higher than in a state."""
    return {name: floor for name, floor in floors.items() if type(data.get(name)) is int and data[name] < floor}


def put_back(file: YamlFile, data: Record, generations: Generations) -> dict[str, int]:
    """What a state file's counters are behind by, if it is older than the newest copy: then that was put back."""
    known = generations.list()
    if not known or known[-1].sha == file.sha:
        return {}
    said = _REVISION.search(_read(known[-1].path, _HEAD))
    if said is None or int(said[1]) <= file.said:
        return {}
    return behind(data, of_copies(generations))


def raised(content: bytes, floors: Mapping[str, int]) -> bytes:
    """The text of a state file with counters that are at least these; the rest stays as it stands."""
    for name, floor in floors.items():
        line = b"%s: %d" % (name.encode(), floor)
        content, count = re.subn(rb"^%s: *\d+ *$" % name.encode(), line, content, count=1, flags=re.MULTILINE)
        if not count:
            content = line + b"\n" + content
    return content


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with open(regular_file.open_to_read(path), "rb") as file:
            return file.read(size)
    except OSError:
        return b""
