"""Where everything shown to a person goes through: nothing reaches the terminal uncleaned.

rich is imported with the first line that needs it, which is after the login prompt; what goes to a file or a pipe
needs none.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from cli import colours, tables
from cli.colours import BAD, FAINT, GOOD, STRONG
from cli.text import clean, clean_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["BAD", "FAINT", "GOOD", "STRONG", "Piece", "QuietScreen", "Screen", "plain"]

Piece = str | tuple[str, str]
"""A text, or a text with its style, such as `("failed", BAD)`."""

NOTES = ("", "Notes")  # headings of a column of notes


#: What our own words use beyond ASCII, for a stream that takes no more.
_PLAIN = str.maketrans({"└": "`", "─": "-", "…": "...", "“": '"', "”": '"', "—": "-", "·": "-", "↓": "Down", "↑": "Up"})


#: With one of these rich takes any stream for a terminal.
_LIKE_TERMINALS = ("FORCE_COLOR", "TTY_COMPATIBLE")


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
            from rich.theme import Theme

            self._console = Console(
                file=self._stream, markup=False, emoji=False, highlight=False, width=self._width, soft_wrap=False
            )
            looks = colours.styles(self._console.color_system, os.environ.get("TERM", ""))
            self._console.push_theme(Theme(looks))
        return self._console

    @property
    def live(self) -> bool:
        """Whether a display that redraws itself makes sense here."""
        return self.on_terminal and not self.console.is_dumb_terminal

    @property
    def unicode(self) -> bool:
        """Whether the stream takes more than ASCII."""
        return takes_unicode(self._file)

    @property
    def on_terminal(self) -> bool:
        """Whether somebody sees it line by line, be it on a terminal that can do nothing else."""
        return (self._file.isatty() or any(map(os.environ.get, _LIKE_TERMINALS))) and self.console.is_terminal

    @property
    def _file(self) -> TextIO:
        return self._stream or sys.stdout

    def line(self, *pieces: Piece) -> None:
        """One line; long ones are left to the terminal to wrap, so that they can be copied whole."""
        self._show([[(self._known(words), style) for words, style in map(_styled, pieces)]])

    def paragraph(self, *pieces: Piece, indent: int = 0) -> None:
        """One line that a terminal shows broken between words, what follows the first indented; elsewhere as `line`."""
        known = [(self._known(words), style) for words, style in map(_styled, pieces)]
        width = self.console.width if self.on_terminal else 0
        if width <= 2 * indent or sum(tables.cells(words) for words, _ in known) <= width:
            self._show([known])
            return
        from rich.text import Text

        text = Text.assemble(*known)
        first = text.wrap(self.console, width, overflow="fold")[0]
        rest = text[len(first.plain) :]
        rest = rest[len(rest.plain) - len(rest.plain.lstrip()) :]
        lines = [first, *rest.wrap(self.console, width - indent, overflow="fold")]
        for place, line in enumerate(lines):
            line.rstrip()
            line.pad_left(indent if place else 0)
            self._put(line)

    def command(self, words: str, *, indent: int = 0) -> None:
        r"""A command line to copy, faint; a terminal shows it broken between words with `\`, as a shell reads it."""
        lines = tables.broken(words, self.console.width - indent - 2) if self.on_terminal else [words]
        for number, line in enumerate(lines, 1):
            self.line((" " * indent + line + (" \\" if number < len(lines) else ""), FAINT))

    def _show(self, lines: Sequence[Sequence[tuple[str, str]]]) -> None:
        """Lines of pieces that are known to be clean."""
        if not self.on_terminal:
            self._file.write("".join("".join(words for words, _ in line) + "\n" for line in lines))
            self._file.flush()
            return
        from rich.text import Text

        for line in lines:
            self._put(Text.assemble(*line))

    def _put(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True)
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
        """A table as wide as its words, without a frame; in a file or a pipe no line is folded.

        Where only a last column of notes (headed `Notes`, or the only one without a heading) makes it too wide, each
        note is below its row.
        """
        styled = [[(heading, STRONG) for heading in headings], *(list(map(_styled, row)) for row in rows)]
        known = [[self._known(words) for words, _ in row] for row in styled]
        styles = [[style for _, style in row] for row in styled]
        laid = tables.laid_out(known, self._most())
        if laid is not None:
            self._show([list(zip(row, own, strict=False)) for row, own in zip(laid, styles, strict=True)])
        elif not self._put_notes_below(known, styles):
            self._fold(known, styles)

    def _put_notes_below(self, known: Sequence[Sequence[str]], styles: Sequence[Sequence[str]]) -> bool:
        """Whether a table fits without its notes, and was shown so."""
        has_notes = any(known[0]) and known[0][-1] in NOTES
        laid = tables.laid_out([row[:-1] for row in known], self._most()) if has_notes else None
        if laid is None:
            return False
        for place, (row, own) in enumerate(zip(laid, styles, strict=True)):
            self._show([list(zip(row, own, strict=False))])
            note = known[place][-1]
            if place and note:
                self.paragraph((f"{' ' * tables.GAP}{note}", own[-1]), indent=tables.GAP)
        return True

    def _most(self) -> int | None:
        """The columns that a table may take."""
        return self.console.width if self.on_terminal else self._width

    def _fold(self, rows: Sequence[Sequence[str]], styles: Sequence[Sequence[str]]) -> None:
        """A table that is wider than the terminal: what its cells say goes on below."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, tables.GAP, 0, 0), header_style=STRONG)
        for place, heading in enumerate(rows[0]):
            table.add_column(heading, overflow="fold", no_wrap=place == 0)  # what a row is about stays in one piece
        for row, of_row in zip(rows[1:], styles[1:], strict=True):
            table.add_row(*(Text(words, style) for words, style in zip(row, of_row, strict=True)))
        self.console.print(table)
        if self.on_terminal:
            self.lines += len(self.console.render_lines(table, pad=False))


def _styled(piece: Piece) -> tuple[str, str]:
    return (piece, "") if isinstance(piece, str) else piece


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

    def paragraph(self, *pieces: Piece, indent: int = 0) -> None:
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
