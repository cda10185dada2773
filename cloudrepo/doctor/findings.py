"""A finding: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from cloudrepo.late_dataclass import dataclass


class Level(IntEnum):
    """How bad a finding is; the worst one decides the exit status."""

    OK = 0
    UNKNOWN = 1
    WARNING = 2
    WRONG = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        code: stable and parseable, such as `access.sshd.forwarding`.
        level: how it is.
        text: what was found, in one sentence without a full stop.
        evidence: the words it was read from; empty where the sentence has them.
        remedy: what to do, as a sentence or lines to write; empty when nothing is to be done.
        hosts: addresses of the hosts it is about; empty = this machine, or all of them.
    """

    code: str
    level: Level
    text: str
    evidence: str = ""
    remedy: str = ""
    hosts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As documents have it; `level` is the word in lower case."""
        return {
            "code": self.code,
            "level": self.level.name.lower(),
            "text": self.text,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "hosts": list(self.hosts),
        }


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level; OK when there is no finding."""
    return max((finding.level for finding in findings), default=Level.OK)
