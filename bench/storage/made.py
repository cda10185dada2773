"""A state of a given size, as a class would leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudrepo.accounts import DEFAULT_USERS
from cloudrepo.state import Record, fresh, normalise
from cloudrepo.stores import files
from cloudrepo.stores.inspection import rendered

VMS_A_SLICE = 10
SLICES_A_USER = 20
LINKS = 3900  # all VLANs there are, nearly
WORKERS = 40


def state(vms: int) -> Record:
    """`vms` machines in slices of ten with four links each as long as there are VLANs, on forty workers."""
    data = fresh(DEFAULT_USERS)
    data["workers_list"] = [f"10.0.10.{number}" for number in range(1, WORKERS + 1)]
    data["workers"] = {ip: {"ip": ip, "max_cores": 64, "max_ram_gb": 256} for ip in data["workers_list"]}
    data["installation"] = "5ca1ab1e"
    links = 0
    for number in range(vms // VMS_A_SLICE):
        owner = f"student{number // SLICES_A_USER}"
        data["users"].setdefault(owner, {"password_hash": "$2b$12$" + "x" * 53, "quota_vms": 400})
        slice_id = 1000 + number * (VMS_A_SLICE + 1)
        record = _slice(slice_id, owner, links)
        links += len(record["links"])
        data["slices"][str(slice_id)] = record
    return normalise(data)


def _slice(slice_id: int, owner: str, made: int) -> Record:
    vms = [_vm(slice_id + 1 + index, owner, index) for index in range(VMS_A_SLICE)]
    links = []
    for index in range(min(4, LINKS - made)):
        vlan = 100 + made + index + (made + index >= 300)
        ends = (vms[index]["interfaces"][1], vms[index + 1]["interfaces"][2])
        for number, nic in enumerate(ends):
            config = {"ip": f"192.168.{vlan % 256}.{10 + number}", "netmask": "255.255.255.0"}
            nic |= {"vlan_id": vlan, "link_id": index + 1, "ip_config": config | {"gateway": f"192.168.{vlan % 256}.1"}}
        links.append(
            {
                **{"link_id": index + 1, "vlan_id": vlan, "vm1_id": vms[index]["vm_id"], "vm1_interface": "eth1"},
                **{"vm2_id": vms[index + 1]["vm_id"], "vm2_interface": "eth2"},
                **{"cidr": f"192.168.{vlan % 256}.0/24", "gateway_ip": f"192.168.{vlan % 256}.1"},
            }
        )
    return {
        **{"slice_id": slice_id, "name": f"lab {slice_id}", "owner": owner, "topology_type": "linear"},
        **{"status": "running", "vms": vms, "links": links},
    }


def _vm(vm_id: int, owner: str, index: int) -> Record:
    prefix = f"52:54:00:{vm_id >> 8 & 255:02x}:{vm_id & 255:02x}"
    nics: list[dict[str, Any]] = [{"name": f"eth{number}", "mac": f"{prefix}:{number:02x}"} for number in range(3)]
    return {
        **{"vm_id": vm_id, "name": f"vm{index + 1}", "owner": owner, "worker_ip": f"10.0.10.{vm_id % WORKERS + 1}"},
        **{"flavor": "cirros", "cores": 1, "ram_gb": 0.5, "disk_gb": 1, "vnc_port": 5901 + vm_id // WORKERS % 700},
        **{"interfaces": nics, "qcow_image": f"~/vm_images/{vm_id}_img.qcow2", "status": "running", "pid": vm_id},
    }


def write(path: Path, vms: int) -> None:
    """A state file of that size."""
    files.replace(path, rendered(state(vms), 1), None)
