"""What is sent from which NIC, and who must hear it: from the records alone. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudrepo.verification import frames

INTERNET_VLAN = 400
MTU = 1500  # of a guest's NIC
ELSEWHERE = "192.0.2.1"  # an address that is nobody's (RFC 5737)
STRANGER = "02:00:5e:00:53:01"  # a MAC that no NIC of ours has
NOTE_BYTES = 12  # eight of the run, four of the probe

Ear = tuple[str, str]  # host, device


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A NIC that a guest has, by its record.

    Attributes:
        vm: the VM's name and id, for people.
        interface: its name in the guest.
        host: where the VM is.
        device: its TAP.
        wire: its VLAN, or None.
        mac, ip: as recorded; `ip` "" = none.
        switches: what its link allows.
        is_held: whether its machine runs, so that its TAP has a carrier.
        is_guest: whether it is a guest's, and not a port of ours on the network node.
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
    is_guest: bool = True

    @property
    def ear(self) -> Ear:
        """Where what it hears is heard."""
        return (self.host, self.device)

    def __str__(self) -> str:
        return f"{self.vm}:{self.interface}" if self.is_guest else self.vm


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One frame.

    Attributes:
        number: in the run; the frame carries it.
        sender: the NIC that sends it.
        kind: what it is, in a person's words.
        frame: its bytes.
        hearers: who must hear it; nobody else may. Empty = it must be dropped.
    """

    number: int
    sender: Nic
    kind: str
    frame: bytes
    hearers: frozenset[Ear]


def note(run: bytes, number: int) -> bytes:
    """By which a frame is known: eight bytes of the run, four of the probe."""
    return run + number.to_bytes(4, "big")


def probes(nics: Sequence[Nic], gateway: Nic | None, run: bytes) -> list[Probe]:
    """All frames of a run.

    Args:
        nics: those of all slices that run, whoever asked.
        gateway: of VLAN 400, if any NIC is there.
        run: eight bytes that no other run has.
    """
    found: list[Probe] = []
    for nic in (*nics, *([gateway] if gateway is not None else ())):
        if nic.wire is None or not nic.is_held:
            continue
        others = [one for one in nics if one.wire == nic.wire and one is not nic]
        for kind, make, hearers in _shapes(nic, others, gateway):
            number = len(found)
            frame = make(note(run, number))
            found.append(Probe(number=number, sender=nic, kind=kind, frame=frame, hearers=frozenset(hearers)))
    return found


def _shapes(nic: Nic, others: Sequence[Nic], gateway: Nic | None) -> Iterator[Any]:
    if nic is gateway:
        return _from_gateway(nic, others)
    if nic.wire == INTERNET_VLAN:
        return _internet(nic, others, gateway)
    return _link(nic, others)


def _link(nic: Nic, others: Sequence[Nic]) -> Iterator[Any]:
    heard = [other.ear for other in others]
    yield "broadcast", lambda mark: frames.ethernet(frames.BROADCAST, nic.mac, frames.EXPERIMENTAL, mark), heard
    full = MTU - NOTE_BYTES
    yield (
        "broadcast of full size",
        lambda mark: frames.ethernet(frames.BROADCAST, nic.mac, frames.EXPERIMENTAL, mark + bytes(full)),
        heard,
    )
    yield (
        "IPv6 multicast",
        lambda mark: frames.udp6("33:33:00:00:00:01", nic.mac, link_local(nic.mac), "ff02::1", mark),
        heard,
    )
    if nic.ip:
        yield "ARP", lambda mark: frames.arp_request(nic.mac, nic.mac, nic.ip, _other_ip(nic, others), mark), heard
    if "vlans" not in nic.switches:
        tagged = 7 if nic.wire != 7 else 8
        yield (
            "tagged frame",
            lambda mark: frames.ethernet(frames.BROADCAST, nic.mac, frames.EXPERIMENTAL, mark, tag=tagged),
            [],
        )
    if "bridging" not in nic.switches:
        yield (
            "frame from a stranger's MAC",
            lambda mark: frames.ethernet(frames.BROADCAST, STRANGER, frames.EXPERIMENTAL, mark),
            [],
        )
    if "spoofing" in nic.switches:
        return
    for other in others:
        yield from _claims(nic, other)


def _claims(nic: Nic, other: Nic) -> Iterator[Any]:
    """To be taken for `other`."""
    if "bridging" not in nic.switches:
        yield (
            f"frame from {other}'s MAC",
            lambda mark: frames.ethernet(frames.BROADCAST, other.mac, frames.EXPERIMENTAL, mark),
            [],
        )
    local = link_local(other.mac)
    yield (
        f"neighbour advertisement of {other}'s address",
        lambda mark: frames.neighbour_advertisement(nic.mac, link_local(nic.mac), local, nic.mac, mark),
        [],
    )
    if other.ip:
        yield (
            f"ARP that claims {other}'s address",
            lambda mark: frames.arp_request(nic.mac, nic.mac, other.ip, other.ip, mark),
            [],
        )
        yield (
            f"IPv4 from {other}'s address",
            lambda mark: frames.udp(frames.BROADCAST, nic.mac, other.ip, "255.255.255.255", (9, 9), mark),
            [],
        )


def _internet(nic: Nic, others: Sequence[Nic], gateway: Nic | None) -> Iterator[Any]:
    if gateway is None or not nic.ip:
        return
    heard = [gateway.ear]
    yield "ARP for the gateway", lambda mark: frames.arp_request(nic.mac, nic.mac, nic.ip, gateway.ip, mark), heard
    yield "IPv4 to the gateway", _udp(nic, gateway.mac, nic.ip, ELSEWHERE, (9, 9)), heard
    full = MTU - 28 - NOTE_BYTES  # headers of IPv4 and UDP
    yield (
        "IPv4 of full size to the gateway",
        lambda mark: frames.udp(gateway.mac, nic.mac, nic.ip, ELSEWHERE, (9, 9), mark + bytes(full)),
        heard,
    )
    yield "broadcast", lambda mark: frames.ethernet(frames.BROADCAST, nic.mac, frames.EXPERIMENTAL, mark), []
    yield (
        "tagged frame",
        lambda mark: frames.udp(gateway.mac, nic.mac, nic.ip, ELSEWHERE, (9, 9), mark, tag=INTERNET_VLAN),
        [],
    )
    yield (
        "frame from a stranger's MAC",
        lambda mark: frames.udp(gateway.mac, STRANGER, nic.ip, ELSEWHERE, (9, 9), mark),
        [],
    )
    yield "IPv4 from a stranger's address", _udp(nic, gateway.mac, _unused(nic, others), ELSEWHERE, (9, 9)), []
    yield (
        "IPv6 multicast",
        lambda mark: frames.udp6("33:33:00:00:00:01", nic.mac, link_local(nic.mac), "ff02::1", mark),
        [],
    )
    yield (
        "ARP that claims the gateway's address",
        lambda mark: frames.arp_request(nic.mac, nic.mac, gateway.ip, gateway.ip, mark),
        [],
    )
    yield "DHCP answer", _udp(nic, frames.BROADCAST, nic.ip, "255.255.255.255", (67, 68)), []
    for other in others:
        yield f"IPv4 to {other}", _udp(nic, other.mac, nic.ip, other.ip or ELSEWHERE, (9, 9)), []
        yield (
            f"ARP for {other}",
            lambda mark, ip=other.ip: frames.arp_request(nic.mac, nic.mac, nic.ip, ip or ELSEWHERE, mark),
            [],
        )


def _from_gateway(gateway: Nic, others: Sequence[Nic]) -> Iterator[Any]:
    """What a guest must hear: without it, what it does not hear would prove nothing."""
    for other in others:
        yield f"IPv4 to {other}", _udp(gateway, other.mac, gateway.ip, other.ip or ELSEWHERE, (9, 9)), [other.ear]
        if other.ip:
            yield (
                f"ARP for {other}",
                lambda mark, ip=other.ip: frames.arp_request(gateway.mac, gateway.mac, gateway.ip, ip, mark),
                [other.ear],
            )


def _udp(nic: Nic, destination: str, source_ip: str, destination_ip: str, ports: tuple[int, int]) -> Any:
    return lambda mark: frames.udp(destination, nic.mac, source_ip, destination_ip, ports, mark)


def _other_ip(nic: Nic, others: Iterable[Nic]) -> str:
    return next((other.ip for other in others if other.ip), nic.ip)


def _unused(nic: Nic, others: Iterable[Nic]) -> str:
    """An address of the NIC's own subnet (a /24 of it) that is no NIC's."""
    taken = {nic.ip, *(other.ip for other in others)}
    network = ipaddress.ip_network(f"{nic.ip}/24", strict=False)
    return next(str(one) for one in reversed(list(network.hosts())) if str(one) not in taken)


def link_local(mac: str) -> str:
    """The IPv6 address a guest makes of its MAC (RFC 4291, appendix A); the rules' own would prove itself."""
    first, *rest = (int(part, 16) for part in mac.split(":"))
    return str(ipaddress.IPv6Address(bytes([0xFE, 0x80, *[0] * 6, first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])))


def nics_of(records: Iterable[Mapping[str, Any]], tap_name: Any) -> list[Nic]:
    """Every NIC of slices that run."""
    found = []
    for record in records:
        allowed = {
            link["vlan_id"]: frozenset(key for key in ("spoofing", "bridging", "vlans") if link.get(key) == "allowed")
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
