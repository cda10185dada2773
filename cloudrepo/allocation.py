"""Choosing what must be unique: ids, VLANs, addresses, ports, MACs, disk file names.

Pure functions over the state mapping (`Database.data`). The documented formula is the first choice; when its
value is taken, the next free one is used. What is in use is read from the live records, so whatever is
deleted is free again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import INTERNET_VLAN
from cloudrepo.settings import Settings, Vlan
from cloudrepo.state import all_slices

State = Mapping[str, Any]

DEFAULT_FIRST_VLAN = 100
POOL_SIZE = 20  # VLANs of a slice's pool, and so the most links a slice can have
MAX_MAC_INDEX = 255  # one byte
MAX_PORT = 65535
FIRST_END = 10  # the last part of the address that the first end of a link has


# ---------------------------------------------------------------------------------------- the records


def all_vms(data: State) -> Iterator[Mapping[str, Any]]:
    """Every VM of every slice."""
    for record in all_slices(data):
        yield from record["vms"]


def next_id(data: MutableMapping[str, Any]) -> int:
    """The next number for a slice or a VM: they share one counter, which this advances."""
    number: int = data["next_vm_id"]
    data["next_vm_id"] = number + 1
    return number


def next_operation(data: MutableMapping[str, Any], above: int = 0) -> int:
    """The next operation number, which hosts compare; it only ever grows. Advances the counter, beyond `above` too."""
    number = max(int(data.get("operation", 0)), above) + 1
    data["operation"] = number
    return number


def next_link_id(record: Mapping[str, Any]) -> int:
    """The number of a slice's next link: 1, 2, 3 …; that of a removed last link is given again."""
    return max((link["link_id"] for link in record["links"]), default=0) + 1


# ---------------------------------------------------------------------------------------- VLANs


def formula_block(slice_id: int, first: int = DEFAULT_FIRST_VLAN) -> int:
    """First VLAN of the documented pool of a slice."""
    return first + (slice_id % 100) * POOL_SIZE


def choose_block(data: State, slice_id: int, vlan: Vlan) -> tuple[int, int] | None:
    """First and last VLAN of a new slice's pool, or None when no block of 20 is free.

    The documented block comes first, then the next ones after it, around the end. A block is free when it
    overlaps no other slice's pool and no live link has a VLAN in it. Blocks with a reserved VLAN (400)
    are passed over except as the documented one, where the slice has one VLAN less in its pool.
    """
    wanted = formula_block(slice_id, vlan.first)
    starts = list(range(vlan.first, vlan.last - POOL_SIZE + 2, POOL_SIZE))
    later = [start for start in starts if start > wanted]
    earlier = [start for start in starts if start < wanted]
    reserved = _reserved(vlan)
    taken = _pooled(data, slice_id) | _linked(data, slice_id)
    for start in [*([wanted] if wanted in starts else []), *later, *earlier]:
        block = set(range(start, start + POOL_SIZE))
        if not block & taken and (start == wanted or not block & reserved):
            return start, start + POOL_SIZE - 1
    return None


def choose_vlan(data: State, slice_id: int, vlan: Vlan) -> int:
    """The VLAN of a slice's next link.

    The lowest of its pool that no live link uses. When the pool has fewer than 20 (it holds 400, or lost
    one to another slice, or there is no pool), single VLANs: first from outside all pools, then from
    other slices' pools, from the end.

    Raises:
        RefusedError: `VLAN pool exhausted`: the slice has 20 links, or no VLAN is free at all.
    """
    record = data["slices"][str(slice_id)]
    if len(record["links"]) < POOL_SIZE:
        taken = _linked(data) | _reserved(vlan)
        start, end = record["vlan_pool_start"], record["vlan_pool_end"]
        own = range(start, end + 1) if start is not None else range(0)
        pooled = _pooled(data, slice_id)
        last_to_first = range(vlan.last, vlan.first - 1, -1)
        outside = (number for number in last_to_first if number not in pooled and number not in own)
        inside = (number for number in last_to_first if number in pooled)
        for candidates in (own, outside, inside):
            for number in candidates:
                if number not in taken:
                    return number
    raise RefusedError("VLAN pool exhausted", code="vlan.exhausted")


def _reserved(vlan: Vlan) -> set[int]:
    return {*vlan.reserved, INTERNET_VLAN}


def _linked(data: State, but: int | None = None) -> set[int]:
    """VLANs of live links, those of slice `but` left out."""
    return {link["vlan_id"] for record in all_slices(data) if record["slice_id"] != but for link in record["links"]}


def _pooled(data: State, but: int) -> set[int]:
    """VLANs in the pools of slices other than `but`."""
    found: set[int] = set()
    for record in all_slices(data):
        start, end = record["vlan_pool_start"], record["vlan_pool_end"]
        if start is not None and record["slice_id"] != but:
            found.update(range(start, end + 1))
    return found


# ---------------------------------------------------------------------------------------- addresses


@dataclass(frozen=True)
class LinkAddresses:
    """The subnet of a link: gateway and DHCP server (its first two addresses, .1 and .2), and those of its ends."""

    network: ipaddress.IPv4Network

    @property
    def cidr(self) -> str:
        """The subnet as text."""
        return str(self.network)

    @property
    def netmask(self) -> str:
        """Its mask as text."""
        return str(self.network.netmask)

    @property
    def gateway(self) -> str:
        """Its first address."""
        return str(self.network[1])

    @property
    def dhcp(self) -> str:
        """Its second address."""
        return str(self.network[2])

    @property
    def room(self) -> int:
        """How many ends it has addresses for."""
        return self.network.num_addresses - 1 - self._first

    @property
    def _first(self) -> int:
        """The first end has .10; in a subnet of less than 32 addresses .3."""
        return FIRST_END if self.network.num_addresses >= 32 else 3

    def ip_config(self, end: int, taken: Collection[str] = ()) -> dict[str, str]:
        """The `ip_config` of an end: .10 for end 0, .11 for end 1 and so on, or the next that is not taken.

        Raises:
            RefusedError: every address is taken.
        """
        for host in range(self._first + end, self.network.num_addresses - 1):
            address = str(self.network[host])
            if address not in taken:
                return {"ip": address, "netmask": self.netmask, "gateway": self.gateway}
        raise RefusedError(
            f"no address of {self.network} is free",
            evidence=f"it has addresses for {self.room} ends",
            remedy="Give the link a larger subnet",
            code="link.subnet",
        )


def link_addresses(vlan_id: int, subnet: str = "") -> LinkAddresses:
    """The addresses on a link's VLAN: 192.168.{vlan % 256}.0/24, ends .10 and .11; or those of another subnet.

    VLANs 256 apart share a subnet; each has a namespace of its own, so they never meet.
    """
    return LinkAddresses(ipaddress.IPv4Network(subnet or f"192.168.{vlan_id % 256}.0/24"))


def internet_gateway(cidr: str) -> str:
    """The gateway of the internet subnet: its first address."""
    return str(ipaddress.IPv4Network(cidr)[1])


def dhcp_address(network: ipaddress.IPv4Network, gateway_ip: str) -> str:
    """A subnet's DHCP server: the documented .2, or the first other address where .2 is the gateway."""
    second, third = str(network[2]), str(network[3])
    return second if second != gateway_ip else third


def choose_internet_address(data: State, vm_id: int, cidr: str) -> dict[str, str]:
    """The `ip_config` of a VM's `eth0`: the documented 100 + vm_id % 100 if free, else the next free address.

    Raises:
        RefusedError: every address of the subnet is in use.
    """
    network = ipaddress.IPv4Network(cidr)
    taken = {
        interface["ip_config"]["ip"]
        for vm in all_vms(data)
        for interface in vm["interfaces"]
        if interface["vlan_id"] == INTERNET_VLAN and interface["ip_config"]
    }
    first, last = 3, network.num_addresses - 2  # without network, gateway, DHCP server and broadcast
    wanted = 100 + vm_id % 100
    start = wanted if first <= wanted <= last else first
    for host in (*range(start, last + 1), *range(first, start)):
        address = str(network[host])
        if address not in taken:
            return {"ip": address, "netmask": str(network.netmask), "gateway": str(network[1])}
    raise RefusedError(
        f"no address of {cidr} is free for internet access",
        evidence=f"{len(taken)} are in use",
        remedy="Delete a VM that has internet access, or set internet.cidr to a larger subnet",
        code="internet.exhausted",
    )


# ---------------------------------------------------------------------------------------- ports, MACs, disks


def choose_vnc_port(data: State, worker_ip: str, first: int, last: int) -> int:
    """The lowest port no VM of the cluster has; when there is none, the lowest none has on this worker.

    Raises:
        RefusedError: every port is in use on this worker.
    """
    used = [(vm["vnc_port"], vm["worker_ip"]) for vm in all_vms(data)]
    for taken in ({port for port, _ in used}, {port for port, worker in used if worker == worker_ip}):
        for port in range(first, min(last, MAX_PORT) + 1):
            if port not in taken:
                return port
    raise RefusedError(
        f"no VNC port is free on {worker_ip}",
        evidence=f"{first}-{last} are all in use",
        remedy="Delete a VM there, or raise vnc.last_port",
        code="vnc.exhausted",
    )


def formula_macs(vm_id: int, count: int, prefix: str = "52:54:00") -> list[str]:
    """The documented addresses: prefix, the low 16 bits of the VM's id, the interface's index.

    Raises:
        RefusedError: an index would not fit one byte.
    """
    if not 0 <= count <= MAX_MAC_INDEX + 1:
        raise RefusedError(f"{count} MAC addresses were asked for; a VM can have {MAX_MAC_INDEX + 1}")
    return [f"{prefix}:{(vm_id >> 8) & 0xFF:02x}:{vm_id & 0xFF:02x}:{index:02x}" for index in range(count)]


def choose_macs(data: State, vm_id: int, count: int, prefix: str = "52:54:00") -> list[str]:
    """Addresses no other VM has: the documented ones, else those of the next id that are free.

    Raises:
        RefusedError: `count` is too large, or no 16 bits are left.
    """
    taken = {interface["mac"] for vm in all_vms(data) if vm["vm_id"] != vm_id for interface in vm["interfaces"]}
    for step in range(1 << 16):
        macs = formula_macs(vm_id + step, count, prefix)
        if taken.isdisjoint(macs):
            return macs
    raise RefusedError(f"no MAC addresses are free under {prefix}", remedy="Set another mac.prefix")


def choose_image_path(data: State, settings: Settings, worker_ip: str, slice_id: int, vm_id: int, vm_name: str) -> str:
    """The path of a VM's disk, in its documented form under `images.base_dir`, that no other VM on the worker has."""
    taken = {vm["qcow_image"] for vm in all_vms(data) if vm["worker_ip"] == worker_ip and vm["vm_id"] != vm_id}
    base = settings.images.base_dir.rstrip("/")
    names: Iterable[str] = (vm_name, f"{slice_id}_{vm_name}", f"{slice_id}_{vm_id}_{vm_name}")
    if settings.images.name == "unique":
        names = (f"{slice_id}_{vm_id}_{vm_name}",)
    paths = [f"{base}/{name}_img.qcow2" for name in names]
    return next((path for path in paths if path not in taken), paths[-1])
