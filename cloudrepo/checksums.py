"""Digests of this machine's files, kept: an image of gigabytes is read once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from pathlib import Path

log = logging.getLogger(__name__)


class Checksums:
    """SHA-256 of files of this machine, computed once for each content.

    A file counts as unchanged while path, size, modification time and inode are the same.

    Args:
        cache_dir: where digests are kept for later processes; None keeps them in this one only.
    """

    def __init__(self, cache_dir: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(cache_dir) / "checksums.json" if cache_dir is not None else None
        self._known: dict[str, str] | None = None
        self._lock = threading.Lock()

    def of(self, path: str) -> str:
        """The digest in hex.

        Raises:
            OSError: the file cannot be read.
        """
        with self._lock:  # the second caller waits for the first one's answer
            known = self._load()
            key = _identity(path)
            if key not in known:
                digest = _sha256(path)
                if _identity(path) == key:  # else it was being written: the digest is of no file
                    known[key] = digest
                    self._store()
                return digest
            return known[key]

    def _load(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            if self._path is not None:
                try:
                    stored = json.loads(self._path.read_text())
                    self._known = {str(key): str(value) for key, value in stored.items()}
                except (OSError, ValueError, AttributeError):
                    pass  # no cache yet, or a damaged one: it is only a cache
        return self._known

    def _store(self) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            draft.write_text(json.dumps(self._known))
            draft.replace(self._path)
        except OSError as error:
            log.debug("checksums are not kept: %s", error)


def _identity(path: str) -> str:
    facts = os.stat(path)
    return f"{os.path.realpath(path)}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ino}"


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
