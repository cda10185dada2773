"""Numbers on the command line: whoever types a wrong one is told what was found, and what is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cli import numbers
from test_cli_recovery import run
from test_cli_schemas import every_command


def numeric() -> Iterator[tuple[str, str, Any]]:
    """Every option that is a number: its command, itself, its type."""
    for name, command in every_command():
        for one in command.params:
            if getattr(one.type, "_number_class", None) in (int, float) and not one.hidden:
                yield name, one.opts[0], one.type


NUMERIC = list(numeric())


def bad(kind: Any) -> Iterator[str]:
    """Words that are no such number."""
    yield from ("x", "", "nan", "1e")
    if kind._number_class is int:
        yield "1.5"
    for bound, step in ((getattr(kind, "min", None), -1), (getattr(kind, "max", None), 1)):
        if bound is not None:
            yield f"{bound + step:g}"


@pytest.mark.parametrize(("command", "option", "kind"), NUMERIC, ids=[" ".join(one[:2]) for one in NUMERIC])
def test_a_wrong_number_is_told_what_is_needed(
    command: str, option: str, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in bad(kind):
        assert run(*command.split(), option, word, *(() if command.startswith("lab") else ("--json",))) == 64
        shown = capsys.readouterr()
        said = " ".join((shown.out + shown.err).replace("│", " ").split())
        assert f"is needed; found {word!r}" in said and option in said, said
        assert "range" not in said and "valid" not in said.replace("Invalid value", ""), said
        whole = "a whole number" if kind._number_class is int else "a number"
        assert whole in said
        for bound in (getattr(kind, "min", None), getattr(kind, "max", None)):
            assert bound is None or f"{bound:g}" in said


def test_all_numbers_are_found() -> None:
    found = {" ".join(one[:2]) for one in NUMERIC}
    assert found >= {"events -n", "log -n", "exec --timeout", "doctor access --port", "vm add --interfaces"}
    assert "lab up --workers" in found


@pytest.mark.parametrize(
    ("word", "bounds", "found"),
    [("7", {"whole": True}, 7), ("0.5", {"whole": False, "least": 0.5}, 0.5), (" 3 ", {"whole": True, "most": 3}, 3)],
)
def test_a_right_one_is_taken(word: str, bounds: Any, found: float) -> None:
    assert numbers.read(word, **bounds) == found


def test_a_script_reads_it_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exec", "web", "--timeout", "0", "--json", "--", "true") == 64
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert "a number from 0.1 to 86400 is needed; found '0'" in error["message"] and "--timeout" in error["message"]
