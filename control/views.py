"""What the façade shows of the records: copies, with the documented keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cloudrepo import leadership, link_ends, link_switches, permissions, placement, screen_password
from cloudrepo.errors import RefusedError
from cloudrepo.naming import machine_dir
from cloudrepo.observations import SUSPECT, UP, Snapshot, WorkerView
from cloudrepo.stores.filesystem import without_sure_locks
from cloudrepo.validation import excerpt
from control.context import Context, Record, known_slice, user_record
from control.states import RUNNING

MOST_EVENTS = 10_000  # at once

_VM_KEYS = (
    *("vm_id", "name", "owner", "worker_ip", "flavor", "cores", "ram_gb", "disk_gb", "vnc_port", "interfaces"),
    *("qcow_image", "status", "pid"),
)
_LINK_KEYS = ("link_id", "vlan_id", "vm1_id", "vm1_interface", "vm2_id", "vm2_interface", "cidr", "gateway_ip")
_SLICE_KEYS = ("slice_id", "name", "owner", "topology_type", "status", "vlan_pool_start", "vlan_pool_end")


def account(user: Mapping[str, Any], *, must_change: bool) -> Record:
    """Who is logged in; never a hash."""
    return {
        "username": user["username"],
        "role": permissions.role_of(user),
        "must_change_password": must_change,
        "quota_vms": user["quota_vms"],
        "used_vms": user["used_vms"],
    }


def vm(record: Mapping[str, Any]) -> Record:
    """A VM's documented keys."""
    view = {key: record.get(key) for key in _VM_KEYS}
    view["interfaces"] = [dict(interface) for interface in record["interfaces"]]
    return view


def link(record: Mapping[str, Any]) -> Record:
    """A link with its switches, and `more_ends` where it has more than two.

    A plain wire has neither `cidr` nor `gateway_ip`: nobody there has an address of us.
    """
    view = {key: record.get(key) for key in _LINK_KEYS}
    if not link_switches.is_served(record):
        view |= {"cidr": None, "gateway_ip": None}
    more = {link_ends.MORE: [dict(end) for end in record[link_ends.MORE]]} if record.get(link_ends.MORE) else {}
    return view | more | link_switches.switches_of(record)


def slice_view(record: Mapping[str, Any], snapshot: Snapshot | None = None) -> Record:
    """A slice with its VMs and links, the reason of an error and what is still pending.

    Each VM has, beside the documented keys, `observed` (what its host reported, None when that is not known),
    `observed_reason`, `restart` (its own policy, or ""), `image` (the added image it is on, or ""), `first_boot` (what
    it is told at its boot) and `error` (why it was given up, or "").
    """
    return {
        **{key: record.get(key) for key in _SLICE_KEYS},
        "vms": [_vm_in_slice(one, snapshot) for one in record["vms"]],
        "links": [link(one) for one in record["links"]],
        "error": record.get("error", ""),
        "pending": list(record.get("pending", ())),
    }


def _vm_in_slice(record: Mapping[str, Any], snapshot: Snapshot | None) -> Record:
    seen = snapshot.vms.get(record["vm_id"]) if snapshot is not None else None
    return {
        **vm(record),
        "observed": (seen.state or None) if seen is not None else None,
        "observed_reason": seen.reason if seen is not None else "",
        "restart": record.get("restart", ""),
        "image": record.get("image", ""),
        "first_boot": dict(record.get("first_boot", {})),
        "error": record.get("error", ""),
    }


def slices_of(context: Context, username: str) -> list[Record]:
    """All slices of a user, by id."""
    context.db.refresh()
    user_record(context.db.data, username)
    snapshot = context.observations.fresh()
    return [slice_view(record, snapshot) for record in context.db.list_slices(username)]


def all_slices(context: Context) -> list[Record]:
    """Everybody's slices, by id."""
    snapshot = context.observations.fresh()
    return [slice_view(record, snapshot) for record in context.db.list_slices()]


def slice_of(context: Context, username: str, slice_id: int) -> Record:
    """One slice."""
    context.db.refresh()
    return slice_view(known_slice(context.db.data, username, slice_id), context.observations.fresh())


def console(context: Context, slices: Sequence[Record], username: str, wanted: int | str) -> Record:
    """Where the serial console of a running VM of these slices is, and its guest agent."""
    record = running_vm(slices, username, wanted)
    directory = machine_dir(context.db.installation, record["vm_id"])
    return {
        "worker_ip": record["worker_ip"],
        "socket": f"{directory}/serial.sock",
        "agent_socket": f"{directory}/agent.sock",
        "vm_id": record["vm_id"],
        "name": record["name"],
        "owner": record["owner"],
    }


def screen(slices: Sequence[Record], username: str, wanted: int | str, bind: str) -> Record:
    """Where the screen of a running VM of these slices is on its worker, which listens on `bind`, and its password."""
    record = running_vm(slices, username, wanted)
    return {
        "worker_ip": record["worker_ip"],
        "port": record["vnc_port"],
        "password": screen_password.of(record),
        "bind": bind,
        "vm_id": record["vm_id"],
        "name": record["name"],
        "owner": record["owner"],
    }


def running_vm(slices: Sequence[Record], username: str, wanted: int | str) -> Record:
    """A running VM by id or name.

    Args:
        slices: those that may be used for this.
        username: who acts; a name means one's own VM before somebody else's.
        wanted: its id or name.

    Raises:
        RefusedError: there is none, several have the name, or it does not run.
    """
    vms = [one for record in slices for one in record["vms"]]
    exact = [one for one in vms if str(one["vm_id"]) == str(wanted)]
    named = [one for one in vms if one["name"] == wanted]
    found = exact or [one for one in named if one["owner"] == username] or named
    if not found:
        raise RefusedError(f"you have no VM {excerpt(wanted)}", remedy="`View my Slices` lists them", code="vm.unknown")
    if len(found) > 1:
        ids = ", ".join(str(one["vm_id"]) for one in found)
        raise RefusedError(f"several of your VMs are called {wanted}", evidence=f"their ids are {ids}", code="vm.many")
    if found[0]["status"] != RUNNING:
        raise RefusedError(
            f"VM {found[0]['vm_id']} ({found[0]['name']}) does not run",
            evidence=f"it is {found[0]['status']}",
            remedy="Deploy its slice first",
            code="vm.state",
        )
    running: Record = found[0]
    return running


def events_for(context: Context, username: str, count: int) -> list[Record]:
    """The last events that a user may see, the oldest first, as in the log.

    Students see what they did, and what happened to them, their slices and their VMs.
    """
    found = context.events.read()
    user = user_record(context.db.data, username)
    if permissions.RULES["list_all_slices"].reach(permissions.role_of(user)) <= permissions.Reach.NONE:
        slices = context.db.list_slices(username)
        own = {f"slice {record['slice_id']}" for record in slices} | {f"user {username}"}
        own |= {f"vm {one['vm_id']}" for record in slices for one in record["vms"]}
        found = (one for one in found if username in (one.who, one.details.get("owner")) or one.about in own)
    return [event.to_json() for event in deque(found, maxlen=max(0, min(count, MOST_EVENTS)))]


def cluster(context: Context) -> Record:
    """Workers in the order of `workers_list`, then those taken out of it; the network node; the log."""
    context.db.refresh()
    data, reasons = context.db.data, context.down_reasons()
    snapshot = context.observations.fresh()
    listed = list(data["workers_list"])
    rest = [ip for ip in data["workers"] if ip not in listed]
    return {
        "workers": [_worker(context, ip, reasons, snapshot, is_listed=ip in listed) for ip in [*listed, *rest]],
        "network_node": context.settings.network.node,
        "login": context.login,
        "slices": len(data["slices"]),
        "vms": sum(len(record["vms"]) for record in data["slices"].values()),
        "log": str(context.db.path.parent / "cloudrepo.log"),
        "state": str(context.db.path),
        "warnings": [warning] if (warning := without_sure_locks(context.db.path)) else [],
        "monitor": monitor(context),
    }


def monitor(context: Context) -> Record:
    """Who watches the hosts, and the last look at them.

    Returns:
        `holder` (host, pid, kind, since; None = nobody), `text` (the same in words), `last_pass` (ISO 8601, or None),
        `age_s`, `took_s`, `is_stale`, `save_error`, `vms` (how many are in each observed state).
    """
    observations = context.observations
    holder = leadership.holder(observations.path.parent)
    snapshot = observations.read()
    found: Record = {
        "holder": asdict(holder) if holder is not None else None,
        "text": str(holder) if holder is not None else "",
        "last_pass": None,
    }
    if snapshot is None:
        return found
    states = [one.state for one in snapshot.vms.values() if one.state]
    return found | {
        "last_pass": snapshot.taken_at,
        "age_s": round(observations.age_s(snapshot), 1),
        "took_s": snapshot.took_s,
        "is_stale": observations.is_stale(snapshot),
        "save_error": snapshot.save_error,
        "vms": {state: states.count(state) for state in sorted(set(states))},
    }


def _worker(
    context: Context, ip: str, reasons: Mapping[str, str], snapshot: Snapshot | None, *, is_listed: bool
) -> Record:
    data = context.db.data
    known = data["workers"].get(ip)
    vms = sum(one["worker_ip"] == ip for record in data["slices"].values() for one in record["vms"])
    seen = snapshot.workers.get(ip) if snapshot is not None else None
    state = "down" if ip in reasons else "up" if known is not None else "unknown"
    if state == "up" and seen is not None and seen.state == SUSPECT:
        state, reasons = SUSPECT, {ip: seen.reason}
    return {
        **(known or {}),
        "ip": ip,
        "state": state,
        "reason": reasons.get(ip, ""),
        "load": _load(seen) if seen is not None and seen.state == UP else None,
        "is_listed": is_listed,
        "is_drained": ip in (data.get(placement.DRAINED) or ()),
        "is_network_node": ip == context.settings.network.node,
        "vms": vms,
    }


def _load(seen: WorkerView) -> Record:
    """What is in use on a worker now, by all: percent of its processors, GiB; None = not known."""

    def used(size: float | None, free: float | None, unit: float) -> float | None:
        return None if size is None or free is None else round((size - free) / unit, 1)

    return {
        "cpu_percent": seen.cpu_percent,
        "ram_gb": used(seen.ram_mib, seen.ram_free_mib, 1024),
        "disk_gb": used(seen.disk_gib, seen.disk_free_gib, 1),
    }
