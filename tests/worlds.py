"""What the tests of deciding and acting share: a site, hosts, and wishes in a few words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import vlan_manager
import vm_launcher
from cloudrepo.commands.dnsmasq import Lease
from cloudrepo.diff import Scope
from cloudrepo.naming import Mark
from cloudrepo.probe import Host
from cloudrepo.reconcile import Outcome, Reconciler, Target
from cloudrepo.resources import Disk, HostState, Resource
from cloudrepo.settings import Settings
from control.targets import slice_scope
from fakes.host import FakeExecutor, ModelHost

OURS = "ab12cd34"
WORKER, NODE = "10.0.10.1", "10.0.10.3"
SETTINGS = Settings.of({})
Wish = Callable[[HostState], Sequence[Resource]]


def mark(scope: str | int = 1000, vm_id: int | None = None, detail: str = "", *, installation: str = OURS) -> Mark:
    return Mark(installation, str(scope), vm_id, detail)


def host(ip: str = NODE, *, installation: str = OURS) -> Host:
    return Host(
        ip=ip,
        installation=installation,
        bridge="br-int",
        base_dir="/home/ubuntu/vm_images",
        is_network_node=ip == NODE,
        user="ubuntu",
    )


def nic(index: int, vlan: int | None, vm_id: int = 1001) -> dict[str, Any]:
    return {
        "name": f"eth{index}",
        "mac": f"52:54:00:{vm_id >> 8 & 255:02x}:{vm_id & 255:02x}:{index:02x}",
        "vlan_id": vlan,
        "ip_config": {"ip": f"192.168.{(vlan or 0) % 256}.{10 + index}", "netmask": "255.255.255.0"} if vlan else None,
        "link_id": None,
    }


def vm(vm_id: int = 1001, vlans: Iterable[int | None] = (None, 100), *, worker: str = WORKER) -> dict[str, Any]:
    return {
        "vm_id": vm_id,
        "name": f"vm{vm_id - 1000}",
        "owner": "ann",
        "worker_ip": worker,
        "flavor": "cirros",
        "cores": 1,
        "ram_gb": 0.5,
        "disk_gb": 1,
        "vnc_port": 4900 + vm_id,
        "interfaces": [nic(index, vlan, vm_id) for index, vlan in enumerate(vlans)],
        "qcow_image": f"~/vm_images/vm{vm_id - 1000}_img.qcow2",
        "status": "design",
        "pid": None,
    }


def lease(number: int, vlan: int) -> Lease:
    base = "10.60.7" if vlan == 400 else f"192.168.{vlan % 256}"
    return Lease(mac=f"52:54:00:03:e9:{number:02x}", ip=f"{base}.{number}", hostname=f"vm{number}")


@dataclass(frozen=True)
class World:
    """What one slice should have on one host that is network node and worker in one.

    Attributes:
        links: by VLAN, the numbers of the leases on it.
        internet: numbers of the leases on VLAN 400; None = there is none.
        vms: by VM id, the VLAN of each NIC.
        scope: the slice.
    """

    links: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    internet: tuple[int, ...] | None = None
    vms: Mapping[int, tuple[int | None, ...]] = field(default_factory=dict)
    scope: int = 1000
    settings: Settings = SETTINGS

    def wanted(self, on: Host, seen: HostState) -> list[Resource]:
        resources: list[Resource] = []
        for vlan, numbers in self.links.items():
            base = f"192.168.{vlan % 256}"
            resources += vlan_manager.link_resources(
                mark(self.scope, None, str(vlan)),
                vlan,
                f"{base}.0/24",
                f"{base}.1",
                [lease(number, vlan) for number in numbers],
                self.settings,
            )
        if self.internet is not None:
            leases = [lease(number, 400) for number in self.internet]
            resources += vlan_manager.internet_resources(
                mark("shared", None, "400"), "10.60.7.0/24", "10.60.7.1", leases, self.settings, seen.facts, [NODE]
            )
        for vm_id, vlans in self.vms.items():
            disk = f"/home/ubuntu/vm_images/vm{vm_id}_img.qcow2"
            resources += vm_launcher.vm_resources(
                str(self.scope), vm(vm_id, vlans), on, seen.facts, self.settings, disk=disk, accelerator="tcg"
            )
        return [*resources, *(disk for disk in seen.of(Disk) if disk.mark and disk.mark.scope == str(self.scope))]

    @property
    def speaks_for(self) -> Scope:
        record = {"slice_id": 1000, "vms": [{"vm_id": 1001}, {"vm_id": 1002}], "links": []}
        record["links"] = [{"vlan_id": vlan} for vlan in (100, 101, 356)]
        other = {"slice_id": self.scope, "vms": [], "links": []}
        return slice_scope(record if self.scope == 1000 else other)


def give_disk(
    model: ModelHost,
    vm_id: int,
    scope: int | str = 1000,
    *,
    installation: str = OURS,
    name: str = "",
    record: Mapping[str, Any] | None = None,
) -> str:
    """A VM's disk as `deployment_api` leaves it."""
    directory = f"/home/ubuntu/vm_images/.cloudrepo-{installation}/vm-{vm_id}"
    path = f"/home/ubuntu/vm_images/{name or f'vm{vm_id}'}_img.qcow2"
    model.directories.add(directory)
    model.files[path] = "qcow2"
    text = mark(scope, vm_id, "disk", installation=installation)
    base = "/home/ubuntu/vm_images/base/0123456789abcdef-cirros.img"
    model.files[base] = "base"
    model.files[f"{directory}/overlay.qcow2"] = "qcow2"
    model.inodes[f"{directory}/overlay.qcow2"] = model.inodes[path] = next(model.numbers)
    model.files[f"{directory}/mark.json"] = json.dumps(
        {"mark": str(text), "disk": path, "base": {"path_on_host": base}, "record": dict(record or {})}
    )
    return path


def apply(
    executor: FakeExecutor, wishes: Mapping[str, Wish], scope: Scope, *, installation: str = OURS, **options: Any
) -> Outcome:
    """One apply; by host, what is wanted there."""
    targets = [Target(host=host(ip, installation=installation), wanted=wish) for ip, wish in wishes.items()]
    return Reconciler(executor, installation=installation).apply(
        targets,
        scope=scope,
        operation=options.pop("operation", 1),
        lock=options.pop("lock", "1000"),
        **options,
    )


def bring(executor: FakeExecutor, world: World, ip: str = NODE) -> Outcome:
    """Make one host match a world."""
    on = host(ip)
    return apply(executor, {ip: lambda seen: world.wanted(on, seen)}, world.speaks_for)
