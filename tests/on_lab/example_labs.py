"""The labs of `examples/` on the lab: made from their files, and looked at from inside their guests."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudrepo.naming import tap_name
from cloudrepo.topology.model import Node, Topology
from cloudrepo.topology.reading import read
from on_lab.cluster import Cluster, Record, network_of, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROUTER = "router"
PATIENCE_S = 120.0
BOOT_S = 600.0  # of a Debian with cloud-init, under emulation and beside others


class LabOf:
    """A lab that runs.

    Attributes:
        cluster: where.
        slice_id: of its slice.
        ids: of its VMs, by name.
    """

    def __init__(self, cluster: Cluster, name: str, more: Mapping[str, Record] | None = None) -> None:
        self.cluster = cluster
        self.more = more or {}
        path = EXAMPLES / f"{name}.cloud.yml"
        topology = read(path.read_text(), path.name)
        self.slice_id = cluster.ok("create_slice", "admin", topology.name, topology.type)["slice_id"]
        self.ids: dict[str, int] = {}
        self.nodes = {node.name: node for node in topology.nodes}
        try:
            self._make(topology)
        except BaseException:
            self.delete()
            raise

    def _make(self, topology: Topology) -> None:
        for node in topology.nodes:
            self.ids[node.name] = self._add(node, topology.needed(node.name))
        for link in topology.links:
            (a, b, *others) = [(self.ids[end.node], end.interface) for end in link.ends]
            wider: dict[str, Any] = {"more_ends": others} if others else {}
            wider |= {"subnet": link.subnet} if link.subnet else {}
            self.cluster.ok("create_link", "admin", self.slice_id, *a, *b, **link.switches, **wider)
        self.cluster.ok("deploy_slice", "admin", self.slice_id)

    def delete(self) -> None:
        """Its slice goes: what is left over would fill the quota of the labs after it."""
        self.cluster.ok("delete_slice", "admin", self.slice_id)

    def _add(self, node: Node, needed: int) -> int:
        told = {**node.first_boot, **self.more.get(node.name, {})}
        interfaces = node.interfaces if node.interfaces is not None else needed
        made = self.cluster.ok(
            *("add_vm_to_slice", "admin", self.slice_id, node.name, node.flavor, interfaces, node.internet),
            first_boot=told or None,
        )
        return int(made["vm_id"])

    def run(self, name: str, line: str) -> tuple[int, str]:
        """A line for the shell of a guest: its exit status, and what it said."""
        done = self.cluster.guest(self.ids[name], "sh", "-c", line, timeout_s=60)
        return done.status, done.out

    def said(self, name: str, line: str) -> str:
        """What a line for the shell of a guest said; it must succeed."""
        status, out = self.run(name, line)
        assert status == 0, f"{line} on {name}: {status}, {out}"
        return out

    def wait(self, name: str, line: str, is_so: Callable[[str], Any] = bool, seconds: float = PATIENCE_S) -> str:
        """Run a line until what it says is so."""
        last = [""]

        def look() -> bool:
            status, last[0] = self.run(name, line)
            return status == 0 and bool(is_so(last[0]))

        try:
            wait_until(look, seconds, f"{line} on {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {last[0]!r}") from None
        return last[0]

    def wait_for_start(self) -> None:
        """Until the start script of each machine has ended, without a fault."""
        for name, node in self.nodes.items():
            if node.start and node.flavor == ROUTER:
                found = json.loads(self._content(name, "/run/cloud-init/result.json", BOOT_S))["v1"]
                log = "cat /var/log/cloud-init-output.log; tail -n 60 /var/log/cloud-init.log"
                assert found["errors"] == [] and "NoCloud" in found["datasource"], (found, self.said(name, log))
            elif node.start:
                status = self._content(name, "/run/first-boot/status", PATIENCE_S)
                assert status == "0\n", self.said(name, "cat /run/first-boot/output")

    def _content(self, name: str, path: str, seconds: float) -> str:
        """What a file of a guest holds, once there is one that holds something."""
        return self.cluster.guest_waits(self.ids[name], f"[ -s {path} ] && cat {path}", seconds)

    def mac(self, name: str, card: str) -> str:
        """The MAC of a card, as the records have it."""
        return next(str(one["mac"]) for one in self.cluster.vm(self.ids[name])["interfaces"] if one["name"] == card)

    def address(self, name: str, card: str) -> str:
        """The address that a card got by DHCP."""
        return self.cluster.wait_for_address(self.ids[name], card)

    @contextmanager
    def heard_by(self, name: str, card: str) -> Iterator[Callable[[], list[bytes]]]:
        """Listen at a card's TAP: called, what gives all that went to the guest until now."""
        vm_id, frames = self.ids[name], list[bytes]()
        with network_of(self.cluster.lab.host_room(self.cluster.vm(vm_id)["worker_ip"]).pid()):
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            ear.bind((tap_name(vm_id, card), 0))
        ear.setblocking(False)

        def so_far() -> list[bytes]:
            try:
                while True:
                    frame, (_, _, kind, *_) = ear.recvfrom(4096)
                    frames.extend([frame] * (kind == socket.PACKET_OUTGOING))
            except BlockingIOError:
                return frames

        with ear:
            yield so_far


@contextmanager
def lab_of(cluster: Cluster, name: str, more: Mapping[str, Record] | None = None) -> Iterator[LabOf]:
    """A lab by the name of its file; it is deleted afterwards.

    Args:
        cluster: where.
        name: of the file.
        more: by machine, what its first boot gets besides.
    """
    lab = LabOf(cluster, name, more)
    try:
        yield lab
    finally:
        lab.delete()
