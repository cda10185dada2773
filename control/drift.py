"""Drift: what stands on all hosts against the records, told, and set right where it is ours.

Looking takes one round trip a host and changes nothing. Setting right goes slice by slice through the same operation
as a deploy, under the same locks and numbers; a slice that somebody is at, or whose last operation did not end, is left
alone and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from cloudrepo import drift
from cloudrepo.drift import Finding, State
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import SHARED, UNFINISHED, Mark
from cloudrepo.probe import Host
from cloudrepo.resources import HostState, Resource
from cloudrepo.state import find_slice
from control import targets
from control.context import Context, Record
from control.processes import described, is_abandoned
from control.states import CREATING, DESIGN, REPAIR, RUNNING, STOPPED, listed, may_begin
from control.unfinished import of_slice

SCHEMA_VERSION = 1
#: States in which the records say what should be on the hosts.
SETTLED = (DESIGN, STOPPED, RUNNING)


@dataclass(frozen=True, kw_only=True)
class Unsettled:
    """A slice nothing is said of.

    Attributes:
        is_busy: a process that lives is at it.
        why: in a sentence.
    """

    slice_id: int
    status: str
    is_busy: bool
    why: str


@dataclass(kw_only=True)
class Report:
    """A look at the hosts.

    Attributes:
        findings: every object, by host in the order of the hosts.
        unreachable: hosts that did not answer, and why.
        unsettled: slices nothing is said of.
        problems: what kept a slice from being told from a host, by host.
    """

    installation: str
    findings: list[Finding] = field(default_factory=list)
    unreachable: dict[str, CloudError] = field(default_factory=dict)
    unsettled: list[Unsettled] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def differences(self) -> list[Finding]:
        """Where hosts and records disagree."""
        return list(drift.differences(self.findings))

    def to_dict(self) -> Record:
        """As JSON has it; see docs/drift.md."""
        counts = {state.value: sum(one.state is state for one in self.findings) for state in State}
        return {
            "schema_version": SCHEMA_VERSION,
            "installation": self.installation,
            "differences": len(self.differences),
            "counts": counts,
            "objects": [_as_record(one) for one in self.findings],
            "unsettled": [
                {"slice_id": one.slice_id, "status": one.status, "busy": one.is_busy, "why": one.why}
                for one in self.unsettled
            ],
            "unreachable": {ip: str(error) for ip, error in self.unreachable.items()},
            "problems": self.problems,
        }


def _as_record(finding: Finding) -> Record:
    return {
        "host": finding.host,
        "kind": finding.kind,
        "name": finding.name,
        "state": finding.state.value,
        "difference": finding.is_difference,
        "scope": finding.scope,
        "installation": finding.whose,
        "differs": [{"what": one.what, "wanted": one.wanted, "found": one.found} for one in finding.differs],
        "note": finding.note,
    }


def look(context: Context, slice_id: int | None = None) -> Report:
    """Compare all hosts with the records, or one slice's hosts with its.

    Raises:
        RefusedError: `Slice not found`.
    """
    context.db.refresh()
    if slice_id is not None and find_slice(context.db.data, slice_id) is None:
        raise RefusedError("Slice not found", code="slice.unknown")
    found = context.site.hosts(_addresses(context, slice_id))
    report = Report(installation=context.site.installation)
    report.unreachable = {ip: one for ip, one in found.items() if isinstance(one, CloudError)}
    hosts = [one for one in found.values() if isinstance(one, Host)]
    states = context.site.reconciler.observe(hosts, is_broad=True)
    context.db.refresh()  # what was changed while the hosts were asked is unsettled, or as it was seen
    path = str(context.db.path)
    said = (unsettled(record, path) for record in context.db.data["slices"].values())
    report.unsettled = [one for one in said if one is not None]
    for host in hosts:
        state = states[host.ip]
        if isinstance(state, CloudError):
            report.unreachable[host.ip] = state
        else:
            report.findings += _HostLook(context, host, state, report).findings(slice_id)
    return report


def _addresses(context: Context, slice_id: int | None) -> list[str]:
    if slice_id is not None:
        record = context.db.get_slice(slice_id) or {"vms": [], "links": []}
        return targets.hosts_of(record, context.settings.network.node)
    return known_hosts(context)


def known_hosts(context: Context) -> list[str]:
    """Every host of the installation: listed, known, with a VM, and the network node."""
    data = context.db.data
    placed = [vm["worker_ip"] for record in data["slices"].values() for vm in record["vms"]]
    return list(dict.fromkeys([*data["workers_list"], *data["workers"], *placed, context.settings.network.node]))


def unsettled(record: Mapping[str, Any], state_file: str) -> Unsettled | None:
    """Why nothing can be said of a slice, or None when its record says what should be.

    Args:
        record: the slice's.
        state_file: the path of the state file, which tells this process's own work from that of others.
    """
    slice_id, status = record["slice_id"], record["status"]
    operation = record.get("operation") or {}
    is_over = bool(operation) and not operation.get("handed") and is_abandoned(state_file, operation)
    if is_over and operation.get("kind") == REPAIR:
        operation = {}  # the slice is what it was; what is still missing shows
    elif operation and not is_over:
        who = "the monitor" if operation.get("handed") else described(str(operation.get("process", "")))
        why = f"slice {slice_id} is {status}: {who} is at it since {operation.get('began')}"
        return Unsettled(slice_id=slice_id, status=status, is_busy=True, why=why)
    if operation or status not in SETTLED:
        said = str(record.get("error") or "the process that was at work on it ended")
        why = f"slice {slice_id} is {status}: {said.rstrip('.')}. {_ways_on(record, state_file)}"
        return Unsettled(slice_id=slice_id, status=status, is_busy=False, why=why)
    return None


def _ways_on(record: Mapping[str, Any], state_file: str) -> str:
    """What a person can type for a slice that is not settled, and that nobody is at."""
    slice_id = record["slice_id"]
    left = list(of_slice(record, state_file))
    if not left:  # an operation ended without success, and with a word
        return f"{listed(tuple(f'`./cloud {kind} {slice_id}`' for kind in may_begin(record['status'])))} ends that"
    if all(one.is_waiting for one in left):
        hosts = ", ".join(dict.fromkeys(ip for one in left for ip in one.hosts))
        return f"The monitor ends it when {hosts} can be reached, `./cloud resume {slice_id}` as well"
    return f"`./cloud resume {slice_id}` goes on, `./cloud rollback {slice_id}` takes back"


class _HostLook:
    """One host as it was seen, and what should be on it."""

    def __init__(self, context: Context, host: Host, state: HostState, report: Report) -> None:
        self.context = context
        self.host = host
        self.state = state
        self.report = report
        self.untold = {str(one.slice_id) for one in report.unsettled}
        moving = [vm for record in context.db.data["slices"].values() for vm in record["vms"] if is_coming_or_going(vm)]
        self.ids = targets.ids_of(context.db.data, self.untold) | {vm["vm_id"] for vm in moving}

    def findings(self, slice_id: int | None) -> list[Finding]:
        """Every object; of one slice only, its own and what stands in its way."""
        wanted = [*self._slices(), *self._shared()]
        found = drift.classify(
            self.host.ip,
            wanted,
            self.state,
            installation=self.host.installation,
            bridge=self.host.bridge,
            is_settled=self._is_settled,
            adopts=targets.adopting(self.context.db.data),
        )
        if slice_id is None:
            return found
        own = {resource.key for resource in wanted if resource.mark and resource.mark.scope == str(slice_id)}
        names = {drift.name_of(resource) for resource in wanted if resource.key in own}
        return [one for one in found if one.scope == str(slice_id) or (one.is_in_the_way and one.name in names)]

    def _slices(self) -> list[Resource]:
        wanted: list[Resource] = []
        for record in self.context.db.data["slices"].values():
            if str(record["slice_id"]) not in self.untold:
                wanted += self._told(str(record["slice_id"]), lambda record=record: self._slice(record))  # type: ignore[misc]
        return wanted

    def _slice(self, record: Record) -> list[Resource]:
        is_running = record["status"] == RUNNING
        planner = targets.SlicePlanner(
            self.context.site,
            self.context.db.data,
            {**record, "vms": [vm for vm in record["vms"] if not is_coming_or_going(vm)]},
            machines=running(record) if is_running else (),
            networks=is_running,
        )
        return planner.expected(self.host, self.state)

    def _shared(self) -> list[Resource]:
        records = targets.active(self.context.db.data)
        if any(str(record["slice_id"]) in self.untold for record in records):
            self.untold.add(SHARED)
        if SHARED in self.untold:
            return []
        data = self.context.db.data
        return self._told(SHARED, lambda: targets.shared_of(self.context.site, data, self.host, self.state, records))

    def _told(self, scope: str, resources: Callable[[], list[Resource]]) -> list[Resource]:
        """The resources, or none and a word why nothing can be said of the scope on this host."""
        try:
            return resources()
        except CloudError as error:
            self.untold.add(scope)
            self.report.problems.setdefault(self.host.ip, []).append(str(error))
            return []

    def _is_settled(self, mark: Mark) -> bool:
        if mark.scope == UNFINISHED and mark.detail in self.ids:
            return False
        return mark.vm_id not in self.ids and mark.scope not in self.untold


def is_coming_or_going(vm: Mapping[str, Any]) -> bool:
    """Whether a VM's disk is being made or removed just now, or its process ended at it."""
    return vm["status"] == CREATING or bool(vm.get("operation"))


def running(record: Mapping[str, Any]) -> frozenset[int]:
    """The VMs of a slice that should run."""
    return frozenset(vm["vm_id"] for vm in record["vms"] if vm["status"] == RUNNING)
