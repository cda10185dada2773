"""`df` and `stat`: room on a disk, and whose a directory is (df(1), stat(1) of GNU coreutils)."""

from __future__ import annotations

import posixpath

from cloudrepo.late_dataclass import dataclass

_MOST = 2**63


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """Room on the file system of a path, in bytes. `free` is what an ordinary account may use."""

    size: int
    free: int


def disk_space(path: str) -> tuple[str, ...]:
    """Ask for the room at `path` and at each of its parents: those that do not exist are left out.

    The exit status is 1 when one of them is missing, which is accepted.
    """
    paths = [path]
    while paths[-1] not in ("/", ""):
        paths.append(posixpath.dirname(paths[-1]))
    return ("df", "-B1", "--output=size,avail", "--", *paths)


def parse_disk_space(text: str) -> DiskSpace | None:
    """The room at the nearest existing path, which is the first row; None without a row.

    Raises:
        ValueError: the text is not what `df --output=size,avail` prints.
    """
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    if not rows:
        return None
    if len(rows[0]) != 2:
        raise ValueError(f"not a row of df: {rows[0]!r}")
    size, free = (int(word) for word in rows[0])
    if not 0 <= free < _MOST or not 0 <= size < _MOST:
        raise ValueError(f"not sizes of a disk: {rows[0]!r}")
    return DiskSpace(size=size, free=free)


def owner(path: str) -> tuple[str, ...]:
    """Ask who owns a file: number and name."""
    return ("stat", "--format=%u %U", "--", path)


def parse_owner(text: str) -> tuple[int, str]:
    """The owner's number and name.

    Raises:
        ValueError: the text is not what `stat --format='%u %U'` prints.
    """
    number, name = text.split()
    return int(number), name
