"""What a topology file says once it is read: machines and networks, every one by name. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from cloudrepo import first_boot
from cloudrepo.late_dataclass import dataclass
from cloudrepo.link_switches import USUAL
from cloudrepo.topology.mistakes import Place

SPARE = 2  # data interfaces of a new machine beyond those that its links need, for links to come


@dataclass(frozen=True)
class End:
    """One end of a network.

    Attributes:
        node: the machine's name.
        interface: `eth1` …; "" = a free one is chosen.
    """

    node: str
    interface: str = ""

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}" if self.interface else self.node


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine.

    Attributes:
        name: unique in the file.
        flavor: "" = the installation's first one.
        image: an added image; "" = the flavor's.
        internet: whether eth0 leads to the internet.
        interfaces: data interfaces; None = as its links need, and two more.
        worker: where it is placed; "" = anywhere.
        restart: what the monitor does when it dies; "" = as the setting says.
        users, ssh_keys, cloud_init, start: what it gets at its boot; see docs/first-boot.md.
        place: where it stands in the file.
    """

    name: str
    flavor: str = ""
    image: str = ""
    internet: bool = False
    interfaces: int | None = None
    worker: str = ""
    restart: str = ""
    users: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    cloud_init: Any = None
    start: str = ""
    place: Place = field(default=Place(1), compare=False)

    @property
    def first_boot(self) -> dict[str, Any]:
        """What it gets at its boot, as a VM's record keeps it.

        Raises:
            RefusedError: something of it is not possible.
        """
        return first_boot.checked(
            users=list(self.users), ssh_keys=list(self.ssh_keys), start_script=self.start, cloud_init=self.cloud_init
        )


@dataclass(frozen=True, kw_only=True)
class Link:
    """One network of two or more ends.

    Attributes:
        ends: in the order of the file.
        switches: all of `link_switches.NAMES`.
        subnet: its IPv4 subnet; "" = the usual one.
        place: where it stands in the file.
    """

    ends: tuple[End, ...]
    switches: Mapping[str, Any] = field(default_factory=lambda: dict(USUAL))
    subnet: str = ""
    place: Place = field(default=Place(1), compare=False)

    def __str__(self) -> str:
        return " -- ".join(map(str, self.ends))


@dataclass(frozen=True, kw_only=True)
class Topology:
    """One lab.

    Attributes:
        name: the slice's name.
        type: the slice's topology type.
        nodes: its machines.
        links: its networks.
        source: the file's name, as people are to see it.
        groups: by key of `nodes` as written, the machines it makes.
        shapes: those of them that are a shape; `shape_group` is that of the file's own `shape`, or "".
    """

    name: str
    type: str = "custom"
    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    source: str = field(default="", compare=False)
    groups: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), compare=False)
    shapes: frozenset[str] = field(default=frozenset(), compare=False)
    shape_group: str = field(default="", compare=False)

    def node(self, name: str) -> Node | None:
        """The machine of a name."""
        return next((one for one in self.nodes if one.name == name), None)

    def needed(self, name: str) -> int:
        """How many data interfaces a machine needs for its links: the highest that is named, and the number of ends."""
        ends = [end for link in self.links for end in link.ends if end.node == name]
        return max([len(ends), *(int(end.interface.removeprefix("eth")) for end in ends if end.interface)])
