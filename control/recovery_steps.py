"""What becomes of each thing that is unfinished: decided here, and taken over in one transaction; hosts are not asked.

`control/recovery.py` does it, `control/recovery_plans.py` shows it without.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import find_slice
from control import intents, processes
from control.context import Context, Record, known_slice, owned_vm
from control.intents import Intent
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
from control.unfinished import CLEAN, Unfinished, of_slice


class Way(Enum):
    """How something that is unfinished ends."""

    CARRY_OUT = "the operation of the slice goes on, or is taken back"
    CLEAR = "hosts that are waited for are cleared"
    MAKE_VM = "the disk of a VM is made"
    REMOVE_VM = "a VM is removed"
    UNMAKE_VM = "a VM whose disk was being made goes"
    KEEP_VM = "a VM whose removal was begun stays"
    PUT_BACK = "what was handed to the monitor is put back"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that is unfinished, and what becomes of it.

    Attributes:
        one: what was found.
        way: how it ends.
        kind, of: of the intent that takes it over; see `control.intents`.
        gone: hosts that are given up.
        needs_disks: whether it may only be done while all disks are there.
    """

    one: Unfinished
    way: Way
    kind: str
    of: str = ""
    gone: tuple[str, ...] = ()
    needs_disks: bool = False

    @property
    def hosts(self) -> list[str]:
        """Hosts that are cleared."""
        return [ip for ip in self.one.hosts if ip not in self.gone]


def resuming(found: Sequence[Unfinished], gone: Collection[str] = ()) -> list[Step]:
    """What `resume` does with these, in its order.

    Raises:
        RefusedError: a host is given up that is not waited for.
    """
    waited = [ip for one in found if one.is_waiting for ip in one.hosts]
    for ip in gone:
        if ip not in waited:
            raise RefusedError(
                f"{ip} is not given up: nothing waits for it",
                evidence=f"slice {found[0].slice_id} waits for {', '.join(waited) or 'no host'}",
                code="recovery.host",
            )
    return [going_on(one, gone if one.is_waiting else ()) for one in _in_order(found)]


def going_on(one: Unfinished, gone: Collection[str] = ()) -> Step:
    """How one of them is gone on with."""
    if one.kind == CLEAN or gone:
        return clearing(one, gone)
    if one.kind in (ADD_VM, REMOVE_VM):
        way = Way.MAKE_VM if one.kind == ADD_VM else Way.REMOVE_VM
        return Step(one=one, way=way, kind=one.kind, of=one.of)
    return Step(one=one, way=Way.CARRY_OUT, kind=one.kind, of=one.of)


def clearing(one: Unfinished, gone: Collection[str] = ()) -> Step:
    """Hosts that are waited for are cleared, or given up."""
    return Step(one=one, way=Way.CLEAR, kind=one.kind, gone=tuple(gone))


def rolling_back(found: Sequence[Unfinished]) -> list[Step]:
    """What `rollback` does with these, in its order.

    Raises:
        RefusedError: only hosts are waited for.
    """
    if all(one.kind == CLEAN for one in found):
        raise RefusedError(
            f"slice {found[0].slice_id} was rolled back already",
            evidence=found[0].text,
            remedy=f"`./cloud resume {found[0].slice_id}` clears those hosts when they answer",
            code="recovery.nothing",
        )
    return [_taking_back(one) for one in _in_order(found) if one.kind != CLEAN]


def _taking_back(one: Unfinished) -> Step:
    if one.kind == ADD_VM or (one.kind, one.of) == (REMOVE_VM, ADD_VM):
        return Step(one=one, way=Way.UNMAKE_VM, kind=REMOVE_VM, of=ADD_VM)
    if one.kind == REMOVE_VM:
        return Step(one=one, way=Way.KEEP_VM, kind=REMOVE_VM, needs_disks=True)
    if one.is_handed:
        return Step(one=one, way=Way.PUT_BACK, kind=one.kind)
    of = one.of if one.kind == ROLLBACK else one.kind
    return Step(one=one, way=Way.CARRY_OUT, kind=ROLLBACK, of=of, needs_disks=one.kind == DELETE)


def _in_order(found: Sequence[Unfinished]) -> list[Unfinished]:
    """VMs that come or go before their slice."""
    return sorted(found, key=lambda one: one.vm_id is None)


# ---------------------------------------------------------------------------------------- taking over


def claim(context: Context, step: Step, who: str | None, ended: bool, data: Record) -> Intent:
    """Take it over, in a transaction: whoever comes second finds somebody at work.

    Args:
        context: the installation.
        step: what was found before, and what becomes of it.
        who: the acting user; None = the monitor, for whoever began it.
        ended: see `recovery.resume`.
        data: the state.

    Raises:
        RefusedError: somebody is at it, it is another thing now, or it cannot be taken back.
    """
    if step.way in (Way.MAKE_VM, Way.REMOVE_VM, Way.UNMAKE_VM, Way.KEEP_VM):
        return _claim_vm(context, step, who, ended, data)
    one = step.one
    record = found_again(context, one, who, data)
    if not is_free(next(of_slice(record, context.db.path)), ended=ended and step.way is Way.CARRY_OUT):
        raise at_work(next(of_slice(record, context.db.path)))
    if step.of == STOP and (record.get("operation") or {}).get("back") == ERROR:
        raise RefusedError(
            f"the stop of slice {one.slice_id} cannot be rolled back",
            evidence="the slice was in error before",
            remedy=f"`./cloud resume {one.slice_id}` ends it",
            code="recovery.back",
        )
    back, acting = _back(record, step.of or step.kind), who or one.who or one.owner
    return intents.write(data, record, step.kind, acting, back=back, of=step.of, vm_id=one.vm_id, insist=True)


def _claim_vm(context: Context, step: Step, who: str | None, ended: bool, data: Record) -> Intent:
    one = step.one
    record = _record_for(one, who, data)
    now = next((each for each in of_slice(record, context.db.path) if each.vm_id == one.vm_id), None)
    if now is None or now.kind != one.kind:
        raise changed(one)
    if not is_free(now, ended=ended):
        raise at_work(now)
    vm, acting = owned_vm(record, one.vm_id), who or one.who or one.owner
    return intents.write_of_vm(data, record, vm, step.kind, acting, of=step.of)


def put_back(context: Context, step: Step, who: str, data: Record) -> str:
    """Put back what was handed to the monitor and not begun, in a transaction: the state that the slice has again.

    Raises:
        RefusedError: the monitor has begun it.
    """
    record = found_again(context, step.one, who, data)
    if not record["operation"].get("handed"):
        raise at_work(step.one)
    record["status"] = record.pop("operation")["was"]
    return str(record["status"])


def found_again(context: Context, one: Unfinished, who: str | None, data: Record) -> Record:
    """The slice's record in a transaction, if it still has under way what was found before.

    Raises:
        RefusedError: it has not.
    """
    record = _record_for(one, who, data)
    now = next(of_slice(record, context.db.path), None)
    if now is None or (now.vm_id, now.kind, now.of) != (one.vm_id, one.kind, one.of):
        raise changed(one)
    return record


def _record_for(one: Unfinished, who: str | None, data: Record) -> Record:
    """The slice's record, for a user or the monitor."""
    if who is not None:
        return known_slice(data, who, one.slice_id)
    record = find_slice(data, one.slice_id)
    if record is None:
        raise changed(one)
    return record


def _back(record: Mapping[str, Any], kind: str) -> str:
    """The state a rollback of this kind returns to: as noted, else what such an operation most often begins from."""
    noted = (record.get("operation") or record).get("back", "")
    return str(noted or {DEPLOY: DESIGN, START: STOPPED, STOP: RUNNING, DELETE: STOPPED}.get(kind, ""))


def is_free(one: Unfinished, *, ended: bool) -> bool:
    """Whether somebody may take it over: nobody is at it, or `ended` says so of who cannot be seen from here."""
    return one.is_dead or one.is_handed or (ended and processes.is_elsewhere(one.process))


def at_work(one: Unfinished) -> RefusedError:
    """Said to who finds somebody at it."""
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


def changed(one: Unfinished) -> RefusedError:
    """Said to who finds that it has ended."""
    return RefusedError(
        f"slice {one.slice_id} has nothing unfinished",
        evidence="somebody else has ended it meanwhile",
        code="recovery.nothing",
    )
