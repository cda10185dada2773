"""What a state file stands on: whose it is, and whether its filesystem has locks."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from cloudrepo.errors import StateFileError
from cloudrepo.stores.files import Owner

log = logging.getLogger(__name__)

#: Filesystems whose locks other machines may not see, or that may have none.
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "ncpfs")
_told: set[Path] = set()


def check_owner(path: Path) -> Owner | None:
    """Who owns a state file; None when there is none yet.

    Raises:
        StateFileError: it is somebody else's, and this process is not root.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    if os.geteuid() not in (0, found.st_uid):
        raise StateFileError(
            f"{path} belongs to another account",
            evidence=f"its owner is uid {found.st_uid}, this is uid {os.geteuid()}",
            remedy="Work as its owner, or make an installation of your own: ./cloud init DIR",
            code="state.owner",
        )
    return Owner(found.st_uid, found.st_gid)


def filesystem_type(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the filesystem a file is on, such as `ext4`; empty when that is not known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two on one point the later one is seen
            best, kind = point, after.split(" ")[0]
    return kind


def without_sure_locks(path: Path) -> str:
    """Why several machines or processes may not share a state file safely, or an empty text."""
    kind = filesystem_type(path)
    if kind in REMOTE or kind.startswith("fuse."):
        return f"{path.parent} is on {kind}, where locks may not hold between machines: use it from one machine only"
    if path in _told:
        return f"{path.parent} has no locks: only one process may use it at a time"
    return ""


def warn_of_remote(path: Path) -> None:
    """Log once that a state file is on a filesystem that other machines may write to."""
    reason = "" if path in _told else without_sure_locks(path)
    if reason:
        log.warning("%s", reason)


def warn_of_no_locks(path: Path, error: OSError) -> None:
    """Log once that there are no locks."""
    if path not in _told:
        _told.add(path)
        log.warning("%s has no locks (%s): only one process may use it at a time", path.parent, error.strerror)
