"""A topology as the record of a slice that was never made, which a picture can be drawn of. Pure."""

from __future__ import annotations

from typing import Any

from cloudrepo import link_ends
from cloudrepo.naming import INTERNET_VLAN
from cloudrepo.topology import matching
from cloudrepo.topology.model import Topology

Record = dict[str, Any]


def record_of(topology: Topology) -> Record:
    """Machines numbered from 1 and links with their ends; nothing that only a slice has: no VLANs, MACs, addresses."""
    ids = {node.name: number for number, node in enumerate(topology.nodes, 1)}
    links: list[Record] = []
    on: dict[tuple[str, str], int] = {}
    for number, link in enumerate(matching.match(topology.links, []).added, 1):
        record: Record = {"link_id": number, "vlan_id": None, "cidr": link.subnet or None, **link.switches}
        link_ends.write(record, [(ids[end.node], end.interface) for end in link.ends])
        links.append(record)
        on |= {(end.node, end.interface): number for end in link.ends}
    vms = [
        {
            "vm_id": ids[node.name],
            "name": node.name,
            "flavor": node.flavor,
            "worker_ip": node.worker,
            "status": "design",
            "interfaces": [
                _nic("eth0", INTERNET_VLAN if node.internet else None, None),
                *(_nic(name, None, link) for (owner, name), link in sorted(on.items()) if owner == node.name),
            ],
        }
        for node in topology.nodes
    ]
    return {"name": topology.name, "status": "design", "vms": vms, "links": links}


def _nic(name: str, vlan: int | None, link_id: int | None) -> Record:
    return {"name": name, "mac": "", "vlan_id": vlan, "ip_config": None, "link_id": link_id}
