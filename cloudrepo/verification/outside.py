"""What lies around the tenants: the hosts, their management network, the way to the internet. Pure."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Sequence

from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification import frames, shapes
from cloudrepo.verification.cast import Ear, Nic
from cloudrepo.verification.shapes import ELSEWHERE, Shape


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The surroundings.

    Attributes:
        hosts: addresses of the cluster's hosts.
        management: the hosts that take part, each with its device on the management network.
        edges: devices with an address of their own, by which a host meets others than tenants; the uplink is one.
        uplink: the network node's way to the internet; None = there is none, or nobody needs it.
        uplink_ip: the node's address there.
        cidr: the subnet of VLAN 400.
        denied: networks that the settings keep from guests.
    """

    hosts: Sequence[str] = ()
    management: Sequence[Nic] = ()
    edges: frozenset[Ear] = frozenset()
    uplink: Ear | None = None
    uplink_ip: str = ""
    cidr: str = ""
    denied: Sequence[str] = ()

    def closed(self) -> Iterator[tuple[str, str]]:
        """An address within each denied network, with the network; none that is tried anyway."""
        tried = {*self.hosts, ELSEWHERE}
        for text in dict.fromkeys(self.denied):
            network = ipaddress.IPv4Network(text)
            few = itertools.islice(network.hosts(), len(tried) + 1)
            address = next((str(one) for one in few if str(one) not in tried), None)
            if address is not None:
                yield address, text


def from_host(host: Nic, outside: Outside) -> Iterator[Shape]:
    """What a host sends on the management network: that we could hear there what must not be."""
    make = shapes.broadcast(host)
    yield Shape(kind="broadcast on the management network", make=make, may=outside.edges, way="device")


def from_node(outside: Outside) -> Iterator[Shape]:
    """Packets of the network node that are not VLAN 400's: the translation of addresses must leave them alone.

    They have one hop to live, so nobody beyond the next router ever sees them.
    """
    for source in _neighbours(outside.cidr):

        def make(mark: bytes, source: str = source) -> bytes:
            return frames.udp_packet(source, ELSEWHERE, shapes.fresh_ports(mark), mark, hops=1)

        yield Shape(
            kind=f"IPv4 of {source}", make=make, leaves="as it is", way="stack", target=ELSEWHERE, may=outside.edges
        )


def _neighbours(cidr: str) -> list[str]:
    """Addresses next to a subnet, on both sides, and one that has nothing to do with it (RFC 5737)."""
    network = ipaddress.IPv4Network(cidr)
    beside = [int(network.network_address) - 1, int(network.broadcast_address) + 1]
    return [*(str(ipaddress.IPv4Address(one)) for one in beside if 0 < one < 2**32 - 1), "198.51.100.1"]
