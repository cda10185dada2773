"""A picture as one HTML file that opens offline: hovering over a node or line shows its addresses. No script in it."""

from __future__ import annotations

from collections.abc import Iterator

from cloudrepo.pictures import svg
from cloudrepo.pictures.graph import Graph
from cloudrepo.pictures.svg import text

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2330;--line:#c3cad5;--tip:#f4f6f9}
@media (prefers-color-scheme:dark){:root{--paper:#161a21;--ink:#e8ebf0;--line:#3a4350;--tip:#222833}}
body{margin:0;padding:16px;background:var(--paper);color:var(--ink);font:14px system-ui,"DejaVu Sans",sans-serif}
svg{max-width:100%;height:auto}
.tips{position:sticky;bottom:0;min-height:9em;pointer-events:none}
.tip{display:none;background:var(--tip);border:1px solid var(--line);border-radius:6px;padding:10px 14px;
white-space:pre-wrap;font:13px ui-monospace,"DejaVu Sans Mono",monospace}
.tip.first{display:block}
table{border-collapse:collapse;margin-top:8px}
th,td{text-align:left;padding:3px 14px 3px 0;border-bottom:1px solid var(--line)}
td{font-variant-numeric:tabular-nums}
"""
# Nothing is loaded and nothing runs, whatever a name holds: escaping is the first wall, this is the second.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
HINT = "Point at a machine or a line: its addresses are shown here."


def draw(graph: Graph) -> str:
    """The text of an HTML document."""
    tips = list(_tips(graph))
    shows = "".join(f"body:has(#{key}:hover) #tip-{key}{{display:block}}" for key, _lines in tips)
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(graph.title)}</title>",
            f"<style>{STYLE}body:has(.node:hover,.network:hover) .first{{display:none}}{shows}</style>",
            "</head><body>",
            svg.element(graph),
            f'<div class="tips"><div class="tip first">{HINT}</div>',
            *(f'<div class="tip" id="tip-{key}">{text(chr(10).join(lines))}</div>' for key, lines in tips),
            "</div>",
            *_table(graph),
            "</body></html>",
            "",
        )
    )


def _tips(graph: Graph) -> Iterator[tuple[str, list[str]]]:
    for number, node in enumerate(graph.nodes):
        yield f"node{number}", svg.about_node(node)
    for number, network in enumerate(graph.networks):
        yield f"network{number}", svg.about_network(graph, network)


def _table(graph: Graph) -> Iterator[str]:
    """All addresses once more, for whoever prints the page or cannot point at anything."""
    names = {one.key: one.name for one in graph.networks}
    yield "<table><thead><tr>"
    yield "".join(f"<th>{word}</th>" for word in ("Machine", "State", "Worker", "NIC", "MAC", "Address", "Network"))
    yield "</tr></thead><tbody>"
    for node in graph.nodes:
        for nic in node.nics:
            cells = (node.name, node.state, node.worker, nic.name, nic.mac, nic.address, names.get(nic.network, ""))
            yield "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table>"
