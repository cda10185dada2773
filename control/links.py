"""Links: made, removed, joined, and what they allow. On a running slice the hosts have it when a call returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo import allocation, link_ends, link_switches, permissions
from cloudrepo.errors import RefusedError
from cloudrepo.link_ends import End
from cloudrepo.naming import INTERNET_VLAN
from cloudrepo.progress import ProgressCallback
from cloudrepo.topology import subnets
from cloudrepo.validation import shown
from control import live, views
from control.context import Context, Record, owned_vm, user_record
from control.states import CHANGE, SET_LINK
from models import Link


def known_link(record: Record, link_id: Any) -> Record:
    """A link of this slice.

    Raises:
        RefusedError: there is none of this number.
    """
    is_number = type(link_id) is int  # True equals 1, and is no link's number
    link: Record | None = next((one for one in record["links"] if is_number and one["link_id"] == link_id), None)
    if link is None:
        known = ", ".join(str(one["link_id"]) for one in record["links"])
        raise RefusedError(
            f"there is no link {link_id} in slice {record['slice_id']}",
            evidence=f"its links are {known}" if known else "it has none",
            code="link.unknown",
        )
    return link


# ---------------------------------------------------------------------------------------- the use cases


def create(
    context: Context,
    username: str,
    slice_id: int,
    ends: Sequence[End],
    switches: Mapping[str, Any],
    subnet: str = "",
    progress: ProgressCallback | None = None,
) -> Record:
    """A link between free interfaces of two VMs or more. Everything is checked before a VLAN is taken.

    Args:
        context: the installation.
        username: who asks.
        slice_id: the slice: in design, stopped or running.
        ends: VM ids and interfaces.
        switches: those that are not as usual; see `cloudrepo/link_switches.py`.
        subnet: in place of the usual one.
        progress: told of each step.

    Returns:
        The documented six keys.

    Raises:
        RefusedError: an end cannot be linked, a switch may not be set so, or no VLAN is free.
        CloudError: a host of the running slice did not take it; there is no link.
    """
    made: Record = {}

    def edit(data: Record, record: Record) -> int:
        made.update(add(context, data, record, username, ends, switches, subnet))
        return int(made["link_id"])

    live.change_link(context, username, slice_id, CHANGE, edit, progress)
    return made


def add(
    context: Context,
    data: Record,
    record: Record,
    username: str,
    ends: Sequence[End],
    switches: Mapping[str, Any],
    subnet: str = "",
) -> Record:
    """Write a new link into a slice's record; see `create`. Its documented six keys."""
    interfaces = _free_interfaces(record, ends)
    wanted = checked(context, data, username, {}, switches)
    network = subnets.for_link(subnet, context.settings.internet.cidr, len(ends))
    vlan_id = allocation.choose_vlan(data, record["slice_id"], context.settings.vlan)
    link_id = allocation.next_link_id(record)
    addresses = allocation.link_addresses(vlan_id, network)
    for interface in interfaces:
        interface |= {"vlan_id": vlan_id, "link_id": link_id}
    (vm1_id, vm1_interface), (vm2_id, vm2_interface) = ends[:2]
    made = Link(link_id, vlan_id, vm1_id, vm1_interface, vm2_id, vm2_interface).to_dict()
    record["links"].append({**made, "cidr": addresses.cidr, "gateway_ip": addresses.gateway})
    link_ends.write(record["links"][-1], ends)
    write(record, record["links"][-1], wanted)
    return made


def remove(
    context: Context, username: str, slice_id: int, link_id: int, progress: ProgressCallback | None = None
) -> str:
    """Take a link away; its VLAN and its interfaces are free again.

    Raises:
        RefusedError: no such slice or link, or another operation is at work.
        CloudError: a host of the running slice did not do it; the link is as it was.
    """
    live.change_link(context, username, slice_id, CHANGE, removal(link_id), progress)
    return "Link removed"


def removal(link_id: Any) -> live.Edit:
    """What takes a link out of its slice's record."""

    def edit(_data: Record, record: Record) -> int:
        link = known_link(record, link_id)
        unlink(record, link)
        return int(link["link_id"])

    return edit


def set_ends(
    context: Context,
    username: str,
    slice_id: int,
    link_id: int,
    ends: Sequence[End],
    progress: ProgressCallback | None = None,
) -> Record:
    """Have a link join these interfaces; those that stay keep their addresses.

    Returns:
        The link, as `get_slice` has it.

    Raises:
        RefusedError: no such slice or link, or an end cannot be linked.
        CloudError: a host of the running slice did not take it; the link is as it was.
    """
    view: Record = {}

    def edit(_data: Record, record: Record) -> int:
        link = known_link(record, link_id)
        subnets.require_room(link["cidr"], len(ends))
        interfaces = _free_interfaces(record, ends, but=link["link_id"])
        for one in _interfaces(record, link_ends.ends_of(link)):
            if not any(one is stays for stays in interfaces):
                one |= {"vlan_id": None, "link_id": None, "ip_config": None}
        for one in interfaces:
            one |= {"vlan_id": link["vlan_id"], "link_id": link["link_id"]}
        link_ends.write(link, ends)
        write(record, link, {})
        view.update(views.link(link))
        return int(link["link_id"])

    live.change_link(context, username, slice_id, CHANGE, edit, progress)
    return view


def set_link(
    context: Context,
    username: str,
    slice_id: int,
    link_id: int,
    wishes: Mapping[str, Any],
    progress: ProgressCallback | None = None,
) -> Record:
    """Set switches of a link; see `live.change_link`.

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
    view: Record = {}
    edit = switching(context, username, link_id, wishes, view)
    live.change_link(context, username, slice_id, SET_LINK, edit, progress)
    return view


def switching(
    context: Context, username: str, link_id: Any, wishes: Mapping[str, Any], view: Record | None = None
) -> live.Edit:
    """What sets switches of a link in its slice's record, and puts the link into `view`; see `set_link`."""

    def edit(data: Record, record: Record) -> int:
        link = known_link(record, link_id)
        write(record, link, checked(context, data, username, link, wishes))
        if view is not None:
            view.update(views.link(link))
        return int(link["link_id"])

    return edit


# ---------------------------------------------------------------------------------------- records


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
    """Write switches into a link's record, and addresses into those of its ends, which keep what they have.

    On a plain wire nobody is promised an address: none is recorded.
    """
    link_switches.write(link, wanted)
    addresses = allocation.link_addresses(link["vlan_id"], link.get("cidr") or "")
    ends = _interfaces(record, link_ends.ends_of(link))
    if not link_switches.is_served(link):
        for end in ends:
            end["ip_config"] = None
        return
    taken = {end["ip_config"]["ip"] for end in ends if end["ip_config"]}
    for end in ends:
        if not end["ip_config"]:
            end["ip_config"] = addresses.ip_config(0, taken)
            taken.add(end["ip_config"]["ip"])


def unlink(record: Record, link: Record) -> None:
    """Take a link out of its slice's record."""
    record["links"].remove(link)
    for one in _interfaces(record, link_ends.ends_of(link)):
        one |= {"vlan_id": None, "link_id": None, "ip_config": None}


def leave(record: Record, vm_id: int) -> None:
    """Take a VM out of its slice's links: a link of two goes, a larger network keeps the others."""
    for link in [one for one in record["links"] if vm_id in link_ends.vms_of(one)]:
        rest = [end for end in link_ends.ends_of(link) if end[0] != vm_id]
        if len(rest) < 2:
            unlink(record, link)
            continue
        for one in _interfaces(record, [end for end in link_ends.ends_of(link) if end[0] == vm_id]):
            one |= {"vlan_id": None, "link_id": None, "ip_config": None}
        link_ends.write(link, rest)


def _interfaces(record: Record, ends: Sequence[End]) -> list[Record]:
    return [one for vm_id, name in ends for one in owned_vm(record, vm_id)["interfaces"] if one["name"] == name]


def _free_interfaces(record: Record, ends: Sequence[End], but: int | None = None) -> list[Record]:
    """The interfaces of these ends: free, or of link `but`.

    Raises:
        RefusedError: there are less than two, one is no free interface, or two are on one VM.
    """
    if len(ends) < 2:
        raise RefusedError("a link needs two ends", evidence=f"found {len(ends)}", code="link.self")
    found = [_free_interface(record, vm_id, name, but) for vm_id, name in ends]
    for number, (vm_id, name) in enumerate(ends):
        if ends[number] in ends[:number]:
            evidence = f"both ends are {name} of VM {vm_id}"
            raise RefusedError("a link needs two interfaces", evidence=evidence, code="link.self")
        if vm_id in [other for other, _ in ends[:number]]:
            raise RefusedError("a link needs two VMs", evidence=f"both ends are on VM {vm_id}", code="link.self")
    return found


def _free_interface(record: Record, vm_id: int, name: str, but: int | None) -> Record:
    vm = owned_vm(record, vm_id)
    interface: Record | None = next((one for one in vm["interfaces"] if one["name"] == name), None)
    if interface is None:
        names = ", ".join(one["name"] for one in vm["interfaces"])
        raise RefusedError(
            f"VM {vm_id} has no interface {shown(name)}", evidence=f"it has {names}", code="interface.unknown"
        )
    if interface["vlan_id"] == INTERNET_VLAN:
        raise RefusedError(
            f"{name} of VM {vm_id} is its way to the internet and cannot be linked",
            remedy="Use one of its data interfaces (eth1, eth2 …)",
            code="interface.internet",
        )
    if interface["link_id"] is not None and interface["link_id"] != but:
        raise RefusedError(
            f"{name} of VM {vm_id} is already an end of link {interface['link_id']}",
            remedy="Remove that link first, or use another interface",
            code="interface.used",
        )
    return interface
