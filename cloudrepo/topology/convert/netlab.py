"""netlab's topologies: nodes become machines, links networks; what netlab would configure in them is said. Pure.

The format: https://netlab.tools/topology-overview/ and https://netlab.tools/links/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo.topology.convert.parts import Building, Converted, as_mapping, not_read

_TOP = ("name", "nodes", "links", "version", "defaults", "groups", "message")
_NODE = ("name", "device", "id")
#: Of a link: what is no name of a node.
_LINK = (
    *(
        "prefix",
        "type",
        "name",
        "interfaces",
        "bandwidth",
        "mtu",
        "vlan",
        "vlan_name",
        "pool",
        "role",
        "bridge",
        "gateway",
    ),
    *("dhcp", "ospf", "isis", "eigrp", "bgp", "vrf", "mpls", "evpn", "vxlan", "unnumbered", "linkindex", "group", "tc"),
    *("stp", "lag", "ra", "clab", "libvirt", "disable", "members", "module", "pim", "ripv2", "virtualbox", "external"),
    *("ipv4", "ipv6", "shutdown", "graph", "description", "dhcp_client", "host_count", "node_count", "sr", "srv6"),
)
_SAID_NOWHERE = ("name", "interfaces", "prefix", "members", "type", "linkindex", "group", "graph", "description")

Row = Mapping[Any, Any]


def convert(document: Any, source: str) -> Converted:
    """A netlab topology as a topology.

    Args:
        document: the file as YAML has it.
        source: its name.

    Raises:
        RefusedError: it is no such file.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("nodes"), Mapping | list):
        raise not_read(source, "it has no `nodes`, as a netlab topology has")
    building = Building()
    building.leave_keys("file", document, _TOP)
    defaults = as_mapping(document.get("defaults"), "defaults", building)
    building.leave_keys("defaults", defaults, ("device",))
    groups = as_mapping(document.get("groups"), "groups", building)
    _nodes(document["nodes"], str(defaults.get("device") or ""), groups, building)
    _links(document.get("links") or [], building, "link")
    return building.done(str(document.get("name") or "lab"), source)


def _nodes(nodes: Any, device: str, groups: Row, building: Building) -> None:
    listed = nodes if isinstance(nodes, list) else [{"name": name, **_row(row)} for name, row in nodes.items()]
    for item in listed:
        row = {"name": item} if isinstance(item, str) else item
        if not isinstance(row, Mapping) or not row.get("name"):
            building.leave("nodes", "an entry without a name is left out")
            continue
        name = str(row["name"])
        where = f"node {name}"
        building.leave_keys(where, row, _NODE)
        kind = str(row.get("device") or _of_group(groups, name) or device)
        if kind and kind != "linux":
            building.leave(
                where, f"its device {kind}: it is a machine with its flavor's image, and nothing configures it"
            )
        building.add(name)
    for group, row in groups.items():
        building.leave_keys(f"group {group}", _row(row), ("members", "device"))


def _row(value: Any) -> Row:
    return value if isinstance(value, Mapping) else {}


def _of_group(groups: Row, name: str) -> str:
    rows = [_row(row) for row in groups.values()]
    return next((str(row["device"]) for row in rows if row.get("device") and name in _members(row)), "")


def _members(row: Row) -> list[Any]:
    members = row.get("members")
    return members if isinstance(members, list) else []


def _links(links: Any, building: Building, label: str) -> None:
    if not isinstance(links, list):
        building.leave("links", "they are no list, and are left out")
        return
    for number, link in enumerate(links, 1):
        where = f"{label} {number}"
        if isinstance(link, str):
            _join([(name.strip(), {}) for name in link.split("-")], {}, where, building)
        elif isinstance(link, list):
            _join([_end(one) for one in link], {}, where, building)
        elif not isinstance(link, Mapping):
            building.leave(where, "it is neither a text nor a list nor a mapping, and is left out")
        elif isinstance(link.get("members"), list):  # a group of links
            _said(link, where, building)
            _links(link["members"], building, where)
        elif isinstance(link.get("interfaces"), list):
            _join([_end(one) for one in link["interfaces"]], link, where, building)
        else:
            ends = [(str(key), _row(value)) for key, value in link.items() if str(key) not in _LINK]
            _join(ends, link, where, building)


def _end(one: Any) -> tuple[str, Row]:
    if isinstance(one, Mapping):
        return str(one.get("node") or ""), {key: value for key, value in one.items() if key != "node"}
    return str(one), {}


def _said(link: Row, where: str, building: Building) -> None:
    building.leave_keys(where, {key: value for key, value in link.items() if str(key) in _LINK}, _SAID_NOWHERE)


def _join(ends: list[tuple[str, Row]], link: Row, where: str, building: Building) -> None:
    unknown = [name for name, _ in ends if name not in building.nodes]
    if unknown:
        building.leave(where, f"its end {unknown[0] or '(none)'} is no node of the file: it is left out")
        return
    _said(link, where, building)
    for name, row in ends:
        building.leave_keys(f"{where}, {name}", row, ("ifname",))
    prefix = link.get("prefix")
    if isinstance(prefix, Mapping):
        building.leave_keys(f"{where}, prefix", prefix, ("ipv4",))
        prefix = prefix.get("ipv4")
    subnet = str(prefix) if isinstance(prefix, str) and "/" in prefix else ""
    if prefix is not None and not subnet:
        building.leave(where, f"its prefix {prefix!r} is no subnet; it has the usual one")
    building.link([(name, str(row.get("ifname") or "")) for name, row in ends], where, subnet=subnet)
