"""Changes of a slice's networks: written in its record, and brought to the hosts at once where the slice runs.

On hosts they are a repair: whatever comes next makes the hosts match the record, whether this process lives or not. A
process that dies in the middle leaves a record that says what should be, and nothing of its own to resume.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection
from typing import Any

from cloudrepo.errors import CloudError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome
from control import aims, intents, processes
from control.context import Context, Record, first_error, known_slice
from control.intents import Intent, own_record
from control.operation import Operation
from control.states import REPAIR, RUNNING, require_state

log = logging.getLogger(__name__)

Edit = Callable[[Record, Record], int]
"""From the state and a slice's record, in which it changes one link: that link's number. May refuse."""


def change_link(
    context: Context,
    username: str,
    slice_id: int,
    kind: str,
    edit: Edit,
    progress: ProgressCallback | None = None,
) -> int:
    """Change one link of a slice. Where the slice runs, hosts have it when this returns; else the next start brings it.

    Hosts are asked also when nothing changes, so that to change a link again is to bring it to its hosts again.

    Args:
        context: the installation.
        username: who asks.
        slice_id: the slice.
        kind: of `control.states`: when it may be changed.
        edit: changes the record.
        progress: told of each step.

    Returns:
        The link's number.

    Raises:
        RefusedError: no such slice, another operation is at work, or the edit refuses.
        CloudError: a host did not take it; the link is as it was, also on the hosts that answer.
    """
    intent: Intent | None = None
    try:
        with context.db.transaction() as data:
            record = known_slice(data, username, slice_id)
            insist, written = written_in(context, data, record, kind, edit)
            if record["status"] == RUNNING:
                intent = intents.write(data, record, REPAIR, username, insist=insist)
                processes.begin_work(str(context.db.path), intent.number)
        if intent is not None:
            before, link_id = written.before, written.link_id
            _bring(context, intent, written.vms, lambda own: _restore(own, before, link_id), progress)
    finally:
        if intent is not None:
            processes.end_work(str(context.db.path), intent.number)
    return written.link_id


@dataclass(frozen=True, kw_only=True)
class Written:
    """A change of a link in its slice's record.

    Attributes:
        link_id: the link.
        before: `links` and `vms` of the record, as they were.
        vms: those that are or were on it.
    """

    link_id: int
    before: Record
    vms: frozenset[int]


def written_in(context: Context, data: Record, record: Record, kind: str, edit: Edit) -> tuple[bool, Written]:
    """Change one link in a slice's record, if it may be changed now; inside a transaction.

    Args:
        context: the installation.
        data: the state.
        record: the slice's.
        kind: of `control.states`: when it may be changed.
        edit: changes the record.

    Returns:
        Whether what an ended process left must be insisted on, and what was changed.

    Raises:
        RefusedError: another operation is at work, or the edit refuses.
    """
    insist = intents.settle_abandoned(context, record, kind)
    require_state(record, kind)
    before = copy.deepcopy({"links": record["links"], "vms": record["vms"]})
    link_id = edit(data, record)
    vms = frozenset(aims.vms_on(before, link_id) | aims.vms_on(record, link_id))
    return insist, Written(link_id=link_id, before=before, vms=vms)


def bring_again(context: Context, slice_id: int, who: str) -> None:
    """Have the hosts of a running slice match its record, as far as they answer; what they do not do is in the log."""
    with context.db.transaction() as data:
        record = data["slices"].get(str(slice_id))
        if record is None or record["status"] != RUNNING or record.get("operation"):
            return  # it does not run, or somebody is at it, who brings what is written
        intent = intents.write(data, record, REPAIR, who)
        processes.begin_work(str(context.db.path), intent.number)
    try:
        outcome = Operation(context, intent).attempt(aims.again().wish, skip_unreachable=aims.again().skips)
        for ip, problem in outcome.errors.items():
            log.error("slice %s: not brought to %s: %s", slice_id, ip, problem)
    except CloudError as error:
        log.error("slice %s: %s", slice_id, error)
    finally:
        _end(context, intent)
        processes.end_work(str(context.db.path), intent.number)


def _bring(
    context: Context,
    intent: Intent,
    vms: Collection[int],
    restore: Callable[[Record], None],
    progress: ProgressCallback | None,
) -> None:
    """Have the hosts match the record, or both be as they were."""
    failure: CloudError | None = None
    try:
        outcome = _apply(context, intent, vms, progress)
        failure = None if outcome.ok else first_error(outcome.errors)
        if failure is not None and _put_back(context, intent, restore):
            _apply(context, intent, vms, progress, skip_unreachable=True)
    finally:
        _end(context, intent)
    if failure is not None:
        log.error("slice %s: the link is as it was: %s", intent.slice_id, failure)
        raise failure


def _apply(
    context: Context,
    intent: Intent,
    vms: Collection[int],
    progress: ProgressCallback | None,
    *,
    skip_unreachable: bool = False,
) -> Outcome:
    record = context.db.get_slice(intent.slice_id) or {"vms": [], "links": []}
    aim = aims.change(record, vms, context.settings.network.node)
    return Operation(context, intent, progress).attempt(aim.wish, hosts=aim.hosts, skip_unreachable=skip_unreachable)


def _put_back(context: Context, intent: Intent, restore: Callable[[Record], None]) -> bool:
    """Whether the link is as it was; not where another operation has taken over, which brings what is written."""
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is None:
            return False
        restore(record)
        return True


def _restore(record: Record, before: dict[str, Any], link_id: int) -> None:
    """Put one link, and the interfaces that are or were its ends, back as they were before."""
    record["links"][:] = [link for link in record["links"] if link["link_id"] != link_id]
    known = {(vm["vm_id"], one["name"]): one for vm in before["vms"] for one in vm["interfaces"]}
    for vm in record["vms"]:
        for one in vm["interfaces"]:
            was = known.get((vm["vm_id"], one["name"]))
            if was is not None and link_id in (one["link_id"], was["link_id"]):
                one.update(copy.deepcopy(was))
    old = next((link for link in before["links"] if link["link_id"] == link_id), None)
    if old is not None:
        record["links"].append(copy.deepcopy(old))
        record["links"].sort(key=lambda link: link["link_id"])


def _end(context: Context, intent: Intent) -> None:
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None:
            record.pop("operation", None)
