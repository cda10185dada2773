"""The line at the foot of the menu: each trouble by what makes it, and what is left out where it does not fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.status_bar import Status
from cloudrepo.observations import SUSPECT, UP, Observations, Snapshot, WorkerView, this_boot
from control import processes
from database import Database
from menu_terminal import CHOOSE, Terminal, menu

WHOLE = Status(
    user="ann",
    role="admin",
    used=3,
    limit=10,
    slice="1000 running",
    up=1,
    suspect=1,
    down=1,
    under_way=2,
    wrong=("DEGRADED: the state cannot be saved", "1 operation unfinished: see 13"),
)


REST = "VMs 3 of 10 | slice 1000 running | workers 1 up, 1 suspect, 1 down | 2 operations under way"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (200, f"ann (admin) | {REST} | DEGRADED: the state cannot be saved; 1 operation unfinished: see 13"),
        (170, f"ann (admin) | {REST} | DEGRADED: the state cannot be saved (and 1 more)"),
        (155, f"ann | {REST} | DEGRADED: the state cannot be saved (and 1 more)"),
        (120, "ann | VMs 3 of 10 | slice 1000 running | 2 operations under way"
              " | DEGRADED: the state cannot be saved (and 1 more)"),
        (80, "ann | 2 operations under way | DEGRADED: the state cannot be saved (and 1 more)"),
        (60, "DEGRADED: the state cannot be saved (and 1 more)"),
        (20, "DEGRADED: the state "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_left_out_last(width: int, line: str) -> None:
    assert WHOLE.line(width) == line


def test_what_is_not_there_is_not_said() -> None:
    assert Status(user="ann", role="student", used=0, limit=10, up=3).line(80) == "ann | VMs 0 of 10 | workers 3 up"
    assert Status(user="ann", role="student").line(80) == "ann | workers 0 up"


# ── in the menu, without a key ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("status")
    for name in ("gate", "design"):
        (made / name).touch()
    return made


@pytest.fixture(scope="module")
def terminal(folder: Path) -> Any:
    """A menu with slice 1000 at hand, wide enough for the whole line."""
    with menu(folder, columns=150) as made:
        made.log_in("ann")
        made.choose("10")
        made.answer("Slice ID [1000]:", "")
        made.asks(CHOOSE)
        yield made


def seen(folder: Path, ago_s: float = 0.0, **options: Any) -> None:
    """A look at the hosts that some monitor took."""
    at = "2026-01-01T00:00:00+00:00"
    snapshot = Snapshot(taken=time.monotonic() - ago_s, taken_at=at, boot=this_boot(), interval_s=60.0)
    Observations(folder / ".cloudrepo").write(replace(snapshot, **options))


def at_it(folder: Path, process: str) -> None:
    """Somebody deploys slice 1000, or did."""
    with Database(folder / "database.yaml").transaction() as data:
        data["slices"]["1000"]["operation"] = {
            "number": 9, "kind": "deploy", "who": "ann", "began": "2026-01-01T00:00:00Z", "process": process,
            "back": "design",
        }  # fmt: skip
        data["slices"]["1000"]["status"] = "deploying"


def settle(folder: Path) -> None:
    """Nothing is wrong any more."""
    (folder / "down").write_text("")
    (folder / ".cloudrepo/observed.json").unlink(missing_ok=True)
    with Database(folder / "database.yaml").transaction() as data:
        data["slices"]["1000"].pop("operation", None)
        data["slices"]["1000"]["status"] = "design"
        data["users"]["ann"]["quota_vms"] = 10


def fewer(folder: Path) -> None:
    with Database(folder / "database.yaml").transaction() as data:
        data["users"]["ann"]["quota_vms"] = 2


def doubtful(folder: Path) -> None:
    workers = {f"10.0.10.{number}": WorkerView(state=UP) for number in (1, 2, 3)}
    workers["10.0.10.2"] = replace(workers["10.0.10.2"], state=SUSPECT, reason="no answer once")
    seen(folder, workers=workers)


def down(*workers: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "down").write_text(" ".join(workers))


USUAL = "VMs 2 of 10 | slice 1000 design"
CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _folder: None, f"{USUAL} | workers 3 up"),
    "quota": (fewer, "VMs 2 of 2 | slice 1000 design | workers 3 up"),
    "suspect": (doubtful, f"{USUAL} | workers 2 up, 1 suspect"),
    "down": (down("10.0.10.1", "10.0.10.2"), f"{USUAL} | workers 1 up, 2 down"),
    "node": (down("10.0.10.3"), f"{USUAL} | workers 2 up, 1 down | DEGRADED: the network node is down"),
    "save": (
        lambda folder: seen(folder, save_error="no space left"),
        f"{USUAL} | workers 3 up | DEGRADED: the state cannot be saved",
    ),
    "stale": (
        lambda folder: seen(folder, ago_s=900),
        f"{USUAL} | workers 3 up | DEGRADED: nobody looked at the hosts for long",
    ),
    "under way": (
        lambda folder: at_it(folder, processes.this_process()),
        "VMs 2 of 10 | slice 1000 deploying | workers 3 up | 1 operation under way",
    ),
    "unfinished": (
        lambda folder: at_it(folder, ""),
        "VMs 2 of 10 | slice 1000 deploying | workers 3 up | 1 operation unfinished: see 13",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_trouble_shows_up_by_itself_and_those_before_are_gone(terminal: Terminal, folder: Path, case: str) -> None:
    change, words = CASES[case]
    settle(folder)
    change(folder)
    terminal.until(lambda: terminal.lines[-1] == f"ann | {words}", words)


def test_a_state_that_cannot_be_read_any_more_is_said_and_the_menu_goes_on(tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    with menu(tmp_path, columns=150) as terminal:
        terminal.log_in("ann")
        journal = tmp_path / "database.yaml.journal"
        whole = journal.read_bytes()
        journal.write_bytes(whole + b'{"seq": 99999, "nonsense": true}\n')
        os.utime(journal)
        terminal.shows("DEGRADED: ")
        terminal.choose("5")
        terminal.asks(CHOOSE)
        journal.write_bytes(whole)
