"""Clean up: everything on the hosts that carries our mark, listed and then removed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from cloudrepo.call_events import OPERATOR
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.hosts import seen_by_hosts
from cloudrepo.naming import SHARED
from cloudrepo.plan import EVERYTHING
from cloudrepo.probe import Host
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome, Target, View
from cloudrepo.state import all_slices
from cloudrepo.validation import excerpt
from control import processes, targets
from control.context import Context, Record
from control.drift import known_hosts, unsettled
from control.states import ACTIVE, CREATING, DELETING, ERROR
from control.targets import hosts_of, online


def plan(context: Context, host: str | None) -> Record:
    """What would be removed: `{"hosts": {ip: [text, …]}, "unreachable": {ip: reason}}`."""
    views, errors = look(context, host)
    return {
        "hosts": {ip: [str(change) for change in view.difference.changes] for ip, view in views.items()},
        "unreachable": {ip: str(error) for ip, error in errors.items()},
    }


def look(context: Context, host: str | None) -> tuple[dict[str, View], dict[str, CloudError]]:
    """Hosts as they are seen, with all of ours there as what would be removed; and why the others are not.

    Raises:
        RefusedError: no such host.
    """
    chosen, errors = _targets(context, host)
    views, failed = context.site.reconciler.differences(chosen, targets.everything)
    return views, {**errors, **failed}


def clean(context: Context, host: str | None, *, progress: ProgressCallback | None = None) -> Record:
    """Remove it. Slices that lose something are left in state `error`, with the reason.

    Returns:
        As `plan`, of what was removed. A host that did not do it is among the unreachable, with the reason.

    Raises:
        RefusedError: no such host, or a process that lives is at work on a slice there.
    """
    chosen, errors = _targets(context, host)
    outcome = _apply(context, chosen, 0, progress)
    seen = seen_by_hosts(outcome.errors.values())
    context.db.refresh()
    if seen > context.db.data["operation"]:  # nobody came first: the counter was set back with the state file
        outcome = _apply(context, chosen, seen, progress)
    _note_losses(context, outcome)
    removed = {
        ip: [str(change) for change in changes] for ip, changes in outcome.changes.items() if ip not in outcome.errors
    }
    for ip, words in removed.items():
        if words:
            context.events.record("host.cleaned", who=OPERATOR, about=f"worker {ip}", removed=words)
    for ip, error in outcome.errors.items():
        context.events.record("host.cleaned", who=OPERATOR, about=f"worker {ip}", outcome="failed", error=str(error))
    return {
        "hosts": removed,
        "unreachable": {ip: str(error) for ip, error in {**errors, **outcome.errors}.items()},
    }


def _apply(context: Context, chosen: list[Target], above: int, progress: ProgressCallback | None) -> Outcome:
    refuse_busy(context, {target.host.ip for target in chosen})
    return context.site.reconciler.apply(
        chosen,
        scope=targets.everything,
        lock=EVERYTHING,
        operation=context.db.next_operation(above=above),
        insist=True,  # what a dead process began there, an earlier clean-up among it, ends first
        skip_unreachable=True,
        progress=progress,
    )


def _targets(context: Context, host: str | None) -> tuple[list[Target], dict[str, CloudError]]:
    context.db.refresh()
    known = known_hosts(context)
    if host is not None and host not in known:
        raise RefusedError(
            f"{excerpt(host)} is no host of this cluster", evidence=f"they are {', '.join(known)}", code="host"
        )
    found = context.site.hosts([host] if host is not None else known)
    errors = {ip: one for ip, one in found.items() if isinstance(one, CloudError)}
    return [Target(host=one, wanted=_nothing, is_broad=True) for one in found.values() if isinstance(one, Host)], errors


def _nothing(seen: Any) -> tuple[()]:
    return ()


def refuse_busy(context: Context, ips: Set[str]) -> None:
    """What an operation makes while it is removed would be neither there nor gone.

    Raises:
        RefusedError: a process that lives is at work on a slice on these hosts.
    """
    context.db.refresh()
    state_file = str(context.db.path)
    for record in context.db.data["slices"].values():
        if not ips & set(hosts_of(record, context.settings.network.node)):
            continue
        reason = unsettled(record, state_file)
        why = reason.why if reason is not None and reason.is_busy else _at_a_disk(record, state_file)
        if why:
            raise RefusedError(
                "nothing is cleaned up while somebody is at work there",
                evidence=why,
                remedy="Wait for it to end, or end that process",
                code="cleanup.busy",
            )


def _at_a_disk(record: Record, state_file: str) -> str:
    """Who makes or removes a VM of a slice just now, in a sentence; empty when nobody does."""
    for vm in record["vms"]:
        operation = vm.get("operation")
        if operation and not processes.is_abandoned(state_file, operation):
            who = processes.described(operation["process"])
            return f"VM {vm['vm_id']} of slice {record['slice_id']}: {who} is at it since {operation['began']}"
    return ""


def _note_losses(context: Context, outcome: Outcome) -> None:
    with context.db.transaction() as data:
        for scope, ips in _losses(context, data, outcome).items():
            record = data["slices"].get(scope)
            if record is not None and ips and record["status"] != DELETING:  # that one loses what it is to lose
                record["status"] = ERROR
                for key in ("operation", "back", "cleared"):
                    record.pop(key, None)
                record["error"] = f"its objects on {', '.join(sorted(ips))} were removed by a clean-up; delete it"
                for vm in record["vms"]:
                    if vm["worker_ip"] in ips:
                        vm["status"], vm["pid"] = ERROR, None


def _losses(context: Context, data: Record, outcome: Outcome) -> dict[str, set[str]]:
    """By slice, the hosts on which it has lost something.

    That is what was removed, and what the records say was there: a clean-up that was cut short may have removed it
    without a word.
    """
    lost: dict[str, set[str]] = {}
    for ip, changes in outcome.changes.items():
        for change in changes:
            if change.resource.mark is not None:
                lost.setdefault(change.resource.mark.scope, set()).add(ip)
    for record in online(data):
        lost.setdefault(str(record["slice_id"]), set()).update(lost.get(SHARED, ()))
    cleaned = outcome.states.keys() - outcome.errors.keys()
    for record in all_slices(data):
        lost.setdefault(str(record["slice_id"]), set()).update(cleaned & _held(context, record))
    return lost


def _held(context: Context, record: Mapping[str, Any]) -> set[str]:
    """The hosts that have something of a slice, by its record."""
    disks = {vm["worker_ip"] for vm in record["vms"] if vm["status"] != CREATING}
    return disks | set(hosts_of(record, context.settings.network.node)) if record["status"] in ACTIVE else disks
