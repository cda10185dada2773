"""What a program reads: with `--json` one document on the standard output, whatever becomes of the command.

Each has `schema_version` and `ok`, and `error` where `ok` is false. A command that has something to tell hands it to
`write`. One that has not raises: whoever runs it (`commands.run`) says so to the person, and writes the document.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo.errors import CloudError, Message

SCHEMA_VERSION = 1
JSON_VARIABLE = "CLOUDREPO_JSON"
TRUE = ("1", "true", "t", "yes", "y", "on")  # of a variable that stands for a flag
_HANDED_ON = (("test",), ("bench",), ("lab", "exec"), ("lab", "host"))  # their words are another program's


class NotDone(Exception):
    """A command did not do what was asked, and nobody was told yet.

    Args:
        answer: why, in the façade's words.
        code: where `answer` has none of its own.
    """

    def __init__(self, answer: object, *, code: str = "error") -> None:
        super().__init__(str(answer))
        self.answer = answer if isinstance(answer, Message) else Message(str(answer), code=code)


def are_wanted(words: Sequence[str]) -> bool:
    """Whether a command line asks for a document, also one that is written wrongly."""
    is_handed_on = not words or any(tuple(words[: len(head)]) == head for head in _HANDED_ON)
    own = words[: words.index("--")] if "--" in words else words
    return not is_handed_on and ("--json" in own or is_true(os.environ.get(JSON_VARIABLE, "")))


def is_true(word: str) -> bool:
    """Whether a variable's value switches a flag on."""
    return word.strip().lower() in TRUE


def error(answer: object, *, code: str = "error") -> dict[str, Any]:
    """An error as documents have it: `message`, `code`, `details`, and in `hint` what to do next."""
    told = answer.message() if isinstance(answer, CloudError) else answer
    return {
        "message": str(told),
        "code": getattr(told, "code", code),
        "details": getattr(told, "details", {}),
        "hint": getattr(told, "hint", ""),
    }


def write(document: Mapping[str, Any], *, wrong: Mapping[str, Any] | None = None) -> None:
    """Write a command's document.

    Args:
        document: its own keys.
        wrong: an `error`, when it did not do all that was asked.
    """
    head = {"schema_version": SCHEMA_VERSION, "ok": wrong is None}
    line({**head, **document, **({"error": wrong} if wrong is not None else {})}, indent=1)


def write_failure(words: Sequence[str], wrong: Mapping[str, Any]) -> None:
    """Write the document of a command that has nothing else to tell; on one line, as events are.

    Args:
        words: the command line.
        wrong: the `error`.
    """
    line({"schema_version": SCHEMA_VERSION, "ok": False, "command": words[0], "error": wrong})


def line(document: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Write something as JSON, in ASCII: whatever could move a cursor is escaped, and no encoding is too small."""
    sys.stdout.write(json.dumps(document, indent=indent) + "\n")
    sys.stdout.flush()
