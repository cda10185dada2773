"""Which entry of the menu is meant by what is typed, and what is said where none is."""

from __future__ import annotations

import pytest

from cli.entries import entries_for, find, why_none

ENTRIES = entries_for("student")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("9", "New lab"),
        ("new lab", "New lab"),
        ("NEW", "New lab"),
        ("lab", "New lab"),  # a word that no other entry has
        ("resume", "Resume or roll back"),
        ("roll", "Resume or roll back"),
        ("stop  vm", "Stop VM"),
        ("link", "Link switches"),  # how one begins counts before a word within others
        ("?", "Help"),
        ("q", "Exit"),
        ("0", "Exit"),
    ],
)
def test_one_is_meant(typed: str, words: str) -> None:
    found = find(ENTRIES, typed)
    assert found is not None and found.words == words and why_none(ENTRIES, typed) == ""


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("stop", "stop may be 12. Stop Slice or 19. Stop VM."),
        ("vm", "vm may be 3. Add VM to Slice, 4. Create Link between VMs, 16. Remove VM or 2 more."),
        ("22", "There is no 22 in the menu."),  # not for students
        ("deploy my lab", "There is no deploy my lab in the menu."),
    ],
)
def test_none_or_several_are_meant(typed: str, why: str) -> None:
    assert find(ENTRIES, typed) is None and why_none(ENTRIES, typed) == why


def test_nothing_is_none() -> None:
    assert find(ENTRIES, "  ") is None
