"""Our own layout of a section, read and written line by line; ten times faster than YAML in general.

The layout is the block style that PyYAML writes. What is written here is what PyYAML would write, and what is read
here is what PyYAML would read; everything that is not plainly so raises `NotOurs` and is left to PyYAML.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

INDENT = 4  # of the keys of a section in a collection
_DEEPEST_INDENT = INDENT + 60
_LONGEST_KEY = 100  # YAML writes keys of more than 128 characters in another way
_MEMO = 1 << 14
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_PLAIN = re.compile(r"(?!\.\.\.)[A-Za-z0-9_./~](?:[A-Za-z0-9_./~@+-]|:(?=[A-Za-z0-9_./~@+-]))*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BREAKS = re.compile("[\r\n\x85\u2028\u2029]")  # all of them end a line in YAML
_CONSTANTS: dict[str, Any] = {"null": None, "true": True, "false": False}
_STR = "tag:yaml.org,2002:str"
_resolver: Any = yaml.resolver.Resolver()


class NotOurs(Exception):
    """The text is not laid out as ours, or the value needs more than our layout; it may be good YAML all the same."""


def _is_plain(text: str) -> bool:
    """Whether this text stands in YAML for itself, without quotes."""
    return _PLAIN.fullmatch(text) is not None and _resolver.resolve(yaml.ScalarNode, text, (True, False)) == _STR


class LineReader:
    """Reads sections in our layout.

    Args:
        load: YAML in general, for scalars that are more than a word or a number.
    """

    def __init__(self, load: Callable[[str], Any]) -> None:
        self._load = load
        self._scalars: dict[str, Any] = dict(_CONSTANTS)
        self._keys: dict[str, str] = {}
        self._lines: list[str] = []

    def mapping(self, lines: list[str]) -> dict[str, Any]:
        """The mapping of a section's lines, all indented by `INDENT`.

        Raises:
            NotOurs: another layout.
        """
        self._lines = lines
        found, end = self._mapping(0, INDENT)
        if end != len(lines):
            raise NotOurs
        return found

    def scalar(self, text: str) -> Any:
        """The value of a scalar on one line.

        Raises:
            NotOurs: it may be more than a scalar.
        """
        try:
            return self._scalars[text]
        except KeyError:
            pass
        if len(self._scalars) > _MEMO:
            self._scalars = dict(_CONSTANTS)
        value = self._scalars[text] = self._new_scalar(text)
        return value

    def _new_scalar(self, text: str) -> Any:
        if _WHOLE.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return float(text)
        if _is_plain(text):
            return text
        if _BREAKS.search(text):
            raise NotOurs
        if text[:1] in ("'", '"'):
            if len(text) < 2 or text[-1] != text[0]:
                raise NotOurs
        elif text == "" or text[0] in "&*!|>%@`{[]},?#- " or ": " in text or " #" in text or text[-1] in ": ":
            raise NotOurs
        try:
            value = self._load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise NotOurs from error
        if isinstance(value, (dict, list)):
            raise NotOurs
        return value

    def _mapping(self, at: int, indent: int, first: str = "") -> tuple[dict[str, Any], int]:
        """A mapping from line `at` on; `first` is what stands for that line when it begins after a dash."""
        if indent > _DEEPEST_INDENT:
            raise NotOurs
        lines, count, found = self._lines, len(self._lines), dict[str, Any]()
        pad = " " * indent
        while at < count:
            line = first or lines[at]
            if not line.startswith(pad) or line[indent : indent + 2] == "- ":
                break
            key, colon, text = line[indent:].partition(":")
            key = self._keys.get(key) or self._key(key)
            if not colon or key in found:
                raise NotOurs
            at, first = at + 1, ""
            if text:
                found[key] = self._inline(text)
            else:
                found[key], at = self._nested(at, indent)
        if not found:
            raise NotOurs
        return found, at

    def _key(self, text: str) -> str:
        """A key that is met for the first time; later ones are the same object, which saves memory."""
        if not (_KEY.fullmatch(text) and _is_plain(text)):
            raise NotOurs
        self._keys[text] = text
        return text

    def _inline(self, text: str) -> Any:
        if text[0] != " ":
            raise NotOurs
        text = text[1:]
        if text == "[]":
            return []
        return {} if text == "{}" else self.scalar(text)

    def _nested(self, at: int, indent: int) -> tuple[Any, int]:
        line = self._lines[at] if at < len(self._lines) else ""
        if line.startswith(" " * indent + "- "):
            return self._list(at, indent)
        return self._mapping(at, indent + 2)

    def _list(self, at: int, indent: int) -> tuple[list[Any], int]:
        lines, count, found = self._lines, len(self._lines), list[Any]()
        dash, pad = " " * indent + "- ", " " * (indent + 2)
        while at < count and lines[at].startswith(dash):
            rest = lines[at][indent + 2 :]
            if _begins_mapping(rest):
                entry, at = self._mapping(at, indent + 2, pad + rest)
            else:
                entry, at = self._inline(" " + rest), at + 1
            found.append(entry)
        return found, at


def _begins_mapping(text: str) -> bool:
    key, colon, rest = text.partition(":")
    return bool(colon) and rest[:1] in ("", " ") and _KEY.fullmatch(key) is not None


class LineWriter:
    """Writes sections in our layout.

    Args:
        dump: YAML in general, for scalars that are more than a word or a number.
    """

    def __init__(self, dump: Callable[[Any], str]) -> None:
        self._dump = dump
        self._words: dict[str, str] = {}

    def mapping(self, value: dict[str, Any], indent: int = INDENT) -> str:
        """The lines of a mapping; records that it lists stand at its end.

        Raises:
            NotOurs: a value needs more than our layout.
        """
        lines: list[str] = []
        lists = {part: entries for part, entries in value.items() if is_list_of_records(entries)}
        self._mapping({part: entry for part, entry in value.items() if part not in lists}, " " * indent, lines)
        self._mapping(lists, " " * indent, lines)
        return "".join(lines)

    def _mapping(self, value: dict[Any, Any], pad: str, lines: list[str]) -> None:
        for key, entry in value.items():
            if not isinstance(key, str) or len(key) > _LONGEST_KEY or not (_KEY.fullmatch(key) and _is_plain(key)):
                raise NotOurs
            if isinstance(entry, dict) and entry:
                lines.append(f"{pad}{key}:\n")
                self._mapping(entry, pad + "  ", lines)
            elif isinstance(entry, list) and entry:
                lines.append(f"{pad}{key}:\n")
                self._list(entry, pad, lines)
            else:
                lines.append(f"{pad}{key}: {self._scalar(entry)}\n")

    def _list(self, entries: list[Any], pad: str, lines: list[str]) -> None:
        for entry in entries:
            if isinstance(entry, dict) and entry:
                begin = len(lines)
                self._mapping(entry, pad + "  ", lines)
                lines[begin] = f"{pad}- {lines[begin][len(pad) + 2 :]}"
            elif isinstance(entry, list) and entry:
                raise NotOurs
            else:
                lines.append(f"{pad}- {self._scalar(entry)}\n")

    def _scalar(self, value: Any) -> str:
        if isinstance(value, str):
            known = self._words.get(value)
            return self._word(value) if known is None else known
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value)
        if isinstance(value, float) and _DECIMAL.fullmatch(text := repr(value)):
            return text
        if isinstance(value, list):  # an empty one
            return "[]"
        if isinstance(value, dict):
            return "{}"
        raise NotOurs

    def _word(self, value: str) -> str:
        if len(self._words) > _MEMO:
            self._words.clear()
        text = value if _is_plain(value) else self._quoted(value)
        self._words[value] = text
        return text

    def _quoted(self, value: str) -> str:
        text = self._dump({"k": value})
        if not text.startswith("k: ") or text.find("\n") != len(text) - 1 or _BREAKS.search(value):
            raise NotOurs  # it takes several lines, whose indent depends on where it stands
        return text[3:-1]


def is_list_of_records(value: Any) -> bool:
    """Whether it is a list of mappings, which stands at the end of its section."""
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)
