"""Frames as bytes: Ethernet, 802.1Q, ARP, IPv4 and IPv6 with what a probe needs of them. Pure.

Each carries a note of its own in what is carried anyway, by which it is known again wherever it comes out.
"""

from __future__ import annotations

import ipaddress
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
BRIDGES = "01:80:c2:00:00:00"  # of spanning tree; a switch forwards none (IEEE 802.1Q, table 8-1)
EXPERIMENTAL, ARP, IPV4, IPV6, VLAN = 0x88B5, 0x0806, 0x0800, 0x86DD, 0x8100  # EtherTypes; IEEE 802, 9.2.4
ICMP, UDP, ICMPV6 = 1, 17, 58  # protocol numbers
HOPS = 64  # of what stays on a wire
ECHO_REQUEST = 8
MESSAGE = 300  # bytes of a DHCP message, at least (RFC 1542, 2.1)
SHORTEST = 60  # bytes of a frame without its checksum (IEEE 802.3, 3.2.8)


def ethernet(destination: str, source: str, kind: int, payload: bytes, *, tag: int | None = None) -> bytes:
    """A frame, padded to the shortest length; `tag` is a VLAN in an 802.1Q header."""
    header = _mac(destination) + _mac(source)
    if tag is not None:
        header += struct.pack("!HH", VLAN, tag)
    return (header + struct.pack("!H", kind) + payload).ljust(SHORTEST, b"\0")


def arp_request(source: str, sender_mac: str, sender_ip: str, target_ip: str, note: bytes) -> bytes:
    """Who has `target_ip`? (RFC 826); the note follows the packet, as padding does."""
    packet = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1)
    packet += _mac(sender_mac) + _ip(sender_ip) + bytes(6) + _ip(target_ip)
    return ethernet(BROADCAST, source, ARP, packet + note)


def udp(
    destination: str,
    source: str,
    source_ip: str,
    destination_ip: str,
    ports: tuple[int, int],
    payload: bytes,
    *,
    tag: int | None = None,
    hops: int = HOPS,
) -> bytes:
    """UDP over IPv4 (RFC 768, RFC 791), with no checksum of its own, which is allowed."""
    packet = udp_packet(source_ip, destination_ip, ports, payload, hops=hops)
    return ethernet(destination, source, IPV4, packet, tag=tag)


def udp_packet(
    source_ip: str, destination_ip: str, ports: tuple[int, int], payload: bytes, *, hops: int = HOPS
) -> bytes:
    """The same without a frame around it."""
    segment = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return _ipv4(source_ip, destination_ip, UDP, segment, hops)


def ping(destination: str, source: str, source_ip: str, destination_ip: str, payload: bytes) -> bytes:
    """An ICMP echo request (RFC 792); whoever answers sends the payload back."""
    message = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, 1, 1) + payload
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return ethernet(destination, source, IPV4, _ipv4(source_ip, destination_ip, ICMP, message, HOPS))


def dhcp_question(source: str, transaction: bytes, note: bytes, *, tag: int | None = None) -> bytes:
    """A DHCPDISCOVER (RFC 2131, 4.4.1); the note stands behind the options, where nobody looks.

    A server keeps nothing for it: only a client that asks again for what was offered gets a lease.
    """
    message = struct.pack("!BBBB4sHH", 1, 1, 6, 0, transaction, 0, 0) + bytes(16)
    message += _mac(source).ljust(16, b"\0") + bytes(64 + 128)
    message += bytes.fromhex("63825363") + bytes([53, 1, 1]) + bytes([55, 3, 1, 3, 6]) + b"\xff" + note
    padded = message.ljust(MESSAGE, b"\0")
    return udp(BROADCAST, source, "0.0.0.0", "255.255.255.255", (68, 67), padded, tag=tag)  # noqa: S104


def _ipv4(source: str, destination: str, protocol: int, payload: bytes, hops: int) -> bytes:
    header = (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, hops, protocol, 0) + _ip(source) + _ip(destination)
    )
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def udp6(destination: str, source: str, source_ip: str, destination_ip: str, payload: bytes) -> bytes:
    """UDP over IPv6 (RFC 8200) to the discard port."""
    segment = struct.pack("!HHHH", 9, 9, 8 + len(payload), 0) + payload
    return ethernet(destination, source, IPV6, _ipv6(source_ip, destination_ip, UDP, segment))


def neighbour_advertisement(source: str, source_ip: str, target: str, link_address: str, note: bytes) -> bytes:
    """`target` is at `link_address` (RFC 4861, 4.4), to all nodes; the note is an option that nobody knows."""
    option = struct.pack("!BB", 2, 1) + _mac(link_address)
    unknown = struct.pack("!BB", 253, (len(note) + 2 + 7) // 8) + note
    message = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ipaddress.IPv6Address(target).packed + option
    message += unknown.ljust((len(note) + 2 + 7) // 8 * 8, b"\0")
    everybody = "ff02::1"
    addresses = ipaddress.IPv6Address(source_ip).packed + ipaddress.IPv6Address(everybody).packed
    pseudo = addresses + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    packet = _ipv6(source_ip, everybody, ICMPV6, message, hops=255)
    return ethernet("33:33:00:00:00:01", source, IPV6, packet)


def _ipv6(source: str, destination: str, protocol: int, payload: bytes, hops: int = 64) -> bytes:
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + addresses + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes(int(part, 16) for part in text.split(":"))


def _ip(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed
