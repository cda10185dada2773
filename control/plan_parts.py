"""What plans are made of besides records (`control/plan_records.py`): a look at hosts, and the document."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cloudrepo.diff import Change
from cloudrepo.errors import CloudError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import Mark
from cloudrepo.probe import Host
from cloudrepo.reconcile import Target, View
from cloudrepo.resources import Disk, HostState, Resource
from control import targets
from control.context import Context, Record, owned_vm
from control.operation import Aim, Wish, hosts_of, planner

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """One operation on a slice, as it would begin.

    Attributes:
        record: the slice, with the operation in it.
        aims: what it wants of hosts.
        makes_disk_of: a VM whose disk it makes.
    """

    record: Record
    aims: Sequence[Aim]
    makes_disk_of: int | None = None


def document(
    context: Context,
    username: str,
    kind: str,
    parts: Sequence[Part],
    digest: str,
    quota: Record,
    *,
    vm_id: int | None = None,
) -> Record:
    """A plan of operations on one slice; see `planning.plan` for the keys. Its hosts are looked at.

    Args:
        context: the installation.
        username: for whom it is made.
        kind: what is planned.
        parts: the operations, in their order.
        digest: of the slice's record as it was.
        quota: of its owner.
        vm_id: which VM it is about.
    """
    record = parts[-1].record
    hosts = looked_at(context, parts)
    return {
        "version": VERSION,
        "kind": kind,
        "slice_id": record["slice_id"],
        "name": record["name"],
        "owner": record["owner"],
        "user": username,
        "vm_id": vm_id,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "installation": context.site.installation,
        "record": digest,
        "revision": context.db.store.revision,
        "differences": sum(len(one["actions"]) for one in hosts),
        "hosts": hosts,
        "quota": quota,
        "allocations": _allocations(record, vm_id),
    }


def looked_at(context: Context, parts: Sequence[Part]) -> list[Record]:
    """The hosts of some operations, and what would be done there. An object counts once, by the last that means it."""
    found: dict[str, Record] = {}
    for part in parts:
        for aim in part.aims:
            views, hosts = _hosts_of(context, part, aim)
            for host in hosts:
                view = views.get(host["host"])
                merge(found, host, [_name_of(one) for one in view.wanted] if view is not None else ())
        if part.makes_disk_of is not None:
            merge(found, _disk_of(context, part.record, part.makes_disk_of))
    return list(found.values())


def merge(found: dict[str, Record], host: Record, wanted: Collection[tuple[str, str]] = ()) -> None:
    """Add what a further operation does on a host to what those before it do there.

    Args:
        found: hosts by address, as those before leave them.
        host: as the further operation finds it now, which is before the others.
        wanted: kinds and names of what it wants there: what was to be removed is made again.
    """
    known = found.setdefault(host["host"], host)
    if known is host:
        return
    meant = {(one["kind"], one["name"]) for one in host["actions"]}
    before = [one for one in known["actions"] if (one["kind"], one["name"]) not in meant]
    again = [
        {**one, "verb": "add"} if one["verb"] == "remove" and (one["kind"], one["name"]) in wanted else one
        for one in before
    ]
    known["actions"] = again + host["actions"]
    for key in ("foreign", "seen"):
        known[key] = sorted({*known[key], *host[key]})
    known["error"] = known["error"] or host["error"]


def _hosts_of(context: Context, part: Part, aim: Aim) -> tuple[dict[str, View], list[Record]]:
    ips = hosts_of(aim, part.record, context.settings.network.node)
    known = context.site.hosts(ips)
    others = context.db.list_slices()
    data = {
        "slices": {str(one["slice_id"]): one for one in [*others, part.record]},
        "workers_list": list(context.db.data["workers_list"]),
    }
    wanted = [_target(context, data, part.record, aim.wish, host) for host in known.values() if isinstance(host, Host)]
    scope = targets.slice_scope(part.record)
    views, errors = context.site.reconciler.differences(wanted, scope)
    errors = {**{ip: host for ip, host in known.items() if isinstance(host, CloudError)}, **errors}
    return views, [of_host(context, ip, views.get(ip), errors.get(ip), scope) for ip in ips]


def _target(context: Context, data: Record, record: Record, wish: Wish, host: Host) -> Target:
    def wanted(seen: HostState) -> list[Resource]:
        return planner(context.site, data, record, wish).wanted(host, seen)

    return Target(host=host, wanted=wanted)


def _disk_of(context: Context, record: Record, vm_id: int) -> Record:
    """A worker where the disk of a VM is made, unless it is there."""
    ip = str(owned_vm(record, vm_id)["worker_ip"])
    host = context.site.hosts([ip])[ip]
    if isinstance(host, CloudError):
        return of_host(context, ip, None, host, _nobodys)
    views, errors = context.site.reconciler.differences([Target(host=host, wanted=_nothing)], _nobodys)
    found = of_host(context, ip, views.get(ip), errors.get(ip), targets.slice_scope(record))
    disk = views[ip].state.get((Disk.KIND, str(vm_id))) if ip in views else None
    if ip in views and not (isinstance(disk, Disk) and disk.path):
        found["actions"] = [{"verb": "add", "kind": Disk.KIND, "name": str(vm_id)}]
    return found


def _nothing(_seen: HostState) -> list[Resource]:
    return []


def _nobodys(_mark: Mark) -> bool:
    return False


def of_host(
    context: Context, ip: str, view: View | None, error: CloudError | None, scope: Callable[[Any], bool]
) -> Record:
    """A host of a plan: `host`, `actions`, `foreign`, `seen`, `error`."""
    if view is None:
        return {"host": ip, "actions": [], "foreign": [], "seen": [], "error": str(error or f"{ip} was not asked")}
    ours = [
        str(one)
        for _, one in view.state.items()
        if one.mark is not None and one.mark.installation == context.site.installation and scope(one.mark)
    ]
    return {
        "host": ip,
        "actions": [action(change) for change in view.difference.changes],
        "foreign": [str(change.resource) for change in view.difference.foreign],
        "seen": sorted(ours),
        "error": "",
    }


def action(change: Change) -> Record:
    """One change of a host: `verb`, `kind`, `name`."""
    kind, name = _name_of(change.resource)
    return {"verb": change.verb, "kind": kind, "name": name}


def _name_of(resource: Resource) -> tuple[str, str]:
    return resource.KIND, str(resource.name)


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
