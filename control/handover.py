"""Handing an operation to the monitor, for who does not want to wait for its end, and the monitor's taking it over."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from cloudrepo import leadership
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.interruption import Interruption
from control import lifecycle, recovery
from control.context import Context
from control.operation import LeftUnfinished
from control.unfinished import CLEAN, Unfinished

log = logging.getLogger(__name__)

MONITOR = "monitor"  # in the event log; as the acting user of a recovery it is None


class Begin(Protocol):
    """Begins a job in a thread of its own; `control.jobs.Jobs.begin` is the real one."""

    def __call__(self, name: str, work: Callable[[Interruption], None], *, slice_id: int) -> bool:
        """Whether it was begun."""
        ...


def monitor_at_work(context: Context) -> bool:
    """Whether a `./cloud monitor` runs for this installation. A menu that watches meanwhile may end at any moment."""
    return leadership.is_wished_for(context.db.path.parent / ".cloudrepo")


def hand_over(context: Context, username: str, slice_id: int, kind: str) -> str:
    """Write the intent for the monitor to carry out.

    Args:
        context: the installation.
        username: the acting user.
        slice_id: the slice.
        kind: `deploy`, `start`, `stop` or `delete`.

    Raises:
        RefusedError: no monitor runs, or the operation may not begin.
    """
    if not monitor_at_work(context):
        raise RefusedError(
            f"nobody is there to {kind} slice {slice_id} for you",
            evidence="no `./cloud monitor` runs",
            remedy="Start one, or leave out --no-wait",
            code="monitor.absent",
        )
    lifecycle.hand_over(context, username, slice_id, kind)
    return f"Handed to the monitor: {kind} slice {slice_id}"


def take_over(context: Context, begin: Begin, *, auto_resume: bool | None = None) -> list[str]:
    """Begin what was handed to the monitor and, if asked to, what dead processes left; a sentence each.

    Returns when each was taken over; it goes on as a job. One that is told to end leaves its intent unfinished.

    Args:
        context: the installation.
        begin: begins a job.
        auto_resume: also resume operations of dead processes; None = as the setting `monitor.auto_resume` says.
    """
    if auto_resume is None:
        auto_resume = context.settings.monitor.auto_resume
    begun = []
    for one in recovery.unfinished(context):
        if one.kind == CLEAN:
            continue  # `finish_pending` does it when they answer
        is_left = one.is_dead and one.process != ""  # not what another recovery has tried already
        if one.is_handed or (auto_resume and is_left):
            claimed = threading.Event()
            work = functools.partial(_attend, context, one, claimed.set)
            vm = "" if one.vm_id is None else f", VM {one.vm_id}"
            if begin(f"operation on slice {one.slice_id}{vm}", work, slice_id=one.slice_id):
                claimed.wait()  # so that the next pass does not begin it again
                begun.append(one.text)
    return begun


def _attend(context: Context, one: Unfinished, claimed: Callable[[], None], stop: Interruption) -> None:
    """Do one operation for somebody who is not there, and note what became of it."""
    about = f"slice {one.slice_id}"
    who = one.who or one.owner
    what = one.kind if one.is_handed else f"resume {one.kind}"
    try:
        text = recovery.go_on(context, one, None, stop=stop, claimed=claimed)
    except LeftUnfinished as left:
        log.info("%s: %s: %s", about, what, left)
        context.events.record(what, who=who, about=about, outcome="left", reason=str(left), by=MONITOR)
    except CloudError as error:
        log.error("%s: %s: %s", about, what, error)
        context.events.record(what, who=who, about=about, outcome="failed", reason=str(error), by=MONITOR)
    except Exception as error:
        log.exception("%s: %s", about, what)
        context.events.record(what, who=who, about=about, outcome="failed", reason=repr(error), by=MONITOR)
    else:
        log.info("%s: %s: %s", about, what, text)
        context.events.record(what, who=who, about=about, result=text, by=MONITOR)
    finally:
        claimed()
