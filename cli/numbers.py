"""What is said of a number on the command line that is none, or is out of bounds: what was found, and what is needed.

typer's own words are "is not a valid float range". It also takes `nan`, which is within any bounds.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import typer


def worded(command: Any) -> Any:
    """A command, or a tree of them, whose numbers are read by `read`."""
    for one in command.params:
        if _is_number(one.type):
            one.type = _reading(one.type)
    for below in getattr(command, "commands", {}).values():
        worded(below)
    return command


def _is_number(kind: Any) -> bool:
    return getattr(kind, "_number_class", None) in (int, float)


def _reading(kind: Any) -> Any:
    """The same kind of a number, with bounds as they were, in words of ours."""
    made = copy.copy(kind)
    whole = kind._number_class is int
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)

    def convert(value: Any, _param: Any, _context: Any) -> Any:
        return read(value, whole=whole, least=least, most=most)

    made.convert = convert
    return made


def read(value: Any, *, whole: bool, least: float | None = None, most: float | None = None) -> int | float:
    """A number as it is typed.

    Args:
        value: what was typed; a default is a number already.
        whole: whether it has no fraction.
        least: the smallest; None = there is none.
        most: the largest; None = there is none.

    Raises:
        typer.BadParameter: it is none, or out of bounds.
    """
    try:
        number: int | float = int(value) if whole else float(value)
    except ValueError:
        number = math.nan
    is_within = (least is None or number >= least) and (most is None or number <= most)
    if math.isnan(number) or not is_within:
        raise typer.BadParameter(f"{_needed(whole, least, most)} is needed; found {str(value)!r}")
    return number


def _needed(whole: bool, least: float | None, most: float | None) -> str:
    noun = "a whole number" if whole else "a number"
    if least is not None and most is not None:
        return f"{noun} from {least:g} to {most:g}"
    if least is not None:
        return f"{noun} of {least:g} or more"
    return f"{noun} of {most:g} at most" if most is not None else noun
