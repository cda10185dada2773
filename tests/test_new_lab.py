"""The guided lab: which answers mean what. Its questions are walked through by tests/test_menu_walk.py."""

from __future__ import annotations

import pytest

from cli.screens.labs import online_of


@pytest.mark.parametrize(
    ("typed", "places"),
    [
        ("1", set()),
        ("nobody", set()),
        ("2", {0}),
        ("first", {0}),
        ("3", {0, 1, 2, 3, 4}),
        ("ALL", {0, 1, 2, 3, 4}),
        ("vm3", {2}),
        ("VM5, vm2", {1, 4}),
        ("vm1 vm1", {0}),
        ("vm6", None),
        ("vm2 or vm3", None),
        ("4", None),
        ("", None),
        (",", None),
    ],
)
def test_who_reaches_the_internet(typed: str, places: set[int] | None) -> None:
    assert online_of(5, typed) == places
