"""Which letters a person's terminal shows: by the locale that whoever started this process asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping

BY_WEIGHT = ("LC_ALL", "LC_CTYPE", "LANG")  # the first of them that is not empty counts: locale(7)
PLAIN = ("C", "POSIX")


def is_ascii_wanted(environ: Mapping[str, str]) -> bool:
    """Whether a locale without UTF-8 was asked for.

    No locale at all asks for nothing, as in a session over SSH that brought none along: nearly every terminal of today
    shows UTF-8. Python for itself takes `C` for that, too; but who sets `LANG=C` means it.
    """
    asked = next((environ[name] for name in BY_WEIGHT if environ.get(name)), "")
    charset = asked.partition(".")[2].partition("@")[0]
    return asked in PLAIN or (bool(charset) and charset.casefold().replace("-", "") != "utf8")


def environment_at_start() -> dict[str, str]:
    """The variables that this process was started with.

    Python may have put LC_CTYPE in since (PEP 538), as if somebody had asked for it.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
    except OSError:
        return dict(os.environ)
    pairs = (entry.partition("=") for entry in os.fsdecode(block).split("\0"))
    return {name: value for name, _is, value in pairs if name}
