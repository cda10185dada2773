"""The line under each prompt: who is there, what is used, what is under way, and what is wrong.

It is looked up beside the person and not while they type: a prompt waits for nobody. It only reads records and what
the monitor has seen; no host is contacted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cli.text import count
from cloudrepo.late_dataclass import dataclass
from cloudrepo.observations import SUSPECT

if TYPE_CHECKING:
    from cli.screens.context import Context

LOOK_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Status:
    """What the line says.

    Attributes:
        user, role: who is logged in.
        used, limit: VMs in use, and how many there may be; None = not known.
        slice: the slice at hand, such as `1000 running`; empty = none.
        up, suspect, down: how many workers answer, missed a look, and do not answer.
        under_way: operations that somebody is at, and what was left running here.
        wrong: what keeps things from being as they should be, the worst first.
    """

    user: str
    role: str
    used: int | None = None
    limit: object = None
    slice: str = ""
    up: int = 0
    suspect: int = 0
    down: int = 0
    under_way: int = 0
    wrong: tuple[str, ...] = ()

    def line(self, width: int) -> str:
        """As much of it as fits: what is wrong is left out last, the role first."""
        who = self.user if self.role == "student" else f"{self.user} ({self.role})"
        quota = "" if self.used is None else f"VMs {self.used} of {self.limit}"
        rest = ((self.suspect, "suspect"), (self.down, "down"))
        workers = ", ".join([f"workers {self.up} up", *(f"{number} {word}" for number, word in rest if number)])
        work = f"{count(self.under_way, 'operation')} under way" if self.under_way else ""
        at_hand = f"slice {self.slice}" if self.slice else ""
        more = f" (and {len(self.wrong) - 1} more)" if len(self.wrong) > 1 else ""
        trouble = "".join(self.wrong[:1]) + more
        whole = [who, quota, at_hand, workers, work, "; ".join(self.wrong)]
        shorter = (
            [who, quota, at_hand, workers, work, trouble],
            [self.user, quota, at_hand, workers, work, trouble],
            [self.user, quota, at_hand, work, trouble],
            [self.user, work, trouble],
            [trouble],
        )
        fitting = (parts for parts in (whole, *shorter) if len(_joined(parts)) <= width)
        return _joined(next(fitting, shorter[-1]))[:width]


def _joined(parts: Sequence[str]) -> str:
    return " | ".join(part for part in parts if part)


def look(context: Context) -> Status:
    """What is to be said now. It reads what the façade would, and leaves no line in the log each time."""
    from control import recovery, views

    records, name = context.api.context, context.username
    slices = views.slices_of(records, name)
    user = records.db.get_user(name) or {}
    cluster = views.cluster(records)
    unfinished = [one.to_dict() for one in recovery.unfinished_for(records, name)]
    mine = [one for one in context.work if not one.is_over]
    own = {one.slice_id for one in mine}
    others = [one for one in unfinished if not one["is_dead"] and one["slice_id"] not in own]
    left = [one for one in unfinished if one["is_dead"] and not one["is_waiting"]]
    return Status(
        user=name,
        role=context.role,
        used=user.get("used_vms"),
        limit=user.get("quota_vms"),
        slice=_at_hand(context, slices),
        up=sum(worker["state"] == "up" for worker in cluster["workers"]),
        suspect=sum(worker["state"] == SUSPECT for worker in cluster["workers"]),
        down=sum(worker["state"] == "down" for worker in cluster["workers"]),
        under_way=len(mine) + len(others),
        wrong=tuple(_wrong(context.save_error(), cluster, left)),
    )


def _at_hand(context: Context, slices: Sequence[Mapping[str, Any]]) -> str:
    found = next((one for one in slices if one["slice_id"] == context.last_slice), None)
    return f"{found['slice_id']} {found['status']}" if found is not None else ""


def _wrong(save_error: str, cluster: Mapping[str, Any], left: Sequence[object]) -> list[str]:
    monitor = cluster.get("monitor") or {}
    found = []
    if save_error or monitor.get("save_error"):
        found.append("DEGRADED: the state cannot be saved")
    node = cluster.get("network_node")
    if any(worker["ip"] == node and worker["state"] == "down" for worker in cluster["workers"]):
        found.append("DEGRADED: the network node is down")
    if left:
        found.append(f"{count(len(left), 'operation')} unfinished: see 13")
    if monitor.get("is_stale"):
        found.append("DEGRADED: nobody looked at the hosts for long")
    return found


class StatusLine:
    """The status, kept up to date by a thread of its own.

    Args:
        context: whose.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._status = Status(user=context.username, role=context.role)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Look once, and go on looking."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def refresh(self) -> None:
        """Look now. What cannot be read now is said by whatever needs it; the line stays as it was."""
        from cloudrepo.errors import CloudError

        try:
            self._status = look(self._context)
        except (CloudError, OSError) as error:
            self._status = replace(self._status, wrong=(f"DEGRADED: {error}",))

    def text(self, width: int) -> str:
        """The line as it is known."""
        return self._status.line(width)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.refresh()
