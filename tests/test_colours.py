"""What has a colour is read on light and on dark backgrounds, by a computed ratio; and colour alone says nothing."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from prompt_toolkit.styles import Style as PromptStyle
from rich.console import Console
from rich.style import Style
from rich.theme import Theme

from cli import colours
from cli.progress import ProgressDisplay
from cli.screen import Screen
from cloudrepo.progress import Progress
from contrast import BLACK, LEAST, PALETTES, WHITE, colour, ratio, sent, weakest

SOURCES = sorted((Path(__file__).resolve().parent.parent / "cli").rglob("*.py"))
NUMBERS = {"16": "standard", "256": "256", "all": "truecolor"}


def test_the_ratio_is_the_standards() -> None:
    assert ratio(BLACK, WHITE) == pytest.approx(21)
    assert ratio("#777777", WHITE) == pytest.approx(4.48, abs=0.01)  # a well-known one: just too weak for small text
    assert colour(28, "vga") == "#008700" and colour(231, "vga") == WHITE and colour(232, "vga") == "#080808"


def test_what_was_too_weak_is_found() -> None:
    """Green, as terminals of 16 colours have it."""
    assert ratio(PALETTES["xterm"][2], WHITE) < 2.2
    assert weakest(2, None) < LEAST and weakest(1, None) < LEAST
    assert list(sent(b"\x1b[1;31mno\x1b[0m\x1b[0;38;5;231;48;5;52mwhy\x1b[91m")) == [(1, None), (231, 52), (9, None)]


@pytest.mark.parametrize("term", ["xterm-256color", "screen", "linux"])
@pytest.mark.parametrize("system", NUMBERS.values(), ids=NUMBERS)
def test_every_colour_stands_out_from_black_and_from_white(system: str, term: str) -> None:
    for name, words in colours.styles(system, term).items():
        style = Style.parse(words)
        assert style.bgcolor is None
        if style.color is not None:
            assert style.color.number is not None and weakest(style.color.number, None) >= LEAST, name


def test_what_is_good_has_a_colour_where_there_are_many() -> None:
    assert Style.parse(colours.styles("256", "xterm-256color")[colours.GOOD]).color is not None
    assert Style.parse(colours.styles("standard", "xterm")[colours.GOOD]) == Style(bold=True)


def test_prompts_have_the_terminals_own_colours() -> None:
    style = PromptStyle.from_dict(colours.PROMPTS)
    for name in colours.PROMPTS:
        attributes = style.get_attrs_for_style_str(f"class:{name}")
        assert not attributes.color and not attributes.bgcolor, name


def test_the_console_of_the_kernel_shows_nothing_dim() -> None:
    """It would be dark gray on black: 2.8 : 1."""
    assert ratio(PALETTES["vga"][8], BLACK) < LEAST
    assert "dim" not in colours.styles("standard", "linux").values()
    assert colours.suggested("linux") == "italic" and colours.suggested("xterm") == "dim"


def colour_words(path: Path) -> list[str]:
    """Texts in a source that rich would take for a style with a colour."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                style = Style.parse(node.value)
            except Exception:  # noqa: S112 - it is no style
                continue
            if any(one is not None and not one.is_default for one in (style.color, style.bgcolor)):
                found.append(f"{path.name}:{node.lineno}: {node.value}")
    return found


def test_colours_are_chosen_in_one_place() -> None:
    assert [line for path in SOURCES for line in colour_words(path) if path.name != "colours.py"] == []
    assert colour_words(Path(colours.__file__)) != []


def shown(*steps: Progress) -> str:
    """The bars, without colours."""
    stream = io.StringIO()
    screen = Screen(stream, width=80)
    screen._console = Console(file=stream, width=80, theme=Theme(colours.styles(None, "")))
    display = ProgressDisplay(screen)
    for step in steps:
        display(step)
    screen.console.print(display._table())
    return stream.getvalue()


def test_a_bar_is_read_without_colours() -> None:
    step = Progress(host="10.0.10.1", step=1, total=2, label="make a bridge", done=True, ok=True)
    assert "━━━━━━━━────────" in shown(step)
    assert "FAILED make a bridge" in shown(Progress(**{**vars(step), "ok": False}))
