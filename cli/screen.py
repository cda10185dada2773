"""Where everything shown to a person goes through: nothing reaches the terminal uncleaned.

rich is imported with the first line that needs it, which is after the login prompt.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from cli.text import clean, clean_lines

if TYPE_CHECKING:
    from rich.console import Console

Piece = str | tuple[str, str]
"""A text, or a text with its style in rich's words, such as `("failed", "bold red")`."""

GOOD = "green"
BAD = "bold red"
FAINT = "dim"
STRONG = "bold"


#: What our own words use beyond ASCII, for a stream that takes no more.
_PLAIN = str.maketrans({"└": "`", "─": "-", "…": "...", "“": '"', "”": '"', "—": "-", "·": "-", "↓": "Down", "↑": "Up"})


class Screen:
    """Lines, tables and complaints on one stream.

    Args:
        stream: where to write; None = the standard output of the moment.
        width: columns of what is not a terminal; a terminal is asked.

    Attributes:
        lines: how many lines of a terminal were taken so far; where nothing is one, it is not counted.
    """

    def __init__(self, stream: TextIO | None = None, *, width: int | None = None) -> None:
        self._stream = stream
        self._width = width
        self._console: Console | None = None
        self.lines = 0

    @property
    def console(self) -> Console:
        """The rich console behind; markup, emoji codes and highlighting are off."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(
                file=self._stream, markup=False, emoji=False, highlight=False, width=self._width, soft_wrap=False
            )
        return self._console

    @property
    def live(self) -> bool:
        """Whether a display that redraws itself makes sense here."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    @property
    def unicode(self) -> bool:
        """Whether the stream takes more than ASCII."""
        return takes_unicode(self.console.file)

    @property
    def on_terminal(self) -> bool:
        """Whether somebody sees it line by line, be it on a terminal that can do nothing else."""
        return self.console.is_terminal

    def line(self, *pieces: Piece) -> None:
        """One line; long ones are left to the terminal to wrap, so that they can be copied whole."""
        from rich.text import Text

        text = Text()
        for piece in pieces:
            words, style = (piece, "") if isinstance(piece, str) else piece
            text.append(self._known(words), style)
        self.console.print(text, soft_wrap=True)
        if self.on_terminal:
            self.lines += max(1, -(-text.cell_len // max(self.console.width, 1)))

    def _known(self, words: str) -> str:
        """A text made clean, in characters that the stream takes."""
        return clean(words) if self.unicode else clean(words).translate(_PLAIN)

    def heading(self, title: str) -> None:
        """A title with space above it."""
        self.line()
        self.line((title, STRONG))

    def complain(self, message: object) -> None:
        """What failed, in the words of the façade: the first line strong, the evidence under it."""
        first, *rest = clean_lines(message) or ["Failed, and no reason was given."]
        self.line((first, BAD))
        for line in rest:
            self.line(f"  {line}")

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[Piece]]) -> None:
        """A table as wide as its words, without a frame."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for place, heading in enumerate(headings):
            table.add_column(heading, overflow="fold", no_wrap=place == 0)  # what a row is about stays in one piece
        for row in rows:
            cells = [(piece, "") if isinstance(piece, str) else piece for piece in row]
            table.add_row(*(Text(self._known(words), style) for words, style in cells))
        self.console.print(table)
        if self.on_terminal:
            self.lines += len(self.console.render_lines(table, pad=False))


def takes_unicode(stream: object) -> bool:
    """Whether a stream takes more than ASCII."""
    encoding = getattr(stream, "encoding", None)
    return not encoding or encoding.lower().replace("-", "").startswith("utf")


def in_its_letters(words: object, stream: object) -> str:
    """A text made clean, with an escape or a plain stand-in for what the stream does not take."""
    text = clean(words)
    return text if takes_unicode(stream) else text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()


class QuietScreen(Screen):
    """Where only what went wrong is said."""

    @property
    def live(self) -> bool:
        """Nothing is drawn."""
        return False

    def line(self, *pieces: Piece) -> None:
        """Nothing."""

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[Piece]]) -> None:
        """Nothing."""

    def complain(self, message: object) -> None:
        """What failed; as of any screen."""
        for line in clean_lines(message):
            plain(line, to=self._stream)


def require_reader() -> bool:
    """Notice that the reader of the standard output has left also when nothing is written; False otherwise.

    Raises:
        BrokenPipeError: it has.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # none of the system's, as in a test
        return False
    poll = select.poll()
    poll.register(number, 0)  # errors are told unasked: poll(2)
    if any(what & select.POLLERR for _, what in poll.poll(0)):
        raise BrokenPipeError
    return False


def plain(line: str = "", *, to: TextIO | None = None) -> None:
    """A line before rich is loaded; made clean as well. It goes to the standard output of the moment by default."""
    stream = to or sys.stdout
    stream.write(clean(line) + "\n")
    stream.flush()
