"""A picture as SVG: nodes filled by their state, edged by their worker. Every text is escaped."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from cloudrepo.pictures import layout
from cloudrepo.pictures.graph import Graph, Network, Node
from cloudrepo.pictures.layout import Place

WIDTH, HEIGHT = 148, 56
ROOM = (WIDTH + 92.0, HEIGHT + 64.0)
MARGIN = 28.0
LEGEND = 30.0  # pixels for a row of the legend
TITLE = 44.0
LONGEST = 18  # characters of a name in its box; all of it is in what hovering shows

STATES = {
    "running": "#2e9e5b",
    "design": "#8a94a6",
    "stopped": "#5b6472",
    "error": "#d1373f",
    "": "#8a94a6",
}
UNDER_WAY = "#d18b16"
#: Told apart also by those who see few colours (Okabe and Ito).
WORKERS = ("#0072b2", "#e69f00", "#cc79a7", "#56b4e9", "#009e73", "#d55e00", "#f0e442", "#000000")

STYLE = """
.cloud{font:13px system-ui,"DejaVu Sans",sans-serif;--paper:#fff;--ink:#1c2330;--faint:#5b6472;--line:#8a94a6}
@media (prefers-color-scheme:dark){.cloud{--paper:#161a21;--ink:#e8ebf0;--faint:#a3adbb;--line:#6b7686}}
.cloud .paper{fill:var(--paper)}
.cloud text{fill:var(--ink)}
.cloud .title{font-size:17px;font-weight:600}
.cloud .faint{fill:var(--faint);font-size:11px}
.cloud .wire{stroke:var(--line);stroke-width:2;fill:none}
.cloud .internet .wire{stroke-dasharray:5 4}
.cloud .box{fill:var(--paper);stroke-width:3}
.cloud .tint{fill-opacity:.16}
.cloud .hub{fill:var(--paper);stroke:var(--line);stroke-width:2}
.cloud .label{font-size:11px;text-anchor:middle;paint-order:stroke;stroke:var(--paper);stroke-width:4px}
.cloud .nic{font-size:10px;fill:var(--faint);text-anchor:middle;paint-order:stroke;stroke:var(--paper);stroke-width:3px}
.cloud .network:hover .wire{stroke-width:4}
"""


def draw(graph: Graph) -> str:
    """The picture as a file: text of an SVG document."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{element(graph)}\n'


def element(graph: Graph) -> str:
    """The picture as an `<svg>` element, for a page."""
    places = positions(graph)
    rows = [*_states(graph), *_workers(graph)]
    right = max((x for x, _y in places.values()), default=0) + WIDTH / 2 + MARGIN
    bottom = max((y for _x, y in places.values()), default=TITLE) + HEIGHT / 2 + MARGIN
    width, height = max(right, 420.0), bottom + LEGEND * (-(-len(rows) // 3))
    parts = [
        f'<svg class="cloud" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{attribute(graph.title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width:g}" height="{height:g}"/>',
        f'<text class="title" x="{MARGIN:g}" y="{MARGIN:g}">{text(heading(graph))}</text>',
        *(_network(graph, one, places) for one in graph.networks),
        *(_node(graph, node, number, places[node.key]) for number, node in enumerate(graph.nodes)),
        *_legend(rows, bottom),
        "</svg>",
    ]
    return "\n".join(parts)


def heading(graph: Graph) -> str:
    """The title with the state."""
    return f"{graph.title} · {graph.state}" if graph.state else graph.title


def text(value: object) -> str:
    """A text within an element."""
    return escape(str(value), quote=False)


def attribute(value: object) -> str:
    """A text within double quotes."""
    return escape(str(value), quote=True)


def worker_colour(graph: Graph, worker: str) -> str:
    """The colour of a host; that of a line where there is none."""
    return WORKERS[graph.workers.index(worker) % len(WORKERS)] if worker in graph.workers else "#8a94a6"


def state_colour(state: str) -> str:
    """The colour of a state; all that are under way have one."""
    return STATES.get(state, UNDER_WAY)


def about_node(node: Node) -> list[str]:
    """What hovering over a node says, line by line: its facts, and each NIC with its addresses."""
    facts = [("State", node.state), ("Worker", node.worker), *node.facts]
    lines = [node.name, ", ".join(f"{label} {value}" for label, value in facts if value)]
    for nic in node.nics:
        lines.append("  ".join(word for word in (nic.name, nic.address or "no address", nic.mac) if word))
    return [line for line in (*lines, node.trouble) if line]


def about_network(graph: Graph, network: Network) -> list[str]:
    """What hovering over a line says, line by line."""
    nodes = {node.key: node for node in graph.nodes}
    lines = [network.name + (f", VLAN {network.vlan}" if network.vlan is not None else "")]
    lines += [f"{label} {value}" for label, value in network.facts]
    for end in network.ends:
        node = nodes.get(end.node)
        address = next((nic.address for nic in node.nics if nic.name == end.nic), "") if node else ""
        lines.append("  ".join(word for word in (f"{node.name if node else end.node} {end.nic}", address) if word))
    return lines


def is_line(network: Network) -> bool:
    """Whether a network is one line between two nodes, and no point of its own."""
    return network.is_wire and network.ends[0].node != network.ends[1].node


def positions(graph: Graph) -> dict[str, Place]:
    """The middle of each node's box, and of each network that is a point of its own, as `net:KEY`."""
    hubs = [one for one in graph.networks if not is_line(one)]
    points = [*(node.key for node in graph.nodes), *(f"net:{one.key}" for one in hubs)]
    known = {node.key for node in graph.nodes}
    pairs = [(one.ends[0].node, one.ends[1].node) for one in graph.networks if is_line(one)]
    pairs += [(f"net:{one.key}", end.node) for one in hubs for end in one.ends]
    found = layout.spread(points, [pair for pair in pairs if known & set(pair)], ROOM)
    return {key: (x + MARGIN + WIDTH / 2, y + TITLE + MARGIN + HEIGHT / 2) for key, (x, y) in found.items()}


def _node(graph: Graph, node: Node, number: int, at: Place) -> str:
    x, y = at[0] - WIDTH / 2, at[1] - HEIGHT / 2
    name = node.name if len(node.name) <= LONGEST else f"{node.name[: LONGEST - 1]}…"
    return "\n".join(
        (
            f'<g class="node" id="node{number}" data-state="{attribute(node.state)}" '
            f'data-worker="{attribute(node.worker)}">',
            f"<title>{text(chr(10).join(about_node(node)))}</title>",
            f'<rect class="box" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
            f'stroke="{worker_colour(graph, node.worker)}"/>',
            f'<rect class="tint" x="{x + 2:g}" y="{y + 2:g}" width="{WIDTH - 4}" height="{HEIGHT - 4}" rx="4" '
            f'fill="{state_colour(node.state)}"/>',
            f'<circle cx="{x + 16:g}" cy="{y + 20:g}" r="6" fill="{state_colour(node.state)}"/>',
            f'<text x="{x + 28:g}" y="{y + 25:g}">{text(name)}</text>',
            f'<text class="faint" x="{x + 28:g}" y="{y + 43:g}">{text(node.worker or node.state)}</text>',
            "</g>",
        )
    )


def _network(graph: Graph, network: Network, places: dict[str, Place]) -> str:
    number = graph.networks.index(network)
    title = f"<title>{text(chr(10).join(about_network(graph, network)))}</title>"
    parts = [f'<g class="network {network.kind}" id="network{number}">', title]
    if is_line(network):
        start, end = (places[one.node] for one in network.ends)
        shift = _beside(graph, network)
        parts += [_line(start, end, shift), _label(_middle(start, end, shift), network.label)]
        for one, here, there in ((network.ends[0], start, end), (network.ends[1], end, start)):
            parts.append(_nic(one.nic, here, there, shift))
    else:
        at = places[f"net:{network.key}"]
        parts += [_line(places[one.node], at, (0, 0)) for one in network.ends if one.node in places]
        parts += [_nic(one.nic, places[one.node], at, (0, 0)) for one in network.ends if one.node in places]
        parts.append(f'<ellipse class="hub" cx="{at[0]:g}" cy="{at[1]:g}" rx="52" ry="22"/>')
        parts.append(_label((at[0], at[1] + 4), network.name))
    return "\n".join([*parts, "</g>"])


def _beside(graph: Graph, network: Network) -> Place:
    """How far a line stands aside, where several join the same two nodes."""
    same = {end.node for end in network.ends}
    those = [one for one in graph.networks if is_line(one) and {end.node for end in one.ends} == same]
    offset = (those.index(network) - (len(those) - 1) / 2) * 14
    return (offset * 0.6, offset)


def _line(start: Place, end: Place, shift: Place) -> str:
    (x, y), (u, v) = start, end
    a, b = shift
    return f'<line class="wire" x1="{x + a:g}" y1="{y + b:g}" x2="{u + a:g}" y2="{v + b:g}"/>'


def _middle(start: Place, end: Place, shift: Place) -> Place:
    return ((start[0] + end[0]) / 2 + shift[0], (start[1] + end[1]) / 2 + shift[1] + 4)


def _label(at: Place, words: str) -> str:
    return f'<text class="label" x="{at[0]:.4g}" y="{at[1]:.4g}">{text(words)}</text>'


def _nic(name: str, here: Place, there: Place, shift: Place) -> str:
    """The NIC's name where its line leaves the box."""
    across, down = there[0] - here[0], there[1] - here[1]
    reach = min(
        (WIDTH / 2 + 16) / abs(across) if across else float("inf"),
        (HEIGHT / 2 + 9) / abs(down) if down else float("inf"),
        0.5,
    )
    x, y = here[0] + across * reach + shift[0], here[1] + down * reach + shift[1] + 3
    return f'<text class="nic" x="{x:.4g}" y="{y:.4g}">{text(name)}</text>'


def _states(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for state in dict.fromkeys(node.state for node in graph.nodes):
        yield "dot", state_colour(state), state or "not made"


def _workers(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for worker in graph.workers:
        yield "edge", worker_colour(graph, worker), worker


def _legend(rows: list[tuple[str, str, str]], top: float) -> Iterator[str]:
    for place, (kind, colour, words) in enumerate(rows):
        x, y = MARGIN + 132 * (place % 3), top + LEGEND * (place // 3)
        if kind == "dot":
            yield f'<circle cx="{x + 6:g}" cy="{y:g}" r="6" fill="{colour}"/>'
        else:
            yield f'<rect class="box" x="{x:g}" y="{y - 6:g}" width="12" height="12" rx="2" stroke="{colour}"/>'
        yield f'<text class="faint" x="{x + 20:g}" y="{y + 4:g}">{text(words)}</text>'
