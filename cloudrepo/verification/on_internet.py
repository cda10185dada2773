"""What is sent on VLAN 400: to the gateway and by it to the internet, never to one another. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from cloudrepo.verification import shapes
from cloudrepo.verification.cast import INTERNET_VLAN, Nic, Wire
from cloudrepo.verification.outside import Outside
from cloudrepo.verification.shapes import (
    DIES_AT_NEXT_HOP,
    ELSEWHERE,
    INTRODUCTION,
    MTU,
    NOTE_BYTES,
    STRANGER,
    Leaving,
    Shape,
    ears,
)

HEADERS = 28  # bytes of IPv4 with UDP or ICMP
EVERYBODY = "ff:ff:ff:ff:ff:ff"


def from_guest(nic: Nic, wire: Wire, outside: Outside) -> Iterator[Shape]:
    """What a guest's NIC sends."""
    gateway = wire.gateway
    if gateway is None or not nic.ip:
        return
    yield from _allowed(nic, wire, gateway, outside)
    yield from _closed(nic, gateway, outside)
    yield from _forbidden(nic, wire, gateway)
    for other in wire.nics:
        if other is not nic:
            yield Shape(kind=f"IPv4 to {other}", make=shapes.udp(nic, other.mac, other.ip or ELSEWHERE))
            yield Shape(kind=f"ARP for {other}", make=shapes.arp(nic, other.ip or ELSEWHERE))


def _allowed(nic: Nic, wire: Wire, gateway: Nic, outside: Outside) -> Iterator[Shape]:
    here = ears([gateway])
    leaves: Leaving = "translated" if outside.uplink is not None else ""
    padding = MTU - HEADERS - NOTE_BYTES
    yield Shape(kind=INTRODUCTION, make=shapes.arp(nic, gateway.ip), hearers=here)
    yield Shape(kind="ping", make=shapes.ping(nic, gateway), hearers=here, answer=True)
    full = shapes.ping(nic, gateway, padding=padding)
    yield Shape(kind="ping of full size", make=full, hearers=here, answer=True)
    for kind, size in (("IPv4 to the internet", 0), ("IPv4 of full size to the internet", padding)):
        make = shapes.udp(nic, gateway.mac, ELSEWHERE, hops=DIES_AT_NEXT_HOP, padding=size)
        yield Shape(kind=kind, make=make, hearers=here, leaves=leaves)
    if wire.server is not None:
        asked = shapes.question(nic)
        yield Shape(kind="DHCP question", make=asked, hearers=ears([wire.server]), is_question=True, offer=nic.ip)


def _closed(nic: Nic, gateway: Nic, outside: Outside) -> Iterator[Shape]:
    """What the gateway must keep to itself: the cluster's own hosts, and the node's own ears."""
    here = ears([gateway])
    for ip in outside.hosts:
        make = shapes.udp(nic, gateway.mac, ip)
        yield Shape(kind=f"IPv4 to the host {ip}", make=make, hearers=here, answer=False)
    for ip, network in outside.closed():
        make = shapes.udp(nic, gateway.mac, ip, hops=DIES_AT_NEXT_HOP)
        yield Shape(kind=f"IPv4 to {ip} in {network}, which is denied", make=make, hearers=here, answer=False)
    make = shapes.udp(nic, gateway.mac, gateway.ip)
    yield Shape(kind="UDP to the gateway itself", make=make, hearers=here, answer=False)


def _forbidden(nic: Nic, wire: Wire, gateway: Nic) -> Iterator[Shape]:
    yield Shape(kind="broadcast", make=shapes.broadcast(nic))
    yield Shape(kind="tagged frame", make=shapes.udp(nic, gateway.mac, ELSEWHERE, tag=INTERNET_VLAN))
    yield Shape(kind="frame from a stranger's MAC", make=shapes.udp(nic, gateway.mac, ELSEWHERE, source=STRANGER))
    unused = _unused(nic, wire)
    yield Shape(kind="IPv4 from a stranger's address", make=shapes.udp(nic, gateway.mac, ELSEWHERE, source_ip=unused))
    yield Shape(kind="IPv6 multicast", make=shapes.multicast6(nic))
    claim = shapes.arp(nic, gateway.ip, sender_ip=gateway.ip)
    yield Shape(kind="ARP that claims the gateway's address", make=claim)
    answer = shapes.udp(nic, EVERYBODY, "255.255.255.255", ports=(67, 68))
    yield Shape(kind="DHCP answer", make=answer)


def _unused(nic: Nic, wire: Wire) -> str:
    """An address of the NIC's own subnet (a /24 of it) that is no NIC's."""
    taken = {nic.ip, *(other.ip for other in wire.nics)}
    network = ipaddress.ip_network(f"{nic.ip}/24", strict=False)
    return next(str(one) for one in reversed(list(network.hosts())) if str(one) not in taken)


def from_gateway(gateway: Nic, wire: Wire) -> Iterator[Shape]:
    """What a guest must hear: without it, what it does not hear would prove nothing."""
    for guest in wire.nics:
        if guest.ip:
            yield Shape(kind=f"ARP for {guest}", make=shapes.arp(gateway, guest.ip), hearers=ears([guest]))
            yield Shape(kind=f"ping to {guest}", make=shapes.ping(gateway, guest), hearers=ears([guest]))
