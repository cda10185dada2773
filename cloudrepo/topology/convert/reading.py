"""Which format a file of another tool has, and its conversion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from cloudrepo import bounded_yaml
from cloudrepo.topology.convert import containerlab, graphml, netlab
from cloudrepo.topology.convert.parts import Converted, not_read

FORMATS = ("containerlab", "netlab", "graphml")


def format_of(source: str, text: str) -> str:
    """The format of a file: by its name, else by what is in it.

    Raises:
        RefusedError: it is none of them.
    """
    if source.endswith((".graphml", ".xml")) or text.lstrip().startswith("<"):
        return "graphml"
    if source.endswith((".clab.yml", ".clab.yaml")):
        return "containerlab"
    document = _document(text, source)
    if isinstance(document, Mapping) and isinstance(document.get("topology"), Mapping):
        return "containerlab"
    if isinstance(document, Mapping) and "nodes" in document:
        return "netlab"
    raise not_read(source, f"it is none of {', '.join(FORMATS)}")


def convert(text: str, source: str, form: str = "") -> tuple[str, Converted]:
    """The format of a file, and the topology that it becomes.

    Raises:
        RefusedError: it cannot be read.
    """
    form = form or format_of(source, text)
    if form == "graphml":
        return form, graphml.convert(text, source)
    return form, (containerlab if form == "containerlab" else netlab).convert(_document(text, source), source)


def _document(text: str, source: str) -> Any:
    try:
        return bounded_yaml.load(text)
    except yaml.YAMLError as error:
        raise not_read(source, bounded_yaml.problem_of(error)) from error
