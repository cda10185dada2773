"""What a lab is and how its hosts are, for people and programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lab.layout import Node
from lab.record import Record

HostState = Literal["up", "cut", "down"]


@dataclass(frozen=True)
class HostStatus:
    """One line of ``lab status``.

    Attributes:
        host: Its name.
        address: Its management address.
        role: ``compute`` or ``compute + network``.
        cores: Stated number of cores.
        ram_gb: Stated memory.
        state: ``cut`` means that its management cable is out.
    """

    host: str
    address: str
    role: str
    cores: int
    ram_gb: int
    state: HostState


@dataclass(frozen=True)
class Status:
    """What ``lab status`` says.

    Attributes:
        up: Whether the lab runs.
        folder: Where it lives.
        mark: Words on the loopback of each of its namespaces.
        uplink: Where the network node's default route leads.
        hosts: Its hosts, empty when the lab is down.
    """

    up: bool
    folder: str
    mark: str = ""
    uplink: str = ""
    hosts: list[HostStatus] = field(default_factory=list)


def host_status(record: Record, node: Node, ports: Mapping[str, bool]) -> HostStatus:
    """Judge one host by its holder and by the switch's end of its cable."""
    connected: HostState = "up" if ports.get(node.mgmt_port, False) else "cut"
    return HostStatus(
        host=node.hostname,
        address=node.ip,
        role="compute + network" if node.is_network_node else "compute",
        cores=record.options.cores,
        ram_gb=record.options.ram_gb,
        state=connected if record.room(node.ip) is not None else "down",
    )
