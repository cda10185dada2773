"""A state file and its journal as they are, damaged or not. Nothing is opened for work, nothing is changed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from cloudrepo.errors import StateFileError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import Key, Record, ShapeError, fingerprints, state_of
from cloudrepo.stores import journal as journals, opening, yaml_file
from cloudrepo.stores.generations import Generation, Generations
from cloudrepo.stores.journal import Journal, JournalDamage
from cloudrepo.stores.tail import Tail
from cloudrepo.stores.yaml_file import YamlFile
from cloudrepo.stores.yaml_text import Renderer

Relation = Literal["none", "continues", "edited", "older", "foreign", "other", "unknown"]
_REVISION = re.compile(rb"^revision: \d+$", re.MULTILINE)


@dataclass
class Inspection:
    """What was found.

    Attributes:
        path: the state file.
        content: its bytes; None when it is not there.
        yaml: it, when it is good.
        prints: its sections, when it is good.
        journal: what could be read of the journal, up to its first damage.
        relation: how the journal stands to the file; `unknown` when one of them is damaged at its beginning.
        problems: what is wrong, as sentences.
        since: what the journal holds after this revision is not in the file.
    """

    path: Path
    content: bytes | None
    yaml: YamlFile | None
    prints: dict[Key, bytes]
    journal: Journal | None
    relation: Relation
    problems: list[StateFileError]
    since: int = -1

    @property
    def revision(self) -> int:
        """The highest revision that is known of."""
        return max(self.yaml.revision if self.yaml else 0, self.journal.last if self.journal else 0)

    def whole(self, *, lay_over: bool = False) -> Record:
        """The state: the file and what the journal holds beyond it.

        Args:
            lay_over: also when the journal does not continue the file.

        Raises:
            StateFileError: there is none.
        """
        if self.yaml is None:
            raise self.problems[0]
        prints = dict(self.prints)
        if self.journal is not None and self.relation != "none":
            if self.relation != "continues" and not lay_over:
                raise opening.refusal(self.path, "other" if self.relation == "edited" else self.relation, self.journal)
            for key, printed in self.journal.since(self.since).items():
                if printed is None:
                    prints.pop(key, None)
                else:
                    prints[key] = printed
        try:
            return state_of(prints)
        except ShapeError as error:
            raise yaml_file.unusable(self.path, "and its journal make no state together", str(error)) from error


def inspect(path: Path) -> Inspection:
    """Look at a state file and its journal."""
    problems: list[StateFileError] = []
    content: bytes | None = None
    file: YamlFile | None = None
    prints: dict[Key, bytes] = {}
    try:
        content, stamp = yaml_file.read(path)
        file, _data, prints = yaml_file.understand(path, content, stamp)
    except StateFileError as error:
        problems.append(error)
    journal = _journal(path, problems)
    relation, since = _relation(path, file, prints, journal)
    if journal is not None and relation in ("older", "foreign", "other"):
        problems.append(opening.refusal(path, relation, journal))
    return Inspection(path, content, file, prints, journal, relation, problems, since)


def continued(found: Inspection, generations: Generations) -> tuple[Inspection, Generation] | None:
    """A copy of the very file that a journal continues, in the place of the one that was put back; the newest such.

    Copy and journal together are all that was acknowledged. None when no such copy is kept, or it is damaged.
    """
    if found.journal is None or found.relation not in ("older", "other"):
        return None
    for generation in reversed(generations.list()):
        since = opening.start_revision(generation.sha, found.journal)
        if since is None:
            continue
        try:
            content, _stamp = yaml_file.read(generation.path)
            file, _data, prints = yaml_file.understand(generation.path, content, None)
        except StateFileError:
            continue
        if file.sha == generation.sha:
            base = replace(found, content=content, yaml=file, prints=prints, relation="continues", since=since)
            return base, generation
    return None


def _journal(path: Path, problems: list[StateFileError]) -> Journal | None:
    journal_path = path.with_name(path.name + ".journal")
    try:
        tail = Tail.open(journal_path)
        return None if tail is None else tail.read_whole()
    except JournalDamage as damage:
        problems.append(opening.damaged(journal_path, damage))
        return damage.good
    except StateFileError as error:
        problems.append(error)
        return None


def _relation(
    path: Path, file: YamlFile | None, prints: dict[Key, bytes], journal: Journal | None
) -> tuple[Relation, int]:
    """How the journal stands to the file, and up to which of its revisions the file has it."""
    if journal is None:
        return "none", -1
    if file is None or journal.header is journals.NO_HEADER:
        return "unknown", -1
    start = opening.start_revision(file.sha, journal)
    if start is not None:
        return "continues", start
    data = state_of(prints)
    hashes = Generations(path).hashes()
    found = opening.mismatch(file.sha, file.said, str(data.get("installation", "")), journal, hashes)
    return found.kind, found.since


def rendered(data: Record, revision: int) -> bytes:
    """A state as the text of a state file."""
    return Renderer().render(revision, fingerprints(data), {})[0]


def with_revision(content: bytes, revision: int) -> bytes:
    """The text of a state file with another revision; one that says none is left as it is."""
    return _REVISION.sub(b"revision: %d" % revision, content, count=1)
