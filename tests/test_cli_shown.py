"""What is shown: texts made clean, progress without a terminal."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, strategies

from cli.progress import ProgressDisplay
from cli.screen import Screen
from cli.text import clean, clean_lines, count, listing
from cloudrepo.progress import Progress
from cloudrepo.settings import settings_table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("web", "web"),
        ("ñandú 7 “x”", "ñandú 7 “x”"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udc80", r"\udc80"),
        ("\u2028", r"\u2028"),
        (5901, "5901"),
    ],
)
def test_clean(value: object, shown: str) -> None:
    assert clean(value) == shown


@given(strategies.text())
def test_clean_leaves_nothing_that_moves_a_cursor(text: str) -> None:
    assert all(unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in clean(text))


def test_clean_lines_keeps_lines_apart() -> None:
    assert clean_lines("first\n\tsecond\x07\n") == ["first", r"    second\x07"]


def test_counting_words() -> None:
    assert [count(0, "VM"), count(1, "VM"), count(2, "VM")] == ["0 VMs", "1 VM", "2 VMs"]
    assert [listing([]), listing(["a"]), listing("ab"), listing("abc")] == ["", "a", "a and b", "a, b and c"]


def test_progress_without_a_terminal_is_a_line_for_each_step() -> None:
    stream = io.StringIO()
    with ProgressDisplay(Screen(stream, width=120)) as display:
        display(Progress(host="10.0.10.1", label="add port tap_1001_eth1, VLAN 100", step=1, total=2))
        assert stream.getvalue() == ""
        display(Progress(host="10.0.10.1", label="add port tap_1001_eth1, VLAN 100", done=True, step=1, total=2))
        assert stream.getvalue().rstrip("\n").endswith("10.0.10.1        1/2  add port tap_1001_eth1, VLAN 100")
        display(Progress(host="10.0.10.1", label="start VM 1001 (web)", done=True, ok=False, step=2, total=2))
    assert "FAILED start VM 1001 (web)" in stream.getvalue()


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_what_the_steps_of_a_host_took_so_far() -> None:
    """One is quick, one slow, one begins late and waits at a gate; a second message begins anew."""
    clock = Clock()
    display = ProgressDisplay(Screen(io.StringIO(), width=120), clock=clock)

    def steps(host: str, first: int, last: int, total: int, seconds: float) -> None:
        for number in range(first, last + 1):
            display(Progress(host=host, label="x", step=number, total=total))
            clock.now += seconds
            display(Progress(host=host, label="x", done=True, step=number, total=total))

    steps("quick", 1, 2, 10, 0.5)
    assert display._left_s("quick") is None, "too early to say"
    steps("quick", 3, 4, 10, 0.5)
    assert display._left_s("quick") == pytest.approx(3.0)  # six of them, half a second each
    steps("slow", 1, 5, 20, 4.0)
    assert display._left_s("slow") == pytest.approx(60.0)  # the two seconds before it began are no time of its own
    assert display.summary == "9 of 30 steps, about 60 s left"
    clock.now += 20  # nothing moves: it takes longer than it seemed
    assert display._left_s("slow") == pytest.approx(120.0)
    assert display.summary == "9 of 30 steps, about 2 min left"
    steps("slow", 6, 20, 20, 0.0)
    steps("quick", 5, 10, 10, 0.0)
    assert display._left_s("slow") is None and display.summary == "30 of 30 steps"
    steps("slow", 1, 3, 6, 1.0)
    assert display._left_s("slow") == pytest.approx(3.0)
    display.end()
    clock.now += 500
    assert display._left_s("slow") == pytest.approx(3.0) and display.seconds == pytest.approx(45.0)


def test_the_page_of_settings_is_what_the_code_says() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    assert settings_table().strip() in page
