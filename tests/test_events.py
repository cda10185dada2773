"""The event log: appended by many, put aside when it is large, followed over that."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cloudrepo.events import Event, EventLog

CHECKOUT = Path(__file__).resolve().parent.parent
WRITER = """
import sys
from pathlib import Path
from cloudrepo.events import EventLog
events = EventLog(Path(sys.argv[1]), max_bytes=20_000, keep=1000)
for number in range(40):
    events.record("test", who=sys.argv[2], about=f"vm {number}", words="x" * 50)
"""


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


def test_an_event_is_one_line_for_its_owner_alone(events: EventLog) -> None:
    events.record("vm.died", who="monitor", about="vm 1001", outcome="killed", words="línea\nsegunda")
    assert events.path.read_text().count("\n") == 1
    assert stat.S_IMODE(events.path.stat().st_mode) == 0o600
    [event] = events.read()
    assert (event.who, event.what, event.about, event.outcome) == ("monitor", "vm.died", "vm 1001", "killed")
    assert event.details == {"words": "línea\nsegunda"}
    assert json.dumps(event.to_json()).startswith('{"schema_version": 1, "time": "20')


def test_what_people_typed_takes_no_more_than_a_part_of_a_line(events: EventLog) -> None:
    deep: object = "x"
    for _ in range(50):
        deep = [deep]
    events.record(
        "create_slice", who="w" * 10**6, about="a" * 10**6, slice_name="n" * 10**6, wide=list(range(10**5)),
        keys={"k" * 10**5 + str(n): "v" * 10**5 for n in range(100)}, deep=deep, number=10**5000, fine=[1, "two", None],
    )  # fmt: skip
    line = events.path.read_text()
    assert len(line) < 40_000 and line.count("\n") == 1
    [event] = events.read()
    assert event.details["fine"] == [1, "two", None] and event.details["slice_name"] == "n" * 500 + "…"
    assert event.details["wide"][-1] == "99980 more" and event.details["number"] == "a number of 16610 bits"
    assert len(event.who) == len(event.about) == 501


def test_a_line_that_a_crash_cut_spoils_no_other(events: EventLog) -> None:
    events.record("a", who="ann", about="vm 1")
    with events.path.open("a") as file:
        file.write('{"time": "2026')
    events.record("b", who="ann", about="vm 1")
    assert [event.what for event in events.read()] == ["a", "b"]


def test_thirty_processes_lose_no_line_and_mix_none_over_many_files(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    command = (sys.executable, "-c", WRITER, str(path))
    started = [subprocess.Popen((*command, f"p{number}"), cwd=CHECKOUT) for number in range(30)]
    assert [process.wait(60) for process in started] == [0] * 30
    events = EventLog(path)
    assert len(events.put_aside()) >= 5
    found: dict[str, list[str]] = {}
    for event in events.read():
        found.setdefault(event.who, []).append(event.about)
    assert found == {f"p{number}": [f"vm {each}" for each in range(40)] for number in range(30)}


def test_a_line_that_waited_while_its_file_was_put_aside_goes_into_the_new_one(events: EventLog) -> None:
    """Else who follows the log, and has gone on to the new file, would miss it."""
    events.record("first", who="ann", about="vm 1")
    aside = events.path.with_name("events-20261124T000000.000000Z.jsonl")
    with events.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(target=lambda: events.record("second", who="ann", about="vm 1"))
        writer.start()
        until = time.monotonic() + 30
        while str(events.path.stat().st_ino) not in _waited_for() and time.monotonic() < until:
            time.sleep(0.001)
        os.rename(events.path, aside)
    writer.join(30)
    assert "second" not in aside.read_text()
    assert [event.what for event in events.read()] == ["first", "second"]


def _waited_for() -> str:
    """The locks that somebody waits for (proc(5), /proc/locks)."""
    return "".join(line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "->" in line)


def test_of_the_files_put_aside_the_newest_are_kept(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl", max_bytes=300, keep=3)
    for number in range(40):
        events.record("test", who="ann", about=f"vm {number}")
    assert len(events.put_aside()) == 3
    kept = [event.about for event in events.read()]
    assert kept == [f"vm {number}" for number in range(40 - len(kept), 40)]
    assert 3 <= len(kept) < 20


def test_a_clock_that_goes_back_does_not_reorder_the_files(events: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    later = events.path.with_name("events-20991231T000000.000000Z.jsonl")
    events.record("old", who="ann", about="vm 1")
    os.rename(events.path, later)
    events.max_bytes = 1
    for what in ("new", "newer", "newest"):
        events.record(what, who="ann", about="vm 1")
    assert [event.what for event in events.read()] == ["old", "new", "newer", "newest"]


def test_following_misses_nothing_over_rotations(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl", max_bytes=1000, keep=1000)
    events.record("before", who="ann", about="vm 0")
    found: list[Event] = []
    is_over, began = threading.Event(), threading.Event()

    def over() -> bool:
        began.set()
        return is_over.is_set()

    def follow() -> None:
        for event in events.follow(0, is_over=over, poll_s=0.001):
            found.append(event)
            if len(found) == 200:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    assert began.wait(30)
    for number in range(200):
        events.record("test", who="ann", about=f"vm {number}")
    thread.join(30)
    is_over.set()
    assert len(events.put_aside()) > 5
    assert [event.about for event in found] == [f"vm {number}" for number in range(200)]


class Following:
    """A log that is followed in a thread of its own, from its end on."""

    def __init__(self, events: EventLog) -> None:
        self.found: list[str] = []
        self._is_over, began = threading.Event(), threading.Event()

        def over() -> bool:
            began.set()
            return self._is_over.is_set()

        def follow() -> None:
            for event in events.follow(0, is_over=over, poll_s=0.001):
                self.found.append(event.what)

        self._thread = threading.Thread(target=follow)
        self._thread.start()
        assert began.wait(30)

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + 30
        while len(self.found) < count and time.monotonic() < until:
            time.sleep(0.001)

    def end(self) -> list[str]:
        time.sleep(0.05)  # what must not come would be here by now
        self._is_over.set()
        self._thread.join(30)
        return self.found


def test_following_goes_on_in_a_log_that_was_emptied(events: EventLog) -> None:
    for number in range(5):
        events.record(f"before{number}", who="ann", about="vm 1")
    following = Following(events)
    os.truncate(events.path, 0)
    time.sleep(0.05)
    events.record("after", who="ann", about="vm 1")
    following.wait_for(1)
    assert following.end() == ["after"]


def test_following_tells_nothing_twice_when_the_log_was_removed(events: EventLog) -> None:
    """What was put aside before stands there still, and is older."""
    events.record("old", who="ann", about="vm 1")
    os.rename(events.path, events.path.with_name("events-20261124T000000.000000Z.jsonl"))
    events.record("before", who="ann", about="vm 1")
    following = Following(events)
    events.path.unlink()
    time.sleep(0.05)
    events.record("after", who="ann", about="vm 1")
    following.wait_for(1)
    events.max_bytes = 1
    events.record("again", who="ann", about="vm 1")
    events.record("and again", who="ann", about="vm 1")
    following.wait_for(3)
    assert following.end() == ["after", "again", "and again"]


def test_the_last_ones_about_an_object(events: EventLog) -> None:
    events.record("deploy_slice", who="ann", about="slice 1000")
    events.record("vm.died", who="monitor", about="vm 1001", slice=1000)
    events.record("vm.died", who="monitor", about="vm 1000", slice=999)
    events.record("worker.down", who="monitor", about="worker 10.0.10.1")

    def found(about: str, count: int = 10) -> list[str]:
        return [event.about for event in events.last(count, about=about)]

    assert found("slice 1000") == ["slice 1000", "vm 1001"]
    assert found("vm 1000") == ["vm 1000"]
    assert found("1000") == ["slice 1000", "vm 1001", "vm 1000"]
    assert found("10.0.10.1") == ["worker 10.0.10.1"]
    assert found("ann") == ["slice 1000"]
    assert found("100") == []
    assert found("", 1) == ["worker 10.0.10.1"]


def test_a_log_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    EventLog(tmp_path / "missing" / "events.jsonl").record("a", who="ann", about="vm 1")
    assert "event not written to" in caplog.text
