"""The states of slices and VMs, and which operation may begin in which of them.

What a host reports of a machine is another thing, and never stored as a `status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from control.processes import described

DESIGN, DEPLOYING, RUNNING = "design", "deploying", "running"
STOPPING, STOPPED, DELETING, ERROR = "stopping", "stopped", "deleting", "error"
CREATING = "creating"  # a VM whose disk is being made
GONE = ""  # the end of a delete: there is no record any more

#: Slices whose networks should stand on the network node.
ACTIVE = (DEPLOYING, RUNNING)
#: States of a slice that an operation under way gives it.
BUSY = (DEPLOYING, STOPPING, DELETING)


@dataclass(frozen=True)
class Transition:
    """One kind of operation.

    Attributes:
        allowed: the states it may begin in.
        during: the state while it is under way.
        after: the state when it has done what was asked.
        verb: what it does, as a participle: `deployed`.
    """

    allowed: tuple[str, ...]
    during: str
    after: str
    verb: str


DEPLOY, START, STOP, DELETE, ROLLBACK = "deploy", "start", "stop", "delete", "rollback"
START_VM, STOP_VM, ADD_VM, REMOVE_VM = "start_vm", "stop_vm", "add_vm", "remove_vm"
REPAIR = "repair"  # what a settled slice has lost on hosts is brought back
CHANGE = "change"  # of the design: links, and whether VMs may come and go
SET_LINK = "set_link"  # what a link allows

#: Operations on a slice. A rollback begins where another operation ended without a word: see `control/recovery.py`.
SLICE: Mapping[str, Transition] = {
    DEPLOY: Transition((DESIGN, ERROR), DEPLOYING, RUNNING, "deployed"),
    START: Transition((STOPPED,), DEPLOYING, RUNNING, "started"),
    STOP: Transition((RUNNING, ERROR), STOPPING, STOPPED, "stopped"),
    DELETE: Transition((DESIGN, RUNNING, STOPPED, DELETING, ERROR), DELETING, GONE, "deleted"),
    CHANGE: Transition((DESIGN, STOPPED, RUNNING), DESIGN, DESIGN, "changed"),
    REPAIR: Transition((DESIGN, STOPPED, RUNNING), RUNNING, RUNNING, "repaired"),
    SET_LINK: Transition((DESIGN, STOPPED, RUNNING), RUNNING, RUNNING, "changed"),
    START_VM: Transition((RUNNING,), RUNNING, RUNNING, "changed"),
    STOP_VM: Transition((RUNNING,), RUNNING, RUNNING, "changed"),
}

#: Operations on one VM. To start what should run already is to see that it does: a host may have lost it.
VM: Mapping[str, Transition] = {
    START_VM: Transition((DESIGN, RUNNING, STOPPED, ERROR), DEPLOYING, RUNNING, "started"),
    STOP_VM: Transition((RUNNING, STOPPED, ERROR), STOPPING, STOPPED, "stopped"),
    ADD_VM: Transition((CREATING,), CREATING, DESIGN, "added"),
    REMOVE_VM: Transition((DESIGN, RUNNING, STOPPED, ERROR), DELETING, GONE, "removed"),
}

_REMEDIES = {
    DESIGN: "Deploy it first",
    RUNNING: "Stop it or delete it first",
    DEPLOYING: "Wait for the deploy to end",
    STOPPING: "Wait for it to end",
    STOPPED: "Start it, or delete it",
    DELETING: "Delete it again to finish",
    ERROR: "Delete it, or deploy it again",
}


def require_state(record: Mapping[str, Any], kind: str) -> None:
    """Refuse an operation that the slice's state does not allow, or that meets another one under way.

    Raises:
        RefusedError: naming the state found and the states allowed.
    """
    allowed, state = SLICE[kind].allowed, record["status"]
    operation = record.get("operation")
    if state in allowed and not operation:
        return
    remedy = "Wait for it to end" if operation else _REMEDIES.get(state, "")
    raise RefusedError(
        f"slice {record['slice_id']} cannot be {SLICE[kind].verb}",
        evidence=f"it is {state}{_at_it(operation)}, and must be {listed(allowed)}",
        remedy=remedy,
        code="slice.state",
        details={"state": state, "allowed": list(allowed)},
    )


def require_vm_state(vm: Mapping[str, Any], kind: str) -> None:
    """Refuse an operation that the VM's state does not allow.

    Raises:
        RefusedError: naming the state found and the states allowed.
    """
    allowed, state = VM[kind].allowed, vm["status"]
    operation = vm.get("operation")
    if state in allowed and not operation:
        return
    raise RefusedError(
        f"VM {vm['vm_id']} cannot be {VM[kind].verb}",
        evidence=f"it is {state}{_at_it(operation)}, and must be {listed(allowed)}",
        remedy="Wait for it to end" if operation else "",
        code="vm.state",
        details={"state": state, "allowed": list(allowed)},
    )


def may_begin(state: str) -> tuple[str, ...]:
    """The operations a person may begin on a slice in a state, by their commands' names."""
    return tuple(kind for kind in (DEPLOY, START, STOP, DELETE) if state in SLICE[kind].allowed)


def listed(states: tuple[str, ...]) -> str:
    """States, or other words, as a person reads them: `design, running or error`."""
    *most, last = states
    return f"{', '.join(most)} or {last}" if most else last


def has_run(record: Mapping[str, Any]) -> bool:
    """Whether any VM of a slice was ever brought up, so that its disk holds more than its image."""
    return any(vm["status"] in (RUNNING, STOPPING, STOPPED, ERROR) for vm in record["vms"])


def _at_it(operation: Mapping[str, Any] | None) -> str:
    if not operation:
        return ""
    vm = f" of VM {operation['vm_id']}" if operation.get("vm_id") else ""
    kind, began = operation.get("kind", "an operation"), operation.get("began", "an unknown time")
    if operation.get("handed"):
        return f" ({kind}{vm}, handed to the monitor {began})"
    return f" ({kind}{vm} by {described(str(operation.get('process', '')))} since {began})"
