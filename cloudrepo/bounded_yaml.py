"""YAML that somebody wrote, read in bounded time: as the safe loader reads it, or refused with its line.

The safe loader runs nothing, and yet a short text can make it work without end (aliases of aliases), fall over its own
recursion (deep nesting), or fail in ways of Python (`!!int ''`). Here such a text is refused before it is built.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

from cloudrepo.validation import excerpt

DEEPEST = 50  # levels; a state file has eight
MOST_ADDED = 100_000  # values that aliases may add to those that are written out
MOST_BITS = 1000  # of a whole number; what has more cannot be counted with, nor always printed
_LONGEST_NUMBER = 400  # characters
_IN_C: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
#: What PyYAML raises of a value that does not fit its tag.
_MISFITS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


class _Careful(yaml.constructor.SafeConstructor):
    """Builds values, and besides refuses a key given twice and a number that is too long."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    _refuse(f"{excerpt(key)} is there twice", key_node.start_mark)
                seen.add(key)
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            _refuse(f"a number of {len(node.value)} characters; as a text it needs quotes", node.start_mark)
        try:
            value = super().construct_object(node, deep=deep)
        except yaml.YAMLError:
            raise
        except _MISFITS as error:
            _refuse(f"a value does not fit its kind {excerpt(node.tag)}: {excerpt(error)}", node.start_mark)
        if type(value) is int and value.bit_length() > MOST_BITS:
            _refuse(f"a number of {value.bit_length()} bits; as a text it needs quotes", node.start_mark)
        return value


class _Loader(_Careful, _IN_C):  # type: ignore[misc]
    """Of texts."""


class _OfNodes(_Careful, yaml.SafeLoader):
    """Of nodes that were composed before."""


def _refuse(problem: str, mark: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, mark)


class Bounded:
    """Reads texts that are parts of one: what aliases add is counted over all of them."""

    def __init__(self) -> None:
        self._added = 0

    def load(self, text: str) -> Any:
        """The value of a text.

        Raises:
            yaml.YAMLError: it is no YAML, is nested too deeply, is too long when its aliases are written out, one of
                its aliases contains itself, a key is there twice, or a value does not fit its kind. With its place.
        """
        self._check(text)
        return load_flat(text)

    def compose(self, text: str) -> yaml.Node | None:
        """The nodes of a text; None when it is empty.

        Raises:
            yaml.YAMLError: as `load`, but for keys and values.
        """
        self._check(text)
        node: yaml.Node | None = yaml.compose(text, Loader=_IN_C)
        return node

    def _check(self, text: str) -> None:
        """Go through a text without building anything: events come one by one, however deep they are nested."""
        odd = yaml.reader.Reader.NON_PRINTABLE.search(text)
        if odd is not None:
            line = text.count("\n", 0, odd.start())
            column = odd.start() - text.rfind("\n", 0, odd.start()) - 1
            mark = yaml.Mark("", odd.start(), line, column, None, 0)
            _refuse(f"the character {odd[0]!a} is not allowed in YAML but as an escape in double quotes", mark)
        written = 0  # values so far, those behind aliases included
        sizes: dict[str, int] = {}
        inside: list[tuple[str | None, int]] = []  # the collections around: anchor, values before it
        for event in yaml.parse(text, Loader=_IN_C):
            if isinstance(event, yaml.AliasEvent):
                written += self._alias(event, sizes, inside)
            elif isinstance(event, yaml.CollectionStartEvent):
                inside.append((event.anchor, written))
                written += 1
                if len(inside) > DEEPEST:
                    _refuse(f"it is nested more than {DEEPEST} levels deep", event.start_mark)
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = inside.pop()
                if anchor is not None:
                    sizes[anchor] = written - before
            elif isinstance(event, yaml.ScalarEvent):
                written += 1
                if event.anchor is not None:
                    sizes[event.anchor] = 1

    def _alias(self, event: yaml.AliasEvent, sizes: dict[str, int], inside: list[tuple[str | None, int]]) -> int:
        """How many values stand behind an alias; one without an anchor is found when the text is composed."""
        if any(anchor == event.anchor for anchor, _before in inside):
            _refuse(f"the alias *{excerpt(event.anchor)} stands within what it stands for", event.start_mark)
        size = sizes.get(str(event.anchor), 0)
        self._added += size
        if self._added > MOST_ADDED:
            _refuse(f"aliases (*{excerpt(event.anchor)}) make it longer by {MOST_ADDED:,} values", event.start_mark)
        return size


def load(text: str) -> Any:
    """The value of one text.

    Raises:
        yaml.YAMLError: as `Bounded.load`.
    """
    return Bounded().load(text)


def load_flat(text: str) -> Any:
    """The value of a text that is known to hold neither aliases nor anything nested.

    Raises:
        yaml.YAMLError: it is no YAML, or the value does not fit its kind.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader


def value_of(node: yaml.Node) -> Any:
    """The value of a node that `Bounded.compose` gave.

    Raises:
        yaml.YAMLError: a key is there twice, or a value does not fit its kind.
    """
    loader = _OfNodes("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def problem_of(error: Exception) -> str:
    """What is wrong with a text, and where, in words that can be shown."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"line {line}: byte {error.start} is not UTF-8 text"
    mark = getattr(error, "problem_mark", None)
    problem = excerpt(getattr(error, "problem", None) or " ".join(str(error).split()))
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
