"""Designing: slices, VMs and links as records. Only a VM's disk touches a host here."""

from __future__ import annotations

import functools
import logging
from typing import Any

from cloudrepo import allocation, first_boot, placement, quotas, screen_password, validation
from cloudrepo.errors import CloudError, ForeignObjectError, HostUnreachable, RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.late_dataclass import dataclass
from control import aims, images, intents, links, live
from control.context import Context, Record, first_error, known_slice, owned_vm, user_record
from control.intents import Intent, engaged, own_record
from control.operation import Operation
from control.states import (
    ADD_VM,
    CHANGE,
    CREATING,
    DELETING,
    DESIGN,
    REMOVE_VM,
    require_state,
    require_vm_state,
)
from models import Slice

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
    worker: Any = ""


def add_vm(context: Context, username: str, slice_id: int, wish: VmWish) -> Record:
    """A new VM with its disk on a worker. In a slice that runs it waits for its start, by `lifecycle.start_vm`.

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
        if record is not None and record["status"] != DELETING:
            vm = note_made(record, intent)
            vm["qcow_image"] = disk.path
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
    flavors = context.settings.flavors
    if str(wish.flavor) not in flavors:
        raise RefusedError("Invalid flavor", code="flavor.unknown", details={"flavors": list(flavors)})
    flavor = dict(flavors[str(wish.flavor)])
    flavor["disk_gb"] = max(flavor["disk_gb"], images.disk_gb(context, wish.image))
    name = validation.unused_vm_name(record, validation.vm_name(wish.name))
    count = validation.data_interfaces_count(wish.data_interfaces)
    has_internet = validation.truth(wish.internet, "internet access")
    told = first_boot.wanted(wish.first_boot)
    asked = quotas.Amount(1, flavor["cores"], flavor["ram_gb"], flavor["disk_gb"])
    quotas.check(data, owner, asked, context.settings)
    worker = _place(context, data, flavor, str(wish.worker or ""))
    vm_id = allocation.next_id(data)
    vm = context.deployment.design_vm(
        data, slice_id, vm_id, name, owner, worker, flavor | {"name": wish.flavor}, count, internet=has_internet
    )
    chosen = ({"image": wish.image} if wish.image else {}) | ({first_boot.KEY: told} if told else {})
    made = {screen_password.KEY: screen_password.make(), "status": CREATING}
    record["vms"].append(vm.to_dict() | chosen | made)
    return intents.write_of_vm(data, record, record["vms"][-1], ADD_VM, username)


def _place(context: Context, data: Record, flavor: Record, pinned: str) -> str:
    wanted = placement.Wanted(cores=flavor["cores"], ram_gb=flavor["ram_gb"], disk_gb=flavor["disk_gb"])
    index = context.round_robin_index(data)
    seen = context.observations.up()
    down = context.discovery.down()
    choice = placement.choose_worker(data, context.settings, wanted, index, down, seen, pinned)
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


def remove_vm(context: Context, username: str, slice_id: int, vm_id: int) -> str:
    """Take a VM away: its links, its record, its disk, and in a slice that runs its machine, at once.

    The record goes only after the disk: a worker that does not answer leaves both.

    Raises:
        RefusedError: no such VM, or somebody is at work on it or its slice.
        CloudError: a host did not do it; the VM is still there.
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

    Where its slice runs, first its machine and the ends of its links: whoever is left hears of it before the disk goes,
    which nothing brings back.

    Raises:
        LeftUnfinished: the process was told to end.
        CloudError: a host did not do it; the record is as it was.
    """
    vm = _vm_of(context, intent)
    record = context.db.get_slice(intent.slice_id) or {"vms": [vm], "status": DESIGN}
    operation = Operation(context, intent, stop=stop)
    for aim in aims.of(intent, record, context.settings):
        outcome = operation.pursue(aim)
        if not outcome.ok:
            raise first_error(outcome.errors)
    with context.db.transaction() as data:
        own = own_record(data, intent)
        if own is not None:
            note_cleared(own, vm["vm_id"])


def note_cleared(record: Record, vm_id: Any) -> None:
    """Take a VM of which nothing is left out of its slice's record; inside a transaction."""
    links.leave(record, vm_id)
    record["vms"] = [one for one in record["vms"] if one["vm_id"] != vm_id]


def note_made(record: Record, intent: Intent) -> Record:
    """Write that a VM has its disk, in a transaction; the VM."""
    vm = owned_vm(record, intent.vm_id)
    vm.pop("operation")
    vm["status"] = DESIGN
    return vm


def note_kept(record: Record, intent: Intent) -> None:
    """Write that a VM whose removal was begun stays; inside a transaction."""
    vm = owned_vm(record, intent.vm_id)
    vm.pop("operation")
    vm["status"] = intent.back or DESIGN


def keep_vm(context: Context, intent: Intent) -> None:
    """Put back a VM whose removal did not succeed; in a slice that runs its hosts have it again, where they answer."""
    with context.db.transaction() as data:
        record = own_record(data, intent)
        if record is None:
            return
        note_kept(record, intent)
    live.bring_again(context, intent.slice_id, intent.who)
