"""What `resume` and `rollback` would do: the very steps of `control/recovery.py`, taken over and then taken back."""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cloudrepo import record_changes
from cloudrepo.state import find_slice
from control import aims, design, lifecycle, recovery, recovery_steps as steps
from control.context import Context, Record, known_slice
from control.intents import Intent, close
from control.plan_parts import Part, document
from control.plan_records import digest_of, quota_of, rehearsed
from control.recovery_steps import Step, Way
from control.states import DELETE, DESIGN, GONE, ROLLBACK, RUNNING, SLICE, STOP, STOPPED

RESUME = "resume"  # beside ROLLBACK a kind of plan


def plan(
    context: Context, username: str, kind: str, slice_id: int, *, ended: bool = False, gone: Collection[str] = ()
) -> Record:
    """What would be done with all that is unfinished of a slice.

    Args:
        context: the installation.
        username: who acts.
        kind: `resume` or `rollback`.
        slice_id: the slice.
        ended: see `recovery.resume`.
        gone: see there.

    Returns:
        As `planning.plan`, with `operations` (each `kind`, `of`, `vm_id`, and `text`, what it is) and `records`: how
        states change if all goes well. A change of the record alone counts as a difference.

    Raises:
        CloudError: it would be refused; or a worker that must be asked for disks does not answer.
    """
    found = recovery.recoverable(context, username, slice_id, ended=ended)
    chosen = steps.resuming(found, gone) if kind == RESUME else steps.rolling_back(found)
    for step in chosen:
        if step.needs_disks:
            recovery.require_disks_of(context, step.one)
    parts, digest, records, quota = rehearsed(
        context, functools.partial(_rehearsal, context, username, slice_id, chosen, ended)
    )
    told = document(
        context, username, kind, parts, digest, quota, vm_id=chosen[0].one.vm_id if len(chosen) == 1 else None
    )
    told["operations"] = [_told(step) for step in chosen]
    told["records"] = records
    told["differences"] += len(records)
    return told


def _told(step: Step) -> Record:
    known = asdict(step.one)
    return {**{key: known[key] for key in ("kind", "of", "vm_id")}, "text": step.one.text}


def _rehearsal(
    context: Context, username: str, slice_id: int, chosen: Sequence[Step], ended: bool, data: Record
) -> tuple[list[Part], str, list[Record], Record]:
    record = known_slice(data, username, slice_id)
    digest, before, owner = digest_of(record), _states(data, slice_id), str(record["owner"])
    parts = [_taken_over(context, step, username, ended, data) for step in chosen]
    return parts, digest, record_changes.between(before, _states(data, slice_id)), quota_of(context, data, owner)


def _states(data: Mapping[str, Any], slice_id: int) -> record_changes.Objects:
    """What of a slice a recovery changes."""
    record = find_slice(data, slice_id)
    found = record_changes.of_slices([record] if record is not None else [])
    return {name: {key: one[key] for key in ("status",) if key in one} for name, one in found.items()}


def _taken_over(context: Context, step: Step, username: str, ended: bool, data: Record) -> Part:
    """One step as it would begin; in the records it has ended as it does when all goes well."""
    if step.way is Way.PUT_BACK:
        steps.put_back(context, step, username, data)
        return Part(record=_copy(data, step), aims=[])
    intent = steps.claim(context, step, username, ended, data)
    begun = _copy(data, step)
    record = known_slice(data, username, step.one.slice_id)
    if step.way is Way.MAKE_VM:
        design.note_made(record, intent)
        return Part(record=begun, aims=[], makes_disk_of=intent.vm_id)
    if step.way is Way.KEEP_VM:
        design.note_kept(record, intent)
        is_brought = record["status"] == RUNNING and not record.get("operation")
        return Part(record=_copy(data, step), aims=[aims.again()] if is_brought else [])
    if step.way is Way.CLEAR:
        left = [ip for ip in record.get("pending", ()) if ip not in (*step.hosts, *step.gone)]
        recovery.note_cleaned(data, record, intent, left)
        return Part(record=begun, aims=[aims.clearing(begun, step.hosts, disks=intent.kind != DELETE)])
    if step.way in (Way.REMOVE_VM, Way.UNMAKE_VM):
        design.note_cleared(record, intent.vm_id)
    else:
        _note_end(data, record, intent)
    return Part(record=begun, aims=aims.of(intent, begun, context.settings))


def _copy(data: Mapping[str, Any], step: Step) -> Record:
    return copy.deepcopy(dict(data["slices"][str(step.one.slice_id)]))


def _note_end(data: Record, record: Record, intent: Intent) -> None:
    """The end of an operation that does what was asked."""
    if intent.is_of_one_vm:
        vm = next(vm for vm in record["vms"] if vm["vm_id"] == intent.vm_id)
        vm["status"] = RUNNING if intent.starts_vm else STOPPED
        return
    if intent.kind == ROLLBACK:
        end = RUNNING if intent.of == STOP else intent.back or DESIGN
    else:
        end = SLICE[intent.kind].after
    if intent.kind == STOP:
        lifecycle.note_stopped(record)
    elif end == GONE:
        del data["slices"][str(intent.slice_id)]
    else:
        close(record, end)
