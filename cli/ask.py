"""Questions to a person. Esc and Ctrl-C go back to the menu, the end of the input leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from cli.screen import plain
from cli.text import clean
from cloudrepo.late_dataclass import dataclass

Option = tuple[str, str]
"""What may be typed, and what it means."""


class Back(Exception):
    """Esc or Ctrl-C at a question: back to the menu; nothing was done."""


class Leave(Exception):
    """The input has ended (Ctrl-D): leave."""


class LeftRunning(Exception):
    """The second Ctrl-C: the person leaves; the hosts finish the step they are at and begin no other."""


def no_objection(_answer: str) -> str:
    """Any answer will do."""
    return ""


@dataclass(frozen=True)
class Hints:
    """What helps whoever types.

    Attributes:
        options: what may be typed; offered by Tab and the arrow keys.
        check: why an answer cannot be used, shown while it is typed; an empty text when it can.
        suggestion: what an empty line means, shown faintly where that is possible.
        topic: questions of one topic share a history.
    """

    options: Sequence[Option] = ()
    check: Callable[[str], str] = no_objection
    suggestion: str = ""
    topic: str = ""


NO_HINTS = Hints()


class Keyboard(Protocol):
    """Where answers come from."""

    def read(self, prompt: str, *, secret: bool = False, hints: Hints = NO_HINTS) -> str:
        """One line, as typed; `secret` is not shown.

        Raises:
            Back: on Esc and Ctrl-C.
            Leave: on the end of the input.
        """


class Ask:
    """Questions with a checked answer, asked again until it is usable.

    Args:
        keyboard: where answers come from.
        to: where is said why an answer is not usable; None = the standard output of the moment.

    Attributes:
        lines: how many lines of the terminal were asked and said so far, about.
    """

    def __init__(self, keyboard: Keyboard, *, to: TextIO | None = None) -> None:
        self.keyboard = keyboard
        self.lines = 0
        self._to = to

    def text(
        self,
        label: str,
        *,
        default: str = "",
        secret: bool = False,
        options: Sequence[Option] = (),
        check: Callable[[str], str] = no_objection,
        suggestion: str = "",
        hint: Callable[[str], str] = no_objection,
        may_be_empty: bool = False,
    ) -> str:
        """A line that is not empty, unless it may be; surrounding blanks are dropped, except from a secret.

        Args:
            label: the question.
            default: shown in brackets; what an empty line means.
            secret: show nothing of it.
            options: what may be typed, for completion.
            check: why an answer cannot be used; asked while it is typed, too.
            hint: as `check`, but only shown while it is typed; the answer is taken.
            suggestion: as `default`, but shown where the answer is typed, if the terminal can.
            may_be_empty: an empty line is an answer, too.
        """
        prompt = f"{label} [{clean(default)}]: " if default else f"{label}: "
        hints = Hints(options, lambda typed: check(typed) or hint(typed), suggestion, label)
        while True:
            answer = self._read(prompt, secret=secret, hints=hints)
            if not secret:
                answer = answer.strip() or default or suggestion
            if not answer and may_be_empty:
                return answer
            if not answer:
                self._say("Please type an answer, or Ctrl-C to go back.")
                continue
            why = check(answer)
            if not why:
                return answer
            self._say(why)

    def number(
        self,
        label: str,
        *,
        default: int | None = None,
        least: int | None = None,
        most: int | None = None,
        suggestion: int | None = None,
    ) -> int:
        """A whole number, within bounds if there are some."""

        def check(answer: str) -> str:
            # isdecimal also takes other scripts' digits, which int() reads well; a sign is for the façade to refuse
            if not answer.removeprefix("-").isdecimal() or len(answer) >= 20:
                return f"A whole number is needed here; found {clean(repr(answer))}."
            if least is not None and int(answer) < least:
                return f"It is {least} at least; found {answer}."
            return f"It is {most} at most; found {answer}." if most is not None and int(answer) > most else ""

        words = "" if default is None else str(default)
        hint = "" if suggestion is None else str(suggestion)
        return int(self.text(label, default=words, check=check, suggestion=hint))

    def choice(self, label: str, options: Sequence[str], *, suggestion: int | None = None) -> int:
        """The index of the option a person chose by its number, its name, or what only its name begins with."""

        def place(answer: str) -> int | None:
            if answer.isdecimal() and len(answer) < 20 and 1 <= int(answer) <= len(options):
                return int(answer) - 1
            return meant(options, answer)

        def check(answer: str) -> str:
            found = f"Please choose 1 to {len(options)}; found {clean(repr(answer))}."
            return "" if place(answer) is not None else found

        offered = [(str(number), words) for number, words in enumerate(options, 1)]
        hint = "" if suggestion is None else str(suggestion + 1)
        return place(self.text(label, options=offered, check=check, suggestion=hint)) or 0

    def yes(self, label: str, *, default: bool | None = None) -> bool:
        """Yes or no: y or n, also s (sí); without a default an answer is needed."""
        hint = {None: "y/n", True: "Y/n", False: "y/N"}[default]
        hints = Hints((("y", "yes"), ("n", "no")), self._why_no_yes, topic="yes")
        while True:
            answer = self._read(f"{label} ({hint}): ", hints=hints).strip().casefold()
            if not answer and default is not None:
                return default
            if answer in _YES:
                return True
            if answer in _NO:
                return False
            self._say("Please answer y or n.")

    def _read(self, prompt: str, *, secret: bool = False, hints: Hints = NO_HINTS) -> str:
        self.lines += 1
        return self.keyboard.read(prompt, secret=secret, hints=hints)

    def _say(self, why: str) -> None:
        self.lines += 1
        plain(why, to=self._to)

    @staticmethod
    def _why_no_yes(answer: str) -> str:
        return "" if answer.casefold() in (*_YES, *_NO) else "Please answer y or n."


def meant(options: Sequence[str], answer: str) -> int | None:
    """The place of the only option that is called so, or begins so, or has a word that does."""
    words = answer.casefold()
    names = [option.casefold() for option in options]
    ways = (str.__eq__, str.startswith, lambda name, begun: any(one.startswith(begun) for one in name.split()))
    for is_so in ways:
        found = [place for place, name in enumerate(names) if words and is_so(name, words)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


_YES = ("y", "yes", "s", "si", "sí")
_NO = ("n", "no")
