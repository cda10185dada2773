"""A terminal with the menu in it: what a person types, and what the screen shows, cell by cell."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pyte

from menu_process import PASSWORD

HERE = Path(__file__).resolve().parent
PATIENCE_S = 60.0
ESC, ENTER, DOWN, UP, TAB, CTRL_C, CTRL_D = "\x1b", "\r", "\x1b[B", "\x1b[A", "\t", "\x03", "\x04"
CHOOSE = "Choose: "


class Terminal:
    """A menu in a terminal of some size.

    Attributes:
        child: the process.
        screen: what is shown now.
    """

    def __init__(self, child: pexpect.spawn[bytes], columns: int, rows: int) -> None:
        self.child = child
        self.screen = pyte.HistoryScreen(columns, rows, history=2000, ratio=0.5)
        self.stream = pyte.ByteStream(self.screen)
        self.screen.write_process_input = self._reply  # type: ignore[method-assign] # where the cursor is, is asked

    def _reply(self, data: str) -> None:
        self.child.send(data.encode())

    def listen(self) -> list[bytes]:
        """Everything that comes from now on."""
        seen: list[bytes] = []
        feed = self.stream.feed

        def note(data: bytes) -> None:
            seen.append(data)
            feed(data)

        self.stream.feed = note  # type: ignore[method-assign]
        return seen

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without blanks at their ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines)

    @property
    def past(self) -> str:
        """What has left the screen at its top, and the screen."""
        gone = ["".join(row[x].data for x in range(self.screen.columns)).rstrip() for row in self.screen.history.top]
        return "\n".join([*gone, *self.lines])

    @property
    def prompt(self) -> str:
        """The line with the cursor; of the whole screen only this is put together."""
        row = self.screen.buffer[min(self.screen.cursor.y, self.screen.lines - 1)]
        return "".join(row[x].data for x in range(self.screen.columns)).rstrip()

    def read(self, wait_s: float = 0.05) -> bool:
        """Take in what has been sent; False when the process has ended."""
        try:
            self.stream.feed(self.child.read_nonblocking(1 << 16, timeout=wait_s))
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:
            return False
        return True

    def until(self, found: Any, what: str) -> None:
        """Wait until `found()` holds; AssertionError with the screen when it does not."""
        end = time.monotonic() + PATIENCE_S
        while not found():
            is_there = self.read()
            if found():
                return
            assert is_there, f"the menu has ended before {what}:\n{self.past}"
            assert time.monotonic() < end, f"{what} was not shown:\n{self.text}"

    def shows(self, words: str) -> None:
        """Wait until the screen shows words."""
        self.until(lambda: words in self.text, repr(words))

    def asks(self, prompt: str) -> None:
        """Wait until this is asked, and nothing is typed yet."""
        self.until(lambda: self.prompt.startswith(prompt.rstrip()), f"the question {prompt!r}")

    def matches(self, pattern: str) -> None:
        """Wait until the screen has a line like this."""
        self.until(lambda: re.search(pattern, self.text), pattern)

    # -- typing ------------------------------------------------------------------------------------------

    def send(self, keys: str) -> None:
        """Press keys."""
        self.child.send(keys.encode())

    def answer(self, prompt: str, words: str) -> None:
        """Wait for a question, type, press Enter."""
        self.asks(prompt)
        self.send(words + ENTER)
        self.until(lambda: not self.prompt.startswith(prompt.rstrip()) or words not in self.prompt, "the next question")

    def choose(self, words: str) -> None:
        """Choose an entry of the menu."""
        self.answer(CHOOSE, words)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def log_in(self, user: str) -> None:
        """Log in, and wait for the menu."""
        self.answer("Username:", user)
        self.asks("Password:")
        self.send(PASSWORD + ENTER)
        self.asks(CHOOSE)

    def ends(self) -> int:
        """Wait for the end; the exit status."""
        end = time.monotonic() + PATIENCE_S
        while self.read():
            assert time.monotonic() < end, f"the menu does not end:\n{self.text}"
        self.child.wait()
        return int(self.child.exitstatus or 0)


@contextmanager
def menu(
    folder: Path, *, user: str = "ann", role: str = "student", columns: int = 80, rows: int = 24, **variables: str
) -> Iterator[Terminal]:
    """The menu in a terminal, on the installation in `folder`, which is made where there is none."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDREPO_")}
    for name in ("NO_COLOR", "COLUMNS", "LINES", "TMUX"):
        environment.pop(name, None)
    environment |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": f"{HERE.parent}:{HERE}"} | variables
    words = [str(HERE / "menu_process.py"), str(folder), user, role]
    child: pexpect.spawn[bytes] = pexpect.spawn(
        sys.executable, words, env=environment, cwd=str(folder), dimensions=(rows, columns), timeout=PATIENCE_S
    )
    child.delaybeforesend = None
    try:
        yield Terminal(child, columns, rows)
    finally:
        child.close(force=True)
