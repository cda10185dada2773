"""JSON that a stranger wrote: read so that it gives values that can be counted, printed and stored, or `ValueError`."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

#: What reading a stranger's answer may raise, and so means that it cannot be understood.
NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError)


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, it is nested too deeply, or it holds a number that is none or too long to be one
            (`NaN`, `1e999`, thousands of digits).
    """
    try:
        value = _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8", "surrogatepass"))
        return _whole(value) if _may_hold_halves(text) else value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def whole_or_none(value: Any) -> int | None:
    """A number of a process, say, or null.

    Raises:
        ValueError: it is neither.
    """
    if value is not None and (type(value) is not int or not -(2**63) <= value < 2**63):
        raise ValueError("it is no number")
    return value


def text_or_none(value: Any) -> str | None:
    """A text, or null.

    Raises:
        ValueError: it is neither.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError("it is no text")
    return value


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _float(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word[:40]} is no number")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_float)  # one for all: a line of a host is short


def _may_hold_halves(text: str | bytes) -> bool:
    """Whether a text may give half a character (a lone surrogate), which nothing can print or store."""
    if isinstance(text, bytes):
        return b"\\ud" in text or b"\\uD" in text
    return "\\ud" in text or "\\uD" in text or not _is_whole(text)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(value: Any) -> Any:
    """The value, with every half a character written out by its number."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value
