"""What is good, bad or beside the point looks how; readable on light and on dark, with few colours, and without any.

A text has the colour that the terminal's owner chose, but for two: both stand out at least 3 : 1 from black and from
white, which tests/test_colours.py computes. With 16 colours the owner also chose what green is; only bright red is dark
enough for white and light enough for black everywhere, so what is good is bold there. Nothing is said by colour alone.
"""

from __future__ import annotations

GOOD, BAD, FAINT, STRONG = "good", "bad", "faint", "strong"

MANY = ("256", "truecolor")  # colours from 16 on are the same everywhere
CONSOLE = "linux"  # the kernel's own terminal shows what is dim in dark gray, on black

#: The same for prompts: lists and the line at the foot are the terminal's own colours, exchanged.
PROMPTS = {
    "completion-menu": "noinherit reverse",
    "completion-menu.completion.current": "noinherit noreverse bold",
    "completion-menu.meta.completion": "noinherit reverse",
    "completion-menu.meta.completion.current": "noinherit noreverse bold",
    "scrollbar.background": "noinherit reverse",
    "scrollbar.button": "noinherit noreverse",
    "aborting": "noinherit",
}


def styles(color_system: str | None, term: str) -> dict[str, str]:
    """What our styles are on a terminal, in rich's words.

    Args:
        color_system: rich's word for how many colours it has; None = none.
        term: what it calls itself in TERM.
    """
    has_many = color_system in MANY
    return {
        GOOD: "color(28)" if has_many else "bold",
        BAD: "bold color(196)" if has_many else "bold bright_red",
        FAINT: faint(term) or "none",
        STRONG: "bold",
    }


def faint(term: str) -> str:
    """How something beside the point looks, in words that rich and prompt_toolkit share; empty = like the rest."""
    return "" if term == CONSOLE else "dim"


def suggested(term: str) -> str:
    """How a suggestion looks where one types: never like what was typed."""
    return faint(term) or "italic"
