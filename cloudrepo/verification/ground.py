"""What a host says of its bridge, devices and machines before frames are sent: read from its answers. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import ObserveProcesses, Plan, ReadFile, Run, Step, StepResult
from cloudrepo.wire_acts import ObserveDevices

IS_UP, RUNS = 0x1, 0x40  # IFF_UP, IFF_RUNNING, linux/if.h
QEMU = "qemu-system-x86_64"
ROUTES = "/proc/net/route"


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port of a bridge, as Open vSwitch has it.

    Attributes:
        number: in OpenFlow; 0 = it has none, and carries nothing.
        tag: its VLAN; None = it is a trunk.
        trunks: the VLANs it carries; none = all, if it is a trunk.
        mode: its `vlan_mode`; "" = as the tag says.
        type: its interface's; "" = a device of the system.
        error: why it does not work.
        counters: frames and bytes by name.
    """

    name: str
    number: int
    tag: int | None
    trunks: tuple[int, ...] = ()
    mode: str = ""
    type: str = ""
    error: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A network device.

    Attributes:
        mac, mtu: as it has them.
        is_up: whether it was switched on.
        has_carrier: whether somebody is at its other end.
        address, mask: its first IPv4 address; "" = none.
        is_tap: whether a process can hold it.
    """

    mac: str
    mtu: int
    is_up: bool
    has_carrier: bool
    address: str = ""
    mask: str = ""
    is_tap: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A QEMU: its process id, and the MAC of the NIC at each TAP."""

    pid: int
    state: str
    nics: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Server:
    """A DHCP server's process: its id, state (a letter of proc(5)) and namespace."""

    pid: int
    state: str
    namespace: str


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A host.

    Attributes:
        bridge: the integration bridge's name.
        is_closed: it forwards nothing but by a flow.
        ports: of the integration bridge.
        devices: by namespace ("" = the host's own), then name.
        machines, servers: processes.
        way_out: the device of the default route, "" = there is none.
    """

    bridge: str
    is_closed: bool = False
    ports: Mapping[str, Port] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, Device]] = field(default_factory=dict)
    machines: Sequence[Machine] = ()
    servers: Sequence[Server] = ()
    way_out: str = ""

    @property
    def here(self) -> Mapping[str, Device]:
        """Devices of the host's own namespace."""
        return self.devices.get("", {})

    def place_of(self, device: str) -> str | None:
        """The namespace a device is in; None = in none that can be found."""
        return next((space for space, held in self.devices.items() if device in held), None)

    def is_uplink(self, port: Port) -> bool:
        """Whether a port leads to other hosts: a trunk with a device of the system behind it, and no machine's."""
        device = self.here.get(port.name)
        is_system = port.type == "" and port.tag is None and port.name != self.bridge
        return is_system and device is not None and not device.is_tap

    @property
    def uplinks(self) -> list[Port]:
        """Ports that lead to other hosts."""
        return [port for port in self.ports.values() if self.is_uplink(port)]


def questions(installation: str) -> Plan:
    """One read-only message."""
    words = (
        *("ovs-vsctl", "--timeout=10", "-f", "json"),
        *("--", "--columns=name,ports,fail_mode", "list", "Bridge"),
        *("--", "--columns=_uuid,name,tag,trunks,vlan_mode", "list", "Port"),
        *("--", "--columns=name,ofport,type,error,statistics", "list", "Interface"),
    )
    asked = {
        "ports": Run(words=words),
        "devices": ObserveDevices(),
        "processes": ObserveProcesses(names=(QEMU, "dnsmasq")),
        "routes": ReadFile(path=ROUTES),
    }
    return Plan(
        installation=installation,
        observe=tuple(Step(name=name, label=f"look at {name}", act=act) for name, act in asked.items()),
    )


def read(bridge: str, answers: Mapping[str, StepResult]) -> Ground:
    """What a host has.

    Raises:
        ValueError: an answer is missing or cannot be understood.
    """
    try:
        is_closed, ports = _ports(bridge, _text(answers, "ports"))
        processes = json_text.loads(_text(answers, "processes"))
        return Ground(
            bridge=bridge,
            is_closed=is_closed,
            ports=ports,
            devices={
                str(space): {str(name): _device(facts) for name, facts in held.items()}
                for space, held in json_text.loads(_text(answers, "devices")).items()
            },
            machines=tuple(_machine(one) for one in processes if _program(one) == QEMU),
            servers=tuple(
                Server(pid=int(one["pid"]), state=str(one["state"]), namespace=str(one["namespace"]))
                for one in processes
                if _program(one) != QEMU
            ),
            way_out=_way_out(_text(answers, "routes")),
        )
    except json_text.NOT_UNDERSTOOD as error:
        raise ValueError(f"an answer that is none: {error!r}") from error


def _text(answers: Mapping[str, StepResult], name: str) -> str:
    step = answers[name]
    if not step.accepted:
        raise ValueError(f"could not {step.label}: {step.err}")
    return step.out


def _ports(bridge: str, text: str) -> tuple[bool, dict[str, Port]]:
    bridges, ports, interfaces = (list(_rows(table)) for table in _tables(text))
    found = next((row for row in bridges if row["name"] == bridge), None)
    if found is None:
        raise ValueError(f"there is no bridge {bridge}")
    mine = set(_many(found["ports"]))
    sides = {row["name"]: row for row in interfaces}
    read_ports = {}
    for row in ports:
        if row["_uuid"][1] in mine and row["name"] in sides:
            port = _port(row, sides[row["name"]])
            read_ports[port.name] = port
    return found["fail_mode"] == "secure", read_ports


def _port(row: Mapping[str, Any], side: Mapping[str, Any]) -> Port:
    number = side["ofport"] if isinstance(side["ofport"], int) else 0
    return Port(
        name=str(row["name"]),
        number=max(number, 0),
        tag=row["tag"] if isinstance(row["tag"], int) else None,
        trunks=tuple(int(one) for one in _many(row["trunks"])),
        mode=row["vlan_mode"] if isinstance(row["vlan_mode"], str) else "",
        type=str(side["type"]),
        error=side["error"] if isinstance(side["error"], str) else "",
        counters={str(name): int(count) for name, count in side["statistics"][1]},
    )


def _tables(text: str) -> Iterator[Mapping[str, Any]]:
    decoder, place = json.JSONDecoder(), 0
    text = text.strip()
    while place < len(text):
        table, place = decoder.raw_decode(text, place)
        yield table
        while place < len(text) and text[place].isspace():
            place += 1


def _rows(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in table["data"]:
        yield dict(zip(table["headings"], row, strict=True))


def _many(value: Any) -> list[Any]:
    """The atoms of a set as OVSDB writes it (RFC 7047, 5.1): one alone stands without the word."""
    atoms = value[1] if isinstance(value, list) and value[0] == "set" else [value]
    return [atom[1] if isinstance(atom, list) else atom for atom in atoms]


def _device(facts: Mapping[str, Any]) -> Device:
    flags = int(facts["flags"])
    return Device(
        mac=str(facts["mac"]),
        mtu=int(facts["mtu"]),
        is_up=bool(flags & IS_UP),
        has_carrier=bool(flags & RUNS),
        address=str(facts["address"]),
        mask=str(facts["mask"]),
        is_tap=bool(facts["is_tap"]),
    )


def _program(process: Mapping[str, Any]) -> str:
    return str(process["words"][0]).rpartition("/")[2]


def _machine(process: Mapping[str, Any]) -> Machine:
    options: dict[str, list[dict[str, str]]] = {"-netdev": [], "-device": []}
    for word, after in itertools.pairwise(process["words"]):
        if word in options:
            options[word].append(dict(part.partition("=")[::2] for part in str(after).split(",")))
    taps = {one.get("id"): one.get("ifname", "") for one in options["-netdev"]}
    nics = {taps[one["netdev"]]: one.get("mac", "").lower() for one in options["-device"] if one.get("netdev") in taps}
    return Machine(pid=int(process["pid"]), state=str(process["state"]), nics=nics)


def _way_out(text: str) -> str:
    """The device of the default route with the lowest metric (proc(5): numbers are hexadecimal but for the metric)."""
    routes = [line.split() for line in text.splitlines()[1:]]
    defaults = [(int(row[6]), row[0]) for row in routes if len(row) > 7 and row[1] == row[7] == "00000000"]
    return min(defaults)[1] if defaults else ""
