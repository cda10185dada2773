"""What an operation would do, without doing it; and doing it later if nothing has moved since.

Records are changed in a transaction that is taken back (`_rehearsed`): so a plan meets the very checks and the very
choices of the operation. Hosts are looked at, and the difference is what the operation would begin with.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from cloudrepo import quotas
from cloudrepo.diff import Change
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.probe import Host
from cloudrepo.progress import ProgressCallback
from cloudrepo.reconcile import Target, View
from cloudrepo.resources import HostState, Resource
from control import design, intents, lifecycle, links, live, targets, views
from control.context import Context, Record, known_slice, owned_vm
from control.design import VmWish
from control.intents import Intent, engaged
from control.operation import Wish
from control.states import (
    ACTIVE,
    CHANGE,
    DELETE,
    DEPLOY,
    DEPLOYING,
    DESIGN,
    REMOVE_VM,
    RUNNING,
    SET_LINK,
    START,
    START_VM,
    STOP,
    STOP_VM,
    require_state,
)
from control.targets import SlicePlanner

T = TypeVar("T")

VERSION = 1
OF_SLICES = (DEPLOY, START, STOP, DELETE)
OF_VMS = (START_VM, STOP_VM, REMOVE_VM)
REMOVE_LINK = "remove_link"
OF_LINKS = (REMOVE_LINK, SET_LINK)
_ENDS = ("vm1_id", "vm1_interface", "vm2_id", "vm2_interface")
CREATE_SLICE, ADD_VM, ADD_LINK = "create_slice", "add_vm", "add_link"


class _Over(Exception):
    """The end of a rehearsal: what it found; the transaction is taken back."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found


def _rehearsed(context: Context, work: Callable[[Record], T]) -> T:
    """What some work on the records comes to; they are as before."""
    try:
        with context.index_kept(), context.db.transaction() as data:
            raise _Over(work(data))
    except _Over as over:
        found: T = over.found
        return found


# ---------------------------------------------------------------------------------------- choices


def allocate(context: Context, username: str, kind: str, slice_id: int | None, wish: Mapping[str, Any]) -> Record:
    """What a change of the design would be given.

    Args:
        context: the installation.
        username: who acts.
        kind: `create_slice`, `add_vm` or `add_link`.
        slice_id: which slice; None for a new one.
        wish: the arguments of the façade's call.

    Returns:
        `kind`, `slice_id`, `differences` (1), `allocations` (the record that would be made) and `quota` afterwards.

    Raises:
        RefusedError: the call would be refused.
    """
    if kind == ADD_VM:
        context.discovery.ensure_asked()

    def work(data: Record) -> tuple[Record, Record]:
        owner = username if slice_id is None else str(known_slice(data, username, slice_id)["owner"])
        made = _made(context, username, kind, slice_id, wish, data)
        return made, _quota(context, data, owner)

    made, quota = _rehearsed(context, work)
    return {"kind": kind, "slice_id": slice_id, "differences": 1, "allocations": made, "quota": quota}


def _made(
    context: Context, username: str, kind: str, slice_id: int | None, wish: Mapping[str, Any], data: Record
) -> Record:
    if kind == CREATE_SLICE:
        made = design.create_slice(context, username, str(wish.get("slice_name")), str(wish.get("topology_type")))
        record = data["slices"][str(made["slice_id"])]
        return {key: record[key] for key in ("slice_id", "name", "owner", "vlan_pool_start", "vlan_pool_end")}
    if slice_id is None:
        raise RefusedError("Slice not found", code="slice.unknown")
    if kind == ADD_VM:
        names = ("vm_name", "flavor_name", "data_interfaces_count", "internet_enabled", "image", "first_boot")
        wanted = VmWish(*(wish.get(name) for name in names))
        intent = design.reserve_vm(context, username, slice_id, wanted, data)
        vm = owned_vm(known_slice(data, username, slice_id), intent.vm_id)
        keys = ("vm_id", "name", "worker_ip", "flavor", "cores", "ram_gb", "disk_gb", "vnc_port")
        nics = [{key: nic[key] for key in ("name", "mac", "vlan_id")} for nic in vm["interfaces"]]
        return {**{key: vm[key] for key in keys}, "interfaces": nics}
    if kind == ADD_LINK:
        vm1, if1, vm2, if2 = (wish.get(name) for name in _ENDS)
        ends: list[Any] = [(vm1, if1), (vm2, if2), *(wish.get("more_ends") or ())]
        switches = {name: wish.get(name) for name in ("spoofing", "bridging", "vlans", "dhcp")}
        record = known_slice(data, username, slice_id)
        intents.settle_abandoned(context, record, CHANGE)
        require_state(record, CHANGE)
        made = links.add(context, data, record, username, ends, switches, str(wish.get("subnet") or ""))
        link = record["links"][-1]
        return {**made, "cidr": link["cidr"], "gateway_ip": link["gateway_ip"]}
    raise _unknown(kind)


def _unknown(kind: str) -> RefusedError:
    known = ", ".join((*OF_SLICES, *OF_VMS, *OF_LINKS, CREATE_SLICE, ADD_VM, ADD_LINK))
    return RefusedError(f"{kind} cannot be planned", evidence=f"there are {known}", code="plan.kind")


def _quota(context: Context, data: Mapping[str, Any], owner: str) -> Record:
    limit, used = quotas.limits(data["users"].get(owner) or {}, context.settings), quotas.used(data, owner)
    return {
        "user": owner,
        **{
            kind: {"used": quotas.number(used.of(kind)), "limit": quotas.number(limit.of(kind))}
            for kind in quotas.KINDS
        },
    }


# ---------------------------------------------------------------------------------------- hosts


@dataclass(frozen=True, kw_only=True)
class _Rehearsal:
    """An operation as it would begin.

    Attributes:
        record: the slice, with the operation in it.
        digest: of the slice as it was.
        wish: what should be true of its hosts in the end.
        hosts: which.
        quota: of its owner, now.
        link: a link that is changed: `before` and `after`, as `get_slice` has it; the latter None when it goes.
    """

    record: Record
    digest: str
    wish: Wish
    hosts: list[str]
    quota: Record
    link: Record | None = None


def plan(
    context: Context,
    username: str,
    slice_id: int,
    kind: str,
    vm_id: int | None,
    link_id: Any = None,
    switches: Mapping[str, Any] | None = None,
) -> Record:
    """What an operation on a slice, VM or link would do on each host.

    Returns:
        `version`, `kind`, `slice_id`, `name`, `owner`, `vm_id`, `made` (ISO 8601), `installation`, `record` (a digest
        of the slice's record), `revision` (of the state), `differences`, `hosts`, `quota` and `allocations`. A host
        has `host`, `actions` (`verb`, `kind`, `name`), `foreign` (what is in the way), `seen` (what is there of the
        slice) and `error` (why it could not be looked at, or ""). With `link_id` also `link`: `before` and `after`;
        its change counts as a difference.

    Raises:
        RefusedError: the operation would be refused.
    """
    if kind in OF_LINKS:
        edits = {
            REMOVE_LINK: links.removal(link_id),
            SET_LINK: links.switching(context, username, link_id, switches or {}),
        }
        begun = functools.partial(_link_begun, context, username, slice_id, kind, edits[kind], link_id)
    else:
        begun = functools.partial(_begun, context, username, slice_id, kind, vm_id)
    rehearsal = _rehearsed(context, begun)
    known = context.site.hosts(rehearsal.hosts)
    others = context.db.list_slices()
    data = {
        "slices": {str(one["slice_id"]): one for one in others} | {str(slice_id): rehearsal.record},
        "workers_list": list(context.db.data["workers_list"]),
    }
    wanted = [_target(context, data, rehearsal, host) for host in known.values() if isinstance(host, Host)]
    scope = targets.slice_scope(rehearsal.record)
    views, errors = context.site.reconciler.differences(wanted, scope)
    errors = {**{ip: host for ip, host in known.items() if isinstance(host, CloudError)}, **errors}
    installation = context.site.installation
    hosts = [_of_host(ip, views.get(ip), errors.get(ip), installation, scope) for ip in rehearsal.hosts]
    record = rehearsal.record
    return {
        "version": VERSION,
        "kind": kind,
        "slice_id": record["slice_id"],
        "name": record["name"],
        "owner": record["owner"],
        "vm_id": vm_id,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "installation": installation,
        "record": rehearsal.digest,
        "revision": context.db.store.revision,
        "differences": sum(len(one["actions"]) for one in hosts) + _is_other(rehearsal.link),
        "hosts": hosts,
        "quota": rehearsal.quota,
        "allocations": _allocations(record, vm_id),
        **({"link": rehearsal.link} if rehearsal.link is not None else {}),
    }


def _is_other(link: Record | None) -> bool:
    return link is not None and link["before"] != link["after"]


def _link_begun(
    context: Context, username: str, slice_id: int, kind: str, edit: live.Edit, link_id: Any, data: Record
) -> _Rehearsal:
    record = known_slice(data, username, slice_id)
    digest, before = digest_of(record), views.link(links.known_link(record, link_id))
    when = CHANGE if kind == REMOVE_LINK else SET_LINK
    _insist, written = live.written_in(context, data, record, when, edit)
    record = copy.deepcopy(dict(record))
    after = next((views.link(one) for one in record["links"] if one["link_id"] == link_id), None)
    hosts = live.hosts_with(context, record, written.vms) if record["status"] == RUNNING else []
    return _Rehearsal(
        record=record,
        digest=digest,
        wish=_wish(context, record, kind, None),
        hosts=hosts,
        quota=_quota(context, data, str(record["owner"])),
        link={"before": before, "after": after},
    )


def _begun(context: Context, username: str, slice_id: int, kind: str, vm_id: int | None, data: Record) -> _Rehearsal:
    record = known_slice(data, username, slice_id)
    digest = digest_of(record)
    if kind in OF_SLICES:
        lifecycle.intend(context, username, slice_id, kind, data)
    elif kind in (START_VM, STOP_VM):
        lifecycle.intend_vm(context, username, slice_id, vm_id or 0, kind, data)
    elif kind == REMOVE_VM:
        design.intend_removal(context, username, slice_id, vm_id or 0, data)
    else:
        raise _unknown(kind)
    record = copy.deepcopy(dict(known_slice(data, username, slice_id)))
    quota = _quota(context, data, str(record["owner"]))
    wish = _wish(context, record, kind, vm_id)
    return _Rehearsal(record=record, digest=digest, wish=wish, hosts=_hosts(context, record, kind, vm_id), quota=quota)


def _wish(context: Context, record: Mapping[str, Any], kind: str, vm_id: int | None) -> Wish:
    running = frozenset(vm["vm_id"] for vm in record["vms"] if vm["status"] in (RUNNING, DEPLOYING))
    if kind in (DEPLOY, START, START_VM, STOP_VM, *OF_LINKS):
        return Wish(machines=running, networks=True)
    if kind == REMOVE_VM:
        return Wish(machines=running, networks=record["status"] in ACTIVE, without_disk=vm_id)
    return {STOP: Wish(), DELETE: Wish(disks=False)}[kind]


def _hosts(context: Context, record: Mapping[str, Any], kind: str, vm_id: int | None) -> list[str]:
    is_new = kind == START_VM and (record.get("operation") or {}).get("back") == DESIGN
    if kind == REMOVE_VM and record["status"] in ACTIVE:
        return live.hosts_with(context, record, live.neighbours(record, vm_id or 0))
    if kind in OF_VMS and not is_new:
        return [str(owned_vm(record, vm_id)["worker_ip"])]
    hosts = targets.hosts_of(record, context.settings.network.node)
    return list(dict.fromkeys([*hosts, *(record.get("pending", ()) if kind in (STOP, DELETE) else ())]))


def _target(context: Context, data: Record, rehearsal: _Rehearsal, host: Host) -> Target:
    wish = rehearsal.wish

    def wanted(seen: HostState) -> list[Resource]:
        planner = SlicePlanner(
            context.site,
            data,
            rehearsal.record,
            machines=wish.machines or (),
            networks=bool(wish.networks),
            disks=wish.disks,
            without_disk=wish.without_disk,
        )
        return planner.wanted(host, seen)

    return Target(host=host, wanted=wanted)


def _of_host(
    ip: str, view: View | None, error: CloudError | None, installation: str, scope: Callable[[Any], bool]
) -> Record:
    if view is None:
        return {"host": ip, "actions": [], "foreign": [], "seen": [], "error": str(error or f"{ip} was not asked")}
    ours = [
        str(one)
        for _, one in view.state.items()
        if one.mark is not None and one.mark.installation == installation and scope(one.mark)
    ]
    return {
        "host": ip,
        "actions": [_action(change) for change in view.difference.changes],
        "foreign": [str(change.resource) for change in view.difference.foreign],
        "seen": sorted(ours),
        "error": "",
    }


def _action(change: Change) -> Record:
    return {"verb": change.verb, "kind": change.resource.KIND, "name": str(change.resource.name)}


def _allocations(record: Mapping[str, Any], vm_id: int | None) -> Record:
    """What the records give the slice: VLANs, and of each VM its worker, port and addresses."""
    vms = [vm for vm in record["vms"] if vm_id in (None, vm["vm_id"])]
    return {
        "vlans": [
            {"vlan_id": link["vlan_id"], "link_id": link["link_id"], "cidr": link["cidr"]} for link in record["links"]
        ],
        "vms": [
            {
                **{key: vm[key] for key in ("vm_id", "name", "worker_ip", "vnc_port")},
                "addresses": [nic["ip_config"]["ip"] for nic in vm["interfaces"] if nic["ip_config"]],
            }
            for vm in vms
        ],
    }


def digest_of(record: Mapping[str, Any]) -> str:
    """A slice's record in a few characters: equal as long as nothing of it changes."""
    text = json.dumps(record, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---------------------------------------------------------------------------------------- applying


def apply(
    context: Context,
    username: str,
    slice_id: int,
    saved: Mapping[str, Any],
    progress: ProgressCallback | None = None,
    stop: Interruption | None = None,
) -> str:
    """Do what a plan says, if the slice's record and its hosts are as they were when it was made.

    Returns:
        The words of the operation.

    Raises:
        RefusedError: it is no plan of this installation, or something moved; nothing was done.
        CloudError: as the operation.
    """
    kind = _checked(context, saved, slice_id)
    fresh = plan(context, username, slice_id, kind, None)
    moved = what_moved(saved, fresh)
    if moved:
        raise _stale(slice_id, moved)
    with engaged(context, functools.partial(_intend, context, username, slice_id, kind, fresh["record"])) as intent:
        return lifecycle.carry_out(context, intent, progress, stop)


def _intend(context: Context, username: str, slice_id: int, kind: str, digest: str, data: Record) -> Intent:
    if digest_of(known_slice(data, username, slice_id)) != digest:
        raise _stale(slice_id, [f"the record of slice {slice_id} was changed at this moment"])
    return lifecycle.intend(context, username, slice_id, kind, data)


def _stale(slice_id: int, moved: Iterable[str]) -> RefusedError:
    moved = list(moved)
    return RefusedError(
        f"the plan for slice {slice_id} is not applied",
        evidence="since it was made, " + "; ".join(moved[:5]) + ("; and more" if len(moved) > 5 else ""),
        remedy=f"Make a new one: ./cloud plan {slice_id} -o FILE",
        code="plan.stale",
        details={"moved": moved},
    )


def _checked(context: Context, saved: Mapping[str, Any], slice_id: int) -> str:
    problem = ""
    if saved.get("version") != VERSION:
        problem = f"its version is {saved.get('version')!r}, and {VERSION} can be read"
    elif saved.get("installation") != context.site.installation:
        problem = f"it is of installation {saved.get('installation')!r}"
    elif saved.get("slice_id") != slice_id or saved.get("kind") not in OF_SLICES:
        problem = f"it says {saved.get('kind')!r} of slice {saved.get('slice_id')!r}"
    elif not isinstance(saved.get("hosts"), list) or not all(map(_is_host, saved["hosts"])):
        problem = "its hosts cannot be read"
    if problem:
        remedy = "Make a new one: ./cloud plan SLICE -o FILE"
        raise RefusedError("this is no plan that can be applied", evidence=problem, remedy=remedy, code="plan.file")
    return str(saved["kind"])


def _is_host(one: Any) -> bool:
    if not isinstance(one, Mapping) or not isinstance(one.get("host"), str):
        return False
    lists = [one.get(key) for key in ("actions", "foreign", "seen")]
    return all(isinstance(found, list) for found in lists) and all(
        isinstance(action, Mapping) and {"verb", "kind", "name"} <= action.keys() for action in one["actions"]
    )


def what_moved(saved: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """What is another thing now than in a plan, in sentences; pure."""
    moved = []
    if saved.get("record") != fresh["record"]:
        revisions = f"the state was at revision {saved.get('revision')} and is at {fresh['revision']}"
        moved.append(f"the record of slice {fresh['slice_id']} changed ({revisions})")
    before = {one["host"]: one for one in saved["hosts"]}
    now = {one["host"]: one for one in fresh["hosts"]}
    moved += [f"{ip} is a host of it no more" for ip in before if ip not in now]
    for ip, host in now.items():
        if ip not in before:
            moved.append(f"{ip} is a host of it now")
        elif host["error"]:
            moved.append(f"{ip} cannot be looked at: {host['error']}")
        else:
            moved += _moved_on(ip, before[ip], host)
    return moved


def _moved_on(ip: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = [f"{one} is on {ip} now" for one in now["seen"] if one not in before["seen"]]
    found += [f"{one} is gone from {ip}" for one in before["seen"] if one not in now["seen"]]
    found += [f"{one} is in the way on {ip}" for one in now["foreign"] if one not in before["foreign"]]
    were, are = ({f"{one['verb']} {one['kind']} {one['name']}" for one in host["actions"]} for host in (before, now))
    if found or were == are:
        return found
    return [f"{ip} needs other actions: {', '.join(sorted(were ^ are))}"]
