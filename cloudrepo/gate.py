"""A gate that hosts stand at until the orchestrator opens it, or closes it for good."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gate:
    """Decided once: opened, or closed with a reason. Safe to use from several threads.

    Typical use::

        vlans = Gate()
        executor.run_plan(worker, plan, gates={"vlans": vlans})   # waits there …
        vlans.open()                                              # … until another thread says so
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decided = threading.Event()
        self._reason = ""
        self._waiting: list[Callable[[Gate], None]] = []

    def open(self) -> None:
        """Let everyone pass; without effect when it was decided before."""
        self._decide("")

    def close(self, reason: str) -> None:
        """Let nobody pass: the plans that stand here end; without effect when it was decided before."""
        self._decide(reason or "closed")

    @property
    def is_open(self) -> bool:
        """Whether it was opened."""
        return self._decided.is_set() and not self._reason

    @property
    def reason(self) -> str:
        """Why it was closed; empty while undecided or open."""
        return self._reason

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is decided; True when it is open."""
        self._decided.wait(timeout_s)
        return self.is_open

    def when_decided(self, call: Callable[[Gate], None]) -> None:
        """Call once it is decided: at once if it is, else from the thread that decides."""
        with self._lock:
            if not self._decided.is_set():
                self._waiting.append(call)
                return
        call(self)

    def _decide(self, reason: str) -> None:
        with self._lock:
            if self._decided.is_set():
                return
            self._reason = reason
            self._decided.set()
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            call(self)
