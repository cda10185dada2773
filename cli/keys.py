"""Keys while something is shown and nothing is asked: Esc or Enter leaves it, Ctrl-C stays a signal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any


class KeyWatch:
    """A context manager; it reads keys only where the standard input is a terminal.

    Args:
        wanted: whether keys are of interest at all.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._is_wanted = wanted
        self._number = -1
        self._before: list[Any] = []

    def __enter__(self) -> KeyWatch:
        if self._is_wanted and sys.stdin.isatty():
            self._number = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._number)
            tty.setcbreak(self._number)  # keys come one by one and are not shown; Ctrl-C is a signal as before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number >= 0:
            termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)

    def is_leaving(self) -> bool:
        """Whether Esc or Enter was pressed since the last look; an arrow key is neither."""
        if self._number < 0 or not select.select([self._number], [], [], 0)[0]:
            return False
        typed = os.read(self._number, 64)
        return typed.endswith((b"\x1b", b"\n", b"\r"))
