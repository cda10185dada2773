"""Reading a topology file that a command names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli import documents

if TYPE_CHECKING:
    from cloudrepo.topology.model import Topology
    from cloudrepo.topology.reading import Known

MOST_BYTES = 1 << 20  # of a topology file


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
