"""Names that stand for several: `r[1-3]` is r1, r2 and r3; `sw[01-03,7]` is sw01, sw02, sw03 and sw7. Pure."""

from __future__ import annotations

import itertools
import re

from cloudrepo.validation import shown

MOST = 254  # names that one pattern may make

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?\Z")


def is_pattern(text: str) -> bool:
    """Whether a name has brackets."""
    return "[" in text or "]" in text


def expanded(text: str) -> list[str]:
    """The names that a pattern makes, in order; of a plain name itself.

    Raises:
        ValueError: it is not written as one, or makes too many; in a sentence.
    """
    pieces, numbers = _BRACKETS.split(text)[::2], _BRACKETS.findall(text)
    if any(is_pattern(piece) for piece in pieces):
        raise ValueError(f"{shown(text)} has a bracket without its other half")
    lists = [_numbers(text, inside) for inside in numbers]
    count = 1
    for one in lists:
        count *= len(one)
    if count > MOST:
        raise ValueError(f"{shown(text)} makes {count} names; {MOST} are possible")
    return ["".join(_woven(pieces, chosen)) for chosen in itertools.product(*lists)]


def _woven(pieces: list[str], numbers: tuple[str, ...]) -> list[str]:
    return [part for pair in itertools.zip_longest(pieces, numbers, fillvalue="") for part in pair]


def _numbers(text: str, inside: str) -> list[str]:
    found: list[str] = []
    for part in inside.split(","):
        match = _RANGE.match(part.strip())
        if match is None:
            raise ValueError(f"{shown(text)}: {shown(part)} is no number and no range such as 1-3")
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first):
            raise ValueError(f"{shown(text)}: the range {part.strip()} ends before it begins")
        if int(last) - int(first) >= MOST:
            raise ValueError(f"{shown(text)}: the range {part.strip()} is longer than {MOST}")
        width = len(first) if first.startswith("0") and len(first) > 1 else 0
        found += [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    return found
