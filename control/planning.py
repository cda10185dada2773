"""What an operation would do, without doing it; and doing it later if nothing has moved since.

Records are changed in a transaction that is taken back (`plan_parts.rehearsed`): so a plan meets the very checks and
choices of the operation. Hosts are looked at, and the difference is what the operation would begin with.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.interruption import Interruption
from cloudrepo.late_dataclass import dataclass
from cloudrepo.progress import ProgressCallback
from cloudrepo.validation import excerpt
from control import aims, design, intents, lifecycle, links, live, views
from control.context import Context, Record, known_slice, owned_vm
from control.design import VmWish
from control.intents import Intent, engaged
from control.plan_parts import VERSION, Part, document
from control.plan_records import digest_of, quota_of, rehearsed
from control.states import (
    CHANGE,
    DELETE,
    DEPLOY,
    REMOVE_VM,
    RUNNING,
    SET_LINK,
    START,
    START_VM,
    STOP,
    STOP_VM,
    require_state,
)

OF_SLICES = (DEPLOY, START, STOP, DELETE)
OF_VMS = (START_VM, STOP_VM, REMOVE_VM)
REMOVE_LINK = "remove_link"
OF_LINKS = (REMOVE_LINK, SET_LINK)
_ENDS = ("vm1_id", "vm1_interface", "vm2_id", "vm2_interface")
CREATE_SLICE, ADD_VM, ADD_LINK = "create_slice", "add_vm", "add_link"


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
        return made, quota_of(context, data, owner)

    made, quota = rehearsed(context, work)
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


# ---------------------------------------------------------------------------------------- hosts


@dataclass(frozen=True, kw_only=True)
class _Rehearsal:
    """An operation as it would begin.

    Attributes:
        part: the slice with the operation in it, and what it wants of hosts.
        digest: of the slice as it was.
        quota: of its owner, now.
        link: a link that is changed: `before` and `after`, as `get_slice` has it; the latter None when it goes.
    """

    part: Part
    digest: str
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
        `version`, `kind`, `slice_id`, `name`, `owner`, `user` (for whom it is made), `vm_id`, `made` (ISO 8601),
        `installation`, `record` (a digest of the slice's record), `revision` (of the state), `differences`, `hosts`,
        `quota` and `allocations`. A host has `host`, `actions` (`verb`, `kind`, `name`), `foreign` (what is in the
        way), `seen` (what is there of the slice) and `error` (why it could not be looked at, or ""). With `link_id`
        also `link`: `before` and `after`; its change counts as a difference.

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
    rehearsal = rehearsed(context, begun)
    found = document(context, username, kind, [rehearsal.part], rehearsal.digest, rehearsal.quota, vm_id=vm_id)
    if rehearsal.link is not None:
        found["differences"] += rehearsal.link["before"] != rehearsal.link["after"]
        found["link"] = rehearsal.link
    return found


def _link_begun(
    context: Context, username: str, slice_id: int, kind: str, edit: live.Edit, link_id: Any, data: Record
) -> _Rehearsal:
    record = known_slice(data, username, slice_id)
    digest, before = digest_of(record), views.link(links.known_link(record, link_id))
    when = CHANGE if kind == REMOVE_LINK else SET_LINK
    _insist, written = live.written_in(context, data, record, when, edit)
    record = copy.deepcopy(dict(record))
    after = next((views.link(one) for one in record["links"] if one["link_id"] == link_id), None)
    node = context.settings.network.node
    wanted = [aims.change(record, written.vms, node)] if record["status"] == RUNNING else []
    return _Rehearsal(
        part=Part(record=record, aims=wanted),
        digest=digest,
        quota=quota_of(context, data, str(record["owner"])),
        link={"before": before, "after": after},
    )


def _begun(context: Context, username: str, slice_id: int, kind: str, vm_id: int | None, data: Record) -> _Rehearsal:
    digest = digest_of(known_slice(data, username, slice_id))
    if kind in OF_SLICES:
        intent = lifecycle.intend(context, username, slice_id, kind, data)
    elif kind in (START_VM, STOP_VM):
        intent = lifecycle.intend_vm(context, username, slice_id, vm_id or 0, kind, data)
    elif kind == REMOVE_VM:
        intent = design.intend_removal(context, username, slice_id, vm_id or 0, data)
    else:
        raise _unknown(kind)
    record = copy.deepcopy(dict(known_slice(data, username, slice_id)))
    part = Part(record=record, aims=aims.of(intent, record, context.settings))
    return _Rehearsal(part=part, digest=digest, quota=quota_of(context, data, str(record["owner"])))


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
    fresh = checked(context, username, slice_id, saved)
    kind, digest = str(fresh["kind"]), str(fresh["record"])
    with engaged(context, functools.partial(_intend, context, username, slice_id, kind, digest)) as intent:
        return lifecycle.carry_out(context, intent, progress, stop)


def checked(context: Context, username: str, slice_id: int, plan: Mapping[str, Any]) -> Record:
    """A plan made now that says what a saved one does.

    Raises:
        RefusedError: the saved one is none of this installation, was made for somebody else, or something moved.
    """
    kind = _kind_of(context, plan, slice_id)
    if plan["user"] != username:
        raise RefusedError(
            f"the plan was made for {excerpt(plan['user'])}, and {username} cannot apply it",
            remedy="Make one of your own: ./cloud plan SLICE -o FILE",
            code="plan.user",
        )
    fresh = _fresh(context, username, slice_id, kind)
    moved = what_moved(plan, fresh)
    if moved:
        raise _stale(slice_id, moved)
    return fresh


def _fresh(context: Context, username: str, slice_id: int, kind: str) -> Record:
    return plan(context, username, slice_id, kind, None)


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


def _kind_of(context: Context, saved: Mapping[str, Any], slice_id: int) -> str:
    problem = ""
    if saved.get("version") != VERSION:
        problem = f"its version is {saved.get('version')!r}, and {VERSION} can be read"
    elif saved.get("installation") != context.site.installation:
        problem = f"it is of installation {saved.get('installation')!r}"
    elif saved.get("slice_id") != slice_id or saved.get("kind") not in OF_SLICES:
        problem = f"it says {saved.get('kind')!r} of slice {saved.get('slice_id')!r}"
    elif not isinstance(saved.get("user"), str):
        problem = "its user cannot be read"
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
