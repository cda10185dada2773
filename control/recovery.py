"""After a crash: what was under way is listed, and gone on with or taken back.

Whoever recovers takes the operation over in one transaction, with a higher number: of two only one gets it, and
hosts refuse what the dead process may still have on the wire. Then the ordinary work is done again from what
is there (`lifecycle.carry_out`), with a message to every host, which waits for a step still under way.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Container, Sequence

from cloudrepo import permissions
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.progress import ProgressCallback
from cloudrepo.state import find_slice
from control import aims, design, lifecycle, recovery_steps as steps
from control.context import Context, Record, first_error, known_slice, owned_vm, user_record
from control.disks import require_disks
from control.intents import Intent, close, engaged, own_record
from control.operation import Operation, refuse_end
from control.recovery_steps import Step, Way, at_work, changed, is_free
from control.states import ADD_VM, DELETE, ERROR, STOPPED
from control.unfinished import CLEAN, Unfinished, in_records, of_slice

log = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------- looking


def unfinished(context: Context, slice_id: int | None = None) -> list[Unfinished]:
    """All operations under way, those whose process has ended, and hosts that are waited for; or those of a slice."""
    context.db.refresh()
    with context.db.lock:
        if slice_id is None:
            return in_records(context.db.data, context.db.path)
        record = find_slice(context.db.data, slice_id)
        return list(of_slice(record, context.db.path)) if record is not None else []


def unfinished_for(context: Context, username: str | None) -> list[Unfinished]:
    """Those that a user may resume; all when nobody is named."""
    found = unfinished(context)
    if username is None:
        return found
    with context.db.lock:
        users = context.db.data["users"]
        actor, rule = user_record(context.db.data, username), permissions.RULES["resume"]
        return [one for one in found if permissions.may(rule, actor, one.owner, users.get(one.owner))]


def recoverable(context: Context, who: str, slice_id: int, *, ended: bool) -> list[Unfinished]:
    """What of a slice can be recovered now.

    Raises:
        RefusedError: nothing is unfinished, or somebody is at it.
    """
    context.db.refresh()
    with context.db.lock:
        record = known_slice(context.db.data, who, slice_id)
        found = list(of_slice(record, context.db.path))
    if not found:
        raise RefusedError(
            f"slice {record['slice_id']} has nothing unfinished",
            evidence=f"it is {record['status']}",
            code="recovery.nothing",
        )
    free = [one for one in found if is_free(one, ended=ended)]
    if not free:
        raise at_work(found[0])
    return free


# ---------------------------------------------------------------------------------------- resume


def resume(
    context: Context,
    slice_id: int,
    *,
    who: str,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
    ended: bool = False,
    gone: Collection[str] = (),
) -> str:
    """Go on with what was under way on a slice until its intent is reached.

    A deploy or start ends running, a stop stopped, a delete with nothing, a rollback rolled back, a VM that was
    added has its disk. Hosts that were waited for are asked again.

    Args:
        context: the installation.
        slice_id: the slice.
        who: the acting user: its owner or an administrator.
        progress: told of each step.
        stop: once set, no new step is begun.
        ended: a process on another host is known to have ended, which cannot be seen from here.
        gone: hosts that are waited for and will never be back; what was on them is taken for gone with them.

    Returns:
        What became of it, a sentence for each operation.

    Raises:
        RefusedError: nothing is unfinished there, or its process lives.
        CloudError: a host failed; what then is, is recorded.
    """
    chosen = steps.resuming(recoverable(context, who, slice_id, ended=ended), gone)
    return ". ".join(_do(context, step, who, progress, stop, ended=ended) for step in chosen)


def go_on(
    context: Context,
    one: Unfinished,
    who: str | None,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
    *,
    ended: bool = False,
    claimed: Callable[[], None] = lambda: None,
) -> str:
    """Take one operation over and go on with it; see `resume`.

    Args:
        context: the installation.
        one: what was found.
        who: the acting user; None = the monitor, for whoever began it.
        progress: told of each step.
        stop: once set, no new step is begun.
        ended: as for `resume`.
        claimed: called when it is taken over, before a host is asked.

    Raises:
        LeftUnfinished: this process was told to end; whoever comes next finds it as it was found here.
        CloudError: as for `resume`.
    """
    return _do(context, steps.going_on(one), who, progress, stop, ended=ended, claimed=claimed)


def _do(
    context: Context,
    step: Step,
    who: str | None,
    progress: ProgressCallback | None,
    stop: Interruption | None,
    *,
    ended: bool,
    claimed: Callable[[], None] = lambda: None,
) -> str:
    """Take one thing over and end it; a sentence."""
    if step.needs_disks:
        require_disks_of(context, step.one)
    if step.way is Way.CLEAR:
        return _clean(context, step, step.hosts, who, stop=stop)
    if step.way is Way.PUT_BACK:
        with context.db.transaction() as data:
            status = steps.put_back(context, step, who or step.one.owner, data)
        return f"Slice {step.one.slice_id} was rolled back: it is {status}"
    with engaged(context, functools.partial(steps.claim, context, step, who, ended)) as intent:
        claimed()
        if step.way is Way.UNMAKE_VM:
            return _unmake_vm(context, intent)
        if step.way is Way.KEEP_VM:
            design.keep_vm(context, intent)
            return f"VM {intent.vm_id} was rolled back: it is kept"
        if step.way in (Way.MAKE_VM, Way.REMOVE_VM):
            return _finish_vm(context, intent, stop)
        return lifecycle.carry_out(context, intent, progress, stop)


def _finish_vm(context: Context, intent: Intent, stop: Interruption | None) -> str:
    try:
        if intent.kind == ADD_VM:
            refuse_end(intent, stop)
            design.make_vm(context, intent)
            return f"VM {intent.vm_id} has its disk"
        design.clear_vm(context, intent, stop)
        return f"VM {intent.vm_id} was removed"
    except CloudError:
        refuse_end(intent, stop)
        _leave_vm(context, intent)
        raise


def _leave_vm(context: Context, intent: Intent) -> None:
    """Nobody is at it any more; a further resume or rollback may be."""
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None:
            owned_vm(record, intent.vm_id)["operation"]["process"] = ""


# ---------------------------------------------------------------------------------------- rollback


def rollback(
    context: Context,
    slice_id: int,
    *,
    who: str,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
    ended: bool = False,
) -> str:
    """Take back what was under way on a slice.

    A deploy ends in design with nothing on hosts that answer (the others are waited for), a start stopped, a stop
    running, an added VM is gone. A delete can be taken back while all disks are there.

    Args:
        context: the installation.
        slice_id: the slice.
        who: the acting user: its owner or an administrator.
        progress: told of each step.
        stop: once set, no new step is begun.
        ended: a process on another host is known to have ended, which cannot be seen from here.

    Returns:
        What became of it, a sentence for each operation.

    Raises:
        RefusedError: nothing is unfinished there, its process lives, or it cannot be taken back any more.
        CloudError: a host failed; what then is, is recorded.
    """
    chosen = steps.rolling_back(recoverable(context, who, slice_id, ended=ended))
    return ". ".join(_do(context, step, who, progress, stop, ended=ended) for step in chosen)


def _unmake_vm(context: Context, intent: Intent) -> str:
    """A VM whose disk was being made goes; a worker that does not answer is cleared when it does."""
    try:
        design.clear_vm(context, intent)
    except CloudError as error:
        if error.code == "slice.taken":
            raise
        log.error("slice %s: VM %s: %s", intent.slice_id, intent.vm_id, error)
        design.forget_vm(context, intent, pending=True)
        return f"VM {intent.vm_id} was rolled back; its disk goes when its worker answers ({error})"
    return f"VM {intent.vm_id} was rolled back: it is gone"


def require_disks_of(context: Context, one: Unfinished) -> None:
    """Refuse to take back what has removed a disk already, before anything is changed.

    Raises:
        CloudError: a disk is gone, or a worker cannot be asked.
    """
    record = context.db.get_slice(one.slice_id) or {"vms": []}
    require_disks(context, one.slice_id, [vm for vm in record["vms"] if one.vm_id in (None, vm["vm_id"])])


# ---------------------------------------------------------------------------------------- hosts that come back


def finish_pending(
    context: Context,
    *,
    slice_id: int | None = None,
    answering: Container[str] | None = None,
    stop: Interruption | None = None,
) -> list[str]:
    """Finish deletes and undos on hosts that answer again.

    Only hosts that are waited for are contacted. What fails again stays noted, and keeps no other slice waiting.

    Args:
        context: the installation.
        slice_id: only this slice.
        answering: hosts that answer; None = try all that are waited for.
        stop: once set, no new step is begun.

    Returns:
        What was done, a sentence each.
    """
    said = []
    for one in unfinished(context, slice_id):
        waited = [ip for ip in one.hosts if answering is None or ip in answering]
        is_idle = one.is_dead and (one.kind == CLEAN or (one.kind == DELETE and not one.process))
        if not waited or not is_idle:
            continue
        try:
            said.append(_clean(context, steps.clearing(one), waited, None, stop=stop))
        except CloudError as error:
            log.info("slice %s: still waiting for %s: %s", one.slice_id, ", ".join(waited), error)
    return said


def _clean(context: Context, step: Step, hosts: list[str], who: str | None, *, stop: Interruption | None = None) -> str:
    """Clear some of the hosts that are waited for; the slice is gone with the last one of a delete.

    A host that is not reached, or not come to when this process ends, is still waited for.
    """
    one, gone = step.one, step.gone
    with engaged(context, functools.partial(steps.claim, context, step, who, False)) as intent:
        aim = aims.clearing(context.db.get_slice(one.slice_id) or {}, hosts, disks=one.kind != DELETE)
        outcome = Operation(context, intent, stop=stop).attempt(aim.wish, skip_unreachable=aim.skips, hosts=aim.hosts)
        with context.db.transaction() as data:
            record = own_record(data, intent)
            if record is None:
                raise changed(one)
            rest = [ip for ip in record.get("pending", ()) if ip not in gone]
            waiting = [ip for ip in rest if ip not in hosts or ip in outcome.errors]
            note_cleaned(data, record, intent, waiting, first_error(outcome.errors) if outcome.errors else None)
    if outcome.errors:
        raise first_error(outcome.errors)
    done = [*(f"{ip} cleared" for ip in hosts), *(f"{ip} given up" for ip in gone)]
    cleared = f"{', '.join(done)}: nothing of slice {one.slice_id} is waited for there"
    return f"{cleared}, which is deleted" if one.kind == DELETE and not waiting else cleared


def note_cleaned(
    data: Record, record: Record, intent: Intent, waiting: Sequence[str], failure: CloudError | None = None
) -> None:
    """Write what became of hosts that were waited for, in a transaction.

    Args:
        data: the state.
        record: the slice's.
        intent: of the clearing.
        waiting: hosts that are still waited for.
        failure: why, of the first.
    """
    if intent.kind == DELETE and not waiting:
        data["slices"].pop(str(intent.slice_id), None)
        return
    status, error = record["status"], record.get("error", "")
    kept: Record = {"back": intent.back} if waiting and intent.back else {}
    if intent.kind == DELETE:
        error, kept["cleared"] = str(failure) if failure is not None else "", True
    elif status == ERROR and not waiting and intent.back == STOPPED:  # a stop that is complete now
        status, error = STOPPED, ""
        for vm in record["vms"]:
            vm["status"] = STOPPED
    close(record, status, error=error, pending=waiting)
    record.update(kept)
