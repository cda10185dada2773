"""Operations that take time: run beside the screen, shown as they go, stopped by choice.

Ctrl-C never touches a host. The first one means that no new step begins, and the person chooses what becomes
of what was done; the second one leaves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.ask import Back, Leave
from cli.progress import ProgressDisplay
from cli.screen import FAINT, GOOD
from cloudrepo.interruption import Interruption

if TYPE_CHECKING:
    from cli.screens.context import Context

POLL_S = 0.1
ANSWERS = ("keep", "rollback")
CALLS = {"resume": "resume", "rollback": "rollback", "apply": "apply_plan"}  # else VERB_slice

Work = Callable[..., tuple[bool, Any]]


class LeftRunning(Exception):
    """The second Ctrl-C: the person leaves; the hosts finish the step they are at and begin no other."""


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


def run_operation(context: Context, verb: str, slice_id: int, **options: Any) -> bool:
    """Do an operation on a slice with a progress display, and say what became of it.

    Args:
        context: the screen's surroundings.
        verb: `deploy`, `delete`, `start`, `stop`, `resume`, `rollback` or `apply`.
        slice_id: which slice.
        options: further ones of the façade's call.

    Returns:
        Whether it succeeded.

    Raises:
        LeftRunning: on a second Ctrl-C.
    """
    result = perform(context, verb, slice_id, **options)
    show_result(context, result)
    return result.ok


def perform(context: Context, verb: str, slice_id: int, **options: Any) -> Result:
    """Do it with a progress display; see `run_operation`."""
    call: Work = getattr(context.api, CALLS.get(verb) or f"{verb}_slice")
    stop = Interruption()
    with ProgressDisplay(context.screen) as display:
        work = _Work(lambda: call(context.username, slice_id, progress=display, stop=stop, **options))
        try:
            ok, answer = _wait(context, work, stop, display, may_keep=verb == "deploy")
        finally:
            display.pause()
    kept = stop.keep() if stop.is_set() and not ok else None
    return Result(ok, answer, display.seconds, kept, was_stopped=stop.is_set())


def show_result(context: Context, result: Result) -> None:
    """Say what became of an operation."""
    if result.ok:
        if result.was_stopped:
            context.screen.line("It was done before it could be stopped.")
        context.screen.line((str(result.answer), GOOD), (f"  {result.seconds:.1f} s", FAINT))
        note = getattr(result.answer, "hint", "")  # what is good to know of a success, such as emulation
        if note:
            context.screen.line((note, FAINT))
    elif result.kept is not None:
        kept = "what was made is kept" if result.kept else "what was made was rolled back"
        context.screen.line(f"Stopped; {kept}. ", (str(result.answer), FAINT))
    else:
        context.screen.complain(result.answer)


class _Work:
    """A call in a thread of its own. A daemon, so that leaving does not wait for it."""

    def __init__(self, call: Callable[[], tuple[bool, Any]]) -> None:
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


def _wait(
    context: Context, work: _Work, stop: Interruption, display: ProgressDisplay, *, may_keep: bool
) -> tuple[bool, Any]:
    """Wait for the end of the work; turn Ctrl-C into the choice."""
    while True:
        try:
            answer = work.answer(POLL_S)
            if answer is not None:
                return answer
        except KeyboardInterrupt:
            if work.is_over:
                continue  # there is nothing left to stop
            if stop.is_set():
                raise LeftRunning from None
            stop.set()
            display.pause()
            _choose(context, stop, may_keep)


def _choose(context: Context, stop: Interruption, may_keep: bool) -> None:
    """Ask what becomes of what was done; a second Ctrl-C here leaves."""
    context.screen.line("Stopping: the steps under way end, no new one begins. Ctrl-C again leaves at once.")
    if not may_keep:
        stop.choose(keep=True)
        return
    try:
        keep = context.ask.choice("1 keep what was made for a later deploy, 2 roll it back", ANSWERS) == 0
    except (Back, Leave):
        raise LeftRunning from None
    stop.choose(keep=keep)
