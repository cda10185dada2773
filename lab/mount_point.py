"""The machine's /tmp/vm_images: the one thing of a lab outside its folder.

The orchestrator must see the lab's images at the documented path, and a mount
needs a directory to lie on.  Where the machine has none, an empty one is made while
a lab is up; the last lab that goes down takes it away.  The mount itself is in the
lab's own mount namespace.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.layout import IMAGE_FOLDER


@contextmanager
def _one_lab_at_a_time() -> Iterator[None]:
    """Lock the parent directory itself, so that no lock file is left in it."""
    descriptor = os.open(IMAGE_FOLDER.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def provided() -> Iterator[bool]:
    """Make the directory if needed and keep it until the caller has mounted.

    Yields:
        Whether it is a lab's, so that a lab may take it away.
    """
    with _one_lab_at_a_time():
        existed = IMAGE_FOLDER.exists()
        IMAGE_FOLDER.mkdir(mode=0o755, exist_ok=True)
        yield not existed or _used_by_a_lab()


def take_away() -> None:
    """Remove the directory unless another lab's mount lies on it or it has content."""
    with _one_lab_at_a_time():
        if IMAGE_FOLDER.is_dir() and not _used_by_a_lab():
            try:
                IMAGE_FOLDER.rmdir()
            except OSError:
                return  # somebody put files there: it is theirs now


def _used_by_a_lab() -> bool:
    """Whether any process sees a mount there; a removal would tear that mount off."""
    seen: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            namespace = os.stat(f"/proc/{name}/ns/mnt").st_ino
            if namespace in seen:
                continue
            seen.add(namespace)
            mounts = Path(f"/proc/{name}/mountinfo").read_text(encoding="utf-8")
        except OSError:
            continue
        if any(line.split(" ")[4] == str(IMAGE_FOLDER) for line in mounts.splitlines()):
            return True
    return False
