"""Every question that the menu can ask, found by asking: what is typed to get there. Nobody keeps a list of them.

Each entry is chosen over hosts in memory, and each question answered with all that it offers, until no new one comes.
`labels` reads from the screens' code which questions there are, so that none can be missed.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.ask import NO_HINTS, Ask, Back, Hints
from cli.entries import ENTRIES, Entry, load
from cli.screen import Screen
from cli.screens.context import Context
from menu_process import installation
from orchestrator_api import OrchestratorAPI
from test_call_events import LOOKS

SCREENS = Path(__file__).resolve().parent.parent / "cli/screens"
WORDS = ("", "x1", "2", "orange-eight")  # typed where nothing is offered
MOST_OPTIONS = 7
AT_HOSTS = {"verify", "path", "doctor"}  # what takes frames on a wire, and asks nothing after it
QUESTIONS = ("text", "number", "choice", "yes")
BRACKETS = re.compile(r" (?:\[[^]]*\]|\([yY]/[nN]\))$")


@dataclass(frozen=True)
class Prompt:
    """One question.

    Attributes:
        entry: the number of its entry.
        answers: what is typed before it.
        label: what is asked, without what stands in brackets.
    """

    entry: str
    answers: tuple[str, ...]
    label: str

    @property
    def kind(self) -> tuple[str, str]:
        """The same for the same question about another number or name."""
        label = re.sub(r"\bvm\d+|\d+", "#", self.label)
        for answer in filter(str.isalpha, self.answers):
            label = label.replace(answer, "#")
        return self.entry, label


class Typist:
    """A keyboard that types what it is given, and leaves at the question after it.

    Attributes:
        reached: that question and its hints; None = none came, or the last answer was not taken.
    """

    def __init__(self, answers: tuple[str, ...]) -> None:
        self._answers = list(answers)
        self._last = ""
        self.reached: tuple[str, Hints] | None = None

    def read(self, prompt: str, *, secret: bool = False, hints: Hints = NO_HINTS) -> str:
        """See `Keyboard.read`."""
        if self._answers:
            self._last = prompt
            return self._answers.pop(0)
        if prompt != self._last:
            self.reached = (prompt, hints)
        raise Back


class Still:
    """A façade that answers what only looks, and refuses the rest: whatever is typed, the installation stays."""

    def __init__(self, api: OrchestratorAPI) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Any:
        genuine = getattr(self._api, name)
        if name in LOOKS - AT_HOSTS or not callable(genuine):
            return genuine
        return lambda *_args, **_options: (False, "nothing is changed here")


def asked(context: Context, entry: Entry, answers: tuple[str, ...]) -> tuple[str, Hints] | None:
    """The question that an entry asks after these answers; None = there is none, or the last is not taken."""
    typist = Typist(answers)
    context.ask = Ask(typist, to=io.StringIO())
    with suppress(Back):
        load(entry.target)(context)
    return typist.reached


def explore(folder: Path) -> Iterator[Prompt]:
    """Every question that can be reached, with what to type: of each kind the first that was found.

    Args:
        folder: an empty one for an installation to look at.
    """
    for name in ("gate", "furnished"):
        (folder / name).touch()
    still: Any = Still(installation(folder, "ann", "admin").api)
    context = Context(still, "ann", Screen(io.StringIO()), Ask(Typist(())), role="admin")
    for entry in ENTRIES:
        if entry.target:
            yield from _questions_of(context, entry)


def _questions_of(context: Context, entry: Entry) -> Iterator[Prompt]:
    """Those of one entry. What was chosen first from a numbered list is a branch of its own."""
    told: set[tuple[str, str]] = set()
    gone: set[tuple[str, ...]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while waiting:
        branch, answers = waiting.pop(0)
        reached = asked(context, entry, answers)
        if reached is None:
            continue
        question, hints = reached
        found = Prompt(entry.number, answers, BRACKETS.sub("", question.rstrip().removesuffix(":")))
        if (branch, *found.kind) in gone:
            continue
        gone.add((branch, *found.kind))
        if found.kind not in told:
            told.add(found.kind)
            yield found
        offered = [value for value, _meaning in hints.options][:MOST_OPTIONS]
        is_list = not answers and offered[:2] == ["1", "2"]
        waiting += [(one if is_list else branch, (*answers, one)) for one in offered or WORDS]


def labels() -> dict[str, str]:
    """The questions that the screens' code has: a pattern of what is asked, and where. `#` stands for numbers."""
    found = {}
    for file in sorted(SCREENS.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="ask"), attr=kind)) if kind in QUESTIONS:
                    found[without_numbers(_pattern(node.args[0]))] = f"{file.name}:{node.lineno}"
    return found


def without_numbers(words: str) -> str:
    """The same with `#` for each number."""
    return re.sub(r"\d+", "#", words)


def _pattern(words: Any) -> str:
    """What is asked as a regular expression; what is filled in may be anything."""
    if isinstance(words, ast.Constant):
        return re.escape(str(words.value))
    if isinstance(words, ast.JoinedStr):
        return "".join(_pattern(part) if isinstance(part, ast.Constant) else ".+" for part in words.values)
    return ".+"
