"""The images that people added: on the manager, one directory each, whole or not at all.

::

    images/ubuntu/ubuntu.qcow2      read-only, exactly what was inspected
    images/ubuntu/record.json       format, digest, sizes, who added it and when
    images/.adding-1f3a…/           one on its way in, locked by whoever adds it
    images/.removing-77b0…/         one on its way out

A directory gets its name by one rename, when both files are on the disk, and loses it by another.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from cloudrepo import image_inspection
from cloudrepo.errors import RefusedError
from cloudrepo.image_header import Header
from cloudrepo.late_dataclass import dataclass
from cloudrepo.stores.files import sync_directory
from cloudrepo.validation import shown

log = logging.getLogger(__name__)

GIB = 1024**3
FORMATS = ("qcow2", "raw")
REMOVED, NO_COPY = "removed", "none"  # what becomes of a copy on a worker, where that is no reason why it stays
HEADROOM = 256 * 1024**2  # bytes that a copy leaves free
RECORD, LOCK = "record.json", "lock"
ADDING, REMOVING = ".adding-", ".removing-"
CHUNK = 4 * 1024**2
SCRATCH = "/var/tmp"  # noqa: S108 - for a copy that is only looked at: /tmp is often memory

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")
_ENDING = re.compile(r"\.(qcow2|qcow|raw|img|bin|iso)\Z", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class KnownImage:
    """What was found out of a file of the manager before it may be used.

    Attributes:
        format: told to QEMU, which then does not guess.
        sha256: of the content that was inspected; no other is taken.
    """

    format: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image. Sizes in bytes.

    Attributes:
        name: what people call it.
        format: `qcow2` or `raw`; told to QEMU wherever the image is used.
        sha256: of the whole file, in hex.
        size: its length.
        virtual_size: what a guest sees.
        added_by: a user, or `operator`.
        added: when, UTC, ISO 8601.
    """

    name: str
    format: str
    sha256: str
    size: int
    virtual_size: int
    added_by: str
    added: str

    @property
    def file_name(self) -> str:
        """The name of its file, here and, behind its digest, on workers."""
        return f"{self.name}.{self.format}"

    @property
    def known(self) -> KnownImage:
        """What holds wherever it is used."""
        return KnownImage(format=self.format, sha256=self.sha256)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large images may be, in bytes: one file, what a guest sees of it, and all files together."""

    size: int
    virtual_size: int
    together: int


def require_name(value: object) -> str:
    """The name of an image: a letter or digit, then up to 39 letters, digits, dots, `-` or `_`.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, str) and _NAME.match(value):
        return value
    raise RefusedError(
        f"an image cannot be named {shown(value)}",
        remedy="A name is a letter or digit, then up to 39 letters, digits, dots, - or _",
        code="name.image",
    )


def name_of_file(path: str) -> str:
    """The name that an image gets after its file, unchecked: `focal` for `/srv/focal.qcow2`."""
    return _ENDING.sub("", os.path.basename(path))


class Library:
    """The images of one installation. Every method looks at the disk: other processes add and remove, too.

    Args:
        folder: where they are; made at the first addition.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def images(self) -> list[Image]:
        """All of them, by name; one whose record cannot be read is left out, and said in the log."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if _NAME.match(entry.name))
        except FileNotFoundError:
            return []
        return [image for image in map(self.find, names) if image is not None]

    def find(self, name: object) -> Image | None:
        """An image, or None."""
        if not isinstance(name, str) or not _NAME.match(name):
            return None
        try:
            image = Image(**json.loads((self.folder / name / RECORD).read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("image %s is left out: its record cannot be read: %s", name, error)
            return None
        return image if image.name == name and image.format in FORMATS else None

    def require(self, name: object) -> Image:
        """An image.

        Raises:
            RefusedError: there is none of this name.
        """
        image = self.find(name)
        if image is None:
            known = ", ".join(one.name for one in self.images()) or "none"
            raise RefusedError(f"there is no image {shown(name)}", evidence=f"there are {known}", code="images.unknown")
        return image

    def path(self, image: Image) -> Path:
        """Where its file is."""
        return self.folder / image.name / image.file_name

    def digest(self, image: Image) -> str:
        """The SHA-256 of its file as it is now: read anew, since a disk that fails changes no date.

        Raises:
            OSError: it cannot be read, or is gone.
        """
        with open(self.path(image), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    # -- adding ----------------------------------------------------------------------------------------

    def add(self, number: int, name: str, *, told: str, bounds: Bounds, who: str) -> Image:
        """Copy an open file, look at the copy, and give it its name. Whatever is refused leaves nothing.

        Args:
            number: descriptor of a regular file, open for reading; see `opened`.
            name: a checked name.
            told: the format that a person says it has, or empty.
            bounds: how large it may be.
            who: who adds it.

        Raises:
            RefusedError: the name is taken, it is too large or changes, the disk is full, it may not be an image.
        """
        self._refuse_taken(name)
        facts = os.fstat(number)
        self._require_room(facts.st_size, bounds)
        with self._draft() as draft:
            copy = draft / "image"
            image = _looked_at(number, copy, facts, name, told=told, bounds=bounds, who=who)
            copy.rename(draft / image.file_name)
            _write_record(draft / RECORD, image)
            self._publish(draft, image)
        return image

    def examine(self, number: int, name: str, *, told: str, bounds: Bounds, who: str) -> Image:
        """As `add`, with a copy elsewhere that is removed again: what would be added.

        Raises:
            RefusedError: as `add`.
        """
        self._refuse_taken(name)
        facts = os.fstat(number)
        self._require_room(facts.st_size, bounds)
        roomy = SCRATCH if os.path.isdir(SCRATCH) else None
        with tempfile.TemporaryDirectory(prefix="cloudrepo-", dir=roomy) as folder:
            return _looked_at(number, Path(folder) / "image", facts, name, told=told, bounds=bounds, who=who)

    def _publish(self, draft: Path, image: Image) -> None:
        with self._locked():
            self._refuse_taken(image.name)
            (draft / LOCK).unlink()
            sync_directory(draft)
            draft.rename(self.folder / image.name)
            sync_directory(self.folder)

    def _refuse_taken(self, name: str) -> None:
        same = (entry for entry in self._entries() if entry.casefold() == name.casefold())
        taken = next(same, None)
        if taken is not None:
            raise _taken(taken)

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []

    def _require_room(self, size: int, bounds: Bounds) -> None:
        if size > bounds.size:
            raise _too_large(f"it has {_gib(size)}, and {_gib(bounds.size)} are allowed", "images.max_gb")
        used = sum(image.size for image in self.images())
        if used + size > bounds.together:
            raise _too_large(
                f"all images together would have {_gib(used + size)}, and {_gib(bounds.together)} are allowed",
                "images.store_gb",
            )
        free = shutil.disk_usage(next(one for one in (self.folder, *self.folder.parents) if one.exists())).free
        if size + HEADROOM > free:
            raise RefusedError(
                "there is no room for this image",
                evidence=f"it has {_gib(size)}, and {_gib(free)} are free in {self.folder}",
                remedy="Remove an image, or set images.store to a larger disk",
                code="images.full",
            )

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """A directory for one on its way in. What processes that died left of theirs is removed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f"{ADDING}{secrets.token_hex(8)}"
        with self._locked():  # no other process sees the directory without its lock
            self._clear()
            draft.mkdir(mode=0o700)
            held = open(draft / LOCK, "w")  # noqa: SIM115 - closed below, after the directory is gone or has its name
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # one that has got its name is not there any more
            held.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from naming and clearing; for moments only."""
        with open(self.folder / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _clear(self) -> None:
        for entry in self._entries():
            if entry.startswith(REMOVING) or (entry.startswith(ADDING) and _is_abandoned(self.folder / entry / LOCK)):
                shutil.rmtree(self.folder / entry, ignore_errors=True)

    # -- removing --------------------------------------------------------------------------------------

    def hide(self, image: Image) -> Path:
        """Take its name away, which is the moment it is gone; the directory that `discard` removes."""
        hidden = self.folder / f"{REMOVING}{secrets.token_hex(8)}"
        try:
            (self.folder / image.name).rename(hidden)
        except FileNotFoundError as error:
            raise RefusedError(f"there is no image {image.name}", evidence="it was just removed") from error
        sync_directory(self.folder)
        return hidden

    def discard(self, hidden: Path) -> None:
        """Remove what was hidden."""
        shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def opened(path: str, inbox: str = "") -> Iterator[int]:
    """A file that a person names, open for reading, if it is a regular file and the very one they name.

    Args:
        path: as a person gives it; with an `inbox`, a plain name in it.
        inbox: the only directory that a person without a shell may name files of; empty = any file.

    Raises:
        RefusedError: it is a link, a pipe, a device or a directory, is not there, or may not be read.
    """
    if inbox:
        if not path or "/" in path or path in (".", "..") or "\0" in path:
            raise RefusedError(
                f"{shown(path)} is no file of the inbox",
                remedy=f"Put the file into {inbox} and give its plain name",
                code="images.inbox",
            )
        path = os.path.join(inbox, path)
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error
    try:
        facts = os.fstat(number)
        if not stat.S_ISREG(facts.st_mode):
            raise _no_file(path, _kind(facts.st_mode))
        if inbox and facts.st_nlink > 1:
            raise _no_file(path, "a file with a second name, which may be somebody else's")
        os.set_blocking(number, True)
        yield number
    finally:
        os.close(number)


def waiting(inbox: str) -> list[tuple[str, int]]:
    """Names and sizes in bytes of what lies in an inbox and may be added; nothing where it cannot be read."""
    found = []
    try:
        with os.scandir(inbox) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                    found.append((entry.name, facts.st_size))
    except OSError:
        return []
    return sorted(found)


def _cannot_open(path: str, error: OSError | ValueError) -> RefusedError:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return _no_file(path, "a symbolic link", "Name the file itself")
    if isinstance(error, OSError) and error.errno == errno.ENXIO:
        return _no_file(path, "a socket or a device")
    return RefusedError(
        f"{shown(path)} cannot be read",
        evidence=str(getattr(error, "strerror", None) or error),
        code="images.file",
    )


def _no_file(path: str, kind: str, remedy: str = "") -> RefusedError:
    return RefusedError(
        f"{shown(path)} cannot become an image", evidence=f"it is {kind}", remedy=remedy, code="images.file"
    )


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"))
    return next((words for is_it, words in kinds if is_it(mode)), "a device or a socket")


def _copy(number: int, path: Path, facts: os.stat_result) -> str:
    """Copy a file, holes as holes; its digest.

    Raises:
        RefusedError: it is not the same file any more when the copy ends.
    """
    digest, place = hashlib.sha256(), 0
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as copy:
        while place < facts.st_size:
            piece = os.pread(number, min(CHUNK, facts.st_size - place), place)
            if not piece:
                break
            digest.update(piece)
            if piece.count(0) != len(piece):
                os.pwrite(copy.fileno(), piece, place)
            place += len(piece)
        copy.truncate(facts.st_size)
    now = os.fstat(number)
    if place != facts.st_size or _identity(now) != _identity(facts):
        raise RefusedError(
            "this file changed while it was copied",
            evidence="somebody writes it",
            remedy="Try again when it is whole",
            code="images.changing",
        )
    return digest.hexdigest()


def _looked_at(
    number: int, copy: Path, facts: os.stat_result, name: str, *, told: str, bounds: Bounds, who: str
) -> Image:
    """Copy an open file and look at the copy; what it is."""
    digest = _copy(number, copy, facts)
    with open(copy, "rb") as file:
        os.fchmod(file.fileno(), 0o444)
        header = image_inspection.inspect(file.fileno(), told)
        os.fsync(file.fileno())
    _require_virtual(header, bounds)
    return Image(
        name=name,
        format=header.format,
        sha256=digest,
        size=facts.st_size,
        virtual_size=header.virtual_size,
        added_by=who,
        added=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _require_virtual(header: Header, bounds: Bounds) -> None:
    if header.virtual_size > bounds.virtual_size:
        raise _too_large(
            f"a guest would see {_gib(header.virtual_size)}, and {_gib(bounds.virtual_size)} are allowed",
            "images.max_virtual_gb",
        )


def _write_record(path: Path, image: Image) -> None:
    with open(path, "x", encoding="utf-8") as file:
        json.dump(asdict(image), file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def _is_abandoned(lock: Path) -> bool:
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _taken(name: str) -> RefusedError:
    return RefusedError(
        f"there is an image {name} already",
        remedy="Choose another name, or remove that one first",
        code="images.taken",
    )


def _too_large(evidence: str, setting: str) -> RefusedError:
    remedy = f"The setting {setting} says how large it may be"
    return RefusedError("this image is too large", evidence=evidence, remedy=remedy, code="images.large")


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB // 100 else f"{size} bytes"
