"""A topology as the text of a file; and a file that a person wrote brought up to date, with its comments kept. Pure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo.link_switches import NAMES, USUAL
from cloudrepo.topology import keys, matching, reading
from cloudrepo.topology.model import Link, Node, Topology

HEAD = "# Written by ./cloud topology export; docs/topology.md says what stands here.\n"


def text_of(topology: Topology) -> str:
    """The text of a new file."""
    document = _mapping({"version": keys.VERSION, "name": topology.name})
    if topology.type != "custom":
        document["type"] = topology.type
    document["nodes"] = _mapping({node.name: _node(node) for node in topology.nodes})
    if topology.links:
        document["links"] = _sequence([_link(link) for link in topology.links])
    return HEAD + _dumped(document)


def updated(text: str, topology: Topology, source: str, given: Mapping[str, Any] | None = None) -> str:
    """A file's text, changed so that it says what a topology says; what needs no change stays as it is written.

    Machines that a pattern, a count or a shape makes are written out one by one where one of them changed.

    Args:
        text: of the file.
        topology: what it is to say.
        source: the file's name.
        given: values of variables that it is read with.

    Raises:
        RefusedError: it has mistakes.
    """
    said = reading.read(text, source, given=given)
    document = _loader().load(text)
    stays = _staying(said, topology)
    made = said.links[: len(said.links) - len(document.get("links") or ())]
    broken = {_shape_of(said, link) for link in made if id(link) not in stays}
    kept = _update_nodes(document, said, topology, broken)
    _update_links(document, said, topology, stays, kept)
    if topology.name != said.name:
        document["name"] = topology.name
    if topology.type != said.type or (topology.type != "custom" and not {"type", "shape"} & document.keys()):
        document.insert(2, "type", topology.type)
    return _dumped(document) if document != _loader().load(text) else text


# ---------------------------------------------------------------------------------------- machines


def _update_nodes(document: Any, said: Topology, topology: Topology, broken: set[str]) -> set[str]:
    """Bring `nodes` up to date; the keys of groups that were left as they are."""
    groups = dict(said.groups)
    same = {node.name for node in said.nodes if _is_as_said(node, topology.node(node.name))}
    kept = {written for written, names in groups.items() if all(name in same for name in names)} - broken
    nodes = document.get("nodes")
    if not isinstance(nodes, dict):
        nodes = _mapping({str(name): None for name in nodes or ()})
        if document.get("nodes") is not None or any(one not in kept for one in groups):
            document["nodes"] = nodes
    if said.shape_group and said.shape_group not in kept:
        document.pop("shape", None), document.pop("size", None)
    there: set[str] = set()
    for written, names in groups.items():
        if written in kept:
            there.update(names)
            continue
        single = topology.node(written) if tuple(names) == (written,) else None
        if single is not None and isinstance(nodes.get(written), dict):
            _amend(nodes[written], _node(single))
            there.add(written)
            continue
        place = list(nodes).index(written) if written in nodes else len(nodes)
        if written in nodes:
            _take(nodes, written)
        for node in filter(None, map(topology.node, names)):
            there.add(node.name)
            nodes.insert(place, node.name, _node(node))
            place += 1
    for node in topology.nodes:
        if node.name not in there:
            nodes[node.name] = _node(node)
    return kept


def _is_as_said(said: Node, now: Node | None) -> bool:
    """Whether a file's machine is the slice's: what the file leaves open, the slice may have as it likes."""
    if now is None:
        return False
    if (said.flavor and said.flavor != now.flavor) or (said.worker and now.worker and said.worker != now.worker):
        return False
    if said.interfaces is not None and now.interfaces is not None and said.interfaces != now.interfaces:
        return False
    is_open = said.interfaces is None and now.interfaces is None
    is_counted = said.interfaces is not None or is_open or now.interfaces is not None
    alike = (said.image, said.internet, said.restart, said.first_boot)
    return is_counted and alike == (now.image, now.internet, now.restart, now.first_boot)


def _amend(before: Any, now: Mapping[str, Any]) -> None:
    for key in [key for key in before if key not in now and key in keys.NODE]:
        del before[key]
    for key, value in now.items():
        if before.get(key) != value:
            before[key] = value


# ---------------------------------------------------------------------------------------- networks


def _update_links(document: Any, said: Topology, topology: Topology, stays: Mapping[int, int], kept: set[str]) -> None:
    """Bring `links` up to date: items that are as they were stay, with the comments beside them."""
    items = document.get("links")
    if items is None:
        items = _sequence([])
    before = len(said.links) - len(items)  # those that shapes make
    done = {stays[id(link)] for link in said.links[:before] if id(link) in stays and _shape_of(said, link) in kept}
    for place in range(len(items) - 1, -1, -1):
        number = stays.get(id(said.links[before + place]))
        if number is None:
            _take(items, place)
        else:
            done.add(number)
    for number, link in enumerate(topology.links):
        if number not in done:
            items.append(_link(link))
    if items:
        document["links"] = items
    else:
        document.pop("links", None)


def _take(holder: Any, key: Any) -> Any:
    """Take an entry out. Comment lines below it are about the next one, and stay before that."""
    following = key + 1 if isinstance(key, int) else next(iter([*holder][[*holder].index(key) + 1 :]), None)
    token = next((one for one in holder.ca.items.get(key) or () if getattr(one, "value", "")), None)
    rest = str(token.value).partition("\n")[2] if token is not None else ""
    value = holder[key]
    del holder[key]
    holder.ca.items.pop(key, None) if not isinstance(key, int) else None
    place = key if isinstance(key, int) else following
    is_there = place < len(holder) if isinstance(place, int) else place is not None
    lines = [line.strip().removeprefix("#").removeprefix(" ") for line in rest.splitlines() if line.strip()]
    if lines and is_there:
        holder.yaml_set_comment_before_after_key(place, before="\n".join(lines), indent=2)
    return value


def _staying(said: Topology, topology: Topology) -> dict[int, int]:
    """By id of each link of a file that is as it was: the number of the same one."""
    found = matching.match(said.links, [matching.Present(number, link) for number, link in enumerate(topology.links)])
    moved = {number for number, _ in found.moved}
    return {
        id(link): number
        for number, link, its in found.kept
        if number not in moved and dict(link.switches) == dict(its.switches)
    }


def _shape_of(said: Topology, link: Link) -> str:
    """The group whose shape makes a link."""
    nodes = {end.node for end in link.ends}
    return next((written for written, names in said.groups if written in said.shapes and nodes <= {*names}), "")


# ---------------------------------------------------------------------------------------- values


def _node(node: Node) -> Any:
    values: dict[str, Any] = {
        "flavor": node.flavor,
        "image": node.image,
        "internet": node.internet,
        "interfaces": node.interfaces,
        "worker": node.worker,
        "restart": node.restart,
        "users": list(node.users),
        "ssh_keys": list(node.ssh_keys),
        "cloud_init": node.cloud_init,
        "start": node.start,
    }
    kept = {key: _value(value) for key, value in values.items() if value or (key == "interfaces" and value == 0)}
    found = _mapping({key: value for key, value in kept.items() if value is not None})
    if not any("\n" in str(value) for value in found.values()) and not node.ssh_keys:
        found.fa.set_flow_style()
    return found


def _link(link: Link) -> Any:
    more = {name: link.switches[name] for name in NAMES if link.switches[name] != USUAL[name]}
    more |= {"subnet": link.subnet} if link.subnet else {}
    ends: Any = str(link) if len(link.ends) == 2 else _sequence([str(end) for end in link.ends])
    if len(link.ends) > 2:
        ends.fa.set_flow_style()
    if not more:
        return ends
    found = _mapping({"ends": ends, **more})
    found.fa.set_flow_style()
    return found


def _value(value: Any) -> Any:
    from ruamel.yaml.scalarstring import LiteralScalarString

    if isinstance(value, str) and "\n" in value:
        return LiteralScalarString(value)
    return value


def _mapping(values: Mapping[str, Any]) -> Any:
    from ruamel.yaml.comments import CommentedMap

    return CommentedMap(values)


def _sequence(values: Sequence[Any]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    return CommentedSeq(values)


def _loader() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dumped(document: Any) -> str:
    stream = io.StringIO()
    _loader().dump(document, stream)
    return stream.getvalue()
