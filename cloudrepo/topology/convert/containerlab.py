"""containerlab's `.clab.yml`: Linux nodes become machines, bridges become networks. Pure.

The format: https://containerlab.dev/manual/topo-def-file/. A node's keys come from `defaults`, its kind, its group and
itself, the later ones first.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo.topology.convert.parts import Building, Converted, as_mapping, as_word, not_read

LINUX = ("linux",)
BRIDGES = ("bridge", "ovs-bridge")
#: Ends that are no node of the file: the host itself, its networks, another host.
_OUTSIDE = ("host", "mgmt-net", "macvlan", "vxlan", "vxlan-stitch", "dummy")
_TOP = ("name", "prefix", "topology")
_TOPOLOGY = ("nodes", "links", "defaults", "kinds", "groups")
_NODE = ("kind", "group", "exec", "sysctls", "image", "labels", "position")
_LINK = ("endpoints", "type", "labels")

Row = Mapping[Any, Any]


def convert(document: Any, source: str) -> Converted:
    """A `.clab.yml` as a topology.

    Args:
        document: the file as YAML has it.
        source: its name.

    Raises:
        RefusedError: it is no such file.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("topology"), Mapping):
        raise not_read(source, "it has no `topology`, as a containerlab file has")
    building = Building()
    building.leave_keys("file", document, _TOP)
    topology = document["topology"]
    building.leave_keys("topology", topology, _TOPOLOGY)
    bridges = _nodes(topology, building)
    networks: dict[str, list[tuple[str, str]]] = {name: [] for name in bridges}
    links = topology.get("links") or []
    for number, link in enumerate(links if isinstance(links, list) else [], 1):
        _link(link, f"link {number}", building, networks)
    for name, ends in networks.items():
        building.link(ends, f"bridge {name}", bridging="allowed")
    return building.done(str(document.get("name") or "lab"), source)


def _nodes(topology: Row, building: Building) -> list[str]:
    """Make the machines; the names of nodes that are bridges."""
    bridges = []
    for name, written in as_mapping(topology.get("nodes"), "nodes", building).items():
        where = f"node {name}"
        node = _inherited(topology, as_mapping(written, where, building), where, building)
        kind = str(node["kind"])
        if kind in BRIDGES:
            bridges.append(str(name))
            continue
        if kind not in LINUX:
            building.leave(where, f"its kind {kind or '(none)'} is no Linux machine: it is left out, with its links")
            continue
        building.leave_keys(where, node, _NODE)
        if node.get("image"):
            building.leave(where, f"its container image {node['image']}: a machine has the image of its flavor")
        building.add(str(name), start=_start(node, where, building))
    return bridges


def _inherited(topology: Row, own: Row, where: str, building: Building) -> dict[Any, Any]:
    defaults = as_mapping(topology.get("defaults"), "defaults", building)
    groups = as_mapping(topology.get("groups"), "groups", building)
    kinds = as_mapping(topology.get("kinds"), "kinds", building)
    name = as_word(own.get("group"), f"{where}, group", building)
    group = as_mapping(groups.get(name), f"group {name}", building)
    kind = as_word(own.get("kind") or group.get("kind") or defaults.get("kind"), f"{where}, kind", building)
    of_kind = as_mapping(kinds.get(kind), f"kind {kind}", building)
    found: dict[Any, Any] = {}
    for layer in (defaults, of_kind, group, own):
        for key, value in layer.items():
            earlier = found.get(key)
            if key == "exec" and isinstance(value, list) and isinstance(earlier, list):
                found[key] = [*earlier, *value]
            elif key == "sysctls" and isinstance(value, Mapping) and isinstance(earlier, Mapping):
                found[key] = {**earlier, **value}
            else:
                found[key] = value
    return {**found, "kind": kind}


def _start(node: Row, where: str, building: Building) -> str:
    """What it runs once it is up, as a start script."""
    sysctls = as_mapping(node.get("sysctls"), f"{where}, sysctls", building)
    lines = [f"sysctl -w {shlex.quote(f'{key}={value}')}" for key, value in sysctls.items()]
    commands = node.get("exec") or []
    for command in commands if isinstance(commands, list) else [commands]:
        if isinstance(command, str) and command.strip():
            lines.append(command.strip())
        else:
            building.leave(where, "an `exec` that is no text is left out")
    return "\n".join([*lines, ""]) if lines else ""


def _link(link: Any, where: str, building: Building, networks: dict[str, list[tuple[str, str]]]) -> None:
    if not isinstance(link, Mapping):
        building.leave(where, "it is no mapping, and is left out")
        return
    building.leave_keys(where, link, _LINK)
    kind = str(link.get("type") or "veth")
    if kind not in ("veth", "brief"):
        building.leave(where, f"its type {kind} leads out of the lab: it is left out")
        return
    endpoints = link.get("endpoints")
    ends = [_end(one, where, building) for one in endpoints] if isinstance(endpoints, Sequence) else []
    if len(ends) != 2 or not all(ends):
        building.leave(where, "it has no two endpoints, and is left out")
        return
    outside = [node for node, _ in ends if node not in building.nodes and node not in networks]
    if outside:
        why = "leads out of the lab" if outside[0] in _OUTSIDE else "is no machine here"
        building.leave(where, f"its end {outside[0]} {why}: it is left out")
        return
    on = [node for node, _ in ends if node in networks]
    if len(on) == 2:
        building.leave(where, f"it joins the bridges {on[0]} and {on[1]}: it is left out, and they are two networks")
    elif on:
        networks[on[0]] += [end for end in ends if end[0] not in networks]
    else:
        building.link(ends, where)


def _end(one: Any, where: str, building: Building) -> tuple[str, str]:
    if isinstance(one, str):
        node, _, interface = one.partition(":")
        return node, interface
    if isinstance(one, Mapping) and one.get("node"):
        building.leave_keys(f"{where}, {one['node']}", one, ("node", "interface"))
        return str(one["node"]), str(one.get("interface") or "")
    return "", ""
