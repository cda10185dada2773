"""What acts on hosts: executor, deployment, discovery, marks. Made when a call first needs a host.

All of it takes longer to load than most one-shot commands take, and most of them only look into the records.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudrepo.observations import Seen
    from cloudrepo.settings import Settings
    from cloudrepo.site import Site
    from database import Database
    from deployment_api import DeploymentAPI
    from worker_discovery import WorkerDiscovery


class Machinery:
    """The parts of one installation that talk to hosts. Several threads may ask for them.

    Args:
        db: the records.
        settings: of this installation.
        deployment: makes VMs; or what makes it, called once, when it is first needed.
        seen: what the monitor saw of workers.
    """

    def __init__(
        self,
        db: Database,
        settings: Settings,
        deployment: DeploymentAPI | Callable[[], DeploymentAPI],
        seen: Callable[[], Mapping[str, Seen]],
    ) -> None:
        self._db = db
        self._settings = settings
        self._deployment = deployment
        self._seen = seen
        self._lock = threading.Lock()
        self._made: tuple[DeploymentAPI, Site, WorkerDiscovery] | None = None
        if not callable(deployment):
            self._parts()

    @property
    def is_made(self) -> bool:
        """Whether anything has needed a host yet."""
        return self._made is not None

    @property
    def deployment(self) -> DeploymentAPI:
        """Makes VM objects and disks."""
        return self._parts()[0]

    @property
    def site(self) -> Site:
        """Executor, settings and marks."""
        return self._parts()[1]

    @property
    def discovery(self) -> WorkerDiscovery:
        """Asks workers what they are."""
        return self._parts()[2]

    def _parts(self) -> tuple[DeploymentAPI, Site, WorkerDiscovery]:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> tuple[DeploymentAPI, Site, WorkerDiscovery]:
        from cloudrepo.site import Site
        from worker_discovery import WorkerDiscovery

        db, settings, given = self._db, self._settings, self._deployment
        deployment = given() if callable(given) else given
        discovery = WorkerDiscovery(db, deployment.executor, settings=settings)
        discovery.seen = self._seen
        site = Site(
            executor=deployment.executor,
            settings=settings,
            installation=db.installation,
            next_operation=db.next_operation,
            cache_dir=db.path.parent / ".cloudrepo",
            accelerator_of=discovery.accelerator_of,
        )
        deployment.attach(site)
        return deployment, site, discovery
