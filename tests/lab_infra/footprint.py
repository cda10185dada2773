"""What a lab has on the machine: its processes and namespaces, and what anybody can see."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import Lab
from lab.processes import ProcessIdentity
from lab.record import LAB, Record

_KINDS = ("mnt", "net", "pid", "uts", "ipc")


class Held:
    """A namespace of a process, kept from being freed: the number of one that is freed is soon another's.

    Attributes:
        number: what it is called by, as long as this object is there.

    Raises:
        OSError: the process has gone.
    """

    def __init__(self, pid: int, kind: str) -> None:
        self._descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        self.number = os.fstat(self._descriptor).st_ino

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@dataclass(frozen=True)
class Footprint:
    """Processes of a lab and the namespaces that are theirs alone, by kind and number; `held` keeps these theirs."""

    processes: frozenset[ProcessIdentity]
    namespaces: frozenset[tuple[str, int]]
    held: tuple[Held, ...]

    def remains(self) -> list[str]:
        """Return what of it is still there."""
        alive = [f"process {process.pid}" for process in self.processes if process.find() is not None]
        held = {entry for name in _processes() for entry in _namespaces(name)}
        return alive + [f"{kind} namespace {inode}" for kind, inode in self.namespaces & held]


def footprint(lab: Lab) -> Footprint:
    """Take stock of a running lab: everything below its first process."""
    record = Record.load(lab.folder.record)
    assert record is not None
    first = record.rooms[LAB].find()
    assert first is not None
    tree, parents = {first}, {pid: _parent(pid) for pid in _processes()}
    while grown := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    found = [identity for pid in tree if (identity := _identity(pid)) is not None]
    own = set(_namespaces(os.getpid()))
    mine: dict[tuple[str, int], Held] = {}
    for pid in tree:
        for kind in _KINDS:
            with suppress(OSError):
                held = Held(pid, kind)
                mine.setdefault((kind, held.number), held)
    mine = {entry: held for entry, held in mine.items() if entry not in own}
    return Footprint(frozenset(found), frozenset(mine), tuple(mine.values()))


def machine() -> dict[str, str]:
    """Return what the machine shows to everybody and a lab must not change."""
    links = subprocess.run(["ip", "-br", "link"], check=True, capture_output=True, text=True).stdout
    routes = subprocess.run(["ip", "route"], check=True, capture_output=True, text=True).stdout
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
        "links": links,
        "routes": routes,
        "netns": " ".join(sorted(os.listdir("/run/netns"))) if Path("/run/netns").exists() else "",
        "openvswitch": str(sorted(os.listdir("/run/openvswitch"))) if Path("/run/openvswitch").exists() else "",
    }


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    return int(text.rpartition(")")[2].split()[1])


def _identity(pid: int) -> ProcessIdentity | None:
    try:
        return ProcessIdentity.of(pid)
    except ProcessLookupError:
        return None


def _namespaces(pid: int) -> list[tuple[str, int]]:
    try:
        return [(kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino) for kind in _KINDS]
    except OSError:
        return []
