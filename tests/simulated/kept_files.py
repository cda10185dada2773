"""Files of a folder, kept in memory: with them another folder is made that nothing tells apart from the first."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Kept(NamedTuple):
    """A file, a folder or a symbolic link.

    Attributes:
        path: below the folder.
        mode: its kind and its permissions.
        changed: when, in nanoseconds.
        content: of a file; where a symbolic link leads.
        other: the path of the same file when it has two names; then `content` is empty.
    """

    path: str
    mode: int
    changed: int
    content: bytes = b""
    other: str = ""


def read_files(folder: Path) -> Iterator[Kept]:
    """All below a folder but sockets; a folder comes before what is in it."""
    first: dict[int, str] = {}

    def below(part: str) -> Iterator[Kept]:
        with os.scandir(folder / part) as entries:
            for entry in entries:
                path, facts = os.path.join(part, entry.name), entry.stat(follow_symlinks=False)
                mode, changed = facts.st_mode, facts.st_mtime_ns
                if stat.S_ISDIR(mode):
                    yield Kept(path, mode, changed)
                    yield from below(path)
                elif stat.S_ISLNK(mode):
                    yield Kept(path, mode, changed, os.fsencode(os.readlink(entry.path)))
                elif stat.S_ISREG(mode):
                    other = first.setdefault(facts.st_ino, path)
                    if other == path:
                        with open(entry.path, "rb", buffering=0) as file:
                            yield Kept(path, mode, changed, file.read())
                    else:
                        yield Kept(path, mode, changed, other=other)

    return below("")


def write_files(folder: Path, files: Iterable[Kept]) -> None:
    """Make them in an empty folder."""
    folders = []
    for one in files:
        path = f"{folder}/{one.path}"
        if stat.S_ISDIR(one.mode):
            os.mkdir(path)
            folders.append((path, one))
        elif stat.S_ISLNK(one.mode):
            os.symlink(os.fsdecode(one.content), path)
        elif one.other:
            os.link(f"{folder}/{one.other}", path)
        else:
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                written = os.write(number, one.content)
                assert written == len(one.content), f"{path}: no room"
                os.fchmod(number, stat.S_IMODE(one.mode))
                os.utime(number, ns=(one.changed, one.changed))
            finally:
                os.close(number)
    for path, one in reversed(folders):  # what is made in a folder changes its time
        os.chmod(path, stat.S_IMODE(one.mode))
        os.utime(path, ns=(one.changed, one.changed))
