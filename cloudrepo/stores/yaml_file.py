"""One reading of a state file: its sections in canonical form, or what is wrong with it and where."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any

import yaml

from cloudrepo import regular_file
from cloudrepo.bounded_yaml import Bounded, problem_of
from cloudrepo.errors import StateFileError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import Key, Record, ShapeError, fingerprints, normalise
from cloudrepo.stores.files import Stamp, sha256, stamp
from cloudrepo.stores.yaml_text import END, Spans, parse, spans_of
from cloudrepo.validation import excerpt

FIRST_REVISION = 1  # of a file that does not say one: 0 means "not there" in the store's contract


@dataclass
class YamlFile:
    """A state file as it was read.

    Attributes:
        stamp: by which it is recognised.
        sha: its SHA-256.
        revision: of the state in it.
        spans: where its sections stand; None = not looked at yet.
        stale: sections that are to be written in another way than they stand there.
        said: the revision that stands in it, which an edit by hand leaves as it was.
    """

    stamp: Stamp | None
    sha: str
    revision: int
    spans: Spans | None = None
    stale: set[Key] = field(default_factory=set)
    said: int = -1

    def __post_init__(self) -> None:
        """What it says is what it holds, where nothing else is known."""
        if self.said < 0:
            self.said = self.revision

    def texts(self, content: bytes, changed: set[Key]) -> dict[Key, bytes]:
        """The text of the sections that have not changed since."""
        if self.spans is None:
            self.spans = spans_of(content)
        without = self.stale | changed
        return {key: content[begin:end] for key, (begin, end) in self.spans.items() if key not in without}


def read(path: Path) -> tuple[bytes, Stamp | None]:
    """The bytes of a state file, and their stamp.

    Raises:
        StateFileError: it cannot be read.
    """
    try:
        found = stamp(path)
        return regular_file.read(path), found
    except OSError as error:
        raise unusable(path, "cannot be read", error.strerror or str(error)) from error


def read_if_there(path: Path) -> tuple[bytes, Stamp | None]:
    """As `read`; no bytes and no stamp when the file is gone."""
    return read(path) if path.exists() else (b"", None)


def understand(path: Path, content: bytes, found: Stamp | None) -> tuple[YamlFile, Record, dict[Key, bytes]]:
    """What the bytes of a state file say: the file, the state, and the fingerprints of its sections.

    Raises:
        StateFileError: it is no YAML, or no state file; with the line and the remedy.
    """
    try:
        raw, spans = parse(content)
    except (yaml.YAMLError, ValueError) as error:
        raise unusable(path, "is damaged", problem_of(error)) from error
    try:
        if isinstance(raw, dict) and "schema_version" in raw and not content.endswith(END):
            raise ShapeError((), f"the file was cut: its last line is not `{END.decode().strip()}`")
        revision = _take_revision(raw)
        before = _loose_prints(raw)
        data = normalise(raw)
        prints = fingerprints(data)
    except (ShapeError, RecursionError) as error:
        where = tuple(part for part in error.path if part != "") if isinstance(error, ShapeError) else ()
        line = _line_of(content.decode(), where)
        place = f"line {line}, {'.'.join(map(str, where))}: " if line else ""
        raise unusable(path, "is not a usable state file", f"{place}{error}") from error
    stale = {key for key, printed in prints.items() if before.get(key) != printed}
    return YamlFile(found, sha256(content), revision, spans, stale), data, prints


def _take_revision(raw: Any) -> int:
    if not isinstance(raw, dict) or "revision" not in raw:
        return FIRST_REVISION
    revision = raw.pop("revision")
    if type(revision) is not int or revision < FIRST_REVISION:
        raise ShapeError(("revision",), f"a whole number from 1 is wanted, found {revision!r}")
    return revision


def _loose_prints(raw: Any) -> dict[Key, bytes]:
    """The fingerprints of a state that may be none."""
    try:
        return fingerprints(raw) if isinstance(raw, dict) else {}
    except (ShapeError, RecursionError):
        return {}


def unusable(path: Path, brief: str, evidence: str, remedy: str = "") -> StateFileError:
    """What a person is told of a file that cannot be used, with the way back."""
    backup = path.with_name(path.name + ".backup")
    if not remedy and backup.exists():
        remedy = f"Mend it by hand, or put the last good copy back: cp {backup} {path}"
    return StateFileError(f"{path} {brief}", evidence=excerpt(evidence), remedy=remedy or "Mend it by hand")


def _line_of(text: str, path: tuple[Any, ...]) -> int | None:
    """The line of the value at `path`, as far as the path can be followed; None at the top."""
    node = Bounded().compose(text)
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
            if not pairs:
                break
            line, node = pairs[-1][0].start_mark.line + 1, pairs[-1][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
