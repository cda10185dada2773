"""Run inside the network node: ends when every address on its command line has answered a ping."""

import os
import socket
import struct
import sys
import time

PATIENCE_S = 120.0
INTERVAL_S = 0.02


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(identity: int, sequence: int) -> bytes:
    """An ICMP echo request (RFC 792)."""
    head = struct.pack("!BBHHH", 8, 0, 0, identity, sequence)
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


def main(addresses: list[str]) -> int:
    """Ask those that have not answered, again and again; 1 when the patience ends first."""
    silent, identity = set(addresses), os.getpid() & 0xFFFF
    until = time.monotonic() + PATIENCE_S
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        sequence = 0
        while silent and time.monotonic() < until:
            sequence += 1
            for address in silent:
                try:
                    icmp.sendto(echo_request(identity, sequence & 0xFFFF), (address, 0))
                except OSError:
                    pass  # nobody there yet: the queue for its ARP answer is full
            next_round = time.monotonic() + INTERVAL_S
            while silent and (left := next_round - time.monotonic()) > 0:
                icmp.settimeout(left)
                try:
                    packet, (sender, _) = icmp.recvfrom(2048)
                except TimeoutError:
                    break
                kind, answered = packet[20], struct.unpack("!H", packet[24:26])[0]
                if kind == 0 and answered == identity:
                    silent.discard(sender)
    print(" ".join(sorted(silent)))
    return 1 if silent else 0


sys.exit(main(sys.argv[1:]))
