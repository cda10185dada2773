"""Stands in for QEMU on a host of the lab: holds its TAPs and answers QMP, so that a NIC costs nothing.

It is put in QEMU's place with QEMU's name, started with QEMU's words, and ends as QEMU does. Whoever wants to be its
guest finds `frames.sock` beside its QMP socket: a line of JSON in, a line out; so a test says what a NIC sends and is
told what it hears. Asked for anything but a machine, it is QEMU.
"""

from __future__ import annotations

import collections
import fcntl
import itertools
import json
import os
import selectors
import socket
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REAL = "/usr/bin/qemu-system-x86_64"
KEPT = 4096  # frames of a NIC that nobody asked for yet
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
    """Serves QMP clients, and whoever is its guest."""

    def __init__(self, words: list[str]) -> None:
        devices = [
            dict(part.partition("=")[::2] for part in text.split(","))["ifname"] for text in options(words, "-netdev")
        ]
        self.uuid = options(words, "-uuid")[0]
        self.poll = selectors.DefaultSelector()
        self.taps = {device: hold(device) for device in devices}
        self.heard: dict[str, collections.deque[bytes]] = {device: collections.deque(maxlen=KEPT) for device in devices}
        self.bytes = dict.fromkeys(devices, 0)
        for device, tap in self.taps.items():
            self.poll.register(tap, selectors.EVENT_READ, (self.hear, device))
        path = options(words, "-qmp")[0].removeprefix("unix:").split(",")[0]
        self.listen(path, self.obey, {"QMP": {"version": {}, "capabilities": []}})
        self.listen(f"{os.path.dirname(path)}/frames.sock", self.act, None)
        self.rest: dict[socket.socket, bytes] = {}

    def listen(self, path: str, serve: Any, greeting: object) -> None:
        """Take clients at a socket."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen()
        self.poll.register(listener, selectors.EVENT_READ, (self.greet, (listener, serve, greeting)))

    def run(self) -> None:
        """Until told to quit."""
        while True:
            for key, _ in self.poll.select():
                work, about = key.data
                work(about)

    def hear(self, device: str) -> None:
        """All that has come in by a NIC."""
        try:
            while frame := os.read(self.taps[device], 65536):
                self.bytes[device] += len(frame)
                self.heard[device].append(frame)
        except BlockingIOError:
            pass

    def greet(self, about: Any) -> None:
        """A new client."""
        listener, serve, greeting = about
        client, _ = listener.accept()
        self.rest[client] = b""
        self.poll.register(client, selectors.EVENT_READ, (self.lines, (client, serve)))
        if greeting is not None:
            self.say(client, greeting)

    def lines(self, about: Any) -> None:
        """What a client says."""
        client, serve = about
        data = client.recv(1 << 20)
        if not data:
            self.poll.unregister(client)
            self.rest.pop(client)
            client.close()
            return
        *lines, self.rest[client] = (self.rest[client] + data).split(b"\n")
        for line in filter(None, lines):
            serve(client, json.loads(line))

    def obey(self, client: socket.socket, command: Any) -> None:
        """One command of QMP."""
        answers = {"query-uuid": {"UUID": self.uuid}, "query-status": {"status": "running", "running": True}}
        self.say(client, {"return": answers.get(command["execute"], {})})
        if command["execute"] in ("quit", "system_powerdown"):
            os._exit(0)

    def act(self, client: socket.socket, wish: Any) -> None:
        """One wish of the guest: `send` frames, `hear` what came since, `flood` for some seconds, `count` bytes."""
        device = wish["device"]
        if wish["do"] == "send":
            for frame in wish["frames"]:
                os.write(self.taps[device], bytes.fromhex(frame))
            self.say(client, {})
        elif wish["do"] == "hear":
            self.hear(device)
            self.say(client, [frame.hex() for frame in self.heard[device]])
            self.heard[device].clear()
        elif wish["do"] == "flood":
            self.say(client, {"sent": self.flood(self.taps[device], bytes.fromhex(wish["frame"]), **wish["how"])})
        elif wish["do"] == "count":
            self.hear(device)
            self.say(client, {"bytes": self.bytes[device], "when": time.monotonic()})

    @staticmethod
    def flood(tap: int, frame: bytes, *, seconds: float, kbps: float) -> int:
        """Send at a pace; how many bytes went."""
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            while sent * 8 < kbps * 1000 * passed:
                try:
                    os.write(tap, frame)
                except BlockingIOError:
                    break
                sent += len(frame)
            time.sleep(0.001)
        return sent

    @staticmethod
    def say(client: socket.socket, value: object) -> None:
        """One line of JSON."""
        client.sendall(json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    if "-uuid" not in sys.argv:
        os.execv(REAL, [REAL, *sys.argv[1:]])  # noqa: S606
    Machine(sys.argv[1:]).run()
