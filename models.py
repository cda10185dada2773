"""The records: users, flavors, interfaces, links, VMs and slices.

Each class has `to_dict()`, which gives plain YAML types, and `from_dict()`, its inverse. Records decide
nothing about the cluster; what must be unique over all slices is chosen in `cloudrepo.allocation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cloudrepo.allocation import DEFAULT_FIRST_VLAN, POOL_SIZE, formula_block
from cloudrepo.naming import INTERNET_VLAN
from cloudrepo.settings import DEFAULT_FLAVORS

Record = dict[str, Any]


@dataclass
class User:
    """A person with an account.

    Attributes:
        username: the login name, also the owner written on slices and VMs.
        password_hash: bcrypt, or the documented SHA-256 hex until the next login.
        quota_vms: how many VMs the user may have in all slices together; 0 disables the account.
        used_vms: how many there are; derived from the slices at every commit.
        slices: ids of the user's slices.
        must_change_password: whether the next login asks for a new password.
        role: `admin`, `instructor` or `student`; empty = by the name, see `cloudrepo.permissions`.
    """

    username: str
    password_hash: str
    quota_vms: int = 10
    used_vms: int = 0
    slices: list[int] = field(default_factory=list)
    must_change_password: bool = False
    role: str = ""

    def can_create_vms(self, count: int) -> bool:
        """Whether `count` more VMs are within the quota."""
        return self.used_vms + count <= self.quota_vms

    def to_dict(self) -> Record:
        """The user as plain YAML types."""
        record: Record = {
            "username": self.username,
            "password_hash": self.password_hash,
            "quota_vms": self.quota_vms,
            "used_vms": self.used_vms,
            "slices": list(self.slices),
        }
        if self.must_change_password:
            record["must_change_password"] = True
        if self.role:
            record["role"] = self.role
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> User:
        """The user in `record`; unknown keys are left out."""
        return cls(
            username=record["username"],
            password_hash=record.get("password_hash", ""),
            quota_vms=record.get("quota_vms", 10),
            used_vms=record.get("used_vms", 0),
            slices=list(record.get("slices", [])),
            must_change_password=record.get("must_change_password", False),
            role=record.get("role") or "",
        )


class Flavor:
    """Names for sizes: `cores`, `ram_gb`, `disk_gb` and the base `image` on the manager.

    `FLAVORS` holds the documented two until `use()` puts those of the settings in their place.
    """

    FLAVORS: ClassVar[dict[str, Record]] = {name: dict(spec) for name, spec in DEFAULT_FLAVORS.items()}

    @staticmethod
    def get(flavor_name: str) -> Record | None:
        """A copy of the flavor's values, or None when there is no such flavor."""
        spec = Flavor.FLAVORS.get(flavor_name)
        return None if spec is None else dict(spec)

    @staticmethod
    def name_of(spec: Mapping[str, Any]) -> str:
        """The name of the first flavor with exactly these values, or an empty string."""
        return next((name for name, known in Flavor.FLAVORS.items() if known == spec), "")

    @staticmethod
    def use(flavors: Mapping[str, Mapping[str, Any]]) -> None:
        """Offer exactly these flavors from now on, in this order."""
        chosen = {name: dict(spec) for name, spec in flavors.items()}
        Flavor.FLAVORS.clear()
        Flavor.FLAVORS.update(chosen)


@dataclass
class Interface:
    """A network interface of a VM.

    Attributes:
        name: `eth0`, `eth1` …; `eth0` is the one for the internet.
        mac: six bytes in hex with colons.
        vlan_id: 400 with internet, the link's VLAN once linked, else None.
        ip_config: `ip`, `netmask` and `gateway` as text, or None.
        link_id: the link of this slice it is an end of, or None.
    """

    name: str
    mac: str
    vlan_id: int | None = None
    ip_config: dict[str, str] | None = None
    link_id: int | None = None

    def to_dict(self) -> Record:
        """The interface as plain YAML types."""
        return {
            "name": self.name,
            "mac": self.mac,
            "vlan_id": self.vlan_id,
            "ip_config": None if self.ip_config is None else dict(self.ip_config),
            "link_id": self.link_id,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Interface:
        """The interface in `record`."""
        config = record.get("ip_config")
        return cls(
            name=record["name"],
            mac=record["mac"],
            vlan_id=record.get("vlan_id"),
            ip_config=None if config is None else dict(config),
            link_id=record.get("link_id"),
        )


@dataclass
class Link:
    """One VLAN that joins two interfaces; `link_id` counts 1, 2, 3 … within a slice."""

    link_id: int
    vlan_id: int
    vm1_id: int
    vm1_interface: str
    vm2_id: int
    vm2_interface: str

    def to_dict(self) -> Record:
        """The link as plain YAML types: the six documented keys."""
        return {
            "link_id": self.link_id,
            "vlan_id": self.vlan_id,
            "vm1_id": self.vm1_id,
            "vm1_interface": self.vm1_interface,
            "vm2_id": self.vm2_id,
            "vm2_interface": self.vm2_interface,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Link:
        """The link in `record`."""
        return cls(**{key: record[key] for key in cls.__dataclass_fields__})


@dataclass
class VM:
    """A virtual machine. It stores values; `flavor` is only the name they came from.

    Attributes:
        vm_id: unique over the installation.
        name: unique within its slice.
        owner: the user's name.
        worker_ip: the worker its disk is on.
        flavor: the flavor's name, or empty for explicit values.
        cores: virtual CPUs.
        ram_gb: memory in GiB.
        disk_gb: disk in GiB, at least; a larger base image keeps its size.
        vnc_port: TCP port of the screen on the worker.
        interfaces: every NIC, in the order the guest sees them.
        qcow_image: path of the overlay on the worker, in its documented `~` form, or None.
        status: `design`, `running`, `stopped` …: what was asked for.
        pid: process id of QEMU on the worker while it runs, else None.
    """

    vm_id: int
    name: str
    owner: str
    worker_ip: str
    flavor: str = ""
    cores: int = 1
    ram_gb: float = 0.5
    disk_gb: float = 1
    vnc_port: int | None = None
    interfaces: list[Interface] = field(default_factory=list)
    qcow_image: str | None = None
    status: str = "design"
    pid: int | None = None

    def to_dict(self) -> Record:
        """The VM as plain YAML types."""
        return {
            "vm_id": self.vm_id,
            "name": self.name,
            "owner": self.owner,
            "worker_ip": self.worker_ip,
            "flavor": self.flavor,
            "cores": self.cores,
            "ram_gb": self.ram_gb,
            "disk_gb": self.disk_gb,
            "vnc_port": self.vnc_port,
            "interfaces": [interface.to_dict() for interface in self.interfaces],
            "qcow_image": self.qcow_image,
            "status": self.status,
            "pid": self.pid,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> VM:
        """The VM in `record`; missing keys get their defaults, unknown ones are left out."""
        known = {key: record[key] for key in cls.__dataclass_fields__ if key in record}
        known["interfaces"] = [Interface.from_dict(entry) for entry in record.get("interfaces", [])]
        return cls(**known)


@dataclass
class Slice:
    """A tenant's topology: VMs, links and the VLANs set aside for it.

    `vlan_pool_start` and `vlan_pool_end` (inclusive) follow the documented formula unless given. Both are
    None for a slice that found no free block and takes single VLANs.
    """

    slice_id: int
    owner: str
    topology_type: str = "custom"
    name: str = ""
    status: str = "design"
    vms: list[VM] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    vlan_pool_start: int | None = -1
    vlan_pool_end: int | None = -1

    def __post_init__(self) -> None:
        """Fill in the documented pool."""
        if self.vlan_pool_start == -1:
            self.vlan_pool_start = formula_block(self.slice_id, DEFAULT_FIRST_VLAN)
        if self.vlan_pool_end == -1:
            self.vlan_pool_end = None if self.vlan_pool_start is None else self.vlan_pool_start + POOL_SIZE - 1

    def get_next_vlan(self) -> int | None:
        """The lowest VLAN of the pool that no link of this slice uses; never 400. None when there is none."""
        if self.vlan_pool_start is None or self.vlan_pool_end is None:
            return None
        taken = {link.vlan_id for link in self.links} | {INTERNET_VLAN}
        return next((vlan for vlan in range(self.vlan_pool_start, self.vlan_pool_end + 1) if vlan not in taken), None)

    def to_dict(self) -> Record:
        """The slice as plain YAML types."""
        return {
            "slice_id": self.slice_id,
            "name": self.name,
            "owner": self.owner,
            "topology_type": self.topology_type,
            "status": self.status,
            "vlan_pool_start": self.vlan_pool_start,
            "vlan_pool_end": self.vlan_pool_end,
            "vms": [vm.to_dict() for vm in self.vms],
            "links": [link.to_dict() for link in self.links],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Slice:
        """The slice in `record`; missing keys get their defaults, unknown ones are left out."""
        known = {key: record[key] for key in cls.__dataclass_fields__ if key in record}
        known["vms"] = [VM.from_dict(entry) for entry in record.get("vms", [])]
        known["links"] = [Link.from_dict(entry) for entry in record.get("links", [])]
        return cls(**known)
