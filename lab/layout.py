"""Names, addresses and folders of a lab: what is where, and nothing that acts."""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from lab.errors import LabError
from lab.namespaces import CHECKOUT

MGMT_PREFIX = 24
MAX_WORKERS = 8
DEFAULT_NETWORK_NODE = 3
ORCHESTRATOR_IP = "10.0.10.254"
INTERNET_MGMT_IP = "10.0.10.253"
INTERNET_IP = "203.0.113.1"
PROVIDER_IP = "100.64.0.1"
UPLINK_IP = "100.64.0.3"
INTERNET_PREFIX = 24

WORKER_USER = "ubuntu"
ADMIN_USER = "admin"  # who administers the hosts
IMAGE_FOLDER = Path("/tmp/vm_images")  # noqa: S108  the documented place on the orchestrator
IMAGE_NAMES = ("cirros-0.6.2-x86_64-disk.img", "focal-server-cloudimg-amd64.img")
DEAF_IMAGE_NAME = "lab-noacpi.img"
ROUTER_IMAGE_NAME = "router.qcow2"

Privilege = Literal["sudo", "helper"]
Uplink = Literal["own", "mgmt"]


@dataclass(frozen=True)
class Options:
    """What a person may choose about a lab when it goes up.

    Attributes:
        workers: Number of hosts.
        cores: Stated number of cores of each host.
        ram_gb: Stated memory of each host.
        disk_gb: Stated disk of each host.
        uplink: ``own``: the network node has a cable to its provider; ``mgmt``: it
            reaches the internet by a gateway on the management network.
        privilege: ``sudo``: the account that logs in is root on the hosts; ``helper``: it
            is not, until a host is prepared; ``admin`` is in both.
        router: Whether it offers the flavor ``router``, whose image takes a while to build.
    """

    workers: int = 3
    cores: int = 4
    ram_gb: int = 8
    disk_gb: int = 100
    uplink: Uplink = "own"
    privilege: Privilege = "sudo"
    router: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise LabError(f"A lab has 1 to {MAX_WORKERS} workers, not {self.workers}.")
        if not (1 <= self.cores <= 1024 and 1 <= self.ram_gb <= 4096):
            raise LabError("A host has 1 to 1024 cores and 1 to 4096 GB of RAM.")
        if not 1 <= self.disk_gb <= 65536:
            raise LabError("A host has 1 to 65536 GB of disk.")
        if self.uplink not in ("own", "mgmt"):
            raise LabError(f"The uplink is 'own' or 'mgmt', not {self.uplink!r}.")
        if self.privilege not in ("sudo", "helper"):
            raise LabError(f"The privilege is 'sudo' or 'helper', not {self.privilege!r}.")

    @property
    def network_node(self) -> int:
        """Number of the network node: the documented third, or the last there is."""
        return min(DEFAULT_NETWORK_NODE, self.workers)

    def nodes(self) -> list["Node"]:
        """Return all hosts in order."""
        return [Node(number, number == self.network_node) for number in range(1, self.workers + 1)]


@dataclass(frozen=True)
class Node:
    """One host of the lab.

    Attributes:
        number: 1, 2, 3 ...; the last byte of its address.
        is_network_node: Whether the uplink to the internet is its.
    """

    number: int
    is_network_node: bool

    @property
    def ip(self) -> str:
        """Management address."""
        return f"10.0.10.{self.number}"

    @property
    def hostname(self) -> str:
        """Host name."""
        return f"worker{self.number}"

    @property
    def mgmt_port(self) -> str:
        """The switch's end of the management cable."""
        return f"mgmt{self.number}"

    @property
    def trunk_port(self) -> str:
        """The switch's end of the trunk cable."""
        return f"trunk{self.number}"

    def mac(self, cable: int) -> str:
        """Return the hardware address of one of its cards: the same after a reboot."""
        return f"02:00:0a:00:{cable:02x}:{self.number:02x}"


@dataclass(frozen=True)
class Folder:
    """The one place where a lab keeps files.

    Attributes:
        path: Absolute path of the folder.
    """

    path: Path

    @classmethod
    def default(cls) -> "Folder":
        """``CLOUDREPO_LAB_DIR``, or ``.lab`` in the checkout."""
        return cls(Path(os.environ.get("CLOUDREPO_LAB_DIR") or CHECKOUT / ".lab").absolute())

    @property
    def run(self) -> Path:
        """Files of the running lab; gone when it is down."""
        return self.path / "run"

    @property
    def record(self) -> Path:
        """Who the lab's processes are."""
        return self.run / "lab.json"

    @property
    def holders_log(self) -> Path:
        """What the first processes of the lab's namespaces had to say."""
        return self.run / "holders.log"

    @property
    def lock(self) -> Path:
        """Taken while the lab is being changed."""
        return self.path / "lock"

    @property
    def state(self) -> Path:
        """The orchestrator's state folder."""
        return self.path / "state"

    @property
    def keys(self) -> Path:
        """The orchestrator's key and the hosts' keys: the same after down and up."""
        return self.path / "keys"

    @property
    def private_key(self) -> Path:
        """The orchestrator's SSH key."""
        return self.keys / "id_ed25519"

    @property
    def images(self) -> Path:
        """Seen as the documented image folder by the orchestrator."""
        return self.path / "images"

    def host(self, node: Node) -> Path:
        """Return the folder of one host: its disks and facts."""
        return self.path / "hosts" / node.ip

    @staticmethod
    def cache() -> Path:
        """Where built guest images are kept, for all labs of this machine."""
        return Path(os.environ.get("CLOUDREPO_LAB_CACHE") or CHECKOUT / ".lab-cache").absolute()


def address_of(text: str, nodes: list[Node]) -> Node:
    """Find the host that a person names by its address.

    Raises:
        LabError: If the lab has no such host.
    """
    found = [node for node in nodes if node.ip == text or node.hostname == text]
    if not found:
        known = ", ".join(str(IPv4Address(node.ip)) for node in nodes)
        raise LabError(f"The lab has no host {text!r}; it has {known}.")
    return found[0]
