"""Help: keys, and what each entry does."""

from __future__ import annotations

from cli.entries import entries_for
from cli.screen import FAINT, STRONG
from cli.screens.context import Context

KEYS = (
    ("Enter", "takes the line; an empty one means what is in brackets, or shown faintly; at the menu, all entries"),
    ("Tab, ↓", "what may be typed here; again, or the arrows, to go through it"),
    ("↑", "what was typed here before"),
    ("Esc, Ctrl-C", "back to the menu; nothing is changed"),
    ("Ctrl-D", "leaves"),
    ("while hosts work", "Esc leaves the work running; Ctrl-C begins no new step, and asks"),
)


def help_menu(context: Context) -> None:
    """Menu entry 28."""
    screen = context.screen
    screen.line(("Entries are chosen by number, by name, or by the beginning of the name.", STRONG))
    screen.table(("", "", ""), [[one.number, one.words, (one.about, FAINT)] for one in entries_for(context.role)])
    screen.line(("Keys", STRONG))
    screen.table(("", ""), [[key, (words, FAINT)] for key, words in KEYS])
    screen.line("A first lab: 9 asks for a shape, shows the drawing, and makes it; 6 deploys it; 8 opens a console.")
