"""After a crash: what was under way is listed, and gone on with or taken back.

Whoever recovers takes the operation over in one transaction, with a higher number: of two only one gets it, and
hosts refuse what the dead process may still have on the wire. Then the ordinary work is done again from what
is there (`lifecycle.carry_out`), with a message to every host, which waits for a step still under way.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import Any

from cloudrepo import permissions
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome
from cloudrepo.state import find_slice
from control import design, intents, lifecycle, processes
from control.context import Context, Record, first_error, known_slice, owned_vm, user_record
from control.disks import require_disks
from control.intents import Intent, close, engaged, own_record
from control.operation import Operation, Wish, refuse_end
from control.states import (
    ADD_VM,
    DELETE,
    DEPLOY,
    DESIGN,
    ERROR,
    REMOVE_VM,
    ROLLBACK,
    RUNNING,
    START,
    STOP,
    STOPPED,
)
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


def _of(context: Context, who: str, slice_id: int, *, ended: bool) -> list[Unfinished]:
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
    free = [one for one in found if _is_free(one, ended=ended)]
    if not free:
        raise _at_work(found[0])
    return free


def _is_free(one: Unfinished, *, ended: bool) -> bool:
    return one.is_dead or one.is_handed or (ended and processes.is_elsewhere(one.process))


def _at_work(one: Unfinished) -> RefusedError:
    remedy = "Wait for it to end"
    if processes.is_elsewhere(one.process):
        remedy += "; if that host is gone for good, `--ended` says so"
    return RefusedError(
        f"somebody is at work on slice {one.slice_id}",
        evidence=one.text,
        remedy=remedy,
        code="recovery.at_work",
        details={"process": one.process, "began": one.began, "kind": one.kind},
    )


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
    found = _of(context, who, slice_id, ended=ended)
    _require_waiting(found, gone)
    said = []
    for one in sorted(found, key=lambda one: one.vm_id is None):
        if one.is_waiting and gone:
            said.append(_clean(context, one, list(one.hosts), who, gone))
        else:
            said.append(go_on(context, one, who, progress, stop, ended=ended))
    return ". ".join(said)


def _require_waiting(found: Sequence[Unfinished], gone: Collection[str]) -> None:
    """Refuse to give up hosts that are not waited for."""
    waited = [ip for one in found if one.is_waiting for ip in one.hosts]
    for ip in gone:
        if ip not in waited:
            raise RefusedError(
                f"{ip} is not given up: nothing waits for it",
                evidence=f"slice {found[0].slice_id} waits for {', '.join(waited) or 'no host'}",
                code="recovery.host",
            )


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
    if one.kind == CLEAN:
        return _clean(context, one, list(one.hosts), who, stop=stop)
    if one.kind in (ADD_VM, REMOVE_VM):
        with engaged(context, functools.partial(_claim_vm, context, one, who, one.kind, one.of, ended)) as intent:
            claimed()
            return _finish_vm(context, intent, stop)
    with engaged(context, functools.partial(_claim, context, one, who, one.kind, one.of, ended)) as intent:
        claimed()
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
    free = _of(context, who, slice_id, ended=ended)
    if all(one.kind == CLEAN for one in free):
        raise RefusedError(
            f"slice {slice_id} was rolled back already",
            evidence=free[0].text,
            remedy=f"`./cloud resume {slice_id}` clears those hosts when they answer",
            code="recovery.nothing",
        )
    said = []
    for one in sorted(free, key=lambda one: one.vm_id is None):
        if one.kind != CLEAN:
            said.append(_rollback(context, one, who, progress, stop, ended=ended))
    return ". ".join(said)


def _rollback(
    context: Context,
    one: Unfinished,
    who: str,
    progress: ProgressCallback | None,
    stop: Interruption | None,
    *,
    ended: bool,
) -> str:
    if one.kind == ADD_VM or (one.kind, one.of) == (REMOVE_VM, ADD_VM):
        with engaged(context, functools.partial(_claim_vm, context, one, who, REMOVE_VM, ADD_VM, ended)) as intent:
            return _unmake_vm(context, intent)
    if one.kind == REMOVE_VM:
        _require_disks(context, one)
        with engaged(context, functools.partial(_claim_vm, context, one, who, REMOVE_VM, "", ended)) as intent:
            design.keep_vm(context, intent)
            return f"VM {one.vm_id} was rolled back: it is kept"
    if one.is_handed:
        return _never_begun(context, one, who)
    if one.kind == DELETE:
        _require_disks(context, one)
    of = one.of if one.kind == ROLLBACK else one.kind
    with engaged(context, functools.partial(_claim, context, one, who, ROLLBACK, of, ended)) as intent:
        return lifecycle.carry_out(context, intent, progress, stop)


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


def _never_begun(context: Context, one: Unfinished, who: str) -> str:
    """What was handed to the monitor and not begun is put back without a word to a host."""
    with context.db.transaction() as data:
        record = _found_again(context, one, who, data)
        if not record["operation"].get("handed"):
            raise _at_work(one)
        record["status"] = record.pop("operation")["was"]
        return f"Slice {one.slice_id} was rolled back: it is {record['status']}"


def _require_disks(context: Context, one: Unfinished) -> None:
    """Refuse to take back what has removed a disk already, before anything is changed."""
    record = context.db.get_slice(one.slice_id) or {"vms": []}
    require_disks(context, one.slice_id, [vm for vm in record["vms"] if one.vm_id in (None, vm["vm_id"])])


# ---------------------------------------------------------------------------------------- taking over


def _claim(context: Context, one: Unfinished, who: str | None, kind: str, of: str, ended: bool, data: Record) -> Intent:
    """Take a slice's operation over, in a transaction: whoever comes second finds somebody at work.

    Args:
        context: the installation.
        one: what was found before.
        who: the acting user; None = the monitor, for whoever began it.
        kind: of the operation that goes on: the same, or a rollback.
        of: the kind it rolls back, else "".
        ended: see `resume`.
        data: the state.
    """
    record = _found_again(context, one, who, data)
    if not _is_free(next(of_slice(record, context.db.path)), ended=ended):
        raise _at_work(next(of_slice(record, context.db.path)))
    if of == STOP and (record.get("operation") or {}).get("back") == ERROR:
        raise RefusedError(
            f"the stop of slice {one.slice_id} cannot be rolled back",
            evidence="the slice was in error before",
            remedy=f"`./cloud resume {one.slice_id}` ends it",
            code="recovery.back",
        )
    back, acting = _back(record, of or kind), who or one.who or one.owner
    return intents.write(data, record, kind, acting, back=back, of=of, vm_id=one.vm_id, insist=True)


def _found_again(context: Context, one: Unfinished, who: str | None, data: Record) -> Record:
    """The slice's record in a transaction, if it still has under way what was found before."""
    record = _record_for(one, who, data)
    now = next(of_slice(record, context.db.path), None)
    if now is None or (now.vm_id, now.kind, now.of) != (one.vm_id, one.kind, one.of):
        raise _changed(one)
    return record


def _record_for(one: Unfinished, who: str | None, data: Record) -> Record:
    """The slice's record, for a user or the monitor."""
    if who is not None:
        return known_slice(data, who, one.slice_id)
    record = find_slice(data, one.slice_id)
    if record is None:
        raise _changed(one)
    return record


def _back(record: Mapping[str, Any], kind: str) -> str:
    """The state a rollback of this kind returns to: as noted, else what such an operation most often begins from."""
    noted = (record.get("operation") or record).get("back", "")
    return str(noted or {DEPLOY: DESIGN, START: STOPPED, STOP: RUNNING, DELETE: STOPPED}.get(kind, ""))


def _claim_vm(
    context: Context, one: Unfinished, who: str | None, kind: str, of: str, ended: bool, data: Record
) -> Intent:
    """Take the making or removing of a VM over; see `_claim`."""
    record = _record_for(one, who, data)
    now = next((each for each in of_slice(record, context.db.path) if each.vm_id == one.vm_id), None)
    if now is None or now.kind != one.kind:
        raise _changed(one)
    if not _is_free(now, ended=ended):
        raise _at_work(now)
    return intents.write_of_vm(data, record, owned_vm(record, one.vm_id), kind, who or one.who or one.owner, of=of)


def _changed(one: Unfinished) -> RefusedError:
    return RefusedError(
        f"slice {one.slice_id} has nothing unfinished",
        evidence="somebody else has ended it meanwhile",
        code="recovery.nothing",
    )


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
        is_free = one.is_dead and (one.kind == CLEAN or (one.kind == DELETE and not one.process))
        if not waited or not is_free:
            continue
        try:
            said.append(_clean(context, one, waited, None, stop=stop))
        except CloudError as error:
            log.info("slice %s: still waiting for %s: %s", one.slice_id, ", ".join(waited), error)
    return said


def _clean(
    context: Context,
    one: Unfinished,
    hosts: list[str],
    who: str | None,
    gone: Collection[str] = (),
    stop: Interruption | None = None,
) -> str:
    """Clear some of the hosts that are waited for; the slice is gone with the last one of a delete.

    A host that is not reached, or not come to when this process ends, is still waited for.
    """
    hosts = [ip for ip in hosts if ip not in gone]
    claim = functools.partial(_claim, context, one, who, one.kind, "", False)
    with engaged(context, claim) as intent:
        is_running = (context.db.get_slice(one.slice_id) or {}).get("status") == RUNNING  # and goes on doing so
        machines = None if is_running else frozenset[int]()
        wish = Wish(machines=machines, networks=is_running, disks=one.kind != DELETE)
        outcome = Operation(context, intent, stop=stop).attempt(wish, skip_unreachable=True, hosts=hosts)
        with context.db.transaction() as data:
            record = own_record(data, intent)
            if record is None:
                raise _changed(one)
            rest = [ip for ip in record.get("pending", ()) if ip not in gone]
            waiting = [ip for ip in rest if ip not in hosts or ip in outcome.errors]
            _note_cleaned(data, record, intent, waiting, outcome)
    if outcome.errors:
        raise first_error(outcome.errors)
    done = [*(f"{ip} cleared" for ip in hosts), *(f"{ip} given up" for ip in gone)]
    cleared = f"{', '.join(done)}: nothing of slice {one.slice_id} is waited for there"
    return f"{cleared}, which is deleted" if one.kind == DELETE and not waiting else cleared


def _note_cleaned(data: Record, record: Record, intent: Intent, waiting: list[str], outcome: Outcome) -> None:
    if intent.kind == DELETE and not waiting:
        data["slices"].pop(str(intent.slice_id), None)
        return
    status, error = record["status"], record.get("error", "")
    kept: Record = {"back": intent.back} if waiting and intent.back else {}
    if intent.kind == DELETE:
        error, kept["cleared"] = str(first_error(outcome.errors)) if outcome.errors else "", True
    elif status == ERROR and not waiting and intent.back == STOPPED:  # a stop that is complete now
        status, error = STOPPED, ""
        for vm in record["vms"]:
            vm["status"] = STOPPED
    close(record, status, error=error, pending=waiting)
    record.update(kept)
