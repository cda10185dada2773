"""The menu in a real tmux: walks, keys, lists, sizes, and work that is left by detaching and come back to."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from menu_terminal import ENTER
from menu_tmux import STRAY, Pane, pane

STATUS = "ann | VMs "
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|38|4[0-7]|48|9[0-7])(?:;[0-9]+)*m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installation with a slice of two machines, whose hosts do what they are told at once."""
    for name in ("gate", "design"):
        (tmp_path / name).touch()
    return tmp_path


def follows(seen: Pane, columns: int, rows: int) -> None:
    """Another size: the next question stands within it, and the status on its last line."""
    seen.tmux("resize-window", "-x", str(columns), "-y", str(rows))
    seen.until(partial(seen.is_of_size, columns, rows), "the size")
    seen.choose("2")
    seen.asks("Slice name:")
    seen.keys("Escape")
    seen.asks("Choose:")
    seen.until(lambda: seen.lines[-1].startswith(STATUS), "the status on the last line")
    assert max(map(len, seen.lines)) <= columns


def walk(seen: Pane) -> None:
    """By number, by name, by arrows; a list, Esc, Ctrl-C."""
    seen.choose("10")  # by number
    seen.answer("Slice ID [1000]:", "")
    seen.shows("link 1  vm1 eth1 ── vm2 eth1")
    seen.is_tidy(STATUS)
    seen.choose("create sl")  # by the beginning of its name
    seen.asks("Slice name:")
    seen.keys("C-c")
    seen.shows("Back to the menu. Nothing was changed.")
    seen.asks("Choose:")
    seen.keys("Down")  # by arrows
    seen.matches(r"Choose: 1\s*\n\s+1 +Cluster status")
    seen.keys("Down")
    seen.matches(r"Choose: 2 *\n")
    seen.is_tidy(STATUS)
    seen.keys("Escape")  # closes the list, and leaves what was typed alone
    seen.until(lambda: "Cluster status  " not in "".join(seen.lines[-8:-1]), "the list to close")
    seen.keys("C-u", "Down", "Down", "Enter")
    seen.asks("Slice name:")
    seen.keys("Escape")
    seen.asks("Choose:")
    seen.keys("Up", "Enter")  # what was chosen before
    seen.answer("Slice name:", "second")
    seen.shows("Slice created! ID: 1003")
    seen.asks("Choose:")


@pytest.mark.parametrize(
    ("term", "sizes", "variables"),
    [
        ("tmux-256color", ((80, 24), (120, 40), (60, 15), (80, 24)), {}),
        ("screen-256color", ((120, 40),), {}),
        ("screen-256color", ((80, 24),), {"NO_COLOR": "1"}),
    ],
    ids=["tmux", "screen", "no colour"],
)
def test_a_walk(folder: Path, term: str, sizes: tuple[tuple[int, int], ...], variables: dict[str, str]) -> None:
    """At the first size; then the others are taken one after another."""
    (columns, rows), *others = sizes
    with pane(folder, term=term, columns=columns, rows=rows, variables=variables) as seen:
        seen.log_in("ann")
        walk(seen)
        for size in others:
            follows(seen, *size)
        assert bool(COLOUR.search(seen.sent)) is not ("NO_COLOR" in variables)
        seen.choose("0")
        assert seen.ends() == 0
        assert seen.past.rstrip().endswith("Goodbye.")


def test_a_dumb_terminal(folder: Path) -> None:
    with pane(folder, term="dumb") as seen:
        seen.log_in("ann")
        seen.choose("10")
        seen.answer("Slice ID [1000]:", "")
        seen.shows("link 1  vm1 eth1 ── vm2 eth1")
        seen.choose("cluster")
        seen.shows("10.0.10.3")
        seen.choose("2")
        seen.asks("Slice name:")
        seen.keys("C-c")
        seen.shows("Nothing was changed.")
        seen.choose("0")
        assert seen.ends() == 0
        seen.is_tidy()
        assert "\x1b[" not in seen.sent


def test_work_goes_on_while_nobody_is_attached(folder: Path) -> None:
    (folder / "gate").unlink()
    bar = r"10\.0\.10\.[123] +─+ +0/[0-9]+"
    with pane(folder, term="tmux-256color") as seen:
        with seen.client(80, 24) as ann:
            ann.asks("Username:")
            seen.log_in("ann")
            ann.answer("Choose:", "6")
            ann.asks("Slice ID")
            ann.send(ENTER)
            ann.matches(bar)
            ann.send("\x02d")  # Ctrl-B d: detach
            assert ann.ends() == 0
        seen.matches(bar)
        with seen.client(120, 40) as ann:
            ann.matches(bar)
            ann.shows("Esc leaves it running, Ctrl-C stops it.")
            assert seen.size == (120, 40)
            ann.send("\x1b")
            ann.shows("It goes on: deploy of slice 1000.")
            ann.shows("1 operation under way")
            ann.choose("26")
            ann.answer("Come back to:", "")
            ann.matches(bar)
            ann.send("\x02d")
            assert ann.ends() == 0
        (folder / "gate").touch()  # it ends while nobody looks
        seen.shows("Slice deployed successfully")
        with seen.client(80, 24) as ann:
            ann.shows("Slice deployed successfully")
            ann.until(lambda: ann.lines[-1].startswith("ann | VMs 2 of 10 | slice 1000 running"), "the status")
        assert not STRAY.search(seen.past)


def test_a_newcomers_first_lab(tmp_path: Path) -> None:
    """A star of five with one machine on the internet: designed, looked at, deployed, stopped, deleted."""
    (tmp_path / "gate").touch()
    with pane(tmp_path, term="tmux-256color") as seen:
        seen.log_in("ann")
        seen.shows("9 makes a whole lab, 28 explains the keys.")
        seen.choose("lab")
        for prompt, words in (("Shape:", "star"), ("Machines (", "5"), ("Flavor:", ""), ("Who reaches", "vm4")):
            seen.answer(prompt, words)
        seen.asks("Make these 5 cirros machines and 4 links (Y/n):")
        assert seen.text.count("internet\n") + seen.text.count("  internet ") > 0 and "vm5" in seen.text
        seen.keys("Enter")
        seen.answer("Slice name:", "")
        seen.shows("Slice created! ID: 1000, 5 VMs and 4 links.")
        seen.choose("draw")
        seen.answer("Slice ID [1000]:", "")
        seen.shows("link 4  vm1 eth4 ── vm5 eth1")
        for entry, done in (("6", "Slice deployed successfully"), ("stop sl", "11 starts it again")):
            seen.choose(entry)
            seen.answer("Slice ID [1000]:", "")
            seen.shows(done)
        seen.choose("7")
        seen.answer("Slice ID [1000]:", "")
        seen.answer("Delete slice 1000", "y")
        seen.shows("Slice deleted")
        seen.until(lambda: seen.lines[-1].startswith("ann | VMs 0 of 10 | workers 3 up"), "nothing used any more")
        seen.is_tidy(STATUS)
