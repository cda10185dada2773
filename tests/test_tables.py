"""Tables without a frame: what fits is laid out as rich would, what goes to a pipe is never folded."""

from __future__ import annotations

import io
import string

import pytest
from hypothesis import given, strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from cli import tables
from cli.screen import BAD, Screen
from cli.text import clean

WORDS = st.text(alphabet=string.ascii_letters + " é名", max_size=12)


@given(st.integers(1, 5).flatmap(lambda count: st.lists(st.lists(WORDS, min_size=count, max_size=count), min_size=1)))
def test_what_fits_is_laid_out_as_rich_does(rows: list[list[str]]) -> None:
    laid = tables.laid_out(rows, None)
    assert laid is not None
    table = Table(box=None, pad_edge=False, padding=(0, tables.GAP, 0, 0), show_header=False)
    for _ in rows[0]:
        table.add_column(no_wrap=True)
    for row in rows:
        table.add_row(*row)
    told = io.StringIO()
    Console(file=told, width=1000, markup=False, emoji=False, highlight=False).print(table)
    assert ["".join(line).rstrip() for line in laid] == [line.rstrip() for line in told.getvalue().split("\n")[:-1]]


def test_a_row_ends_with_its_last_word() -> None:
    assert tables.laid_out([["a", "bb", ""], ["aaa", "", ""], ["", "", ""]], 80) == [["a    ", "bb"], ["aaa"], []]


@pytest.mark.parametrize(("width", "fits"), [(None, True), (9, True), (8, False)])
def test_a_table_fits_to_the_last_column(width: int | None, fits: bool) -> None:
    assert (tables.laid_out([["名", "abc", ""], ["a", "b", ""]], width) is not None) is fits


def test_what_has_several_lines_is_not_laid_out_here() -> None:
    assert tables.laid_out([["a\nb"]], None) is None


def test_a_text_takes_the_columns_that_a_terminal_gives_it() -> None:
    for text in ("", "abc", "é", "名前", "a名"):
        assert tables.cells(text) == cell_len(text)


def test_a_pipe_gets_each_row_on_a_line_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    told = io.StringIO()
    Screen(told).table(("Name", "Notes"), [("a", ("is " * 40, BAD)), ("b", "")])
    assert told.getvalue() == f"Name  Notes\na     {'is ' * 39}is\nb\n"


def test_with_forced_colours_a_pipe_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", "20"), ("FORCE_COLOR", "1"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    told = io.StringIO()
    Screen(told).table(("Name", "What"), [("a", "is " * 40)])
    assert "\x1b[1m" in told.getvalue() and max(map(len, told.getvalue().split("\n"))) < 60


@given(st.text())
def test_plain_words_are_clean_as_they_are(text: str) -> None:
    assert clean(text) == "".join(clean(f"é{char}")[1:] for char in text)
