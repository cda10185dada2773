"""Which worker a VM gets: the documented round robin over the workers that have room. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.observations import UP, WorkerView
from cloudrepo.settings import Settings
from cloudrepo.state import all_slices
from cloudrepo.validation import excerpt

#: In the state: addresses of workers that get no new VMs, because somebody said so.
DRAINED = "drained"


@dataclass(frozen=True)
class Wanted:
    """What a VM needs: cores, memory and disk in GiB."""

    cores: int
    ram_gb: float
    disk_gb: float


@dataclass(frozen=True)
class Choice:
    """A worker, and where the round robin goes on."""

    worker_ip: str
    next_index: int


def start_index(data: Mapping[str, Any], settings: Settings) -> int:
    """Where the round robin begins in a new process: after the VMs ever placed, or at 0 as documented."""
    return 0 if settings.scheduler.index == "memory" else int(data.get("placements", 0))


def next_worker(workers: list[str], index: int, down: Collection[str] = (), drained: Collection[str] = ()) -> Choice:
    """The documented order, `workers[index % n]`, without those down or drained; capacity is not asked.

    Raises:
        RefusedError: there is no worker, or all are down or drained.
    """
    _refuse_empty(workers)
    for offset in range(len(workers)):
        worker = workers[(index + offset) % len(workers)]
        if worker not in down and worker not in drained:
            return Choice(worker, index + offset + 1)
    raise _nowhere({worker: "down" if worker in down else _drained(worker) for worker in workers})


def _drained(worker: str) -> str:
    return f"drained (`./cloud worker drain {worker} --undo` ends that)"


def choose_worker(
    data: Mapping[str, Any],
    settings: Settings,
    wanted: Wanted,
    index: int,
    down: Collection[str] = (),
    measured: Mapping[str, WorkerView] | None = None,
    pinned: str = "",
) -> Choice:
    """The first worker in the documented order that is up and has room.

    Args:
        data: the state; `workers_list` gives the order, `workers` what discovery found and what is used.
        settings: the `scheduler` group and `network.node`.
        wanted: what the VM needs.
        index: the round-robin index.
        down: workers known not to answer. One that is not in `workers` was not found by discovery and gets
            nothing either, unless `workers` is empty: then nobody has asked yet, and all are taken as fit.
        measured: what the monitor has just seen of workers; what records promise may be in use by others.
        pinned: the only worker that will do; the round robin stays where it is. "" = any.

    Raises:
        RefusedError: no worker fits; the message lists every worker and what it lacks.
    """
    workers = list(data["workers_list"])
    _refuse_empty(workers)
    if pinned and pinned not in workers:
        raise RefusedError(
            f"there is no worker {excerpt(pinned)}",
            evidence=f"there are {', '.join(workers)}",
            code="placement.unknown",
        )
    reasons: dict[str, str] = {}
    for offset in range(len(workers)):
        worker = workers[(index + offset) % len(workers)]
        seen = (measured or {}).get(worker)
        lack = "down" if worker in down else lacks(data, settings, worker, wanted, seen)
        if pinned not in ("", worker):
            continue
        if not lack:
            return Choice(worker, index if pinned else index + offset + 1)
        reasons[worker] = lack
    raise _nowhere({worker: reasons[worker] for worker in workers if worker in reasons})


def lacks(
    data: Mapping[str, Any], settings: Settings, worker: str, wanted: Wanted, seen: WorkerView | None = None
) -> str:
    """What keeps a worker from taking the VM, in words; empty when nothing does."""
    scheduler = settings.scheduler
    if worker in (data.get(DRAINED) or ()):
        return _drained(worker)
    if scheduler.network_node == "exclude" and worker == settings.network.node:
        return "the network node takes no VMs (scheduler.network_node)"
    record = data["workers"].get(worker)
    if record is None:
        return "not found by discovery" if data["workers"] else ""
    found: list[str] = []
    if scheduler.max_vms == "enforce":
        count = sum(vm["worker_ip"] == worker for part in all_slices(data) for vm in part["vms"])
        if count >= record.get("max_vms", 10):
            found.append(f"{count} of {record.get('max_vms', 10)} VMs in use")
    if scheduler.capacity == "on":
        found += _without_room(record, settings, wanted, seen or WorkerView(state=UP))
    return ", ".join(found)


def _without_room(record: Mapping[str, Any], settings: Settings, wanted: Wanted, seen: WorkerView) -> list[str]:
    found: list[str] = []
    for what, unit, want, over in (
        ("cores", "cores", wanted.cores, settings.scheduler.cores_overcommit),
        ("ram_gb", "GB RAM", wanted.ram_gb, settings.scheduler.ram_overcommit),
    ):
        used, size = record.get(f"used_{what}", 0), record[f"max_{what}"] * over
        if used + want > size + 1e-9:  # sums of tenths
            found.append(f"{max(0.0, size - used):g} of {size:g} {unit} free, {want:g} wanted")
    if seen.ram_free_mib is not None:
        available = seen.ram_free_mib / 1024 * settings.scheduler.ram_overcommit
        if wanted.ram_gb > available and not found:
            found.append(f"{round(available, 1):g} GB RAM free as measured, {wanted.ram_gb:g} wanted")
    # Disks are thin overlays: what counts is the space that is free, not the sum of their sizes.
    free, how = record.get("free_disk_gb", record["max_disk_gb"]), ""
    if seen.disk_free_gib is not None:
        free, how = round(seen.disk_free_gib, 1), " as measured"
    if wanted.disk_gb > free:
        found.append(f"{free:g} GB disk free{how}, {wanted.disk_gb:g} wanted")
    return found


def _refuse_empty(workers: list[str]) -> None:
    if not workers:
        raise RefusedError(
            "there is no worker",
            evidence="workers_list in the state file is empty",
            remedy="Add one with `./cloud worker add IP`, or by its address in workers_list",
            code="placement.empty",
        )


def _nowhere(reasons: Mapping[str, str]) -> RefusedError:
    return RefusedError(
        "no worker can take the VM",
        evidence="; ".join(f"{worker}: {reason}" for worker, reason in reasons.items()),
        remedy="Delete a VM, choose a smaller flavor, or add a worker",
        code="placement.full",
        details={"workers": dict(reasons)},
    )
