"""Joins stdin and stdout to a socket of the host: a machine's console, or a guest's SSH server. Sent like the runner.

Standard library only, Python 3.8 or newer. stdout begins with one line of JSON: `{"event": "open"}`, or
`{"event": "refused", "text": …}` when nobody answers there; then bytes flow both ways.
"""

from __future__ import annotations

import json
import os
import select
import socket

CLONE_NEWNET = 0x40000000  # linux/sched.h
SSH_PORT = 22
CONNECT_S = 8.0


def main(text: str) -> int:
    """Relay until either side ends; `text` is JSON with `socket`, a path, or with what `visit` takes."""
    asked = json.loads(text)
    if "socket" in asked:
        return relay(asked["socket"])
    return visit(asked["installation"], asked["vlan"], asked["address"])


def relay(path: str) -> int:
    """Relay to a Unix socket. A symlink at the path is not followed: another account may have put it there."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    number = -1
    try:
        number = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        peer.connect(f"/proc/self/fd/{number}")
    except OSError as error:
        return refused(error.strerror or str(error))
    finally:
        if number >= 0:
            os.close(number)
    return joined(peer)


def visit(installation: str, vlan: int, address: str) -> int:
    """Relay to the SSH port of a guest, from the namespace of its link's VLAN, where nothing is routed.

    Only to an address that our DHCP server there keeps for a machine: so it is a VLAN of ours, and no other port and
    nobody else is reached.
    """
    try:
        with open(f"/run/cloudrepo-{installation}/dhcp-{vlan}/hosts", encoding="utf-8") as file:
            kept = [words[1] for words in (line.strip().split(",") for line in file) if len(words) > 1]
        if address not in kept:
            return refused("no machine of this VLAN has that address")
        enter_network(f"ns-dhcp-vlan{vlan}")
        peer = socket.create_connection((address, SSH_PORT), CONNECT_S)
    except OSError as error:
        return refused(error.strerror or str(error))
    peer.settimeout(None)
    return joined(peer)


def enter_network(space: str) -> None:
    """Put this process, which has one thread, into a named network namespace."""
    import ctypes

    number = os.open("/run/netns/" + space, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(number, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), space)
    finally:
        os.close(number)


def refused(text: str) -> int:
    """Say why there is no connection; the exit status."""
    write_all(1, json.dumps({"event": "refused", "text": text}).encode() + b"\n")
    return 1


def joined(peer: socket.socket) -> int:
    """Carry bytes both ways until either side ends."""
    write_all(1, b'{"event": "open"}\n')
    sides = {0: peer.fileno(), peer.fileno(): 1}  # read from: write to
    waiting = select.poll()
    for side in sides:
        waiting.register(side, select.POLLIN)
    try:
        while True:
            for side, _ in waiting.poll():
                data = os.read(side, 65536)
                if not data:
                    return 0
                write_all(sides[side], data)
    except OSError:
        return 0  # a broken pipe: one side has gone


def write_all(number: int, data: bytes) -> None:
    """Write everything to a blocking file."""
    while data:
        data = data[os.write(number, data) :]
