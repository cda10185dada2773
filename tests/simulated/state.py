"""What a simulated host is: plain values that can be copied, compared and looked at, and the words of a tool's call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fakes.flow_table import FlowTable

Rule = tuple[str, ...]
BUILT_IN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
#: Switches that each device has of its own, with the value it is born with.
PER_DEVICE = {"ipv4/conf/{}/forwarding": "0", "ipv6/conf/{}/disable_ipv6": "0"}
#: Switches of a network namespace.
PER_SPACE = {
    "ipv4/ip_forward": "0",
    "ipv4/conf/all/arp_ignore": "0",
    "ipv4/conf/all/arp_announce": "0",
    "ipv6/conf/all/disable_ipv6": "0",
}


class Refusal(Exception):
    """What a tool says instead of doing it, and its exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Device:
    """A network device: `kind` is `loopback`, `tap`, `internal` (a port of the bridge) or `other`."""

    kind: str
    user: str = ""
    is_up: bool = False
    alias: str = ""
    addresses: list[str] = field(default_factory=list)
    group: str = "default"
    arp: bool = True
    addrgenmode: str = "eui64"
    switches: dict[str, str] = field(default_factory=dict)


@dataclass
class Space:
    """A network namespace: its devices by name, and its switches. The host's own is called ``""``."""

    devices: dict[str, Device] = field(default_factory=lambda: {"lo": Device("loopback")})
    switches: dict[str, str] = field(default_factory=lambda: dict(PER_SPACE))


@dataclass
class Port:
    """A port of the bridge as Open vSwitch's database has it; it outlives its device and the power."""

    tag: int | None = None
    kind: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    trunks: list[int] = field(default_factory=list)
    vlan_mode: str = ""
    cvlans: list[int] = field(default_factory=list)
    config: dict[str, str] = field(default_factory=dict)
    mac: str = ""
    is_broken: bool = False  # its internal device went away with a namespace


@dataclass
class Bridge:
    """The bridge as Open vSwitch's database has it."""

    fail_mode: str = ""
    ids: dict[str, str] = field(default_factory=dict)


@dataclass
class Program:
    """A QEMU or dnsmasq that runs.

    Attributes:
        words: its command line; the first is the tool's name.
        space: the network namespace it was started in.
        files: the paths it holds: a disk, a pid file, a configuration.
        taps: devices it holds.
        vnc: address and port it listens on, or "".
        status: a machine's, in QMP's words.
        links_down: NICs without a carrier.
        reloads: how often a server was told to read its hosts again.
        hosts: a server's reservations as it last read them.
    """

    words: tuple[str, ...]
    space: str = ""
    files: dict[str, str] = field(default_factory=dict)
    taps: tuple[str, ...] = ()
    vnc: str = ""
    status: str = "prelaunch"
    links_down: set[str] = field(default_factory=set)
    reloads: int = 0
    hosts: str = ""

    @property
    def is_machine(self) -> bool:
        """Whether it is a QEMU."""
        return self.words[0].startswith("qemu-system")


def built_in_rules() -> dict[str, dict[str, list[Rule]]]:
    """Tables with their empty chains."""
    return {table: {chain: [] for chain in chains} for table, chains in BUILT_IN.items()}


@dataclass
class HostState:
    """All that a host holds but files. `programs` are by process id.

    Attributes:
        ip: its address.
        root: where its files really are.
        datapath: of the bridge `br-int`: `netdev` or `system`, "" = there is no bridge.
        next_hop: of the default route by `up0`; "" = no default route.
        violations: what must never happen, and did.
    """

    ip: str
    root: Path
    datapath: str = "netdev"
    next_hop: str = "203.0.113.1"
    spaces: dict[str, Space] = field(default_factory=dict)
    ports: dict[str, Port] = field(default_factory=dict)
    bridge: Bridge = field(default_factory=Bridge)
    flows: FlowTable = field(default_factory=FlowTable)
    rules: dict[str, dict[str, list[Rule]]] = field(default_factory=built_in_rules)
    programs: dict[int, Program] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    # -- devices ---------------------------------------------------------------------------------------

    def space(self, name: str) -> Space:
        """A namespace.

        Raises:
            Refusal: there is none.
        """
        if name not in self.spaces:
            raise Refusal(f'Cannot open network namespace "{name}": No such file or directory')
        return self.spaces[name]

    def add_device(self, space: str, name: str, device: Device) -> None:
        """A new device, with the switches it is born with."""
        device.switches = {key.format(name): value for key, value in PER_DEVICE.items()}
        self.spaces[space].devices[name] = device

    def find_device(self, name: str) -> tuple[str, Device] | None:
        """The namespace a device is in, and the device."""
        return next(((space, one.devices[name]) for space, one in self.spaces.items() if name in one.devices), None)

    def switches(self, space: str) -> Iterator[tuple[str, dict[str, str]]]:
        """All switches of a namespace below /proc/sys/net, each with the mapping that holds it."""
        there = self.spaces[space]
        for holder in (there.switches, *(device.switches for device in there.devices.values())):
            for key in holder:
                yield key, holder

    # -- files -----------------------------------------------------------------------------------------

    def real(self, path: str) -> Path:
        """Where a file of the host really is."""
        return self.root / path.lstrip("/")

    # -- boot and power --------------------------------------------------------------------------------

    def boot(self) -> None:
        """What is there after a boot: an uplink, the bridge with the ports of its database, no rules of anybody."""
        self.spaces = {"": Space()}
        self.rules = built_in_rules()
        self.programs = {}
        here = self.spaces[""].devices
        here["lo"].is_up = True
        self.add_device("", "up0", Device("other", is_up=True, addresses=["203.0.113.2/24"]))
        self.add_device("", "trunk0", Device("other", is_up=True))
        self.add_device("", "trunk1", Device("other", is_up=True, addresses=[f"{self.ip}/24"]))
        if self.datapath:
            self.add_device("", "br-int", Device("internal"))
            self.ports.setdefault("trunk0", Port())
            self.flows.flush(has_built_in=self.bridge.fail_mode != "secure")
            self.flows.set_ports(self.ports)
        for name, port in self.ports.items():
            port.is_broken = False
            if port.kind == "internal":
                self.add_device("", name, Device("internal"))

    def elsewhere(self, root: Path) -> HostState:
        """The same state, to be sent to another process, with files elsewhere and no process: they are started anew."""
        return replace(self, root=root, programs={})

    def picture(self) -> dict[str, Any]:
        """All that can be left behind, without process ids; parts of it change with the host."""
        programs = {
            f"{number} {' '.join(one.words)}": (one.space, one.status, sorted(one.links_down), one.hosts)
            for number, one in enumerate(sorted(self.programs.values(), key=lambda one: one.words))
        }
        return {
            "spaces": self.spaces,
            "ports": self.ports,
            "bridge": self.bridge,
            "flows": sorted(self.flows.dump().splitlines()),
            "rules": self.rules,
            "programs": programs,
        }


@dataclass(frozen=True)
class Call:
    """One call of a tool.

    Attributes:
        host: what it acts on.
        words: the command line; the first is the tool's name.
        stdin: all that was written to it.
        space: the network namespace it runs in.
    """

    host: HostState
    words: tuple[str, ...]
    stdin: str = ""
    space: str = ""


@dataclass(frozen=True)
class Answer:
    """What a tool answers.

    Attributes:
        out, err: texts.
        status: exit status.
        stays: it runs on as this program.
        in_background: it runs on in a child, and the call ends.
        pid_file: where a child's process id is written first.
        then: another call takes its place.
    """

    out: str = ""
    err: str = ""
    status: int = 0
    stays: Program | None = None
    in_background: bool = False
    then: Call | None = None
