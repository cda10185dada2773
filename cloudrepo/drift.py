"""What stands on a host against what the records say: each object in one of six states. Pure.

Wanted are the objects of all slices whose records say what should be. A slice that is being worked on, or whose last
operation did not end, is *unsettled*: nothing is said of its objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

from cloudrepo.aspects import Aspect, aspects
from cloudrepo.diff import Adopts, adopts_nothing, is_ours, way_round
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import MANUAL, Mark
from cloudrepo.resources import Address, DhcpServer, Disk, HostState, Machine, Port, Resource, Stranger, Tap


class State(StrEnum):
    """What can be said of an object."""

    OK = "ok"
    MISSING = "missing"
    CHANGED = "changed"
    ORPHAN = "orphan"
    MANUAL = "manual"
    FOREIGN = "foreign"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One object on one host.

    Attributes:
        host: its address.
        kind, name: what it is, such as `TAP`, `tap_1001_eth1`.
        state: what can be said of it.
        scope: a slice's id, `shared` (VLAN 400), `manual`, `unfinished`, or "" for what is not ours.
        whose: the installation whose mark it carries, "" without one.
        differs: in what it is not as it should be.
        is_in_the_way: it is not ours to touch, and stands where ours should be.
        carries: whose mark it carries, when that is another slice's of ours and is to be set right.
        note: what a person should know or do.
    """

    host: str
    kind: str
    name: str
    state: State
    scope: str = ""
    whose: str = ""
    differs: tuple[Aspect, ...] = ()
    is_in_the_way: bool = False
    carries: str = ""
    note: str = ""

    @property
    def is_difference(self) -> bool:
        """Whether hosts and records disagree about it. What is foreign counts only where ours should be."""
        return self.state in (State.MISSING, State.CHANGED, State.ORPHAN) or self.is_in_the_way


def classify(
    host: str,
    wanted: Iterable[Resource],
    seen: HostState,
    *,
    installation: str,
    bridge: str,
    is_settled: Callable[[Mark], bool] = lambda mark: True,
    adopts: Adopts = adopts_nothing,
) -> list[Finding]:
    """Every object of a host.

    Args:
        host: its address.
        wanted: what should be there for all settled slices.
        seen: a broad look at it; see `probe.questions`.
        installation: whose marks are ours.
        bridge: the integration bridge's name.
        is_settled: of a mark of ours, whether the records say what should be of what carries it.
        adopts: whether what carries the mark of another slice of ours is to be set right.

    Returns:
        Wanted objects in their order, then what else is ours, then what is not.
    """
    look = _Look(host, seen, installation, bridge, adopts)
    by_key = {resource.key: resource for resource in wanted}
    expected = [look.expected(resource) for resource in by_key.values()]
    rest = [resource for key, resource in seen.items() if key not in by_key]
    ours = [resource for resource in rest if look.is_marked_ours(resource)]
    return [
        *expected,
        *(look.unexpected(one) for one in ours if one.mark is not None and is_settled(one.mark)),
        *(look.foreign(one) for one in rest if not look.is_marked_ours(one) and look.is_our_business(one)),
        *map(look.stranger, seen.facts.strangers),
    ]


class _Look:
    """One host as it was seen."""

    def __init__(self, host: str, seen: HostState, installation: str, bridge: str, adopts: Adopts) -> None:
        self.host = host
        self.seen = seen
        self.installation = installation
        self.bridge = bridge
        self.adopts = adopts

    def is_marked_ours(self, resource: Resource) -> bool:
        return resource.mark is not None and resource.mark.installation == self.installation

    def expected(self, wanted: Resource) -> Finding:
        """What became of something that should be there."""
        found = self.seen.get(wanted.key)
        if found is None:
            return self._finding(wanted, State.MISSING, wanted.mark)
        if not self.is_marked_ours(found):
            note = f"It stands where ours should be. Remove it by hand if nobody needs it, or {way_round(wanted)}"
            return self._finding(
                wanted, State.FOREIGN, found.mark, differs=aspects(wanted, found), is_in_the_way=True, note=note
            )
        differs = aspects(wanted, found)
        if not is_ours(found, self.installation, wanted.mark, self.adopts):
            note = "It carries the mark of another slice of ours and is not touched. If that slice is gone, remove it"
            return self._finding(wanted, State.CHANGED, wanted.mark, differs=differs, is_in_the_way=True, note=note)
        state = State.OK if not differs else State.MISSING if _is_gone(found) else State.CHANGED
        carries = found.mark.scope if found.mark and not is_ours(found, self.installation, wanted.mark) else ""
        note = _advice(wanted, found)
        return self._finding(wanted, state, wanted.mark, differs=differs, carries=carries, note=note)

    def unexpected(self, found: Resource) -> Finding:
        """Ours, and not in the records."""
        is_manual = found.mark is not None and found.mark.scope == MANUAL
        return self._finding(found, State.MANUAL if is_manual else State.ORPHAN, found.mark)

    def foreign(self, found: Resource) -> Finding:
        return self._finding(found, State.FOREIGN, found.mark)

    def stranger(self, found: Stranger) -> Finding:
        return Finding(
            host=self.host,
            kind=found.kind,
            name=found.name,
            state=State.FOREIGN,
            whose=found.whose,
            note=found.note,
        )

    def is_our_business(self, found: Resource) -> bool:
        """Whether something foreign is of the kind and in the place where ours are; the bridge's uplink is not."""
        if not isinstance(found, Port):
            return True
        is_tap = (Tap.KIND, found.device) in self.seen
        return not found.bridge and found.device != self.bridge and (found.is_internal or is_tap or bool(found.mark))

    def _finding(
        self,
        resource: Resource,
        state: State,
        mark: Mark | None,
        *,
        differs: tuple[Aspect, ...] = (),
        is_in_the_way: bool = False,
        carries: str = "",
        note: str = "",
    ) -> Finding:
        is_ours = mark is not None and mark.installation == self.installation
        return Finding(
            host=self.host,
            kind=resource.KIND,
            name=name_of(resource),
            state=state,
            scope=mark.scope if mark is not None and is_ours else "",
            whose=mark.installation if mark is not None else "",
            differs=differs,
            is_in_the_way=is_in_the_way,
            carries=carries,
            note=note,
        )


def name_of(resource: Resource) -> str:
    """What a report calls an object: for the inside of a port, with its namespace."""
    if isinstance(resource, Address) and resource.namespace:
        return f"{resource.device} in {resource.namespace}"
    return resource.name


def _is_gone(found: Resource) -> bool:
    """What has left only its directory or its name behind."""
    if isinstance(found, (Machine, DhcpServer)):
        return not found.is_running and not found.strays
    if isinstance(found, Disk):
        return found.file == "gone"
    return isinstance(found, Port) and not found.has_device


def _advice(wanted: Resource, found: Resource) -> str:
    """What `--fix` cannot do by itself, or does at a price."""
    if isinstance(found, Disk) and not found.is_marked and not found.is_kept:
        return "Nothing proves that the file is ours; if it is, remove the VM from its slice by deleting the slice"
    if isinstance(found, Disk) and found.file == "another":
        return (
            f"That file is not touched. Move it away: {found.kept} is the disk, and is put back then. "
            f"Or, if that file is to be the disk, remove {found.kept}"
        )
    if isinstance(found, Disk) and found.file == "gone" and not found.is_kept:
        return "Its content is lost. Delete the slice, or the VM"
    if isinstance(found, Machine) and isinstance(wanted, Machine) and found.is_running and found.lost:
        return "The machine has to be started anew to be on the network again"
    return ""


def differences(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Those in which hosts and records disagree."""
    return (finding for finding in findings if finding.is_difference)
