"""Deploy, start, stop and delete: the intent is written first, then the hosts are made to match.

Each use case is: a transaction that checks and writes the intent, one `apply` on all hosts at once, and a
transaction that writes what became of it. A failed deploy leaves nothing on hosts that answer. `carry_out` does
what an intent says, whoever wrote it: `control/recovery.py` goes on from those of processes that ended.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloudrepo import screen_password
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome
from cloudrepo.resources import Machine
from control import aims, intents, targets
from control.context import Context, Record, first_error, known_slice, owned_vm
from control.disks import require_disks
from control.good_to_know import good_to_know
from control.intents import Intent, close, engaged, own_record, taken
from control.operation import Aim, LeftUnfinished, Operation
from control.states import (
    DELETE,
    DELETING,
    DEPLOY,
    DESIGN,
    ERROR,
    ROLLBACK,
    RUNNING,
    SLICE,
    START,
    START_VM,
    STOP,
    STOP_VM,
    STOPPED,
    has_run,
    require_state,
    require_vm_state,
)

log = logging.getLogger(__name__)

VERBS = {kind: transition.verb for kind, transition in SLICE.items()}


# ---------------------------------------------------------------------------------------- the use cases


def deploy(
    context: Context,
    username: str,
    slice_id: int,
    *,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
) -> str:
    """Bring a designed slice up.

    Returns:
        `Slice deployed successfully`; its details say which workers emulate.

    Raises:
        CloudError: the first failure in the documented order; nothing is left on hosts that answer.
    """
    return _on_slice(context, username, slice_id, DEPLOY, progress, stop)


def start(
    context: Context,
    username: str,
    slice_id: int,
    *,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
) -> str:
    """Bring a stopped slice up again, with the disks as they were."""
    return _on_slice(context, username, slice_id, START, progress, stop)


def stop_slice(
    context: Context,
    username: str,
    slice_id: int,
    *,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
) -> str:
    """Stop all VMs of a slice by ACPI, `quit`, signal; take its networks down; keep its disks."""
    return _on_slice(context, username, slice_id, STOP, progress, stop)


def delete(
    context: Context,
    username: str,
    slice_id: int,
    *,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
) -> str:
    """Tear a slice down, whatever state it is in, and forget it once nothing of it is left.

    Returns:
        `Slice deleted`.

    Raises:
        CloudError: a host did not answer or refused; the slice stays `deleting` until that host was reached.
    """
    return _on_slice(context, username, slice_id, DELETE, progress, stop)


def start_vm(
    context: Context, username: str, slice_id: int, vm_id: int, *, progress: ProgressCallback | None = None
) -> str:
    """Start one stopped VM of a running slice."""
    with engaged(context, functools.partial(intend_vm, context, username, slice_id, vm_id, START_VM)) as intent:
        return carry_out(context, intent, progress)


def stop_vm(
    context: Context, username: str, slice_id: int, vm_id: int, *, progress: ProgressCallback | None = None
) -> str:
    """Stop one VM of a running slice; its disk stays, and the others run on."""
    with engaged(context, functools.partial(intend_vm, context, username, slice_id, vm_id, STOP_VM)) as intent:
        return carry_out(context, intent, progress)


def hand_over(context: Context, username: str, slice_id: int, kind: str) -> None:
    """Write the intent to deploy, start, stop or delete a slice, for the monitor to begin."""
    with context.db.transaction() as data:
        intend(context, username, slice_id, kind, data, handed=True)


def _on_slice(
    context: Context,
    username: str,
    slice_id: int,
    kind: str,
    progress: ProgressCallback | None,
    stop: Interruption | None,
) -> str:
    with engaged(context, functools.partial(intend, context, username, slice_id, kind)) as intent:
        return carry_out(context, intent, progress, stop)


# ---------------------------------------------------------------------------------------- intents


def intend(context: Context, username: str, slice_id: int, kind: str, data: Record, *, handed: bool = False) -> Intent:
    """Check that an operation may begin on a slice, and write its intent; inside a transaction.

    Raises:
        RefusedError: it may not.
    """
    record = known_slice(data, username, slice_id)
    insist = intents.settle_abandoned(context, record, kind) or intents.is_uncertain(record)
    require_state(record, kind)
    if kind in (DEPLOY, START):
        _require_machines(record)
        record["deployed"] = True
        screen_password.give(record["vms"])
    back = back_of(record, kind)
    return intents.write(data, record, kind, username, back=back, insist=insist, handed=handed)


def back_of(record: Mapping[str, Any], kind: str) -> str:
    """The state to which a rollback of this operation would return a slice."""
    if kind == DELETE:
        return str(record.get("back") or (STOPPED if has_run(record) else DESIGN))
    return {DEPLOY: DESIGN, START: STOPPED, STOP: str(record["status"])}[kind]


def _require_machines(record: Mapping[str, Any]) -> None:
    slice_id = record["slice_id"]
    if not record["vms"]:
        raise RefusedError(
            f"slice {slice_id} has no VMs, so there is nothing to deploy", remedy="Add one first", code="slice.empty"
        )
    unfinished = [vm["vm_id"] for vm in record["vms"] if intents.is_unfinished(vm)]
    if unfinished:
        raise RefusedError(
            f"the disk of VM {unfinished[0]} is not finished",
            remedy=f"Wait for it, or `./cloud resume {slice_id}` if the session that was at it has ended",
            code="vm.creating",
        )


def intend_vm(context: Context, username: str, slice_id: int, vm_id: int, kind: str, data: Record) -> Intent:
    """As `intend`, for one VM of a running slice.

    Raises:
        RefusedError: it may not.
    """
    record = known_slice(data, username, slice_id)
    is_left = intents.settle_abandoned(context, record, kind)
    require_state(record, kind)
    vm = owned_vm(record, vm_id)
    require_vm_state(vm, kind)
    insist = is_left or vm["status"] == ERROR  # what failed before may have left something, or run on
    if kind == START_VM:
        screen_password.give([vm])
    is_new = kind == START_VM and vm["status"] == DESIGN
    return intents.write(data, record, kind, username, back=DESIGN if is_new else "", vm_id=vm_id, insist=insist)


# ---------------------------------------------------------------------------------------- doing it


def carry_out(
    context: Context, intent: Intent, progress: ProgressCallback | None = None, stop: Interruption | None = None
) -> str:
    """Do what an intent says; what became of it is written when this returns or raises.

    Raises:
        LeftUnfinished: the process was told to end; nothing is written, and the intent stays.
        CloudError: it was not reached.
    """
    operation = Operation(context, intent, progress, stop)
    if intent.is_of_one_vm:
        return _switch_vm(context, operation)
    steps: dict[str, Callable[[Context, Operation], str]] = {
        DEPLOY: _bring_up,
        START: _bring_up,
        STOP: _take_down,
        DELETE: _tear_down,
        ROLLBACK: _take_back,
    }
    return steps[intent.kind](context, operation)


def _slice_of(context: Context, intent: Intent) -> Record:
    return context.db.get_slice(intent.slice_id) or {"vms": [], "links": []}


def _aim(context: Context, intent: Intent, record: Mapping[str, Any]) -> Aim:
    """What it wants of hosts: of a slice's operation, or one that starts or stops a VM, a single thing."""
    (aim,) = aims.of(intent, record, context.settings)
    return aim


def _close(context: Context, intent: Intent, status: str, **more: Any) -> None:
    """Write the end of an operation, unless another one has taken its place: its end is what counts then."""
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None:
            close(record, status, **more)


# -- up


def _bring_up(context: Context, operation: Operation) -> str:
    intent = operation.intent
    failure = _up(context, operation)
    if failure is None:
        text = "Slice deployed successfully" if intent.kind == DEPLOY else "Slice started"
        return good_to_know(context, operation, text)
    log.error("slice %s: not %s: %s", intent.slice_id, VERBS[intent.kind], failure)
    _undo(context, operation, failure)
    raise failure


def _up(context: Context, operation: Operation) -> CloudError | None:
    """Bring all VMs that are on their way up, and the networks; why not, if not."""
    intent, record = operation.intent, _slice_of(context, operation.intent)
    try:
        context.discovery.ensure_known(*{vm["worker_ip"] for vm in record["vms"]})
    except CloudError as error:
        operation.refuse_end()
        if intent.insist:
            return error
        _close(context, intent, intent.back, error=str(error))
        raise
    try:
        outcome = operation.pursue(_aim(context, intent, record))
    except LeftUnfinished:
        raise
    except BaseException as error:  # a mistake of ours: what was made is unknown
        _close(context, intent, ERROR, error=str(error) or type(error).__name__)
        raise
    if outcome.ok:
        _record_running(context, intent, outcome)
        return None
    return _stopped_by_hand(operation) or first_error(outcome.errors)


def _stopped_by_hand(operation: Operation) -> CloudError | None:
    """The person's own stop as the reason, in place of the first host that heard of it."""
    stop, intent = operation.stop, operation.intent
    if stop is None or not stop.is_set():
        return None
    if stop.keep():
        what, remedy = "what was made is kept", "Deploy it again to go on; or stop or delete it"
    else:
        what, remedy = "what was made is removed again", ""
    return CloudError(
        f"slice {intent.slice_id} was not {VERBS.get(intent.kind, 'brought up')}: you stopped it",
        evidence=what,
        remedy=remedy,
        code="stopped",
    )


def _record_running(context: Context, intent: Intent, outcome: Outcome) -> None:
    pids = _pids(outcome)
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is None:
            raise taken(intent)
        used = targets.hosts_of(record, context.settings.network.node)
        elsewhere = [ip for ip in record.get("pending", ()) if ip not in used]  # a VM was there once
        close(record, RUNNING, pending=elsewhere)
        for vm in record["vms"]:
            if vm["status"] == RUNNING:
                vm["pid"] = pids.get(vm["vm_id"])
                vm.pop("error", None)


def _pids(outcome: Outcome) -> dict[int, int | None]:
    return {machine.vm_id: machine.pid for state in outcome.states.values() for machine in state.of(Machine)}


def _undo(context: Context, operation: Operation, error: CloudError) -> None:
    """Take down what a failed bring-up left, unless the person chose to keep it for a later attempt.

    What is kept is neither what the slice was nor what was asked for, which is an error until somebody ends it.
    """
    intent = operation.intent
    if operation.stop is not None and operation.stop.is_set() and operation.stop.keep():
        _close(context, intent, ERROR, error=str(error))
        return
    # First the intent is put back: nobody makes anything for it any more.
    with engaged(context, functools.partial(_intend_back, intent)) as back:
        undo = Operation(context, back, operation.progress, operation.departure)
        _take_down_for_good(context, undo, error=str(error))


def _intend_back(intent: Intent, data: Record) -> Intent:
    record = own_record(data, intent)
    if record is None:
        raise taken(intent)
    return intents.write(
        data, record, ROLLBACK, intent.who, back=intent.back, of=intent.kind, vm_id=intent.vm_id, insist=True
    )


# -- down


def _take_down(context: Context, operation: Operation) -> str:
    intent = operation.intent
    outcome = operation.pursue(_aim(context, intent, _slice_of(context, intent)))
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None and outcome.ok:
            note_stopped(record)
        elif record is not None:
            close(record, ERROR, error=str(first_error(outcome.errors)), pending=outcome.errors)
            record["back"] = STOPPED  # once those hosts were reached
    if not outcome.ok:
        raise first_error(outcome.errors)
    return "Slice stopped"


def note_stopped(record: Record) -> None:
    """Write that all machines of a slice are stopped, in a transaction."""
    close(record, STOPPED)
    for vm in record["vms"]:
        if not intents.is_unfinished(vm):  # what comes or goes is somebody's, who ends it
            vm["status"] = STOPPED


def _tear_down(context: Context, operation: Operation) -> str:
    intent, record = operation.intent, _slice_of(context, operation.intent)
    outcome = operation.pursue(_aim(context, intent, record))
    with context.db.transaction() as data:
        own = own_record(data, intent)
        if own is not None and outcome.ok:
            data["slices"].pop(str(intent.slice_id), None)
        elif own is not None:
            close(own, DELETING, error=str(first_error(outcome.errors)), pending=outcome.errors)
            own |= {"back": intent.back, "cleared": True}
    if not outcome.ok:
        raise _not_deleted(intent.slice_id, outcome.errors)
    return "Slice deleted"


def _not_deleted(slice_id: int, errors: Mapping[str, CloudError]) -> CloudError:
    return CloudError(
        f"slice {slice_id} is not deleted yet",
        evidence=str(first_error(errors)),
        remedy=f"The monitor finishes it, or delete it again, when {', '.join(errors)} can be reached",
        code="slice.deleting",
        details={"pending": list(errors)},
    )


# -- back


def _take_back(context: Context, operation: Operation) -> str:
    """Roll back what `intent.of` began."""
    intent = operation.intent
    if intent.of == STOP:
        failure = _up(context, operation)
        if failure is None:
            return f"Slice {intent.slice_id} was rolled back: it is {RUNNING}"
        _close(context, intent, ERROR, error=str(failure))
        raise failure
    if intent.of == DELETE:
        return _undelete(context, operation)
    pending = _take_down_for_good(context, operation)
    return _rolled_back(intent, pending)


def _take_down_for_good(context: Context, operation: Operation, *, error: str = "") -> list[str]:
    """Nothing of a slice but its disks; the hosts that did not do it are noted, and returned."""
    intent = operation.intent
    outcome = operation.pursue(_aim(context, intent, _slice_of(context, intent)))
    for ip, problem in outcome.errors.items():
        log.error("slice %s: not taken down on %s: %s", intent.slice_id, ip, problem)
    _close(context, intent, intent.back or DESIGN, error=error, pending=sorted(outcome.errors))
    return sorted(outcome.errors)


def _rolled_back(intent: Intent, pending: Iterable[str]) -> str:
    missing = ", ".join(pending)
    rest = f"; {missing} did not answer, and is cleared when it does" if missing else ""
    return f"Slice {intent.slice_id} was rolled back: it is {intent.back or DESIGN}{rest}"


def _undelete(context: Context, operation: Operation) -> str:
    """Keep the disks of a slice whose delete was cut short; only if all are there, and on hosts that answer."""
    intent, record = operation.intent, _slice_of(context, operation.intent)
    outcome = operation.pursue(_aim(context, intent, record))
    try:
        for problem in outcome.errors.values():
            raise problem
        require_disks(context, intent.slice_id, record["vms"])
    except CloudError as problem:
        operation.refuse_end()
        with context.db.transaction() as data:
            own = own_record(data, intent)
            if own is not None:
                kept = {"back": intent.back, "cleared": own.get("cleared", False)}
                close(own, DELETING, error=str(problem), pending=own.get("pending", ()))
                own.update(kept)
        raise
    _close(context, intent, intent.back)
    return _rolled_back(intent, ())


# -- one VM


def _switch_vm(context: Context, operation: Operation) -> str:
    intent = operation.intent
    vm_id = intent.vm_id or 0
    outcome = operation.pursue(_aim(context, intent, _slice_of(context, intent)))
    pids = _pids(outcome)
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None:
            record.pop("operation")
            vm = owned_vm(record, vm_id)
            vm["status"] = (RUNNING if vm_id in pids else STOPPED) if outcome.ok else ERROR
            vm["pid"] = pids.get(vm_id)
            vm.pop("error", None)
            if not outcome.ok:
                vm["error"] = str(first_error(outcome.errors))
    if not outcome.ok:
        raise first_error(outcome.errors)
    if intent.kind == ROLLBACK:
        return f"VM {vm_id} was rolled back: it is {RUNNING if intent.starts_vm else STOPPED}"
    return "VM started" if intent.starts_vm else "VM stopped"
