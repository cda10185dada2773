"""What the façade has besides its calls: the parts that act on hosts, made when they are first needed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from control.context import Context

if TYPE_CHECKING:
    from cloudrepo.site import Site
    from deployment_api import DeploymentAPI
    from vlan_manager import VLANManager
    from vm_launcher import VMLauncher
    from worker_discovery import WorkerDiscovery


class Parts:
    """A part of `OrchestratorAPI`.

    Attributes:
        context: the installation at work.
    """

    context: Context

    @property
    def deployment_api(self) -> DeploymentAPI:
        """Makes VMs and disks."""
        return self.context.deployment

    @property
    def executor(self) -> Any:
        """Talks to all hosts: a `RemoteExecutor`, or what stands in for it."""
        return self.context.deployment.executor

    @property
    def site(self) -> Site:
        """Executor, settings and marks."""
        return self.context.site

    @property
    def discovery(self) -> WorkerDiscovery:
        """Asks workers what they are."""
        return self.context.discovery

    @cached_property
    def vm_launcher(self) -> VMLauncher:
        """The VMs of a worker, by hand."""
        from vm_launcher import VMLauncher

        return VMLauncher(self.executor, site=self.site)

    @cached_property
    def vlan_manager(self) -> VLANManager:
        """The networks of the network node, by hand."""
        from vlan_manager import VLANManager

        return VLANManager(self.executor, self.context.settings.network.node, site=self.site)
