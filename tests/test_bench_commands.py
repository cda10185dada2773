"""The bench of commands measures what it says; how long anything takes is no test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import commands


def test_each_command_that_is_measured_does_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "CLASS", 20)
    dry = [row for row in commands.ROWS if "--dry-run" in row[0]]
    assert {row[0] for row in dry} == set(commands.STATUSES)
    few = [(words, vms if vms == commands.SMALL else 20, target) for words, vms, target in [*commands.ROWS[1:5], *dry]]
    assert any(words.endswith(commands.ON_TERMINAL) for words, _, _ in few)
    monkeypatch.setattr(commands, "ROWS", few)
    found = commands.measure(tmp_path, 1)
    assert [one.command for one in found] == [words for words, _, _ in few]
    assert all(one.cpu_s[0] > 0 and one.wall_s[0] > 0 for one in found)


def test_a_target_that_is_missed_is_said() -> None:
    slow = commands.Measured("slice list", 1000, 0.3, (0.2, 0.4, 0.5), (0.1, 0.1, 0.1))
    quick = commands.Measured("status", 10, 1.0, (0.2,), (0.1,))
    lines = commands.table([slow, quick]).splitlines()
    assert "| 1,000 | 0.40 s (0.20) | 0.10 s | ≤ 0.3 s | **no** |" in lines[2] and lines[3].endswith("| yes |")
