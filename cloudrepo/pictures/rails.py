"""A drawing for many lines: VMs one under the other, each network a rail beside them. It cannot become a tangle."""

from __future__ import annotations

from collections.abc import Mapping

from cloudrepo.pictures.graph import Graph, Network
from cloudrepo.pictures.marks import Marks, columns_of, fit

STEPS = (6, 5, 4, 3, 2)  # columns from one rail to the next
WIDEST = 18
NUMBER = 4  # columns of a VLAN's number above its rail


def low(graph: Graph, width: int, marks: Marks, text: Mapping[str, str]) -> list[str] | None:
    """As `draw`, with a line for each VM: its name without a box, and a mark for the internet."""
    networks = [one for one in graph.networks if one.kind == "link"]
    words = {
        node.key: f"{marks.state(node.state)} {text[node.key]}{marks.uplink_of(node.key in graph.online)} "
        for node in graph.nodes
    }
    box = min(WIDEST, max(map(columns_of, words.values())))
    step = _step(box, len(networks), width)
    if step is None:
        return None
    rails = {box + 1 + step * place: one for place, one in enumerate(networks, 1)}
    rows = {node.key: place for place, node in enumerate(graph.nodes)}
    lines = _heads(rails, marks) if rails else []
    for node in graph.nodes:
        knots = _knots(rails, node.key)
        lines.append(fit(words[node.key], box, marks) + _beside(rows[node.key], box, knots, rails, rows, marks))
    return [line.rstrip() for line in lines]


def draw(graph: Graph, width: int, marks: Marks, text: Mapping[str, str]) -> list[str] | None:
    """The lines of the drawing; None where there are more rails than fit.

    Args:
        graph: at least one node.
        width: columns there are.
        marks: by which characters.
        text: the names as this terminal can show them, under the keys of nodes.
    """
    words = {node.key: (f"{marks.state(node.state)} {text[node.key]}", f"  {node.worker}") for node in graph.nodes}
    box = min(WIDEST, max(columns_of(row) for rows in words.values() for row in rows) + 4)
    step = _step(box, len(graph.networks), width)
    if step is None:
        return None
    rails = {box + 1 + step * place: one for place, one in enumerate(graph.networks, 1)}
    lines = _heads(rails, marks)
    rows = {node.key: 1 + 4 * place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        knots = _knots(rails, node.key)
        edge = marks.across * (box - 2)
        inside = [f"{marks.down} {fit(row, box - 3, marks)}" for row in words[node.key]]
        pieces = [
            f"{marks.corners[0]}{edge}{marks.corners[1]}",
            inside[0] + (marks.tees[0] if knots else marks.down),
            inside[1] + marks.down,
            f"{marks.corners[2]}{edge}{marks.corners[3]}",
        ]
        for offset, piece in enumerate(pieces):
            y = rows[node.key] - 1 + offset
            lines.append(piece + _beside(y, box, knots if offset == 1 else set(), rails, rows, marks))
    return [line.rstrip() for line in lines]


def _step(box: int, count: int, width: int) -> int | None:
    """How far apart rails stand; None where they do not fit."""
    return next((step for step in STEPS if box + 2 + step * count <= width), None)


def _knots(rails: Mapping[int, Network], node: str) -> set[int]:
    """The columns of the rails that a VM is on."""
    return {x for x, one in rails.items() if any(end.node == node for end in one.ends)}


def _heads(rails: Mapping[int, Network], marks: Marks) -> list[str]:
    """The numbers above the rails: side by side where there is room, else digit under digit."""
    labels = {x: _head(one)[-NUMBER:] for x, one in rails.items()}
    room = min((b - a for a, b in zip(sorted(rails), sorted(rails)[1:], strict=False)), default=STEPS[0])
    if room > max(map(len, labels.values()), default=0):
        return [_row({x - len(label) // 2 + place: c for x, label in labels.items() for place, c in enumerate(label)})]
    tall = max(map(len, labels.values()))
    return [_row({x: label.rjust(tall)[place] for x, label in labels.items()}) for place in range(tall)]


def _head(network: Network) -> str:
    """What stands above a rail: the VLAN, or the link's number before there is one."""
    if network.kind != "link":
        return "net"
    return network.label if network.vlan is not None else network.name.rpartition(" ")[2]


def _beside(
    y: int, box: int, knots: set[int], rails: Mapping[int, Network], rows: Mapping[str, int], marks: Marks
) -> str:
    """What stands to the right of a box's border on one line."""
    last = max(knots, default=0)
    cells: dict[int, str] = {}
    for x in range(box, last):
        cells[x - box] = marks.across
    for x, one in rails.items():
        at = [rows[end.node] for end in one.ends if end.node in rows]
        if at and min(at) <= y <= max(at):
            cells[x - box] = marks.knot if x in knots else marks.crossing if x < last else marks.down
    return _row(cells)


def _row(cells: Mapping[int, str]) -> str:
    return "".join(cells.get(x, " ") for x in range(max(cells, default=-1) + 1))
