"""Whether a state file and the journal beside it belong together: what was found goes in, what to do comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from cloudrepo.errors import StateFileError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import Key, key_text
from cloudrepo.stores.journal import Journal, JournalDamage, digest

MOST_NAMED = 8


@dataclass(frozen=True)
class Mismatch:
    """Why a journal does not continue the state file.

    Attributes:
        kind: `older`: an older generation was put back; `edited`: the file it continues was edited;
            `foreign`: it belongs to another installation; `other`: to another state file.
        since: of `edited`: the revision of the state that was in the file before the edit.
    """

    kind: Literal["older", "edited", "foreign", "other"]
    since: int = -1


def start_revision(sha: str, journal: Journal) -> int | None:
    """From which revision on a journal continues the YAML with this hash; None when it does not."""
    if sha == journal.header.continues:
        return journal.header.revision
    return journal.folded.get(sha)


def mismatch(sha: str, said: int, installation: str, journal: Journal, generations: Iterable[str]) -> Mismatch:
    """What a journal is that does not continue the YAML.

    Args:
        sha: of the YAML.
        said: the revision that stands in the YAML.
        installation: the YAML's.
        journal: what was found beside it.
        generations: hashes of the backup and the generations that are kept.
    """
    header = journal.header
    if installation and header.installation and installation != header.installation:
        return Mismatch("foreign")
    if said != header.said and said not in journal.folded.values():
        return Mismatch("other" if said > header.said else "older")
    if sha in generations:
        return Mismatch("older")
    return Mismatch("edited", header.revision if said == header.said else said)


def merge(edited: Mapping[Key, bytes], journal: Journal, since: int) -> tuple[dict[Key, bytes], list[str]]:
    """A hand edit of the YAML that a journal continues, and the journal: section by section.

    Args:
        edited: the sections of the YAML.
        journal: what was found beside it.
        since: the revision that was in the YAML before the edit: that of the first line, or of a fold.

    Returns:
        The sections of both, and the keys of those that both changed.
    """
    merged, conflicts = dict(edited), list[str]()
    folded = journal.until(since)
    for key, theirs in journal.since(since).items():
        mine = edited.get(key)
        before = _digest(key, folded[key]) if key in folded else journal.header.sections.get(key_text(key))
        if _digest(key, mine) not in (before, _digest(key, theirs)):
            conflicts.append(key_text(key))
        elif theirs is None:
            merged.pop(key, None)
        else:
            merged[key] = theirs
    return merged, conflicts


def _digest(key: Key, printed: bytes | None) -> str | None:
    return None if printed is None else digest(key, printed)


def held(journal: Journal) -> str:
    """What a journal holds, in words."""
    keys = list(journal.since(-1))
    if not keys:
        return "the journal holds no change"
    named = ", ".join(key_text(key) for key in keys[:MOST_NAMED])
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return f"the journal holds {len(journal.records)} changes up to revision {journal.last}, of {named}{more}"


_TOLD = {
    "older": "is older than its journal",
    "other": "is not the file that its journal continues",
    "foreign": "belongs to another installation than the journal beside it",
    "unknown": "has a journal whose first line cannot be read",
}
CHOICE = "`./cloud state use yaml` puts the journal aside, `./cloud state use journal` lays it over the file"


def refusal(path: Path, kind: str, journal: Journal) -> StateFileError:
    """What a person is told when it is theirs to decide."""
    return StateFileError(
        f"{path} {_TOLD[kind]}",
        evidence=held(journal),
        remedy=CHOICE if kind != "foreign" else "`./cloud state use yaml` puts that journal aside",
        code=f"state.{kind}",
        details={"changed": [key_text(key) for key in journal.since(-1)], "records": len(journal.records)},
    )


def conflict(path: Path, keys: list[str], journal: Journal) -> StateFileError:
    """What a person is told when an edit and the journal changed the same section."""
    return StateFileError(
        f"{path} was edited while its journal held changes of the same",
        evidence=f"both changed {', '.join(keys)}",
        remedy=CHOICE,
        code="state.conflict",
        details={"both": keys, "changed": [key_text(key) for key in journal.since(-1)]},
    )


def missing(path: Path, journal: Journal) -> StateFileError:
    """What a person is told when there is a journal and no state file."""
    return StateFileError(
        f"{path} is missing, and there is a journal that continues it",
        evidence=held(journal),
        remedy="Put the file back (`./cloud state history` lists what is kept, `./cloud state restore GEN` restores), "
        "or move the journal away",
        code="state.missing",
    )


def damaged(path: Path, damage: JournalDamage) -> StateFileError:
    """What a person is told when a journal is not what was written."""
    good = len(damage.good.records) if damage.good else 0
    return StateFileError(
        f"{path} is damaged",
        evidence=str(damage),
        remedy=f"`./cloud state use journal` keeps the {good} changes before that, `./cloud state use yaml` none; "
        "the journal itself is put aside",
        code="state.journal",
        details={"line": damage.line, "byte": damage.byte, "good": good},
    )
