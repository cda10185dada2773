"""What a person is told while hosts work."""

from __future__ import annotations

from collections.abc import Callable

from cloudrepo.late_dataclass import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step of one host began or ended.

    Attributes:
        host: where.
        label: what, in a person's words.
        done: False when it began, True when it ended.
        ok: whether its answer was accepted; meaningless until `done`.
        seconds: how long it took.
        step, total: its place among the steps of this host, from 1.
    """

    host: str
    label: str
    done: bool = False
    ok: bool = True
    seconds: float = 0.0
    step: int = 0
    total: int = 0


ProgressCallback = Callable[[Progress], None]
