"""Operations that take time: run beside the screen, shown as they go, stopped by choice, left running by another.

Ctrl-C never touches a host. The first one means that no new step begins, and the person chooses what becomes
of what was done; the second one leaves. Esc, in the menu, goes back to it and lets the work go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cli.ask import Back, Leave, LeftRunning
from cli.background import LeftBehind, Result, Work
from cli.keys import KeyWatch
from cli.progress import ProgressDisplay
from cli.screen import FAINT, GOOD
from cloudrepo.interruption import Interruption

if TYPE_CHECKING:
    from cli.screens.context import Context

POLL_S = 0.1
SOON_S = 0.5  # what is done by then needs no bar
ANSWERS = ("keep", "rollback")
CALLS = {"resume": "resume", "rollback": "rollback", "apply": "apply_plan"}  # else VERB_slice
STOPPABLE = "Esc leaves it running, Ctrl-C stops it."
UNSTOPPABLE = "Esc leaves it running."

Call = Callable[..., tuple[bool, Any]]


def run_operation(context: Context, verb: str, slice_id: int, **options: Any) -> bool:
    """Do an operation on a slice with a progress display, and say what became of it.

    Args:
        context: the screen's surroundings.
        verb: `deploy`, `delete`, `start`, `stop`, `resume`, `rollback` or `apply`.
        slice_id: which slice.
        options: further ones of the façade's call.

    Returns:
        Whether it succeeded; False also when it was left running.

    Raises:
        LeftRunning: on a second Ctrl-C.
    """
    try:
        result = perform(context, verb, slice_id, **options)
    except LeftBehind:
        return False
    show_result(context, result)
    return result.ok


def perform(context: Context, verb: str, slice_id: int, **options: Any) -> Result:
    """Do it with a progress display; see `run_operation`.

    Raises:
        LeftBehind: the person let it go on, and was told.
        LeftRunning: on a second Ctrl-C.
    """
    call: Call = getattr(context.api, CALLS.get(verb) or f"{verb}_slice")
    stop, display = Interruption(), ProgressDisplay(context.screen, hint=STOPPABLE if context.can_leave else "")
    work = Work(
        f"{verb} of slice {slice_id}",
        lambda: call(context.username, slice_id, progress=display, stop=stop, **options),
        display,
        show=show_result,
        stop=stop,
        slice_id=slice_id,
        may_keep=verb == "deploy",
    )
    return watch(context, work)


def run_work(
    context: Context,
    title: str,
    call: Callable[[ProgressDisplay], tuple[bool, Any]],
    show: Callable[[Any], None],
    complain: Callable[[Any], None] | None = None,
) -> bool:
    """Do something else that may take time, and show what it found; what is done soon shows no bar.

    Args:
        context: the screen's surroundings.
        title: what it is.
        call: does it, and may tell its progress.
        show: shows what it found.
        complain: says why it failed; None = in the words of the façade.

    Returns:
        Whether it succeeded; False also when it was left running.
    """

    def tell(context: Context, result: Result) -> None:
        show(result.answer) if result.ok else (complain or context.screen.complain)(result.answer)

    display = ProgressDisplay(context.screen, hint=UNSTOPPABLE if context.can_leave else "")
    work = Work(title, lambda: call(display), display, show=tell)
    try:
        result = watch(context, work, soon_s=SOON_S)
    except LeftBehind:
        return False
    work.tell(context, result)
    return result.ok


def watch(context: Context, work: Work, *, soon_s: float = 0.0) -> Result:
    """Show work until it ends, or until the person leaves it.

    Args:
        context: the screen's surroundings.
        work: what is under way.
        soon_s: how long nothing is shown of it, since it may be done by then.

    Raises:
        LeftBehind: the person let it go on, and was told.
        LeftRunning: on a second Ctrl-C.
    """
    try:
        answer = _wait_unseen(work, soon_s) or _wait(context, work)
    except LeftBehind:
        work.display.leave()
        if work not in context.work:
            context.work.append(work)
        context.screen.line(f"It goes on: {work.title}. ", ("26 comes back to it.", FAINT))
        raise
    finally:
        work.display.pause()
    if work in context.work:
        context.work.remove(work)
    return work.result(answer)


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


def _wait_unseen(work: Work, soon_s: float) -> tuple[bool, Any] | None:
    """Wait a little; what is typed meanwhile is for the next question. The end of the work, or None."""
    try:
        return work.answer(soon_s) if soon_s else None
    except KeyboardInterrupt:
        raise LeftBehind from None


def _wait(context: Context, work: Work) -> tuple[bool, Any]:
    """Wait for the end of the work; turn Ctrl-C into the choice, and Esc into going back."""
    with KeyWatch(wanted=context.can_leave) as keys:
        is_shown = False
        while True:
            try:
                if not is_shown:
                    is_shown = True
                    work.display.show()  # which says what keys do: from now on they do it
                answer = work.answer(POLL_S)
                if answer is not None:
                    return answer
                if keys.is_leaving():
                    raise LeftBehind
            except KeyboardInterrupt:
                if work.is_over:
                    continue  # there is nothing left to stop
                if work.stop is None:
                    raise LeftBehind from None
                if work.stop.is_set():
                    raise LeftRunning from None
                work.stop.set()
                work.display.pause()
                _choose(context, work.stop, may_keep=work.may_keep)


def _choose(context: Context, stop: Interruption, *, may_keep: bool) -> None:
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
