"""A picture as a Mermaid flowchart, which GitHub, GitLab and many editors draw."""

from __future__ import annotations

from cloudrepo.pictures import svg
from cloudrepo.pictures.graph import Graph

_PLAIN = " ._:/-"


def draw(graph: Graph) -> str:
    """The text of a flowchart."""
    ids = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart LR", f"  %% {escaped(svg.heading(graph))}"]
    for node in graph.nodes:
        below = "".join(f"<br/>{escaped(word)}" for word in (node.worker, node.state) if word)
        lines.append(f'  {ids[node.key]}["{escaped(node.name)}{below}"]')
    for number, one in enumerate(graph.networks):
        if svg.is_line(one):
            ends = (ids[one.ends[0].node], ids[one.ends[1].node])
            words = escaped(f"{one.ends[0].nic} - {one.label} - {one.ends[1].nic}")
            lines.append(f'  {ends[0]} ---|"{words}"| {ends[1]}')
            continue
        lines.append(f'  w{number}(("{escaped(one.name)}"))')
        lines += [f'  {ids[end.node]} ---|"{escaped(end.nic)}"| w{number}' for end in one.ends if end.node in ids]
    for number, state in enumerate(dict.fromkeys(node.state for node in graph.nodes)):
        members = ",".join(ids[node.key] for node in graph.nodes if node.state == state)
        lines.append(f"  classDef state{number} stroke:{svg.state_colour(state)},stroke-width:3px")
        lines.append(f"  class {members} state{number}")
    return "\n".join([*lines, ""])


def escaped(value: str) -> str:
    """A text within quotes: all but letters, digits and a few signs as numbers, so that it means nothing to Mermaid."""
    return "".join(char if char.isalnum() or char in _PLAIN else f"#{ord(char)};" for char in value)
