"""The two sides of a difference: what is taken away first, and what is made then. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from cloudrepo.aspects import RUNNING
from cloudrepo.diff import Change, must_go_first
from cloudrepo.resources import Address, DhcpServer, Machine, Port, Resource
from cloudrepo.sightings import FROZEN

R = TypeVar("R", bound=Resource)

#: What QMP calls a machine that goes on when it is told to; any other state can only be left by a new start.
_WAITING = (FROZEN, "paused", "prelaunch", "io-error")


class Split:
    """The changes of one direction, by class; an object to be replaced stands on both sides."""

    def __init__(self, changes: Sequence[Change], *, removing: bool) -> None:
        side: Callable[[Change], Resource | None] = (
            (lambda change: change.seen if _must_go_first(change) else None)
            if removing
            else (lambda change: change.wanted)
        )
        self.resources = [resource for change in changes if (resource := side(change)) is not None]
        self.keys = {resource.key for resource in self.resources}
        self.seen = {  # what is there still when the wanted one is made
            change.seen.key: change.seen
            for change in changes
            if change.seen and change.wanted and not _must_go_first(change)
        }

    def of(self, kind: type[R]) -> list[R]:
        """Those of one class."""
        return [resource for resource in self.resources if isinstance(resource, kind)]

    def with_strays(self, kind: type[Machine]) -> list[Machine]:
        """Seen ones that other processes run as: of those to go, or of those that stay."""
        return [one for one in (*self.resources, *self.seen.values()) if isinstance(one, kind) and one.strays]

    def trunks(self, ports: Iterable[Port]) -> list[str]:
        """Of these, ports that are there and carry more than the VLAN of their tag, or other tags in it."""
        seen = [one for port in ports if isinstance(one := self.seen.get(port.key), Port)]
        return [one.device for one in seen if one.trunks or one.vlan_mode or one.outer or one.cvlans]

    def only_hosts_differ(self, server: DhcpServer) -> bool:
        """Whether a server only has to read its reservations again."""
        seen = self.seen.get(server.key)
        return isinstance(seen, DhcpServer) and _same_but_hosts(server, seen)

    def place_of(self, address: Address) -> str:
        """The namespace a device is in: a fresh port is in the node's own."""
        seen = self.seen.get(address.key)
        return seen.namespace if isinstance(seen, Address) else ""

    def stale_addresses(self, address: Address) -> list[str]:
        """Addresses of a device that stays where it is, and that it is to lose."""
        seen = self.seen.get(address.key)
        if not isinstance(seen, Address) or seen.namespace != address.namespace:
            return []
        return [cidr for cidr in seen.addresses if cidr not in address.addresses]


def _must_go_first(change: Change) -> bool:
    """Whether the seen object has to be taken away before the wanted one is made."""
    if change.seen is None or change.wanted is None:
        return change.seen is not None
    if isinstance(change.wanted, DhcpServer) and isinstance(change.seen, DhcpServer):
        return not _same_but_hosts(change.wanted, change.seen)
    if isinstance(change.wanted, Machine) and isinstance(change.seen, Machine):
        return not _goes_on(change.wanted, change.seen)
    return must_go_first(change)


def _goes_on(wanted: Machine, seen: Machine) -> bool:
    """Whether a machine can be set right without starting it anew."""
    is_wired = wanted.spec is None or seen.wiring is None or wanted.spec.wiring == seen.wiring
    is_alive = seen.is_running and seen.uuid == wanted.uuid and seen.status in (*RUNNING, *_WAITING)
    return is_alive and is_wired and not seen.lost


def _same_but_hosts(wanted: DhcpServer, seen: DhcpServer) -> bool:
    is_ours = seen.is_marked and wanted.mark == seen.mark and seen.is_in_place
    is_ours = is_ours and not seen.strays and not seen.arguments
    return seen.is_running and is_ours and wanted.config == seen.config
