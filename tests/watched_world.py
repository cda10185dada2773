"""A monitor over simulated time, and what hosts report to it, in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo.host_report import MachineReport, Report
from cloudrepo.observations import Snapshot
from cloudrepo.watched import Decision, Policy, SliceRecord, VmRecord
from cloudrepo.watching import decide, newly_dead

A, B, NODE = "10.0.10.1", "10.0.10.2", "10.0.10.3"
POWERED_OFF = "qemu_system_shutdown_request reason=6"
TERMINATED = "qemu-system-x86_64: terminating on signal 15 from pid 7 (sh)\nqemu_system_shutdown_request reason=4"


def alive(pid: int = 4000, **changes: Any) -> MachineReport:
    return MachineReport(**{"is_alive": True, "pid": pid, "process_state": "S", "status": "running", **changes})


def dead(pid: int = 4000) -> MachineReport:
    return MachineReport(is_alive=False, pid=pid)


def report(machines: Mapping[int, MachineReport] | None = None, **changes: Any) -> Report:
    return Report(**{"boot_id": "boot 1", "machines": machines or {}, "servers": frozenset({100, 400}), **changes})


def silent(reason: str = "no route") -> Report:
    return Report(error=reason)


def vm(vm_id: int = 1001, worker: str = A, **changes: Any) -> VmRecord:
    return VmRecord(**{"vm_id": vm_id, "name": f"vm{vm_id - 1000}", "worker": worker, "should_run": True, **changes})


def slice_of(*vms: VmRecord, slice_id: int = 1000, **changes: Any) -> SliceRecord:
    facts = {"slice_id": slice_id, "owner": "ann", "is_settled": True, "vms": vms, "vlans": frozenset({100})}
    return SliceRecord(**{**facts, **changes})


class World:
    """A monitor over simulated time. `pass_` takes what hosts answer now."""

    def __init__(self, *slices: SliceRecord, **policy: Any) -> None:
        self.slices = list(slices)
        self.policy = Policy(**{"network_node": NODE, **policy})
        self.now = 1000.0
        self.snapshot = Snapshot()
        self.decision = Decision(snapshot=self.snapshot)
        self.asked_words: dict[str, list[int]] = {}

    def pass_(self, after: float = 15.0, *, words: str = "", busy: tuple[int, ...] = (), **hosts: Report) -> Decision:
        """One pass so many seconds after the last one; hosts by `a`, `b`, `node`, which answer by default."""
        self.now += after
        reports = {A: report(), B: report(), NODE: report()}
        reports |= {{"a": A, "b": B, "node": NODE}[name]: answer for name, answer in hosts.items()}
        self.asked_words = newly_dead(self.snapshot, reports, self.slices)
        found = {vm_id: words for vm_ids in self.asked_words.values() for vm_id in vm_ids} if words else {}
        self.decision = decide(
            self.snapshot,
            reports,
            self.slices,
            self.policy,
            self.now,
            known=(A, B, NODE),
            enrolled=(A, B, NODE),
            busy=busy,
            last_words=found,
        )
        self.snapshot = self.decision.snapshot
        return self.decision

    @property
    def told(self) -> list[str]:
        return [notice.what for notice in self.decision.notices]

    def state(self, vm_id: int = 1001) -> str:
        return self.snapshot.vms[vm_id].state
