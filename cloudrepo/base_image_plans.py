"""What is asked of a host to bring it a base image, and what its answers mean. Nothing here talks to a host."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cloudrepo.commands import coreutils, qemu_img
from cloudrepo.host import json_text
from cloudrepo.images import BaseImage, ImageStore
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import (
    Act,
    AdoptFile,
    Checksum,
    MakeDir,
    ObserveFiles,
    Plan,
    ReadFile,
    Remove,
    Run,
    Stage,
    Step,
    StepResult,
    WriteFile,
)

READ_ONLY = 0o444
OTHERS_MAY_WRITE = 0o002
#: Modification time of every installed base image, seconds since 1970: a later write shows.
FIXED_TIME = 1_000_000_000
SLOWEST_DISK = 10_000_000  # bytes a second, for deadlines


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file on the worker that may become a base image. Size in bytes, time in nanoseconds."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was known of a base image when it was installed.

    Attributes:
        image: what it is.
        source: the file on the worker it was taken from, if it was.
        installation: which one brought it; "" before that was noted.
    """

    image: BaseImage
    source: Source | None
    installation: str = ""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a host has.

    Attributes:
        trusted: the wanted base image, installed and untouched since.
        recorded: what the record beside an installed one tells of it, whatever has become of that.
        sources: files on the host that may be taken, best first.
        refused: why other files are not taken.
        user: the login account.
        folder_exists: whether the image folder is there.
        cut_size: bytes of the manager's file that are there from an earlier copy.
        free: bytes free where the image folder is, None when unknown.
    """

    trusted: BaseImage | None
    recorded: BaseImage | None
    sources: tuple[Source, ...]
    refused: tuple[str, ...]
    user: str
    folder_exists: bool
    cut_size: int
    free: int | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a copy on the host turned out to be. `problem` is set when it could not be read as an image."""

    path: str
    sha256: str
    size: int
    info: qemu_img.ImageInfo | None
    problem: str = ""


# -- names -----------------------------------------------------------------------------------------------


def base_path(store: ImageStore, sha256: str, name: str) -> str:
    """Where a base image is installed: its content first, then a readable name."""
    return f"{store.bases}/{sha256[:16]}-{plain_name(name)}"


def record_path(store: ImageStore, sha256: str, name: str) -> str:
    """The record beside it."""
    return base_path(store, sha256, name) + ".json"


def origin_path(store: ImageStore, source_path: str) -> str:
    """The record of an image that was taken from a file on the worker, found by that file's path."""
    return f"{store.bases}/from-{_digest(source_path)}.json"


def draft_path(store: ImageStore, sha256: str, source_path: str = "") -> str:
    """Where a copy is until it has been checked. The manager's is found again by content, to be resumed."""
    name = sha256[:16] if not source_path else f"{sha256[:16] or 'from'}-{_digest(source_path)}"
    return f"{store.uploads}/{name}.part"


def removed_path(store: ImageStore, sha256: str) -> str:
    """Where a base image is while it is asked whether a disk is on it: among what only root may write."""
    return f"{store.root}/removed-{sha256[:16]}"


def cut_path(store: ImageStore, sha256: str) -> str:
    """Where the executor keeps what arrived of a copy of the manager's file that was cut."""
    return f"{draft_path(store, sha256)}.{sha256[:16]}.part"


def plain_name(name: str) -> str:
    """A file name with nothing in it that a tool could read otherwise."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-120:]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _patience(size: int) -> float:
    """The deadline in seconds for reading or writing so many bytes."""
    return 60 + size / SLOWEST_DISK


# -- looking ---------------------------------------------------------------------------------------------


def look(store: ImageStore, home: str, name: str, sha256: str, candidates: Sequence[str]) -> Plan:
    """Ask what is there. Without `sha256` the manager has no file, and the worker's own are wanted."""
    if sha256:
        records = {"record": record_path(store, sha256, name)}
    else:
        records = {f"record{number}": origin_path(store, path) for number, path in enumerate(candidates)}
    cut = (cut_path(store, sha256),) if sha256 else ()
    acts: dict[str, tuple[str, Act]] = {
        "files": ("image files", ObserveFiles(paths=(*candidates, store.base_dir, *cut))),
        "bases": ("base images", ObserveFiles(directory=store.bases)),
        "login": ("the login account", Run(words=coreutils.owner(home))),
        "space": ("free space", Run(words=coreutils.disk_space(store.base_dir), ok=(0, 1))),
        **{key: ("a record of a base image", ReadFile(path=path)) for key, path in records.items()},
    }
    return _questions(store, acts)


def _questions(store: ImageStore, acts: Mapping[str, tuple[str, Act]]) -> Plan:
    steps = tuple(Step(name=name, label=f"look at {what}", act=act) for name, (what, act) in acts.items())
    return Plan(installation=store.installation, observe=steps)


def read_look(
    store: ImageStore, name: str, sha256: str, candidates: Sequence[str], observed: Mapping[str, StepResult]
) -> Look:
    """Read the answers to `look`.

    Raises:
        ValueError: an answer is missing or cannot be understood.
        KeyError: the same.
    """
    for key in ("files", "bases", "login"):
        if not observed[key].accepted:
            raise ValueError(f"could not {observed[key].label}: {observed[key].err}")
    files: dict[str, Any] = json_text.loads(observed["files"].out)
    bases: dict[str, Any] = json_text.loads(observed["bases"].out)
    uid, user = coreutils.parse_owner(observed["login"].out)
    records = [answer.out for key, answer in observed.items() if key.startswith("record") and answer.out]
    trusted = next((image for image in (_trusted(text, files, bases) for text in records) if image), None)
    sources, refused = _sources(candidates, files, trusted_uids={0, uid})
    installed = base_path(store, sha256, name) if sha256 else ""
    record = read_record(records[0]) if records and bases.get(installed) else None
    if bases.get(installed):  # its record is gone or disagrees: its content decides
        sources.insert(0, _source(installed, bases[installed]))
    cut = files.get(cut_path(store, sha256)) or {}
    space = coreutils.parse_disk_space(observed["space"].out) if observed["space"].accepted else None
    return Look(
        trusted=trusted,
        recorded=record.image if record is not None else None,
        sources=tuple(sources),
        refused=tuple(refused),
        user=user,
        folder_exists=files.get(store.base_dir) is not None,
        cut_size=max(0, json_text.whole_or_none(cut.get("size")) or 0) if sha256 else 0,
        free=space.free if space else None,
    )


def _trusted(text: str, files: Mapping[str, Any], bases: Mapping[str, Any]) -> BaseImage | None:
    """The image of a record, if it is untouched, and the file it was taken from is gone or the same."""
    record = read_record(text)
    if record is None or not _is_untouched(record.image, bases):
        return None
    source = record.source
    facts = files.get(source.path) if source else None
    return None if source and facts and _source(source.path, facts) != source else record.image


def _is_untouched(image: BaseImage, bases: Mapping[str, Any]) -> bool:
    facts = bases.get(image.path_on_host)
    if not facts or facts["kind"] != "file":
        return False
    seen = (facts["size"], facts["mtime_ns"], facts["mode"])
    return bool(seen == (image.size, FIXED_TIME * 10**9, READ_ONLY))


def _sources(
    candidates: Sequence[str], files: Mapping[str, Any], trusted_uids: set[int]
) -> tuple[list[Source], list[str]]:
    """Files put there by hand, and why others do not count: a folder like /tmp is open to everybody."""
    sources: list[Source] = []
    refused: list[str] = []
    for path in candidates:
        facts = files.get(path)
        if facts is None:
            continue
        if facts["kind"] != "file" or not facts["size"]:
            refused.append(f"{path} is not a regular file, or is empty")
        elif facts["uid"] not in trusted_uids:
            refused.append(f"{path} belongs to user number {facts['uid']}, neither to root nor to the login account")
        elif facts["mode"] & OTHERS_MAY_WRITE:
            refused.append(f"{path} can be written by everybody")
        else:
            sources.append(_source(path, facts))
    return sources, refused


def _source(path: str, facts: Mapping[str, Any]) -> Source:
    size, mtime_ns = json_text.whole_or_none(facts["size"]), json_text.whole_or_none(facts["mtime_ns"])
    if size is None or mtime_ns is None or size < 0:
        raise ValueError(f"no facts of a file: {path}")
    return Source(path=path, size=size, mtime_ns=mtime_ns)


def record_text(image: BaseImage, source: Source | None, installation: str) -> str:
    """The record that stands beside a base image."""
    fields = {"image": asdict(image), "source": source and asdict(source), "installation": installation}
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def read_record(text: str) -> Record | None:
    """Read a record; None when it cannot be understood, which means that nothing is trusted."""
    try:
        fields = json_text.loads(text)
        source = fields["source"]
        return Record(
            image=BaseImage(**fields["image"]),
            source=Source(**source) if source else None,
            installation=str(fields.get("installation", "")),
        )
    except json_text.NOT_UNDERSTOOD:
        return None


# -- copying and checking --------------------------------------------------------------------------------


def prepare(store: ImageStore, seen: Look) -> Plan:
    """Make the folders; the image folder itself only if it is missing, so that an own one keeps owner and mode."""
    folders = [] if seen.folder_exists else [("folder", MakeDir(path=store.base_dir, mode=0o755, user=seen.user))]
    folders += [
        ("ours", MakeDir(path=store.root, mode=0o755)),
        ("uploads", MakeDir(path=store.uploads, mode=0o700, user=seen.user)),
    ]
    return _changes(store, "prepare", [(name, f"make {act.path}", act) for name, act in folders])


def copy(store: ImageStore, source: Source, draft: str, user: str) -> Plan:
    """Copy a file of the worker to a name of ours. A copy, not a link: its owner could write through a link.

    As the login account, whose the place is: what that may not read is not for guests.
    """
    words = ("cp", "--no-dereference", "--reflink=auto", "--sparse=auto", "-T", "--", source.path, draft)
    act = Run(words=words, user=user, timeout_s=_patience(source.size))
    clear = Remove(path=draft, within=store.uploads)
    return _changes(store, "copy", [("clear", "clear an old copy", clear), ("copy", f"copy {source.path}", act)])


def inspect(store: ImageStore, draft: str, size: int, user: str, told: str = "") -> Plan:
    """Read a copy on the host: its content's digest, and what QEMU takes it for, or what it says of a `told` format.

    As `user`, whose the copy is: reading a crafted image needs no more rights than that.
    """
    patience = _patience(size)
    acts: dict[str, tuple[str, Act]] = {
        "content": ("the content", Checksum(path=draft, timeout_s=patience)),
        "info": ("the image", Run(words=qemu_img.info(draft, told), user=user)),
        "file": ("the file", ObserveFiles(paths=(draft,))),
    }
    return _questions(store, acts)


def read_inspection(draft: str, observed: Mapping[str, StepResult]) -> Found:
    """Read the answers to `inspect`; whatever cannot be understood becomes a problem of the image."""
    try:
        content = json_text.loads(observed["content"].out)
        sha256, size = str(content["sha256"]), int(content["size"])
        kind = json_text.loads(observed["file"].out)[draft]["kind"]
    except json_text.NOT_UNDERSTOOD:
        return Found(path=draft, sha256="", size=0, info=None, problem="it cannot be read")
    found: qemu_img.ImageInfo | None = None
    problem = "" if kind == "file" else f"it is a {kind}"
    answer = observed.get("info")
    try:
        if answer is None or not answer.accepted:
            raise ValueError((answer.err if answer else "").strip() or "qemu-img gave no answer")
        found = qemu_img.parse_info(answer.out)
    except ValueError as error:
        problem = problem or str(error)
    return Found(path=draft, sha256=sha256, size=size, info=found, problem=problem)


def unfit(found: Found) -> str:
    """Why a copy may not become a base image, or an empty text."""
    if found.problem or found.info is None:
        return found.problem or "it cannot be read"
    return qemu_img.refusal(found.info)


def check(store: ImageStore, found: Found, user: str) -> Plan:
    """Ask whether a fit qcow2 is whole: for a file without a digest to compare with.

    Not asked together with `inspect`: this opens the files that an image names, and a fit one names none.
    """
    words, patience = qemu_img.check(found.path), _patience(found.size)
    act = Run(words=words, user=user, ok=tuple(range(256)), timeout_s=patience)
    return _questions(store, {"check": ("the image's tables", act)})


def read_check(found: Found, observed: Mapping[str, StepResult]) -> str:
    """Why the checked copy may not become a base image, or an empty text."""
    answer = observed.get("check")
    if answer is not None and answer.status in qemu_img.CHECK_SOUND:
        return ""
    return f"its tables do not agree with its length: the file was cut or is damaged ({found.size} bytes)"


# -- installing ------------------------------------------------------------------------------------------


def image_of(store: ImageStore, name: str, found: Found, origin: str) -> BaseImage:
    """The base image that a checked copy becomes.

    Raises:
        ValueError: the copy was not understood; `unfit` says so.
    """
    if found.info is None:
        raise ValueError(found.problem)
    return BaseImage(
        path_on_host=base_path(store, found.sha256, name),
        sha256=found.sha256,
        virtual_size=found.info.virtual_size,
        format=found.info.format,
        size=found.size,
        source=origin,
    )


def install(
    store: ImageStore, found: Found, image: BaseImage, source: Source | None = None, *, has_record: bool = False
) -> Plan:
    """Turn a checked copy into the base image. The name comes last, when the content is on the disk.

    Args:
        store: where.
        found: the copy.
        image: what it becomes.
        source: the file on the worker it was taken from, if it was.
        has_record: what stands beside it already says the same of it, and stays: another installation may have
            written it.
    """
    path = image.path_on_host
    adopt = AdoptFile(
        draft=found.path,
        path=path,
        owner=store.owner,
        mode=READ_ONLY,
        mtime_s=FIXED_TIME,
        sha256=found.sha256,
        timeout_s=2 * _patience(found.size),
    )
    steps: list[tuple[str, str, Act]] = [
        ("folder", f"make {store.bases}", MakeDir(path=store.bases, mode=0o755)),
        ("adopt", f"install {path}", adopt),
    ]
    record = WriteFile(path=path + ".json", text=record_text(image, None, store.installation), mode=0o644, durable=True)
    if source is not None:
        text = record_text(image, source, store.installation)
        record = WriteFile(path=origin_path(store, source.path), text=text, mode=0o644, durable=True)
    if not has_record:
        steps.append(("record", "write the image's record", record))
    return _changes(store, "install", steps)


def drop(store: ImageStore, draft: str) -> Plan:
    """Remove a copy that is of no use."""
    return _changes(store, "drop", [("drop", "remove a copy", Remove(path=draft, within=store.uploads))])


def _changes(store: ImageStore, name: str, acts: Sequence[tuple[str, str, Act]]) -> Plan:
    steps = tuple(Step(name=key, label=label, act=act) for key, label, act in acts)
    return Plan(installation=store.installation, stages=(Stage(name=name, steps=steps),))
