"""Files of this machine on their way to a host: their digest, and their content in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudrepo.transports.ssh import BLOCK


def file_digest(path: Path, length: int | None = None) -> str:
    """SHA-256, in hex, of a local file or of its first `length` bytes."""
    digest = hashlib.sha256()
    left = path.stat().st_size if length is None else length
    with path.open("rb") as file:
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def read_blocks(path: Path, offset: int, size: int, report: Callable[[int, int], None]) -> Iterator[bytes]:
    """A local file from `offset` on, in blocks fit for one write, with a report every MiB and at the end."""
    done = offset
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(BLOCK):
            yield block
            done += len(block)
            if done % (1 << 20) < BLOCK or done == size:
                report(done, size)
