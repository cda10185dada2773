"""Runs on a host of the lab: a network of its own behind a machine's NIC (`lab/guestless.py`), with a real sshd in it.

So there is a guest with an address and an SSH server, and nothing booted. Ends with its standard input. Arguments: the
machine's `frames.sock`, its TAP, MAC and address with prefix, and the public key that is let in.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
POLL_S = 0.02


def network(mac: str, address: str) -> int:
    """A network namespace with one card; what that sends and hears is at the number returned."""
    assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
    number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH22x", b"eth1", IFF_TAP | IFF_NO_PI))
    for words in (
        f"link set eth1 address {mac} mtu 1400",
        f"address add {address} dev eth1",
        "link set eth1 up",
        "link set lo up",
    ):
        subprocess.run(("ip", *words.split()), check=True)
    return number


def sshd(folder: str, key: str) -> subprocess.Popen[bytes]:
    """A real one, for root by this key."""
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/host_key"), check=True)
    with open(f"{folder}/keys", "w") as file:
        file.write(key + "\n")
    with open(f"{folder}/config", "w") as file:
        file.write(
            f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/keys\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
    os.makedirs("/run/sshd", exist_ok=True)
    return subprocess.Popen(("/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/config"), stdin=subprocess.DEVNULL)


def carry(card: int, frames: str, device: str) -> None:
    """Frames both ways between the card and the machine's NIC, until the standard input ends."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(frames)
    stream = link.makefile("rw")

    def ask(**wish: object) -> object:
        stream.write(json.dumps({"device": device, **wish}) + "\n")
        stream.flush()
        return json.loads(stream.readline())

    while True:
        readable, _, _ = select.select([card, 0], [], [], POLL_S)
        if 0 in readable and not os.read(0, 100):
            return
        sent = []
        while card in readable:
            try:
                sent.append(os.read(card, 65536).hex())
            except BlockingIOError:
                break
        if sent:
            ask(do="send", frames=sent)
        heard = ask(do="hear")
        assert isinstance(heard, list)
        for frame in heard:
            os.write(card, bytes.fromhex(frame))


def main(frames: str, device: str, mac: str, address: str, key: str) -> None:
    card = network(mac, address)
    folder = tempfile.mkdtemp()
    server = sshd(folder, key)
    try:
        carry(card, frames, device)
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
