"""The lab's cables: two bridges in the lab's own network namespace, and veths.

``mgmt`` carries the management network, ``trunk`` the tagged frames between the
hosts' ``br-int``: plain bridges without VLAN filtering pass tags unchanged.
``trunk`` learns no MACs and floods: without VLAN filtering, which not every kernel has,
a bridge keeps one table for all VLANs, and a MAC that a guest forwards from one VLAN
to another is on two sides of it.  A switch with a table for each VLAN delivers the same frames.
None of the cables leads to the machine's own network.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lab.errors import LabError
from lab.layout import (
    INTERNET_IP,
    INTERNET_MGMT_IP,
    INTERNET_PREFIX,
    MGMT_PREFIX,
    ORCHESTRATOR_IP,
    PROVIDER_IP,
    UPLINK_IP,
    Node,
    Options,
)
from lab.namespaces import Room

_ORCHESTRATOR_PORT = "mgmt254"
_INTERNET_PORT = "mgmt253"
MGMT_CARD = "eth0"
TRUNK_CARD = "eth1"
UPLINK_CARD = "eth2"
_MGMT_CABLE, _TRUNK_CABLE, _UPLINK_CABLE = 0, 1, 2


@dataclass(frozen=True)
class Switch:
    """The bridges, in the room of the lab itself.

    Attributes:
        room: The lab's room.
    """

    room: Room

    def build(self, mark: str) -> None:
        """Make the two bridges."""
        _batch(
            self.room,
            [
                f'link set lo up alias "{mark}"',
                "link add mgmt type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                "link add trunk type bridge stp_state 0 forward_delay 0 mcast_snooping 0 ageing_time 0",
                "link set mgmt up",
                "link set trunk up",
            ],
        )

    def plug_orchestrator(self, room: Room) -> None:
        """Give the orchestrator its management cable."""
        _batch(
            self.room,
            [
                f"link add {_ORCHESTRATOR_PORT} type veth peer name {MGMT_CARD} netns {room.pid()}",
                f"link set {_ORCHESTRATOR_PORT} master mgmt up",
            ],
        )

    def plug_internet(self, room: Room) -> None:
        """Give the internet a cable to the management network (``--uplink mgmt``)."""
        _batch(
            self.room,
            [
                f"link add {_INTERNET_PORT} type veth peer name {MGMT_CARD} netns {room.pid()}",
                f"link set {_INTERNET_PORT} master mgmt up",
            ],
        )

    def plug_host(self, node: Node, room: Room) -> None:
        """Give a host its management and trunk cables, in place of older ones."""
        self.unplug_host(node)
        pid = room.pid()
        _batch(
            self.room,
            [
                _cable(node.mgmt_port, MGMT_CARD, pid, node.mac(_MGMT_CABLE)),
                f"link set {node.mgmt_port} master mgmt up",
                _cable(node.trunk_port, TRUNK_CARD, pid, node.mac(_TRUNK_CABLE)),
                f"link set {node.trunk_port} master trunk up",
            ],
        )

    def plug_uplink(self, node: Node, host: Room, internet: Room) -> None:
        """Lay the cable between the network node and the internet."""
        _batch(
            self.room,
            [
                f"link add {UPLINK_CARD} netns {host.pid()} address {node.mac(_UPLINK_CABLE)}"
                f" type veth peer name {MGMT_CARD} netns {internet.pid()}"
            ],
        )

    def unplug_host(self, node: Node) -> None:
        """Take the cables of a host away; the other ends go with them.

        The kernel removes the cables of a dead host at its leisure; the ports must
        be free at once.
        """
        ports = self.ports()
        present = [port for port in (node.mgmt_port, node.trunk_port) if port in ports]
        # -force: a port may go by itself between the look and the act.
        _batch(self.room, [f"link del {port}" for port in present], force=True)

    def set_cable(self, node: Node, *, up: bool) -> None:
        """Cut or heal the management cable of a host."""
        _batch(self.room, [f"link set {node.mgmt_port} {'up' if up else 'down'}"])

    def ports(self) -> dict[str, bool]:
        """Return the switch's ports and whether each is up."""
        listing = self.room.run(["ip", "-o", "link", "show"], net_only=True, check=True).stdout
        found = {}
        for line in listing.splitlines():
            name, flags = line.split(": ")[1].partition("@")[0], line.split("<")[1].split(">")[0]
            found[name] = "UP" in flags.split(",")
        return found


def host_network(node: Node, options: Options, mark: str) -> str:
    """Return what a host's boot does to its cards, as ``ip -batch`` lines."""
    lines = [
        f'link set lo up alias "{mark}"',
        f"address add {node.ip}/{MGMT_PREFIX} broadcast + dev {MGMT_CARD}",
        f"link set {MGMT_CARD} up",
        f"link set {TRUNK_CARD} up",
    ]
    if node.is_network_node and options.uplink == "own":
        lines += [
            f"address add {UPLINK_IP}/{INTERNET_PREFIX} broadcast + dev {UPLINK_CARD}",
            f"link set {UPLINK_CARD} up",
            f"route add default via {PROVIDER_IP} dev {UPLINK_CARD}",
        ]
    elif node.is_network_node:
        lines.append(f"route add default via {INTERNET_MGMT_IP} dev {MGMT_CARD}")
    return "".join(f"{line}\n" for line in lines)


def configure_orchestrator(room: Room, mark: str) -> None:
    """Give the orchestrator its address, and no route beyond its own network."""
    _batch(
        room,
        [
            f'link set lo up alias "{mark}"',
            f"address add {ORCHESTRATOR_IP}/{MGMT_PREFIX} broadcast + dev {MGMT_CARD}",
            f"link set {MGMT_CARD} up",
        ],
    )


def configure_internet(room: Room, options: Options, mark: str) -> None:
    """Give the internet its addresses: what answers is behind the network node's next hop, not beside the node.

    It has no route back to the tenants' 10.60.7.0/24, so a packet that leaves the
    network node without address translation gets no answer.
    """
    own, prefix = (PROVIDER_IP, INTERNET_PREFIX) if options.uplink == "own" else (INTERNET_MGMT_IP, MGMT_PREFIX)
    _batch(
        room,
        [
            f'link set lo up alias "{mark}"',
            f"link set {MGMT_CARD} up",
            f"address replace {INTERNET_IP}/32 dev lo",  # it stays when the network node and the card in it go
            f"address add {own}/{prefix} broadcast + dev {MGMT_CARD}",
        ],
    )


def _cable(port: str, card: str, pid: int, mac: str) -> str:
    return f"link add {port} type veth peer name {card} address {mac} netns {pid}"


def _batch(room: Room, lines: Iterable[str], *, force: bool = False) -> None:
    """Run ``ip`` commands in the network namespace of a room, in one process."""
    text = "".join(f"{line}\n" for line in lines)
    flags = ["-force"] if force else []
    done = room.run(["ip", *flags, "-batch", "-"], net_only=True, input=text)
    if done.returncode and not force:
        raise LabError(f"The cables of {room.name} could not be laid.", evidence=done.stderr)
