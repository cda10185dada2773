"""Files, whole or not at all, and never through a symlink that somebody else put there."""

from __future__ import annotations

import errno
import os
import stat
import threading

from cloudrepo.host.runner.accounts import give
from cloudrepo.host.runner.base import FILE_LIMIT

TAIL = 2000  # characters of a log that go into an error


def read_text(path: str) -> str | None:
    """The text of a file, at most 1 MiB; None when it is not there. A symlink is no file."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            return file.read(FILE_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def tail(path: str) -> str:
    """The last words of a log."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read(TAIL).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def write_whole(path: str, data: bytes, mode: int, user: str, durable: bool) -> None:
    """Replace a file by another one; nobody ever sees half of it."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{os.getpid()}.{threading.get_ident()}.new")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(number, "wb") as file:
            file.write(data)
            give(number, user)
            os.fchmod(number, mode)
            file.flush()
            if durable:
                os.fsync(number)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(parent)
        os.close(parent)


def is_same_file(path: str, other: str) -> bool:
    """Whether two paths are names of one file; symlinks are not followed."""
    try:
        first, second = os.lstat(path), os.lstat(other)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def remove_tree(path: str) -> None:
    """Remove a directory and what is in it; symlinks are removed, never followed."""
    for _, directories, files, parent in os.fwalk(path, topdown=False, follow_symlinks=False):
        for name in files:
            os.unlink(name, dir_fd=parent)
        for name in directories:
            if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
            else:
                os.rmdir(name, dir_fd=parent)
    os.rmdir(path)
