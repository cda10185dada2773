"""Designing: slices, VMs and links as records. Only a VM's disk touches a host here."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudrepo import allocation, first_boot, placement, quotas, screen_password, validation
from cloudrepo.errors import CloudError, ForeignObjectError, HostUnreachable, RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.naming import INTERNET_VLAN
from control import images, intents, links
from control.context import Context, Record, first_error, known_slice, owned_vm, user_record
from control.intents import Intent, engaged, own_record
from control.operation import Operation, Wish
from control.states import (
    ADD_VM,
    CHANGE,
    CREATING,
    DESIGN,
    REMOVE_VM,
    require_state,
    require_vm_state,
)
from models import Flavor, Link, Slice

log = logging.getLogger(__name__)


def create_slice(context: Context, username: str, slice_name: str, topology_type: str) -> Record:
    """A new, empty slice.

    Returns:
        The documented two keys: `slice_id` and `name`.
    """
    with context.db.transaction() as data:
        user_record(data, username)
        name = validation.slice_name(slice_name)
        topology = validation.topology_type(topology_type)
        slice_id = allocation.next_id(data)
        block = allocation.choose_block(data, slice_id, context.settings.vlan)
        start, end = block or (None, None)
        record = Slice(
            slice_id=slice_id,
            owner=username,
            topology_type=topology,
            name=name,
            vlan_pool_start=start,
            vlan_pool_end=end,
        ).to_dict()
        data["slices"][str(slice_id)] = record
    return {"slice_id": slice_id, "name": name}


@dataclass(frozen=True)
class VmWish:
    """A VM as a person asks for it, unchecked."""

    name: Any
    flavor: Any
    data_interfaces: Any
    internet: Any
    image: Any = ""
    first_boot: Any = None


def add_vm(context: Context, username: str, slice_id: int, wish: VmWish) -> Record:
    """A new VM with its disk on a worker.

    The record is there first, so that nobody else gets its id, port or address; it is taken back when the
    disk cannot be made, and tells another process what was begun when this one ends without a word.

    Returns:
        The VM's record, with the documented keys.
    """
    context.db.refresh()
    known_slice(context.db.data, username, slice_id)  # nobody is asked for a call that is refused anyway
    context.discovery.ensure_asked()
    with engaged(context, functools.partial(reserve_vm, context, username, slice_id, wish)) as intent:
        try:
            return make_vm(context, intent)
        except BaseException as error:
            is_id_free = not isinstance(error, ForeignObjectError)  # else it is given already, on a host
            forget_vm(context, intent, pending=_may_have_begun(error), is_id_free=is_id_free)
            raise


def make_vm(context: Context, intent: Intent) -> Record:
    """Make the disk of a reserved VM; one that was made before, by a process that ended, is that disk.

    Returns:
        The VM's record, with the documented keys.

    Raises:
        CloudError: it could not be made; the VM is still reserved.
    """
    draft = _vm_of(context, intent)
    image, known = images.source_of(context, draft)
    context.discovery.ensure_known(draft["worker_ip"])
    of = context.db.get_slice(intent.slice_id)
    disk = context.deployment.make_disk(intent.slice_id, draft, image, of=of, known=known)
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None and record["status"] == DESIGN:
            vm = owned_vm(record, intent.vm_id)
            vm["qcow_image"], vm["status"] = disk.path, DESIGN
            vm.pop("operation")
            if disk.image_source != "manager":
                vm["image_source"] = disk.image_source
            return dict(vm)
    context.deployment.delete_vm_dict({**draft, "qcow_image": disk.path})
    raise RefusedError(
        f"VM {intent.vm_id} was removed while its disk was made", evidence="by another session", code="vm.gone"
    )


def _vm_of(context: Context, intent: Intent) -> Record:
    """The VM of an intent as it will be, without what is noted of the work on it."""
    context.db.refresh()
    record = own_record(context.db.data, intent)
    if record is None:
        raise RefusedError(f"there is no VM {intent.vm_id} any more", evidence="another session removed it")
    return {key: value for key, value in owned_vm(record, intent.vm_id).items() if key != "operation"}


def _may_have_begun(error: BaseException) -> bool:
    """Whether a disk may be on a worker although it was not heard of."""
    return isinstance(error, HostUnreachable) or not isinstance(error, CloudError)


def reserve_vm(context: Context, username: str, slice_id: int, wish: VmWish, data: Record) -> Intent:
    """Check the wish, and write the VM with all that is now its own: worker, id, port, addresses, file name."""
    record = known_slice(data, username, slice_id)
    owner = str(user_record(data, record["owner"])["username"])  # who acts may be an administrator
    intents.settle_abandoned(context, record, CHANGE)
    require_state(record, CHANGE)
    flavor = Flavor.get(str(wish.flavor))
    if flavor is None:
        raise RefusedError("Invalid flavor", code="flavor.unknown", details={"flavors": list(Flavor.FLAVORS)})
    flavor["disk_gb"] = max(flavor["disk_gb"], images.disk_gb(context, wish.image))
    name = validation.unused_vm_name(record, validation.vm_name(wish.name))
    count = validation.data_interfaces_count(wish.data_interfaces)
    has_internet = validation.truth(wish.internet, "internet access")
    told = first_boot.wanted(wish.first_boot)
    asked = quotas.Amount(1, flavor["cores"], flavor["ram_gb"], flavor["disk_gb"])
    quotas.check(data, owner, asked, context.settings)
    worker = _place(context, data, flavor)
    vm_id = allocation.next_id(data)
    vm = context.deployment.design_vm(
        data, slice_id, vm_id, name, owner, worker, flavor | {"name": wish.flavor}, count, internet=has_internet
    )
    chosen = ({"image": wish.image} if wish.image else {}) | ({first_boot.KEY: told} if told else {})
    made = {screen_password.KEY: screen_password.make(), "status": CREATING}
    record["vms"].append(vm.to_dict() | chosen | made)
    return intents.write_of_vm(data, record, record["vms"][-1], ADD_VM, username)


def _place(context: Context, data: Record, flavor: Record) -> str:
    wanted = placement.Wanted(cores=flavor["cores"], ram_gb=flavor["ram_gb"], disk_gb=flavor["disk_gb"])
    index = context.round_robin_index(data)
    seen = context.observations.up()
    choice = placement.choose_worker(data, context.settings, wanted, index, context.discovery.down(), seen)
    context.advance_round_robin(data, choice.next_index)
    return choice.worker_ip


def forget_vm(context: Context, intent: Intent, *, pending: bool, is_id_free: bool = True) -> None:
    """Take a reserved VM back: its quota and port are free again, and its id if nobody took the next one.

    Args:
        context: the installation.
        intent: the one that reserved it.
        pending: whether something of its disk may be on its worker, to be removed when that answers.
        is_id_free: whether the next VM may have its id.
    """
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is None:
            return
        worker = owned_vm(record, intent.vm_id)["worker_ip"]
        if pending and worker not in record.get("pending", ()):
            record["pending"] = [*record.get("pending", ()), worker]
        if pending:
            record["forgotten"] = [*record.get("forgotten", ()), intent.vm_id]
        record["vms"] = [vm for vm in record["vms"] if vm["vm_id"] != intent.vm_id]
        if is_id_free and not pending and data["next_vm_id"] == (intent.vm_id or 0) + 1:
            data["next_vm_id"] = intent.vm_id


def create_link(
    context: Context,
    username: str,
    slice_id: int,
    vm1_id: int,
    vm1_interface: str,
    vm2_id: int,
    vm2_interface: str,
    switches: Mapping[str, Any],
) -> Record:
    """A link between two free interfaces. Everything is checked before a VLAN is taken.

    `switches` are those that are not as usual; see `cloudrepo/link_switches.py`.

    Returns:
        The documented six keys.
    """
    with context.db.transaction() as data:
        record = known_slice(data, username, slice_id)
        intents.settle_abandoned(context, record, CHANGE)
        require_state(record, CHANGE)
        ends = [
            _free_interface(record, vm1_id, vm1_interface),
            _free_interface(record, vm2_id, vm2_interface),
        ]
        if ends[0] is ends[1]:
            raise RefusedError(
                "a link needs two interfaces",
                evidence=f"both ends are {vm1_interface} of VM {vm1_id}",
                code="link.self",
            )
        if vm1_id == vm2_id:
            raise RefusedError("a link needs two VMs", evidence=f"both ends are on VM {vm1_id}", code="link.self")
        wanted = links.checked(context, data, username, {}, switches)
        vlan_id = allocation.choose_vlan(data, slice_id, context.settings.vlan)
        link_id = allocation.next_link_id(record)
        addresses = allocation.link_addresses(vlan_id)
        for interface in ends:
            interface |= {"vlan_id": vlan_id, "link_id": link_id}
        link = Link(link_id, vlan_id, vm1_id, vm1_interface, vm2_id, vm2_interface).to_dict()
        record["links"].append({**link, "cidr": addresses.cidr, "gateway_ip": addresses.gateway})
        links.write(record, record["links"][-1], wanted)
        return link


def _free_interface(record: Record, vm_id: int, name: str) -> Record:
    vm = owned_vm(record, vm_id)
    interface: Record | None = next((one for one in vm["interfaces"] if one["name"] == name), None)
    if interface is None:
        names = ", ".join(one["name"] for one in vm["interfaces"])
        raise RefusedError(
            f"VM {vm_id} has no interface {name!r}", evidence=f"it has {names}", code="interface.unknown"
        )
    if interface["vlan_id"] == INTERNET_VLAN:
        raise RefusedError(
            f"{name} of VM {vm_id} is its way to the internet and cannot be linked",
            remedy="Use one of its data interfaces (eth1, eth2 …)",
            code="interface.internet",
        )
    if interface["link_id"] is not None:
        raise RefusedError(
            f"{name} of VM {vm_id} is already an end of link {interface['link_id']}",
            remedy="Remove that link first, or use another interface",
            code="interface.used",
        )
    return interface


def remove_link(context: Context, username: str, slice_id: int, link_id: int) -> str:
    """Take a link away; its VLAN and both interfaces are free again."""
    with context.db.transaction() as data:
        record = known_slice(data, username, slice_id)
        intents.settle_abandoned(context, record, CHANGE)
        require_state(record, CHANGE)
        _unlink(record, links.known_link(record, link_id))
    return "Link removed"


def _unlink(record: Record, link: Record) -> None:
    record["links"].remove(link)
    for vm in record["vms"]:
        for interface in vm["interfaces"]:
            if interface["link_id"] == link["link_id"]:
                interface |= {"vlan_id": None, "link_id": None, "ip_config": None}


def remove_vm(context: Context, username: str, slice_id: int, vm_id: int) -> str:
    """Take a VM away: its links, its record and its disk.

    The record goes only after the disk: a worker that does not answer leaves both.
    """
    with engaged(context, functools.partial(intend_removal, context, username, slice_id, vm_id)) as intent:
        try:
            clear_vm(context, intent)
        except CloudError:
            keep_vm(context, intent)
            raise
    return "VM removed"


def intend_removal(context: Context, username: str, slice_id: int, vm_id: int, data: Record) -> Intent:
    """Check that a VM may be taken out of a slice, and write the intent; inside a transaction.

    Raises:
        RefusedError: it may not.
    """
    record = known_slice(data, username, slice_id)
    intents.settle_abandoned(context, record, CHANGE)
    require_state(record, CHANGE)
    vm = owned_vm(record, vm_id)
    if not intents.is_abandoned_vm(context, vm):
        require_vm_state(vm, REMOVE_VM)
    return intents.write_of_vm(data, record, vm, REMOVE_VM, username)


def clear_vm(context: Context, intent: Intent, stop: Interruption | None = None) -> None:
    """Remove the disk of a VM, or what there is of it, then its links and its record.

    Raises:
        LeftUnfinished: the process was told to end.
        CloudError: its worker did not do it; the record is as it was.
    """
    vm = _vm_of(context, intent)
    wish = Wish(without_disk=intent.vm_id)
    outcome = Operation(context, intent, stop=stop).apply(wish, hosts=[vm["worker_ip"]])
    if not outcome.ok:
        raise first_error(outcome.errors)
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is None:
            return
        for link in [one for one in record["links"] if intent.vm_id in (one["vm1_id"], one["vm2_id"])]:
            _unlink(record, link)
        record["vms"] = [one for one in record["vms"] if one["vm_id"] != intent.vm_id]


def keep_vm(context: Context, intent: Intent) -> None:
    """Put back a VM whose removal did not succeed."""
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is not None:
            vm = owned_vm(record, intent.vm_id)
            vm.pop("operation")
            vm["status"] = intent.back or DESIGN
