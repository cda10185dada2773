"""Stands in for QEMU on a host of the lab: holds its TAPs and answers QMP, so that a NIC costs nothing.

It is put in QEMU's place with QEMU's name, started with QEMU's words, and ends as QEMU does. Asked for anything but a
machine, it is QEMU.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import selectors
import socket
import struct
import sys

REAL = "/usr/bin/qemu-system-x86_64"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h


def options(words: list[str], name: str) -> list[str]:
    """The values of an option that may stand several times."""
    return [after for word, after in itertools.pairwise(words) if word == name]


def hold(device: str) -> int:
    """Be at the other end of a TAP: it has a carrier."""
    number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    return number


class Machine:
    """Serves QMP clients and drops what its NICs get."""

    def __init__(self, words: list[str]) -> None:
        fields = [dict(part.partition("=")[::2] for part in text.split(",")) for text in options(words, "-netdev")]
        self.uuid = options(words, "-uuid")[0]
        self.poll = selectors.DefaultSelector()
        for one in fields:
            self.poll.register(hold(one["ifname"]), selectors.EVENT_READ, self.drop)
        path = options(words, "-qmp")[0].removeprefix("unix:").split(",")[0]
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen()
        self.poll.register(listener, selectors.EVENT_READ, self.greet)
        self.rest: dict[socket.socket, bytes] = {}

    def run(self) -> None:
        """Until told to quit."""
        while True:
            for key, _ in self.poll.select():
                key.data(key.fileobj)

    def drop(self, tap: int) -> None:
        """A guest that hears nothing."""
        try:
            while os.read(tap, 65536):
                pass
        except BlockingIOError:
            pass

    def greet(self, listener: socket.socket) -> None:
        """A new client."""
        client, _ = listener.accept()
        self.rest[client] = b""
        self.poll.register(client, selectors.EVENT_READ, self.obey)
        self.say(client, {"QMP": {"version": {}, "capabilities": []}})

    def obey(self, client: socket.socket) -> None:
        """Do what a client says."""
        data = client.recv(65536)
        if not data:
            self.poll.unregister(client)
            self.rest.pop(client)
            client.close()
            return
        *lines, self.rest[client] = (self.rest[client] + data).split(b"\n")
        for line in filter(None, lines):
            command = json.loads(line)["execute"]
            answers = {
                "query-uuid": {"UUID": self.uuid},
                "query-status": {"status": "running", "running": True},
            }
            self.say(client, {"return": answers.get(command, {})})
            if command in ("quit", "system_powerdown"):
                os._exit(0)

    @staticmethod
    def say(client: socket.socket, value: object) -> None:
        """One line of JSON."""
        client.sendall(json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    if "-uuid" not in sys.argv:
        os.execv(REAL, [REAL, *sys.argv[1:]])  # noqa: S606
    Machine(sys.argv[1:]).run()
