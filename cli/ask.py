"""Questions to a person. Ctrl-C goes back to the menu, the end of the input leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from cli.screen import plain
from cli.text import clean

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession


class Back(Exception):
    """Ctrl-C at a question: back to the menu; nothing was done."""


class Leave(Exception):
    """The input has ended (Ctrl-D): leave."""


class Keyboard(Protocol):
    """Where answers come from."""

    def read(self, prompt: str, *, secret: bool = False) -> str:
        """One line, as typed; `secret` is not shown.

        Raises:
            Back: on Ctrl-C.
            Leave: on the end of the input.
        """


class TerminalKeyboard:
    """prompt_toolkit on a terminal; plain lines when the standard input is none.

    Args:
        on_screen: called once, when the first prompt is on the screen.
        prompts: where prompts go; None = the standard output of the moment.
    """

    def __init__(self, on_screen: Callable[[], None] | None = None, *, prompts: TextIO | None = None) -> None:
        self._on_screen = on_screen
        self._prompts = prompts
        self._session: PromptSession[str] | None = None

    def read(self, prompt: str, *, secret: bool = False) -> str:
        """See `Keyboard.read`."""
        try:
            if self._prompts is None and sys.stdin.isatty() and sys.stdout.isatty():
                return self._edit(prompt, secret)
            return self._read_plain(prompt)
        except KeyboardInterrupt:
            raise Back from None
        except EOFError:
            raise Leave from None

    def _edit(self, prompt: str, secret: bool) -> str:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import DummyHistory

        if self._session is None:
            # Neither an editor nor suspension: the menu may be all that a person is allowed to use.
            self._session = PromptSession(history=DummyHistory(), enable_open_in_editor=False, enable_suspend=False)
        return self._session.prompt(prompt, is_password=secret, pre_run=self._shown)

    def _read_plain(self, prompt: str) -> str:
        prompts = self._prompts or sys.stdout
        prompts.write(prompt)
        prompts.flush()
        self._shown()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        prompts.write("\n")
        return line.rstrip("\r\n")

    def _shown(self) -> None:
        if self._on_screen is not None:
            action, self._on_screen = self._on_screen, None
            action()


class Ask:
    """Questions with a checked answer, asked again until it is usable.

    Args:
        keyboard: where answers come from.
        to: where is said why an answer is not usable; None = the standard output of the moment.
    """

    def __init__(self, keyboard: Keyboard, *, to: TextIO | None = None) -> None:
        self._keyboard = keyboard
        self._to = to

    @classmethod
    def aside(cls, to: TextIO) -> Ask:
        """Questions on another stream, where the standard output is for programs."""
        return cls(TerminalKeyboard(prompts=to), to=to)

    def text(self, label: str, *, default: str = "", secret: bool = False) -> str:
        """A line that is not empty; surrounding blanks are dropped, except from a secret.

        `default` is shown in brackets and is what an empty line means.
        """
        prompt = f"{label} [{clean(default)}]: " if default else f"{label}: "
        while True:
            answer = self._keyboard.read(prompt, secret=secret)
            if not secret:
                answer = answer.strip() or default
            if answer:
                return answer
            plain("Please type an answer, or Ctrl-C to go back.", to=self._to)

    def number(self, label: str, *, default: int | None = None) -> int:
        """A whole number."""
        while True:
            answer = self.text(label, default="" if default is None else str(default))
            # isdecimal also takes other scripts' digits, which int() reads well; a sign is for the façade to refuse
            if answer.removeprefix("-").isdecimal() and len(answer) < 20:
                return int(answer)
            plain(f"A whole number is needed here; found {answer!r}.", to=self._to)

    def choice(self, label: str, options: Sequence[str]) -> int:
        """The index of the option a person chose by its number or its name."""
        while True:
            answer = self.text(label)
            if answer.isdecimal() and 1 <= int(answer) <= len(options):
                return int(answer) - 1
            if answer in options:
                return options.index(answer)
            plain(f"Please choose 1 to {len(options)}; found {answer!r}.", to=self._to)

    def yes(self, label: str, *, default: bool | None = None) -> bool:
        """Yes or no: y or n, also s (sí); without a default an answer is needed."""
        hint = {None: "y/n", True: "Y/n", False: "y/N"}[default]
        while True:
            answer = self._keyboard.read(f"{label} ({hint}): ").strip().casefold()
            if not answer and default is not None:
                return default
            if answer in ("y", "yes", "s", "si", "sí"):
                return True
            if answer in ("n", "no"):
                return False
            plain("Please answer y or n.", to=self._to)
