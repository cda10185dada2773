"""Intents: what an operation is about to do, written before it begins, so that another process can go on from it.

A slice's record has its operation under `operation`; that of a VM which comes or goes is in the VM's record::

    operation: {number: 17, kind: deploy, who: ann, process: manager:4711:8190:5f2e…, began: …, back: design}

`back` is the state that a rollback returns to, `of` what a rollback rolls back, `vm_id` the VM it is about.
`handed: true` and an empty process mean that the monitor is to begin it; `was` is the state until then. Beside it,
`pending` names hosts that did not answer, and are cleared when they do; `back` the state then; `cleared: true` says
that a delete has nothing left to do on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from cloudrepo.allocation import next_operation
from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import find_slice, find_vm
from control import processes
from control.context import Context, Record, owned_vm
from control.states import (
    ADD_VM,
    BUSY,
    CREATING,
    DELETE,
    DELETING,
    DEPLOYING,
    ERROR,
    REMOVE_VM,
    REPAIR,
    ROLLBACK,
    RUNNING,
    SLICE,
    START_VM,
    STOP,
    STOP_VM,
    STOPPING,
    VM,
)
from control.unfinished import CLEAN

IN_TRANSIT = (DEPLOYING, STOPPING, DELETING)
OF_ONE_VM = (START_VM, STOP_VM)
GIVING_WAY = (CLEAN, REPAIR)  # what the monitor does by itself: done again where it is still wanted
OF_A_DESIGN = (ADD_VM, REMOVE_VM)  # written in the VM's record: several may be under way in one slice


@dataclass(frozen=True, kw_only=True)
class Intent:
    """One operation on one slice, as written down.

    Attributes:
        slice_id: the slice.
        number: the operation's number when it was written.
        kind: see `control.states`, or `clean`.
        who: the acting user.
        back: the state a rollback returns to.
        of: the kind that a rollback rolls back.
        vm_id: the VM it is about.
        insist: something of an earlier operation may be on hosts, or still under way there, unseen.
    """

    slice_id: int
    number: int
    kind: str
    who: str
    back: str = ""
    of: str = ""
    vm_id: int | None = None
    insist: bool = False

    @property
    def is_of_one_vm(self) -> bool:
        """Whether it starts or stops one VM of a running slice."""
        return (self.of or self.kind) in OF_ONE_VM

    @property
    def starts_vm(self) -> bool:
        """Whether that VM should run in the end."""
        return (self.of, self.kind) == (STOP_VM, ROLLBACK) or self.kind == START_VM


# ---------------------------------------------------------------------------------------- writing


def write(
    data: Record,
    record: Record,
    kind: str,
    who: str,
    *,
    back: str = "",
    of: str = "",
    vm_id: int | None = None,
    insist: bool = False,
    handed: bool = False,
) -> Intent:
    """Write an intent into a slice's record, and the states it gives slice and VMs; inside a transaction."""
    intent = Intent(
        slice_id=record["slice_id"],
        number=next_operation(data),
        kind=kind,
        who=who,
        back=back,
        of=of,
        vm_id=vm_id,
        insist=insist,
    )
    record["operation"] = noted(intent)
    if handed:  # until it is begun, nothing else changes
        record["operation"] |= {"process": "", "handed": True, "was": record["status"]}
        record["status"] = SLICE[kind].during
    elif kind != CLEAN:
        record.pop("error", None)
        _set_out(record, intent)
    return intent


def write_of_vm(data: Record, record: Record, vm: Record, kind: str, who: str, *, of: str = "") -> Intent:
    """Write an intent about a VM that comes or goes into its record, and the state it gives it."""
    back = (vm.get("operation") or {}).get("back") or vm["status"]
    intent = Intent(
        slice_id=record["slice_id"],
        number=next_operation(data),
        kind=kind,
        who=who,
        back=back,
        of=of,
        vm_id=vm["vm_id"],
        insist=True,
    )
    vm["operation"] = noted(intent)
    vm["status"] = VM[kind].during
    return intent


def noted(intent: Intent) -> Record:
    """An intent as it stands in a record, with this process at it."""
    optional = {"back": intent.back, "of": intent.of, "vm_id": intent.vm_id}
    return {
        "number": intent.number,
        "kind": intent.kind,
        "who": intent.who,
        "process": processes.this_process(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: value for key, value in optional.items() if value},
    }


def _set_out(record: Record, intent: Intent) -> None:
    """The states while it is under way."""
    if intent.kind == REPAIR:
        return  # it runs, and what it lost is brought back
    if intent.is_of_one_vm:
        owned_vm(record, intent.vm_id)["status"] = DEPLOYING if intent.starts_vm else STOPPING
        return
    if intent.kind == ROLLBACK:
        record["status"] = DEPLOYING if intent.of == STOP else STOPPING
    else:
        record["status"] = SLICE[intent.kind].during
    # What a stop takes down, and its rollback brings up again, is what ran before.
    affected = {STOP: (RUNNING, STOPPING)}.get(intent.kind) or ((STOPPING, DEPLOYING) if intent.of == STOP else ())
    for vm in record["vms"]:
        if vm["status"] != CREATING and (not affected or vm["status"] in affected):
            vm["status"] = record["status"]


# ---------------------------------------------------------------------------------------- being at it


@contextmanager
def engaged(context: Context, writing: Callable[[Record], Intent]) -> Iterator[Intent]:
    """Write an intent in a transaction, and be known to be at it until the block is left.

    Args:
        context: the installation.
        writing: from the state to the intent written into it; may refuse.
    """
    intent: Intent | None = None
    try:
        with context.db.transaction() as data:
            intent = writing(data)
            processes.begin_work(str(context.db.path), intent.number)
        yield intent
    finally:
        if intent is not None:
            processes.end_work(str(context.db.path), intent.number)


def own_record(data: Mapping[str, Any], intent: Intent) -> Record | None:
    """The slice's record while this intent is still its operation; None when another took over, or it is gone.

    An intent is carried out by the process that wrote it. Its number alone says too little: after an older state file
    was put back, another process may have been given the same one.
    """
    record = find_slice(data, intent.slice_id)
    if record is None:
        return None
    holder = record
    if intent.of in OF_A_DESIGN or intent.kind in OF_A_DESIGN:
        holder = find_vm(record, intent.vm_id or 0) or {}
    found = holder.get("operation") or {}
    is_own = (found.get("number"), found.get("process")) == (intent.number, processes.this_process())
    return record if is_own else None


def taken(intent: Intent) -> RefusedError:
    """Said to who finds another operation in the place of its own."""
    return RefusedError(
        f"slice {intent.slice_id} is not worked on any more by this operation",
        evidence=f"another one took the place of its {intent.kind}",
        remedy="`./cloud resume --list` says what is under way",
        code="slice.taken",
    )


# ---------------------------------------------------------------------------------------- the end


def close(record: Record, status: str, *, error: str = "", pending: Iterable[str] = ()) -> None:
    """Write what became of an operation.

    Args:
        record: the slice's record, inside a transaction.
        status: the state reached.
        error: why it is not the one that was asked for.
        pending: hosts that did not do it, and are waited for.
    """
    record["status"] = status
    for key in ("operation", "pending", "error", "back", "cleared"):
        record.pop(key, None)
    if error:
        record["error"] = error
    if pending:
        record["pending"] = list(pending)
    else:
        record.pop("forgotten", None)
    for vm in record["vms"]:
        if vm.get("operation"):
            continue  # it comes or goes, and who is at it ends that
        if vm["status"] in IN_TRANSIT or (vm["status"] == RUNNING and status != RUNNING):
            vm["status"] = status
        if vm["status"] != RUNNING:
            vm["pid"] = None


def settle_abandoned(context: Context, record: Record, kind: str) -> bool:
    """Give a slice whose operation died with its process a state from which another one can begin.

    Args:
        context: the installation.
        record: the slice's record, inside a transaction.
        kind: the operation that wants to begin. What the monitor does by itself gives way to a person's, and ends
            none of a person's.

    Returns:
        Whether there was one: something of it may be on hosts, or still under way there.
    """
    operation = record.get("operation")
    if operation is None:
        if record["status"] not in BUSY or record["status"] == DELETING:
            return False
        operation = {"kind": "unknown"}
    is_free = not operation.get("handed") and processes.is_abandoned(str(context.db.path), operation)
    if operation.get("kind") in GIVING_WAY and (is_free or kind not in GIVING_WAY):
        record.pop("operation")  # the slice is what it was; what is still missing shows at the next look
        return True
    if not is_free or kind in GIVING_WAY:
        return False
    reason = f"the process that was at work on it ended ({operation.get('kind', 'unknown')})"
    record.pop("operation", None)
    if operation.get("kind") in OF_ONE_VM or operation.get("of") in OF_ONE_VM:
        vm = owned_vm(record, operation["vm_id"])
        vm["status"], vm["pid"] = ERROR, None
    elif record["status"] == DELETING or operation.get("kind") == DELETE:
        record["back"] = operation.get("back", "")
    else:
        close(record, ERROR, error=reason, pending=record.get("pending", ()))
    return True


def is_uncertain(record: Mapping[str, Any]) -> bool:
    """Whether something of an earlier operation may be on hosts, or still under way there, unseen."""
    is_known = record["status"] not in (ERROR, DELETING) and not record.get("pending")
    return not is_known or any(is_unfinished(vm) for vm in record["vms"])


def is_unfinished(vm: Mapping[str, Any]) -> bool:
    """Whether a VM's disk is being made or removed, or its process ended at it."""
    return vm["status"] == CREATING or bool(vm.get("operation"))


def is_abandoned_vm(context: Context, vm: Mapping[str, Any]) -> bool:
    """Whether the process that made or removed a VM's disk ended at it."""
    operation = vm.get("operation")
    if not operation:
        return bool(vm["status"] == CREATING)
    return processes.is_abandoned(str(context.db.path), operation)
