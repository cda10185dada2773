"""Draws again what moves, when there is news: thirty menus that show bars share the processors of one host."""

from __future__ import annotations

import threading
from collections.abc import Callable

PAUSE_S = 0.08  # between two pictures: a step's line is up within a tenth of a second
LONGEST_S = 0.9  # without news, for seconds that go by


class Redrawing:
    """Calls `draw` in a thread of its own until `stop`.

    Args:
        draw: draws the picture as it is now.
    """

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw = draw
        self._news, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="redrawing", daemon=True)
        self._thread.start()

    def news(self) -> None:
        """There is something new to draw; may be called by any thread."""
        self._news.set()

    def stop(self) -> None:
        """Draw no more; when this returns nothing is being drawn."""
        self._over.set()
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(PAUSE_S):
            self._news.wait(LONGEST_S)
            self._news.clear()
            if not self._over.is_set():
                self._draw()
