"""The state as YAML text: block style, fit for hand editing, written and read section by section.

The text of a section that did not change is taken from the file as it stands there, comments included; only changed
sections are dumped again. So a change to one VM changes only its lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cloudrepo.bounded_yaml import Bounded, load, load_flat
from cloudrepo.state import COLLECTIONS, KEY_ORDER, Key, fingerprint, restored
from cloudrepo.stores.yaml_lines import LineReader, LineWriter, NotOurs, is_list_of_records

END = b"...\n"  # YAML's end of a document: a file of ours without it was cut
Spans = dict[Key, tuple[int, int]]

_SECTION = re.compile(rb"\n(?:  )?(?=[^ #\-\n])")


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes shared values out in full: an anchor is nothing to edit by hand."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


# ---------------------------------------------------------------------------------------- reading


def parse(content: bytes) -> tuple[Any, Spans]:
    """The value of the whole text, and where in it each section stands.

    Sections stand nowhere when the text is laid out in another way than ours; it is good YAML all the same.

    Raises:
        yaml.YAMLError, ValueError: the text is no YAML, goes beyond the bounds, or is not in UTF-8.
    """
    text = content.decode()
    try:
        return _by_sections(content)
    except (NotOurs, yaml.YAMLError, ValueError):
        raw = load(text)  # laid out by hand, or damaged: then this says where
    try:
        return restored(fingerprint(raw)), {}  # anchors make values shared; here they part
    except (ValueError, RecursionError):
        return raw, {}  # a value that is not plain, which is said later, with its place


def _by_sections(content: bytes) -> tuple[dict[str, Any], Spans]:
    data: dict[str, Any] = {}
    spans: Spans = {}
    reader, bounded = LineReader(load_flat), Bounded()
    for top, begin, end in _parts(content):
        if top in COLLECTIONS and begin == end:
            if top in data:
                raise NotOurs  # twice
            data[top] = {}
            continue
        where = data[top] if top in COLLECTIONS else data
        name, value = _section(reader, bounded, top, content[begin:end].decode())
        if name in where:
            raise NotOurs  # twice
        where[name] = value
        if isinstance(name, str):
            spans[(top, name) if top in COLLECTIONS else (top, "")] = (begin, end)
    return data, spans


def spans_of(content: bytes) -> Spans:
    """Where in a text each section stands; nowhere when it is laid out in another way than ours."""
    spans: Spans = {}
    reader = LineReader(load_flat)
    try:
        for top, begin, end in _parts(content):
            if top not in COLLECTIONS:
                spans[top, ""] = (begin, end)
            elif begin != end:
                head = content[begin : content.index(b"\n", begin)].decode()
                spans[top, str(reader.scalar(head[2:-1]))] = (begin, end)
    except NotOurs:
        return {}
    return spans


def _parts(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Where our sections stand: top-level key, begin and end. A collection comes first, empty, then each entry.

    Raises:
        NotOurs: a line does not fit. What fits by chance is found when the section is parsed alone.
    """
    if not content.endswith(b"\n" + END) or content[:1] in b" #-\n":
        raise NotOurs
    limit = len(content) - len(END)
    starts = [(found.start() + 1, found.end() - found.start() == 3) for found in _SECTION.finditer(content, 0, limit)]
    top, start, expected = "", -1, 0
    for begin, is_entry in [(0, False), *starts, (limit, False)]:
        if is_entry and top and top not in COLLECTIONS:
            continue  # a line within a section
        if start >= 0:
            yield top, start, begin
        if begin == limit:
            return
        if (is_entry and not top) or expected not in (0, begin):
            raise NotOurs
        start, expected = begin, 0
        if not is_entry:
            end = content.index(b"\n", begin)
            top, _, rest = content[begin:end].decode().partition(":")
            if top in COLLECTIONS:
                if rest not in ("", " {}"):
                    raise NotOurs
                yield top, begin, begin
                start, expected = -1, end + 1
                top = "" if rest else top  # nothing may follow `{}`


def _section(reader: LineReader, bounded: Bounded, top: str, text: str) -> tuple[Any, Any]:
    """Name and value of one section.

    Raises:
        NotOurs: the text is not exactly one.
    """
    if top in COLLECTIONS:
        head, _, rest = text.partition("\n")
        try:
            if not head.endswith(":") or not rest:
                raise NotOurs
            return reader.scalar(head[2:-1]), reader.mapping(rest.split("\n")[:-1])
        except NotOurs:
            pass
    value = bounded.load(f"{top}:\n{text}" if top in COLLECTIONS else text)
    if not isinstance(value, dict) or list(value) != [top]:
        raise NotOurs
    if top not in COLLECTIONS:
        return top, value[top]
    if not isinstance(value[top], dict) or len(value[top]) != 1:
        raise NotOurs
    ((name, entry),) = value[top].items()
    return name, entry


# ---------------------------------------------------------------------------------------- writing


class Renderer:
    """Renders the state, taking the text of unchanged sections as it is.

    Attributes:
        dumped_bytes: how much was dumped by the last call of `render`.
    """

    def __init__(self) -> None:
        self._writer = LineWriter(lambda value: _dump(value, 0))
        self.dumped_bytes = 0

    def render(self, revision: int, prints: Mapping[Key, bytes], before: Mapping[Key, bytes]) -> tuple[bytes, Spans]:
        """The whole file, and where in it each section stands.

        Args:
            revision: of the state.
            prints: the fingerprint of each section, in the order they are written.
            before: the text of those that need not be dumped again.
        """
        self.dumped_bytes = 0
        spans: Spans = {}
        parts: list[bytes] = []
        length = 0

        def add(part: bytes) -> None:
            nonlocal length
            parts.append(part)
            length += len(part)

        add(b"")
        is_said = False
        for top, keys in _by_top(prints).items():
            if top in COLLECTIONS:
                add(f"{top}:\n".encode() if keys else f"{top}: {{}}\n".encode())
            for key in keys:
                text = before.get(key)
                if text is None:
                    text = self._section(key, restored(prints[key])).encode()
                    self.dumped_bytes += len(text)
                spans[key] = (length, length + len(text))
                add(text)
            if not is_said:  # after `schema_version`, which stands first
                add(f"revision: {revision}\n".encode())
                is_said = True
        add(END)
        return b"".join(parts), spans

    def _section(self, key: Key, value: Any) -> str:
        top, name = key
        if top not in COLLECTIONS:
            return _dump({top: value}, 0)
        try:
            return _dump({top: {name: None}}, 1).removesuffix(" null\n") + "\n" + self._writer.mapping(value)
        except NotOurs:
            pass
        lists = {part: entries for part, entries in value.items() if is_list_of_records(entries)}
        ordered = {part: entry for part, entry in value.items() if part not in lists} | lists
        return _dump({top: {name: ordered}}, 1)


def _by_top(prints: Mapping[Key, bytes]) -> dict[str, list[Key]]:
    """The keys in the order they are written: what is short first, slices last and by number."""
    found: dict[str, list[Key]] = {}
    for key in prints:
        found.setdefault(key[0], []).append(key)
    simple = sorted((top for top in found if top not in COLLECTIONS), key=_rank)
    slices = sorted(found.get("slices", []), key=lambda key: int(key[1]))
    return {top: found[top] for top in simple} | {top: found.get(top, []) for top in COLLECTIONS} | {"slices": slices}


def _rank(top: str) -> int:
    return KEY_ORDER.index(top) if top in KEY_ORDER else len(KEY_ORDER)


def _dump(value: Any, drop: int) -> str:
    """`value` in block style without its first `drop` lines, which only say where it belongs."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=1 << 20
    )
    return text.split("\n", drop)[drop]
