"""One operation on one slice: its hosts are made to match a wish, again where another operation came first."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

from cloudrepo.diff import adopts_nothing
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.hosts import seen_by_hosts
from cloudrepo.interruption import Interruption
from cloudrepo.late_dataclass import dataclass
from cloudrepo.probe import Host
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Outcome, Target
from cloudrepo.resources import HostState, Resource
from cloudrepo.site import Site
from cloudrepo.state import find_slice
from control import targets
from control.context import Context, first_error
from control.intents import Intent, own_record, taken
from control.states import ACTIVE, DEPLOYING, RUNNING
from control.targets import SlicePlanner

log = logging.getLogger(__name__)

PATIENCE_S = 120.0  # for messages that are refused because another operation came first
LONGEST_PAUSE_S = 0.5  # between two attempts
#: Refusals of a host that end by looking again and asking with a new number.
PASSING = ("host.refused.operation", "host.refused.changed", "host.refused.lock")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What should be true of a slice's hosts when an operation ends.

    Attributes:
        machines: ids of the VMs that should run; None = those whose record says so when the host is looked at.
        networks: whether the slice's networks should stand; None = if its record says so when the host is looked at.
        disks: whether its disks should stay.
        without_disk: a VM whose disk should not stay even so.
        stop_grace_s: how long guests may take to power off.
        adopts: whether what carries the mark of another slice of ours is set right; see `targets.adopting`.
    """

    machines: frozenset[int] | None = frozenset()
    networks: bool | None = False
    disks: bool = True
    without_disk: int | None = None
    stop_grace_s: float = 0.0
    adopts: bool = False


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One part of an operation: some hosts are made to match a wish.

    Attributes:
        wish: what should be true of them.
        hosts: which; None = all of the slice's, when they are looked at.
        skips: whether the others go on when one cannot be reached.
    """

    wish: Wish
    hosts: tuple[str, ...] | None = None
    skips: bool = False


def hosts_of(aim: Aim, record: Mapping[str, Any], node: str) -> list[str]:
    """The hosts of an aim, by the record as it is now."""
    return list(aim.hosts) if aim.hosts is not None else targets.hosts_of(record, node)


def planner(site: Site, data: Mapping[str, Any], record: Mapping[str, Any], wish: Wish) -> SlicePlanner:
    """What a wish means for the hosts of a slice as its record is now."""
    return SlicePlanner(
        site,
        data,
        record,
        machines=_running(record) if wish.machines is None else wish.machines,
        networks=record["status"] in ACTIVE if wish.networks is None else wish.networks,
        disks=wish.disks,
        without_disk=wish.without_disk,
    )


class LeftUnfinished(CloudError):
    """The process ends before the operation has: its intent stays in the records for whoever comes next."""

    code = "operation.left"


def refuse_end(intent: Intent, stop: Interruption | None) -> None:
    """Keep an operation from writing an end that it has not reached, when only its process ends.

    Raises:
        LeftUnfinished: the process ends.
    """
    if stop is not None and stop.leaves and stop.is_set():
        raise LeftUnfinished(
            f"slice {intent.slice_id}: its {intent.kind} is not finished",
            evidence="the process that was at it was told to end",
            remedy=f"`./cloud resume {intent.slice_id}` goes on, `./cloud rollback {intent.slice_id}` takes it back",
        )


class Operation:
    """One operation on one slice: applies wishes, and knows how to try again.

    Args:
        context: the installation.
        intent: what it is about, as written down. When another operation takes its place in the records, this one ends.
        progress: told of each step.
        stop: once set, no new step is begun.

    Attributes:
        states: the hosts, as the last attempt saw them in the end.
    """

    def __init__(
        self,
        context: Context,
        intent: Intent,
        progress: ProgressCallback | None = None,
        stop: Interruption | None = None,
    ) -> None:
        self.context = context
        self.intent = intent
        self.slice_id = intent.slice_id
        self.number = intent.number
        self.progress = progress
        self.stop = stop
        self.states: Mapping[str, HostState] = {}

    @property
    def departure(self) -> Interruption | None:
        """What stops also the undo of this operation: the end of the process, and no person's wish."""
        return self.stop if self.stop is not None and self.stop.leaves else None

    def refuse_end(self) -> None:
        """See `refuse_end`."""
        refuse_end(self.intent, self.stop)

    def apply(self, wish: Wish, *, skip_unreachable: bool = False, hosts: Iterable[str] | None = None) -> Outcome:
        """As `attempt`, for an operation that somebody else goes on with if this process ends before it has.

        Raises:
            LeftUnfinished: this process ends, and not all hosts match.
        """
        self.refuse_end()
        outcome = self.attempt(wish, skip_unreachable=skip_unreachable, hosts=hosts)
        if not outcome.ok:
            self.refuse_end()
        return outcome

    def pursue(self, aim: Aim) -> Outcome:
        """As `apply`, for an aim."""
        return self.apply(aim.wish, skip_unreachable=aim.skips, hosts=aim.hosts)

    def attempt(self, wish: Wish, *, skip_unreachable: bool = False, hosts: Iterable[str] | None = None) -> Outcome:
        """Make the slice's hosts match, again with a new number when another operation came first somewhere.

        Operations meet only at what all slices share, and at a slice whose last operation died. Each attempt
        begins with a new look, and who came first has made what all active slices need: it is rarely repeated
        more than once (docs/decisions/0004-whose-turn-it-is.md).

        Args:
            wish: what should be.
            skip_unreachable: go on with the other hosts when one cannot be reached.
            hosts: only these; default all of the slice's.
        """
        until = time.monotonic() + PATIENCE_S
        pause_s = 0.0
        for attempt in itertools.count():
            outcome = self._once(wish, skip_unreachable=skip_unreachable, only=hosts)
            if not _may_pass(outcome, skip_unreachable=skip_unreachable, is_first=attempt == 0):
                break
            if time.monotonic() > until or (self.stop is not None and self.stop.is_set()):
                break
            log.info("slice %s: looking again: %s", self.slice_id, first_error(outcome.errors))
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  spreads load, hides nothing
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s + 0.02)
            self.number = self.context.db.next_operation(above=seen_by_hosts(outcome.errors.values()))
        self.states = outcome.states
        return outcome

    def _once(self, wish: Wish, *, skip_unreachable: bool, only: Iterable[str] | None) -> Outcome:
        site, db = self.context.site, self.context.db
        db.refresh()
        record = self._record()
        ips = list(only) if only is not None else targets.hosts_of(record, site.settings.network.node)
        known = site.hosts(ips)
        unreachable = {ip: host for ip, host in known.items() if isinstance(host, CloudError)}
        if unreachable and not skip_unreachable:
            return Outcome(errors={ip: unreachable[ip] for ip in ips if ip in unreachable})
        hosts = [host for ip in ips if isinstance(host := known[ip], Host)]
        outcome = site.reconciler.apply(
            [self._target(host, wish) for host in hosts],
            scope=targets.slice_scope(record),
            lock=str(self.slice_id),
            operation=self.number,
            insist=self.intent.insist,
            gatekeeper=self._gatekeeper(wish),
            skip_unreachable=skip_unreachable,
            adopts=targets.adopting(db.data) if wish.adopts else adopts_nothing,
            progress=self.progress,
            stop=self.stop,
        )
        outcome.errors = {
            ip: unreachable.get(ip) or outcome.errors[ip] for ip in ips if ip in unreachable or ip in outcome.errors
        }
        return outcome

    def _record(self) -> Mapping[str, Any]:
        """The slice, as long as this operation is the one at work on it.

        Read after each look at a host: who takes the place in between has a higher number, and is looked at again.
        """
        data = self.context.db.data
        if find_slice(data, self.slice_id) is None:
            raise RefusedError("Slice not found", code="slice.unknown")
        record = own_record(data, self.intent)
        if record is None:
            raise taken(self.intent)
        return record

    def _gatekeeper(self, wish: Wish) -> str | None:
        """In the documented order machines wait for the network node; where none start, nobody waits."""
        settings = self.context.settings
        return settings.network.node if wish.machines != frozenset() and settings.deploy.order == "documented" else None

    def _target(self, host: Host, wish: Wish) -> Target:
        def wanted(seen: HostState) -> list[Resource]:
            self.context.db.refresh()
            data, record = self.context.db.data, self._record()
            return planner(self.context.site, data, record, wish).wanted(host, seen)

        return Target(host=host, wanted=wanted, stop_grace_s=wish.stop_grace_s)


def _running(record: Mapping[str, Any]) -> frozenset[int]:
    return frozenset(vm["vm_id"] for vm in record["vms"] if vm["status"] in (RUNNING, DEPLOYING))


def _may_pass(outcome: Outcome, *, skip_unreachable: bool, is_first: bool) -> bool:
    """Whether another attempt may do what this one did not.

    A host that ended early because another one did not open the gate is no failure of its own. Something foreign
    is looked at twice: what another operation makes just now may be seen before its mark is.
    """
    errors = outcome.errors.values()
    passing = [error for error in errors if error.code in PASSING or (is_first and error.code == "host.foreign")]
    if skip_unreachable:
        return bool(passing)
    return bool(passing) and all(error in passing or error.code == "host.aborted" for error in errors)
