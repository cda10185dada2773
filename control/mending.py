"""Setting right what has drifted: slice by slice, under the locks of each, and only what carries our mark."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import field

from cloudrepo.call_events import OPERATOR
from cloudrepo.diff import Scope
from cloudrepo.drift import Finding, State
from cloudrepo.errors import CloudError, HostError, RefusedError
from cloudrepo.hosts import seen_by_hosts
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import MANUAL, SHARED, UNFINISHED, Mark
from cloudrepo.probe import Host
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome, Target
from cloudrepo.resources import HostState, Resource
from cloudrepo.state import find_slice, find_vm
from control import drift, images, targets
from control.context import Context, Record, first_error
from control.operation import PASSING
from control.repair import set_right

log = logging.getLogger(__name__)

ATTEMPTS = 5  # looks at what no slice has, when others come first


@dataclass(kw_only=True)
class _Work:
    """What has become of it so far."""

    fixed: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)
    left: list[Record] = field(default_factory=list)


def mend(context: Context, slice_id: int | None = None, *, progress: ProgressCallback | None = None) -> Record:
    """Set right what a look finds different, and look again.

    Returns:
        `fixed`: `{"about", "hosts": {ip: [text, …]}}` each; `failed`: `{"about", "error"}` each; `left`: `{"about",
        "why"}` of what is not for us to set right; `after`: the second look, as `drift.Report.to_dict` gives it.

    Raises:
        RefusedError: `Slice not found`, or the slice is being worked on, or its last operation did not end.
    """
    report = drift.look(context, slice_id)
    mending = _Mending(context, report, progress)
    if slice_id is not None:
        mending.refuse_unsettled(slice_id)
    mending.run(slice_id)
    after = drift.look(context, slice_id)
    work = mending.work
    return {"fixed": work.fixed, "failed": work.failed, "left": work.left, "after": after.to_dict()}


class _Mending:
    """One report being worked off."""

    def __init__(self, context: Context, report: drift.Report, progress: ProgressCallback | None) -> None:
        self.context = context
        self.report = report
        self.progress = progress
        self.work = _Work()

    def refuse_unsettled(self, slice_id: int) -> None:
        """One slice was asked for by name: it is refused by name."""
        for one in self.report.unsettled:
            if one.slice_id == slice_id:
                raise RefusedError(f"slice {slice_id} is not set right now", evidence=one.why, code="drift.unsettled")

    def run(self, slice_id: int | None) -> None:
        differences = self.report.differences
        self._bring_bases(differences)
        scopes = dict.fromkeys(one.scope for one in differences if one.scope and not one.is_in_the_way)
        # Before whoever's mark it is takes away what no record of that slice has.
        adopting = dict.fromkeys(one.scope for one in differences if one.carries and one.scope != SHARED)
        for scope in adopting:
            self._slice(int(scope))
        if SHARED in scopes:
            self._shared()
        for scope in scopes:
            if scope in adopting:
                continue
            if scope.isdigit() and find_slice(self.context.db.data, scope) is not None:
                self._slice(int(scope))
            elif scope not in (SHARED, UNFINISHED, MANUAL):
                self._orphans(scope, lambda mark, scope=scope: mark.scope == scope)  # type: ignore[misc]
        if UNFINISHED in scopes and slice_id is None:
            self._unfinished(differences)
        for one in differences:
            if one.is_in_the_way:
                self.work.left.append({"about": f"{one.kind} {one.name} on {one.host}", "why": _why_left(one)})
        if slice_id is None:
            for unsettled in self.report.unsettled:
                self.work.left.append({"about": f"slice {unsettled.slice_id}", "why": unsettled.why})

    # -- slices ----------------------------------------------------------------------------------------

    def _slice(self, slice_id: int) -> None:
        """As the slice's own operation does it, as long as nobody else is at the slice."""
        hosts = list(dict.fromkeys(one.host for one in self.report.findings if one.scope == str(slice_id)))
        try:
            outcome = set_right(
                self.context, slice_id, hosts, who=OPERATOR, skip_unreachable=True, adopts=True, progress=self.progress
            )
        except CloudError as error:
            outcome = Outcome(errors={"": error})
        self._note(f"slice {slice_id}", outcome)

    # -- what is of no one slice -----------------------------------------------------------------------

    def _shared(self) -> None:
        """VLAN 400, by the wishes of all slices that are active when the node is looked at."""
        context = self.context

        def wanted(host: Host, seen: HostState) -> list[Resource]:
            context.db.refresh()
            data = context.db.data
            return targets.shared_of(context.site, data, host, seen, targets.active(data))

        for ip in dict.fromkeys(one.host for one in self.report.differences if one.scope == SHARED):
            host = context.site.host(ip)
            self._apply("VLAN 400", ip, functools.partial(wanted, host), lambda mark: mark.scope == SHARED, SHARED)

    def _orphans(self, scope: str, speaks_for: Scope) -> None:
        """What carries the mark of a slice that is in the records no more."""
        for ip in dict.fromkeys(one.host for one in self.report.differences if one.scope == scope):
            self._apply(f"what is left of slice {scope}", ip, _nothing, speaks_for, scope)

    def _unfinished(self, differences: Iterable[Finding]) -> None:
        """Directories of ours that no record knows, and what only their place says to be ours."""
        db = self.context.db
        known = targets.ids_of(db.data, db.data["slices"])

        def wanted(seen: HostState) -> list[Resource]:
            nonlocal known
            db.refresh()  # whoever makes a VM was in the records before its directory was on the host
            known = targets.ids_of(db.data, db.data["slices"])
            return []

        def speaks_for(mark: Mark) -> bool:
            return mark.scope == UNFINISHED and mark.vm_id not in known and mark.detail not in known

        for ip in dict.fromkeys(one.host for one in differences if one.scope == UNFINISHED):
            self._apply("unfinished directories", ip, wanted, speaks_for, MANUAL)

    def _apply(
        self, about: str, ip: str, wanted: Callable[[HostState], list[Resource]], speaks_for: Scope, lock: str
    ) -> None:
        outcome = Outcome()
        for _ in range(ATTEMPTS):
            seen = seen_by_hosts(outcome.errors.values())
            try:
                outcome = self.context.site.reconciler.apply(
                    [Target(host=self.context.site.host(ip), wanted=wanted, is_broad=True)],
                    scope=speaks_for,
                    adopts=targets.adopting(self.context.db.data),
                    lock=lock,
                    operation=self.context.db.next_operation(above=seen),
                    progress=self.progress,
                )
            except CloudError as error:
                outcome = Outcome(errors={ip: error})
            if not any(error.code in PASSING for error in outcome.errors.values()):
                break
        self._note(about, outcome)

    # -- base images -----------------------------------------------------------------------------------

    def _bring_bases(self, differences: Iterable[Finding]) -> None:
        """Base images that went away under disks are brought again; their names are their contents."""
        lost = [one for one in differences if any(each.what == "base image" for each in one.differs)]
        for finding in lost:
            record = find_slice(self.context.db.data, finding.scope)
            vm = find_vm(record, int(finding.name)) if record is not None else None
            about = f"base image of VM {finding.name}"
            manager = self.context.deployment.qcow_manager
            manager.bases.forget(finding.host)
            try:
                image, known = images.source_of(self.context, vm) if vm is not None else ("", None)
                if not image:
                    raise HostError(finding.host, "its flavor is unknown, so its image is not either")
                manager.bases.ensure(finding.host, image, manager.base_dir, known=known)
            except CloudError as error:
                self._note(about, Outcome(errors={finding.host: error}))
            else:
                self.work.fixed.append({"about": about, "hosts": {finding.host: [f"bring {about}"]}})

    # -- telling ---------------------------------------------------------------------------------------

    def _note(self, about: str, outcome: Outcome) -> None:
        done = {
            ip: [str(change) for change in changes]
            for ip, changes in outcome.changes.items()
            if changes and ip not in outcome.errors
        }
        if done:
            self.work.fixed.append({"about": about, "hosts": done})
        if outcome.errors:
            error = first_error(outcome.errors)
            entry = {"about": about, "why": str(error)} if error.code in _NOT_OURS else None
            if entry is not None:
                self.work.left.append(entry)
            else:
                self.work.failed += [{"about": about, "error": str(one)} for one in outcome.errors.values()]
        if done or outcome.errors:
            said = "failed" if outcome.errors else "done"
            self.context.events.record("drift.fixed", who=OPERATOR, about=about, outcome=said, hosts=done)


#: Refusals that are no failure: somebody else's thing is there, or somebody else is at it.
_NOT_OURS = ("host.foreign", "slice.state", "slice.taken")


def _why_left(finding: Finding) -> str:
    whose = f" of installation {finding.whose}" if finding.whose and finding.state is State.FOREIGN else ""
    return f"{finding.host}: {finding.kind} {finding.name}{whose} is not touched. {finding.note}"


def _nothing(seen: HostState) -> list[Resource]:
    return []
