"""The calls of the façade that are about hosts as such: proving them, and workers that come and go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from control import late
from control.authority import Session
from control.calls import answers as _answers, changes as _changes
from control.context import Context


class HostCalls:
    """A part of `OrchestratorAPI`.

    Attributes:
        context: the installation at work.
        session: who is behind the calls.
    """

    context: Context
    session: Session

    @_answers
    def doctor(self, hosts: Collection[str] = (), vlans: Collection[int] = (), *, username: str | None = None) -> Any:
        """Prove the hosts before a class: `findings`, `fixes`, `hosts`, `vlans`, `seconds`; see docs/doctor.md."""
        return late.host_mending.look(self.context, hosts, vlans)

    @_changes
    def doctor_fix(
        self,
        hosts: Collection[str] = (),
        vlans: Collection[int] = (),
        agreed: Collection[Mapping[str, str]] | None = None,
        *,
        username: str | None = None,
    ) -> Any:
        """Set right on hosts what is ours to set right: as `doctor`, a second look, and `changed` and `failed`.

        `agreed`: nothing but these of the `fixes` of a `doctor`; None = whatever is found.
        """
        return late.host_mending.mend(self.context, hosts, vlans, agreed)

    @_changes
    def bootstrap_worker(
        self, ip: str, *, username: str | None = None, uplink: str = "", admin: str = "", datapath: str = ""
    ) -> Any:
        """Install and set up on a host what a worker needs: `changed`, `warnings`. See `control.workers`."""
        return late.workers.bootstrap(self.context, ip, uplink=uplink, admin=admin, datapath=datapath)

    @_changes
    def drain_worker(self, ip: str, *, username: str | None = None, undo: bool = False) -> Any:
        """Place no new VM on a worker, or some again: `ip`, `is_drained`, `changed`, `vms` (those that are there)."""
        return late.workers.drain(self.context, ip, undo=undo)

    @_changes
    def remove_worker(self, ip: str, *, username: str | None = None, force: bool = False) -> Any:
        """Take a worker out of the installation: `ip`, `removed` (from the host), `vms` and `left` (that stay)."""
        return late.workers.remove(self.context, ip, force=force)

    @_changes
    def harden_worker(self, ip: str, *, username: str | None = None, admin: str = "", undo: bool = False) -> Any:
        """Install the helper on a host, or take it away: `changed`, `warnings`. `admin` is an account that is root."""
        return late.hardening.harden(self.context, ip, admin=admin, undo=undo)
