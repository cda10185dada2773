"""`./cloud test`: which words pytest is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli import testing


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What was run; nothing is."""
    found: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> int:
        found.append(words[3:])
        return 0

    monkeypatch.setattr(testing, "_run", run)
    monkeypatch.setattr(testing, "_lab_is_possible", lambda *, assume_yes: True)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(4))
    return found


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), ["-n", "5"]),
        (("--quick",), ["-m", "not lab", "-n", "5"]),
        (("-y",), ["-n", "5"]),
        (("tests/test_x.py", "-k", "one"), ["tests/test_x.py", "-k", "one"]),
        (("--quick", "-x"), ["-m", "not lab", "-x"]),
    ],
)
def test_all_tests_run_side_by_side_and_words_of_pytests_own_are_left_to_it(
    given: list[Sequence[str]], words: tuple[str, ...], wanted: list[str]
) -> None:
    assert testing.run_tests(words) == 0
    assert [list(each) for each in given] == [wanted]


def test_on_many_cores_there_is_an_end(given: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(64))
    assert testing.run_tests(["--quick"]) == 0
    assert [list(each)[-1] for each in given] == [str(testing.MOST_PROCESSES)]


@pytest.mark.parametrize(("failed", "status", "runs"), [(0, 1, 0), (1, 0, 1), (5, 0, 1), (6, 1, 0)])
def test_a_few_that_failed_are_run_once_more_by_one_process(
    given: list[Sequence[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    failed: int,
    status: int,
    runs: int,
) -> None:
    monkeypatch.setattr(testing, "CHECKOUT", tmp_path)
    names = [f"tests/test_x.py::test_{number}" for number in range(failed)]
    if failed:
        path = tmp_path / ".pytest_cache/v/cache/lastfailed"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(dict.fromkeys(names, True)))
    assert testing.run_tests(["--again"]) == status
    assert [list(each) for each in given] == [list(testing.AGAIN)] * runs
    assert capsys.readouterr().out.splitlines()[1:] == names * runs
