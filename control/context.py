"""What every use case needs, and the checks that come before any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudrepo import placement
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.events import EventLog
from cloudrepo.late_dataclass import dataclass
from cloudrepo.observations import Observations
from cloudrepo.settings import Settings
from cloudrepo.state import find_slice, find_vm
from control.machinery import Machinery
from database import Database

if TYPE_CHECKING:
    from cloudrepo.image_library import Library
    from cloudrepo.site import Site
    from deployment_api import DeploymentAPI
    from worker_discovery import WorkerDiscovery

Record = dict[str, Any]


@dataclass(kw_only=True)
class Context:
    """One installation at work.

    Attributes:
        db: the records.
        settings: of this installation.
        machinery: what acts on hosts, made when it is first needed.
        events: who did what, and what became of it.
        observations: what hosts reported, as the process that watches saw it.
    """

    db: Database
    settings: Settings
    machinery: Machinery
    events: EventLog
    observations: Observations

    _index_in_memory: int = 0

    @property
    def deployment(self) -> DeploymentAPI:
        """Makes VM objects and disks."""
        return self.machinery.deployment

    @property
    def site(self) -> Site:
        """Executor, settings and marks."""
        return self.machinery.site

    @property
    def discovery(self) -> WorkerDiscovery:
        """Asks workers what they are."""
        return self.machinery.discovery

    @property
    def login(self) -> str:
        """The account on the hosts."""
        return str(self.site.executor.remote_user) if self.machinery.is_made else self.settings.ssh.user

    def down_reasons(self) -> dict[str, str]:
        """Workers known to be down and why: those that did not answer here, or that the monitor saw to be."""
        if self.machinery.is_made:
            return self.discovery.down_reasons()
        return {ip: seen.reason for ip, seen in self.observations.seen().items() if seen.reason}

    @property
    def library(self) -> Library:
        """The images that people added."""
        from cloudrepo.image_library import Library

        folder = Path(self.settings.images.store or "images").expanduser()
        return Library(self.db.path.resolve().parent / folder)

    @contextmanager
    def index_kept(self) -> Iterator[None]:
        """A block after which the round robin stands where it did; what is in the state file a transaction keeps."""
        before = self._index_in_memory
        try:
            yield
        finally:
            self._index_in_memory = before

    def round_robin_index(self, data: Mapping[str, Any]) -> int:
        """Where the round robin stands: in the state file, or in memory as documented."""
        if self.settings.scheduler.index == "memory":
            return self._index_in_memory
        return placement.start_index(data, self.settings)

    def advance_round_robin(self, data: Record, index: int) -> None:
        """Move it on; inside a transaction."""
        if self.settings.scheduler.index == "memory":
            self._index_in_memory = index
        else:
            data["placements"] = index


def user_record(data: Mapping[str, Any], username: Any) -> Record:
    """A user's record.

    Raises:
        RefusedError: `User not found`.
    """
    user: Record | None = data["users"].get(username) if isinstance(username, str) else None
    if user is None:
        raise RefusedError("User not found", code="user.unknown")
    return user


def known_slice(data: Mapping[str, Any], username: Any, slice_id: Any) -> Record:
    """A slice that an existing user names. Whether he may use it was asked at the façade (`control.authority`).

    Raises:
        RefusedError: `User not found` or `Slice not found`.
    """
    user_record(data, username)
    record = find_slice(data, slice_id) if isinstance(slice_id, (int, str)) and not isinstance(slice_id, bool) else None
    if record is None:
        raise RefusedError("Slice not found", code="slice.unknown")
    return record


def owned_vm(record: Mapping[str, Any], vm_id: Any) -> Record:
    """A VM of this slice.

    Raises:
        RefusedError: there is none with this id.
    """
    vm = find_vm(record, vm_id) if isinstance(vm_id, int) and not isinstance(vm_id, bool) else None
    if vm is None:
        known = ", ".join(f"{one['vm_id']} ({one['name']})" for one in record["vms"]) or "none"
        raise RefusedError(
            f"there is no VM {vm_id} in slice {record['slice_id']}",
            evidence=f"its VMs are {known}",
            code="vm.unknown",
        )
    return vm


def first_error(errors: Mapping[str, CloudError]) -> CloudError:
    """The error to report: the first in the documented order, which is the order of the targets."""
    return next(iter(errors.values()))
