"""Bringing back what a slice has lost on hosts: networks, machines that should run, marks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome
from cloudrepo.resources import Machine
from cloudrepo.state import find_slice, find_vm
from cloudrepo.validation import shown
from cloudrepo.watched import POLICIES
from control import intents
from control.context import Context, Record, first_error, known_slice, owned_vm
from control.intents import Intent, engaged, own_record
from control.operation import Operation, Wish
from control.processes import is_abandoned
from control.states import ERROR, REPAIR, RUNNING, STOPPED, require_state

MONITOR = "monitor"  # who


def repair(context: Context, slice_id: int, hosts: Sequence[str], *, stop: Interruption | None = None) -> None:
    """Bring back what a slice has lost on these hosts; the network node's networks before machines start.

    Nothing is written of a failure: the slice still should run, and the next look shows that it does not.

    Raises:
        RefusedError: another operation is at work on it, or did not end.
        CloudError: the first failure.
    """
    without_node = context.settings.network.node not in hosts
    outcome = set_right(context, slice_id, hosts, who=MONITOR, skip_unreachable=without_node, stop=stop)
    if not outcome.ok:
        raise first_error(outcome.errors)


def set_right(
    context: Context,
    slice_id: int,
    hosts: Sequence[str],
    *,
    who: str,
    skip_unreachable: bool,
    adopts: bool = False,
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
) -> Outcome:
    """Make these hosts what a settled slice's record says; its state stays what it is.

    Args:
        context: the installation.
        slice_id: the slice: in design, stopped or running.
        hosts: only these.
        who: the acting user, or the monitor.
        skip_unreachable: go on with the other hosts when one cannot be reached.
        adopts: also set right what carries the mark of another slice of ours; see `targets.adopting`.
        progress: told of each step.
        stop: once set, no new step is begun.

    Raises:
        RefusedError: it is in another state, or another operation is at work on it, or did not end.
    """
    with engaged(context, functools.partial(_intend, context, slice_id, who)) as intent:
        outcome: Outcome | None = None
        try:
            record = context.db.get_slice(slice_id) or {}
            is_running = record.get("status") == RUNNING
            wish = Wish(machines=None if is_running else frozenset(), networks=is_running, adopts=adopts)
            operation = Operation(context, intent, progress, stop)
            outcome = operation.attempt(wish, hosts=hosts, skip_unreachable=skip_unreachable)
        finally:
            _end(context, intent, outcome)
    return outcome


def set_restart_policy(context: Context, username: str, slice_id: int, vm_id: int, policy: Any) -> str:
    """Write what the monitor does when a VM dies.

    Args:
        context: the installation.
        username: the acting user.
        slice_id: the slice.
        vm_id: the VM.
        policy: `never`, `on-failure`, `always`, or "" for what the setting says.

    Returns:
        The policy.

    Raises:
        RefusedError: no such slice or VM, or no such policy.
    """
    with context.db.transaction() as data:
        vm = owned_vm(known_slice(data, username, slice_id), vm_id)
        if policy not in ("", *POLICIES):
            raise RefusedError(
                f"{shown(policy)} is no restart policy", evidence=f"there are {', '.join(POLICIES)}", code="vm.restart"
            )
        vm.pop("restart", None)
        if policy:
            vm["restart"] = policy
    return str(policy)


def settle_vm(context: Context, slice_id: int, vm_id: int, status: str, error: str) -> bool:
    """Write that a VM does not run any more and why; whether it was still meant to.

    Args:
        context: the installation.
        slice_id: its slice.
        vm_id: the VM.
        status: `stopped` or `error`.
        error: the reason, for `error`.
    """
    if status not in (STOPPED, ERROR):
        raise ValueError(f"not an end of a VM: {status}")
    with context.db.transaction() as data:
        record = find_slice(data, slice_id)
        vm = find_vm(record, vm_id) if record is not None else None
        if record is None or vm is None or record.get("operation") or vm["status"] != RUNNING:
            return False
        vm["status"], vm["pid"] = status, None
        if error:
            vm["error"] = error
        return True


def _intend(context: Context, slice_id: int, who: str, data: Record) -> Intent:
    record = find_slice(data, slice_id)
    if record is None:
        raise RefusedError("Slice not found", code="slice.unknown")
    intents.settle_abandoned(context, record, REPAIR)
    _refuse_unended(context, record)
    require_state(record, REPAIR)
    return intents.write(data, record, REPAIR, who)


def _refuse_unended(context: Context, record: Record) -> None:
    """Somebody's operation whose process ended is his to go on with: nobody gives it up for a repair."""
    operation = record.get("operation")
    if not operation or operation.get("handed") or not is_abandoned(str(context.db.path), operation):
        return
    slice_id = record["slice_id"]
    vm = f" of VM {operation['vm_id']}" if operation.get("vm_id") else ""
    raise RefusedError(
        f"slice {slice_id} cannot be repaired",
        evidence=f"its {operation.get('kind', 'operation')}{vm}, begun {operation.get('began', 'once')}, did not end",
        remedy=f"`./cloud resume {slice_id}` goes on with that, `./cloud rollback {slice_id}` takes it back",
        code="slice.unfinished",
    )


def _end(context: Context, intent: Intent, outcome: Outcome | None) -> None:
    """The slice is nobody's again; the process ids of what runs now are noted."""
    seen = {ip: state.of(Machine) for ip, state in (outcome.states.items() if outcome is not None else ())}
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is None:
            return
        record.pop("operation", None)
        for vm in record["vms"]:
            if vm["status"] == RUNNING and vm["worker_ip"] in seen:
                found = [one for one in seen[vm["worker_ip"]] if one.vm_id == vm["vm_id"] and one.is_running]
                vm["pid"] = found[0].pid if found else None
