"""A YAML text as a tree in which every key and value knows its line and column. Pure, and bounded in time.

A text that is no YAML has one mistake; one that is YAML can have many, and a key that is there twice is one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from cloudrepo import bounded_yaml
from cloudrepo.late_dataclass import dataclass
from cloudrepo.topology.mistakes import Mistakes, Place
from cloudrepo.validation import excerpt, shown

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Scalar:
    """A text, number, truth value or nothing.

    Attributes:
        place: where it begins.
        value: what YAML makes of it.
        text: as it is written, without quotes.
    """

    place: Place
    value: Any
    text: str

    kind = "value"


@dataclass(frozen=True)
class Entry:
    """A key of a mapping with its value."""

    key: str
    place: Place
    value: Tree


@dataclass(frozen=True)
class Mapping:
    """Keys with values, in the order of the file; no key is there twice."""

    place: Place
    entries: tuple[Entry, ...]

    kind = "mapping"

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def get(self, key: str) -> Entry | None:
        """The entry of a key."""
        return next((one for one in self.entries if one.key == key), None)


@dataclass(frozen=True)
class Sequence:
    """Values one after another."""

    place: Place
    items: tuple[Tree, ...]

    kind = "list"

    def __iter__(self) -> Iterator[Tree]:
        return iter(self.items)


Tree = Scalar | Mapping | Sequence


def read(text: str, mistakes: Mistakes) -> Tree | None:
    """The tree of a text; None when it is no YAML, or empty."""
    try:
        node = bounded_yaml.Bounded().compose(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1)
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        mistakes.add(place, f"this is no YAML: {excerpt(said)}", _hint(text, place))
        return None
    if node is None:
        mistakes.add(Place(1), "the file is empty", "It begins with `version: 1`")
        return None
    return _tree(node, mistakes)


def _hint(text: str, place: Place) -> str:
    """What is most often meant where a line is no YAML."""
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "Lines begin with spaces, and with no tab"
    if re.search(r"[{\[][^\"']*(\$\{|[A-Za-z]\[)", line):
        return 'Within {…} and […] what has braces or brackets itself needs quotes: "${n}", "h[1-4]"'
    return ""


def described(tree: Tree) -> str:
    """What stands somewhere, for a sentence: `a list`, `the number 5`."""
    if not isinstance(tree, Scalar):
        return f"a {tree.kind}"
    if tree.value is None:
        return "nothing"
    if isinstance(tree.value, bool):
        return f"the truth value {tree.text}"
    return f"the number {tree.text}" if isinstance(tree.value, int | float) else shown(tree.text)


def plain(tree: Tree) -> Any:
    """The value of a tree without places, as YAML in general has it."""
    if isinstance(tree, Mapping):
        return {entry.key: plain(entry.value) for entry in tree}
    return [plain(item) for item in tree] if isinstance(tree, Sequence) else tree.value


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _tree(node: yaml.Node, mistakes: Mistakes) -> Tree:
    if isinstance(node, yaml.MappingNode):
        return Mapping(_place(node), tuple(_entries(node, mistakes).values()))
    if isinstance(node, yaml.SequenceNode):
        return Sequence(_place(node), tuple(_tree(one, mistakes) for one in node.value))
    return _scalar(node, mistakes)


def _scalar(node: yaml.Node, mistakes: Mistakes) -> Scalar:
    try:
        value = bounded_yaml.value_of(node)
    except yaml.YAMLError as error:
        mistakes.add(_place(node), excerpt(getattr(error, "problem", None) or str(error)))
        value = None
    if not isinstance(value, str | int | float | bool | None):  # a date, or bytes
        value = str(node.value)
    return Scalar(_place(node), value, str(node.value))


def _entries(node: yaml.MappingNode, mistakes: Mistakes) -> dict[str, Entry]:
    """The entries of a mapping; what `<<` brings in gives way to what is written there."""
    found: dict[str, Entry] = {}
    merged: dict[str, Entry] = {}
    for key_node, value_node in node.value:
        place = _place(key_node)
        if key_node.tag == _MERGE:
            for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                if not isinstance(source, yaml.MappingNode):
                    mistakes.add(_place(source), "`<<` takes a mapping, or a list of them")
                    continue
                for key, entry in _entries(source, mistakes).items():
                    merged.setdefault(key, entry)
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            mistakes.add(place, "a key is a word, and no list or mapping")
            continue
        key = str(key_node.value)
        if key in found:
            mistakes.add(place, f"{shown(key)} is there twice", f"The first is in line {found[key].place.line}")
            continue
        found[key] = Entry(key, place, _tree(value_node, mistakes))
    return {**{key: entry for key, entry in merged.items() if key not in found}, **found}
