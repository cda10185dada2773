"""What must be true of every state: found violations, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloudrepo.naming import INTERNET_VLAN
from cloudrepo.state import all_slices

State = Mapping[str, Any]


def violations(data: State) -> list[str]:
    """Everything that is not as it must be; empty when all is well."""
    return [
        *_ids(data),
        *_links(data),
        *_machines(data),
        *_addresses(data),
        *_owners(data),
    ]


def _twice(what: str, found: Iterable[tuple[Any, str]]) -> Iterator[str]:
    """Values that two holders have."""
    holders: dict[Any, list[str]] = {}
    for value, holder in found:
        holders.setdefault(value, []).append(holder)
    for value, names in holders.items():
        if len(names) > 1:
            yield f"{what} {value} is there {len(names)} times: {', '.join(names)}"


def _vms(data: State) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    for record in all_slices(data):
        for vm in record["vms"]:
            yield record, vm, f"VM {vm['vm_id']} of slice {record['slice_id']}"


def _ids(data: State) -> Iterator[str]:
    slices = [(record["slice_id"], f"slice {record['slice_id']}") for record in all_slices(data)]
    numbers = [*slices, *((vm["vm_id"], name) for _record, vm, name in _vms(data))]
    yield from _twice("the number", numbers)
    highest = max((number for number, _name in numbers), default=0)
    if data["next_vm_id"] <= highest:
        yield f"next_vm_id is {data['next_vm_id']}, and {highest} is given already"


def _links(data: State) -> Iterator[str]:
    vlans = [
        (link["vlan_id"], f"link {link['link_id']} of slice {record['slice_id']}")
        for record in all_slices(data)
        for link in record["links"]
    ]
    yield from _twice("VLAN", vlans)
    yield from (f"{name} is on VLAN {INTERNET_VLAN}" for vlan, name in vlans if vlan == INTERNET_VLAN)
    for record in all_slices(data):
        where = f"slice {record['slice_id']}"
        yield from _twice("the link number", ((link["link_id"], where) for link in record["links"]))
        for link in record["links"]:
            yield from _ends(record, link, f"link {link['link_id']} of {where}")
        known = {link["link_id"] for link in record["links"]}
        for vm in record["vms"]:
            for nic in vm["interfaces"]:
                if nic["link_id"] is not None and nic["link_id"] not in known:
                    yield f"{nic['name']} of VM {vm['vm_id']} is an end of link {nic['link_id']}, which is not there"


def _ends(record: Mapping[str, Any], link: Mapping[str, Any], name: str) -> Iterator[str]:
    for end in ("vm1", "vm2"):
        nics = [
            nic
            for vm in record["vms"]
            if vm["vm_id"] == link[f"{end}_id"]
            for nic in vm["interfaces"]
            if nic["name"] == link[f"{end}_interface"]
        ]
        if not nics:
            yield f"{name} ends at {link[f'{end}_interface']} of VM {link[f'{end}_id']}, which is not there"
        elif (nics[0]["vlan_id"], nics[0]["link_id"]) != (link["vlan_id"], link["link_id"]):
            yield f"{name} ends at {nics[0]['name']} of VM {link[f'{end}_id']}, which does not know of it"


def _machines(data: State) -> Iterator[str]:
    ports = [((vm["worker_ip"], vm["vnc_port"]), name) for _record, vm, name in _vms(data) if vm["vnc_port"]]
    yield from _twice("the screen's port", ports)
    disks = [((vm["worker_ip"], vm["qcow_image"]), name) for _record, vm, name in _vms(data) if vm["qcow_image"]]
    yield from _twice("the disk", disks)
    known = {*data["workers"], *data["workers_list"]}
    for record, vm, name in _vms(data):
        if vm["worker_ip"] not in known:
            yield f"{name} is on worker {vm['worker_ip'] or '(none)'}, which is not there"
        if vm["owner"] != record["owner"]:
            yield f"{name} belongs to {vm['owner']}, and its slice to {record['owner']}"
    for record in all_slices(data):
        names = ((vm["name"], f"VM {vm['vm_id']}") for vm in record["vms"])
        yield from _twice(f"in slice {record['slice_id']} the name", names)


def _addresses(data: State) -> Iterator[str]:
    macs: list[tuple[Any, str]] = []
    internet: list[tuple[Any, str]] = []
    for _record, vm, name in _vms(data):
        for nic in vm["interfaces"]:
            macs.append((nic["mac"], f"{nic['name']} of {name}"))
            if nic["vlan_id"] == INTERNET_VLAN and nic["ip_config"]:
                internet.append((nic["ip_config"]["ip"], f"{nic['name']} of {name}"))
    yield from _twice("the MAC address", macs)
    yield from _twice("the internet address", internet)


def _owners(data: State) -> Iterator[str]:
    counts: dict[str, int] = {}
    for record in all_slices(data):
        counts[record["owner"]] = counts.get(record["owner"], 0) + len(record["vms"])
        if record["owner"] not in data["users"]:
            yield f"slice {record['slice_id']} belongs to {record['owner'] or '(nobody)'}, who is no user"
    for name, user in data["users"].items():
        if counts.get(name, 0) > user["quota_vms"]:
            yield f"{name} has {counts[name]} VMs, and a quota of {user['quota_vms']}"
