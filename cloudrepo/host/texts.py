"""Which texts of files, and which values with parts, are within the grammar; see `judge.py`. Pure.

Standard library only, Python 3.8 or newer: installed on hosts as a part of one file, see `helper.py`.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from cloudrepo.host.judge import Bounds

    Named = list[tuple[str, str]]  # what a step names: kinds of `grammar.WORDS`, and the words


def each(items: Iterable[Any], look: Callable[[Any], Named | None]) -> Named | None:
    """What all items name; None as soon as one is refused."""
    named: Named = []
    for item in items:
        found = look(item)
        if found is None:
            return None
        named += found
    return named


def lines_of(text: str) -> Iterator[str]:
    """Lines of a text; one that does not end, or is empty, is a line that is in no table."""
    if not text.endswith("\n"):
        yield "\0"
    yield from text[:-1].split("\n")


def _as_lines(*patterns: str) -> Callable[[str, Bounds], Named | None]:
    """A text of exactly these lines."""

    def look(text: str, bounds: Bounds) -> Named | None:
        lines = list(lines_of(text))
        return bounds.words_as(patterns, lines)

    return look


def _every_line(name: str, may_be_empty: bool = False) -> Callable[[str, Bounds], Named | None]:
    """A text whose lines are all in a table."""

    def look(text: str, bounds: Bounds) -> Named | None:
        if may_be_empty and not text:
            return []
        return each(lines_of(text), lambda line: bounds.one_word(name, line))

    return look


def _remembrance(text: str, bounds: Bounds) -> Named | None:
    """The mark file of a disk: what it says of files must be where our files are."""
    found = _json(text)
    if not set(found) <= {"mark", "uuid", "base", "record", "disk", "candidate"}:
        return None
    base = found.get("base")
    texts = {
        "<mark>": found.get("mark"),
        "<base>/<image>": found.get("disk", found.get("candidate")),
        "<base>/base/<file>": base.get("path_on_host") if isinstance(base, dict) and base else None,
    }
    if found.get("disk") is not None and found.get("candidate") is not None:
        return None
    for pattern, word in texts.items():
        if word is not None and (not isinstance(word, str) or bounds.match(pattern, word) is None):
            return None
    return [] if texts["<mark>"] is not None else None


def _record(text: str, bounds: Bounds) -> Named | None:
    """The record of a base image, which says where it is."""
    found = _json(text)
    image = found.get("image")
    path = image.get("path_on_host") if isinstance(image, dict) else None
    if set(found) != {"image", "source", "installation"} or not isinstance(path, str):
        return None
    if found["installation"] != bounds.installation:
        return None
    return [] if bounds.match("<base>/base/<file>", path) is not None else None


def _machine_mark(text: str, bounds: Bounds) -> Named | None:
    """The mark file of a machine: its mark, its UUID, and which of its NICs are plugged in."""
    lines = list(lines_of(text))
    for line in lines[2:3]:
        word, *nics = line.split(" ")
        if word != "plugged" or not all(bounds.match("<nic>", nic) is not None for nic in nics):
            return None
    return bounds.words_as(("<mark>", "<uuid>"), lines[:2]) if len(lines) < 4 else None


def _places(text: str, bounds: Bounds) -> Named | None:
    """Where is listened: by namespace, devices. What is heard is told only if it holds the token, or answers it.

    A stranger's port may be in a namespace of its own: such devices are named `astray`, and must be ports.
    """
    found = _json(text)
    named: Named = []
    for space, devices in found.items():
        if space and bounds.match("<space>", space) is None:
            return None
        if not isinstance(devices, list) or not all(bounds.match("<device>", str(one)) is not None for one in devices):
            return None
        if space and bounds.match("<namespace>", space) is None:
            named += [("astray", str(one)) for one in devices]
    return named


def _questions(text: str, bounds: Bounds) -> Named | None:
    """By transaction of DHCP, the number of the frame that asked."""
    found = _json(text)
    is_plain = all(re.fullmatch("[0-9a-f]{8}", key, re.ASCII) and type(one) is int for key, one in found.items())
    return [] if is_plain else None


def _json(text: str) -> dict[str, Any]:
    """An object; empty when the text is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


TEXTS = {
    "machine": _machine_mark,
    "server": _as_lines("<mark>"),
    "pid": _as_lines("<number> <number>"),
    "hosts": _every_line("hosts", may_be_empty=True),
    "dnsmasq": _every_line("dnsmasq"),
    "remembrance": _remembrance,
    "record": _record,
    "places": _places,
    "questions": _questions,
}
