"""GraphML: nodes become machines, edges links, hyperedges networks. Pure.

The format: http://graphml.graphdrawing.org/primer/graphml-primer.html. Names come from a `label` or `name` of the node,
yEd's labels included, else its id is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from cloudrepo.topology.convert.parts import Building, Converted, not_read

_NAMES = ("label", "name")
_DRAWN = ("d", "x", "y", "graphics", "nodegraphics", "edgegraphics", "resources", "portgraphics", "labelx", "labely")


def convert(text: str, source: str) -> Converted:
    """A GraphML file as a topology.

    Raises:
        RefusedError: it is no such file.
    """
    root = _root(text, source)
    building = Building()
    keys = {one.get("id", ""): one.get("attr.name") or one.get("yfiles.type") or "" for one in root if _is(one, "key")}
    graphs = [one for one in root.iter() if _is(one, "graph")]
    if not graphs:
        raise not_read(source, "it has no graph, as a GraphML file has")
    name = ""
    for graph in graphs:
        found = _data(graph, keys)
        name = name or next((found[key] for key in ("label", "Network", "name") if found.get(key)), "") or ""
        _leave(
            f"graph {graph.get('id') or ''}".strip(),
            {k: v for k, v in found.items() if k.lower() != "network"},
            building,
        )
    for node in (one for one in root.iter() if _is(one, "node")):
        _node(node, keys, building)
    number = 0
    for edge in root.iter():
        if _is(edge, "edge") or _is(edge, "hyperedge"):
            number += 1
            _edge(edge, f"edge {edge.get('id') or number}", keys, building)
    return building.done(name or source.rpartition("/")[2].partition(".")[0], source)


def _root(text: str, source: str) -> ElementTree.Element:
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise not_read(source, "it declares a document type, which GraphML does not need")
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))  # noqa: S314 - no entities are left
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        raise not_read(source, f"it is no XML: {error}") from error
    if not _is(root, "graphml"):
        raise not_read(source, f"its root is {root.tag.rpartition('}')[2]!r}, and not graphml")
    return root


def _is(element: ElementTree.Element, tag: str) -> bool:
    return str(element.tag).rpartition("}")[2] == tag


def _data(element: ElementTree.Element, keys: dict[str, str]) -> dict[str, str]:
    """The data of an element by the name of its key; yEd's label is a `label`."""
    found: dict[str, str] = {}
    for one in element:
        if _is(one, "data"):
            key = one.get("key") or ""
            name = keys.get(key) or key
            name = name.lower() if name.lower() in _NAMES else name
            label = next(_labels(one), None)
            found["label" if label is not None else name] = (label if label is not None else one.text or "").strip()
    return found


def _labels(data: ElementTree.Element) -> Iterator[str]:
    for one in data.iter():
        if _is(one, "NodeLabel") or _is(one, "EdgeLabel"):
            yield (one.text or "").strip()


def _leave(where: str, found: dict[str, str], building: Building) -> None:
    for name, value in found.items():
        if value and name.lower() not in (*_NAMES, *_DRAWN):
            building.leave(where, f"its `{name}` has no counterpart")


def _node(node: ElementTree.Element, keys: dict[str, str], building: Building) -> None:
    ident, found = node.get("id", ""), _data(node, keys)
    name = next((found[key] for key in _NAMES if found.get(key)), ident)
    if any(_is(one, "graph") for one in node):
        building.leave(f"node {name}", "it holds a graph of its own: it is left out, and what is in it is not")
        return
    _leave(f"node {name}", found, building)
    building.add(name or ident)
    made = building.nodes.pop(name or ident)
    building.nodes[ident] = made


def _edge(edge: ElementTree.Element, where: str, keys: dict[str, str], building: Building) -> None:
    _leave(where, _data(edge, keys), building)
    if _is(edge, "edge"):
        ends = [(edge.get(end, ""), edge.get(f"{end}port") or "") for end in ("source", "target")]
    else:
        ends = [(one.get("node", ""), one.get("port") or "") for one in edge if _is(one, "endpoint")]
    unknown = [ident for ident, _ in ends if ident not in building.nodes]
    if unknown:
        building.leave(where, f"its end {unknown[0] or '(none)'} is no machine here: it is left out")
        return
    building.link(ends, where)
