"""A picture in Graphviz's language."""

from __future__ import annotations

from cloudrepo.pictures import svg
from cloudrepo.pictures.graph import Graph


def draw(graph: Graph) -> str:
    """The text of a graph for `dot`, `neato` and their like."""
    ids = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = [
        f"graph {quoted(graph.title)} {{",
        '  graph [layout="neato", overlap="false", splines="true", label=' + quoted(svg.heading(graph)) + "];",
        '  node [shape="box", style="rounded,filled", fillcolor="white", fontname="sans-serif"];',
        '  edge [fontname="sans-serif", fontsize="10"];',
    ]
    for node in graph.nodes:
        label = "\\n".join(_escaped(word) for word in (node.name, node.worker, node.state) if word)
        tip = "\\n".join(map(_escaped, svg.about_node(node)))
        lines.append(
            f'  {ids[node.key]} [label="{label}", tooltip="{tip}", color="{svg.worker_colour(graph, node.worker)}", '
            f'fontcolor="{svg.state_colour(node.state)}", penwidth="2"];'
        )
    for number, one in enumerate(graph.networks):
        if svg.is_line(one):
            first, second = one.ends
            ends = f"taillabel={quoted(first.nic)}, headlabel={quoted(second.nic)}"
            lines.append(f"  {ids[first.node]} -- {ids[second.node]} [label={quoted(one.label)}, {ends}];")
            continue
        lines.append(f'  w{number} [label={quoted(one.name)}, shape="ellipse"];')
        lines += [
            f"  {ids[end.node]} -- w{number} [taillabel={quoted(end.nic)}];" for end in one.ends if end.node in ids
        ]
    return "\n".join([*lines, "}", ""])


def quoted(value: str) -> str:
    r"""A text as Graphviz reads it back: in quotes, without its own escapes such as `\N`."""
    return f'"{_escaped(value)}"'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
