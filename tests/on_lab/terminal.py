"""A menu in a terminal: what a person types, and what the screen shows."""

from __future__ import annotations

import io
import re

import pexpect

CHOOSE = "Choose: "
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|\r")


class Terminal:
    """A terminal with the menu in it.

    Attributes:
        child: the process.
        seen: everything it has shown.
    """

    def __init__(self, child: pexpect.spawn[str]) -> None:
        self.child = child
        self.seen = child.logfile_read = io.StringIO()

    def answer(self, prompt: str, words: str, timeout_s: float = 20) -> None:
        """Wait for a prompt, type words, press Enter."""
        self.wait(prompt.rstrip(), timeout_s)  # the blank after a prompt is a cursor movement
        self.child.send(f"{words}\r")

    def wait(self, text: str, timeout_s: float = 20) -> None:
        """Wait for a text, whatever colours are around it; AssertionError with the screen when it does not come."""
        try:
            self.child.expect_exact(text, timeout=timeout_s)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            shown = "\n".join(self.lines[-30:])
            raise AssertionError(f"{text!r} was not shown ({type(error).__name__}) after:\n{shown}") from None

    @property
    def lines(self) -> list[str]:
        """What was shown, without colours and cursor movements."""
        return [line.rstrip() for line in ESCAPES.sub("", self.seen.getvalue()).split("\n")]
