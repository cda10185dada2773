"""Kinds of values in a topology file: each says what is wrong with one, in words and as a JSON schema. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.topology.mistakes import nearest
from cloudrepo.topology.tree import Scalar, Sequence, Tree, described

VARIABLE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
#: Where a variable may stand for a value that is no text.
ALONE = f"^{VARIABLE}$"


class Kind(Protocol):
    """One kind of value."""

    def wrong(self, tree: Tree) -> tuple[str, str]:
        """What is wrong with a value, and what to write instead; two empty texts when nothing is."""
        ...

    def schema(self) -> dict[str, Any]:
        """The JSON schema of such values."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds."""

    low: int
    high: int

    def wrong(self, tree: Tree) -> tuple[str, str]:  # noqa: D102 - as in `Kind`
        if isinstance(tree, Scalar) and type(tree.value) is int and self.low <= tree.value <= self.high:
            return "", ""
        wanted = f"a whole number from {self.low} to {self.high}" if self.low < self.high else f"{self.low}"
        return f"{wanted} is wanted, found {described(tree)}", ""

    def schema(self) -> dict[str, Any]:  # noqa: D102 - as in `Kind`
        return {"type": ["integer", "string"], "minimum": self.low, "maximum": self.high, "pattern": ALONE}


@dataclass(frozen=True)
class Truth:
    """true or false."""

    def wrong(self, tree: Tree) -> tuple[str, str]:  # noqa: D102 - as in `Kind`
        if isinstance(tree, Scalar) and isinstance(tree.value, bool):
            return "", ""
        return f"true or false is wanted, found {described(tree)}", ""

    def schema(self) -> dict[str, Any]:  # noqa: D102 - as in `Kind`
        return {"type": ["boolean", "string"], "pattern": ALONE}


@dataclass(frozen=True)
class Word:
    """One of a few words."""

    words: tuple[str, ...]

    def wrong(self, tree: Tree) -> tuple[str, str]:  # noqa: D102 - as in `Kind`
        if isinstance(tree, Scalar) and isinstance(tree.value, str) and tree.value in self.words:
            return "", ""
        near = nearest(tree.text, self.words) if isinstance(tree, Scalar) else ""
        if isinstance(tree, Scalar) and isinstance(tree.value, bool) and len(self.words) == 2:
            near = self.words[0 if tree.value else 1]
        wanted = f"one of {', '.join(self.words)} is wanted, found {described(tree)}"
        return wanted, f"The nearest is {near}" if near else ""

    def schema(self) -> dict[str, Any]:  # noqa: D102 - as in `Kind`
        return {"anyOf": [{"enum": list(self.words)}, {"type": "string", "pattern": ALONE}]}


@dataclass(frozen=True)
class Text:
    """A text of a form.

    Attributes:
        what: what it is, in a few words.
        pattern: what it matches, whole; in the words that Python and JSON schemas share.
        also: a further check that no pattern can do: raises a refusal.
    """

    what: str
    pattern: str = r"[\s\S]+"
    also: Callable[[str], Any] | None = None

    def wrong(self, tree: Tree) -> tuple[str, str]:  # noqa: D102 - as in `Kind`
        if not isinstance(tree, Scalar) or tree.value is None or isinstance(tree.value, bool):
            return f"{self.what} is wanted, found {described(tree)}", ""
        if not isinstance(tree.value, str):
            return f"{self.what} is wanted, found {described(tree)}", "In quotes it is a text"
        if not re.fullmatch(self.pattern, tree.value):
            return f"{self.what} is wanted, found {described(tree)}", ""
        try:
            if self.also is not None:
                self.also(tree.value)
        except RefusedError as error:
            return str(error), ""
        return "", ""

    def schema(self) -> dict[str, Any]:  # noqa: D102 - as in `Kind`
        return {"type": "string", "pattern": f"^(?:{self.pattern})$|{VARIABLE}"}


@dataclass(frozen=True)
class Texts:
    """A list of texts of a form, at least one."""

    each: Text

    def wrong(self, tree: Tree) -> tuple[str, str]:  # noqa: D102 - as in `Kind`
        if not isinstance(tree, Sequence) or not tree.items:
            return f"a list is wanted, each of it {self.each.what}; found {described(tree)}", ""
        return next((found for item in tree if (found := self.each.wrong(item))[0]), ("", ""))

    def schema(self) -> dict[str, Any]:  # noqa: D102 - as in `Kind`
        return {"type": "array", "minItems": 1, "items": self.each.schema()}


@dataclass(frozen=True)
class Nested:
    """What is looked at on its own: a mapping or a list of its own keys.

    Attributes:
        kinds: `mapping`, `list` or `value` (a text), whichever may stand there.
        shape: its JSON schema.
    """

    kinds: tuple[str, ...]
    shape: Mapping[str, Any]

    def wrong(self, tree: Tree) -> tuple[str, str]:  # noqa: D102 - as in `Kind`
        is_text = isinstance(tree, Scalar) and isinstance(tree.value, str) and bool(tree.value)
        if tree.kind in self.kinds and (tree.kind != "value" or is_text):
            return "", ""
        names = {"mapping": "a mapping", "list": "a list", "value": "a text"}
        return f"{' or '.join(names[kind] for kind in self.kinds)} is wanted, found {described(tree)}", ""

    def schema(self) -> dict[str, Any]:  # noqa: D102 - as in `Kind`
        return dict(self.shape)


def address(text: str) -> None:
    """Refuse what is no IPv4 address.

    Raises:
        RefusedError: it is none.
    """
    try:
        ipaddress.IPv4Address(text)
    except ValueError as error:
        raise RefusedError(f"{text} is no IPv4 address", code="topology.address") from error
