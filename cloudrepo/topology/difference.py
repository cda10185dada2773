"""From a topology file and a slice to the calls that make one what the other says; none for no difference. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from cloudrepo.late_dataclass import dataclass
from cloudrepo.topology import matching, slices
from cloudrepo.topology.model import End, Link, Node, Topology

CREATE_SLICE, ADD_VM, REMOVE_VM, START_VM = "create_slice", "add_vm", "remove_vm", "start_vm"
ADD_LINK, REMOVE_LINK, SET_LINK, SET_ENDS = "add_link", "remove_link", "set_link", "set_ends"
SET_RESTART = "set_restart"

View = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Action:
    """One call.

    Attributes:
        kind: one of the words above.
        text: what it does, in a few words.
        node: the machine it is about.
        link_id: the link it is about, of those that are there.
        ends: of a link, every interface chosen.
        interfaces: how many data interfaces a new machine gets.
        wish: the machine as the file has it.
        switches: of a link.
        subnet: of a new link.
    """

    kind: str
    text: str
    node: str = ""
    link_id: int | None = None
    ends: tuple[End, ...] = ()
    interfaces: int = 0
    wish: Node | None = None
    switches: Mapping[str, Any] = field(default_factory=dict)
    subnet: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For programs: `action`, `text`, and what it is about."""
        found: dict[str, Any] = {"action": self.kind, "text": self.text}
        found |= {"node": self.node} if self.node else {}
        found |= {"link_id": self.link_id} if self.link_id is not None else {}
        return found | ({"ends": [str(end) for end in self.ends]} if self.ends else {})


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is to be done.

    Attributes:
        actions: in their order.
        refusals: what the file wants and no call can do, each a sentence with its line; then nothing is done.
        lost: machines that are made anew, so that what is on their disks is lost.
    """

    actions: tuple[Action, ...] = ()
    refusals: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def difference(
    topology: Topology, view: View | None, *, default_flavor: str, replace: Collection[str] = ()
) -> Difference:
    """What makes a slice what a file says.

    Args:
        topology: the file.
        view: the slice as `get_slice` shows it; None = there is none yet.
        default_flavor: of a new machine for which the file names none.
        replace: machines that may be made anew where they cannot be changed; `*` = all.
    """
    return _Comparison(topology, view, default_flavor, replace).found()


class _Comparison:
    def __init__(self, topology: Topology, view: View | None, flavor: str, replace: Collection[str]) -> None:
        self.topology = topology
        self.view = view
        self.flavor = flavor
        self.vms = {str(vm["name"]): vm for vm in view["vms"]} if view is not None else {}
        self.reasons = {node.name: why for node in topology.nodes if (why := self._reasons(node))}
        self.refused = [name for name in self.reasons if "*" not in replace and name not in replace]
        self.remade = [name for name in self.reasons if name not in self.refused]

    def found(self) -> Difference:
        if self.refused:
            return Difference(refusals=tuple(self._refusal(name) for name in self.refused))
        wanted = {node.name for node in self.topology.nodes}
        gone = [name for name in self.vms if name not in wanted]
        new = [node for node in self.topology.nodes if node.name not in self.vms or node.name in self.remade]
        leaving = {*gone, *self.remade}
        counts = {name: slices.data_interfaces(vm) for name, vm in self.vms.items() if name not in leaving}
        counts |= {node.name: self._count(node) for node in new}
        have = [] if self.view is None else matching.without(slices.topology_of(self.view).links, self._ids(), leaving)
        links = matching.match(self.topology.links, have)
        return Difference(
            actions=(
                *self._create(),
                *(_unlinked(one.link_id, one.link) for one in links.removed),
                *(self._removed(name) for name in [*gone, *self.remade]),
                *(self._added(node, counts[node.name]) for node in new),
                *_changed(links),
                *(_linked(link) for link in links.added),
                *self._restarts(),
                *self._started(new),
            ),
            lost=tuple(self.remade),
        )

    def _ids(self) -> list[int]:
        return [int(link["link_id"]) for link in (self.view or {"links": []})["links"]]

    def _count(self, node: Node) -> int:
        needed = self.topology.needed(node.name)
        return node.interfaces if node.interfaces is not None else slices.default_interfaces(needed)

    def _reasons(self, node: Node) -> list[str]:
        """Why a machine that is there cannot be what the file says; empty where it is."""
        vm = self.vms.get(node.name)
        if vm is None:
            return []
        count, needed = slices.data_interfaces(vm), self.topology.needed(node.name)
        asked = node.interfaces if node.interfaces is not None else max(count, needed)
        boot = vm.get("first_boot") or {}
        pairs = (
            ("flavor", node.flavor or vm["flavor"], vm["flavor"]),
            ("image", node.image, vm.get("image") or ""),
            ("internet", node.internet, slices.has_internet(vm)),
            ("data interfaces", asked, count),
            ("worker", node.worker or vm["worker_ip"], vm["worker_ip"]),
            ("first boot", node.first_boot, boot),
        )
        return [
            f"{what}: it has {_said(is_now)}, and the file says {_said(wanted)}"
            if what != "first boot"
            else "its first boot is over, and the file wants another one"
            for what, wanted, is_now in pairs
            if wanted != is_now
        ]

    def _refusal(self, name: str) -> str:
        node = self.topology.node(name)
        line = f"{self.topology.source}:{node.place.line}: " if node is not None and self.topology.source else ""
        why = "; ".join(self.reasons[name])
        return f"{line}{name} cannot be changed in place ({why}). `--replace {name}` makes it anew, its disk is lost"

    # -- actions

    def _create(self) -> Iterator[Action]:
        if self.view is None:
            yield Action(kind=CREATE_SLICE, text=f"create the slice {self.topology.name}")

    def _removed(self, name: str) -> Action:
        text = f"remove {name}, with its disk" + (", to make it anew" if name in self.remade else "")
        return Action(kind=REMOVE_VM, text=text, node=name)

    def _added(self, node: Node, count: int) -> Action:
        flavor = node.flavor or (self.vms[node.name]["flavor"] if node.name in self.vms else self.flavor)
        more = [*(["internet"] if node.internet else []), *([f"on {node.worker}"] if node.worker else [])]
        text = f"add {node.name}: {', '.join([flavor, f'{count} data interfaces', *more])}"
        wish = Node(**{**vars(node), "flavor": flavor})
        return Action(kind=ADD_VM, text=text, node=node.name, interfaces=count, wish=wish)

    def _restarts(self) -> Iterator[Action]:
        for node in self.topology.nodes:
            is_new = node.name not in self.vms or node.name in self.remade
            now = "" if is_new else str(self.vms[node.name].get("restart") or "")
            if node.restart != now:
                text = f"restart policy of {node.name}: {node.restart or 'as the setting says'}"
                yield Action(kind=SET_RESTART, text=text, node=node.name, wish=node)

    def _started(self, new: Sequence[Node]) -> Iterator[Action]:
        """In a slice that runs a new machine is started; so is one that an apply which was cut short had added."""
        if self.view is None or self.view["status"] != "running":
            return
        names = [node.name for node in new]
        names += [name for name, vm in self.vms.items() if vm["status"] == "design" and self.topology.node(name)]
        for name in dict.fromkeys(names):
            yield Action(kind=START_VM, text=f"start {name}", node=name)


def _changed(links: matching.Links) -> Iterator[Action]:
    for link_id, ends in links.moved:
        text = f"link {link_id} joins {', '.join(map(str, ends))}"
        yield Action(kind=SET_ENDS, text=text, link_id=link_id, ends=ends)
    for link_id, link, before in links.kept:
        switches = {name: value for name, value in link.switches.items() if value != before.switches[name]}
        if switches:
            said = ", ".join(f"{name} {_said(value)}" for name, value in switches.items())
            yield Action(kind=SET_LINK, text=f"link {link_id} ({link}): {said}", link_id=link_id, switches=switches)


def _linked(link: Link) -> Action:
    return Action(kind=ADD_LINK, text=f"link {link}", ends=link.ends, switches=link.switches, subnet=link.subnet)


def _unlinked(link_id: int, link: Link) -> Action:
    return Action(kind=REMOVE_LINK, text=f"remove link {link_id} ({link})", link_id=link_id)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value not in ("", None) else "none"
