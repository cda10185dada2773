"""What is wrong with a topology file: all of it at once, each with its place and what may have been meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.validation import excerpt

_ALIKE = 0.5  # how alike two words are at least, of which one may have been meant


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands in a file; lines and columns count from 1."""

    line: int
    column: int = 1


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        place: where.
        problem: what, as a sentence without a full stop.
        remedy: what to write instead; "" = nothing better is known.
    """

    place: Place
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.problem}. {self.remedy}" if self.remedy else self.problem


class Mistakes:
    """Collects the mistakes of one file.

    Args:
        source: the file's name, as people are to see it.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: list[Mistake] = []

    def add(self, place: Place, problem: str, remedy: str = "") -> None:
        """Note a mistake; the same one at the same place counts once."""
        mistake = Mistake(place, problem, remedy)
        if mistake not in self._found:
            self._found.append(mistake)

    def sorted(self) -> list[Mistake]:
        """All of them, in the order of the file."""
        return sorted(self._found, key=lambda one: one.place)

    def lines(self) -> list[str]:
        """A line for each: `FILE:LINE:COLUMN: problem. Remedy`."""
        return [f"{self.source}:{one.place.line}:{one.place.column}: {one}" for one in self.sorted()]

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> RefusedError:
        """All of them as one error. Its details have `mistakes`: `line`, `column`, `problem`, `remedy` of each."""
        lines = self.lines()
        number = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        details = [
            {"line": one.place.line, "column": one.place.column, "problem": one.problem, "remedy": one.remedy}
            for one in self.sorted()
        ]
        return RefusedError(
            f"{self.source} has {number}; nothing was done",
            evidence="\n" + "\n".join(lines),
            code="topology.file",
            details={"file": self.source, "mistakes": details},
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like this one; "" when none is like it."""
    words = list(known)
    near = difflib.get_close_matches(word, words, 1, _ALIKE) or difflib.get_close_matches(
        word.lower(), [one for one in words if one.islower()], 1, _ALIKE
    )
    return near[0] if near else ""


def meant(word: str, known: Iterable[str]) -> str:
    """What to say of an unknown word: the nearest known one, else all that are known."""
    words = [excerpt(one) for one in known]
    near = nearest(word, words)
    if near:
        return f"The nearest is {near}"
    if not words:
        return ""
    shown = ", ".join(words[:12]) + (", …" if len(words) > 12 else "")
    return f"Known are {shown}"
