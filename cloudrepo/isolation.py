"""What a guest may send and who hears it: the policy as flows of the integration bridge. Pure.

Every frame that a guest sends meets the flows of its own port first. What none of them lets through is dropped: by the
last one for its port, and on a closed bridge by there being no other.

**Links** are plain Ethernet for what a lab teaches. A NIC has its own MAC only, and may not claim, by ARP, neighbour
discovery or source address, what is recorded for another NIC or the gateway of its link. A link's switches (`Switches`)
open that up. What is let through is switched as usual (`NORMAL`), within the link's VLAN.

**VLAN 400** is one subnet for everybody, so nothing is switched there. A NIC sends ARP and IPv4 from its own MAC and
address only, to the gateway and the DHCP server only, by a flow that names the way; what comes in comes from these two,
and only to whom it is addressed. Neighbours never hear each other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cloudrepo.commands.openflow import Flow, flow
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import INTERNET_VLAN, dhcp_port, gateway_port, service_mac

BROADCAST = "ff:ff:ff:ff:ff:ff"
ANY_TAG = "vlan_tci=0x1000/0x1000"
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136

#: What a switch does not forward (IEEE 802.1Q, 8.6.3): spanning tree, LACP, LLDP and others, by the last four bits.
RESERVED = "01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0"
#: In which disguise these cross the switches between the hosts, which would take them for their own, or block the
#: port they come from. A group address under local administration: switches forward it as any multicast.
CARRIED = "03:43:52:00:00:00/ff:ff:ff:ff:ff:f0"
_UPPER_BITS = "NXM_OF_ETH_DST[4..47]"  # all but these four, in the words in which `dump-flows` prints a masked field

FORBIDDEN, CHECKED, OPEN, LAST = 400, 300, 200, 10  # priorities


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Somebody else on a wire: a NIC, the gateway or the DHCP server. `ip` "" = no address is recorded."""

    mac: str
    ip: str = ""


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What a link allows beyond the rule.

    Attributes:
        spoofing: to claim others' addresses, as ARP attack labs do.
        bridging: frames from other MACs, and bridges' own frames, as spanning tree labs need.
        vlans: tags of the guests' own, carried from end to end.
    """

    spoofing: bool = False
    bridging: bool = False
    vlans: bool = False


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A guest's end of a wire: its TAP, its own MAC and recorded address."""

    device: str
    mac: str
    ip: str = ""


@dataclass(frozen=True, kw_only=True)
class Services:
    """The two services of VLAN 400, and where they are from a host: their ports, or the way to them.

    Attributes:
        gateway, dhcp: address and MAC of each.
        is_here: whether this is the network node.
        uplinks: ports that lead to the other hosts.
    """

    gateway: Peer
    dhcp: Peer
    is_here: bool
    uplinks: Sequence[str]

    def towards(self, port: str) -> str:
        """Actions that take an untagged frame to one of the two."""
        return f"output:{port}" if self.is_here else self.abroad()

    def abroad(self) -> str:
        """Actions that take an untagged frame to the other hosts."""
        return _tagged(INTERNET_VLAN, self.uplinks) if self.uplinks else "drop"


def services(installation: str, gateway_ip: str, dhcp_ip: str, *, is_here: bool, uplinks: Sequence[str]) -> Services:
    """The services of VLAN 400 as a host sees them."""
    return Services(
        gateway=Peer(mac=service_mac(installation, gateway_port(INTERNET_VLAN)), ip=gateway_ip),
        dhcp=Peer(mac=service_mac(installation, dhcp_port(INTERNET_VLAN)), ip=dhcp_ip),
        is_here=is_here,
        uplinks=uplinks,
    )


# ---------------------------------------------------------------------------------------- links


def link_nic(nic: Nic, others: Iterable[Peer], switches: Switches, *, serves_dhcp: bool) -> list[Flow]:
    """What a guest may send into its link.

    Args:
        nic: its end.
        others: the others on the link.
        switches: what the link allows.
        serves_dhcp: whether the link has a server of ours; then no guest may answer in its place.
    """
    port = f"in_port={nic.device}"
    found = [flow(LAST, [port], "drop")]
    if not switches.vlans:
        found.append(flow(FORBIDDEN + 10, [port, ANY_TAG], "drop"))
    if not switches.spoofing:
        for other in others:
            found += _claims(port, other)
        if serves_dhcp:
            found.append(flow(FORBIDDEN, ["udp", port, "tp_src=67"], "drop"))
    own = [port] if switches.bridging else [port, f"dl_src={nic.mac}"]
    if not (switches.spoofing or switches.bridging):
        found += _own_neighbourhood(port, nic.mac)
    return [*found, flow(OPEN, own, "NORMAL")]


def _claims(port: str, other: Peer) -> Iterator[Flow]:
    """To be taken for somebody else: by its address, or by that which IPv6 makes of its MAC."""
    local = link_local(other.mac)
    if other.ip:
        yield flow(FORBIDDEN, ["arp", port, f"arp_spa={other.ip}"], "drop")
        yield flow(FORBIDDEN, ["ip", port, f"nw_src={other.ip}"], "drop")
    yield flow(FORBIDDEN, ["ipv6", port, f"ipv6_src={local}"], "drop")
    yield flow(FORBIDDEN + 1, ["icmp6", port, f"icmp_type={NEIGHBOUR_ADVERTISEMENT}", f"nd_target={local}"], "drop")


def _own_neighbourhood(port: str, mac: str) -> Iterator[Flow]:
    """ARP and neighbour discovery name one's own MAC only."""
    own = f"dl_src={mac}"
    yield flow(CHECKED, ["arp", port, own, f"arp_sha={mac}"], "NORMAL")
    yield flow(CHECKED - 1, ["arp", port], "drop")
    for kind, option in ((NEIGHBOUR_SOLICITATION, "nd_sll"), (NEIGHBOUR_ADVERTISEMENT, "nd_tll")):
        asked = ["icmp6", port, f"icmp_type={kind}"]
        for value in (mac, "00:00:00:00:00:00"):  # zero: the option is not there
            yield flow(CHECKED, [*asked, own, f"{option}={value}"], "NORMAL")
        yield flow(CHECKED - 1, asked, "drop")


def link_local(mac: str) -> str:
    """The IPv6 address that follows from a MAC (RFC 4291, appendix A), in its shortest spelling (RFC 5952)."""
    first, *rest = (int(part, 16) for part in mac.split(":"))
    packed = bytes([0xFE, 0x80, *[0] * 6, first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])
    return str(ipaddress.IPv6Address(packed))


def wire(vlan: int, *, uplinks: Iterable[str], services: Iterable[str] = ()) -> list[Flow]:
    """What comes into a host for one link: from the others by the uplink, and from our own ports there."""
    return [
        *(flow(OPEN, [f"in_port={uplink}", f"dl_vlan={vlan}"], "NORMAL") for uplink in uplinks),
        *(flow(OPEN, [f"in_port={port}"], "NORMAL") for port in services),
    ]


def metered(flows: Iterable[Flow], meters: Mapping[str, int]) -> list[Flow]:
    """The flows, where what comes in by a device passes its meter before it goes anywhere.

    Args:
        flows: of any ports.
        meters: by device, its meter's number.
    """
    found = []
    for priority, match, actions in flows:
        device = next((word.removeprefix("in_port=") for word in match.split(",") if word.startswith("in_port=")), "")
        is_held = device in meters and actions != "drop"
        found.append((priority, match, f"meter:{meters[device]},{actions}" if is_held else actions))
    return found


def bridged(vlan: int, devices: Sequence[str], uplinks: Sequence[str]) -> list[Flow]:
    """The ways of bridges' own frames on a link that allows bridging; `NORMAL` would drop them.

    Args:
        vlan: the link's.
        devices: TAPs of the link on this host.
        uplinks: ports that lead to the other hosts.
    """
    found = []
    for device in devices:
        near = [f"output:{other}" for other in devices if other != device]
        far = [_disguised(CARRIED, _tagged(vlan, ()), *map("output:{}".format, uplinks))] if uplinks else []
        found.append(flow(OPEN + 10, [f"in_port={device}", f"dl_dst={RESERVED}"], ",".join([*near, *far]) or "drop"))
    for uplink in uplinks:
        further = [f"output:{other}" for other in uplinks if other != uplink]
        near = [_disguised(RESERVED, "pop_vlan", *map("output:{}".format, devices))]
        match = [f"in_port={uplink}", f"dl_vlan={vlan}", f"dl_dst={CARRIED}"]
        found.append(flow(OPEN + 10, match, ",".join([*further, *near])))
    return found


def _disguised(address: str, first: str, *then: str) -> str:
    """Actions, between which a frame gets another destination; its last four bits stay."""
    bits = int(address.partition("/")[0].replace(":", ""), 16) >> 4
    return ",".join([first, f"load:0x{bits:x}->{_UPPER_BITS}", *then])


# ---------------------------------------------------------------------------------------- VLAN 400


def internet_nic(nic: Nic, way: Services) -> list[Flow]:
    """What a guest may send into VLAN 400, and what it hears there."""
    return [*_sent(nic, way), *_heard(nic, way)]


def _sent(nic: Nic, way: Services) -> Iterator[Flow]:
    port, own = f"in_port={nic.device}", f"dl_src={nic.mac}"
    out = {way.gateway: way.towards(gateway_port(INTERNET_VLAN)), way.dhcp: way.towards(dhcp_port(INTERNET_VLAN))}
    yield flow(LAST, [port], "drop")
    yield flow(FORBIDDEN, [port, ANY_TAG], "drop")
    asking = ["udp", port, own, f"dl_dst={BROADCAST}", "nw_src=0.0.0.0", "nw_dst=255.255.255.255"]
    yield flow(OPEN, [*asking, "tp_src=68", "tp_dst=67"], out[way.dhcp])
    if not nic.ip:
        return
    for peer, actions in out.items():
        yield flow(OPEN, ["arp", port, own, f"arp_sha={nic.mac}", f"arp_spa={nic.ip}", f"arp_tpa={peer.ip}"], actions)
    renewing = ["udp", port, own, f"nw_src={nic.ip}", "tp_src=68", "tp_dst=67"]
    yield flow(OPEN, [*renewing, f"dl_dst={way.dhcp.mac}", f"nw_dst={way.dhcp.ip}"], out[way.dhcp])
    yield flow(OPEN, [*renewing, f"dl_dst={BROADCAST}", "nw_dst=255.255.255.255"], out[way.dhcp])
    yield flow(OPEN, ["ip", port, own, f"dl_dst={way.gateway.mac}", f"nw_src={nic.ip}"], out[way.gateway])


def _heard(nic: Nic, way: Services) -> Iterator[Flow]:
    for peer, port in ((way.gateway, gateway_port(INTERNET_VLAN)), (way.dhcp, dhcp_port(INTERNET_VLAN))):
        for source, bare in _sources(peer, port, way):
            yield flow(OPEN, [*source, f"dl_dst={nic.mac}"], f"{bare}output:{nic.device}")
            if nic.ip:
                asked = ["arp", *source, f"dl_dst={BROADCAST}", f"arp_tpa={nic.ip}"]
                yield flow(OPEN, asked, f"{bare}output:{nic.device}")


def _sources(peer: Peer, port: str, way: Services) -> Iterator[tuple[list[str], str]]:
    """Where frames of a service come from on this host, and the actions that make them bare."""
    if way.is_here:
        yield [f"in_port={port}"], ""
        return
    for uplink in way.uplinks:
        yield [f"in_port={uplink}", f"dl_vlan={INTERNET_VLAN}", f"dl_src={peer.mac}"], "pop_vlan,"


def internet_host(way: Services) -> list[Flow]:
    """What every host with guests on VLAN 400 has once: the server's broadcasts, and on the node the services' ends.

    What else comes from another host goes on to the third, where this one stands between them, and to nobody here.
    A client may ask for its answer by broadcast (RFC 2131, 4.1), which no flow can address: all on this host hear it.
    """
    answer = ["udp", f"dl_dst={BROADCAST}", "tp_src=67", "tp_dst=68"]
    found: list[Flow] = []
    for source, _ in _sources(way.dhcp, dhcp_port(INTERNET_VLAN), way):
        found.append(flow(CHECKED, [*answer, *source], "NORMAL"))
    for uplink in way.uplinks:
        further = ",".join(f"output:{other}" for other in way.uplinks if other != uplink)
        found.append(flow(LAST, [f"in_port={uplink}", f"dl_vlan={INTERNET_VLAN}"], further or "drop"))
    if not way.is_here:
        return found
    ports = {way.gateway: gateway_port(INTERNET_VLAN), way.dhcp: dhcp_port(INTERNET_VLAN)}
    for peer, port in ports.items():
        found.append(flow(LAST, [f"in_port={port}"], way.abroad()))
        for uplink in way.uplinks:
            source = [f"in_port={uplink}", f"dl_vlan={INTERNET_VLAN}"]
            found.append(flow(OPEN, [*source, f"dl_dst={peer.mac}"], f"pop_vlan,output:{port}"))
            found.append(
                flow(OPEN, ["arp", *source, f"dl_dst={BROADCAST}", f"arp_tpa={peer.ip}"], f"pop_vlan,output:{port}")
            )
    for uplink in way.uplinks:
        source = ["udp", f"in_port={uplink}", f"dl_vlan={INTERNET_VLAN}", f"dl_dst={BROADCAST}"]
        port = dhcp_port(INTERNET_VLAN)
        found.append(flow(OPEN, [*source, "tp_src=68", "tp_dst=67"], f"pop_vlan,output:{port}"))
    return found


def _tagged(vlan: int, uplinks: Iterable[str]) -> str:
    """Actions that send an untagged frame out with a tag; in the spelling of OpenFlow 1.3, where 0x1000 = present."""
    return ",".join(["push_vlan:0x8100", f"set_field:{0x1000 | vlan}->vlan_vid", *(f"output:{one}" for one in uplinks)])
