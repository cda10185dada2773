"""What converters share: names, networks, and the list of what was left. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.topology import shapes, subnets
from cloudrepo.topology.model import End, Link, Node, Topology
from cloudrepo.validation import MAX_DATA_INTERFACES, MAX_SLICE_NAME, excerpt, host_name

_INTERFACE = re.compile(r"eth([1-9][0-9]?)\Z")
LONGEST_NAME = 31


@dataclass(frozen=True)
class Left:
    """Something that a topology cannot say.

    Attributes:
        where: a node, a link or a key of the file.
        what: what it is, and what becomes of it.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A topology made of another tool's file, and what it does not say."""

    topology: Topology
    left: tuple[Left, ...]


@dataclass
class Building:
    """A topology that is being made of another tool's file."""

    left: list[Left] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)  # by their name there
    links: list[Link] = field(default_factory=list)

    def leave(self, where: str, what: str) -> None:
        """Note what cannot be said."""
        self.left.append(Left(excerpt(where), excerpt(what)))

    def leave_keys(self, where: str, found: Mapping[Any, Any], known: Iterable[str]) -> None:
        """Note keys that mean nothing here."""
        for key, value in found.items():
            if str(key) not in known and value not in (None, "", [], {}):
                self.leave(where, f"`{key}` has no counterpart")

    def add(self, name: str, **values: Any) -> None:
        """A machine, by a name that machines can have."""
        wanted = re.sub(r"[^A-Za-z0-9_-]", "-", name)
        wanted = (wanted if wanted[:1].isascii() and wanted[:1].isalpha() else f"n{wanted}")[:LONGEST_NAME]
        taken = {host_name(node.name) for node in self.nodes.values()}
        chosen, number = wanted, 2
        while host_name(chosen) in taken:
            chosen, number = f"{wanted[: LONGEST_NAME - 3]}-{number}", number + 1
        if chosen != name:
            self.leave(
                f"node {name}", f"it is called {chosen}: a name is a letter, then up to 30 letters, digits, - or _"
            )
        self.nodes[name] = Node(name=chosen, **values)

    def link(self, ends: Sequence[tuple[str, str]], where: str, *, subnet: str = "", **switches: Any) -> None:
        """A network of machines by their names there; an interface that no machine here can have is chosen."""
        nodes = [node for node, _ in ends]
        if len(set(nodes)) != len(nodes):
            self.leave(where, f"it has {max(nodes, key=nodes.count)} as an end twice, and is left out")
            return
        if len(nodes) < 2:
            self.leave(where, "it has one end, and is left out: a link joins two machines or more")
            return
        made = tuple(End(self.nodes[node].name, self._interface(node, name, where)) for node, name in ends)
        self.links.append(Link(ends=made, subnet=self._subnet(subnet, len(made), where)))
        self.links[-1] = replace(self.links[-1], switches={**self.links[-1].switches, **switches})

    def _interface(self, node: str, name: str, where: str) -> str:
        match = _INTERFACE.match(name)
        used = {str(end) for link in self.links for end in link.ends}
        if match is not None and int(match[1]) <= MAX_DATA_INTERFACES:
            if f"{self.nodes[node].name}:{name}" not in used:
                return name
            self.leave(where, f"{node}:{name} is an end of another link; a free interface is chosen")
        elif name:
            self.leave(where, f"the interface {node}:{name} is none of eth1 to eth{MAX_DATA_INTERFACES}; one is chosen")
        return ""

    def _subnet(self, text: str, ends: int, where: str) -> str:
        if not text:
            return ""
        try:
            network = str(subnets.checked(text))
            subnets.require_room(network, ends)
        except RefusedError as error:
            self.leave(where, f"its subnet: {error.brief}; it has the usual one")
            return ""
        return network

    def done(self, name: str, source: str) -> Converted:
        """What was made; more than a slice can have is said, and left to the person."""
        label = "".join(c if c.isprintable() else " " for c in name).strip()[:MAX_SLICE_NAME] or "lab"
        label = f"lab {label}" if label.isdecimal() else label
        nodes = tuple(self.nodes.values())
        bare = Topology(name=label, nodes=nodes, links=tuple(self.links), source=source)
        if len(bare.links) > shapes.MOST_LINKS:
            self.leave("links", f"there are {len(bare.links)}; a slice has at most {shapes.MOST_LINKS}: take some out")
        for node in nodes:
            if bare.needed(node.name) > MAX_DATA_INTERFACES:
                text = f"it is an end of {bare.needed(node.name)} links; a machine has {MAX_DATA_INTERFACES} interfaces"
                self.leave(f"node {node.name}", f"{text}: take some out")
        return Converted(topology=bare, left=tuple(self.left))


def as_mapping(value: Any, where: str, building: Building) -> Mapping[Any, Any]:
    """A mapping; anything else is left out, and said."""
    if isinstance(value, Mapping):
        return value
    if value not in (None, ""):
        building.leave(where, "it is no mapping, and is left out")
    return {}


def as_word(value: Any, where: str, building: Building) -> str:
    """A text or a number as text; a list or a mapping is left out, and said."""
    if isinstance(value, Mapping | list):
        building.leave(where, "it is no text, and is left out")
        return ""
    return "" if value in (None, False) else str(value)


def not_read(source: str, what: str) -> RefusedError:
    """Said of a file that is none of its kind."""
    return RefusedError(f"{source} cannot be converted", evidence=what, code="topology.convert")
