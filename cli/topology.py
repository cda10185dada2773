"""`./cloud topology`: labs as files. Checked, planned, applied, written, drawn, converted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import documents
from cli.installation import state_path
from cli.options import Json
from cli.screen import GOOD, Screen

if TYPE_CHECKING:
    from cloudrepo.topology.model import Topology
    from cloudrepo.topology.reading import Known

MOST_BYTES = 1 << 20  # of a topology file
SUFFIX = ".cloud.yml"

app = typer.Typer(help="Labs as files: one YAML a lab, see docs/topology.md.", no_args_is_help=True)

File = Annotated[str, typer.Argument(metavar="FILE", help=f"The topology file, such as lab{SUFFIX}; - reads it.")]
Var = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="Another value for a variable of the file.")
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
def schema() -> int:
    """Print the JSON schema of topology files, for editors; it is docs/topology.schema.json."""
    from cloudrepo.topology import keys

    sys.stdout.write(json.dumps(keys.schema(), indent=2) + "\n")
    return 0


def read(file: str, var: list[str] | None, known: Known | None) -> Topology:
    """What a topology file says.

    Raises:
        CloudError: all of its mistakes.
        OSError: it cannot be read.
    """
    from cloudrepo.topology import reading

    values = given(var)
    return reading.read(text_of(file), source_of(file), known=known, given=values)


def source_of(file: str) -> str:
    """How a file is named in messages."""
    return "standard input" if file == "-" else file


def text_of(file: str) -> str:
    """The text of a file, or of the standard input.

    Raises:
        OSError: it cannot be read.
        NotDone: it is no text.
    """
    from cloudrepo import regular_file

    content = sys.stdin.buffer.read(MOST_BYTES) if file == "-" else regular_file.read(Path(file), MOST_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise documents.NotDone(f"{source_of(file)}:{line}: this is not UTF-8 text.", code="topology.file") from error


def given(var: list[str] | None) -> dict[str, Any]:
    """The variables of the command line; a value is read as YAML reads it."""
    import yaml

    from cloudrepo import bounded_yaml

    found: dict[str, Any] = {}
    for word in var or ():
        name, equals, value = word.partition("=")
        if not equals:
            raise typer.BadParameter(f"{word} is not NAME=VALUE", param_hint="--var")
        try:
            made = bounded_yaml.load(value)
        except yaml.YAMLError:
            made = value
        found[name] = made if isinstance(made, str | int | float | bool) else value
    return found


def _known_here() -> Known | None:
    """The flavors of the installation here, if there is one: a file can be checked without any."""
    from cloudrepo.settings import Settings
    from cloudrepo.topology.reading import Known

    if not state_path().exists():
        return None
    return Known(flavors=tuple(Settings.load(state_path()).flavors))
