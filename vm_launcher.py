"""What a worker should have: TAPs, their ports on the bridge, and machines.

`vm_resources` is pure: a VM's record in, resources out. `VMLauncher` is the documented class; called alone
it starts or stops one VM at once, and what it makes is marked `manual`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudrepo import first_boot, limits, rules, screen_password, validation
from cloudrepo.errors import CloudError
from cloudrepo.naming import MANUAL, Mark, machine_uuid, tap_name
from cloudrepo.probe import Host, require_bridge
from cloudrepo.reconcile import Target
from cloudrepo.resources import Disk, HostFacts, HostState, Machine, MachineSpec, Nic, Port, Resource, Tap
from cloudrepo.settings import Settings
from cloudrepo.site import Site

log = logging.getLogger(__name__)


def vm_resources(
    scope: str,
    vm: Mapping[str, Any],
    host: Host,
    facts: HostFacts,
    settings: Settings,
    *,
    disk: str,
    accelerator: str,
    tunnels: Collection[int] = (),
) -> list[Resource]:
    """What one VM has on its worker.

    Every NIC the user designed exists, in order; one without a VLAN has a TAP that is on no bridge, and no
    carrier.

    Args:
        scope: the slice id, or `manual`.
        vm: the VM's record.
        host: its worker.
        facts: of the worker.
        settings: the `vnc`, `qemu` and `network` groups.
        disk: its overlay, absolute on the worker.
        accelerator: `kvm` or `tcg`.
        tunnels: VLANs of links that carry guests' own tags.

    Raises:
        HostError: the worker has no integration bridge.
        RefusedError: a record written by hand holds a name or an address that none of ours could be, or the id is too
            high for a number of its own.
    """
    require_bridge(host, facts)
    vm_id = validation.identifier(vm["vm_id"], "the VM's id")
    user = host.user_of(vm_id)
    nics: list[Nic] = []
    plugged: list[Tap | Port] = []
    for interface in vm["interfaces"]:
        nic = _nic(vm_id, interface)
        nics.append(nic)
        mark = Mark(host.installation, scope, vm_id, nic.interface)
        plugged += _socket(Tap(device=nic.device, user=user, mark=mark), interface.get("vlan_id"), tunnels)
    spec = _spec(vm, vm_id, nics, host, settings, disk=disk, accelerator=accelerator, datapath=facts.datapath)
    made = machine(scope, vm, host.installation, spec)
    return [*plugged, _limited(made, spec, host, facts) if settings.qemu.limits else made]


def _nic(vm_id: int, interface: Mapping[str, Any]) -> Nic:
    """A NIC as the machine has it; without a VLAN its cable is out."""
    name, mac = validation.interface_name(interface["name"]), validation.mac_address(interface["mac"])
    has_carrier = interface.get("vlan_id") is not None
    return Nic(interface=name, device=tap_name(vm_id, name), mac=mac, has_carrier=has_carrier)


def _socket(tap: Tap, vlan: int | None, tunnels: Collection[int]) -> Iterator[Tap | Port]:
    """What a NIC is plugged into on its worker: a TAP, and its port of the bridge."""
    yield tap
    if vlan is not None:
        port = Port(device=tap.device, tag=int(vlan), mark=tap.mark)
        yield replace(port, vlan_mode=Port.TUNNEL, outer=Port.OUTER) if vlan in tunnels else port


def _spec(
    vm: Mapping[str, Any],
    vm_id: int,
    nics: Sequence[Nic],
    host: Host,
    settings: Settings,
    *,
    disk: str,
    accelerator: str,
    datapath: str,
) -> MachineSpec:
    """What its QEMU is started with."""
    return MachineSpec(
        vm_name=validation.vm_name(vm["name"]),
        cores=int(vm["cores"]),
        ram_mib=round(float(vm["ram_gb"]) * 1024),
        disk=disk,
        vnc_bind=settings.vnc.bind,
        vnc_port=int(vm["vnc_port"]),
        nics=tuple(nics),
        accelerator=accelerator,
        vnet_hdr=datapath != "netdev",
        user=host.user_of(vm_id),
        detach=settings.qemu.detach,
        vnc_password=screen_password.of(vm),
        seed=first_boot.of(vm, machine_uuid(host.installation, vm_id)),
    )


def _limited(made: Machine, spec: MachineSpec, host: Host, facts: HostFacts) -> Machine:
    """The machine within its limits, on a host that has them."""
    if facts.controllers is None:
        return made
    held = limits.wanted(
        host.installation,
        made.vm_id,
        cores=spec.cores,
        ram_mib=spec.ram_mib,
        accelerator=spec.accelerator,
        controllers=facts.controllers,
    )
    return replace(made, limits=held)


def machine(scope: str, vm: Mapping[str, Any], installation: str, spec: MachineSpec | None) -> Machine:
    """The machine of a VM. Its mark names its interfaces, so that its directory announces its TAPs."""
    vm_id = int(vm["vm_id"])
    names = ".".join(str(interface["name"]) for interface in vm["interfaces"])
    mark = Mark(installation, scope, vm_id, names)
    return Machine(vm_id=vm_id, uuid=machine_uuid(installation, vm_id), spec=spec, mark=mark)


def _disk(seen: HostState, vm: Mapping[str, Any]) -> list[Disk]:
    """A VM's disk as it is: neither starting nor stopping removes it."""
    return [disk for disk in seen.of(Disk) if disk.vm_id == vm["vm_id"]]


class VMLauncher:
    """The documented class. `deploy_slice` uses the functions above; this does one VM at a time, by hand.

    Args:
        remote_executor: who talks to the workers.
        site: the installation it belongs to; without one its marks name none.
    """

    def __init__(self, remote_executor: Any, *, site: Site | None = None) -> None:
        self.executor = remote_executor
        self.site = site or Site(executor=remote_executor)

    def launch_vm(self, worker_ip: str, vm_dict: Mapping[str, Any]) -> tuple[bool, str | None]:
        """Start a VM, or find it running.

        Args:
            worker_ip: where.
            vm_dict: as `VM.to_dict()` gives it.

        Returns:
            `(True, pid)` with the pid as text, once QEMU answered with our UUID; else `(False, None)`.
        """
        try:
            host = self.site.host(worker_ip)
            disk = self.site.resolve(worker_ip, str(vm_dict["qcow_image"]))
            accelerator = self.site.accelerator_of(worker_ip)
            target = Target(
                host=host,
                wanted=lambda seen: [
                    *vm_resources(
                        MANUAL, vm_dict, host, seen.facts, self.site.settings, disk=disk, accelerator=accelerator
                    ),
                    *rules.vm_flows(host, seen.facts, self.site.settings, vm_dict),
                    *_disk(seen, vm_dict),
                ],
            )
            outcome = self.site.apply_manual(target, self._about(vm_dict))
        except CloudError as error:
            log.error("VM %s: %s", vm_dict.get("vm_id"), error)
            return False, None
        if not outcome.ok:
            for problem in outcome.errors.values():
                log.error("VM %s: %s", vm_dict["vm_id"], problem)
            self.stop_vm(worker_ip, vm_dict)
            return False, None
        running = outcome.states[worker_ip].of(Machine)
        pid = next((found.pid for found in running if found.vm_id == int(vm_dict["vm_id"])), None)
        return pid is not None, str(pid) if pid is not None else None

    def stop_vm(self, worker_ip: str, vm_dict: Mapping[str, Any]) -> bool:
        """Stop a VM by ACPI, then `quit`, then a signal, and remove its TAPs. Its disk stays.

        Returns:
            True when nothing of it runs any more.
        """
        try:
            target = Target(
                host=self.site.host(worker_ip),
                wanted=lambda seen: _disk(seen, vm_dict),
                stop_grace_s=self.site.settings.qemu.stop_grace,
            )
            outcome = self.site.apply_manual(target, self._about(vm_dict))
        except CloudError as error:
            log.error("VM %s: %s", vm_dict.get("vm_id"), error)
            return False
        for problem in outcome.errors.values():
            log.error("VM %s: %s", vm_dict["vm_id"], problem)
        return outcome.ok

    def _about(self, vm_dict: Mapping[str, Any]) -> Mark:
        return self.site.mark(MANUAL, validation.identifier(vm_dict["vm_id"], "the VM's id"))
