"""Which letters a terminal is taken to show."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cli.letters import is_ascii_wanted

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, False),  # nobody said anything
        ({"LANG": ""}, False),
        ({"LANG": "C"}, True),
        ({"LANG": "POSIX"}, True),
        ({"LANG": "C.UTF-8"}, False),
        ({"LANG": "de_DE.utf8"}, False),
        ({"LANG": "de_DE@euro"}, False),
        ({"LANG": "de_DE.ISO-8859-15@euro"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),
        ({"LANG": "C.UTF-8", "LC_ALL": "C"}, True),
        ({"LANG": "C", "LC_ALL": "", "LC_CTYPE": ""}, True),
    ],
)
def test_a_locale_says_whether_utf8_is_shown(asked: dict[str, str], wanted: bool) -> None:
    assert is_ascii_wanted(asked) is wanted


def shown(variables: dict[str, str], *, on_terminal: bool) -> bytes:
    """What our streams make of a line with a corner in it."""
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    words = "import main; main._make_streams_safe(); print('\\u250c', flush=True)"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)} | variables
    subprocess.run((sys.executable, "-c", words), env=environment, stdout=theirs, check=True, cwd=CHECKOUT)
    try:
        return os.read(ours, 100).strip()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("variables", "on_terminal", "line"),
    [
        ({"LANG": "C"}, True, b"\\u250c"),
        ({"LC_ALL": "C"}, True, b"\\u250c"),
        ({}, True, "┌".encode()),
        ({"LANG": "C"}, False, "┌".encode()),  # a file is not a terminal: who reads it knows UTF-8
    ],
)
def test_a_terminal_of_the_c_locale_gets_ascii(variables: dict[str, str], on_terminal: bool, line: bytes) -> None:
    assert shown(variables, on_terminal=on_terminal) == line
