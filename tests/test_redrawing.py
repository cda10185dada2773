"""What moves on a screen is drawn when there is news, and seldom else."""

from __future__ import annotations

import threading
import time

import pytest

from cli import redrawing
from cli.redrawing import Redrawing


class Pictures:
    """Counts what is drawn, and lets a test wait for it."""

    def __init__(self) -> None:
        self.count = 0
        self._more = threading.Condition()

    def draw(self) -> None:
        with self._more:
            self.count += 1
            self._more.notify_all()

    def wait_for(self, count: int) -> bool:
        with self._more:
            return self._more.wait_for(lambda: self.count >= count, timeout=30)


def test_news_is_drawn_and_a_crowd_of_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrawing, "LONGEST_S", 600.0)
    monkeypatch.setattr(redrawing, "PAUSE_S", 0.02)
    pictures = Pictures()
    moving = Redrawing(pictures.draw)
    for expected in (1, 2, 3):
        moving.news()
        assert pictures.wait_for(expected)
    drawn = pictures.count
    time.sleep(0.2)
    assert pictures.count == drawn, "without news nothing is drawn"
    monkeypatch.setattr(redrawing, "PAUSE_S", 1.0)
    for _ in range(1000):
        moving.news()
    moving.stop()
    assert pictures.count <= drawn + 2


def test_without_news_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrawing, "LONGEST_S", 0.02)
    pictures = Pictures()
    moving = Redrawing(pictures.draw)
    assert pictures.wait_for(3)
    moving.stop()


def test_once_it_is_stopped_nothing_is_drawn_any_more() -> None:
    """So that the question under the picture stays where it is."""
    begun, may_go_on, ended = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        may_go_on.wait(30)
        ended.append(True)

    moving = Redrawing(slow)
    moving.news()
    assert begun.wait(30)
    stopping = threading.Thread(target=moving.stop)
    stopping.start()
    stopping.join(0.1)
    assert stopping.is_alive(), "it waits for the picture that is being drawn"
    may_go_on.set()
    stopping.join(30)
    moving.news()
    time.sleep(0.2)
    assert ended == [True] and not stopping.is_alive()
