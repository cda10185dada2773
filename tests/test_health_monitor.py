from __future__ import annotations

import logging
import threading
import time

import pytest

from health_monitor import HealthMonitor


class FakeDatabase:
    """Counts saves; fails while `error` is set."""

    def __init__(self) -> None:
        self.saves = 0
        self.error: Exception | None = None
        self.saved = threading.Event()

    def save(self) -> None:
        self.saves += 1
        self.saved.set()
        if self.error:
            raise self.error


def test_it_saves_every_interval() -> None:
    db = FakeDatabase()
    monitor = HealthMonitor(db, interval=0.01)
    monitor.start()
    assert monitor.running
    assert monitor.thread is not None
    assert monitor.thread.daemon
    for _ in range(2):
        assert db.saved.wait(30)
        db.saved.clear()
    monitor.stop()


def test_stop_is_prompt_and_saves_a_last_time() -> None:
    db = FakeDatabase()
    monitor = HealthMonitor(db)
    monitor.start()
    thread = monitor.thread
    before = time.monotonic()
    monitor.stop()
    assert time.monotonic() - before < 1
    assert db.saves == 1
    assert thread is not None
    assert not thread.is_alive()
    assert not monitor.running
    monitor.stop()
    assert db.saves == 1  # a second stop has nothing to do


@pytest.mark.parametrize(("interval", "words"), [(15, "15s"), (1, "1s"), (0.5, "0.5s")])
def test_the_log_tells_the_real_interval(interval: float, words: str, caplog: pytest.LogCaptureFixture) -> None:
    monitor = HealthMonitor(FakeDatabase(), interval)
    with caplog.at_level(logging.INFO):
        monitor.start()
    monitor.stop()
    assert f"Health monitor started ({words} interval)" in caplog.messages


def test_a_second_start_changes_nothing_and_a_restart_works() -> None:
    monitor = HealthMonitor(FakeDatabase())
    monitor.start()
    thread = monitor.thread
    monitor.start()
    assert monitor.thread is thread
    monitor.stop()
    monitor.start()
    assert monitor.thread is not None
    assert monitor.thread.is_alive()
    monitor.stop()


def test_failures_are_logged_backed_off_from_and_recovered_from(caplog: pytest.LogCaptureFixture) -> None:
    db = FakeDatabase()
    db.error = OSError("no space")
    monitor = HealthMonitor(db, interval=0.001)
    monitor.start()
    deadline = time.monotonic() + 30
    while monitor.pause_s() < 0.008 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert monitor.pause_s() >= 0.008
    assert "Monitor error: no space" in caplog.messages
    assert str(monitor.last_error) == "no space"
    assert monitor.thread is not None
    assert monitor.thread.is_alive()
    db.error = None
    monitor.stop()
    assert str(monitor.last_error) == "None"
    assert monitor.pause_s() == 0.001


def test_the_pause_has_a_bound() -> None:
    db = FakeDatabase()
    db.error = OSError("no space")
    monitor = HealthMonitor(db)
    for _ in range(100):
        monitor._save()
    assert monitor.pause_s() == 15 * 20


def test_a_look_at_the_hosts_is_had_every_interval_and_holds_up_no_save() -> None:
    db, looked, blocked = FakeDatabase(), threading.Event(), threading.Event()

    def watch(stop: threading.Event) -> None:
        looked.set()
        stop.wait(60)
        blocked.set()

    monitor = HealthMonitor(db, interval=0.01, watch=watch)
    monitor.start()
    assert looked.wait(30)
    for _ in range(3):
        db.saved.clear()
        assert db.saved.wait(30)
    assert not blocked.is_set()
    monitor.stop()
    assert blocked.is_set()  # stopped in the middle of a look, which heard of it


def test_a_look_that_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    looks = threading.Semaphore(0)

    def watch(stop: threading.Event) -> None:
        looks.release()
        raise ValueError("surprise")

    monitor = HealthMonitor(FakeDatabase(), interval=0.01, watch=watch)
    monitor.start()
    assert all(looks.acquire(timeout=30) for _ in range(3))
    monitor.stop()
    assert "the look at the hosts failed" in caplog.text


def test_the_first_look_waits_for_an_interval_unless_it_is_wanted_at_once() -> None:
    looked = threading.Event()
    monitor = HealthMonitor(FakeDatabase(), interval=3600, watch=lambda stop: looked.set())
    monitor.start()
    monitor.stop()
    assert not looked.is_set()
    monitor.start(watch_at_once=True)
    assert looked.wait(30)
    monitor.stop()
