"""What a worker's mark file says of a VM, taken only as far as a record of ours can say it. Pure.

Who has a worker can write there what they like. So each value is held against what the façade itself would have
written; one that does not fit refuses the VM, in a sentence that can be shown.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloudrepo import first_boot, link_ends, link_switches, validation
from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import INTERNET_VLAN
from cloudrepo.validation import shown
from cloudrepo.watched import POLICIES

Record = dict[str, Any]
Checks = Mapping[str, Callable[[Any], Any]]

HIGHEST_ID = 16_000_000  # of a slice or VM; beyond, a NIC has no meter's number (`naming.meter_number`)
HIGHEST_OPERATION = 10**12
MOST_ENDS = 250  # of one link, beside the first two
_MOST_LINKS = validation.MAX_DATA_INTERFACES + 1
_FLAVOR = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,30})?\Z")
_DISK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.qcow2\Z")


@dataclass(frozen=True)
class Kept:
    """What a mark file keeps, in the form of records.

    Attributes:
        head: of the slice; only keys that are there.
        vm: its record, without what the host itself shows.
        links: those that it is an end of.
        ignored: keys that no record has, as they can be shown.
    """

    head: Record
    vm: Record
    links: list[Record]
    ignored: list[str]


def kept(record: Mapping[str, Any], slice_id: int, vm_id: int) -> Kept:
    """Read what a mark file keeps of a VM.

    Args:
        record: as the host said it.
        slice_id: of the mark, which it must agree with.
        vm_id: likewise.

    Raises:
        ValueError: something of it is none of ours; the text says what, and can be shown.
    """
    rest = dict(record)
    head, links = _mapping("slice", rest.pop("slice", None)), _list("links", rest.pop("links", []), _MOST_LINKS)
    ignored: list[str] = []
    found = Kept(
        head=_fields("slice", head, _HEAD, (), ignored),
        vm=_fields("VM", rest, _VM, _NEEDED, ignored),
        links=[_link(link, ignored) for link in links],
        ignored=ignored,
    )
    _require(found.vm["vm_id"] == vm_id and 1 <= vm_id <= HIGHEST_ID, f"vm_id {shown(vm_id)}")
    _require(found.head.get("slice_id", slice_id) == slice_id and 1 <= slice_id <= HIGHEST_ID, "slice_id")
    _require("owner" in found.head and found.vm["owner"] == found.head["owner"], "the owner of VM and slice differ")
    pool = [found.head.get(key) for key in ("vlan_pool_start", "vlan_pool_end")]
    _require(pool == [None, None] or (None not in pool and pool[0] <= pool[1]), "the pool of VLANs")  # type: ignore[operator]
    names = [one["name"] for one in found.vm["interfaces"]]
    _require(len(names) == len(set(names)), "two interfaces of one name")
    return found


def disk_name(path: Any) -> str:
    """The file name of a disk.

    Raises:
        ValueError: no disk of ours has that name.
    """
    name = path.rpartition("/")[2] if isinstance(path, str) else ""
    _require(_DISK.match(name) is not None, f"the name of its disk is {shown(path)}")
    return name


def _require(is_so: bool, problem: str) -> None:
    if not is_so:
        raise ValueError(problem)


def _fields(
    what: str,
    given: Mapping[str, Any],
    kinds: Mapping[str, Callable[[Any], Any]],
    needed: Iterable[str],
    ignored: list[str],
) -> Record:
    """The known fields of a mapping, each checked; None counts as not there."""
    for key in needed:
        _require(given.get(key) is not None, f"{what} without {key}")
    found: Record = {}
    for key, value in given.items():
        if key not in kinds:
            ignored.append(shown(key))
        elif value is not None:
            try:
                found[key] = kinds[key](value)
            except (RefusedError, ValueError, OverflowError) as error:
                raise ValueError(f"{key} of {what} is {shown(value)}") from error
    return found


def _link(given: Any, ignored: list[str]) -> Record:
    link = _fields("link", _mapping("link", given), _LINK, _LINK_NEEDED, ignored)
    for name, problem in link_switches.wrong(link):
        raise ValueError(f"{problem}, found {shown(link[name])}")
    return link


def _end(given: Any) -> Record:
    kinds: Checks = {"vm_id": _ID, "interface": validation.interface_name}
    return _fields("end", _mapping("end", given), kinds, ("vm_id", "interface"), [])


def _interface(given: Any) -> Record:
    found = _fields("interface", _mapping("interface", given), _INTERFACE, ("name", "mac"), [])
    return {"vlan_id": None, "ip_config": None, "link_id": None, **found}


def _mapping(what: str, value: Any) -> Mapping[str, Any]:
    _require(isinstance(value, Mapping), f"{what} is {shown(value)}")
    found: Mapping[str, Any] = value
    return found


def _list(what: str, value: Any, most: int) -> list[Any]:
    _require(isinstance(value, list), f"{what} is {shown(value)}")
    _require(len(value) <= most, f"{what} holds {len(value)} entries")
    return list(value)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        _require(type(value) is int and low <= value <= high, "a number")
        return int(value)

    return check


def _amount(value: Any) -> float:
    _require(type(value) in (int, float) and math.isfinite(value) and 0 < value < 1e6, "an amount")
    amount: float = value
    return amount


def _vlan(value: Any) -> int:
    return _whole(1, 4094)(value)


def _link_vlan(value: Any) -> int:
    _require(value != INTERNET_VLAN, "the VLAN of the internet")
    return _vlan(value)


def _printable(most: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        _require(isinstance(value, str) and value.isprintable() and len(value) <= most, "a text")
        return str(value)

    return check


def _flavor(value: Any) -> str:
    _require(isinstance(value, str) and _FLAVOR.match(value) is not None, "a flavor")
    return str(value)


def _restart(value: Any) -> str:
    _require(isinstance(value, str) and value in POLICIES, "a policy")
    return str(value)


def _ipv4(value: Any) -> str:
    _require(isinstance(value, str), "an address")
    return str(ipaddress.IPv4Address(value))


def _subnet(value: Any) -> str:
    _require(isinstance(value, str), "a subnet")
    return str(ipaddress.IPv4Network(value))


def _addresses(value: Any) -> Record:
    return _fields("ip_config", _mapping("ip_config", value), dict.fromkeys(_ADDRESSES, _ipv4), ("ip",), [])


def _interfaces(value: Any) -> list[Record]:
    return [_interface(one) for one in _list("interfaces", value, validation.MAX_DATA_INTERFACES + 1)]


def _first_boot(value: Any) -> Record:
    return first_boot.wanted(value)


_ID = _whole(1, HIGHEST_ID)
_text = _printable(1000)
_owner = _printable(64)  # state files of before may have users that `validation.username` would not take
_ADDRESSES = ("ip", "netmask", "gateway")
_NEEDED = ("vm_id", "name", "owner", "interfaces")
_LINK_NEEDED = ("link_id", "vlan_id", "vm1_id", "vm1_interface", "vm2_id", "vm2_interface")
_HEAD: Checks = {
    "slice_id": _ID,
    "name": validation.slice_name,
    "owner": _owner,
    "topology_type": validation.topology_type,
    "vlan_pool_start": _vlan,
    "vlan_pool_end": _vlan,
    "deployed": lambda value: validation.truth(value, "deployed"),
}
_VM: Checks = {
    "vm_id": _ID,
    "name": validation.vm_name,
    "owner": _owner,
    "worker_ip": _text,
    "flavor": _flavor,
    "cores": _whole(1, 4096),
    "ram_gb": _amount,
    "disk_gb": _amount,
    "vnc_port": _whole(1, 65535),
    "interfaces": _interfaces,
    "qcow_image": _text,
    "image": _text,
    "image_source": _text,
    "restart": _restart,
    first_boot.KEY: _first_boot,
}
_INTERFACE: Checks = {
    "name": validation.interface_name,
    "mac": validation.mac_address,
    "vlan_id": _vlan,
    "link_id": _ID,
    "ip_config": _addresses,
}
_LINK: Checks = {
    "link_id": _ID,
    "vlan_id": _link_vlan,
    "vm1_id": _ID,
    "vm1_interface": validation.interface_name,
    "vm2_id": _ID,
    "vm2_interface": validation.interface_name,
    link_ends.MORE: lambda value: [_end(one) for one in _list(link_ends.MORE, value, MOST_ENDS)],
    "cidr": _subnet,
    "gateway_ip": _ipv4,
    **dict.fromkeys(link_switches.POLICY, _text),
    link_switches.DHCP: lambda value: validation.truth(value, "dhcp"),
}
