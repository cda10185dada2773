"""Copies of the state file: `….backup`, the state at the last start, and the numbered generations."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cloudrepo import regular_file
from cloudrepo.late_dataclass import dataclass
from cloudrepo.settings import History
from cloudrepo.stores import files
from cloudrepo.stores.files import Owner, sha256

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{64})\.yaml")


@dataclass(frozen=True)
class Generation:
    """A copy of a state file.

    Attributes:
        number: counts up; the newest has the highest.
        path: the copy.
        sha: its SHA-256 when it was made.
    """

    number: int
    path: Path
    sha: str


class Generations:
    """The copies beside a state file. They are made of files that parsed, and only when they differ from the newest.

    Args:
        path: the state file.
        copies: how many are kept, and how often one is made.
    """

    def __init__(self, path: Path, copies: History | None = None) -> None:
        self.path = path
        self.backup_path = path.with_name(path.name + ".backup")
        self.directory = path.parent / ".cloudrepo" / "history" / path.name
        self._copies = copies or History()
        self._kept_at = time.monotonic()

    def list(self) -> Sequence[Generation]:
        """All generations, the oldest first."""
        try:
            names = [(entry, _NAME.fullmatch(entry.name)) for entry in self.directory.iterdir()]
        except OSError:
            return []
        found = [Generation(int(match[1]), entry, match[2]) for entry, match in names if match]
        return sorted(found, key=lambda generation: generation.number)

    def hashes(self) -> Iterable[str]:
        """The hashes of the backup and of all generations."""
        found = {generation.sha for generation in self.list()}
        try:
            found.add(sha256(regular_file.read(self.backup_path)))
        except OSError:
            pass
        return found

    @property
    def is_due(self) -> bool:
        """Whether this process made none for so long that another is to be made."""
        return time.monotonic() - self._kept_at >= self._copies.pause * 60

    def back_up(self, owner: Owner | None) -> None:
        """Copy the state file to `….backup`, if that is another.

        Raises:
            StateFileError: the copy cannot be written.
        """
        content = _read(self.path)
        if content is not None and content != _read(self.backup_path):
            files.replace(self.backup_path, content, owner)

    def keep(self, owner: Owner | None, content: bytes | None = None) -> None:
        """Make a generation, if it differs from the newest, and forget the oldest.

        Args:
            owner: who it is to belong to.
            content: of a state file; by default what is in it now.

        Raises:
            StateFileError: the copy cannot be written.
        """
        content = _read(self.path) if content is None else content
        kept = self._copies.generations
        self._kept_at = time.monotonic()
        if content is None or not kept:
            return
        known, sha = self.list(), sha256(content)
        if known and known[-1].sha == sha:
            return
        number = known[-1].number + 1 if known else 1
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(self.directory, error) from error
        files.replace(self.directory / f"{number:06d}-{sha}.yaml", content, owner)
        for old in known[: max(0, len(known) + 1 - kept)]:
            files.discard(old.path)


def _read(path: Path) -> bytes | None:
    try:
        return regular_file.read(path)
    except OSError:
        return None
