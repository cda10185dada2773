"""Asking many hosts at once, with patience for each, and leaving at once when asked to."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
LOOK_S = 0.05  # how often a wish to stop is looked at


class Crew(Generic[T]):
    """Does one piece of work for each name; threads are daemons, so that one that hangs keeps nobody from leaving.

    Args:
        work: by name; what a piece raises is its answer.
        at_once: how many at a time.
        patience_s: longest time for one piece. It is then given up, and another thread takes its place.
    """

    def __init__(self, work: Mapping[str, Callable[[], T]], *, at_once: int, patience_s: float) -> None:
        self.work = work
        self.at_once = at_once
        self.patience_s = patience_s
        self.answers: dict[str, T | Exception] = {}
        self.late: set[str] = set()
        self._todo = deque(work)
        self._began: dict[str, float] = {}
        self._news = threading.Condition()

    def run(self, stop: threading.Event) -> dict[str, T | Exception]:
        """The answers by name; those given up, and all that are missing when it is stopped, are not there."""
        for _ in range(min(self.at_once, len(self.work))):
            self._start()
        with self._news:
            while len(self.answers) + len(self.late) < len(self.work) and not stop.is_set():
                self._news.wait(LOOK_S)
                self._give_up()
            return dict(self.answers)

    def _start(self) -> None:
        threading.Thread(target=self._toil, name="crew", daemon=True).start()

    def _toil(self) -> None:
        while True:
            with self._news:
                if not self._todo:
                    return
                name = self._todo.popleft()
                self._began[name] = time.monotonic()
            try:
                answer: T | Exception = self.work[name]()
            except Exception as error:
                answer = error
            with self._news:
                if name in self.late:
                    return  # another one works in this one's place
                self.answers[name] = answer
                self._news.notify_all()

    def _give_up(self) -> None:
        now = time.monotonic()
        for name, began in self._began.items():
            if name not in self.answers and name not in self.late and now - began > self.patience_s:
                self.late.add(name)
                if self._todo:
                    self._start()
