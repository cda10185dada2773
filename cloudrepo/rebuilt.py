"""Records made anew from what hosts show of an installation. Pure: hosts as they were seen go in, records come out.

Each VM's mark file keeps its record, the head of its slice and its links (`cloudrepo/remembrance.py`). What runs
says what state things are in. What neither says is listed, so that nobody takes a guess for a fact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from cloudrepo.late_dataclass import dataclass
from cloudrepo.link_ends import ends_of
from cloudrepo.mark_records import HIGHEST_OPERATION, Kept, disk_name, kept
from cloudrepo.naming import INTERNET_VLAN, MANUAL, UNFINISHED
from cloudrepo.probe import IMAGE_DIRECTORY
from cloudrepo.resources import Disk, HostState, Machine
from cloudrepo.validation import excerpt

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
        numbers: of the VMs.
    """

    slices: dict[str, Record] = field(default_factory=dict)
    owners: list[str] = field(default_factory=list)
    operation: int = 0
    unknown: list[str] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)

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
    found = Rebuilt()
    found.unknown += ALWAYS_UNKNOWN
    for ip, state in states.items():
        _count(found, ip, state.facts.operation)
        for disk in state.of(Disk):
            _take(found, ip, disk, state, base_dir)
    for record in found.slices.values():
        record["vms"].sort(key=lambda vm: vm["vm_id"])
        _settle_links(found, record)
    _settle_vlans(found)
    for record in found.slices.values():
        _settle_status(found, record)
    found.unknown = list(dict.fromkeys(found.unknown))
    found.slices = dict(sorted(found.slices.items(), key=lambda item: int(item[0])))
    found.owners = list(dict.fromkeys(record["owner"] for record in found.slices.values()))
    return found


def _count(found: Rebuilt, ip: str, operation: int) -> None:
    if operation <= HIGHEST_OPERATION:
        found.operation = max(found.operation, operation)
    else:
        found.unknown.append(f"which operation was the last on {ip}: no installation has counted that far")


def _take(found: Rebuilt, ip: str, disk: Disk, state: HostState, base_dir: str) -> None:
    """A VM by its disk."""
    scope = disk.mark.scope if disk.mark is not None else UNFINISHED
    if scope == MANUAL:
        found.unknown.append(f"the disk of VM {disk.vm_id} on {ip} was made by hand; it is in no slice")
        return
    name = f"VM {disk.vm_id} on {ip}"
    mark_file = f"its mark file {excerpt(disk.directory)}/mark.json"
    head = disk.record.get("slice")
    if (
        not scope.isdecimal()
        or not disk.path
        or not isinstance(head, Mapping)
        or disk.record.get("vm_id") != disk.vm_id
    ):
        found.unknown.append(f"what {name} was: {mark_file} does not say")
        return
    try:
        said, file = kept(disk.record, int(scope), disk.vm_id), disk_name(disk.path)
    except ValueError as error:
        found.unknown.append(f"what {name} was: {mark_file} holds what no record of ours has ({error})")
        return
    if disk.vm_id in found.numbers:
        found.unknown.append(f"whether {name} is the true one: another host showed a VM of this number before")
        return
    record = _slice_of(found, scope, said, name)
    if record is None:
        return
    found.numbers.add(disk.vm_id)
    if said.ignored:
        found.unknown.append(f"what {mark_file} of VM {disk.vm_id} means by {', '.join(said.ignored[:5])}")
    machine = state.get((Machine.KIND, str(disk.vm_id)))
    is_running = isinstance(machine, Machine) and machine.is_running
    record["vms"].append(
        {
            **said.vm,
            "worker_ip": ip,
            "qcow_image": f"{base_dir}/{file}",
            "status": RUNNING if is_running else STOPPED,
            "pid": machine.pid if isinstance(machine, Machine) and is_running else None,
        }
    )
    record["links"] += [link for link in said.links if link not in record["links"]]


def _slice_of(found: Rebuilt, scope: str, said: Kept, name: str) -> Record | None:
    """The record of a VM's slice, made or completed by what its mark file says; None when it contradicts the others."""
    record = found.slices.get(scope)
    if record is None:
        record = found.slices[scope] = {
            **_EMPTY, **said.head, "slice_id": int(scope), "status": DESIGN, "vms": [], "links": []
        }  # fmt: skip
        return record
    for key, value in said.head.items():
        if key in _ONE_SAYS_ALL and record.get(key) not in (None, "", value):
            found.unknown.append(
                f"whose {name} is: it says that the {key} of slice {scope} is {value}, and others say {record[key]}"
            )
            return None
    record.update({key: value for key, value in said.head.items() if value})  # a later deploy knows more
    return record


_ONE_SAYS_ALL = ("owner", "vlan_pool_start", "vlan_pool_end")  # what no deploy changes
_EMPTY: Record = {
    **{"name": "", "owner": "", "topology_type": "custom"},
    **{"vlan_pool_start": None, "vlan_pool_end": None},
}


def _settle_links(found: Rebuilt, record: Record) -> None:
    """A link needs both its ends, which agree on it; an interface has no other link and VLAN than those give it."""
    nics = {(vm["vm_id"], one["name"]): one for vm in record["vms"] for one in vm["interfaces"]}
    record["links"].sort(key=lambda link: link["link_id"])
    told = Counter(link["link_id"] for link in record["links"])
    left: list[Record] = []
    for link in record["links"]:
        problem = "its ends say different things of it" if told[link["link_id"]] > 1 else _wrong_end(link, nics)
        if not problem:
            left.append(link)
        else:
            found.unknown.append(f"link {link['link_id']} of slice {record['slice_id']}: {problem}")
    record["links"] = left
    _free(record)


def _wrong_end(link: Record, nics: Mapping[tuple[int, str], Record]) -> str:
    """Why there is no such link; "" when both its ends know of it."""
    for vm_id, interface in ends_of(link):
        nic = nics.get((vm_id, interface))
        if nic is None:
            return f"its other end, VM {vm_id}, was not found"
        if (nic["link_id"], nic["vlan_id"]) != (link["link_id"], link["vlan_id"]):
            return f"its end at VM {vm_id} does not know of it"
    return ""


def _settle_vlans(found: Rebuilt) -> None:
    """A VLAN is of one link. Of those that claim one together nobody knows whose it is, and none may hear the other."""
    claims: dict[int, list[tuple[Record, Record]]] = {}
    for record in found.slices.values():
        for link in record["links"]:
            claims.setdefault(link["vlan_id"], []).append((record, link))
    for vlan, holders in claims.items():
        if len(holders) > 1:
            names = ", ".join(f"link {link['link_id']} of slice {record['slice_id']}" for record, link in holders)
            found.unknown.append(f"whose VLAN {vlan} is: {names} were on it; they are left out")
            for record, link in holders:
                record["links"].remove(link)
                _free(record)


def _free(record: Record) -> None:
    """Interfaces that are an end of no link of the slice are on no VLAN but that of the internet."""
    ends = {end: link["link_id"] for link in record["links"] for end in ends_of(link)}
    for vm in record["vms"]:
        for one in vm["interfaces"]:
            is_end = one["link_id"] is not None and ends.get((vm["vm_id"], one["name"])) == one["link_id"]
            if not is_end and (one["link_id"] is not None or one["vlan_id"] not in (None, INTERNET_VLAN)):
                one.update(vlan_id=None, link_id=None, ip_config=None)


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
