from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudrepo import logs

CHECKOUT = Path(__file__).resolve().parent.parent
FULL, LINES = 300, 300  # bytes; of each process
WRITER = f"""
import logging, sys
from cloudrepo import logs
logs.MAX_BYTES, logs.GENERATIONS = {FULL}, 1000
logs.configure(sys.argv[1])
for number in range({LINES}):
    logging.getLogger("x").info("%s %d", sys.argv[2], number)
"""


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def test_the_log_is_beside_the_state_and_private(tmp_path: Path) -> None:
    path = logs.configure(tmp_path / "database.yaml")
    logging.getLogger("x").info("Worker list loaded")
    assert path == tmp_path / "cloudrepo.log"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().endswith("INFO x: Worker list loaded\n")


def test_configuring_again_does_not_write_twice(tmp_path: Path) -> None:
    logs.configure(tmp_path / "database.yaml")
    path = logs.configure(tmp_path / "database.yaml")
    logging.getLogger("x").warning("once")
    assert path.read_text().count("once") == 1


def test_a_message_cannot_forge_a_line(tmp_path: Path) -> None:
    path = logs.configure(tmp_path / "database.yaml")
    logging.getLogger("x").info("name %s", "a\n2026-01-01 INFO forged\x1b[31m")
    lines = path.read_text().splitlines()
    assert len([line for line in lines if not line.startswith("    ")]) == 1
    assert "\x1b" not in path.read_text()


def test_it_rotates_and_stays_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 300)
    path = logs.configure(tmp_path / "database.yaml")
    for number in range(60):
        logging.getLogger("x").info("line %d", number)
    files = sorted(tmp_path.glob("cloudrepo.log*"))
    assert len(files) == logs.GENERATIONS + 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert "line 59" in path.read_text()


def test_a_file_rotated_by_another_process_is_left(tmp_path: Path) -> None:
    path = logs.configure(tmp_path / "database.yaml")
    path.rename(tmp_path / "cloudrepo.log.1")
    logging.getLogger("x").info("after")
    assert "after" in path.read_text()


def test_of_several_processes_one_rotates_and_no_line_is_lost(tmp_path: Path) -> None:
    """They fill some hundred files, and all are kept."""
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "database.yaml"), name], cwd=CHECKOUT)
        for name in "abcd"
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    files = sorted(tmp_path.glob("cloudrepo.log*"))
    assert len(files) > 100
    assert all(file.stat().st_size >= FULL for file in files if file.name != "cloudrepo.log")
    lines = [line.rpartition("x: ")[2] for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abcd" for number in range(LINES))


def test_no_log_is_a_warning_not_an_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cloudrepo.log").mkdir()
    logs.configure(tmp_path / "database.yaml")
    assert "no log is written" in caplog.text
