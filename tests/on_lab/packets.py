"""Frames as an attacker builds them: Ethernet, ARP, IPv4, IPv6 and what is in them, in bytes. Addresses are texts."""

from __future__ import annotations

import ipaddress
import struct

IPV4, ARP, IPV6, TAG = 0x0800, 0x0806, 0x86DD, 0x8100
BROADCAST = "ff:ff:ff:ff:ff:ff"
UDP, TCP, ICMP, ICMP6 = 17, 6, 1, 58
SYN, RST = 0x02, 0x04


def ethernet(target: str, source: str, kind: int, payload: bytes, *, tags: tuple[int, ...] = ()) -> bytes:
    """A frame without its checksum, padded to the least length; the outermost of the tags (VLAN ids) first."""
    inside = b"".join(struct.pack("!HH", TAG, vlan) for vlan in tags) + struct.pack("!H", kind) + payload
    return (mac(target) + mac(source) + inside).ljust(60, b"\0")


def mac(text: str) -> bytes:
    """A hardware address."""
    return bytes.fromhex(text.replace(":", ""))


def ip(text: str) -> bytes:
    """An address of either kind."""
    return ipaddress.ip_address(text).packed


def arp(*, reply: bool, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """A question or an answer; MAC and IPv4 address of both sides (RFC 826)."""
    (sender_mac, sender_ip), (target_mac, target_ip) = sender, target
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, 2 if reply else 1)
    return head + mac(sender_mac) + ip(sender_ip) + mac(target_mac) + ip(target_ip)


def ipv4(source: str, target: str, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
    """A packet (RFC 791)."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0) + ip(source) + ip(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(source: str, target: str, source_port: int, target_port: int, payload: bytes = b"") -> bytes:
    """A datagram, in IPv4 or IPv6 as the addresses say (RFC 768)."""
    return _transport(
        source, target, UDP, struct.pack("!HHHH", source_port, target_port, 8 + len(payload), 0), 6, payload
    )


def tcp(
    source: str, target: str, source_port: int, target_port: int, *, flags: int = SYN, payload: bytes = b""
) -> bytes:
    """A segment (RFC 9293)."""
    head = struct.pack("!HHIIBBHHH", source_port, target_port, 1, 0, 5 << 4, flags, 1024, 0, 0)
    return _transport(source, target, TCP, head, 16, payload)


def icmp(source: str, target: str, kind: int, code: int, payload: bytes) -> bytes:
    """A message with an empty second word (RFC 792)."""
    message = struct.pack("!BBHI", kind, code, 0, 0) + payload
    return ipv4(source, target, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


def icmp6(source: str, target: str, kind: int, payload: bytes) -> bytes:
    """A message (RFC 4443); `payload` begins after its checksum. Neighbour discovery wants a hop limit of 255."""
    return _transport(source, target, ICMP6, struct.pack("!BBH", kind, 0, 0), 2, payload)


def ipv6(source: str, target: str, protocol: int, payload: bytes, *, hops: int = 255) -> bytes:
    """A packet (RFC 8200)."""
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + ip(source) + ip(target) + payload


def _transport(source: str, target: str, protocol: int, head: bytes, at: int, payload: bytes) -> bytes:
    """What goes over IP with a checksum at this place of its head, over a pseudo-header (RFC 9293, 3.1)."""
    whole = head + payload
    pseudo = ip(source) + ip(target) + struct.pack("!II", len(whole), protocol)
    whole = whole[:at] + struct.pack("!H", checksum(pseudo + whole) or 0xFFFF) + whole[at + 2 :]
    return ipv6(source, target, protocol, whole) if ":" in source else ipv4(source, target, protocol, whole)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def text6(packed: bytes) -> str:
    """Sixteen bytes as an IPv6 address."""
    return str(ipaddress.IPv6Address(packed))
