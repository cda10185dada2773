"""Frames that a switch takes as if they had come in by a port."""

from __future__ import annotations

import time

from cloudrepo.host.runner.base import DONE
from cloudrepo.host.runner.wire import BURST_PAUSE_S, Pace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloudrepo.host.runner.base import Answer, Json


class Switch:
    """A conversation with a bridge in OpenFlow 1.0 (its specification, 5.3.6 and 5.3.7)."""

    HELLO, ERROR, PACKET_OUT, BARRIER, ANSWER = 0, 1, 13, 18, 19
    TO_THE_TABLES = 0xFFF9  # OFPP_TABLE

    def __init__(self, bridge: str, timeout_s: float) -> None:
        import socket

        self.rest = b""
        self.number = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(timeout_s)
            self.socket.connect(f"/var/run/openvswitch/{bridge}.mgmt")
            self._say(self.HELLO, b"")
        except OSError:
            self.socket.close()
            raise

    def send(self, port: int, frame: bytes) -> None:
        """Have the switch take a frame as if it had come in by a port: no buffer, one action of eight bytes."""
        import struct

        head = struct.pack("!IHH", 0xFFFFFFFF, port, 8) + struct.pack("!HHHH", 0, 8, self.TO_THE_TABLES, 0)
        self._say(self.PACKET_OUT, head + frame)

    def settle(self) -> None:
        """Wait until all that was said is done.

        Raises:
            ConnectionError: the switch refused a frame, or hung up.
        """
        import struct

        last = self._say(self.BARRIER, b"")
        while True:
            while len(self.rest) < 8 or len(self.rest) < struct.unpack("!H", self.rest[2:4])[0]:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionError("the switch hung up")
                self.rest += data
            _, kind, length, number = struct.unpack("!BBHI", self.rest[:8])
            if kind == self.ERROR:
                raise ConnectionError(f"the switch refused frame {number}: error {self.rest[8:12].hex()}")
            self.rest = self.rest[length:]
            if kind == self.ANSWER and number == last:
                return

    def _say(self, kind: int, body: bytes) -> int:
        import struct

        self.number += 1
        self.socket.sendall(struct.pack("!BBHI", 1, kind, 8 + len(body), self.number) + body)
        return self.number


def act_inject(act: Json) -> Answer:
    """Send frames to a switch, and wait for it to have done them: in bursts, so that no host on the way drops any."""
    switch = Switch(act["bridge"], act["timeout_s"])
    with switch.socket:
        pace = Pace()
        for port, text in act["frames"]:
            frame = bytes.fromhex(text)
            switch.send(port, frame)
            if pace.is_due(frame):
                switch.settle()
                time.sleep(BURST_PAUSE_S)
        switch.settle()
    return DONE, "", ""
