"""What a link allows: written in its record, and brought to the hosts at once where its slice runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from cloudrepo import allocation, link_switches, permissions
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome
from control import intents, processes, views
from control.context import Context, Record, first_error, known_slice, owned_vm, user_record
from control.intents import Intent, own_record
from control.operation import Operation, Wish
from control.states import REPAIR, RUNNING, SET_LINK, require_state

log = logging.getLogger(__name__)


def known_link(record: Record, link_id: Any) -> Record:
    """A link of this slice.

    Raises:
        RefusedError: there is none of this number.
    """
    is_number = type(link_id) is int  # True equals 1, and is no link's number
    link: Record | None = next((one for one in record["links"] if is_number and one["link_id"] == link_id), None)
    if link is None:
        known = ", ".join(str(one["link_id"]) for one in record["links"]) or "none"
        raise RefusedError(
            f"there is no link {link_id} in slice {record['slice_id']}",
            evidence=f"its links are {known}",
            code="link.unknown",
        )
    return link


def checked(
    context: Context, data: Mapping[str, Any], username: str, link: Mapping[str, Any], wishes: Mapping[str, Any]
) -> dict[str, Any]:
    """What a user wants of a link's switches, if he may have it; inside a transaction.

    Args:
        context: the installation; its settings say what students may set.
        data: the state.
        username: who asks.
        link: the link as it is; empty for a new one.
        wishes: by switch, None = as it is.

    Raises:
        RefusedError: a value that a switch does not have, or a switch that students may not set.
    """
    wanted = link_switches.checked(wishes)
    if permissions.role_of(user_record(data, username)) == "student":
        permitted = context.settings.links.student_switches
        link_switches.require_permitted(link_switches.opened(link, wanted), permitted)
    return wanted


def write(record: Record, link: Record, wanted: Mapping[str, Any]) -> None:
    """Write switches into a link's record. On a plain wire nobody is promised an address: none is recorded."""
    link_switches.write(link, wanted)
    addresses = allocation.link_addresses(link["vlan_id"])
    for number, end in enumerate(_ends(record, link)):
        end["ip_config"] = addresses.ip_config(number) if link_switches.is_served(link) else None


def _ends(record: Record, link: Record) -> list[Record]:
    pairs = ((link["vm1_id"], link["vm1_interface"]), (link["vm2_id"], link["vm2_interface"]))
    return [one for vm_id, name in pairs for one in owned_vm(record, vm_id)["interfaces"] if one["name"] == name]


def set_link(
    context: Context,
    username: str,
    slice_id: int,
    link_id: int,
    wishes: Mapping[str, Any],
    progress: ProgressCallback | None = None,
) -> Record:
    """Set switches of a link. Where the slice runs, hosts have them when this returns; else the next start brings them.

    Hosts are asked also when nothing changes, so that to set a link again is to bring it to its hosts again.

    Args:
        context: the installation.
        username: who asks.
        slice_id: the slice: in design, stopped or running.
        link_id: the link.
        wishes: by switch, None = as it is.
        progress: told of each step.

    Returns:
        The link, as `get_slice` has it.

    Raises:
        RefusedError: no such slice or link, another operation is at work, or the switch may not be set so.
        CloudError: a host did not take it; the link is as it was, also on the hosts that answer.
    """
    intent: Intent | None = None
    try:
        with context.db.transaction() as data:
            record = known_slice(data, username, slice_id)
            insist = intents.settle_abandoned(context, record, SET_LINK)
            require_state(record, SET_LINK)
            link = known_link(record, link_id)
            before = link_switches.switches_of(link)
            write(record, link, checked(context, data, username, link, wishes))
            view = views.link(link)
            if record["status"] == RUNNING:
                # a repair: whatever comes next makes the hosts match the record, whether this process lives or not
                intent = intents.write(data, record, REPAIR, username, insist=insist)
                processes.begin_work(str(context.db.path), intent.number)
        if intent is not None:
            _bring(context, intent, link_id, before, progress)
    finally:
        if intent is not None:
            processes.end_work(str(context.db.path), intent.number)
    return view


def _bring(
    context: Context, intent: Intent, link_id: int, before: Mapping[str, Any], progress: ProgressCallback | None
) -> None:
    """Have the hosts match the record, or both be as they were."""
    failure: CloudError | None = None
    try:
        outcome = _apply(context, intent, link_id, progress)
        failure = None if outcome.ok else first_error(outcome.errors)
        if failure is not None and _put_back(context, intent, link_id, before):
            _apply(context, intent, link_id, progress, skip_unreachable=True)
    finally:
        _end(context, intent)
    if failure is not None:
        log.error("slice %s: link %s is as it was: %s", intent.slice_id, link_id, failure)
        raise failure


def _apply(
    context: Context,
    intent: Intent,
    link_id: int,
    progress: ProgressCallback | None,
    *,
    skip_unreachable: bool = False,
) -> Outcome:
    record = context.db.get_slice(intent.slice_id) or {"vms": [], "links": []}
    workers = [vm["worker_ip"] for vm in record["vms"] for one in vm["interfaces"] if one["link_id"] == link_id]
    hosts = list(dict.fromkeys([context.settings.network.node, *workers]))
    wish = Wish(machines=None, networks=True)
    return Operation(context, intent, progress).attempt(wish, hosts=hosts, skip_unreachable=skip_unreachable)


def _put_back(context: Context, intent: Intent, link_id: int, before: Mapping[str, Any]) -> bool:
    """Whether the link is as it was; not where another operation has taken over, which brings what is written."""
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is None:
            return False
        write(record, known_link(record, link_id), before)
        return True


def _end(context: Context, intent: Intent) -> None:
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None:
            record.pop("operation", None)
