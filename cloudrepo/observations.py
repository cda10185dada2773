"""What hosts reported, as the process that watches saw it: written by it, read by all.

`.cloudrepo/observed.json` is replaced whole after every pass. It is never a `status`: records say what should be,
this says what was seen, and how long ago. Times are of the monotonic clock, which no jump of the wall clock moves;
those of another boot of this machine are shifted when they are read.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudrepo.late_dataclass import dataclass

log = logging.getLogger(__name__)

FILE_NAME = "observed.json"
SCHEMA_VERSION = 1
STALE_INTERVALS = 4  # what is older than so many intervals decides nothing any more

#: States of a worker.
UP, SUSPECT, DOWN = "up", "suspect", "down"
#: What is seen of a VM. `off`: nothing runs, and nothing should.
RUNNING, PAUSED, KILLED, UNREACHABLE, OFF = "running", "paused", "killed", "unreachable", "off"


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """One host.

    Attributes:
        state: `up`, `suspect` (missed a pass) or `down` (missed several).
        reason: why it is not up.
        since: when it came into this state.
        misses: passes missed in a row.
        boot_id: of its last answer; another one after each boot.
        busy_ticks, all_ticks: of its processors since its boot (proc(5), /proc/stat).
        cpu_percent: of all its processors, between the last two answers; None = not known yet.
        ram_mib, ram_free_mib: MemTotal and MemAvailable.
        disk_gib, disk_free_gib: of the file system of the image folder.
    """

    state: str
    reason: str = ""
    since: float = 0.0
    misses: int = 0
    boot_id: str = ""
    busy_ticks: int = 0
    all_ticks: int = 0
    cpu_percent: float | None = None
    ram_mib: float | None = None
    ram_free_mib: float | None = None
    disk_gib: float | None = None
    disk_free_gib: float | None = None


@dataclass(frozen=True, kw_only=True)
class VmView:
    """One VM.

    Attributes:
        state: `running`, `paused`, `killed`, `unreachable`, `off`, or "" when nothing is known yet.
        reason: why it is not running, such as QEMU's last words.
        since: when it came into this state.
        pid: of the process seen last, dead or alive.
        misses: passes in a row in which its QMP socket did not answer.
        by_guest: whether it is not running because the guest powered itself off.
        is_given_up: whether it was restarted so often that it no longer is.
        restarts: when it was restarted, as far as that counts.
    """

    state: str = ""
    reason: str = ""
    since: float = 0.0
    pid: int | None = None
    misses: int = 0
    by_guest: bool = False
    is_given_up: bool = False
    restarts: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SliceView:
    """Attempts at a slice that is not as it should be.

    Attributes:
        attempts: how many in a row did not help.
        last: when the last one began.
    """

    attempts: int = 0
    last: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One pass.

    Attributes:
        workers: by address.
        vms: by id.
        slices: by id, attempts to bring back what it lost.
        clearings: by id, attempts to clear hosts that missed its undo, stop or delete.
        taken: when, by the monotonic clock.
        taken_at: when, ISO 8601 in UTC, for people.
        boot: of the machine that took it; its monotonic clock starts anew with each.
        interval_s: pause between two passes.
        took_s: how long it took to ask all hosts.
        save_error: why the state could not be saved, or "".
    """

    workers: Mapping[str, WorkerView] = field(default_factory=dict)
    vms: Mapping[int, VmView] = field(default_factory=dict)
    slices: Mapping[int, SliceView] = field(default_factory=dict)
    clearings: Mapping[int, SliceView] = field(default_factory=dict)
    taken: float = 0.0
    taken_at: str = ""
    boot: str = ""
    interval_s: float = 15.0
    took_s: float = 0.0
    save_error: str = ""

    def shifted(self, seconds: float) -> Snapshot:
        """The same with all monotonic times moved."""
        return replace(
            self,
            taken=self.taken + seconds,
            workers={ip: replace(one, since=one.since + seconds) for ip, one in self.workers.items()},
            vms={
                vm_id: replace(one, since=one.since + seconds, restarts=tuple(when + seconds for when in one.restarts))
                for vm_id, one in self.vms.items()
            },
            slices=_shifted(self.slices, seconds),
            clearings=_shifted(self.clearings, seconds),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Snapshot:
        """The inverse of `to_json`. A file of an older version has no `clearings`: they begin anew.

        Raises:
            ValueError, TypeError, LookupError: it is none.
        """
        if value["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema {value['schema_version']}")
        rest = {key: item for key, item in value.items() if key != "schema_version"}
        rest["workers"] = {ip: WorkerView(**one) for ip, one in value["workers"].items()}
        for name in ("slices", "clearings"):
            rest[name] = {int(number): SliceView(**one) for number, one in value.get(name, {}).items()}
        rest["vms"] = {
            int(vm_id): VmView(**{**one, "restarts": tuple(one["restarts"])}) for vm_id, one in value["vms"].items()
        }
        return cls(**rest)


def _shifted(views: Mapping[int, SliceView], seconds: float) -> dict[int, SliceView]:
    return {number: replace(one, last=one.last + seconds) for number, one in views.items()}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the monitor saw of a worker: `reason` is why it is down, or empty; `when` by the monotonic clock."""

    reason: str
    when: float


class Observations:
    """The file beside a state file.

    Args:
        folder: where it is.
        clock: the monotonic clock.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = folder / FILE_NAME
        self.clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._snapshot: Snapshot | None = None

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file. Without a sync: what was seen can be seen again.

        Raises:
            OSError: it cannot be written.
        """
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        draft = self.path.with_name(f".{FILE_NAME}.{os.getpid()}.new")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump(snapshot.to_json(), file, separators=(",", ":"))
            os.replace(draft, self.path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def read(self) -> Snapshot | None:
        """The last pass, however old, with its times shifted to this boot; None when there is none that can be read."""
        try:
            facts = self.path.stat()
            mark = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if mark != self._seen:
                self._snapshot = self._here(Snapshot.from_json(json.loads(self.path.read_text(encoding="utf-8"))))
                self._seen = mark
        except FileNotFoundError:
            self._snapshot = self._seen = None
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("%s cannot be read and is passed over: %r", self.path, error)
            self._snapshot = self._seen = None
        return self._snapshot

    def fresh(self) -> Snapshot | None:
        """The last pass if it is recent enough to decide by."""
        snapshot = self.read()
        return None if snapshot is None or self.is_stale(snapshot) else snapshot

    def up(self) -> dict[str, WorkerView]:
        """Workers that were up at the last pass, if that is recent enough to decide by."""
        snapshot = self.fresh()
        return {ip: one for ip, one in snapshot.workers.items() if one.state == UP} if snapshot else {}

    def seen(self) -> dict[str, Seen]:
        """What was just seen of workers; those that may be down or not are left out."""
        snapshot = self.fresh()
        workers = snapshot.workers.items() if snapshot is not None else ()
        when = snapshot.taken if snapshot is not None else 0.0
        return {ip: Seen(reason=one.reason, when=when) for ip, one in workers if one.state != SUSPECT}

    def age_s(self, snapshot: Snapshot) -> float:
        """How long ago it was taken."""
        return max(0.0, self.clock() - snapshot.taken)

    def is_stale(self, snapshot: Snapshot) -> bool:
        """Whether it is too old to decide by."""
        return self.age_s(snapshot) > STALE_INTERVALS * snapshot.interval_s + snapshot.took_s

    def _here(self, snapshot: Snapshot) -> Snapshot:
        """One of another boot, of this machine or another, is moved so that its age is that of the wall clock."""
        if snapshot.boot == this_boot():
            return snapshot
        try:
            age_s = (datetime.now(UTC) - datetime.fromisoformat(snapshot.taken_at)).total_seconds()
        except (ValueError, TypeError):
            age_s = 0.0
        return snapshot.shifted(self.clock() - max(0.0, age_s) - snapshot.taken)


def this_boot() -> str:
    """The kernel's name for this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
