"""Who is on which wire, by the records: guests' NICs, and the gateways and DHCP servers that serve them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from cloudrepo.late_dataclass import dataclass

INTERNET_VLAN = 400
SWITCHES = ("spoofing", "bridging", "vlans")

Ear = tuple[str, str]  # host, device
Kind = Literal["guest", "gateway", "DHCP server", "host"]


@dataclass(frozen=True, kw_only=True)
class Nic:
    """An end of a wire, by its record.

    Attributes:
        slice_id: whose wire it is; 0 = all slices'.
        vm_id, vm: the VM's id and name; of what is no VM, the name alone.
        interface: its name in the guest.
        host: where it is.
        device: its TAP, or the device of a service.
        wire: its VLAN, or None.
        mac, ip: as recorded; `ip` "" = none is.
        switches: what its link allows.
        is_held: whether its machine runs, so that its TAP has a carrier.
        kind: a guest's NIC, a service of ours on the network node, or a host itself.
        namespace: the one that `device` is in; "" = the host's own.
    """

    slice_id: int
    vm_id: int
    vm: str
    interface: str
    host: str
    device: str
    wire: int | None
    mac: str
    ip: str = ""
    switches: frozenset[str] = frozenset()
    is_held: bool = True
    kind: Kind = "guest"
    namespace: str = ""

    @property
    def is_guest(self) -> bool:
        """Whether it is a guest's."""
        return self.kind == "guest"

    @property
    def ear(self) -> Ear:
        """Where what it hears is heard."""
        return (self.host, self.device)

    def __str__(self) -> str:
        return f"{self.vm}:{self.interface}" if self.is_guest else self.vm


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A VLAN with all its ends.

    Attributes:
        vlan: its number.
        nics: those of guests that are there now.
        gateway, server: our services there, if it has them.
        is_known: the network node has said which services are there.
    """

    vlan: int
    nics: Sequence[Nic]
    gateway: Nic | None = None
    server: Nic | None = None
    is_known: bool = True

    @property
    def services(self) -> list[Nic]:
        """Our services there."""
        return [one for one in (self.gateway, self.server) if one is not None]

    def others(self, nic: Nic) -> list[Nic]:
        """All other ends, guests first."""
        return [one for one in (*self.nics, *self.services) if one is not nic]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that a wire should have, by the records.

    Attributes:
        slice_id: whose link it serves; 0 = VLAN 400.
        vlan: its number.
        kind: which of the two.
        device: its device's name on the network node.
        namespace: the one that device is in.
        ip: its address, where the records say it.
    """

    slice_id: int
    vlan: int
    kind: Kind
    device: str
    namespace: str
    ip: str = ""

    def __str__(self) -> str:
        return f"the {self.kind} of VLAN {self.vlan}"

    def at(self, host: str, mac: str, address: str = "") -> Nic:
        """The service as an end of its wire; `address` is what it has where the records say none."""
        return Nic(
            slice_id=self.slice_id,
            vm_id=0,
            vm=str(self),
            interface=self.device,
            host=host,
            device=self.device,
            wire=self.vlan,
            mac=mac,
            ip=self.ip or address,
            kind=self.kind,
            namespace=self.namespace,
        )


def services_of(
    records: Iterable[Mapping[str, Any]],
    *,
    has_gateways: bool,
    internet_gateway: str,
    names: Mapping[Kind, Callable[[int], str]],
    namespace: Callable[[int], str],
) -> list[Service]:
    """The services of all wires of slices that run.

    Args:
        records: of these slices.
        has_gateways: whether links have a gateway, by the settings.
        internet_gateway: address of the gateway of VLAN 400.
        names: by kind, the name of its device on a VLAN.
        namespace: the namespace of a VLAN's services.
    """
    found: list[Service] = []

    def add(slice_id: int, vlan: int, kind: Kind, space: str, ip: str = "") -> None:
        device = names[kind](vlan)
        found.append(Service(slice_id=slice_id, vlan=vlan, kind=kind, device=device, namespace=space, ip=ip))

    online = False
    for record in records:
        online = online or any(one.get("vlan_id") == INTERNET_VLAN for vm in record["vms"] for one in vm["interfaces"])
        for link in record["links"]:
            if not link.get("dhcp", True):
                continue  # a plain wire
            vlan = link["vlan_id"]
            if has_gateways:
                add(record["slice_id"], vlan, "gateway", namespace(vlan), str(link["gateway_ip"]))
            add(record["slice_id"], vlan, "DHCP server", namespace(vlan))
    if online:
        add(0, INTERNET_VLAN, "gateway", "", internet_gateway)
        add(0, INTERNET_VLAN, "DHCP server", namespace(INTERNET_VLAN))
    return found


def wires_of(nics: Iterable[Nic], services: Iterable[Nic], *, is_known: bool = True) -> list[Wire]:
    """All VLANs that have an end, with those ends that are there; `is_known` as of a wire."""
    by_vlan: dict[int, list[Nic]] = {}
    for nic in nics:
        if nic.wire is not None and nic.is_held:
            by_vlan.setdefault(nic.wire, []).append(nic)
    serving = {(one.wire, one.kind): one for one in services}
    return [
        Wire(
            vlan=vlan,
            nics=tuple(ends),
            gateway=serving.get((vlan, "gateway")),
            server=serving.get((vlan, "DHCP server")),
            is_known=is_known,
        )
        for vlan, ends in sorted(by_vlan.items())
    ]


def nics_of(records: Iterable[Mapping[str, Any]], tap_name: Callable[[int, str], str]) -> list[Nic]:
    """Every NIC of some slices."""
    found = []
    for record in records:
        allowed = {
            link["vlan_id"]: frozenset(key for key in SWITCHES if link.get(key) == "allowed")
            for link in record["links"]
        }
        for vm in record["vms"]:
            for one in vm["interfaces"]:
                found.append(
                    Nic(
                        slice_id=record["slice_id"],
                        vm_id=vm["vm_id"],
                        vm=str(vm["name"]),
                        interface=one["name"],
                        host=vm["worker_ip"],
                        device=tap_name(vm["vm_id"], one["name"]),
                        wire=one.get("vlan_id"),
                        mac=one["mac"],
                        ip=str((one.get("ip_config") or {}).get("ip") or ""),
                        switches=allowed.get(one.get("vlan_id"), frozenset()),
                        is_held=record["status"] == "running" and vm["status"] == "running",
                    )
                )
    return found


def link_local(mac: str) -> str:
    """The IPv6 address a guest makes of its MAC (RFC 4291, appendix A); the rules' own would prove itself."""
    first, *rest = (int(part, 16) for part in mac.split(":"))
    return str(ipaddress.IPv6Address(bytes([0xFE, 0x80, *[0] * 6, first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])))
