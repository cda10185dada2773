"""What a runner can do to hold a process within limits."""

from __future__ import annotations

from typing import ClassVar

from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import Act


@dataclass(frozen=True, kw_only=True)
class Confine(Act):
    """Put a running process, all threads of it, into a cgroup2 of its own; made, or set right, before.

    `limits` are pairs of a file of the group and what is written there. Controllers are handed down from the directory
    above the group, which is ours, and never from the root. It fails when no process of ours is named in the pid file,
    and when a file is not there.
    """

    ACT: ClassVar[str] = "confine"
    pid_file: str
    token: str
    group: str
    limits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Release(Act):
    """Remove a cgroup2 in which nobody is any more, and the directory above it if it is empty. Gone is done."""

    ACT: ClassVar[str] = "release"
    group: str
