"""`./cloud topology`: labs as files. Checked, planned, applied, written, drawn, converted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import documents
from cli.draw import Format, Output
from cli.installation import state_path
from cli.options import As, DryRun, Json, Slice, Yes
from cli.screen import GOOD, Screen
from cli.topology_files import read, source_of, text_of

if TYPE_CHECKING:
    from cli.topology_work import FileWork
    from cloudrepo.topology.reading import Known

SUFFIX = ".cloud.yml"

app = typer.Typer(help="Labs as files: one YAML a lab, see docs/topology.md.", no_args_is_help=True)

File = Annotated[str, typer.Argument(metavar="FILE", help=f"The topology file, such as lab{SUFFIX}; - reads it.")]
Var = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="Another value for a variable of the file.")
]
Of = Annotated[str, typer.Option("--slice", metavar="SLICE", help="Of this slice, and not that of the file's name.")]
Replace = Annotated[
    list[str] | None,
    typer.Option("--replace", metavar="NODE", help="It may be made anew where it cannot be changed; * = all."),
]


@app.command()
def validate(file: File, var: Var = None, as_json: Json = False) -> int:
    """Check a topology file: every mistake with its line, and what may have been meant."""
    found = read(file, var, _known_here())
    ends = sum(len(link.ends) for link in found.links)
    if as_json:
        sizes = {"nodes": len(found.nodes), "links": len(found.links), "ends": ends}
        documents.write({"command": "topology", "file": found.source, "name": found.name, **sizes})
        return 0
    counts = f"{len(found.nodes)} nodes and {len(found.links)} links"
    Screen().line((f"{found.source} is in order: {found.name}, {counts}.", GOOD))
    return 0


@app.command()
def plan(
    context: typer.Context,
    file: File,
    slice: Of = "",
    replace: Replace = None,
    var: Var = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PLAN", help="Keep it there for `topology apply --plan`.")
    ] = "",
    user: As = "",
    as_json: Json = False,
) -> int:
    """Show what `apply` would do; status 2 when there is something."""
    from cli.topology_work import show_plan

    return show_plan(_at_work(context, file, var, slice=slice, user=user, replace=replace, as_json=as_json), output)


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help=f"The topology file, such as lab{SUFFIX}; - reads it.")
    ] = None,
    plan: Annotated[str, typer.Option(metavar="PLAN", help="What `topology plan -o` kept, in place of a file.")] = "",
    slice: Of = "",
    replace: Replace = None,
    deploy: Annotated[bool, typer.Option("--deploy", help="Bring the slice up as well.")] = False,
    var: Var = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    user: As = "",
    as_json: Json = False,
) -> int:
    """Make a slice what a file says: a new one, or one that is there, also while it runs."""
    from cli.topology_work import apply as carry_out, from_plan, show_plan

    if plan:
        if file or slice or replace or var:
            raise typer.BadParameter("a plan says all that itself", param_hint="FILE, --slice, --replace, --var")
        work = from_plan(context, plan, user, as_json=as_json)
    elif not file:
        raise typer.BadParameter("name a topology file, or a plan by --plan", param_hint="FILE")
    else:
        work = _at_work(context, file, var, slice=slice, user=user, replace=replace, as_json=as_json)
    return show_plan(work) if dry_run else carry_out(work, deploy=deploy, yes=yes)


def _at_work(
    context: typer.Context,
    file: str,
    var: list[str] | None,
    *,
    slice: str,
    user: str,
    replace: list[str] | None,
    as_json: bool,
) -> FileWork:
    from cli.topology_files import given
    from cli.topology_work import FileWork

    return FileWork(
        context,
        file,
        text_of(file),
        variables=given(var),
        slice=slice,
        user=user,
        replace=replace or (),
        as_json=as_json,
    )


@app.command()
def export(
    context: typer.Context,
    slice: Slice,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it there; what is there keeps its comments."),
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Say on which worker each machine is.")] = False,
    var: Var = None,
    user: As = "",
    as_json: Json = False,
) -> int:
    """Write a slice as a file of which `apply` makes one like it."""
    from cli.topology_work import NAME, export as write
    from cli.work import SliceWork

    return write(SliceWork(context, NAME, slice, user, as_json=as_json), output, var, pinned=pin)


@app.command()
def draw(file: File, format: Format = "", output: Output = None, var: Var = None, as_json: Json = False) -> int:
    """Draw what a file says: boxes and lines here, or SVG, HTML, Mermaid or Graphviz."""
    from cli.draw import format_of, hand_out
    from cloudrepo.pictures.graph import of_slice
    from cloudrepo.topology.picture import record_of

    kind = format_of(format, output)
    found = read(file, var, None)
    picture = hand_out(
        of_slice(record_of(found)), kind, output, Screen(sys.stderr if as_json else None), as_json=as_json
    )
    if as_json:
        what = {"file": found.source, "name": found.name, "format": kind, "output": str(output) if output else None}
        documents.write({"command": "topology", **what, "picture": None if output else picture})
    return 0


@app.command()
def convert(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .clab.yml, a netlab topology or GraphML; - reads it.")],
    output: Output = None,
    format: Annotated[
        str, typer.Option("--from", metavar="WORD", help="containerlab, netlab or graphml; else as the file looks.")
    ] = "",
    as_json: Json = False,
) -> int:
    """Make a topology file of another tool's, and say what it cannot express."""
    from cloudrepo.topology import writing
    from cloudrepo.topology.convert import reading

    if format and format not in reading.FORMATS:
        raise typer.BadParameter(f"there is {', '.join(reading.FORMATS)}; found {format!r}", param_hint="--from")
    form, found = reading.convert(text_of(file), source_of(file), format)
    text, screen = writing.text_of(found.topology), Screen(sys.stderr)
    if output is not None:
        output.write_text(text, encoding="utf-8")
    elif not as_json:
        sys.stdout.write(text)
    sizes = {"nodes": len(found.topology.nodes), "links": len(found.topology.links)}
    if as_json:
        left = [{"where": one.where, "what": one.what} for one in found.left]
        told = {"file": source_of(file), "format": form, "output": str(output) if output else None}
        documents.write({"command": "topology", **told, **sizes, "text": text, "not_expressed": left})
        return 0
    for one in found.left:
        screen.line(f"Not expressed: {one}.")
    where = f" in {output}" if output else ""
    screen.line((f"{sizes['nodes']} nodes and {sizes['links']} links{where}; {len(found.left)} not expressed.", GOOD))
    return 0


@app.command()
def schema() -> int:
    """Print the JSON schema of topology files, for editors; it is docs/topology.schema.json."""
    from cloudrepo.topology import keys

    sys.stdout.write(json.dumps(keys.schema(), indent=2) + "\n")
    return 0


def _known_here() -> Known | None:
    """The flavors of the installation here, if there is one: a file can be checked without any."""
    from cloudrepo.settings import Settings
    from cloudrepo.topology.reading import Known

    if not state_path().exists():
        return None
    return Known(flavors=tuple(Settings.load(state_path()).flavors))
