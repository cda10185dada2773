"""What takes a monitor's time: each in a thread of its own, under a name, ended together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from cloudrepo.errors import CloudError
from cloudrepo.interruption import Departure, Interruption

log = logging.getLogger(__name__)

Job = Callable[[Interruption], None]


class Jobs:
    """Jobs under way, by name. Threads are daemons: they hold up no end.

    Args:
        at_once: how many of those that wait for their turn are at work at a time.

    Attributes:
        stop: given to each job; set when the process ends.
    """

    def __init__(self, *, at_once: int) -> None:
        self.stop = Departure()
        self._turn = threading.BoundedSemaphore(at_once)
        self._news = threading.Condition()
        self._names: dict[str, int | None] = {}

    def busy(self) -> frozenset[int]:
        """Slices that a job is at work on, or waits to be."""
        with self._news:
            return frozenset(slice_id for slice_id in self._names.values() if slice_id is not None)

    def begin(self, name: str, work: Job, *, slice_id: int | None = None, in_turn: bool = False) -> bool:
        """Begin in a thread, unless one of this name is under way or all are to end; whether it was begun.

        Args:
            name: of the job.
            work: what is done.
            slice_id: the slice that it is at work on.
            in_turn: wait until fewer than `at_once` others of this kind are at work.
        """
        with self._news:
            if name in self._names or self.stop.is_set():
                return False
            self._names[name] = slice_id
        arguments = (name, work, in_turn)
        threading.Thread(target=self._run, args=arguments, name=f"monitor {name}", daemon=True).start()
        return True

    def wait_for(self, names: Collection[str], seconds: float) -> None:
        """Until none of these is under way."""
        with self._news:
            self._news.wait_for(lambda: not self._names.keys() & set(names) or self.stop.is_set(), seconds)

    def wait(self, seconds: float) -> bool:
        """Until none is under way; whether that is so."""
        with self._news:
            return self._news.wait_for(lambda: not self._names, seconds)

    def end(self, seconds: float) -> bool:
        """Begin no new step; wait so long for what is under way; whether all has ended."""
        with self._news:
            self.stop.set()
            self._news.notify_all()
        return self.wait(seconds)

    def _run(self, name: str, work: Job, in_turn: bool) -> None:
        try:
            if in_turn:
                with self._turn:
                    if not self.stop.is_set():
                        work(self.stop)
            else:
                work(self.stop)
        except CloudError as error:
            log.error("%s: %s", name, error)
        except Exception:
            log.exception("%s failed", name)
        finally:
            with self._news:
                del self._names[name]
                self._news.notify_all()
