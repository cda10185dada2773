"""What an attacker who is root in a guest sends, and where it would arrive. Pure.

The attacker is `a1`, on worker 1. On VLAN 400 everybody is its neighbour: `a2` on the same host, `a3`, `b1` and `b2` on
others. It has a link to `a2` on the same host (eth1) and one to `a3` on another (eth2). `a2` and `a3` have a link
that is not its own, and so have `b1` and `b2`, who are another tenant's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from on_lab import packets
from on_lab.packets import ARP, BROADCAST, IPV4, IPV6, arp, ethernet, icmp, icmp6, tcp, udp

V400, LINK = "VLAN 400", "link"
SAME, ELSEWHERE, TENANT = "neighbour on the same host", "neighbour on another host", "another tenant's machine"
NEAR, FAR = "peer on the same host", "peer on another host"
OTHER_NEAR, OTHER_FAR = "another link, same host", "another tenant's link, another host"
GATEWAY, WORKER, ORCHESTRATOR = "the gateway's port", "a worker", "the orchestrator"
MANAGEMENT = "the management network"
OUT, UNTRANSLATED, BACK = "the internet", "the internet, untranslated", "answered"

LOCAL = 0x88B5  # an EtherType for local experiments (IEEE 802, 9.2.4)
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
WEB, WORKER_IP, NODE_IP, ORCHESTRATOR_IP = "203.0.113.1", "10.0.10.2", "10.0.10.3", "10.0.10.254"
WORKER_IP6, NODE_IP6, ORCHESTRATOR_IP6 = "fd00:10::2", "fd00:10::3", "fd00:10::254"
GATEWAY_IP6 = "fd00:400::1"  # the gateway's port, where nothing holds it


@dataclass(frozen=True, kw_only=True)
class End:
    """A NIC: its MAC and IPv4 address."""

    mac: str
    ip: str

    @property
    def ip6(self) -> str:
        """The address that IPv6 makes of the MAC (RFC 4291, appendix A)."""
        first, *rest = packets.mac(self.mac)
        return packets.text6(bytes([0xFE, 0x80, *[0] * 6, first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]]))


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Who is there.

    Attributes:
        own, near, far: the attacker's ends on VLAN 400, of the link on its host and of that to another one.
        same, elsewhere, tenant: neighbours on VLAN 400.
        near_peer, far_peer: the other ends of its links.
        other_near: an end on its host of a link that is not its own; other_far: of another tenant's on another host.
        gateway: of VLAN 400; near_gateway, far_gateway: of its links.
        vlans: of the two links, of the other one on its host, and of the other tenant's.
    """

    own: End
    near: End
    far: End
    same: End
    elsewhere: End
    tenant: End
    near_peer: End
    far_peer: End
    other_near: End
    other_far: End
    gateway: End
    near_gateway: End
    far_gateway: End
    vlans: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One frame that is sent.

    Attributes:
        name: for people.
        wire: VLAN 400 or a link.
        card: of the attacker.
        note: eight bytes in the frame, by which it is known again.
        reaches: where it arrives when nothing holds it.
        stays: where it may arrive even so; of what is allowed, where it must.
        is_tagged: it is sent by a port that lost its own tag.
    """

    name: str
    wire: str
    card: str
    note: bytes
    frame: bytes
    reaches: tuple[str, ...]
    stays: tuple[str, ...] = ()
    is_tagged: bool = False


@dataclass
class Book:
    """All attacks, in an order in which none spoils another: what turns addresses around comes last."""

    ground: Ground
    rows: list[Attack] = field(default_factory=list)

    @property
    def note(self) -> bytes:
        """That of the next one."""
        return struct.pack("!Q", 0x6174_7461_636B_0000 + len(self.rows))

    def on_400(self, name: str, frame: bytes, *reaches: str, stays: tuple[str, ...] = ()) -> None:
        """One more on VLAN 400."""
        row = Attack(name=name, wire=V400, card="eth0", note=self.note, frame=frame, reaches=reaches, stays=stays)
        self.rows.append(row)

    def on_link(self, name: str, card: str, frame: bytes, *reaches: str, stays: tuple[str, ...] = ()) -> None:
        """One more on a link."""
        row = Attack(name=name, wire=LINK, card=card, note=self.note, frame=frame, reaches=reaches, stays=stays)
        self.rows.append(row)

    def links(self) -> list[tuple[End, End, End, str, str]]:
        """Of both links: own end, peer, gateway, card, and where the peer is."""
        ground = self.ground
        return [
            (ground.near, ground.near_peer, ground.near_gateway, "eth1", NEAR),
            (ground.far, ground.far_peer, ground.far_gateway, "eth2", FAR),
        ]


def attacks(ground: Ground) -> list[Attack]:
    """All of them."""
    book = Book(ground)
    for chapter in (_by_gateway, _by_links_gateway, _allowed, _tagged, _to_neighbours, _on_links, _spoofed):
        chapter(book)
    return book.rows


def _by_gateway(book: Book) -> None:
    own, gateway, ground = book.ground.own, book.ground.gateway, book.ground

    def ask(target: str, port: int = 22, flags: int = packets.SYN) -> bytes:
        segment = tcp(own.ip, target, 40000 + len(book.rows), port, flags=flags, payload=book.note)
        return ethernet(gateway.mac, own.mac, IPV4, segment)

    def ping(target: str) -> bytes:
        return ethernet(gateway.mac, own.mac, IPV4, icmp(own.ip, target, 8, 0, book.note))

    here = (GATEWAY,)
    book.on_400("allowed: the gateway, by ping", ping(gateway.ip), GATEWAY, BACK, stays=(GATEWAY, BACK))
    book.on_400("allowed: the internet", ask(WEB, 80), GATEWAY, OUT, stays=(GATEWAY, OUT))
    book.on_400("a worker", ask(WORKER_IP), WORKER, stays=here)
    book.on_400("the orchestrator", ask(ORCHESTRATOR_IP), ORCHESTRATOR, stays=here)
    book.on_400("the network node's own address, by ping", ping(NODE_IP), BACK, stays=here)
    book.on_400("a neighbour, by the gateway", ask(ground.same.ip), SAME, stays=here)
    book.on_400("another tenant's link, by the gateway", ask(ground.other_far.ip), OTHER_FAR, stays=here)
    book.on_400("the internet, by a packet of no connection", ask(WEB, 80, packets.RST), UNTRANSLATED, stays=here)
    for name, target, place in (("a worker", WORKER_IP6, WORKER), ("the orchestrator", ORCHESTRATOR_IP6, ORCHESTRATOR)):
        six = tcp("fd00:400::66", target, 40000, 22, payload=book.note)
        book.on_400(f"{name}, by IPv6", ethernet(gateway.mac, own.mac, IPV6, six), place)


def _by_links_gateway(book: Book) -> None:
    """The attacker sets a static route to the gateway of its link."""
    own, gateway, ground = book.ground.far, book.ground.far_gateway, book.ground

    def ask(target: str) -> bytes:
        segment = tcp(own.ip, target, 40000 + len(book.rows), 22, payload=book.note)
        return ethernet(gateway.mac, own.mac, IPV4, segment)

    book.on_link("a worker, by the link's gateway", "eth2", ask(WORKER_IP), WORKER)
    book.on_link("the orchestrator, by the link's gateway", "eth2", ask(ORCHESTRATOR_IP), ORCHESTRATOR)
    book.on_link("another tenant's link, by the link's gateway", "eth2", ask(ground.other_far.ip), OTHER_FAR)
    book.on_link("a machine on VLAN 400, by the link's gateway", "eth2", ask(ground.same.ip), SAME)
    ping = ethernet(gateway.mac, own.mac, IPV4, icmp(own.ip, ground.gateway.ip, 8, 0, book.note))
    book.on_link("VLAN 400's gateway, by ping by the link's", "eth2", ping, BACK)
    for name, target, place in (("a worker", WORKER_IP6, WORKER), ("the orchestrator", ORCHESTRATOR_IP6, ORCHESTRATOR)):
        six = ethernet(gateway.mac, own.mac, IPV6, tcp("fd00:400::66", target, 40000, 22, payload=book.note))
        book.on_link(f"{name}, by IPv6 by the link's gateway", "eth2", six, place)


def _allowed(book: Book) -> None:
    """What links are for: it arrives at the peer and nowhere else, with and without protection."""
    for own, peer, _, card, place in book.links():
        unicast = ethernet(peer.mac, own.mac, IPV4, udp(own.ip, peer.ip, 1, 2, book.note))
        book.on_link(f"allowed: unicast to a {place}", card, unicast, place, stays=(place,))
        broadcast = ethernet(BROADCAST, own.mac, LOCAL, book.note)
        book.on_link(f"allowed: broadcast to a {place}", card, broadcast, place, stays=(place,))
        advertised = _advertisement(own, book.note)
        book.on_link(f"allowed: router advertisement to a {place}", card, advertised, place, stays=(place,))


def _tagged(book: Book) -> None:
    near, _, other_near, other_far = book.ground.vlans
    wires = ((V400, book.ground.own, "eth0", 400, SAME), (LINK, book.ground.near, "eth1", near, NEAR))
    for wire, own, card, vlan, beside in wires:
        for tags, name, place in (
            ((other_near,), "a tag: ", OTHER_NEAR),
            ((other_far,), "a tag: ", OTHER_FAR),
            ((vlan, other_near), "two tags: ", beside),
        ):
            frame = ethernet(BROADCAST, own.mac, LOCAL, book.note, tags=tags)
            about = {"wire": wire, "card": card, "note": book.note, "frame": frame, "reaches": (place,)}
            book.rows.append(Attack(name=name + place, is_tagged=True, **about))  # type: ignore[arg-type]


def _to_neighbours(book: Book) -> None:
    """On VLAN 400, past the gateway, as itself."""
    own, ground = book.ground.own, book.ground
    everybody = (SAME, ELSEWHERE, TENANT)
    for other, place in ((ground.same, SAME), (ground.elsewhere, ELSEWHERE), (ground.tenant, TENANT)):
        four = ethernet(other.mac, own.mac, IPV4, udp(own.ip, other.ip, 1, 2, book.note))
        book.on_400(f"unicast, IPv4: {place}", four, place)
        six = ethernet(other.mac, own.mac, IPV6, icmp6(own.ip6, other.ip6, 128, b"\0" * 4 + book.note))
        book.on_400(f"unicast, IPv6: {place}", six, place)
    broadcast = ethernet(BROADCAST, own.mac, IPV4, udp(own.ip, "10.60.7.255", 1, 2, book.note))
    book.on_400("broadcast", broadcast, *everybody)
    multicast = ethernet("01:00:5e:00:00:fb", own.mac, IPV4, udp(own.ip, "224.0.0.251", 1, 2, book.note))
    book.on_400("multicast, IPv4", multicast, *everybody)
    echo = icmp6(own.ip6, ALL_NODES, 128, b"\0" * 4 + book.note)
    book.on_400("multicast, IPv6", ethernet(ALL_NODES_MAC, own.mac, IPV6, echo), *everybody, GATEWAY)
    book.on_400("router advertisement", _advertisement(own, book.note), *everybody, GATEWAY)
    book.on_400("answer of a DHCP server", _offer(own, book.note), *everybody)


def _on_links(book: Book) -> None:
    for own, peer, gateway, card, place in book.links():
        book.on_link(f"answer of a DHCP server: {place}", card, _offer(own, book.note), place)
        told = arp(reply=True, sender=(own.mac, gateway.ip), target=(peer.mac, peer.ip)) + book.note
        book.on_link(f"ARP for the gateway's address: {place}", card, ethernet(peer.mac, own.mac, ARP, told), place)
        four = ethernet(peer.mac, own.mac, IPV4, udp(gateway.ip, peer.ip, 1, 2, book.note))
        book.on_link(f"IPv4 from the gateway's address: {place}", card, four, place)
        known = struct.pack("!I", 0x20000000) + packets.ip(peer.ip6) + b"\x02\x01" + packets.mac(own.mac)
        six = ethernet(ALL_NODES_MAC, own.mac, IPV6, icmp6(own.ip6, ALL_NODES, 136, known)) + book.note
        book.on_link(f"neighbour advertisement for the peer's address: {place}", card, six, place)


def _spoofed(book: Book) -> None:
    """Others' addresses: switches and machines that hear these believe them for a while."""
    ground = book.ground
    own, same, tenant, gateway = ground.own, ground.same, ground.tenant, ground.gateway
    out = ethernet(gateway.mac, own.mac, IPV4, udp(tenant.ip, WEB, 1, 2, book.note))
    book.on_400("IPv4 from a neighbour's address, to the internet", out, GATEWAY, OUT)
    past = ethernet(same.mac, own.mac, IPV4, udp(tenant.ip, same.ip, 1, 2, book.note))
    book.on_400("IPv4 from a neighbour's address, to a neighbour", past, SAME)
    told = arp(reply=True, sender=(own.mac, gateway.ip), target=(BROADCAST, gateway.ip)) + book.note
    claimed = ethernet(BROADCAST, own.mac, ARP, told)
    book.on_400("ARP for the gateway's address", claimed, SAME, ELSEWHERE, TENANT)
    wrong = ethernet(same.mac, tenant.mac, IPV4, udp(own.ip, same.ip, 1, 2, book.note))
    book.on_400("a neighbour's MAC", wrong, SAME)
    for end, peer, link_gateway, card, place in book.links():
        taken = ethernet(peer.mac, link_gateway.mac, IPV4, udp(end.ip, peer.ip, 1, 2, book.note))
        book.on_link(f"the gateway's MAC: {place}", card, taken, place)


def _advertisement(own: End, note: bytes) -> bytes:
    """A router advertisement with one prefix (RFC 4861, 4.2); the note is the prefix's second half."""
    head = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 1800, 0) + packets.ip("fd66::")[:8] + note
    return ethernet(ALL_NODES_MAC, own.mac, IPV6, icmp6(own.ip6, ALL_NODES, 134, head + prefix))


def _offer(own: End, note: bytes) -> bytes:
    """A DHCP offer to everybody (RFC 2131)."""
    fixed = struct.pack("!BBBBIHH4s4s4s4s", 2, 1, 6, 0, 1, 0, 0x8000, *[packets.ip("10.66.6.6")] * 4)
    message = fixed + bytes(16 + 64 + 128) + bytes.fromhex("63825363350102ff") + note
    return ethernet(BROADCAST, own.mac, IPV4, udp(own.ip, "255.255.255.255", 67, 68, message))
