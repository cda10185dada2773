"""The thread that saves the state every `interval` seconds, and has somebody look at the hosts as often."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

LONGEST_BACKOFF = 20  # failed saves are tried again after 1, 2, 4 … up to this many intervals
STOP_WAIT_S = 5.0

Watch = Callable[[threading.Event], None]
"""One look at all hosts, and what follows from it. It ends soon after the event is set."""


class Saveable(Protocol):
    """What the monitor needs of the database."""

    def save(self) -> None:
        """Write what is not yet written."""


class HealthMonitor:
    """Saves the database every `interval` seconds and once more when it is stopped.

    Args:
        db: what is saved.
        interval: pause between two saves, and between two looks, in seconds.
        watch: called once an interval in a thread of its own, so that a slow host does not hold up a save.

    Attributes:
        running: whether the thread is meant to run.
        thread: the thread that saves, or None before the first start.
        last_error: why the last save failed, or None; for the status screen.
    """

    def __init__(self, db: Saveable, interval: float = 15, *, watch: Watch | None = None) -> None:
        self.db = db
        self.interval = interval
        self.watch = watch
        self.running = False
        self.thread: threading.Thread | None = None
        self.last_error: Exception | None = None
        self._failures = 0
        self._wake = threading.Event()
        self._watching: threading.Thread | None = None

    def start(self, *, watch_at_once: bool = False) -> None:
        """Start the thread; nothing happens when it already runs.

        Args:
            watch_at_once: look at the hosts now, not first after an interval.
        """
        if self.thread is not None and self.thread.is_alive():
            return
        self.running = True
        self._wake = threading.Event()  # one per run: a thread that outlived a stop keeps its own, set one
        self.thread = threading.Thread(
            target=self._monitor_loop, args=(self._wake,), name="health-monitor", daemon=True
        )
        self.thread.start()
        if self.watch is not None:
            arguments = (self.watch, self._wake, watch_at_once)
            self._watching = threading.Thread(target=self._watch_loop, args=arguments, name="health-watch", daemon=True)
            self._watching.start()
        log.info("Health monitor started (%gs interval)", self.interval)

    def stop(self) -> None:
        """End both threads at once, wait for a save in progress up to 5 s, and save a last time."""
        was_started = self.thread is not None
        self.running = False
        self._wake.set()
        for thread in (self._watching, self.thread):
            if thread is not None and thread is not threading.current_thread():
                thread.join(STOP_WAIT_S)
        if was_started:
            self._save()
            log.info("Health monitor stopped")
            self.thread = self._watching = None

    def _monitor_loop(self, wake: threading.Event) -> None:
        while not wake.wait(self.pause_s()):
            self._save()

    def _watch_loop(self, watch: Watch, wake: threading.Event, at_once: bool) -> None:
        pause_s = 0.0 if at_once else self.interval
        while not wake.wait(pause_s):
            pause_s = self.interval
            try:
                watch(wake)
            except Exception:
                # Whatever it was, the next look may tell more.
                log.exception("the look at the hosts failed")

    def pause_s(self) -> float:
        """Seconds until the next save: the interval, doubled with each failure in a row."""
        return self.interval * min(1 << self._failures, LONGEST_BACKOFF)

    def _save(self) -> None:
        try:
            self.db.save()
        except Exception as error:
            # Whatever it was, the thread that would try again must live.
            self._failures = min(self._failures + 1, 16)
            self.last_error = error
            log.error("Monitor error: %s", error)
        else:
            if self.last_error is not None:
                log.info("The state is saved again")
            self._failures = 0
            self.last_error = None
