"""What follows from one look at all hosts: pure, so that every case can be tried with a clock of one's own.

`decide` takes what was seen before, what hosts answered now and what the records say, and gives what is seen now,
what is to be done, and what people are told. It does nothing itself; `control/watch.py` does.

What is done, and when:

* A worker that misses a pass is suspect, after `monitor.misses` of them down; then its VMs are unreachable.
* A VM that should run and whose process is gone, while its machine directory is there, died. If QEMU's log says that
  the guest powered itself off, that is no failure. Else, or with the policy `always`, it is started again: at once,
  then after pauses that double, until it has been restarted so often that it is given up.
* A VM whose machine directory is gone with everything in /run was on a host that rebooted. It, and a network whose
  DHCP server is gone, is brought back for the whole slice. That is never given up, only tried less often.
* A host that has none of a slice's flows lost them with its switch. They are set again.
* Nothing is done about a slice that an operation is at work on, nor about VMs whose network node does not answer:
  a guest that boots without DHCP may never ask again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cloudrepo.host_report import MachineReport, Report
from cloudrepo.naming import INTERNET_VLAN, SHARED
from cloudrepo.observations import (
    DOWN,
    KILLED,
    OFF,
    PAUSED,
    RUNNING,
    SUSPECT,
    UNREACHABLE,
    UP,
    SliceView,
    Snapshot,
    VmView,
    WorkerView,
)
from cloudrepo.watched import (
    ALWAYS,
    NEVER,
    POLICIES,
    Clearing,
    Decision,
    Notice,
    Policy,
    Repair,
    Settle,
    SliceRecord,
    VmRecord,
)

#: QEMU's trace of a request to end, in its log (see `commands/qemu.py`); a number of `ShutdownCause` (run-state.json).
_SHUTDOWN = re.compile(r"qemu_system_shutdown_request reason=(\d+)")
GUEST_SHUTDOWN = 6
RUN_STATES = ("running", "finish-migrate", "colo")  # of QEMU: the guest runs


def newly_dead(
    previous: Snapshot, reports: Mapping[str, Report], slices: Iterable[SliceRecord]
) -> dict[str, list[int]]:
    """By host, VMs whose last words are wanted: they should run, and their process is gone since the last pass."""
    found: dict[str, list[int]] = {}
    for vm in (vm for one in slices if one.is_settled for vm in one.vms):
        machine = _machine(reports, vm)
        if vm.should_run and machine is not None and _is_new_death(previous.vms.get(vm.vm_id), machine):
            found.setdefault(vm.worker, []).append(vm.vm_id)
    return found


def _machine(reports: Mapping[str, Report], vm: VmRecord) -> MachineReport | None:
    report = reports.get(vm.worker)
    return None if report is None or report.error else report.machines.get(vm.vm_id)


def _is_new_death(before: VmView | None, machine: MachineReport) -> bool:
    """Whether it died since it was looked at: one that died again after a restart has another process id."""
    return not machine.is_alive and (before is None or before.state != KILLED or before.pid != machine.pid)


def is_power_off(last_words: str) -> bool:
    """Whether QEMU's log says that the guest itself asked for the end, and nothing else did."""
    reasons = _SHUTDOWN.findall(last_words)
    return bool(reasons) and int(reasons[-1]) == GUEST_SHUTDOWN


# ---------------------------------------------------------------------------------------- the decision


def decide(
    previous: Snapshot,
    reports: Mapping[str, Report],
    slices: Iterable[SliceRecord],
    policy: Policy,
    now: float,
    *,
    known: Collection[str] = (),
    enrolled: Collection[str] = (),
    busy: Collection[int] = (),
    last_words: Mapping[int, str] | None = None,
) -> Decision:
    """What follows from one pass.

    Args:
        previous: what was seen before, with times of the same clock.
        reports: by host, what it answered.
        slices: what the records say.
        policy: the settings.
        now: the monotonic clock.
        known: workers whose record discovery made.
        enrolled: workers in `workers_list`.
        busy: slices that something begun in an earlier pass is still at work on.
        last_words: by VM, of those that `newly_dead` named.
    """
    return _Pass(previous, reports, slices, policy, now, known, enrolled, busy, last_words or {}).run()


class _Pass:
    """One decision on its way."""

    def __init__(
        self,
        previous: Snapshot,
        reports: Mapping[str, Report],
        slices: Iterable[SliceRecord],
        policy: Policy,
        now: float,
        known: Collection[str],
        enrolled: Collection[str],
        busy: Collection[int],
        last_words: Mapping[int, str],
    ) -> None:
        self.previous = previous
        self.reports = reports
        self.slices = list(slices)
        self.policy = policy
        self.now = now
        self.known = known
        self.enrolled = enrolled
        self.busy = busy
        self.last_words = last_words
        self.notices: list[Notice] = []
        self.settles: list[Settle] = []
        self.repairs: list[Repair] = []
        self.workers: dict[str, WorkerView] = {}
        self.vms: dict[int, VmView] = {}
        self.attempts: dict[int, SliceView] = {}
        self.clearings: list[Clearing] = []
        self.cleared: dict[int, SliceView] = {}  # attempts at it

    def run(self) -> Decision:
        """Workers first: what is seen of a VM depends on them."""
        placed: dict[str, int] = {}
        for vm in (vm for one in self.slices for vm in one.vms if vm.should_run):
            placed[vm.worker] = placed.get(vm.worker, 0) + 1
        for ip, report in self.reports.items():
            self.workers[ip] = self._worker(ip, report, placed.get(ip, 0))
        for one in self.slices:
            self._slice(one)
            self._clear(one)
        return Decision(
            snapshot=Snapshot(
                workers=self.workers, vms=self.vms, slices=self.attempts, clearings=self.cleared, taken=self.now
            ),
            notices=tuple(self.notices),
            repairs=tuple(self.repairs),
            settles=tuple(self.settles),
            ask=tuple(ip for ip in self.reports if self._is_to_be_asked(ip)),
            clearings=tuple(self.clearings),
        )

    def _tell(self, level: str, what: str, about: str, text: str, **details: Any) -> None:
        self.notices.append(Notice(level=level, what=what, about=about, text=text, details=details))

    # -- workers -----------------------------------------------------------------------------------------

    def _worker(self, ip: str, report: Report, vms: int) -> WorkerView:
        before = self.previous.workers.get(ip)
        if report.error:
            return self._silent_worker(ip, report, before, vms)
        since = before.since if before is not None and before.state == UP else self.now
        if before is not None and before.state == DOWN:
            down_s = self.now - before.since
            self._tell("notice", "worker.up", f"worker {ip}", f"{ip} answers again after {_span(down_s)}")
        elif before is not None and before.state == SUSPECT:
            self._tell("info", "worker.up", f"worker {ip}", f"{ip} answers again")
        if _has_rebooted(before, report):
            self._tell("warning", "worker.rebooted", f"worker {ip}", f"{ip} has rebooted", vms=vms)
        return WorkerView(
            state=UP,
            since=since,
            boot_id=report.boot_id,
            busy_ticks=report.busy_ticks,
            all_ticks=report.all_ticks,
            cpu_percent=_cpu_percent(before, report),
            ram_mib=report.ram_mib,
            ram_free_mib=report.ram_free_mib,
            disk_gib=report.disk_gib,
            disk_free_gib=report.disk_free_gib,
        )

    def _silent_worker(self, ip: str, report: Report, before: WorkerView | None, vms: int) -> WorkerView:
        misses = (before.misses if before else 0) + 1
        was = before.state if before else UP
        state = DOWN if misses >= self.policy.misses else SUSPECT
        if state != was:
            text = f"{ip} {'is down' if state == DOWN else 'did not answer'}: {report.error}"
            level = "error" if state == DOWN else "info"
            self._tell(level, f"worker.{state}", f"worker {ip}", text, vms=vms, reason=report.error)
        since = before.since if before is not None and state == was else self.now
        # what it was is kept for its return: another boot id then means that it lost everything in /run
        kept = before or WorkerView(state=state)
        return replace(kept, state=state, reason=report.error, since=since, misses=misses, cpu_percent=None)

    def _is_to_be_asked(self, ip: str) -> bool:
        """Whether its record is missing, or may be from before a boot."""
        before, report = self.previous.workers.get(ip), self.reports[ip]
        if report.error or ip not in self.enrolled:
            return False
        has_come_back = before is not None and before.state == DOWN
        return ip not in self.known or has_come_back or _has_rebooted(before, report)

    # -- slices ------------------------------------------------------------------------------------------

    def _slice(self, one: SliceRecord) -> None:
        is_settled = one.is_settled and one.slice_id not in self.busy
        lost: list[VmRecord] = []
        died: list[VmRecord] = []
        for vm in one.vms:
            view = self._seen(vm, is_settled)
            if view.state == KILLED and is_settled and self._answers(vm.worker):
                if _machine(self.reports, vm) is None:
                    view = self._lost(one, vm, view, lost)
                else:
                    view = self._died(one, vm, view, died)
            elif is_settled and vm.should_run:
                self._tell_change(one, vm, view)
            self.vms[vm.vm_id] = view
        if is_settled:
            self._repair(one, lost, died)
        elif one.slice_id in self.previous.slices:
            self.attempts[one.slice_id] = self.previous.slices[one.slice_id]

    def _answers(self, ip: str) -> bool:
        return ip in self.reports and not self.reports[ip].error

    def _seen(self, vm: VmRecord, is_settled: bool) -> VmView:
        """What is seen of a VM now; what is known of its past goes along."""
        before = self.previous.vms.get(vm.vm_id) or VmView(since=self.now)
        kept = tuple(when for when in before.restarts if self.now - when < self.policy.window_s)
        state, reason, misses = self._state(vm, before)
        if state == KILLED and not is_settled:  # an operation may be ending it: a death is noted when that is over
            return replace(before, restarts=kept)
        machine = _machine(self.reports, vm)
        return replace(
            before,
            state=state,
            reason=reason,
            misses=misses,
            since=before.since if state == before.state else self.now,
            pid=machine.pid if machine is not None else before.pid,
            by_guest=before.by_guest and state in (KILLED, OFF),
            is_given_up=before.is_given_up and state == KILLED,
            restarts=kept if vm.should_run else (),  # who was started by hand begins anew
        )

    def _state(self, vm: VmRecord, before: VmView) -> tuple[str, str, int]:
        """State, its reason, and passes in which QMP did not answer."""
        worker = self.workers.get(vm.worker)
        if worker is None:
            return "", "its worker is not looked at", 0
        if worker.state == DOWN:
            return UNREACHABLE, f"{vm.worker} is down", 0
        if worker.state == SUSPECT:
            return before.state, before.reason, before.misses
        machine = _machine(self.reports, vm)
        if machine is None or not machine.is_alive:
            return (KILLED if vm.should_run else OFF), before.reason if before.state == KILLED else "", 0
        if machine.process_state in ("T", "t"):
            return PAUSED, "its process was stopped by a signal", 0
        if machine.status is None:
            misses = before.misses + 1
            if misses >= self.policy.misses:
                return UNREACHABLE, "QEMU does not answer on its QMP socket", misses
            return before.state if before.state in (RUNNING, PAUSED) else RUNNING, before.reason, misses
        if machine.status in RUN_STATES:
            return RUNNING, "", 0
        return PAUSED, f"QEMU says {machine.status}", 0

    def _tell_change(self, one: SliceRecord, vm: VmRecord, view: VmView) -> None:
        """A change that is no death. What follows from the worker's state was told with that."""
        before = self.previous.vms.get(vm.vm_id)
        was = before.state if before else RUNNING
        if view.state == was or not self._answers(vm.worker) or was in ("", KILLED, OFF):
            return
        name, details = f"VM {vm.vm_id} ({vm.name})", {"slice": one.slice_id, "owner": one.owner}
        if view.state == RUNNING and before is not None and before.reason != f"{vm.worker} is down":
            self._tell("notice", "vm.running", f"vm {vm.vm_id}", f"{name} runs again", **details)
        elif view.state in (PAUSED, UNREACHABLE):
            words = "is paused" if view.state == PAUSED else "does not answer"
            text = f"{name} {words}: {view.reason}"
            self._tell("warning", f"vm.{view.state}", f"vm {vm.vm_id}", text, reason=view.reason, **details)

    # -- VMs that are gone -------------------------------------------------------------------------------

    def _policy_of(self, vm: VmRecord) -> str:
        return vm.restart if vm.restart in POLICIES else self.policy.restart

    def _lost(self, one: SliceRecord, vm: VmRecord, view: VmView, lost: list[VmRecord]) -> VmView:
        """A VM that went with its host."""
        view = replace(view, reason="its host lost it, as by a reboot", by_guest=False)
        is_new = self._is_news(vm, view)
        if not self.policy.recover or self._policy_of(vm) == NEVER:
            why = "monitor.recover is off" if not self.policy.recover else "its restart policy is never"
            if is_new:
                text = f"VM {vm.vm_id} ({vm.name}) went with its host, and {why}"
                self._tell("warning", "vm.lost", f"vm {vm.vm_id}", text, slice=one.slice_id, owner=one.owner)
            if self._policy_of(vm) == NEVER:
                error = f"went with its host {vm.worker}, and its restart policy is never"
                self._settle(one, vm, "error", error)
            return view
        lost.append(vm)
        return view

    def _is_news(self, vm: VmRecord, view: VmView) -> bool:
        before = self.previous.vms.get(vm.vm_id)
        return before is None or before.state != KILLED or before.reason != view.reason

    def _died(self, one: SliceRecord, vm: VmRecord, view: VmView, died: list[VmRecord]) -> VmView:
        """A VM whose process ended although nobody asked for it."""
        machine = _machine(self.reports, vm)
        is_new = machine is not None and _is_new_death(self.previous.vms.get(vm.vm_id), machine)
        if is_new:
            words = self.last_words.get(vm.vm_id, "")
            reason = " ".join(words.split())[-400:] or "QEMU left no last words, as when it is killed"
            view = replace(view, reason=reason, by_guest=is_power_off(words))
        policy = self._policy_of(vm)
        details = {"slice": one.slice_id, "owner": one.owner, "worker": vm.worker, "last_words": view.reason}
        name, about = f"VM {vm.vm_id} ({vm.name})", f"vm {vm.vm_id}"
        if view.by_guest and policy != ALWAYS:
            if is_new:
                self._tell("info", "vm.powered_off", about, f"{name} was powered off by its guest", **details)
            self._settle(one, vm, "stopped", "")
            return view
        if is_new:
            self._tell("warning", "vm.died", about, f"{name} died on {vm.worker}: {view.reason}", **details)
        if policy == NEVER:
            self._settle(one, vm, "error", f"died: {view.reason}; its restart policy is never")
        elif len(view.restarts) >= self.policy.limit:
            often = f"died and was restarted {len(view.restarts)} times within {_span(self.policy.window_s)}"
            if not view.is_given_up:
                self._tell("error", "vm.given_up", about, f"{name} {often} and is given up: {view.reason}", **details)
            view = replace(view, is_given_up=True)
            self._settle(one, vm, "error", f"{often}: {view.reason}")
        elif self._waits_for_node(one):
            pass
        elif not view.restarts or self.now - view.restarts[-1] >= self.policy.pause_after(len(view.restarts)):
            died.append(vm)
            view = replace(view, restarts=(*view.restarts, self.now))
        return view

    def _settle(self, one: SliceRecord, vm: VmRecord, status: str, error: str) -> None:
        self.settles.append(Settle(slice_id=one.slice_id, vm_id=vm.vm_id, status=status, error=error))

    # -- bringing back -----------------------------------------------------------------------------------

    def _waits_for_node(self, one: SliceRecord) -> bool:
        return bool(one.vlans) and not self._answers(self.policy.network_node)

    def _repair(self, one: SliceRecord, lost: list[VmRecord], died: list[VmRecord]) -> None:
        """One operation for all that is to be brought back of a slice, if its time has come."""
        missing, unwired = self._missing_networks(one), self._missing_flows(one)
        is_lost = bool(lost or missing or unwired)
        before = self.previous.slices.get(one.slice_id, SliceView())
        is_due = self.now - before.last >= self.policy.pause_after(before.attempts) if before.attempts else True
        must_wait = bool(lost or missing) and self._waits_for_node(one)
        will_bring_back = is_lost and is_due and not must_wait
        if is_lost:
            self.attempts[one.slice_id] = (
                SliceView(attempts=before.attempts + 1, last=self.now) if will_bring_back else before
            )
            if not before.attempts and will_bring_back:
                self._tell_loss(one, lost, missing, unwired)
        if not died and not will_bring_back:
            return
        if not will_bring_back:
            lost, unwired = [], []
        vms = [*died, *lost]
        node = [self.policy.network_node] if missing and will_bring_back else []
        self.repairs.append(
            Repair(
                slice_id=one.slice_id,
                hosts=tuple(dict.fromkeys([*node, *unwired, *(vm.worker for vm in vms)])),
                vms=tuple(vm.vm_id for vm in vms),
                is_restart=not will_bring_back,
                why=" and ".join(
                    _reasons(lost if will_bring_back else [], died, missing, unwired if will_bring_back else [])
                ),
            )
        )

    def _missing_networks(self, one: SliceRecord) -> list[int]:
        """VLANs of a slice whose DHCP server does not run, where that can be known and is to be mended.

        VLAN 400 as well where its rules are gone: what holds its guests back on the node is part of it.
        """
        node = self.reports.get(self.policy.network_node)
        if not self.policy.recover or not one.vlans or node is None or node.error:
            return []
        unguarded = {INTERNET_VLAN} if node.has_rules is False else set()
        return sorted((one.vlans - node.servers) | (one.vlans & unguarded))

    def _missing_flows(self, one: SliceRecord) -> list[str]:
        """Hosts that lost a slice's flows, or those of VLAN 400 that it needs, as when their switch was started anew.

        A meter that is gone took along the flows that name it. A bridge that was closed lets nothing through there;
        that it was opened shows in the same way.
        """
        if not self.policy.recover:
            return []
        node = {self.policy.network_node}
        wired = one.wired | (node if one.vlans - {INTERNET_VLAN} else set())
        online = one.online | (node if INTERNET_VLAN in one.vlans else set())
        return [
            ip
            for ip, report in self.reports.items()
            if not report.error
            and report.flows is not None
            and (
                (ip in wired and str(one.slice_id) not in report.flows)
                or (ip in online and SHARED not in report.flows)
                or (report.meters is not None and not one.meters.get(ip, frozenset()) <= report.meters)
            )
        ]

    def _tell_loss(self, one: SliceRecord, lost: list[VmRecord], missing: list[int], unwired: list[str]) -> None:
        parts = _reasons(lost, [], missing, unwired)
        text = f"slice {one.slice_id} is brought back: {' and '.join(parts)}"
        self._tell("warning", "slice.lost", f"slice {one.slice_id}", text, owner=one.owner, vlans=missing)

    # -- what waits for a host ---------------------------------------------------------------------------

    def _clear(self, one: SliceRecord) -> None:
        """Clear hosts that an undo, a stop or a delete waits for and that answer now, if the time has come.

        Apart from bringing back: the pauses of the one are not those of the other.
        """
        if not one.waits_for:
            return
        before = self.previous.clearings.get(one.slice_id, SliceView())
        found = frozenset(ip for ip in one.waits_for if self._answers(ip))
        has_come_back = any((view := self.previous.workers.get(ip)) is None or view.state != UP for ip in found)
        is_due = has_come_back or not before.attempts
        is_due = is_due or self.now - before.last >= self.policy.pause_after(before.attempts)
        if found and is_due and one.slice_id not in self.busy:
            self.clearings.append(Clearing(slice_id=one.slice_id, hosts=found))
            before = SliceView(attempts=before.attempts + 1, last=self.now)
        if before.attempts:
            self.cleared[one.slice_id] = before


def _reasons(lost: list[VmRecord], died: list[VmRecord], missing: list[int], unwired: list[str]) -> Iterator[str]:
    if missing:
        yield f"the network node lost {'VLAN' if len(missing) == 1 else 'VLANs'} {', '.join(map(str, missing))}"
    if unwired:
        yield f"{', '.join(unwired)} lost the flows of its ports"
    for ip in dict.fromkeys(vm.worker for vm in lost):
        yield f"{ip} lost {', '.join(f'VM {vm.vm_id}' for vm in lost if vm.worker == ip)}"
    if died:
        yield f"{', '.join(f'VM {vm.vm_id}' for vm in died)} died"


def _has_rebooted(before: WorkerView | None, report: Report) -> bool:
    return bool(before is not None and before.boot_id and report.boot_id and before.boot_id != report.boot_id)


def _cpu_percent(before: WorkerView | None, report: Report) -> float | None:
    """Between two answers of one boot; else since the boot."""
    if not report.all_ticks:
        return None
    busy, total = report.busy_ticks, report.all_ticks
    if before is not None and not _has_rebooted(before, report) and before.all_ticks <= total:
        busy, total = busy - before.busy_ticks, total - before.all_ticks
    if total <= 0:
        return before.cpu_percent if before else None
    return round(max(0.0, min(100.0, 100 * busy / total)), 1)


def _span(seconds: float) -> str:
    """A time as a person says it."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
