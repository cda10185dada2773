"""A wish to stop an operation that is under way: a person's, or that of a process which ends."""

from __future__ import annotations

import threading


class Interruption(threading.Event):
    """Set = begin no new step. What becomes of the steps already done is a second, later answer.

    The operation that finds itself stopped calls `keep()`, which waits until the person has chosen;
    whoever talks to the person calls `set()` and then `choose()`.

    Attributes:
        leaves: whether nobody chooses, since the process ends: what is not done stays in the records as it is,
            unfinished, for whoever comes next.
    """

    leaves = False

    def __init__(self) -> None:
        super().__init__()
        self._chosen = threading.Event()
        self._keep = False

    def choose(self, *, keep: bool) -> None:
        """Say what becomes of what was done: kept for a later attempt, or rolled back."""
        self._keep = keep
        self._chosen.set()

    def keep(self) -> bool:
        """Wait for the choice; True = keep."""
        self._chosen.wait()
        return self._keep


class Departure(Interruption):
    """The end of the process that is at work. Nothing is given up by it, and nothing taken back."""

    leaves = True

    def __init__(self) -> None:
        super().__init__()
        self.choose(keep=True)
