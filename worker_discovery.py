"""`WorkerDiscovery`: asks every enrolled worker what it is, all at once, and keeps the answers in the state.

Typical use::

    discovery = WorkerDiscovery(db, executor)
    discovery.start()               # while a person logs in
    discovery.wait(3.0)
    discovery.still_asked()         # addresses that have not answered yet
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any

from cloudrepo import accelerator, guest_accounts, worker_facts
from cloudrepo.accelerator import Proof
from cloudrepo.errors import CloudError, HostError
from cloudrepo.hosts import Executor
from cloudrepo.images import resolve
from cloudrepo.late_dataclass import dataclass
from cloudrepo.observations import Seen
from cloudrepo.plan import PlanResult
from cloudrepo.settings import Settings
from cloudrepo.worker_facts import Question, WorkerFacts
from database import Database

log = logging.getLogger(__name__)

FREE_DISK_STEP_GB = 1.0  # a smaller change of free space alone is not written
#: Emulation was found because the host was too busy to prove anything: that is asked again next time.
UNSETTLED = ("did not run", "did not get past")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What became of one worker.

    Attributes:
        ip: its address.
        worker: its record, or None when it could not be asked.
        reason: why it could not be asked, with the remedy.
        code: the error's stable code, such as `host.unreachable`.
        problems: what keeps it from its work although it answers.
        when: by the monotonic clock.
    """

    ip: str
    worker: Mapping[str, Any] | None = None
    reason: str = ""
    code: str = ""
    problems: tuple[str, ...] = ()
    when: float = field(default_factory=time.monotonic, compare=False)

    @property
    def ok(self) -> bool:
        """Whether it answered."""
        return self.worker is not None


@dataclass
class _Round:
    """One discovery under way."""

    asked: list[str]
    answers: dict[str, Found] = field(default_factory=dict)
    news: threading.Condition = field(default_factory=threading.Condition)

    def still_asked(self) -> list[str]:
        """Addresses without an answer, in their order."""
        with self.news:
            return [ip for ip in self.asked if ip not in self.answers]

    def answer(self, found: Found) -> None:
        """Take an answer in."""
        with self.news:
            self.answers[found.ip] = found
            self.news.notify_all()

    def wait(self, timeout_s: float | None) -> bool:
        """Until all have answered; whether they have."""
        with self.news:
            return self.news.wait_for(lambda: len(self.answers) == len(self.asked), timeout_s)


class WorkerDiscovery:
    """Finds out what the workers of `workers_list` are.

    A worker that answers is in `workers` as soon as it has; one that cannot be reached is taken out of it, so it
    gets no VM. An entry whose address is no longer in `workers_list` is kept and not refreshed.

    Args:
        db: the state.
        executor: who talks to hosts.
        settings: those beside the state file, if not given.

    Attributes:
        seen: asked for what the monitor saw of workers; says nothing by default.
    """

    def __init__(self, db: Database, executor: Executor, *, settings: Settings | None = None) -> None:
        self.db = db
        self.executor = executor
        self.settings = settings or Settings.load(db.path)
        self.seen: Callable[[], Mapping[str, Seen]] = dict
        self._round: _Round | None = None
        self._starting = threading.Lock()

    def discover_all(self) -> dict[str, Found]:
        """Ask all workers at once, and wait for all of them.

        Returns:
            What became of each, in the order of `workers_list`.
        """
        self.start()
        self.wait(None)
        return self.results()

    def start(self) -> None:
        """Begin to ask all workers in the background; content when that is under way."""
        with self._starting:
            if self.still_asked():
                return
            with self.db.lock:
                self.db.refresh()
                asked = [str(ip) for ip in dict.fromkeys(self.db.data.get("workers_list") or ())]
            current = self._round = _Round(asked)
        log.info("Worker list loaded: %s", ", ".join(asked) or "it is empty")
        for ip in asked:
            # Daemon threads: a host that hangs keeps nobody from leaving.
            threading.Thread(target=self._ask, args=(ip, current), name=f"discover {ip}", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all have answered, or for so many seconds; None or infinity wait for all.

        Returns:
            Whether all have answered.
        """
        current = self._round
        if current is None:
            return True
        return current.wait(None if timeout_s is None or math.isinf(timeout_s) else timeout_s)

    def still_asked(self) -> list[str]:
        """Addresses of workers that have not answered yet."""
        return self._round.still_asked() if self._round else []

    def results(self) -> dict[str, Found]:
        """What is known so far, in the order of `workers_list`."""
        current = self._round
        if current is None:
            return {}
        with current.news:
            return {ip: current.answers[ip] for ip in current.asked if ip in current.answers}

    # -- what others ask of it ---------------------------------------------------------------------------

    def ensure_asked(self) -> None:
        """Ask all workers now when nobody has in this process and one of them is unknown.

        A VM is placed among the workers that were found, so that finding must have been tried.
        """
        if self._round is not None:
            return
        with self.db.lock:
            self.db.refresh()
            data = self.db.data
            is_known = all(ip in data["workers"] for ip in data.get("workers_list") or ())
        if not is_known:
            self.discover_all()

    def ensure_known(self, *ips: str) -> None:
        """Ask those workers now that nobody has asked yet, all at once; the others cost nothing.

        Raises:
            HostError: the first of them that cannot be reached, with its reason.
        """
        with self.db.lock:
            self.db.refresh()
            unknown = [ip for ip in dict.fromkeys(ips) if ip not in self.db.data["workers"]]
        if not unknown:
            return
        current = _Round(unknown)
        for ip in unknown:
            threading.Thread(target=self._ask, args=(ip, current), name=f"discover {ip}", daemon=True).start()
        current.wait(None)
        for ip in unknown:
            found = current.answers[ip]
            if not found.ok:
                raise HostError(ip, "the worker cannot be used", evidence=found.reason, code=found.code or "host")

    def accelerator_of(self, ip: str) -> str:
        """`kvm` or `tcg`, as proved or as set; emulation where nobody has proved anything."""
        if self.settings.accel != "auto":
            return self.settings.accel
        return str((self.db.data["workers"].get(ip) or {}).get("accel", "tcg"))

    def ask_again(self, *ips: str) -> None:
        """Ask these workers, and wait for them: they came back, or are from before a reboot."""
        current = _Round(list(dict.fromkeys(ips)))
        for ip in current.asked:
            threading.Thread(target=self._ask, args=(ip, current), name=f"discover {ip}", daemon=True).start()
        current.wait(None)
        earlier = self._round
        for found in current.answers.values():
            if earlier is not None and found.ip in earlier.asked:
                earlier.answer(found)

    def down_reasons(self) -> dict[str, str]:
        """Workers that did not answer the last time they were asked, here or by the monitor, and why."""
        results = self.results()
        reasons = {ip: found.reason for ip, found in results.items() if not found.ok}
        for ip, seen in self.seen().items():
            if ip in results and results[ip].when > seen.when:
                continue
            if seen.reason:
                reasons[ip] = seen.reason
            else:
                reasons.pop(ip, None)
        return reasons

    def down(self) -> frozenset[str]:
        """Addresses of workers known to be down."""
        return frozenset(self.down_reasons())

    # -- one worker --------------------------------------------------------------------------------------

    def _ask(self, ip: str, current: _Round) -> None:
        began = time.monotonic()
        try:
            found = self._discover(ip)
        except CloudError as error:
            found = Found(ip=ip, reason=str(error), code=error.code)
        except Exception as error:  # one worker's surprise must not keep the menu waiting
            log.exception("%s: discovery failed", ip)
            found = Found(ip=ip, reason=f"{ip}: discovery failed: {error!r}", code="discovery")
        try:
            self._store(found)
        except CloudError as error:
            log.error("%s: what was found could not be saved: %s", ip, error)
        self._report(found, time.monotonic() - began)
        current.answer(found)

    def _discover(self, ip: str) -> Found:
        question = self._question(ip)
        facts = worker_facts.read(question, self.executor.run_plan(ip, worker_facts.probe(question)).observed)
        proof = self._proof(ip, question, facts)
        record = worker_facts.record(ip, question, facts, proof)
        if self.settings.accel == "kvm" and proof.accelerator != "kvm":
            record["problems"].append(f"the setting accel is kvm, but {proof.reason}; repair it, or set accel to auto")
        return Found(ip=ip, worker=record, problems=tuple(record["problems"]))

    def _question(self, ip: str) -> Question:
        home = self.executor.images_home(ip)
        return Question(
            installation=self.db.installation,
            base_dir=resolve(self.settings.images.base_dir, home),
            bridge=self.settings.network.bridge,
            user=guest_accounts.guests_user(self.settings, str(getattr(self.executor, "remote_user", "root"))),
            is_network_node=ip == self.settings.network.node,
        )

    def _proof(self, ip: str, question: Question, facts: WorkerFacts) -> Proof:
        """How guests run there: what was proved in this boot, or a new proof."""
        without = accelerator.without_proof(
            setting=self.settings.accel, has_device=facts.has_kvm, boot_id=facts.boot_id
        )
        if without is not None:
            return without
        kept = self._kept_proof(ip, question, facts.boot_id)
        if kept is not None:
            return kept
        plan = accelerator.proof_plan(question.installation, user=question.user if question.has_user(facts) else "")
        result: PlanResult = self.executor.run_plan(ip, plan)
        return accelerator.read_proof(result, boot_id=facts.boot_id, user=question.user)

    def _kept_proof(self, ip: str, question: Question, boot_id: str) -> Proof | None:
        with self.db.lock:
            known = dict(self.db.data["workers"].get(ip) or {})
        reason = str(known.get("accel_reason", ""))
        is_same = boot_id and known.get("boot_id") == boot_id and known.get("accel_user") == question.user
        if not is_same or known.get("accel") not in ("kvm", "tcg") or any(words in reason for words in UNSETTLED):
            return None
        if known["accel"] == "tcg" and reason in accelerator.REASONS_WITHOUT_PROOF:
            return None  # nothing was proved then
        return Proof(accelerator=known["accel"], reason=reason, boot_id=boot_id)

    def _store(self, found: Found) -> None:
        with self.db.lock:
            self.db.refresh()
            known = self.db.data["workers"].get(found.ip)
            if found.worker is not None and known is not None:
                found = replace(found, worker=_with_ways(known, found.worker))
            if found.worker is None and known is None:
                return
            if found.worker is not None and known is not None and _is_same(known, found.worker):
                return
        with self.db.transaction() as data:
            if found.worker is None:
                data["workers"].pop(found.ip, None)
            else:
                record = dict(found.worker)
                record["max_vms"] = data["workers"].get(found.ip, record)["max_vms"]  # an operator may have set it
                data["workers"][found.ip] = record

    def _report(self, found: Found, seconds: float) -> None:
        if found.worker is None:
            log.warning("Worker skipped: %s", found.reason)
            return
        worker = found.worker
        log.info(
            "Worker found: %s: %s cores, %s GB RAM, %s GB disk, %s (%s), in %.2f s",
            *(found.ip, worker["max_cores"], worker["max_ram_gb"], worker["max_disk_gb"]),
            *(worker["accel"], worker["accel_reason"], seconds),
        )
        if worker["assumed"]:
            log.warning("%s: did not tell %s; documented defaults are assumed", found.ip, ", ".join(worker["assumed"]))
        for problem in found.problems:
            log.warning("%s: %s", found.ip, problem)


def _with_ways(known: Mapping[str, Any], worker: Mapping[str, Any]) -> Mapping[str, Any]:
    """A worker whose bridge lost its uplinks, or is gone, is remembered with those it had: they can be put back."""
    kept = {key: known[key] for key in ("uplinks", "datapath") if known.get(key) and not worker.get(key)}
    return {**worker, **kept}


def _is_same(known: Mapping[str, Any], worker: Mapping[str, Any]) -> bool:
    """Whether a record need not be written: all but free space is equal, and that has hardly changed."""
    differing = {key for key, value in worker.items() if key != "max_vms" and known.get(key) != value}
    if differing - {"free_disk_gb"}:
        return False
    before, now = float(known.get("free_disk_gb", math.inf)), float(worker.get("free_disk_gb", math.inf))
    return before == now or abs(before - now) < FREE_DISK_STEP_GB
