"""What an operation wants of which hosts, by its intent and the record alone: for who does it and who plans it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cloudrepo.settings import Settings
from control import targets
from control.context import owned_vm
from control.intents import Intent
from control.operation import Aim, Wish
from control.states import ACTIVE, DELETE, DEPLOY, DEPLOYING, DESIGN, REMOVE_VM, ROLLBACK, RUNNING, START, STOP


def of(intent: Intent, record: Mapping[str, Any], settings: Settings) -> list[Aim]:
    """The parts of an operation, in their order.

    Args:
        intent: the operation, written into the record.
        record: the slice's.
        settings: where the network node is, and how long guests may take to power off.
    """
    node = settings.network.node
    if intent.kind == REMOVE_VM:
        return removal(record, intent.vm_id, node)
    if intent.is_of_one_vm:
        return [_switch(intent, record, settings)]
    if intent.kind in (DEPLOY, START) or (intent.kind, intent.of) == (ROLLBACK, STOP):
        machines = frozenset(vm["vm_id"] for vm in record["vms"] if vm["status"] in (DEPLOYING, RUNNING))
        return [Aim(wish=Wish(machines=machines, networks=True))]
    if intent.kind == DELETE:
        # of one that was deleted elsewhere already, only what is missing
        hosts = tuple(record["pending"]) if record.get("cleared") else _all(record, node)
        return [Aim(wish=Wish(disks=False), hosts=hosts, skips=True)]
    if (intent.kind, intent.of) == (ROLLBACK, DELETE):
        return [Aim(wish=Wish(), skips=True)]
    grace = settings.qemu.stop_grace if intent.kind == STOP else 0.0
    return [Aim(wish=Wish(stop_grace_s=grace), hosts=_all(record, node), skips=True)]


def _all(record: Mapping[str, Any], node: str) -> tuple[str, ...]:
    """The hosts of a slice, and those that did not answer before."""
    return tuple(dict.fromkeys([*targets.hosts_of(record, node), *record.get("pending", ())]))


def _switch(intent: Intent, record: Mapping[str, Any], settings: Settings) -> Aim:
    wish = Wish(machines=None, networks=True, stop_grace_s=settings.qemu.stop_grace)
    # one that never ran is new to its neighbours, and to the network node
    alone = (str(owned_vm(record, intent.vm_id)["worker_ip"]),)
    return Aim(wish=wish, hosts=None if intent.back == DESIGN else alone)


def removal(record: Mapping[str, Any], vm_id: Any, node: str) -> list[Aim]:
    """A VM goes: where its slice runs, all others let go of it first; then its disk, which nothing brings back."""
    worker = str(owned_vm(record, vm_id)["worker_ip"])
    last = Aim(wish=Wish(machines=None, networks=None, without_disk=vm_id), hosts=(worker,))
    if record["status"] not in ACTIVE:
        return [last]
    hosts = hosts_with(record, neighbours(record, vm_id), node)
    return [Aim(wish=Wish(machines=None, networks=None), hosts=tuple(hosts)), last]


def hosts_with(record: Mapping[str, Any], vms: Collection[int], node: str) -> list[str]:
    """The network node, and the workers of these VMs."""
    workers = [vm["worker_ip"] for vm in record["vms"] if vm["vm_id"] in vms]
    return list(dict.fromkeys([node, *workers]))


def neighbours(record: Mapping[str, Any], vm_id: int) -> set[int]:
    """A VM, and all that have a link with it."""
    own = {one["link_id"] for vm in record["vms"] if vm["vm_id"] == vm_id for one in vm["interfaces"]} - {None}
    return {vm_id}.union(*(vms_on(record, link_id) for link_id in own))


def vms_on(record: Mapping[str, Any], link_id: int) -> set[int]:
    """The VMs with an interface on a link."""
    return {vm["vm_id"] for vm in record["vms"] if any(one["link_id"] == link_id for one in vm["interfaces"])}


def change(record: Mapping[str, Any], vms: Collection[int], node: str) -> Aim:
    """A link changes, that these VMs are or were on, in a slice that runs."""
    return Aim(wish=Wish(machines=None, networks=True), hosts=tuple(hosts_with(record, vms, node)))


def clearing(record: Mapping[str, Any], hosts: Iterable[str], *, disks: bool) -> Aim:
    """Hosts that were missing are cleared of what a slice has no more there."""
    is_running = record.get("status") == RUNNING  # and goes on doing so
    machines = None if is_running else frozenset[int]()
    return Aim(wish=Wish(machines=machines, networks=is_running, disks=disks), hosts=tuple(hosts), skips=True)


def again() -> Aim:
    """A slice that runs is brought what its record says, as far as its hosts answer."""
    return Aim(wish=Wish(machines=None, networks=None), skips=True)
