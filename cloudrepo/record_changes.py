"""What a change of the records comes to, object by object, for people and programs. Pure; no secret is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloudrepo import permissions
from cloudrepo.placement import DRAINED

Objects = dict[str, dict[str, Any]]
"""By what an object is called (`user ann`, `VM 1001`), its values."""

_OF_SLICES = ("name", "owner", "status", "vlan_pool_start", "vlan_pool_end")
_OF_VMS = ("name", "owner", "worker_ip", "flavor", "image", "vnc_port", "status", "restart")
_OF_LINKS = ("vlan_id", "cidr", "spoofing", "bridging", "vlans", "dhcp")
_QUOTAS = ("quota_vms", "quota_cores", "quota_ram_gb", "quota_disk_gb")
PASSWORD = "password"  # noqa: S105 - a key, under which a hash is compared and never told
ANOTHER, SET = "another", "set"


def objects(data: Mapping[str, Any]) -> Objects:
    """The objects of a state, or of a part of one, with what of them is told."""
    found: Objects = {}
    for name, user in (data.get("users") or {}).items():
        told = {key: user.get(key) for key in _QUOTAS if key in user}
        found[f"user {name}"] = {"role": permissions.role_of(user), **told, PASSWORD: user.get("password_hash", "")}
    drained = data.get(DRAINED) or ()
    for ip in data.get("workers_list") or ():
        found[f"worker {ip}"] = {"drained": ip in drained}
    return found | of_slices((data.get("slices") or {}).values())


def of_slices(records: Iterable[Mapping[str, Any]]) -> Objects:
    """As `objects`, of slices alone: themselves, their VMs and links."""
    return {name: values for record in records for name, values in _of_slice(record)}


def _of_slice(record: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    slice_id = record["slice_id"]
    yield f"slice {slice_id}", {key: record.get(key) for key in _OF_SLICES if record.get(key) is not None}
    for vm in record.get("vms") or ():
        yield f"VM {vm['vm_id']}", {key: vm[key] for key in _OF_VMS if vm.get(key) is not None}
    for link in record.get("links") or ():
        told = {key: link[key] for key in _OF_LINKS if link.get(key) is not None}
        yield f"link {link['link_id']} of slice {slice_id}", told


def between(before: Objects, after: Objects) -> list[dict[str, Any]]:
    """What is another thing in `after`: `what` object, which of its values (`key`), `before` and `after`.

    An object that comes or goes is one change, with an empty `key` and its values on one side, None on the other.
    """
    found = []
    for what in dict.fromkeys([*before, *after]):
        old, new = before.get(what), after.get(what)
        if old is None or new is None:
            found.append({"what": what, "key": "", "before": _told(old), "after": _told(new)})
            continue
        for key in dict.fromkeys([*old, *new]):
            was, now = old.get(key), new.get(key)
            if was != now and key == PASSWORD:
                was, now = SET, ANOTHER
            if was != now:
                found.append({"what": what, "key": key, "before": was, "after": now})
    return found


def _told(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else {key: value for key, value in values.items() if key != PASSWORD}
