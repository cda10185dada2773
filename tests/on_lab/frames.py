"""Machines whose guest is the test (`lab/guestless.py`): frames in and out by their TAPs, and nothing booted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cloudrepo.naming import machine_dir, tap_name
from on_lab.cluster import Cluster

CLIENT = """
import json, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
stream = link.makefile("rw")
for line in sys.stdin:
    stream.write(line); stream.flush()
    print(stream.readline(), end="", flush=True)
"""


@dataclass(frozen=True)
class End:
    """A NIC of such a machine."""

    cluster: Cluster
    vm_id: int
    interface: str

    @property
    def host(self) -> str:
        return str(self.cluster.vm(self.vm_id)["worker_ip"])

    @property
    def record(self) -> dict[str, Any]:
        """As recorded."""
        return next(dict(one) for one in self.cluster.vm(self.vm_id)["interfaces"] if one["name"] == self.interface)

    @property
    def mac(self) -> str:
        return str(self.record["mac"])

    def _ask(self, *wishes: dict[str, Any], timeout: float = 60) -> list[Any]:
        path = f"{machine_dir(self.cluster.api.site.installation, self.vm_id)}/frames.sock"
        device = tap_name(self.vm_id, self.interface)
        text = "".join(json.dumps({"device": device, **wish}) + "\n" for wish in wishes)
        words = ("/usr/bin/python3", "-IS", "-c", CLIENT, path)
        return [
            json.loads(line) for line in self.cluster.host(self.host, *words, input=text, timeout=timeout).splitlines()
        ]

    def send(self, *frames: bytes) -> None:
        """Send frames, one after another."""
        self._ask({"do": "send", "frames": [frame.hex() for frame in frames]})

    def hear(self) -> list[bytes]:
        """What came since the last time."""
        return [bytes.fromhex(frame) for frame in self._ask({"do": "hear"})[0]]

    def flood(self, frame: bytes, seconds: float, kbps: float) -> int:
        """Send one frame again and again; how many bytes went."""
        how = {"seconds": seconds, "kbps": kbps}
        return int(self._ask({"do": "flood", "frame": frame.hex(), "how": how}, timeout=seconds + 60)[0]["sent"])

    def count(self) -> tuple[int, float]:
        """Bytes that came so far, and when that was, in seconds of the host's clock."""
        found = self._ask({"do": "count"})[0]
        return int(found["bytes"]), float(found["when"])
