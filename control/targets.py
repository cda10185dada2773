"""From records to targets: what each host should have for a slice. Pure, but for the accelerator's look-up."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import vlan_manager
import vm_launcher
from cloudrepo import rules
from cloudrepo.allocation import internet_gateway
from cloudrepo.commands.dnsmasq import Lease
from cloudrepo.diff import Adopts, Scope
from cloudrepo.errors import HostError
from cloudrepo.link_ends import ends_of, write as write_ends
from cloudrepo.link_switches import is_allowed, is_served
from cloudrepo.naming import INTERNET_VLAN, MANUAL, SHARED, UNFINISHED, Mark
from cloudrepo.probe import Host, require_bridge
from cloudrepo.remembrance import remembered
from cloudrepo.resources import Disk, HostState, Machine, Resource
from cloudrepo.settings import Settings
from cloudrepo.site import Site
from cloudrepo.state import find_slice
from cloudrepo.validation import host_name
from control.context import Record
from control.states import ACTIVE, CREATING, DELETING, DESIGN, RUNNING

DISK_MODE = 0o600


def slice_scope(record: Mapping[str, Any]) -> Scope:
    """Marks an operation on a slice speaks for: its own, what all slices share, and its unfinished directories.

    Those of VMs that were given up count as well, as long as a host is waited for: their maker may have died there
    before it could mark them.
    """
    own = str(record["slice_id"])
    vms = {*(vm["vm_id"] for vm in record["vms"]), *record.get("forgotten", ())}
    vlans = {str(link["vlan_id"]) for link in record["links"]}

    def speaks_for(mark: Mark) -> bool:
        if mark.scope == UNFINISHED:
            return mark.vm_id in vms or mark.detail in vlans
        return mark.scope in (own, SHARED)

    return speaks_for


def adopting(data: Mapping[str, Any]) -> Adopts:
    """Whose an object is that carries the mark of another slice of ours: by the records, if that one has none such.

    What was made by hand is left to the hand. Only for what the records say to stand already: a deploy that finds
    another slice's object does not know whether numbers were used again, and refuses it.
    """

    def adopts(wanted: Mark, found: Mark) -> bool:
        theirs = ids_of(data, [found.scope])
        return found.scope != MANUAL and wanted.vm_id not in theirs and wanted.detail not in theirs

    return adopts


def ids_of(data: Mapping[str, Any], scopes: Iterable[str]) -> set[Any]:
    """The VM ids and, as text, the VLANs of slices: what an unfinished directory can be of."""
    records = [record for scope in scopes if (record := find_slice(data, scope)) is not None]
    vms = {vm["vm_id"] for record in records for vm in record["vms"]}
    return vms | {str(link["vlan_id"]) for record in records for link in record["links"]}


def hosts_of(record: Mapping[str, Any], network_node: str) -> list[str]:
    """The hosts of a slice in the documented order: the network node, then workers by VM id."""
    vms = sorted(record["vms"], key=lambda vm: vm["vm_id"])
    needs_node = bool(record["links"]) or has_internet(record) or record.get("deployed", False)
    return list(dict.fromkeys(([network_node] if needs_node else []) + [vm["worker_ip"] for vm in vms]))


def has_internet(record: Mapping[str, Any]) -> bool:
    """Whether a VM of the slice has internet access."""
    return rules.has_internet(record["vms"])


def online(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The active slices with internet access."""
    return [record for record in active(data) if has_internet(record)]


def active(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The slices whose networks should stand."""
    return [present(record) for record in data["slices"].values() if _is_active(record)]


def _is_active(record: Mapping[str, Any]) -> bool:
    """Whether its networks should stand; what is handed to the monitor and not begun is still what it was."""
    operation = record.get("operation") or {}
    return (operation["was"] if operation.get("handed") else record["status"]) in ACTIVE


def internet_of(
    site: Site, data: Mapping[str, Any], records: Sequence[Mapping[str, Any]], seen: HostState
) -> list[Resource]:
    """VLAN 400 for these slices; nothing for none.

    Raises:
        CloudError: the network node has no uplink, or its subnet is taken there.
    """
    if not records:
        return []
    cidr = site.settings.internet.cidr
    return vlan_manager.internet_resources(
        site.mark(SHARED, detail=str(INTERNET_VLAN)),
        cidr,
        internet_gateway(cidr),
        leases_of(records, INTERNET_VLAN),
        site.settings,
        seen.facts,
        [*data["workers_list"], site.settings.network.node],
    )


def shared_of(
    site: Site, data: Mapping[str, Any], host: Host, seen: HostState, records: Sequence[Mapping[str, Any]]
) -> list[Resource]:
    """What slices share on a host: VLAN 400 on the network node, and what keeps the bridge closed on each.

    Args:
        site: settings and marks.
        data: the state.
        host: the host.
        seen: how it was seen.
        records: the slices whose networks stand, or should.
    """
    found = rules.shared_flows(host, seen.facts, site.settings, records)
    if host.is_network_node:
        found += internet_of(site, data, [one for one in records if has_internet(one)], seen)
    return found


def present(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The slice as its hosts should have it: a VM before its first start, or that goes, is on no network."""
    if record["status"] not in ACTIVE:
        return record
    elsewhere = (CREATING, DELETING, DESIGN) if record["status"] == RUNNING else (CREATING, DELETING)
    absent = {vm["vm_id"] for vm in record["vms"] if vm["status"] in elsewhere}
    if not absent:
        return record
    changed = copy.deepcopy({"links": record["links"], "vms": record["vms"]})
    for vm in changed["vms"]:
        if vm["vm_id"] in absent:
            for one in vm["interfaces"]:
                one.update(vlan_id=None, link_id=None, ip_config=None)
    for link in [*changed["links"]]:
        rest = [end for end in ends_of(link) if end[0] not in absent]
        if len(rest) > 1:
            write_ends(link, rest)
        else:
            changed["links"].remove(link)
            for vm in changed["vms"]:
                for one in vm["interfaces"]:
                    if one["link_id"] == link["link_id"]:
                        one.update(vlan_id=None, link_id=None, ip_config=None)
    return {**record, **changed}


class SlicePlanner:
    """What hosts should have for one slice, given all records.

    Args:
        site: settings and marks.
        data: all records; what slices share is derived from all that are active.
        record: the slice.
        machines: ids of the VMs that should run.
        networks: whether the slice's networks should stand.
        disks: whether its disks should stay.
        without_disk: a VM whose disk should not stay even so.
    """

    def __init__(
        self,
        site: Site,
        data: Mapping[str, Any],
        record: Mapping[str, Any],
        *,
        machines: Iterable[int] = (),
        networks: bool = False,
        disks: bool = True,
        without_disk: int | None = None,
    ) -> None:
        self.site = site
        self.data = data
        self.record = present(record)
        self.machines = frozenset(machines)
        self.networks = networks
        self.disks = disks
        self.without_disk = without_disk

    def wanted(self, host: Host, seen: HostState) -> list[Resource]:
        """All resources of the slice on one host.

        Raises:
            HostError: the host lacks what they need: a bridge, its uplink, a disk.
        """
        resources: list[Resource] = []
        if self.networks or self.machines:
            require_bridge(host, seen.facts)
            self._require_uplink(host, seen)
        if host.is_network_node:
            resources += self._links() if self.networks else []
        others = [one for one in active(self.data) if one["slice_id"] != self.record["slice_id"]]
        own = [self.record] if self.networks else []
        resources += shared_of(self.site, self.data, host, seen, [*others, *own])
        return [*resources, *self._vms(host, seen), *self._flows(host, seen)]

    def expected(self, host: Host, seen: HostState) -> list[Resource]:
        """All resources of the slice but for VLAN 400, as the records have them: what a drift is told from.

        Unlike `wanted` it takes nothing from what was seen, so that a disk that is gone is missed.

        Raises:
            HostError: the host has no bridge.
        """
        resources = self._links() if self.networks and host.is_network_node else []
        for vm in sorted(self.record["vms"], key=lambda one: one["vm_id"]):
            if vm["worker_ip"] != host.ip or not vm["qcow_image"]:
                continue
            if vm["vm_id"] in self.machines:
                resources += self._vm(host, seen, vm, disk_path(host, vm))
            if self.disks:
                resources.append(self._ideal(host, seen, vm))
        return [*resources, *self._flows(host, seen)]

    def _flows(self, host: Host, seen: HostState) -> list[Resource]:
        if not self.networks:
            return []
        return rules.slice_flows(host, seen.facts, self.settings, self.record, self.machines)

    def _ideal(self, host: Host, seen: HostState, vm: Record) -> Disk:
        found = _disk(seen, vm["vm_id"])
        return Disk(
            vm_id=vm["vm_id"],
            mark=self.site.mark(str(self.record["slice_id"]), vm["vm_id"], "disk"),
            path=disk_path(host, vm),
            directory=f"{host.disks_root}/vm-{vm['vm_id']}",
            base_dir=host.base_dir,
            owner=host.user_of(vm["vm_id"]),
            mode=DISK_MODE,
            # what was designed since the last deploy is in no mark file yet
            record=remembered(self.record, vm) if self.networks or found is None else found.record,
        )

    def _links(self) -> list[Resource]:
        resources: list[Resource] = []
        for link in sorted(filter(is_served, self.record["links"]), key=lambda one: one["link_id"]):
            mark = self.site.mark(str(self.record["slice_id"]), detail=str(link["vlan_id"]))
            leases = leases_of([self.record], link["vlan_id"])
            resources += vlan_manager.link_resources(
                mark, link["vlan_id"], link["cidr"], link["gateway_ip"], leases, self.settings
            )
        return resources

    def _vms(self, host: Host, seen: HostState) -> list[Resource]:
        resources: list[Resource] = []
        for vm in sorted(self.record["vms"], key=lambda one: one["vm_id"]):
            if vm["worker_ip"] != host.ip:
                continue
            if vm["vm_id"] in self.machines:
                resources += self._machine(host, seen, vm)
            keep = self.disks and vm["vm_id"] != self.without_disk
            if keep and (disk := _disk(seen, vm["vm_id"])) is not None:
                resources.append(self._mended(disk, host, vm))
        return resources

    def _mended(self, disk: Disk, host: Host, vm: Record) -> Disk:
        """A disk as it should be, as far as a message can bring that about: what its file holds is only ever kept."""
        if (not disk.is_marked and not disk.is_kept) or (disk.is_marked and not disk.path):
            return disk  # not finished, or nothing proves that the file is ours
        is_file = disk.file == "there" or (disk.file == "gone" and disk.is_kept)
        return replace(
            disk,
            mark=self.site.mark(str(self.record["slice_id"]), vm["vm_id"], "disk"),
            is_marked=True,
            path=disk.path or disk_path(host, vm),
            file="there" if is_file else disk.file,
            is_kept=disk.is_kept or disk.file == "there",
            owner=host.user_of(vm["vm_id"]) if disk.owner else "",
            mode=DISK_MODE if disk.mode is not None else None,
            record=remembered(self.record, vm) if self.machines or self.networks else disk.record,
        )

    def _machine(self, host: Host, seen: HostState, vm: Record) -> list[Resource]:
        found = _disk(seen, vm["vm_id"])
        disk = self._mended(found, host, vm) if found is not None else None
        if disk is None or not disk.path:
            raise HostError(
                host.ip,
                f"the disk of VM {vm['vm_id']} ({vm['name']}) is not there",
                evidence=str(vm["qcow_image"]),
                remedy="Remove the VM from the slice and add it again",
                code="vm.disk",
            )
        self._require_sound(host, seen, vm, disk)
        return self._vm(host, seen, vm, disk.path)

    def _vm(self, host: Host, seen: HostState, vm: Record, disk: str) -> list[Resource]:
        return vm_launcher.vm_resources(
            str(self.record["slice_id"]),
            vm,
            host,
            seen.facts,
            self.settings,
            disk=disk,
            accelerator=self.site.accelerator_of(host.ip),
            tunnels=[link["vlan_id"] for link in self.record["links"] if is_allowed(link, "vlans")],
        )

    def _require_sound(self, host: Host, seen: HostState, vm: Record, disk: Disk) -> None:
        """A machine that is to be started needs its own file and the image under it."""
        machine = seen.get((Machine.KIND, str(vm["vm_id"])))
        if isinstance(machine, Machine) and machine.is_running:
            return
        name = f"VM {vm['vm_id']} ({vm['name']})"
        if disk.file != "there":
            what = "is gone" if disk.file == "gone" else "was replaced by another file"
            raise HostError(
                host.ip,
                f"the disk of {name} {what}",
                evidence=disk.path,
                remedy=f"Move that file away: {disk.kept} is the disk, and is put back then. "
                f"Or, if that file is to be the disk, remove {disk.kept}"
                if disk.file != "gone"
                else "Remove the VM from the slice and add it again",
                code="vm.disk",
            )
        if not disk.has_base:
            raise HostError(
                host.ip,
                f"the base image under the disk of {name} is gone",
                evidence=str(disk.base.get("path_on_host", "")),
                remedy="`./cloud drift --fix` brings it there again",
                code="vm.base",
            )

    def _require_uplink(self, host: Host, seen: HostState) -> None:
        """A slice on several hosts needs a bridge that leads out of each of them."""
        hosts = hosts_of(self.record, self.settings.network.node)
        if len(hosts) > 1 and not seen.facts.has_uplink and (self.record["links"] or has_internet(self.record)):
            raise HostError(
                host.ip,
                f"the bridge {host.bridge} has no uplink, and the slice needs {' and '.join(hosts)} to be joined",
                remedy=f"Add the interface to the other hosts: sudo ovs-vsctl add-port {host.bridge} INTERFACE",
                code="host.uplink",
            )

    @property
    def settings(self) -> Settings:
        """The settings of the installation."""
        return self.site.settings


def _disk(seen: HostState, vm_id: int) -> Disk | None:
    found = seen.get((Disk.KIND, str(vm_id)))
    return found if isinstance(found, Disk) else None


def disk_path(host: Host, vm: Mapping[str, Any]) -> str:
    """Where the records say a VM's disk is, absolute on its host."""
    return f"{host.base_dir}/{str(vm['qcow_image']).rpartition('/')[2]}"


def leases_of(records: Sequence[Mapping[str, Any]], vlan_id: int) -> list[Lease]:
    """The reservation of each NIC on a VLAN."""
    return [
        Lease(mac=one["mac"], ip=one["ip_config"]["ip"], hostname=host_name(vm["name"]))
        for record in records
        for vm in record["vms"]
        for one in vm["interfaces"]
        if one["vlan_id"] == vlan_id and one["ip_config"]
    ]


def everything(mark: Mark) -> bool:
    """The scope of a clean-up: all marks of this installation."""
    return True
