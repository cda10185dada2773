"""State files as files: check them, list and restore generations, export, decide between file and journal.

All of it works when the file or its journal is damaged; nothing here opens a `Database`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cloudrepo import accounts, permissions, record_changes, regular_file
from cloudrepo.errors import RefusedError, StateFileError
from cloudrepo.invariants import violations
from cloudrepo.settings import Settings
from cloudrepo.state import Record, all_slices
from cloudrepo.stores import counters, files, filesystem, opening, yaml_file
from cloudrepo.stores.files import Owner
from cloudrepo.stores.generations import Generation, Generations
from cloudrepo.stores.inspection import Inspection, continued, inspect, rendered, with_revision
from cloudrepo.stores.journal import NO_HEADER


def check(path: Path) -> Record:
    """Everything that can be said of a state file.

    Returns:
        `ok`, `state` (the path), `revision`, `yaml` and `journal` (None, or what they are), `counts`, and `problems`:
        sentences, each with its code.
    """
    path = Path(os.path.realpath(path))
    found = inspect(path)
    problems = [{"code": error.code, "text": str(error)} for error in found.problems]
    counts: Record = {}
    if found.yaml is not None:
        data = _whole_or_yaml(found)
        counts = _counts(data)
        problems += [{"code": "state.invariant", "text": text} for text in violations(data)]
    warning = filesystem.without_sure_locks(path)
    return {
        "ok": not problems,
        "state": str(path),
        "revision": found.revision or None,
        "yaml": None if found.content is None else {"bytes": len(found.content), "sha256": files.sha256(found.content)},
        "journal": None
        if found.journal is None
        else {"records": len(found.journal.records), "bytes": found.journal.end, "relation": found.relation},
        "counts": counts,
        "problems": problems,
        "warnings": [warning] if warning else [],
    }


def _whole_or_yaml(found: Inspection) -> Record:
    try:
        return found.whole(lay_over=found.relation == "edited")
    except StateFileError:
        return Inspection(found.path, found.content, found.yaml, found.prints, None, "none", []).whole()


def _counts(data: Record) -> Record:
    slices = list(all_slices(data))
    return {
        **{top: len(data[top]) for top in ("users", "workers", "slices")},
        "vms": sum(len(record["vms"]) for record in slices),
        "links": sum(len(record["links"]) for record in slices),
    }


def history(path: Path) -> list[Record]:
    """All generations, the oldest first.

    Returns:
        Of each `generation` (its number), `made` (UTC, by the clock of then), `bytes`, `revision`, `counts`, and
        `good`: whether it is as it was made and can be restored.
    """
    path = Path(os.path.realpath(path))
    return [_described(path, generation) for generation in Generations(path).list()]


def _described(path: Path, generation: Generation) -> Record:
    status = generation.path.stat()
    found: Record = {
        "generation": generation.number,
        "made": datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds"),
        "bytes": status.st_size,
        "revision": None,
        "counts": {},
        "good": False,
    }
    try:
        content = regular_file.read(generation.path)
        file, data, _prints = yaml_file.understand(generation.path, content, None)
    except (OSError, StateFileError):
        return found
    return found | {"revision": file.revision, "counts": _counts(data), "good": file.sha == generation.sha}


def restore(path: Path, wanted: str) -> list[str]:
    """Put a generation, or `backup`, in the place of the state file. What is there now is kept, and counters count on.

    Returns:
        What was done, in sentences.

    Raises:
        RefusedError: there is no such generation.
        StateFileError: it is damaged, or the file cannot be written.
    """
    with _at(path) as (target, owner):
        generations, found, content = _to_restore(target, wanted)
        said = _keep_what_is_there(found, generations, owner)
        files.replace(target, content, owner)
        said += _put_aside(target, found)
        return [*said, f"{target} is generation {wanted} now"]


def _to_restore(target: Path, wanted: str) -> tuple[Generations, Inspection, bytes]:
    """What a generation is in the place of a state file as it is found."""
    generations = Generations(target, Settings.load(target).history)
    content = _content_of(generations, wanted)
    found = inspect(target)
    return generations, found, _counting_on(with_revision(content, found.revision + 1), found, generations)


def plan_restore(path: Path, wanted: str) -> Record:
    """What `restore` would do, and nothing done; see `_plan`.

    Raises:
        CloudError: as `restore`.
    """
    with _at(path) as (target, _owner):
        _generations, found, content = _to_restore(target, wanted)
        notes = ["What is there now is kept, as the newest generation or beside the file."] if found.content else []
        return _plan("state restore", target, found, content, [*notes, f"{target} would be generation {wanted}."])


def plan_use(path: Path, which: Literal["yaml", "journal"]) -> Record:
    """What `use` would do, and nothing done; see `_plan`.

    Raises:
        CloudError: as `use`.
    """
    with _at(path) as (target, _owner):
        _generations, found, content, said = _to_use(target, which)
        return _plan("state use", target, found, content, [f"So that {said}."])


def _plan(kind: str, target: Path, found: Inspection, content: bytes, notes: list[str]) -> Record:
    """A plan of what takes the place of a state file.

    Returns:
        The keys of `rehearsal.rehearse`: no host is asked; `records` are compared with what can be read now.
    """
    before: record_changes.Objects = {}
    if found.yaml is not None:
        before = record_changes.objects(_whole_or_yaml(found))
    else:
        notes = ["What is there now cannot be read, so all is said to come.", *notes]
    after = record_changes.objects(yaml_file.understand(target, content, None)[1])
    if target.with_name(target.name + ".journal").exists():
        notes.append("The journal is put aside.")
    records = record_changes.between(before, after)
    return {
        **{"kind": kind, "about": str(target), "differences": max(1, len(records)), "hosts": [], "records": records},
        **{"quota": None, "allocations": {"vlans": [], "vms": []}, "notes": notes},
    }


def _counting_on(content: bytes, found: Inspection, generations: Generations) -> bytes:
    """A state file that takes the place of another one, and gives no number again that is on hosts already."""
    known = [counters.of_copies(generations), counters.of_text(found.content or b"")]
    if found.journal is not None and found.relation != "foreign":
        known.append(counters.of_journal(found.journal))
    file, data, _prints = yaml_file.understand(found.path, content, None)
    floors = counters.behind(data, counters.highest(*known))
    text = counters.raised(content, floors)
    try:
        if yaml_file.understand(found.path, text, None)[1] == data | floors:
            return text
    except StateFileError:
        pass  # laid out in a way of its own
    return rendered(data | floors, file.revision)


def _content_of(generations: Generations, wanted: str) -> bytes:
    known = {str(generation.number): generation for generation in generations.list()}
    if wanted == "backup" and generations.backup_path.exists():
        source, sha = generations.backup_path, ""
    elif wanted.lstrip("0") in known:
        source, sha = known[wanted.lstrip("0")].path, known[wanted.lstrip("0")].sha
    else:
        raise RefusedError(
            f"there is no generation {wanted}",
            evidence=f"there is {', '.join(known) or 'none'}" + (", and backup" * generations.backup_path.exists()),
            remedy="`./cloud state history` lists them",
            code="state.generation",
        )
    content, _stamp = yaml_file.read(source)
    yaml_file.understand(source, content, None)
    if sha and files.sha256(content) != sha:
        raise StateFileError(f"{source} is not what it was when it was made", remedy="Choose another generation")
    return content


def _keep_what_is_there(found: Inspection, generations: Generations, owner: Owner | None) -> list[str]:
    """The state as it is now becomes the newest generation; a file that is none is put aside."""
    if found.content is None:
        return []
    try:
        generations.keep(owner, rendered(found.whole(), found.revision))
    except StateFileError:
        aside = _aside(found.path)
        files.replace(aside, found.content, owner)
        return [f"What was there is kept as {aside}"]
    return [f"What was there is generation {generations.list()[-1].number}"]


def use(path: Path, which: Literal["yaml", "journal"]) -> list[str]:
    """Decide between a state file and a journal that does not simply continue it. The journal is put aside.

    Args:
        path: the state file.
        which: `yaml` = the file alone; `journal` = what the journal holds is laid over the generation that it
            continues, which makes all that was acknowledged; if none such is kept, over the file, section by section.

    Returns:
        What was done, in sentences.

    Raises:
        RefusedError: there is no journal, or it is another installation's.
        StateFileError: the file is damaged, or cannot be written.
    """
    with _at(path) as (target, owner):
        generations, found, content, said = _to_use(target, which)
        kept: list[str] = []
        if which == "journal" and found.yaml is not None and found.yaml.sha not in generations.hashes():
            generations.keep(owner, found.content or b"")
            kept = [f"What was there is generation {one.number}" for one in generations.list()[-1:]]
        if content != found.content:
            files.replace(target, content, owner)
        return [*kept, *_put_aside(target, found), said]


def _to_use(target: Path, which: str) -> tuple[Generations, Inspection, bytes, str]:
    """What the chosen one is in the place of a state file as it is found, and a sentence that says so."""
    found = inspect(target)
    if not target.with_name(target.name + ".journal").exists():
        raise RefusedError(f"{target} has no journal", evidence="the file alone is the state", code="state.no_journal")
    if found.yaml is None or found.content is None:
        raise found.problems[0]
    generations = Generations(target, Settings.load(target).history)
    if which == "yaml":
        content, said = with_revision(found.content, found.revision + 1), f"{target} alone is the state now"
    else:
        content, said = _with_journal(found, generations)
    return generations, found, _counting_on(content, found, generations), said


def _with_journal(found: Inspection, generations: Generations) -> tuple[bytes, str]:
    """What a journal holds, laid over the copy that it continues, else over the file; and a sentence on what it is."""
    base = continued(found, generations)
    if base is None:
        content, said = _laid_over(found), f"{found.path} now holds what its journal held"
        if found.relation == "older":
            said += "; what was brought into the replaced file before is in `./cloud state history`, if anywhere"
        return content, said
    whole, generation = base
    said = f"{found.path} is generation {generation.number} now, which its journal continues, with what that held"
    return rendered(whole.whole(), found.revision + 1), said


def _laid_over(found: Inspection) -> bytes:
    if found.journal is None or found.journal.header is NO_HEADER:
        raise RefusedError(
            "nothing of the journal can be read",
            evidence=str(found.problems[-1]),
            remedy="`./cloud state use yaml` puts it aside",
            code="state.no_journal",
        )
    if found.relation == "foreign":
        raise opening.refusal(found.path, "foreign", found.journal)
    return rendered(found.whole(lay_over=True), found.revision + 1)


def export(path: Path, target: Path | None) -> bytes:
    """The whole state, journal included, as the text of one state file; written to `target`, for its owner alone.

    Raises:
        RefusedError: `target` is there already.
        StateFileError: there is no state, or the file cannot be written.
    """
    found = inspect(Path(os.path.realpath(path)))
    content = rendered(found.whole(), found.revision)
    if target is not None:
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise RefusedError(
                f"{target} is there already", remedy="Choose another name", code="state.export"
            ) from error
        except OSError as error:
            raise files.cannot_write(target, error) from error
        with open(descriptor, "wb") as file:
            file.write(content)
    return content


@contextmanager
def _at(path: Path) -> Iterator[tuple[Path, Owner | None]]:
    """The file itself and its owner, under the lock that every process takes."""
    target = Path(os.path.realpath(path))
    owner = filesystem.check_owner(target)
    lock = files.DirectoryLock(
        target, lambda: files.stamp(target), lambda error: filesystem.warn_of_no_locks(target, error)
    )
    with lock.held():
        yield target, owner


def _put_aside(target: Path, found: Inspection) -> list[str]:
    """Rename the journal; nothing of it is lost."""
    journal = target.with_name(target.name + ".journal")
    if not journal.exists():
        return []
    aside = _aside(journal)
    try:
        os.rename(journal, aside)
        files.sync_directory(target.parent)
    except OSError as error:
        raise files.cannot_write(aside, error) from error
    return [f"The journal is kept as {aside}"]


def _aside(path: Path) -> Path:
    """A free name for what is put aside."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = [path.with_name(f"{path.name}.aside-{stamp}{end}") for end in ("", *(f"-{n}" for n in range(2, 1000)))]
    return next(name for name in names if not name.exists())


def is_administrator(path: Path, username: str, password: str) -> bool:
    """Whether the state file, as far as it can be read, knows an administrator of this name and password."""
    found = inspect(Path(os.path.realpath(path)))
    if found.yaml is None:
        return False
    user = _whole_or_yaml(found)["users"].get(username)
    return user is not None and permissions.is_admin(user) and accounts.verify_password(password, user["password_hash"])
