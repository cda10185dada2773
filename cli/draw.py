"""`./cloud draw`: a slice as a picture, on the terminal or as a file for a browser, a page or another program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import documents
from cli.documents import NotDone
from cli.installation import Installation
from cli.options import As, Json, Slice
from cli.screen import GOOD, Screen

if TYPE_CHECKING:
    from cloudrepo.pictures.graph import Graph

FORMATS = ("terminal", "svg", "html", "mermaid", "dot")
BY_SUFFIX = {".svg": "svg", ".html": "html", ".htm": "html", ".mmd": "mermaid", ".dot": "dot", ".gv": "dot"}
WIDTH = 80  # of what no terminal shows

Format = Annotated[
    str, typer.Option("--format", metavar="WORD", help=f"One of {', '.join(FORMATS)}; else what FILE's name ends in.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there instead of the standard output.")
]

app = typer.Typer()


@app.command()
def draw(
    context: typer.Context,
    slice: Slice,
    format: Format = "",
    output: Output = None,
    user: As = "",
    as_json: Json = False,
) -> int:
    """Draw a slice: boxes and lines here, or SVG, HTML, Mermaid or Graphviz."""
    from cloudrepo.pictures.graph import of_slice

    kind = format_of(format, output)
    installation, screen = Installation.open(context.find_root().obj), Screen(sys.stderr if as_json else None)
    record = installation.one_slice(slice)
    done, answer = installation.api.get_slice(user or str(record["owner"]), int(record["slice_id"]))
    if not done:
        raise NotDone(answer)
    picture = hand_out(of_slice(answer), kind, output, screen, as_json=as_json)
    if as_json:
        what = {"slice_id": record["slice_id"], "format": kind, "file": str(output) if output else None}
        documents.write({"command": "draw", **what, "picture": None if output else picture})
    return 0


def format_of(word: str, output: Path | None) -> str:
    """The format that is meant.

    Raises:
        typer.BadParameter: there is none of this name.
    """
    kind = word or (BY_SUFFIX.get(output.suffix.lower(), FORMATS[0]) if output else FORMATS[0])
    if kind not in FORMATS:
        raise typer.BadParameter(f"there is {', '.join(FORMATS)}; found {kind!r}", param_hint="--format")
    return kind


def hand_out(graph: Graph, kind: str, output: Path | None, screen: Screen, *, as_json: bool = False) -> str:
    """Make a picture, and write it where it is wanted: to a file, else to the standard output unless a document is.

    Raises:
        OSError: the file cannot be written.
    """
    is_for_screen = output is None and not as_json
    if kind == "terminal" and is_for_screen:
        show(graph, screen)
        return ""
    picture = rendered(graph, kind)
    if output is not None:
        output.write_text(picture, encoding="utf-8")
        screen.line((f"{graph.title} was drawn as {kind} in {output}.", GOOD))
    elif is_for_screen:
        sys.stdout.write(picture)
    return picture


def show(graph: Graph, screen: Screen) -> None:
    """Draw on a screen, as wide as it is."""
    from cloudrepo.pictures import svg, terminal

    screen.line(svg.heading(graph))
    screen.line()
    lines = terminal.draw(graph, screen.console.width, unicode=screen.unicode)
    for line in lines or ["There is no VM in it yet."]:
        screen.line(line)


def rendered(graph: Graph, kind: str) -> str:
    """The picture as text of a file."""
    from cloudrepo.pictures import dot, html, mermaid, svg, terminal

    if kind == "terminal":
        return "\n".join([svg.heading(graph), "", *terminal.draw(graph, WIDTH), ""])
    drawers: dict[str, Callable[[Graph], str]] = {
        "svg": svg.draw,
        "html": html.draw,
        "mermaid": mermaid.draw,
        "dot": dot.draw,
    }
    return drawers[kind](graph)
