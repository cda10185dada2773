"""Work that takes time: it runs beside the screen, can be left running, and be come back to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloudrepo.interruption import Interruption
from cloudrepo.late_dataclass import dataclass

if TYPE_CHECKING:
    from cli.progress import ProgressDisplay
    from cli.screens.context import Context


class LeftBehind(Exception):
    """The person went back to the menu; the work goes on."""


@dataclass(frozen=True)
class Result:
    """What became of an operation.

    Attributes:
        ok: whether it succeeded.
        answer: the façade's words.
        seconds: how long it took.
        kept: what became of what was made when the person stopped it; None when they did not, or it was done already.
        was_stopped: whether the person asked for its end, be it too late.
    """

    ok: bool
    answer: Any
    seconds: float
    kept: bool | None = None
    was_stopped: bool = False


class Work:
    """A call in a thread of its own. A daemon, so that leaving does not wait for it.

    Args:
        title: what it is, such as `deploy of slice 1000`.
        call: what is done; it answers as the façade does.
        display: what is told of it.
        stop: how it is asked to end; None = it cannot be.
        show: says what became of it.
        slice_id: the slice it is about; None = several or none.
        may_keep: whether a person may choose that what was made is kept.

    Attributes:
        title, display, stop, slice_id, may_keep: as given.
    """

    def __init__(
        self,
        title: str,
        call: Callable[[], tuple[bool, Any]],
        display: ProgressDisplay,
        *,
        show: Callable[[Context, Result], None],
        stop: Interruption | None = None,
        slice_id: int | None = None,
        may_keep: bool = False,
    ) -> None:
        self.title = title
        self.display = display
        self.stop = stop
        self.slice_id = slice_id
        self.may_keep = may_keep
        self._show = show
        self._call = call
        self._answer: tuple[bool, Any] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="operation", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer = self._call()
        except BaseException as error:
            self._error = error
        finally:
            self.display.end()

    @property
    def is_over(self) -> bool:
        """Whether the call has returned or failed."""
        return self._answer is not None or self._error is not None

    def answer(self, timeout_s: float) -> tuple[bool, Any] | None:
        """What the call returned, or None when it has not yet."""
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        return self._answer

    def result(self, answer: tuple[bool, Any]) -> Result:
        """What became of it, given what it returned."""
        ok, payload = answer
        is_stopped = self.stop is not None and self.stop.is_set()
        kept = self.stop.keep() if self.stop is not None and is_stopped and not ok else None
        return Result(ok, payload, self.display.seconds, kept, was_stopped=is_stopped)

    def tell(self, context: Context, result: Result) -> None:
        """Say what became of it."""
        self._show(context, result)
