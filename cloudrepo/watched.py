"""What the monitor's decision is made of: what the records say, what is to be done, what people are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

from cloudrepo.late_dataclass import dataclass
from cloudrepo.link_switches import is_served
from cloudrepo.naming import INTERNET_VLAN, meter_number
from cloudrepo.observations import Snapshot
from cloudrepo.settings import Settings

NEVER, ON_FAILURE, ALWAYS = "never", "on-failure", "always"
POLICIES = (NEVER, ON_FAILURE, ALWAYS)
LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The settings that decide."""

    misses: int = 3
    restart: str = ON_FAILURE
    pause_s: float = 10.0
    limit: int = 5
    window_s: float = 600.0
    recover: bool = True
    network_node: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """From the settings of an installation."""
        monitor = settings.monitor
        return cls(
            misses=monitor.misses,
            restart=monitor.restart,
            pause_s=monitor.restart_pause,
            limit=monitor.restart_limit,
            window_s=monitor.restart_window,
            recover=monitor.recover,
            network_node=settings.network.node,
        )

    def pause_after(self, attempts: int) -> float:
        """Least seconds between the last of so many attempts and the next."""
        return min(self.pause_s * 2 ** max(0, attempts - 1), max(LONGEST_PAUSE_S, self.pause_s)) if attempts else 0.0


@dataclass(frozen=True, kw_only=True)
class VmRecord:
    """What the records say of a VM. `restart` is its own policy, or ""."""

    vm_id: int
    name: str
    worker: str
    should_run: bool
    restart: str = ""


@dataclass(frozen=True, kw_only=True)
class SliceRecord:
    """What the records say of a slice.

    Attributes:
        is_settled: whether it runs and no operation is at work on it.
        vlans: that should stand on the network node.
        wired: workers where its flows should be, since machines of it are wired there.
        online: those of them with a machine on VLAN 400.
        meters: by worker, those that hold back what its NICs send, where the settings say so.
        waits_for: hosts that did not answer an undo or a delete.
    """

    slice_id: int
    owner: str
    is_settled: bool
    vms: tuple[VmRecord, ...] = ()
    vlans: frozenset[int] = frozenset()
    wired: frozenset[str] = frozenset()
    online: frozenset[str] = frozenset()
    meters: Mapping[str, frozenset[int]] = field(default_factory=dict)
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One change, for people.

    Attributes:
        level: `info` is written down only; `notice`, `warning` and `error` are sent as well.
        what: such as `vm.died`.
        about: the object, as in the event log.
        text: one sentence without a full stop.
        details: plain values.
        time: when people were to be told, ISO 8601 in UTC; "" until then.
    """

    level: str
    what: str
    about: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """Bring back on these hosts what a slice should have there: networks, and the machines that should run.

    Attributes:
        slice_id: the slice.
        hosts: the network node first.
        vms: those that will be started, for the report.
        why: for the log.
        is_restart: whether only single VMs died.
    """

    slice_id: int
    hosts: tuple[str, ...]
    vms: tuple[int, ...] = ()
    why: str = ""
    is_restart: bool = False


@dataclass(frozen=True, kw_only=True)
class Clearing:
    """Clear these hosts, which answer, of what an undo, a stop or a delete of a slice left there."""

    slice_id: int
    hosts: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Settle:
    """Write that a VM does not run any more, and why: nobody will start it by himself."""

    slice_id: int
    vm_id: int
    status: str
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows from one pass.

    Attributes:
        snapshot: what is seen now.
        notices: changes, for people.
        repairs: a slice is in at most one.
        settles: VMs that are given up or ended.
        ask: workers that are to be asked anew what they are.
        clearings: a slice is in at most one; it may be in a repair as well, which comes first.
    """

    snapshot: Snapshot
    notices: tuple[Notice, ...] = ()
    repairs: tuple[Repair, ...] = ()
    settles: tuple[Settle, ...] = ()
    ask: tuple[str, ...] = ()
    clearings: tuple[Clearing, ...] = ()


# ---------------------------------------------------------------------------------------- from the records


def slices_of(
    data: Mapping[str, Any], is_free: Callable[[Mapping[str, Any]], bool] = lambda operation: False
) -> list[SliceRecord]:
    """What the records say, as far as it matters here.

    Args:
        data: the state.
        is_free: whether an operation in a record stands in nobody's way; by default each does.
    """
    return [_slice(record, is_free) for record in data["slices"].values()]


def _slice(record: Mapping[str, Any], is_free: Callable[[Mapping[str, Any]], bool]) -> SliceRecord:
    is_running = record["status"] == "running"
    vlans = {link["vlan_id"] for link in record["links"] if is_served(link)}
    if any(one["vlan_id"] == INTERNET_VLAN for vm in record["vms"] for one in vm["interfaces"]):
        vlans.add(INTERNET_VLAN)
    running = [vm for vm in record["vms"] if is_running and vm["status"] == "running"]
    wires = [(vm["worker_ip"], one["vlan_id"]) for vm in running for one in vm["interfaces"]]
    return SliceRecord(
        slice_id=record["slice_id"],
        owner=record["owner"],
        is_settled=is_running and ("operation" not in record or is_free(record["operation"])),
        vms=tuple(
            VmRecord(
                vm_id=vm["vm_id"],
                name=vm["name"],
                worker=vm["worker_ip"],
                should_run=is_running and vm["status"] == "running",
                restart=str(vm.get("restart") or ""),
            )
            for vm in record["vms"]
        ),
        vlans=frozenset(vlans) if is_running else frozenset(),
        wired=frozenset(ip for ip, vlan in wires if vlan is not None),
        online=frozenset(ip for ip, vlan in wires if vlan == INTERNET_VLAN),
        meters=_meters(running),
        waits_for=tuple(record.get("pending", ())),
    )


def _meters(vms: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    for vm in vms:
        wired = [one["name"] for one in vm["interfaces"] if one["vlan_id"] is not None]
        numbers = {number for name in wired if (number := meter_number(vm["vm_id"], name)) is not None}
        found[vm["worker_ip"]] = found.get(vm["worker_ip"], frozenset()) | numbers
    return found


def hosts_of(data: Mapping[str, Any], slices: Iterable[SliceRecord], network_node: str) -> list[str]:
    """The hosts to look at: enrolled workers, those that have VMs, and the network node if anybody needs it."""
    known = list(data["workers_list"])
    for one in slices:
        known += [vm.worker for vm in one.vms]
        known += list(one.waits_for)
        known += [network_node] if one.vlans else []
    return list(dict.fromkeys(known))
