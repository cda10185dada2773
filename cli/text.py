"""Text from people and hosts, made fit to be shown: pure, and the same for screen and plain output."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# Control characters, invisible format characters (bidirectional overrides among them), lone surrogates,
# private use, and the two Unicode line breaks: each could move the cursor or make a name read as another.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def clean(value: object) -> str:
    r"""`value` on one line, with every character that is not plainly visible written as an escape.

    >>> clean("web\x1b[2J")
    'web\\x1b[2J'
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _HIDDEN else char for char in text)


def clean_lines(value: object) -> list[str]:
    """The lines of a longer text, such as a tool's own words, each made clean; tabs become spaces."""
    return [clean(line) for line in str(value).expandtabs(4).splitlines()]


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def system_words(error: OSError) -> str:
    """What the system would not do: with the file, if it is about one."""
    return f"{error.filename or 'Reading or writing failed'}: {error.strerror or error}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 link`, `2 links`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listing(words: Iterable[object], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`; each made clean."""
    shown = [clean(word) for word in words]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"
