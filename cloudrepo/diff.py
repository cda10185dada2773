"""The difference between what should be on a host and what is: pure, and the heart of everything.

Deploy, delete, resume, rollback, plan and drift are this function with other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from cloudrepo.aspects import is_same
from cloudrepo.errors import ForeignObjectError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import UNFINISHED, Mark, dhcp_port
from cloudrepo.resources import (
    Address,
    Closure,
    DhcpServer,
    Disk,
    Flows,
    HostState,
    Key,
    Machine,
    Meter,
    Namespace,
    Port,
    Resource,
    Tap,
)

Scope = Callable[[Mark], bool]
Adopts = Callable[[Mark, Mark], bool]
"""Of the mark wanted and the one found, another slice's: whether the records leave no doubt whose the object is."""

#: What holds nothing that a person has made: set right or made anew, nothing is lost.
_BARE = (Tap, Port, Meter, Namespace, Address, DhcpServer)


def adopts_nothing(wanted: Mark, found: Mark) -> bool:
    """What carries another slice's mark is that slice's."""
    return False


@dataclass(frozen=True, kw_only=True)
class Change:
    """One object that is not as it should be.

    `wanted` None = remove it; `seen` None = make it; both = set it right.
    """

    wanted: Resource | None = None
    seen: Resource | None = None

    @property
    def resource(self) -> Resource:
        """The object the change is about."""
        resource = self.wanted if self.wanted is not None else self.seen
        if resource is None:
            raise ValueError("a change without an object")
        return resource

    @property
    def verb(self) -> str:
        """`add`, `remove` or `change`."""
        if self.seen is None:
            return "add"
        return "remove" if self.wanted is None else "change"

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """All changes of one host, and the foreign objects that stand in their way."""

    changes: tuple[Change, ...] = ()
    foreign: tuple[Change, ...] = ()

    def refuse_foreign(self, host: str) -> None:
        """Stop before anything is done when a name we need is taken.

        Raises:
            ForeignObjectError: naming the first such object, and where it is.
        """
        if not self.foreign:
            return
        names = ", ".join(str(change.resource) for change in self.foreign)
        raise ForeignObjectError(
            host,
            f"{names} is there and is not ours; it was left untouched",
            evidence=f"its mark is {self.foreign[0].seen.mark if self.foreign[0].seen else None}",
            remedy=f"Remove it by hand if nobody needs it, or {way_round(self.foreign[0].resource)}",
        )


def difference(
    wanted: Iterable[Resource],
    seen: HostState,
    *,
    installation: str,
    scope: Scope,
    adopts: Adopts = adopts_nothing,
) -> Difference:
    """What must change on one host.

    Args:
        wanted: what should be there.
        seen: what the probe reported.
        installation: whose marks are ours.
        scope: which of our marks the caller speaks for; ours outside of it are left alone.
        adopts: whether what carries the mark of another slice of ours is set right; see `is_ours`.

    Returns:
        Changes in the order of `wanted`, then removals in the order of `seen`.
    """
    changes: list[Change] = []
    foreign: list[Change] = []
    wanted_by_key = {resource.key: resource for resource in wanted}
    for key, resource in wanted_by_key.items():
        found = seen.get(key)
        if found is not None and not is_ours(found, installation, resource.mark, adopts):
            foreign.append(Change(wanted=resource, seen=found))
        elif found is None or not is_same(resource, found):
            changes.append(Change(wanted=resource, seen=found))
    strange = {change.resource.key for change in foreign}
    ours = {key: found for key, found in seen.items() if key not in strange}
    changes = _Hanging(changes, wanted_by_key, ours).changes()
    for key, found in seen.items():
        if (
            key not in wanted_by_key
            and found.mark is not None
            and found.mark.installation == installation
            and scope(found.mark)
        ):
            changes.append(Change(seen=found))
    return Difference(changes=tuple(changes), foreign=tuple(foreign))


def must_go_first(change: Change) -> bool:
    """Whether a device that is seen has to be taken away before the wanted one can be made."""
    wanted, seen = change.wanted, change.seen
    if wanted is None or seen is None:
        return seen is not None
    if isinstance(wanted, Tap) and isinstance(seen, Tap):
        return wanted.user != seen.user
    if isinstance(wanted, Port) and isinstance(seen, Port):
        is_another = (wanted.is_internal, wanted.odd_type, wanted.bridge) != (
            *(seen.is_internal, seen.odd_type, seen.bridge),
        )
        return is_another or not seen.has_device
    return False


def named_ports(flows: Flows) -> set[str]:
    """The ports that flows come in by or go out to."""
    words = [word for _, match, actions in flows.flows for word in (*match.split(","), *actions.split(","))]
    return {word.partition("=")[2] or word.partition(":")[2] for word in words if word.startswith(_PORT_WORDS)}


_PORT_WORDS = ("in_port=", "output:")


class _Hanging:
    """Changes that make others needed, since one object holds another by its device and not by its name.

    A TAP that is made anew is lost to its port and to its machine, an internal port to its DHCP server. The device of
    a port that is in a wrong namespace cannot be fetched from there: the port is made anew.
    """

    def __init__(self, changes: Sequence[Change], wanted: Mapping[Key, Resource], ours: Mapping[Key, Resource]) -> None:
        self.by_key = {change.resource.key: change for change in changes}
        self.wanted = wanted
        self.ours = ours
        self.remade = {key for key, change in self.by_key.items() if change.seen is None or must_go_first(change)}

    @property
    def _is_closing(self) -> bool:
        """Whether the bridge is about to lose all flows and meters."""
        return any(kind == Closure.KIND for kind, _ in self.by_key)

    def changes(self) -> list[Change]:
        """All changes, in the order of `wanted`, where what hangs on something comes after it."""
        for key, resource in self.wanted.items():
            found = self.ours.get(key)
            if isinstance(resource, Port) and isinstance(found, Port):
                if (Tap.KIND, resource.device) in self.remade:
                    self._remake(resource, found)
            elif isinstance(resource, Address) and isinstance(found, Address):
                self._address(resource, found)
            elif isinstance(resource, Machine) and isinstance(found, Machine):
                self._machine(resource, found)
            elif isinstance(resource, Flows) and isinstance(found, Flows):
                self._flows(resource, found)
            elif isinstance(resource, Meter) and isinstance(found, Meter) and self._is_closing:
                self.by_key[key] = Change(wanted=resource)
            elif isinstance(resource, DhcpServer) and isinstance(found, DhcpServer) and found.is_running:
                ground = {(Namespace.KIND, resource.namespace), (Port.KIND, dhcp_port(resource.vlan_id))}
                if ground & self.remade:
                    self.by_key[key] = Change(wanted=resource, seen=replace(found, is_in_place=False))
        return [self.by_key[key] for key in self.wanted if key in self.by_key]

    def _remake(self, wanted: Port, found: Port) -> None:
        self.by_key[wanted.key] = Change(wanted=wanted, seen=replace(found, has_device=False))
        self.remade.add(wanted.key)

    def _address(self, wanted: Address, found: Address) -> None:
        key = (Port.KIND, wanted.device)
        port, wish = self.ours.get(key), self.wanted.get(key)
        if found.namespace not in ("", wanted.namespace) and isinstance(port, Port) and isinstance(wish, Port):
            self._remake(wish, port)
            self.by_key[wanted.key] = Change(wanted=wanted)

    def _flows(self, wanted: Flows, found: Flows) -> None:
        """A port that is made anew may have another number; a bridge that is being closed loses all flows."""
        ports = {name for kind, name in self.remade if kind == Port.KIND}
        if self._is_closing or ports & named_ports(wanted):
            self.by_key[wanted.key] = Change(wanted=wanted, seen=replace(found, flows=()))

    def _machine(self, wanted: Machine, found: Machine) -> None:
        nics = wanted.spec.nics if wanted.spec is not None and found.is_running else ()
        gone = tuple(nic.device for nic in nics if (Tap.KIND, nic.device) in self.remade)
        if gone:
            self.by_key[wanted.key] = Change(wanted=wanted, seen=replace(found, lost=gone))


def way_round(resource: Resource) -> str:
    """How two installations that share a host keep apart."""
    if isinstance(resource, (Tap, Machine, Disk, Meter)) or (isinstance(resource, Port) and not resource.is_internal):
        return "let this installation count from another number (`next_vm_id` in its state file) for new VMs"
    return "move this installation to other VLANs (settings `vlan.first`, `vlan.last`) for new slices"


def is_ours(found: Resource, installation: str, wanted_mark: Mark | None, adopts: Adopts = adopts_nothing) -> bool:
    """Ours: marked by this installation, and not for another slice, unless it is a bare object that is adopted."""
    if found.mark is None or found.mark.installation != installation:
        return False
    if wanted_mark is None or found.mark.scope in (wanted_mark.scope, UNFINISHED):
        return True
    return isinstance(found, _BARE) and adopts(wanted_mark, found.mark)
