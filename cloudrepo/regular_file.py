"""Reading a file that is one: what else may stand under its name would be waited for, or has no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


def open_to_read(path: Path, flags: int = 0) -> int:
    """A descriptor of a regular file, without waiting for anybody.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says what it is.
    """
    _require(os.stat(path, follow_symlinks=not flags & os.O_NOFOLLOW))  # opening a device may do something
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        _require(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require(found: os.stat_result) -> None:
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")


def read(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file; a link to one is followed.
        most: bytes; of a larger file nothing is returned.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    with open(open_to_read(path), "rb") as file:
        content = file.read(-1 if most is None else most + 1)
    if most is not None and len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes")
    return content
