"""`${NAME}` in a topology file: values of the file's own `variables`, or of the command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping as AnyMapping
from dataclasses import replace
from typing import Any

from cloudrepo.topology.keys import VARIABLE_NAME
from cloudrepo.topology.mistakes import Mistakes, Place, meant
from cloudrepo.topology.tree import Entry, Mapping, Scalar, Sequence, Tree, described

#: Under these keys `${…}` is somebody else's: a shell's, or cloud-init's.
UNTOUCHED = ("start", "cloud_init", "variables")

_USE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(VARIABLE_NAME)


def declared(tree: Tree | None, given: AnyMapping[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    """The value of each variable.

    Args:
        tree: what stands under `variables`.
        given: values of the command line, which come before those of the file.
        mistakes: gets what is wrong.
    """
    found: dict[str, Any] = {}
    for entry in tree if isinstance(tree, Mapping) else ():
        if not _NAME.fullmatch(entry.key):
            mistakes.add(entry.place, f"a variable cannot be named {entry.key!r}", "Use letters, digits and _")
        elif not isinstance(entry.value, Scalar) or entry.value.value is None:
            place = entry.value.place
            mistakes.add(place, f"a variable is a text, a number or a truth value, and not {described(entry.value)}")
        else:
            found[entry.key] = entry.value.value
    place = tree.place if tree is not None else Place(1)
    for name, value in given.items():
        if name in found:
            found[name] = value
        else:
            mistakes.add(place, f"there is no variable {name} in this file", meant(name, found))
    return found


def substituted(tree: Tree, values: AnyMapping[str, Any], mistakes: Mistakes) -> Tree:
    """The tree with the value of each variable in its place, in keys too.

    A value that is nothing but a variable gets the variable's kind; else it becomes part of a text.
    """
    if isinstance(tree, Mapping):
        return replace(tree, entries=tuple(_entry(entry, values, mistakes) for entry in tree))
    if isinstance(tree, Sequence):
        return replace(tree, items=tuple(substituted(item, values, mistakes) for item in tree))
    if not isinstance(tree.value, str) or "${" not in tree.value:
        return tree
    whole = _USE.fullmatch(tree.value)
    if whole is not None and whole[1] in values:
        value = values[whole[1]]
        return replace(tree, value=value, text=_text(value))
    text = _filled(tree.value, tree.place, values, mistakes)
    return replace(tree, value=text, text=text)


def _entry(entry: Entry, values: AnyMapping[str, Any], mistakes: Mistakes) -> Entry:
    if entry.key in UNTOUCHED:
        return entry
    key = _filled(entry.key, entry.place, values, mistakes) if "${" in entry.key else entry.key
    return replace(entry, key=key, value=substituted(entry.value, values, mistakes))


def _filled(text: str, place: Place, values: AnyMapping[str, Any], mistakes: Mistakes) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            mistakes.add(place, f"there is no variable {match[1]!r}", meant(match[1], values))
            return match[0]
        return _text(values[match[1]])

    return _USE.sub(value, text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
