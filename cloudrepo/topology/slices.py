"""A slice as a topology: from what the façade shows of it to what a file would say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo.allocation import link_addresses
from cloudrepo.link_ends import ends_of
from cloudrepo.link_switches import NAMES, is_served
from cloudrepo.naming import INTERNET_VLAN
from cloudrepo.topology.model import SPARE, End, Link, Node, Topology
from cloudrepo.validation import MAX_DATA_INTERFACES

View = Mapping[str, Any]


def topology_of(view: View, *, pinned: bool = False) -> Topology:
    """What a file says of which `apply` makes a slice like this one.

    Args:
        view: the slice, as `get_slice` shows it.
        pinned: whether each machine is to be on the worker that it is on.
    """
    names = {int(vm["vm_id"]): str(vm["name"]) for vm in view["vms"]}
    links = tuple(_link(link, names) for link in view["links"])
    bare = Topology(name=str(view["name"]), type=str(view["topology_type"]), links=links)
    nodes = tuple(_node(vm, bare.needed(str(vm["name"])), pinned=pinned) for vm in view["vms"])
    return Topology(name=bare.name, type=bare.type, nodes=nodes, links=links)


def _node(vm: View, needed: int, *, pinned: bool) -> Node:
    first_boot = vm.get("first_boot") or {}
    count = data_interfaces(vm)
    return Node(
        name=str(vm["name"]),
        flavor=str(vm["flavor"]),
        image=str(vm.get("image") or ""),
        internet=has_internet(vm),
        interfaces=None if count == default_interfaces(needed) else count,
        worker=str(vm["worker_ip"]) if pinned else "",
        restart=str(vm.get("restart") or ""),
        users=tuple(first_boot.get("users", ())),
        ssh_keys=tuple(first_boot.get("ssh_keys", ())),
        cloud_init=first_boot.get("cloud_init"),
        start=str(first_boot.get("start_script") or ""),
    )


def _link(link: View, names: Mapping[int, str]) -> Link:
    usual = link_addresses(int(link["vlan_id"])).cidr
    cidr = str(link.get("cidr") or "") if is_served(link) else ""
    return Link(
        ends=tuple(End(names[vm_id], interface) for vm_id, interface in ends_of(link)),
        switches={name: link[name] for name in NAMES},
        subnet="" if cidr == usual else cidr,
    )


def has_internet(vm: View) -> bool:
    """Whether a machine has a NIC in VLAN 400."""
    return any(one["vlan_id"] == INTERNET_VLAN for one in vm["interfaces"])


def data_interfaces(vm: View) -> int:
    """How many interfaces a machine has beside eth0."""
    return len(vm["interfaces"]) - 1


def default_interfaces(needed: int) -> int:
    """How many data interfaces a new machine gets that needs so many."""
    return min(needed + SPARE, MAX_DATA_INTERFACES)


def expressible(view: View, flavors: Sequence[str]) -> list[str]:
    """What of a slice a file cannot say, in sentences."""
    return [
        f"{vm['name']} has the flavor {vm['flavor'] or '(none)'!s}, which this installation does not have"
        for vm in view["vms"]
        if vm["flavor"] not in flavors
    ]
