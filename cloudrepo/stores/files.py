"""Files that must survive a crash: written beside, synced, renamed. And the lock between processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudrepo.errors import StateFileError
from cloudrepo.late_dataclass import dataclass

LOCK_WAIT_S = 30.0
NOT_WRITTEN = "state.write"  # the code of what a person is told then
#: Which file this is, and whether it was written since: device, inode, size, times of change.
Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Owner:
    """Who a new file is to belong to."""

    uid: int
    gid: int


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file, or None when there is none."""
    try:
        return stamp_of(os.stat(path))
    except FileNotFoundError:
        return None


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp in a `stat`."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sha256(content: bytes) -> str:
    """The hash by which a state file is known."""
    return hashlib.sha256(content).hexdigest()


def write_all(descriptor: int, content: bytes) -> None:
    """Write everything; a full disk may take a part before it says so."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def make(path: Path, content: bytes, owner: Owner | None) -> None:
    """Make a file that is on the disk on return; what is there under its name is removed."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        give(descriptor, owner)
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give(descriptor: int, owner: Owner | None) -> None:
    """Root keeps the owner of the state file for everything beside it."""
    if owner is not None and os.geteuid() == 0 and (owner.uid, owner.gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, owner.uid, owner.gid)


def replace(path: Path, content: bytes, owner: Owner | None) -> None:
    """Replace a file; on return it is on the disk.

    Raises:
        StateFileError: it cannot be written; the old file is still there.
    """
    temporary = beside(path)
    try:
        make(temporary, content, owner)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        discard(temporary)
        raise cannot_write(path, error) from error


def beside(path: Path) -> Path:
    """Where a file is written before it takes its place. One name per file, under the lock."""
    return path.with_name(f".{path.name}.new")


def fold_of(path: Path) -> Path:
    """Where a fold is written before it takes the state file's place; whoever writes it holds the lock on it.

    It is not the name of `beside`: a fold is written without the lock of the directory, and what another command
    replaces under that lock must not be the file that a fold is about to empty.
    """
    return path.with_name(f".{path.name}.fold")


def discard(path: Path) -> None:
    """Remove a file if that is possible."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # it is overwritten by whoever needs its name next


def cannot_write(path: Path, error: OSError) -> StateFileError:
    """What a person is told when the disk or the directory does not take a file."""
    return StateFileError(
        f"{path} cannot be written",
        evidence=error.strerror or str(error),
        remedy="Nothing was changed. Free space on the disk, or mend the directory's rights, and try again",
        code=NOT_WRITTEN,
        details={"errno": error.errno},
    )


def cannot_fold(path: Path, journal: Path, error: OSError) -> StateFileError:
    """What a person is told when what was done is in the journal and does not come into the state file."""
    return StateFileError(
        f"{path} cannot be written",
        evidence=error.strerror or str(error),
        remedy=f"What was changed is not lost: it is in {journal}, and the next command brings it into the file. Free "
        "space on the disk, or mend the directory's rights",
        code=NOT_WRITTEN,
        details={"errno": error.errno},
    )


def may_not_write(error: StateFileError) -> bool:
    """Whether a file was not written because this process may only read there."""
    return error.details.get("errno") in (errno.EROFS, errno.EACCES, errno.EPERM)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class DirectoryLock:
    """The lock that every process takes that uses a directory's state. It is on the directory: no second file.

    Args:
        path: the state file.
        pulse: what changes whenever a process that holds the lock gets on.
        on_no_locks: told once when the filesystem has no locks.
    """

    def __init__(self, path: Path, pulse: Callable[[], object], on_no_locks: Callable[[OSError], None]) -> None:
        self._path = path
        self._pulse = pulse
        self._on_no_locks = on_no_locks
        self._depth = 0

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._depth > 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Not for several threads at once: they have a lock of their own.

        Raises:
            StateFileError: another process held it and wrote nothing for 30 s, or the directory is not there.
        """
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        folder = self._path.parent
        try:
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StateFileError(
                f"{self._path} cannot be used", evidence=error.strerror or "", remedy=f"Make {folder} first"
            ) from error
        try:
            self._wait(directory)
            self._depth = 1
            yield
        finally:
            self._depth = 0
            os.close(directory)

    def _wait(self, directory: int) -> None:
        """Wait as long as others get on: patience ends only when nothing has changed for that long."""
        deadline, seen = time.monotonic() + LOCK_WAIT_S, self._pulse()
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline and seen != (now := self._pulse()):
                    deadline, seen = time.monotonic() + LOCK_WAIT_S, now
                elif time.monotonic() > deadline:
                    raise StateFileError(
                        f"{self._path} is locked by another process",
                        evidence=f"waited {LOCK_WAIT_S:g} s",
                        remedy=f"`lsof {self._path.parent}` names the process that has the directory open",
                    ) from None
            except OSError as error:  # a filesystem without locks
                self._on_no_locks(error)
                return
            time.sleep(random.uniform(0.0005, 0.004))  # noqa: S311 - only spreads the waiting processes
