"""What a picture shows: nodes with their NICs, and the networks that join them. Every text in it is fit to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cloudrepo.late_dataclass import dataclass
from cloudrepo.link_ends import ends_of
from cloudrepo.link_switches import said
from cloudrepo.naming import INTERNET_VLAN

Record = Mapping[str, Any]
Kind = Literal["link", "internet"]


@dataclass(frozen=True, kw_only=True)
class Nic:
    """One interface of a node.

    Attributes:
        name: such as `eth1`.
        mac: its address; empty before it has one.
        address: its IPv4 address; empty where it has none.
        network: the key of the network it is in; empty = it is free.
    """

    name: str
    mac: str = ""
    address: str = ""
    network: str = ""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One VM.

    Attributes:
        key: what ends refer to; unique in a graph.
        name: what people call it.
        state: `design`, `running`, `stopped`, `error` and so on; empty before it is anything.
        worker: the address of its host; empty where it has none yet.
        nics: its interfaces, eth0 first.
        facts: more to say about it, each a label and a value.
        trouble: why something is wrong with it; empty when nothing is.
    """

    key: str
    name: str
    state: str = ""
    worker: str = ""
    nics: tuple[Nic, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class End:
    """Where a network meets a node: the node's key, and the name of the NIC."""

    node: str
    nic: str


@dataclass(frozen=True, kw_only=True)
class Network:
    """What joins NICs: a link of two, a network of more, or the internet.

    Attributes:
        key: unique in a graph.
        name: such as `link 1`.
        ends: the NICs in it.
        kind: the internet has no other end within the graph.
        vlan: its number; None before it has one.
        facts: more to say about it, each a label and a value.
    """

    key: str
    name: str
    ends: tuple[End, ...]
    kind: Kind = "link"
    vlan: int | None = None
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """A short word beside its line: the VLAN, or the name before there is one."""
        return self.name if self.vlan is None else str(self.vlan)

    @property
    def is_wire(self) -> bool:
        """Whether it is one line between two nodes; anything else is drawn as a point of its own."""
        return self.kind == "link" and len(self.ends) == 2


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A slice, or what a file would make of one.

    Attributes:
        title: what it is called.
        state: of the whole; empty before it is anything.
        nodes: in the order in which they were made.
        networks: the internet first, then links.
    """

    title: str
    nodes: tuple[Node, ...] = ()
    networks: tuple[Network, ...] = ()
    state: str = ""

    @property
    def online(self) -> frozenset[str]:
        """Keys of the nodes that reach the internet by a NIC of their own."""
        return frozenset(end.node for one in self.networks if one.kind == "internet" for end in one.ends)

    @property
    def workers(self) -> tuple[str, ...]:
        """The hosts that nodes are on, sorted."""
        return tuple(sorted({node.worker for node in self.nodes if node.worker}))


def visible(value: object) -> str:
    """A text on one line, every character that is not plainly visible as an escape."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def of_slice(record: Record) -> Graph:
    """The graph of a slice.

    Args:
        record: the slice, as the façade's `get_slice` gives it or as it is in the state file.
    """
    nodes = tuple(_node(vm) for vm in record["vms"])
    known = {node.key for node in nodes}
    online = _internet(record)
    name = visible(record.get("name") or "")
    title = f"Slice {record['slice_id']}" if record.get("slice_id") is not None else "Slice"
    return Graph(
        title=f"{title} “{name}”" if name else title,
        state=visible(record.get("status") or ""),
        nodes=nodes,
        networks=tuple(online + _links(record, known)),
    )


def _node(vm: Record) -> Node:
    seen, state = vm.get("observed"), visible(vm.get("status") or "")
    facts = [
        ("VM", str(vm["vm_id"])),
        ("Flavor", visible(vm.get("flavor") or "")),
        ("VNC port", str(vm.get("vnc_port") or "")),
        ("Seen", visible(seen) if seen not in (None, "off", vm.get("status")) else ""),
    ]
    return Node(
        key=str(vm["vm_id"]),
        name=visible(vm["name"]),
        state=state,
        worker=visible(vm.get("worker_ip") or ""),
        nics=tuple(_nic(item) for item in vm["interfaces"]),
        facts=tuple((label, value) for label, value in facts if value),
        trouble=visible(vm.get("error") or ""),
    )


def _nic(item: Record) -> Nic:
    vlan, link = item.get("vlan_id"), item.get("link_id")
    network = "internet" if vlan == INTERNET_VLAN else f"link{link}" if link is not None else ""
    address = visible((item.get("ip_config") or {}).get("ip") or "")
    return Nic(name=visible(item["name"]), mac=visible(item.get("mac") or ""), address=address, network=network)


def _internet(record: Record) -> list[Network]:
    """The internet as a network, where a NIC is in it."""
    ends = tuple(
        End(str(vm["vm_id"]), visible(item["name"]))
        for vm in record["vms"]
        for item in vm["interfaces"]
        if item.get("vlan_id") == INTERNET_VLAN
    )
    if not ends:
        return []
    return [Network(key="internet", name="internet", kind="internet", vlan=INTERNET_VLAN, ends=ends)]


def _links(record: Record, known: set[str]) -> list[Network]:
    found = []
    for link in record["links"]:
        ends = [End(str(vm_id), visible(interface)) for vm_id, interface in ends_of(link)]
        facts = [
            ("Subnet", visible(link.get("cidr") or "")),
            ("Gateway", visible(link.get("gateway_ip") or "")),
            ("Unlike others", said(link)),
        ]
        found.append(
            Network(
                key=f"link{link['link_id']}",
                name=f"link {link['link_id']}",
                vlan=link.get("vlan_id"),
                ends=tuple(end for end in ends if end.node in known),
                facts=tuple((label, value) for label, value in facts if value),
            )
        )
    return found


def shown_ends(graph: Graph, network: Network) -> Sequence[str]:
    """The ends of a network in words: `web eth1`."""
    names = {node.key: node.name for node in graph.nodes}
    return [f"{names.get(end.node, end.node)} {end.nic}" for end in network.ends]
