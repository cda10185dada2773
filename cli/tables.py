"""Tables as wide as their words, without a frame: what a screen shows wherever they fit.

rich lays out what does not fit. It takes a hundred times as long, which a list of a class's machines would show.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

GAP = 2  # columns between two columns


def laid_out(rows: Sequence[Sequence[str]], width: int | None) -> list[list[str]] | None:
    """Bring the cells of each row to the widths of their columns.

    Args:
        rows: texts, as many in each row; the headings are the first row.
        width: columns of the terminal, or None where lines may have any length.

    Returns:
        The same rows, each cell with what has to follow it, nothing after a row's last word; None where they do not
        fit.
    """
    sizes = [[cells(text) for text in row] for row in rows]
    widths = [max(column) for column in zip(*sizes, strict=True)]
    if width is not None and sum(widths) + GAP * (len(widths) - 1) > width:
        return None
    if any("\n" in text for row in rows for text in row):
        return None
    laid = []
    for row, of_row in zip(rows, sizes, strict=True):
        ends = [text + " " * (most + GAP - size) for text, size, most in zip(row, of_row, widths, strict=True)]
        while ends and not ends[-1].strip():
            ends.pop()
        laid.append([*ends[:-1], ends[-1].rstrip()] if ends else [])
    return laid


_WORD = re.compile(r"""(?:\\.|[^\s'"\\]|'[^']*'|"[^"]*")+""")


def broken(words: str, width: int) -> list[str]:
    """A command line in pieces of at most this width, as far as its words allow; what is quoted stays in one."""
    if len(words) <= width + 2:  # which the last piece may take: nothing follows it
        return [words]
    found, lines = _WORD.findall(words), list[str]()
    if " ".join(found) != words:
        return [words]  # a quote without its other end
    for word in found:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
