"""What a disk's mark file keeps of the records, so that these can be made anew from the hosts alone. Pure.

`mark.json` stands in a VM's durable directory on its worker. Under `record` it has the VM's record without what a host
knows better (its state, its process), the head of its slice, and the links that the VM is an end of. A deploy writes it
again where it has changed; what is designed afterwards is in no mark file until the next deploy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudrepo.link_ends import vms_of
from cloudrepo.naming import Mark

Record = Mapping[str, Any]

#: Keys that a person sets without a host being asked: the next deploy writes them, and until then they are no drift.
SET_WITHOUT_A_HOST = ("restart",)
_VM = (
    *("vm_id", "name", "owner", "worker_ip", "flavor", "cores", "ram_gb", "disk_gb", "vnc_port", "interfaces"),
    *("qcow_image", "image", "image_source", "first_boot", *SET_WITHOUT_A_HOST),
)
_SLICE = ("slice_id", "name", "owner", "topology_type", "vlan_pool_start", "vlan_pool_end", "deployed")


def remembered(record: Record, vm: Record) -> dict[str, Any]:
    """What a VM's mark file should keep, as plain values that JSON gives back as they are.

    Args:
        record: its slice.
        vm: its record; without a disk yet, its `qcow_image` is left out.
    """
    links = [link for link in record["links"] if vm["vm_id"] in vms_of(link)]
    kept = {key: vm[key] for key in _VM if vm.get(key) is not None}
    head = {key: record[key] for key in _SLICE if record.get(key) is not None}
    plain: dict[str, Any] = json.loads(json.dumps({**kept, "slice": head, "links": links}))
    return plain


def text(*, mark: Mark | None, uuid: str, base: Record, record: Record, disk: str = "", candidate: str = "") -> str:
    """The text of a mark file. Before the overlay is published it has a `candidate` instead of a `disk`."""
    fields: dict[str, Any] = {"mark": str(mark), "uuid": uuid, "base": dict(base), "record": dict(record)}
    fields |= {"disk": disk} if disk else {"candidate": candidate}
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"
