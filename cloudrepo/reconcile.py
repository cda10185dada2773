"""Make hosts match: look at all of them at once, take the difference, act on all at once, look again.

Two round trips a host, whatever the size of a slice. Success is seen, not assumed: an apply ends with an
observation, and what still differs then is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol, TypeVar

from cloudrepo import probe
from cloudrepo.diff import Adopts, Change, Difference, Scope, adopts_nothing, difference
from cloudrepo.errors import CloudError, HostError, StepFailed
from cloudrepo.gate import Gate
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import SHARED, UNFINISHED
from cloudrepo.plan import EVERYTHING, Plan, PlanResult, Stage, StepResult
from cloudrepo.probe import Host
from cloudrepo.progress import Progress, ProgressCallback
from cloudrepo.resources import HostState, Resource
from cloudrepo.stages import NETWORK_GATE, StageBuilder, tidy_stage

log = logging.getLogger(__name__)
T = TypeVar("T")


class PlanRunner(Protocol):
    """What is asked of an executor here; `RemoteExecutor` is the real one."""

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        """Run one plan on one host."""
        ...

    def gather(self, work: Mapping[str, Callable[[], T]]) -> dict[str, T | CloudError]:
        """Run one piece of work a host, all at once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Target:
    """One host and what should be on it, for the caller's scope.

    Attributes:
        host: the host.
        wanted: from what was seen there to what should be there. A function, since some of it depends
            on the host's facts: its uplink, its datapath.
        stop_grace_s: how long guests may take to power off.
        is_broad: look also for what only a network node should have.
    """

    host: Host
    wanted: Callable[[HostState], Sequence[Resource]]
    stop_grace_s: float = 0.0
    is_broad: bool = False


@dataclass(kw_only=True)
class Outcome:
    """What became of each host.

    Attributes:
        states: what was seen in the end, by host.
        errors: what went wrong, by host; in the order of the targets.
        changes: what was done or tried, by host.
    """

    states: dict[str, HostState] = field(default_factory=dict)
    errors: dict[str, CloudError] = field(default_factory=dict)
    changes: dict[str, tuple[Change, ...]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every host is as it should be."""
        return not self.errors


@dataclass(frozen=True, kw_only=True)
class View:
    """One host as it was seen, what should be there, and what is between the two."""

    state: HostState
    wanted: tuple[Resource, ...]
    difference: Difference


class Reconciler:
    """Observes hosts and applies differences.

    Args:
        executor: who talks to hosts.
        installation: whose marks are ours.
        parallel: machines worked on at a time on one host.
        quit_grace_s: how long QEMU may take to quit before it is killed.
    """

    def __init__(
        self, executor: PlanRunner, *, installation: str, parallel: int = 2, quit_grace_s: float = 2.0
    ) -> None:
        self.executor = executor
        self.installation = installation
        self.parallel = parallel
        self.quit_grace_s = quit_grace_s

    def observe(self, hosts: Iterable[Host], *, is_broad: bool = False) -> dict[str, HostState | CloudError]:
        """Look at hosts, all at once; broadly, as `probe.questions` says."""
        return self.executor.gather({host.ip: _bound(self._observe, host, is_broad) for host in hosts})

    def _observe(self, host: Host, is_broad: bool) -> HostState:
        first, questions = probe.first_question(host), probe.questions(host, is_broad=is_broad)
        plan = Plan(installation=self.installation, stages=(first,), observe=questions)
        result = self.executor.run_plan(host.ip, plan)
        return probe.read(host, {**result.steps, **result.observed})

    def differences(
        self, targets: Sequence[Target], scope: Scope, adopts: Adopts = adopts_nothing
    ) -> tuple[dict[str, View], dict[str, CloudError]]:
        """What would be done, by host, and what went wrong. Nothing is changed.

        Records are read after the host was looked at (`Target.wanted` does it), so that a message which passes
        the host's fence was made with all wishes that the last change there knew of.
        """
        seen = self.executor.gather(
            {target.host.ip: _bound(self._observe, target.host, target.is_broad) for target in targets}
        )
        views: dict[str, View] = {}
        errors: dict[str, CloudError] = {}
        for target in targets:
            ip, state = target.host.ip, seen[target.host.ip]
            if isinstance(state, CloudError):
                errors[ip] = state
                continue
            try:
                wanted = tuple(target.wanted(state))
            except CloudError as error:
                errors[ip] = error
                continue
            what = difference(wanted, state, installation=self.installation, scope=scope, adopts=adopts)
            views[ip] = View(state=state, wanted=wanted, difference=what)
        return views, errors

    def apply(
        self,
        targets: Sequence[Target],
        *,
        scope: Scope,
        lock: str,
        operation: int,
        insist: bool = False,
        gatekeeper: str | None = None,
        skip_unreachable: bool = False,
        adopts: Adopts = adopts_nothing,
        progress: ProgressCallback | None = None,
        stop: Any = None,
    ) -> Outcome:
        """Make the hosts match.

        Args:
            targets: the hosts, in the order in which their errors matter.
            scope: which of our marks the caller speaks for.
            lock: the lock to hold on each host: a slice id, `manual` or everything. Where something that all
                slices share is to be changed, its lock is held too.
            operation: the operation's number; hosts refuse lower ones of the same locks afterwards.
            insist: send a message to hosts that are as they should be, too, so that an earlier operation which
                may still be under way there ends, or comes too late.
            gatekeeper: the host whose networks must stand before any machine starts, if that is wanted.
            skip_unreachable: go on with the others when a host cannot be observed (delete does, deploy not).
            adopts: whether what carries the mark of another slice of ours is set right (drift does, deploy not).
            progress: told of each step.
            stop: an event; once set no new step is begun.

        Returns:
            Everything that is known afterwards. Errors are returned, not raised.
        """
        views, errors = self.differences(targets, scope, adopts)
        outcome = Outcome(states={ip: view.state for ip, view in views.items()}, errors=errors)
        for ip, view in views.items():
            outcome.changes[ip] = view.difference.changes
            try:
                view.difference.refuse_foreign(ip)
            except CloudError as error:
                errors[ip] = error
        if errors and not skip_unreachable:
            return outcome
        todo = [
            target
            for target in targets
            if (ip := target.host.ip) in views and ip not in errors and (insist or views[ip].difference.changes)
        ]
        _Application(self, todo, views, lock, operation, insist, gatekeeper, progress, stop).into(outcome, scope)
        return outcome


class _Application:
    """One apply under way: plans made, gates between them, answers read."""

    def __init__(
        self,
        reconciler: Reconciler,
        targets: Sequence[Target],
        views: Mapping[str, View],
        lock: str,
        operation: int,
        insist: bool,
        gatekeeper: str | None,
        progress: ProgressCallback | None,
        stop: Any,
    ) -> None:
        self.insist = insist
        self.reconciler = reconciler
        self.executor = reconciler.executor
        self.targets = targets
        self.views = views
        self.operation = operation
        self.locks = {target.host.ip: _locks(lock, views[target.host.ip].difference) for target in targets}
        self.progress = progress
        self.stop = stop
        # Without the gatekeeper among the hosts there is nothing to wait for.
        has_keeper = any(target.host.ip == gatekeeper for target in targets)
        self.gatekeeper = gatekeeper if has_keeper and len(targets) > 1 else None
        self.gate = Gate() if self.gatekeeper else None

    def into(self, outcome: Outcome, scope: Scope) -> None:
        """Run everything and write the results into `outcome`, keeping the targets' order."""
        results = self.executor.gather({target.host.ip: _bound(self._run, target) for target in self.targets})
        for target in self.targets:
            ip, result = target.host.ip, results[target.host.ip]
            if isinstance(result, CloudError):
                outcome.errors[ip] = result
                continue
            try:
                state = probe.read(target.host, result.observed)
                outcome.states[ip] = state
                self._judge(target, result, state, scope)
            except CloudError as error:
                outcome.errors[ip] = error

    def _plan(self, target: Target) -> Plan:
        ip, view = target.host.ip, self.views[target.host.ip]
        builder = StageBuilder(
            target.host,
            view.state.facts,
            parallel=self.reconciler.parallel,
            stop_grace_s=target.stop_grace_s,
            quit_grace_s=self.reconciler.quit_grace_s,
            gate=NETWORK_GATE if self.gate is not None else "",
        )
        return Plan(
            installation=self.reconciler.installation,
            operation=self.operation,
            scopes=self.locks[ip],
            seen={scope: view.state.facts.counts.get(scope, 0) for scope in self.locks[ip]},
            fence_dir=target.host.disks_root,
            stages=(*builder.build(view.difference.changes), *self._tidy(view)),
            observe=probe.questions(target.host, is_broad=target.is_broad),
        )

    def _checked_plan(self, target: Target) -> Plan:
        """The plan, unless what the host shows cannot be named in a command.

        Raises:
            HostError: a name of something there is none that any command of ours takes.
        """
        try:
            return self._plan(target)
        except ValueError as error:
            raise HostError(
                target.host.ip,
                "what is there cannot be set right",
                evidence=str(error)[:300],
                remedy="Look at the host: something there has a name that nothing of ours has",
                code="host.names",
            ) from error

    def _tidy(self, view: View) -> tuple[Stage, ...]:
        is_only_taking_away = all(change.wanted is None for change in view.difference.changes)
        return (tidy_stage(self.reconciler.installation),) if self.insist and is_only_taking_away else ()

    def _run(self, target: Target) -> PlanResult:
        ip = target.host.ip
        is_keeper = ip == self.gatekeeper
        try:
            plan = self._checked_plan(target)
            result = self.executor.run_plan(
                ip, plan, on_event=self._teller(ip, plan), gates=self._gates(), stop=self.stop
            )
        except CloudError:
            if is_keeper and self.gate is not None:
                self.gate.close(f"{ip} failed")
            raise
        if is_keeper and self.gate is not None and not result.ok:
            self.gate.close(f"{ip} failed")
        return result

    def _gates(self) -> dict[str, Any]:
        return {NETWORK_GATE: self.gate} if self.gate is not None else {}

    def _teller(self, ip: str, plan: Plan) -> Callable[[Any], None]:
        """Turns a runner's events into progress; the gatekeeper's arrival at its gate opens everybody's."""
        places = {step.name: place for place, step in enumerate(plan.steps, start=1)}

        def tell(event: Any) -> None:
            if event.kind == "gate" and ip == self.gatekeeper and self.gate is not None:
                self.gate.open()
            if event.kind not in ("begin", "end") or event.name not in places:
                return
            log.info("%s: %s %s", ip, event.label, event.kind if event.kind == "begin" else f"ended {event.status}")
            if self.progress is not None:
                self.progress(
                    Progress(
                        host=ip,
                        label=event.label,
                        done=event.kind == "end",
                        ok=event.accepted,
                        seconds=event.seconds,
                        step=places[event.name],
                        total=len(places),
                    )
                )

        return tell

    def _judge(self, target: Target, result: PlanResult, state: HostState, scope: Scope) -> None:
        """Raise what is wrong: a failed step, an early end, or a host that still differs.

        What all slices share is judged only by who held its lock: others may be at it at this very moment.
        """
        if result.failed is not None:
            raise step_failed(target.host.ip, result.failed)
        if result.aborted:
            raise HostError(
                target.host.ip,
                "the host stopped before its work was done",
                evidence=result.aborted,
                code="host.aborted",
            )
        ip = target.host.ip
        rest = difference(self.views[ip].wanted, state, installation=self.reconciler.installation, scope=scope)
        is_judged = SHARED in self.locks[ip] or EVERYTHING in self.locks[ip]
        left_over = [each for each in (*rest.changes, *rest.foreign) if is_judged or not _is_shared(each)]
        if left_over:
            left = ", ".join(map(str, left_over[:5]))
            raise HostError(
                target.host.ip,
                "every step succeeded, but the host does not show what was asked for",
                evidence=f"still to do: {left}",
                remedy="Look at the host's own logs, then try again.",
                code="host.differs",
            )


def _locks(lock: str, what: Difference) -> tuple[str, ...]:
    """The locks a message needs: the caller's, and that of what all share where that changes.

    Also that of a slice whose mark is on an object of another one: its own operation may be about to remove that.
    """
    if lock == EVERYTHING:
        return (lock,)
    shared = [SHARED for change in what.changes if _is_shared(change)]
    adopted = [change.seen.mark.scope for change in what.changes if _is_adopted(change)]  # type: ignore[union-attr]
    return tuple(dict.fromkeys((lock, *shared, *adopted)))


def _is_adopted(change: Change) -> bool:
    """Whether an object gets the mark of another slice than it carries."""
    wanted, seen = (one.mark if one is not None else None for one in (change.wanted, change.seen))
    return wanted is not None and seen is not None and seen.scope not in (wanted.scope, UNFINISHED)


def _is_shared(change: Change) -> bool:
    return any(
        resource is not None and resource.mark is not None and resource.mark.scope == SHARED
        for resource in (change.wanted, change.seen)
    )


def step_failed(host: str, failed: StepResult) -> StepFailed:
    """A failed step as an error: host, step, and the host's own words."""
    words = (failed.err or failed.out).strip()
    return StepFailed(
        host,
        f"could not {failed.label}" if not failed.label.endswith(" runs") else f"{failed.label[:-5]} did not start",
        evidence=words[-800:] or f"status {failed.status}",
        details={"step": failed.name, "status": failed.status},
    )


def _bound(function: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    return lambda: function(*arguments)
