"""A kind of frame, and what must become of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification import frames
from cloudrepo.verification.cast import Ear, Nic, link_local

MTU = 1500  # bytes of a packet on a guest's NIC
NOTE_BYTES = 12  # eight of the run, four of the probe
ELSEWHERE = "192.0.2.1"  # an address that is nobody's (RFC 5737)
STRANGER = "02:00:5e:00:53:01"  # a MAC that no NIC of ours has
DISCARD = 9  # the port of what nobody reads (RFC 863)
FIRST_PORT, PORTS = 49152, 16384  # of those that are nobody's (RFC 6335)
DIES_AT_NEXT_HOP = 2  # hops of what the network node forwards, so that it gets no further than its next hop
INTRODUCTION = "ARP for the gateway"  # the kind of a frame by which a gateway knows who asks, and can answer
NOBODY: frozenset[Ear] = frozenset()

Make = Callable[[bytes], bytes]  # from the probe's note to its bytes
Way = Literal["switch", "device", "stack"]
Leaving = Literal["", "translated", "as it is"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One frame before it has a number.

    Attributes:
        kind: what it is, in a person's words.
        make: its bytes.
        hearers: who must hear it.
        may: who may hear it besides; nobody else may.
        answer: whether it must be answered to its sender; None = either.
        leaves: how it must be seen at the uplink; "" = it must not.
        offer: the address that our DHCP server must offer to it; "" = any, None = it does not ask, or has no server.
        is_question: whether it asks by DHCP.
        way: by the switch as if it had come in by the sender's port, by the sender's own device, or by its host's
            network stack.
        target: for the stack, where to.
    """

    kind: str
    make: Make
    hearers: frozenset[Ear] = NOBODY
    may: frozenset[Ear] = NOBODY
    answer: bool | None = None
    leaves: Leaving = ""
    offer: str | None = None
    is_question: bool = False
    way: Way = "switch"
    target: str = ""


def ears(nics: Iterable[Nic]) -> frozenset[Ear]:
    """Where these hear."""
    return frozenset(nic.ear for nic in nics)


def broadcast(nic: Nic, *, source: str = "", tag: int | None = None, padding: int = 0) -> Make:
    """A broadcast of the experimental EtherType, from the NIC's own MAC or another."""
    return lambda mark: frames.ethernet(
        frames.BROADCAST, source or nic.mac, frames.EXPERIMENTAL, mark + bytes(padding), tag=tag
    )


def bridges_own(nic: Nic) -> Make:
    """A frame to where bridges send their BPDUs."""
    return lambda mark: frames.ethernet(frames.BRIDGES, nic.mac, frames.EXPERIMENTAL, mark)


def unicast(nic: Nic, other: Nic) -> Make:
    """A frame of the experimental EtherType to another end."""
    return lambda mark: frames.ethernet(other.mac, nic.mac, frames.EXPERIMENTAL, mark)


def multicast6(nic: Nic) -> Make:
    """IPv6 to all nodes."""
    return lambda mark: frames.udp6("33:33:00:00:00:01", nic.mac, link_local(nic.mac), "ff02::1", mark)


def arp(nic: Nic, target_ip: str, *, sender_ip: str = "") -> Make:
    """Who has this address? From the NIC's own address, or another."""
    return lambda mark: frames.arp_request(nic.mac, nic.mac, sender_ip or nic.ip, target_ip, mark)


def ping(nic: Nic, other: Nic, *, padding: int = 0) -> Make:
    """A ping to another end."""
    return lambda mark: frames.ping(other.mac, nic.mac, nic.ip, other.ip, mark + bytes(padding))


def udp(
    nic: Nic,
    destination: str,
    target_ip: str,
    *,
    source: str = "",
    source_ip: str = "",
    ports: tuple[int, int] | None = None,
    hops: int = frames.HOPS,
    padding: int = 0,
    tag: int | None = None,
) -> Make:
    """UDP to a MAC and an address; `source` and `source_ip` claim to be another's. None = fresh ports."""
    return lambda mark: frames.udp(
        destination,
        source or nic.mac,
        source_ip or nic.ip,
        target_ip,
        ports or fresh_ports(mark),
        mark + bytes(padding),
        hops=hops,
        tag=tag,
    )


def fresh_ports(mark: bytes) -> tuple[int, int]:
    """Ports that no run before had: what a kernel remembers of a conversation outlives the rules it was under."""
    return FIRST_PORT + int.from_bytes(mark[6:8], "big") % PORTS, DISCARD


def advertisement(nic: Nic, target: str) -> Make:
    """A neighbour advertisement: this IPv6 address is mine."""
    return lambda mark: frames.neighbour_advertisement(nic.mac, link_local(nic.mac), target, nic.mac, mark)


def question(nic: Nic) -> Make:
    """A question for an address by DHCP; its number is taken from the note."""
    return lambda mark: frames.dhcp_question(nic.mac, transaction(mark), mark)


def transaction(mark: bytes) -> bytes:
    """The number that a DHCP question carries, and every answer to it: made of the run and the probe."""
    number = int.from_bytes(mark[:4], "big") + int.from_bytes(mark[8:12], "big")
    return (number & 0xFFFFFFFF).to_bytes(4, "big")
