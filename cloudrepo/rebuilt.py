"""Records made anew from what hosts show of an installation. Pure: hosts as they were seen go in, records come out.

Each VM's mark file keeps its record, the head of its slice and its links (`cloudrepo/remembrance.py`). What runs
says what state things are in. What neither says is listed, so that nobody takes a guess for a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudrepo.naming import MANUAL, UNFINISHED
from cloudrepo.probe import IMAGE_DIRECTORY
from cloudrepo.resources import Disk, HostState, Machine

Record = dict[str, Any]

DESIGN, RUNNING, STOPPED = "design", "running", "stopped"
#: What no host can tell, whatever it holds.
ALWAYS_UNKNOWN = (
    "passwords: the shipped accounts have their first passwords again, and ask for new ones",
    "passwords of screens: a VM gets one when it starts next",
    "quotas: they are the shipped ones, or as many VMs as a user has",
    "slices without a disk; links and restart policies that were set after the last deploy of their slice",
)


@dataclass(kw_only=True)
class Rebuilt:
    """What was made anew.

    Attributes:
        slices: by id as text, as the state file has them.
        owners: users that own something.
        operation: the highest operation number that a host has seen.
        unknown: what could not be known, a sentence each.
    """

    slices: dict[str, Record] = field(default_factory=dict)
    owners: list[str] = field(default_factory=list)
    operation: int = 0
    unknown: list[str] = field(default_factory=list)

    @property
    def vms(self) -> int:
        """How many VMs there are."""
        return sum(len(record["vms"]) for record in self.slices.values())


def rebuilt(states: Mapping[str, HostState], base_dir: str) -> Rebuilt:
    """The records behind what hosts show.

    Args:
        states: by address, what was seen of each host for this installation.
        base_dir: the image folder as records name it, such as `~/vm_images`.
    """
    found = Rebuilt(operation=max((state.facts.operation for state in states.values()), default=0))
    found.unknown += ALWAYS_UNKNOWN
    for ip, state in states.items():
        for disk in state.of(Disk):
            _take(found, ip, disk, state, base_dir)
    for record in found.slices.values():
        record["vms"].sort(key=lambda vm: vm["vm_id"])
        _settle_links(found, record)
        _settle_status(found, record)
    found.slices = dict(sorted(found.slices.items(), key=lambda item: int(item[0])))
    found.owners = list(dict.fromkeys(record["owner"] for record in found.slices.values()))
    return found


def _take(found: Rebuilt, ip: str, disk: Disk, state: HostState, base_dir: str) -> None:
    """A VM by its disk."""
    scope = disk.mark.scope if disk.mark is not None else UNFINISHED
    if scope == MANUAL:
        found.unknown.append(f"the disk of VM {disk.vm_id} on {ip} was made by hand; it is in no slice")
        return
    head, kept = disk.record.get("slice"), dict(disk.record)
    if not scope.isdecimal() or not disk.path or not isinstance(head, Mapping) or kept.get("vm_id") != disk.vm_id:
        found.unknown.append(f"what VM {disk.vm_id} on {ip} was: its mark file {disk.directory}/mark.json does not say")
        return
    links = kept.pop("links", [])
    kept.pop("slice")
    record = found.slices.setdefault(
        scope, {**_EMPTY, **head, "slice_id": int(scope), "status": DESIGN, "vms": [], "links": []}
    )
    record.update({key: value for key, value in head.items() if value})  # a later deploy knows more than the first day
    machine = state.get((Machine.KIND, str(disk.vm_id)))
    is_running = isinstance(machine, Machine) and machine.is_running
    record["vms"].append(
        {
            **kept,
            "worker_ip": ip,
            "qcow_image": f"{base_dir}/{disk.path.rpartition('/')[2]}",
            "status": RUNNING if is_running else STOPPED,
            "pid": machine.pid if isinstance(machine, Machine) and is_running else None,
        }
    )
    known = {link["link_id"] for link in record["links"]}
    record["links"] += [dict(link) for link in links if link["link_id"] not in known]


_EMPTY: Record = {
    **{"name": "", "owner": "", "topology_type": "custom"},
    **{"vlan_pool_start": None, "vlan_pool_end": None},
}


def _settle_links(found: Rebuilt, record: Record) -> None:
    """A link needs both its ends; an interface has no other link than those there are."""
    ends = {(vm["vm_id"], one["name"]) for vm in record["vms"] for one in vm["interfaces"]}
    record["links"].sort(key=lambda link: link["link_id"])
    for link in list(record["links"]):
        missing = [
            number
            for number, interface in (
                (link["vm1_id"], link["vm1_interface"]),
                (link["vm2_id"], link["vm2_interface"]),
            )
            if (number, interface) not in ends
        ]
        if missing:
            record["links"].remove(link)
            found.unknown.append(
                f"link {link['link_id']} of slice {record['slice_id']}: its other end, VM {missing[0]}, was not found"
            )
    links = {link["link_id"] for link in record["links"]}
    for vm in record["vms"]:
        for interface in vm["interfaces"]:
            if interface.get("link_id") is not None and interface["link_id"] not in links:
                interface.update(vlan_id=None, link_id=None, ip_config=None)


def _settle_status(found: Rebuilt, record: Record) -> None:
    """A slice runs when a machine of it does. One that was deployed once and does not run is taken for stopped."""
    states = {vm["status"] for vm in record["vms"]}
    name = f"slice {record['slice_id']} ({record['name']})"
    if RUNNING in states:
        record["status"] = RUNNING
        still = [str(vm["vm_id"]) for vm in record["vms"] if vm["status"] != RUNNING]
        if still:
            found.unknown.append(f"whether VM {', '.join(still)} of {name} was stopped or has died; taken for stopped")
    elif record.get("deployed"):
        record["status"] = STOPPED
        found.unknown.append(f"whether {name} was stopped, or never came up; taken for stopped")
    else:
        record["status"] = DESIGN
        found.unknown.append(f"the links of {name}, which was never deployed")
        for vm in record["vms"]:
            vm["status"] = DESIGN


def candidates(states: Iterable[HostState], own: str) -> list[str]:
    """Installations that have an image directory on a host, as a broad look under the name of `own` shows them."""
    directories = {one.whose for state in states for one in state.facts.strangers if one.kind == IMAGE_DIRECTORY}
    return sorted({own, *directories})
