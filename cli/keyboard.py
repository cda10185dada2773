"""A person's keyboard: prompt_toolkit on a terminal, plain lines elsewhere.

No key leads out of here: neither an editor nor suspension nor a file, since the menu may be all that a person is
allowed to use. History is kept in memory only, and secrets are in none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

from cli.ask import NO_HINTS, Ask, Back, Hints, Leave
from cli.colours import PROMPTS, suggested
from cli.screen import in_its_letters

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.styles import Style
    from prompt_toolkit.validation import Validator

ESC = "\x1b"
ESCAPE_S = 0.25  # so long may the rest of an arrow key be on its way before Esc is Esc
CHORD_S = 0.02  # what Alt adds to a key comes with it; so long is waited again, for what is no arrow key
REFRESH_S = 2.0  # the status under the prompt
ROOM = 6  # lines for choices under the prompt
OBJECTION = "noreverse class:validation-toolbar"  # within a line that is reversed


class TerminalKeyboard:
    """prompt_toolkit on a terminal; plain lines when the standard input is none.

    Args:
        on_screen: called once, when the first prompt is on the screen.
        prompts: where prompts go; None = the standard output of the moment.

    Attributes:
        status: what stands under each prompt, where a terminal can show it; an empty text = nothing does.
    """

    def __init__(self, on_screen: Callable[[], None] | None = None, *, prompts: TextIO | None = None) -> None:
        self._on_screen = on_screen
        self._prompts = prompts
        self._histories: dict[str, InMemoryHistory] = {}
        self.status: Callable[[], str] | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether somebody sits at a terminal."""
        return self._prompts is None and sys.stdin.isatty() and sys.stdout.isatty()

    def read(self, prompt: str, *, secret: bool = False, hints: Hints = NO_HINTS) -> str:
        """See `Keyboard.read`."""
        try:
            return self._edit(prompt, secret, hints) if self._can_draw() else self._read_plain(prompt, secret)
        except KeyboardInterrupt:
            raise Back from None
        except EOFError:
            raise Leave from None

    def _edit(self, prompt: str, secret: bool, hints: Hints) -> str:
        session = self._session(secret, hints)
        session.app.ttimeoutlen, session.app.timeoutlen = ESCAPE_S, CHORD_S
        return session.prompt(_fit(prompt), pre_run=self._shown)

    def _session(self, secret: bool, hints: Hints) -> PromptSession[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import DummyHistory

        options: dict[str, Any] = {
            "enable_open_in_editor": False,
            "enable_suspend": False,
            "is_password": secret,
            "key_bindings": _keys(offers=bool(hints.options)),
            "history": DummyHistory() if secret else self._history(hints.topic),
        }
        if not secret:
            options |= {
                "completer": _completer(hints) if hints.options else None,
                "complete_while_typing": False,
                "reserve_space_for_menu": ROOM,
                "placeholder": hints.suggestion and [(_suggested(), _fit(hints.suggestion))],
                "style": _style(),
            }
        if self.status is not None:
            options |= {"bottom_toolbar": lambda: self._toolbar(hints), "refresh_interval": REFRESH_S}
        elif not secret:
            options |= {"validator": _validator(hints), "validate_while_typing": True}
        return PromptSession(**options)

    def _history(self, topic: str) -> InMemoryHistory:
        from prompt_toolkit.history import InMemoryHistory

        return self._histories.setdefault(topic, InMemoryHistory())

    def _toolbar(self, hints: Hints) -> list[tuple[str, str]]:
        """What stands at the foot: why an answer cannot be used, in as many lines as that takes, and the status."""
        from textwrap import wrap

        from prompt_toolkit.application.current import get_app

        app = get_app()
        width = max(app.output.get_size().columns, 1)
        why = _fit(_objection(hints, app.current_buffer.text.strip()))
        said = [(OBJECTION, f"{line.ljust(width)}\n") for line in wrap(why, width)]
        return [*said, ("", _fit(self.status()) if self.status is not None else "")]

    def _can_draw(self) -> bool:
        """Whether prompt_toolkit is of use. On a dumb terminal it would show secrets as they are typed."""
        return self.is_terminal and os.environ.get("TERM", "dumb").casefold() not in ("dumb", "unknown", "")

    def _read_plain(self, prompt: str, secret: bool) -> str:
        if secret and self.is_terminal:
            import getpass

            self._shown()
            return getpass.getpass(prompt, stream=sys.stdout)
        prompts = self._prompts or sys.stdout
        prompts.write(prompt)
        prompts.flush()
        self._shown()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        if not self.is_terminal:
            prompts.write("\n")  # what was typed, and its end, is on no screen
        if line.startswith(ESC):
            raise Back
        return line.rstrip("\r\n")

    def _shown(self) -> None:
        if self._on_screen is not None:
            action, self._on_screen = self._on_screen, None
            action()


def _fit(words: object) -> str:
    """A text as the terminal can show it; prompt_toolkit writes to the standard output."""
    return in_its_letters(words, sys.stdout)


def _suggested() -> str:
    return suggested(os.environ.get("TERM", ""))


def _style() -> Style:
    from prompt_toolkit.styles import Style

    return Style.from_dict(PROMPTS)


def ask_aside(to: TextIO) -> Ask:
    """Questions on another stream, where the standard output is for programs."""
    return Ask(TerminalKeyboard(prompts=to), to=to)


def _keys(*, offers: bool) -> KeyBindings:
    """Esc goes back, or closes the list; the arrow down opens it; Enter takes the line as it is."""
    from prompt_toolkit.application.current import get_app
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("escape")
    def back(event: KeyPressEvent) -> None:
        if event.current_buffer.complete_state:
            event.current_buffer.cancel_completion()
        else:
            event.app.exit(exception=Back(), style="class:aborting")

    @keys.add("enter")
    def take(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        buffer.append_to_history()
        event.app.exit(result=buffer.text)

    @Condition
    def is_closed() -> bool:
        return offers and get_app().current_buffer.complete_state is None

    @keys.add("down", filter=is_closed)
    def choose(event: KeyPressEvent) -> None:
        # At once, and not when the next turn of the loop has found them: Enter may be on its way already.
        buffer = event.current_buffer
        found = list(buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
        if found:
            buffer._set_completions(found)
            buffer.go_to_completion(0)

    return keys


def _completer(hints: Hints) -> Completer:
    """Offers what begins with what was typed, and what has a word in its meaning that does."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    class Options(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            typed = document.text_before_cursor
            for value, meaning in hints.options:
                words = (value, meaning, *meaning.split())
                if any(word.casefold().startswith(typed.casefold()) for word in words):
                    yield Completion(value, -len(typed), display=_fit(value), display_meta=_fit(meaning))

    return Options()


def _objection(hints: Hints, typed: str) -> str:
    """Why what was typed so far cannot be used; empty while it can become one of those offered."""
    if not typed or any(value.casefold().startswith(typed.casefold()) for value, _meaning in hints.options):
        return ""
    return hints.check(typed)


def _validator(hints: Hints) -> Validator:
    """Says it under a prompt that has no status."""
    from prompt_toolkit.document import Document
    from prompt_toolkit.validation import ValidationError, Validator

    class Checked(Validator):
        def validate(self, document: Document) -> None:
            why = _objection(hints, document.text.strip())
            if why:
                raise ValidationError(len(document.text), _fit(why))

    return Checked()
