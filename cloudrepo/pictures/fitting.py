"""A picture in few lines, for where something is asked under it: as much of it as stays on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from cloudrepo.pictures import boxes, rails, terminal
from cloudrepo.pictures.graph import Graph, Network, shown_ends
from cloudrepo.pictures.marks import Marks, columns_of, fit, marks_for

MOST_ENDS = 4  # of one network in a line; of more the first two and the last
GAP = 3  # columns between two columns of links
LEAST = 3  # lines; in fewer nothing can be said


def draw(graph: Graph, width: int, height: int, *, unicode: bool = True) -> list[str]:
    """The lines of the first of these that fits: boxes, boxes of one line, a line for each VM, a list of links.

    Args:
        graph: what is drawn.
        width: columns there are.
        height: lines there are. A list that needs more ends with how many links it leaves out.
        unicode: whether the terminal knows more than ASCII.
    """
    if not graph.nodes:
        return []
    marks, height = marks_for(unicode=unicode), max(height, LEAST)
    for lines in _drawings(graph, width, marks):
        if lines and len(lines) <= height:
            return lines
    return _listed(graph, width, height, marks)


def _drawings(graph: Graph, width: int, marks: Marks) -> Iterator[list[str] | None]:
    """From the largest to the smallest; None for one that nobody could follow."""
    if len(graph.nodes) > terminal.MOST_NODES:
        return
    yield terminal.drawn(graph, width, marks)
    text = terminal.names(graph, marks)
    explained = [f"{marks.uplink} reaches the internet"] if graph.online else []
    low = boxes.draw(boxes.sketch(graph, marks, text, is_low=True), width, marks)
    yield low and [*low, *explained]
    low = rails.low(graph, width, marks, text)
    yield low and [*low, *explained]


def _listed(graph: Graph, width: int, height: int, marks: Marks) -> list[str]:
    """The links in as many columns as fit side by side."""
    entries = [_entry(graph, one, width, marks) for one in graph.networks]
    if not entries:
        return [fit(", ".join(terminal.names(graph, marks).values()), width, marks).rstrip()]
    wide = max(map(columns_of, entries)) + GAP
    columns = max(1, (width + GAP) // wide)
    rows = -(-len(entries) // columns)
    if rows > height:
        kept = (height - 1) * columns
        return [*_columns(entries[:kept], height - 1, wide, marks), f"and {len(entries) - kept} more"]
    return _columns(entries, rows, wide, marks)


def _columns(entries: list[str], rows: int, wide: int, marks: Marks) -> list[str]:
    return ["".join(fit(entry, wide, marks) for entry in entries[row::rows]).rstrip() for row in range(rows)]


def _entry(graph: Graph, network: Network, width: int, marks: Marks) -> str:
    """A network and its ends: all that there are, or the first and the last."""
    if network.kind == "internet":
        names = terminal.names(graph, marks)
        ends = [names[end.node] for end in network.ends]
        dash = ", "
    else:
        ends, dash = list(shown_ends(graph, network)), f" {marks.across * 2} "
    if len(ends) > MOST_ENDS:
        ends = [*ends[:2], marks.more, ends[-1] + f" ({len(ends)} machines)"]
    return fit(f"{network.name}  {dash.join(ends)}", width, marks).rstrip()
