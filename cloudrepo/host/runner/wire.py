"""Proof on the wire: frames are sent and heard by packet sockets."""

from __future__ import annotations

import errno
import json
import select
import threading
import time

from cloudrepo.host.runner.base import DONE, LONGEST_WAIT_S
from cloudrepo.host.runner.spaces import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloudrepo.host.runner.base import Answer, Json


class Ears:
    """A packet socket in each namespace, for all of its devices, read by one thread; packet(7).

    One for each device would cost the kernel its time at the end: 13 ms a socket.
    """

    ALL_FRAMES = 0x0003  # ETH_P_ALL, linux/if_ether.h
    OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h
    BUFFER = 33  # SO_RCVBUFFORCE, asm-generic/socket.h
    ENOUGH = 768  # bytes of a frame that are looked at
    AUXILIARY = (263, 8)  # SOL_PACKET and PACKET_AUXDATA, linux/if_packet.h
    HEAD = 42  # bytes of a frame that are told of: as far as an ARP packet or a UDP header goes

    def __init__(self, act: Json) -> None:
        self.run = bytes.fromhex(act["run"])
        self.questions = {bytes.fromhex(text): number for text, number in act["questions"].items()}
        self.devices = {space: set(names) for space, names in act["places"].items()}
        self.tags = act["tags"]
        self.heard: set[tuple[str, int, int, str]] = set()
        self.answers: set[tuple[str, int, int, str]] = set()
        self.last = time.monotonic()
        self.is_over = False
        self.sockets: dict[str, Any] = {}
        self.poll = select.poll()
        for space in self.devices:
            self.sockets[space] = within(space, self._open)
            self.poll.register(self.sockets[space], select.POLLIN)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _open(self) -> Any:
        import socket

        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self.ALL_FRAMES))
        ear.setsockopt(socket.SOL_SOCKET, self.BUFFER, 32 << 20)
        if self.tags:
            ear.setsockopt(*self.AUXILIARY, 1)
        ear.setblocking(False)
        return ear

    def _listen(self) -> None:
        spaces = {ear.fileno(): space for space, ear in self.sockets.items()}
        while not self.is_over:
            for number, _ in self.poll.poll(50):
                space = spaces[number]
                self._read(self.sockets[space], self.devices[space])

    def _read(self, ear: Any, devices: set[str]) -> None:
        while True:
            try:
                frame, beside, _, address = ear.recvmsg(self.ENOUGH, 64 if self.tags else 0)
            except OSError:  # nothing more, or a device is gone
                return
            if beside:
                frame = with_tag(frame, beside[0][2])
            if address[0] not in devices:
                continue
            place = frame.find(self.run)
            if place >= 0:
                start = place + len(self.run)
                number = int.from_bytes(frame[start : start + 4], "big")
                self._note(self.heard, address, number, frame[: self.HEAD])
            else:
                self._answer(frame, address)

    def _answer(self, frame: bytes, address: Any) -> None:
        """Keep what answers us without our bytes: DHCP servers, by the question's number (RFC 2131), and ARP (-1)."""
        kind, body = frame[12:14], frame[14:]
        if kind == b"\x81\x00":
            kind, body = frame[16:18], frame[18:]
        if kind == b"\x08\x06" and body[6:8] == b"\x00\x02":
            self._note(self.answers, address, -1, frame[: self.HEAD + 4])
        elif kind == b"\x08\x00" and body[9:10] == b"\x11" and body[20:24] == b"\x00\x43\x00\x44":
            number = self.questions.get(body[32:36])
            if number is not None:
                self._note(self.answers, address, number, frame)

    def _note(self, where: set[tuple[str, int, int, str]], address: Any, number: int, data: bytes) -> None:
        self.last = time.monotonic()
        where.add((address[0], number, int(address[2] == self.OUTGOING), data.hex()))

    def send(self, space: str, device: str, frame: bytes) -> None:
        """Have a device send a frame."""
        self.sockets[space].sendto(frame, (device, 0))

    def end(self, settle_s: float, at_most_s: float) -> Json:
        """What was heard, once it has been quiet for a while."""
        until = time.monotonic() + at_most_s
        self.last = time.monotonic()
        while time.monotonic() < min(until, self.last + settle_s):
            time.sleep(LONGEST_WAIT_S)
        self.is_over = True
        self.thread.join()
        # the sockets go with this message's process: the kernel takes its time over each
        return {"heard": sorted(self.heard), "answers": sorted(self.answers)}


def with_tag(frame: bytes, beside: bytes) -> bytes:
    """A frame with the 802.1Q header that the kernel took out of it, as it says beside it (packet(7))."""
    import struct

    status, _, _, _, _, tag, kind = struct.unpack("IIIHHHH", beside[:20])
    if not status & 0x10:  # TP_STATUS_VLAN_VALID, linux/if_packet.h
        return frame
    return frame[:12] + struct.pack("!HH", kind if status & 0x40 else 0x8100, tag) + frame[12:]


ears: list[Ears] = []  # of this message


def act_listen(act: Json) -> Answer:
    """Begin to listen; it ends with the message at the latest."""
    ears.append(Ears(act))
    return DONE, "", ""


def act_heard(act: Json) -> Answer:
    """What was heard since."""
    if not ears:
        return 1, "", "nobody listens"
    return DONE, json.dumps(ears.pop().end(act["settle_s"], act["at_most_s"]), separators=(",", ":")), ""


BURST_BYTES = 24 << 10  # a frame counts for BURST_LEAST at least: devices and sockets hold a few hundred frames
BURST_LEAST = 512
BURST_PAUSE_S = 0.002


class Pace:
    """Says after which frames to pause, so that no host on the way drops any."""

    def __init__(self) -> None:
        self.burst = 0

    def is_due(self, frame: bytes) -> bool:
        """Count a frame that was sent; whether so many came in a row that it is time for a pause."""
        self.burst += max(BURST_LEAST, len(frame))
        if self.burst < BURST_BYTES:
            return False
        self.burst = 0
        return True


def act_emit(act: Json) -> Answer:
    """Send frames by devices of this host, and packets by its own network stack (raw(7))."""
    import socket

    pace = Pace()
    for space, device, text in act["frames"]:
        frame = bytes.fromhex(text)
        try:
            ears[-1].send(space, device, frame)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # else it is lost on the way, as others are: its other end took none
                raise
        if pace.is_due(frame):
            time.sleep(BURST_PAUSE_S)
    if act["packets"]:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as stack:
            for target, text in act["packets"]:
                stack.sendto(bytes.fromhex(text), (target, 0))
    return DONE, "", ""
