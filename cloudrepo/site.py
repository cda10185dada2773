"""What the rooms that act on hosts share: who talks to hosts, the settings, whose marks we make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import field
from pathlib import Path
from typing import Any

from cloudrepo import guest_accounts
from cloudrepo.errors import CloudError
from cloudrepo.hosts import NextOperation, seen_by_hosts
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import MANUAL, UNFINISHED, Mark
from cloudrepo.probe import Host
from cloudrepo.reconcile import Outcome, Reconciler, Target
from cloudrepo.settings import Settings

#: Whose marks a manager makes when it is used without a database.
NO_INSTALLATION = "00000000"


@dataclass(kw_only=True)
class Site:
    """One installation: an executor, the settings, a name for its marks, and a source of operation numbers.

    Attributes:
        executor: a `RemoteExecutor`, or what stands in for it.
        settings: as loaded for the state file.
        installation: eight hex digits.
        next_operation: gives the next operation number; hosts refuse lower ones than they have seen.
        cache_dir: directory of this machine for what need not be computed again; None = nothing is kept.
        accelerator_of: `kvm` or `tcg` for a worker, as proved by discovery.
    """

    executor: Any
    settings: Settings = field(default_factory=Settings)
    installation: str = NO_INSTALLATION
    next_operation: NextOperation = lambda above=0: max(time.time_ns() // 1000, above + 1)
    accelerator_of: Callable[[str], str] = lambda ip: "tcg"
    cache_dir: Path | None = None
    _hosts: dict[str, Host] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def user(self) -> str:
        """The account that guests run as which have no number of their own."""
        return self.settings.qemu.user or str(self.executor.remote_user)

    @property
    def reconciler(self) -> Reconciler:
        """A reconciler for this installation."""
        return Reconciler(
            self.executor,
            installation=self.installation,
            parallel=self.settings.deploy.parallel_machines,
            quit_grace_s=self.settings.qemu.quit_grace,
        )

    def mark(self, scope: str, vm_id: int | None = None, detail: str = "") -> Mark:
        """A mark of this installation."""
        return Mark(self.installation, scope, vm_id, detail)

    def host(self, ip: str) -> Host:
        """What must be known of a host to look at it; its home directory is asked for once.

        Raises:
            HostError: it cannot be reached.
        """
        with self._lock:
            known = self._hosts.get(ip)
        if known is None:
            known = Host(
                ip=ip,
                installation=self.installation,
                bridge=self.settings.network.bridge,
                base_dir=self.resolve(ip, self.settings.images.base_dir),
                is_network_node=ip == self.settings.network.node,
                user=self.user,
                first_uid=guest_accounts.first_uid(self.settings),
                is_limited=self.settings.network.rate_mbps > 0,
            )
            with self._lock:
                self._hosts[ip] = known
        return known

    def hosts(self, ips: Iterable[str]) -> dict[str, Host | CloudError]:
        """Several hosts, asked at once."""
        found: dict[str, Host | CloudError] = self.executor.gather(
            {ip: _host_of(self, ip) for ip in dict.fromkeys(ips)}
        )
        return found

    def resolve(self, ip: str, path: str) -> str:
        """A path of images on a host with a leading `~` replaced by what it means there."""
        if path != "~" and not path.startswith("~/"):
            return path
        return str(self.executor.images_home(ip)) + path[1:]

    def apply_manual(self, target: Target, about: Mark, *, progress: Any = None) -> Outcome:
        """Apply one host's wish for something made by hand, outside of any slice.

        Args:
            target: the host and what should be there.
            about: names the VM or, without one, the VLAN (as detail) it is about; nothing else is touched.
            progress: told of each step.
        """

        def speaks_for(mark: Mark) -> bool:
            is_it = mark.vm_id == about.vm_id and (about.vm_id is not None or mark.detail == about.detail)
            return is_it and mark.scope in (MANUAL, UNFINISHED)

        def once(above: int) -> Outcome:
            return self.reconciler.apply(
                [target], scope=speaks_for, lock=MANUAL, operation=self.next_operation(above), progress=progress
            )

        outcome = once(0)
        seen = seen_by_hosts(outcome.errors.values())
        return once(seen) if seen else outcome


def _host_of(site: Site, ip: str) -> Callable[[], Host]:
    return lambda: site.host(ip)
