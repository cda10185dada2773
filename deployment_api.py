"""How a VM is made: its object with NICs, MACs, address and port, and its disk on a worker.

`DeploymentAPI` and `QCOWManager` are the documented classes. Called alone they do their documented work;
for a slice, `design_vm` chooses what must be unique over the whole installation from the records.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from cloudrepo import allocation
from cloudrepo.base_images import BaseImages
from cloudrepo.commands import qemu_img
from cloudrepo.errors import CloudError
from cloudrepo.image_library import KnownImage
from cloudrepo.images import (
    BaseImageGone,
    ImageStore,
    OverlaySpec,
    create_overlay,
    delete_overlay,
    file_names,
    resolve,
)
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import INTERNET_VLAN, MANUAL, Mark, machine_uuid
from cloudrepo.remembrance import remembered
from cloudrepo.site import Site
from models import VM, Flavor, Interface

log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MadeDisk:
    """A disk on a worker.

    Attributes:
        path: in its documented form, with `~` where the base directory has one.
        image_source: `manager`, or the path on the worker its base image was taken from.
    """

    path: str
    image_source: str


@dataclass(frozen=True, kw_only=True)
class DiskWish:
    """A disk to make.

    Attributes:
        key: VM id, or a name for a disk without a VM.
        vm_name: what its file is named after.
        scope: the slice id or `manual`; names the file where the documented name is taken.
        base_image: the manager's file.
        mark: whose it is.
        disk_gb: least size in GiB; a larger base keeps its own.
        names: file names to try first.
        uuid: the machine's.
        record: what is needed to rebuild the VM's record.
        known: what was found out of the base image; None for one of a flavor.
    """

    key: int | str
    vm_name: str
    scope: str
    base_image: str
    mark: Mark
    disk_gb: float = 0.0
    names: tuple[str, ...] = ()
    uuid: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    known: KnownImage | None = None

    def file_names(self) -> Iterator[str]:
        """File names to try, in order, each once."""
        vm_id = self.key if isinstance(self.key, int) else None
        return iter(dict.fromkeys(itertools.chain(self.names, file_names(self.scope, vm_id, self.vm_name))))


class QCOWManager:
    """Disks on workers: a base image brought there once, and a thin overlay for each VM.

    Args:
        remote_executor: who talks to workers.
        base_dir: where base images and disks are on a worker.
        site: the installation it belongs to; without one its marks name none.
    """

    def __init__(self, remote_executor: Any, base_dir: str = "~/vm_images", *, site: Site | None = None) -> None:
        self.executor = remote_executor
        self.base_dir = base_dir
        self.site = site or Site(executor=remote_executor)
        self.bases = BaseImages(
            executor=remote_executor, installation=self.site.installation, cache_dir=self.site.cache_dir
        )

    def create_backing_image(
        self, worker_ip: str, vm_name: str, base_image_path: str, vlan_ids: Sequence[int]
    ) -> tuple[bool, str | None]:
        """Make an overlay named after a VM. `vlan_ids` is unused, as documented.

        Returns:
            `(True, "~/vm_images/{vm_name}_img.qcow2")`, or the next free name; `(False, None)` on failure.
        """
        mark = self.site.mark(MANUAL, detail="disk")
        wish = DiskWish(key=vm_name, vm_name=vm_name, scope=MANUAL, base_image=base_image_path, mark=mark)
        try:
            disk = self.create(worker_ip, wish)
        except CloudError as error:
            log.error("disk of %s: %s", vm_name, error)
            return False, None
        return True, disk.path

    def create(self, worker_ip: str, wish: DiskWish) -> MadeDisk:
        """Make an overlay on a worker under the first free name.

        Raises:
            CloudError: why it could not be made; nothing is left of it.
        """
        try:
            return self._create(worker_ip, wish)
        except BaseImageGone:  # removed by hand since we last looked: bring it again, once
            self.bases.forget(worker_ip)
            return self._create(worker_ip, wish)

    def _create(self, worker_ip: str, wish: DiskWish) -> MadeDisk:
        store = self._store(worker_ip)
        base = self.bases.ensure(worker_ip, wish.base_image, self.base_dir, known=wish.known)
        spec = OverlaySpec(
            key=wish.key,
            mark=wish.mark,
            base=base,
            size_bytes=qemu_img.overlay_size(wish.disk_gb, base.virtual_size),
            user=self.site.host(worker_ip).user_of(wish.key) if isinstance(wish.key, int) else self.site.user,
            uuid=wish.uuid,
            record=wish.record,
        )
        path = create_overlay(
            self.executor,
            worker_ip,
            store,
            spec,
            names=wish.file_names(),
            operation=self.site.next_operation,
        )
        return MadeDisk(path=self.base_dir + path.removeprefix(store.base_dir), image_source=base.source)

    def delete_image(self, worker_ip: str, image_path: str) -> bool:
        """Remove a disk of ours; True when it is gone, or was not there."""
        try:
            self.remove(worker_ip, image_path)
        except CloudError as error:
            log.error("%s: %s", image_path, error)
            return False
        return True

    def remove(self, worker_ip: str, image_path: str) -> None:
        """Remove a disk of ours.

        Raises:
            CloudError: it is not ours, or the worker did not do it.
        """
        store = self._store(worker_ip)
        path = resolve(image_path, str(self.executor.images_home(worker_ip)))
        delete_overlay(self.executor, worker_ip, store, path, operation=self.site.next_operation)

    def _store(self, worker_ip: str) -> ImageStore:
        return ImageStore(base_dir=self.site.resolve(worker_ip, self.base_dir), installation=self.site.installation)


class DeploymentAPI:
    """Makes VM objects and their disks.

    Attributes:
        executor: the executor, which `OrchestratorAPI` takes from here.
        base_image_path: used instead of the flavor's image when given.
        vnc_port_counter: the last port given by `create_vm_with_qcow`; the first VM gets 5901.
    """

    def __init__(self, remote_executor: Any, base_image_path: str | None = None, *, site: Site | None = None) -> None:
        self.executor = remote_executor
        self.base_image_path = base_image_path
        self.vnc_port_counter = 5900
        self.attach(site or Site(executor=remote_executor))

    def attach(self, site: Site) -> None:
        """Work for this installation from now on."""
        self.site = site
        self.qcow_manager = QCOWManager(self.executor, site.settings.images.base_dir, site=site)

    def generate_unique_macs(self, vm_id: int, count: int = 3) -> list[str]:
        """MAC addresses by the documented formula: prefix, two bytes of the id, the index.

        Raises:
            RefusedError: more than 256 were asked for.
        """
        return allocation.formula_macs(vm_id, count, self.site.settings.mac.prefix)

    def create_vm_with_qcow(
        self,
        slice_id: int,
        vm_id: int,
        vm_name: str,
        owner: str,
        worker_ip: str,
        flavor: Mapping[str, Any],
        data_interfaces_count: int,
        internet_enabled: bool = False,
    ) -> tuple[bool, VM | None]:
        """A VM object in state `design` with its disk on a worker.

        Returns:
            `(True, VM)`, or `(False, None)` when the disk could not be made; the port is then free again.
        """
        try:
            address = allocation.choose_internet_address({"slices": {}}, vm_id, self.site.settings.internet.cidr)
            vm = _vm(
                vm_id,
                vm_name,
                owner,
                worker_ip,
                flavor,
                macs=self.generate_unique_macs(vm_id, data_interfaces_count + 1),
                address=address if internet_enabled else None,
                vnc_port=self.vnc_port_counter + 1,
            )
            vm.qcow_image = self.make_disk(slice_id, vm.to_dict(), str(flavor["image"]), scope=MANUAL).path
        except CloudError as error:
            log.error("VM %s: %s", vm_id, error)
            return False, None
        self.vnc_port_counter += 1
        return True, vm

    def design_vm(
        self,
        data: Mapping[str, Any],
        slice_id: int,
        vm_id: int,
        vm_name: str,
        owner: str,
        worker_ip: str,
        flavor: Mapping[str, Any],
        data_interfaces_count: int,
        *,
        internet: bool,
    ) -> VM:
        """A VM object whose MACs, address, port and file name are free in the whole installation.

        Raises:
            RefusedError: something is exhausted.
        """
        settings = self.site.settings
        vm = _vm(
            vm_id,
            vm_name,
            owner,
            worker_ip,
            flavor,
            macs=allocation.choose_macs(data, vm_id, data_interfaces_count + 1, settings.mac.prefix),
            address=allocation.choose_internet_address(data, vm_id, settings.internet.cidr) if internet else None,
            vnc_port=allocation.choose_vnc_port(data, worker_ip, settings.vnc.first_port, settings.vnc.last_port),
        )
        vm.qcow_image = allocation.choose_image_path(data, settings, worker_ip, slice_id, vm_id, vm_name)
        return vm

    def make_disk(
        self,
        slice_id: int,
        vm: Record,
        image: str,
        *,
        scope: str = "",
        of: Mapping[str, Any] | None = None,
        known: KnownImage | None = None,
    ) -> MadeDisk:
        """The VM's disk, on its worker.

        Args:
            slice_id: names the file where the documented name is taken.
            vm: the VM's record; its `qcow_image`, if any, is tried first.
            image: the manager's file under it.
            scope: for the mark; the slice by default.
            of: the slice's record, to be kept with the disk.
            known: what was found out of an image that somebody added.

        Raises:
            CloudError: it could not be made; nothing is left of it.
        """
        vm_id = int(vm["vm_id"])
        first = (str(vm["qcow_image"]).rpartition("/")[2],) if vm.get("qcow_image") else ()
        wish = DiskWish(
            key=vm_id,
            vm_name=str(vm["name"]),
            scope=str(slice_id),
            base_image=image if known is not None else self.base_image_path or image,
            known=known,
            mark=self.site.mark(scope or str(slice_id), vm_id, "disk"),
            disk_gb=float(vm["disk_gb"]),
            names=first,
            uuid=machine_uuid(self.site.installation, vm_id),
            record=remembered(of or {"slice_id": slice_id, "links": ()}, vm),
        )
        return self.qcow_manager.create(str(vm["worker_ip"]), wish)

    def delete_vm_dict(self, vm_dict: Mapping[str, Any]) -> bool:
        """Remove a VM's disk; True when it is gone or there was none, False when the worker did not do it."""
        image = vm_dict.get("qcow_image")
        return not image or self.qcow_manager.delete_image(str(vm_dict["worker_ip"]), str(image))


def _vm(
    vm_id: int,
    vm_name: str,
    owner: str,
    worker_ip: str,
    flavor: Mapping[str, Any],
    *,
    macs: Sequence[str],
    address: dict[str, str] | None,
    vnc_port: int,
) -> VM:
    """A VM with one NIC a MAC; eth0 is on VLAN 400 when it has an address there."""
    interfaces = [Interface(f"eth{index}", mac) for index, mac in enumerate(macs)]
    if address is not None:
        interfaces[0].vlan_id, interfaces[0].ip_config = INTERNET_VLAN, address
    return VM(
        vm_id=vm_id,
        name=vm_name,
        owner=owner,
        worker_ip=worker_ip,
        flavor=str(flavor.get("name") or Flavor.name_of(flavor)),
        cores=int(flavor["cores"]),
        ram_gb=float(flavor["ram_gb"]),
        disk_gb=float(flavor["disk_gb"]),
        vnc_port=vnc_port,
        interfaces=interfaces,
    )
