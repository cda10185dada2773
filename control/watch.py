"""The monitor's hands: it asks all hosts, has `cloudrepo/watching.py` decide, and does what follows.

One process of all on a state file watches (`cloudrepo/leadership.py`). What takes time, such as bringing a slice
back, goes on in threads of its own; the next look does not wait for it.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cloudrepo import host_report
from cloudrepo.crew import Crew
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.host_report import Report
from cloudrepo.interruption import Interruption
from cloudrepo.leadership import Kind, Leadership
from cloudrepo.notify import Notifier
from cloudrepo.observations import Snapshot, this_boot
from cloudrepo.watched import Clearing, Decision, Notice, Policy, Repair, Settle, SliceRecord, hosts_of, slices_of
from cloudrepo.watching import decide, newly_dead
from control import handover, processes, recovery
from control.context import Context
from control.intents import GIVING_WAY
from control.jobs import Jobs
from control.repair import MONITOR, repair, settle_vm

log = logging.getLogger(__name__)

AT_ONCE = 64  # hosts asked at a time
PATIENCE_S = 5.0  # for an answer, beyond the time that a connection may take
REPAIRS_AT_ONCE = 4
ASKING_S = 60.0  # longest wait for what a worker is, before its machines are started
CLOSE_WAIT_S = 10.0  # for the steps that operations are at when this process ends
CUT_WAIT_S = 1.0  # for operations whose connections were closed then, to note that they are left

OnChange = Callable[[Notice], None]


class Watcher:
    """Looks at all hosts when it is called, if this process is the one that watches.

    Args:
        context: the installation.
        kind: what this process is; a `monitor` comes before every `menu`.
        notifier: tells people; one by the settings if not given.
        on_change: called for every change, in the thread that found it.
        on_role: told whether this process watches, at the first call and whenever that changes.
        clock: the monotonic clock.
        auto_resume: also end operations of dead processes; None = as the setting says.
        save_error: asked for why the state could not be saved, or an empty text.

    Attributes:
        leadership: this process's claim.
    """

    def __init__(
        self,
        context: Context,
        kind: Kind,
        *,
        notifier: Notifier | None = None,
        on_change: OnChange | None = None,
        on_role: Callable[[bool], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        auto_resume: bool | None = None,
        save_error: Callable[[], str] = str,
    ) -> None:
        self.context = context
        # Connections of its own: a host that hangs is dropped, and no person's operation with it.
        self._site = replace(context.site, executor=context.site.executor.another())
        folder = context.observations.path.parent
        self.leadership = Leadership(folder, kind)
        self.notifier = notifier or Notifier(context.settings, where=str(context.db.path), folder=folder)
        self.on_change = on_change or (lambda notice: None)
        self.on_role = on_role or (lambda leads: None)
        self.clock = clock
        self.auto_resume = auto_resume
        self.save_error = save_error
        self._policy = Policy.of(context.settings)
        self._previous: Snapshot | None = None
        self._jobs = Jobs(at_once=REPAIRS_AT_ONCE)
        self._leads: bool | None = None
        self._told: dict[int, str] = {}  # by slice, why it could not be brought back

    def __call__(self, stop: threading.Event) -> None:
        """One look, unless another process watches.

        Args:
            stop: once set, it ends soon.
        """
        leads = self.leadership.lead()
        if leads != self._leads:
            self._leads = leads
            log.info("This process %s", "watches the hosts" if leads else "does not watch the hosts")
            self.on_role(leads)
        if leads:
            self.look(stop)
        else:
            self._previous = None  # another process goes on from it, and writes what it sees

    def look(self, stop: threading.Event) -> Decision | None:
        """One pass, whoever leads; None when it was stopped."""
        context = self.context
        self.notifier.take_up()
        previous = self._previous or context.observations.read() or Snapshot()
        slices, hosts, known, enrolled = self._records()
        began = self.clock()
        reports = self._ask(hosts, stop)
        if stop.is_set():
            return None
        words = self._last_words(newly_dead(previous, reports, slices), stop)
        now = self.clock()
        decision = decide(
            previous,
            reports,
            slices,
            self._policy,
            now,
            known=known,
            enrolled=enrolled,
            busy=self._jobs.busy(),
            last_words=words,
        )
        self._previous = self._write(replace(decision.snapshot, took_s=round(now - began, 3)))
        self._tell(decision.notices)
        for one in decision.settles:
            self._settle(one)
        self._act(decision)
        return decision

    def close(self) -> None:
        """End what is under way before its next step, and let another process watch.

        An operation that was taken over and is not done stays in the records, unfinished and nobody's.
        """
        if not self._jobs.end(CLOSE_WAIT_S):
            self.context.site.executor.close()  # what still hangs would keep this process from ending
            self._jobs.wait(CUT_WAIT_S)
        self._site.executor.close()
        self.leadership.release()
        self.notifier.close()

    # -- looking -----------------------------------------------------------------------------------------

    def _records(self) -> tuple[list[SliceRecord], list[str], frozenset[str], frozenset[str]]:
        """Slices, the hosts to look at, workers whose record is there, and those that are enrolled."""
        db = self.context.db
        db.refresh()
        with db.lock:
            slices = slices_of(db.data, self._is_free)
            hosts = hosts_of(db.data, slices, self._policy.network_node)
            return slices, hosts, frozenset(db.data["workers"]), frozenset(db.data["workers_list"])

    def _is_free(self, operation: Mapping[str, Any]) -> bool:
        """What a monitor did by itself is nobody's when its process ended: what is still missing is done again."""
        return operation.get("kind") in GIVING_WAY and processes.is_abandoned(str(self.context.db.path), operation)

    def _ask(self, hosts: Iterable[str], stop: threading.Event) -> dict[str, Report]:
        patience_s = self.context.settings.ssh.connect_timeout + PATIENCE_S
        work = {ip: functools.partial(self._ask_one, ip) for ip in hosts}
        crew = Crew(work, at_once=AT_ONCE, patience_s=patience_s)
        answers = crew.run(stop)
        for ip in crew.late:
            self._site.executor.drop(ip)  # else what hangs there would hang for good
        silent = Report(error=f"no answer within {patience_s:g} s")
        return {ip: _report(ip, answers.get(ip, silent)) for ip in work}

    def _ask_one(self, ip: str) -> Report:
        site = self._site
        host = site.host(ip)
        return host_report.read(host, site.executor.run_plan(ip, host_report.questions(host)).observed)

    def _last_words(self, dead: Mapping[str, list[int]], stop: threading.Event) -> dict[int, str]:
        """QEMU's last words, by VM; a log that cannot be read has none."""
        site = self._site

        def ask(ip: str) -> dict[int, str]:
            host = site.host(ip)
            plan = host_report.ask_last_words(host, dead[ip])
            return host_report.read_last_words(site.executor.run_plan(ip, plan).observed)

        work = {ip: functools.partial(ask, ip) for ip in dead}
        found: dict[int, str] = {}
        for ip, answer in Crew(work, at_once=AT_ONCE, patience_s=PATIENCE_S).run(stop).items():
            if isinstance(answer, Exception):
                log.warning("%s: last words could not be read: %s", ip, answer)
            else:
                found |= answer
        return found

    def _write(self, snapshot: Snapshot) -> Snapshot:
        whole = replace(
            snapshot,
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
            boot=this_boot(),
            interval_s=self.context.settings.monitor.interval,
            save_error=self.save_error(),
        )
        try:
            self.context.observations.write(whole)
        except OSError as error:
            log.error("what was seen cannot be written to %s: %s", self.context.observations.path, error)
        return whole

    # -- telling -----------------------------------------------------------------------------------------

    def _tell(self, notices: Collection[Notice]) -> None:
        for notice in notices:
            self.context.events.record(
                notice.what, who=MONITOR, about=notice.about, outcome=notice.level, text=notice.text, **notice.details
            )
            self.on_change(notice)
        self.notifier.send(notices)

    # -- acting ------------------------------------------------------------------------------------------

    def _settle(self, one: Settle) -> None:
        try:
            settle_vm(self.context, one.slice_id, one.vm_id, one.status, one.error)
        except CloudError as error:  # the next look finds it again
            log.error("VM %s: its end could not be written: %s", one.vm_id, error)

    def _act(self, decision: Decision) -> None:
        """Begin what takes time; each in a thread of its own."""
        for ip in decision.ask:
            self._jobs.begin(f"ask {ip}", functools.partial(self._ask_again, ip))
        repairs = {one.slice_id: one for one in decision.repairs}
        clearings = {one.slice_id: one for one in decision.clearings}
        for slice_id in {**repairs, **clearings}:  # one job a slice: its operations would refuse each other
            work = functools.partial(self._mend, repairs.get(slice_id), clearings.get(slice_id))
            self._jobs.begin(f"slice {slice_id}", work, slice_id=slice_id, in_turn=True)
        try:
            for text in handover.take_over(self.context, self._jobs.begin, auto_resume=self.auto_resume):
                notice = Notice(level="info", what="operation.begun", about="monitor", text=f"begun: {text}")
                self._tell([notice])
        except CloudError as error:
            log.error("what was handed over could not be begun: %s", error)

    def _ask_again(self, ip: str, stop: Interruption) -> None:
        self.context.discovery.ask_again(ip)

    def _mend(self, lost: Repair | None, waiting: Clearing | None, stop: Interruption) -> None:
        """What should run first; then, whatever became of it, what should be gone."""
        try:
            if lost is not None:
                self._repair(lost, stop)
        finally:
            if waiting is not None and not stop.is_set():
                self._clear(waiting, stop)

    def _repair(self, one: Repair, stop: Interruption) -> None:
        self._jobs.wait_for([f"ask {ip}" for ip in one.hosts], ASKING_S)
        about = f"slice {one.slice_id}"
        try:
            repair(self.context, one.slice_id, one.hosts, stop=stop)
        except RefusedError as error:  # somebody else is at it, or it should not run any more
            log.info("slice %s is not brought back: %s", one.slice_id, error)
        except CloudError as error:
            if not stop.is_set() and self._told.get(one.slice_id) != error.brief:
                self._told[one.slice_id] = error.brief
                text = f"slice {one.slice_id} could not be brought back yet: {error}"
                self._tell([Notice(level="error", what="slice.not_recovered", about=about, text=text)])
        else:
            self._told.pop(one.slice_id, None)
            self._tell(list(_done(one)))

    def _clear(self, one: Clearing, stop: Interruption) -> None:
        for text in recovery.finish_pending(self.context, slice_id=one.slice_id, answering=one.hosts, stop=stop):
            self._tell([Notice(level="notice", what="slice.finished", about="monitor", text=text)])


def _report(ip: str, answer: Report | Exception) -> Report:
    if isinstance(answer, Report):
        return answer
    if not isinstance(answer, CloudError):
        log.error("%s: the look at it failed", ip, exc_info=answer)
        return Report(error=f"the look at it failed: {answer!r}")
    return Report(error=str(answer).removeprefix(f"{ip}: "))


def _done(one: Repair) -> Iterable[Notice]:
    """What people hear when a slice was brought back."""
    if one.is_restart:
        for vm_id in one.vms:
            text = f"VM {vm_id} was started again"
            about = f"vm {vm_id}"
            yield Notice(level="notice", what="vm.restarted", about=about, text=text, details={"slice": one.slice_id})
        return
    text = f"slice {one.slice_id} was brought back on {', '.join(one.hosts)}"
    details: dict[str, Any] = {"vms": list(one.vms), "why": one.why}
    yield Notice(level="notice", what="slice.recovered", about=f"slice {one.slice_id}", text=text, details=details)
