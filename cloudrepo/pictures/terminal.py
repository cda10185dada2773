"""A picture for a terminal: boxes and lines as long as one can follow them, a table beyond."""

from __future__ import annotations

from collections.abc import Container

from cloudrepo.pictures import boxes, rails
from cloudrepo.pictures.graph import Graph, Network, Nic, shown_ends
from cloudrepo.pictures.marks import UNICODE, Marks, columns_of, fit, marks_for

MOST_NODES = 12


def draw(graph: Graph, width: int = 80, *, unicode: bool = True, legend: bool = True) -> list[str]:
    """The lines of a picture; none for a graph without nodes.

    Args:
        graph: what is drawn.
        width: columns there are. A table may be wider, since nothing in it is left out.
        unicode: whether the terminal knows more than ASCII.
        legend: say under the drawing what marks mean and what each line is.
    """
    marks = marks_for(unicode=unicode)
    if not graph.nodes:
        return []
    drawing = drawn(graph, width, marks) if len(graph.nodes) <= MOST_NODES else None
    if drawing is None:
        return table(graph, marks)
    return [*drawing, "", *_legend(graph, marks, width)] if legend else drawing


def drawn(graph: Graph, width: int, marks: Marks) -> list[str] | None:
    """The drawing alone; None where one could not follow it in this width."""
    text = names(graph, marks)
    return boxes.draw(boxes.sketch(graph, marks, text), width, marks) or rails.draw(graph, width, marks, text)


def names(graph: Graph, marks: Marks) -> dict[str, str]:
    """The names of VMs as this terminal can show them, under the keys of nodes."""
    return {node.key: _known(node.name, marks) for node in graph.nodes}


def table(graph: Graph, marks: Marks) -> list[str]:
    """A row for each NIC: where it is and what it is joined to."""
    networks = {one.key: one for one in graph.networks}
    rows = [("VM", "State", "Worker", "NIC", "Address", "VLAN", "Joined to")]
    for node in graph.nodes:
        first = (f"{marks.state(node.state)} {node.name}", node.state, node.worker)
        for place, nic in enumerate(node.nics or (Nic(name=""),)):
            network = networks.get(nic.network)
            vlan = "" if network is None or network.vlan is None else str(network.vlan)
            joined = _joined(graph, network, f"{node.name} {nic.name}")
            rows.append((*(first if place == 0 else ("", "", "")), nic.name, nic.address, vlan, joined))
    return _columns([tuple(_known(cell, marks) for cell in row) for row in rows], marks)


def _joined(graph: Graph, network: Network | None, own: str) -> str:
    if network is None:
        return ""
    if network.kind == "internet":
        return "internet"
    ends = list(shown_ends(graph, network))
    if own in ends:
        ends.remove(own)
    return ", ".join(ends)


def _legend(graph: Graph, marks: Marks, width: int) -> list[str]:
    """What the marks mean, then each link with its ends; without gateways where they do not fit."""
    lines = _links(graph, marks, left_out=())
    if max(map(columns_of, lines), default=0) > width:
        lines = _links(graph, marks, left_out=("Gateway",))
    return [marks.explained(graph), *lines]


def _links(graph: Graph, marks: Marks, *, left_out: Container[str]) -> list[str]:
    """A line for each link, with what is known of it but for some facts."""
    rows = []
    dash = marks.across * 2
    for one in boxes.networks_of(graph):
        vlan = f"VLAN {one.vlan}" if one.vlan is not None else ""
        facts = "; ".join(
            value if label == "Unlike others" else f"{label} {value}"
            for label, value in one.facts
            if label not in left_out
        )
        rows.append((one.name, f" {dash} ".join(shown_ends(graph, one)), vlan, facts))
    return _columns([tuple(_known(cell, marks) for cell in row) for row in rows], marks)


def _columns(rows: list[tuple[str, ...]], marks: Marks) -> list[str]:
    if not rows:
        return []
    widths = [max(columns_of(row[place]) for row in rows) for place in range(len(rows[0]))]
    kept = [place for place, width in enumerate(widths) if width]
    return ["  ".join(fit(row[place], widths[place], marks) for place in kept).rstrip() for row in rows]


def _known(text: str, marks: Marks) -> str:
    """A text in characters that the terminal knows."""
    return text if marks is UNICODE else text.encode("ascii", "backslashreplace").decode()
