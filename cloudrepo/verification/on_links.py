"""What is sent on a link: plain Ethernet for all of it and nobody else, and nobody taken for another. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from cloudrepo.verification import shapes
from cloudrepo.verification.cast import Nic, Wire, link_local
from cloudrepo.verification.outside import Outside
from cloudrepo.verification.shapes import ELSEWHERE, INTRODUCTION, MTU, NOTE_BYTES, STRANGER, Shape, ears

TAG, ANOTHER_TAG = 7, 8
PING_HEADERS = 28  # bytes of IPv4 and ICMP


def from_guest(nic: Nic, wire: Wire, outside: Outside) -> Iterator[Shape]:
    """What a guest's NIC sends."""
    others = wire.others(nic)
    all_ = ears(others)
    padding = MTU - NOTE_BYTES
    yield Shape(kind="broadcast", make=shapes.broadcast(nic), hearers=all_)
    yield Shape(kind="broadcast of full size", make=shapes.broadcast(nic, padding=padding), hearers=all_)
    yield Shape(kind="IPv6 multicast", make=shapes.multicast6(nic), hearers=all_)
    if nic.ip:
        asked = next((other.ip for other in others if other.ip), nic.ip)
        yield Shape(kind="ARP", make=shapes.arp(nic, asked), hearers=all_)
    for other in others:
        yield Shape(kind=f"frame to {other}", make=shapes.unicast(nic, other), hearers=ears([other]), may=all_)
    yield from _served(nic, wire, outside)
    yield from _forbidden(nic, wire)


def _served(nic: Nic, wire: Wire, outside: Outside) -> Iterator[Shape]:
    """What our services do for it, and that they lead nowhere."""
    all_, gateway = ears(wire.others(nic)), wire.gateway
    yield Shape(
        kind="DHCP question",
        make=shapes.question(nic),
        hearers=all_,
        is_question=True,
        offer=nic.ip if wire.server is not None else None,
    )
    if gateway is None or not gateway.ip:
        return
    here = ears([gateway])
    if nic.ip:
        yield Shape(kind=INTRODUCTION, make=shapes.arp(nic, gateway.ip), hearers=all_)
        yield Shape(kind="ping", make=shapes.ping(nic, gateway), hearers=here, may=all_, answer=True)
        full = shapes.ping(nic, gateway, padding=MTU - PING_HEADERS - NOTE_BYTES)
        yield Shape(kind="ping of full size", make=full, hearers=here, may=all_, answer=True)
        yield Shape(kind="IPv4 to the internet", make=shapes.udp(nic, gateway.mac, ELSEWHERE), hearers=here, may=all_)
        for ip in outside.hosts:
            make = shapes.udp(nic, gateway.mac, ip)
            yield Shape(kind=f"IPv4 to the host {ip}", make=make, hearers=here, may=all_, answer=False)


def _forbidden(nic: Nic, wire: Wire) -> Iterator[Shape]:
    """What a link forbids unless it allows it; then the other guests hear it, and our services may."""
    all_, guests = ears(wire.others(nic)), ears(one for one in wire.nics if one is not nic)

    def unless(switch: str, kind: str, make: shapes.Make) -> Shape:
        if switch in nic.switches:
            return Shape(kind=kind, make=make, hearers=guests, may=all_)
        return Shape(kind=kind, make=make)

    tag = TAG if nic.wire != TAG else ANOTHER_TAG
    yield unless("vlans", "tagged frame", shapes.broadcast(nic, tag=tag))
    yield unless("bridging", "frame from a stranger's MAC", shapes.broadcast(nic, source=STRANGER))
    yield unless("bridging", "bridge's own frame", shapes.bridges_own(nic))
    if "spoofing" in nic.switches:
        return
    if wire.server is not None and nic.ip:
        answer = shapes.udp(nic, "ff:ff:ff:ff:ff:ff", "255.255.255.255", ports=(67, 68))
        yield Shape(kind="DHCP answer", make=answer)
    for other in wire.others(nic):
        yield from _claims(nic, other)


def _claims(nic: Nic, other: Nic) -> Iterator[Shape]:
    """To be taken for another."""
    if "bridging" not in nic.switches:
        yield Shape(kind=f"frame from {_of(other)} MAC", make=shapes.broadcast(nic, source=other.mac))
    yield Shape(
        kind=f"neighbour advertisement of {_of(other)} address",
        make=shapes.advertisement(nic, link_local(other.mac)),
    )
    if other.ip:
        yield Shape(kind=f"ARP that claims {_of(other)} address", make=shapes.arp(nic, other.ip, sender_ip=other.ip))
        make = shapes.udp(nic, "ff:ff:ff:ff:ff:ff", "255.255.255.255", source_ip=other.ip)
        yield Shape(kind=f"IPv4 from {_of(other)} address", make=make)


def _of(nic: Nic) -> str:
    """Whose: `b:eth1's`, `the gateway's`."""
    return f"{nic}'s" if nic.is_guest else f"the {nic.kind}'s"


def from_service(nic: Nic, wire: Wire) -> Iterator[Shape]:
    """What guests hear of us. A guest that runs may answer: that it is there is not ours to prove."""
    all_ = ears(wire.others(nic))
    yield Shape(kind="broadcast", make=shapes.broadcast(nic), hearers=all_)
    is_asking = nic is wire.gateway or wire.gateway is None
    for guest in wire.nics:
        yield Shape(kind=f"frame to {guest}", make=shapes.unicast(nic, guest), hearers=ears([guest]), may=all_)
        if is_asking and nic.ip and guest.ip:
            yield Shape(kind=f"ARP for {guest}", make=shapes.arp(nic, guest.ip), hearers=all_)
            yield Shape(kind=f"ping to {guest}", make=shapes.ping(nic, guest), hearers=ears([guest]), may=all_)
