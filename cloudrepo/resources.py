"""The objects a host has, as values: what should be there and what was seen are the same types.

A *resource* is one object we may make on a host. It is found again by its `key` (kind and name), says
whose it is by its `mark`, and two of them are the same when `cloudrepo/aspects.py` finds nothing in which they
differ. What the vlan manager and the VM launcher want, and what the probe reports, are sets of these; the
difference between two sets is `cloudrepo/diff.py`.

`is_marked` False is a seen object that is ours by other evidence than a mark of its own, which has to be put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, ClassVar, TypeVar

from cloudrepo.first_boot import Seed
from cloudrepo.late_dataclass import dataclass
from cloudrepo.limits import Limits
from cloudrepo.naming import Mark

Key = tuple[str, str]
R = TypeVar("R", bound="Resource")

KEPT = "overlay.qcow2"  # a disk's second name, in its own directory


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One object on a host. `mark` is None for a foreign one."""

    KIND: ClassVar[str] = ""
    NAMED_BY: ClassVar[str] = ""
    mark: Mark | None

    @property
    def name(self) -> str:
        """What it is called on the host; unique in its kind."""
        return str(getattr(self, self.NAMED_BY))

    @property
    def key(self) -> Key:
        """How wanted and seen are matched."""
        return (self.KIND, self.name)

    def __str__(self) -> str:
        return f"{self.KIND} {self.name}"


@dataclass(frozen=True, kw_only=True, order=True)
class Process:
    """A process as it can be proved later to be the same one.

    Attributes:
        pid: its number.
        start: its start time in clock ticks since boot (proc(5)).
        token: a word of its command line that only ours have.
    """

    pid: int
    start: int
    token: str


@dataclass(frozen=True, kw_only=True)
class Tap(Resource):
    """A TAP, owned by the account QEMU runs as. It may be on no bridge: then its NIC has no link.

    Attributes:
        is_silent: the host neither answers ARP on it nor has an address there.
        has_ipv6: the host speaks IPv6 on it: then a guest's router advertisement gives it an address there.
        is_held: a process has it open. Nobody wishes that of a TAP; a machine needs it of its own (`Machine.lost`).
    """

    KIND: ClassVar[str] = "TAP"
    NAMED_BY: ClassVar[str] = "device"
    device: str
    user: str
    is_up: bool = True
    is_silent: bool = True
    has_ipv6: bool = False
    is_marked: bool = True
    is_held: bool = field(default=True, compare=False)


@dataclass(frozen=True, kw_only=True)
class Port(Resource):
    """A port of the integration bridge. `tag` None would be a trunk: it sees every tenant.

    Attributes:
        trunks: VLANs it carries besides; any make it a trunk as well.
        vlan_mode: "" = an access port, since it has a tag; `TUNNEL` = others' tags stay, in the port's.
        outer: of a tunnel port, which EtherType the tag around has; "" = 802.1ad, as the switch has it by itself.
        cvlans: of a tunnel port, which inner tags pass; none = all.
        odd_type: the interface's type where it is neither a system device nor an internal port.
        bridge: "" = the integration bridge, else the one it is on instead.
        has_device: an internal port whose device went with its namespace stays broken until it is made anew.
        mac: of an internal port; "" = as Open vSwitch chose it.
    """

    TUNNEL: ClassVar[str] = "dot1q-tunnel"
    OUTER: ClassVar[str] = "802.1q"  # what uplinks carry for all links; a switch does not see 802.1ad as a tag
    KIND: ClassVar[str] = "port"
    NAMED_BY: ClassVar[str] = "device"
    device: str
    tag: int | None
    is_internal: bool = False
    trunks: tuple[int, ...] = ()
    vlan_mode: str = ""
    outer: str = ""
    cvlans: tuple[int, ...] = ()
    odd_type: str = ""
    bridge: str = ""
    has_device: bool = True
    mac: str = ""
    is_marked: bool = True


@dataclass(frozen=True, kw_only=True)
class Closure(Resource):
    """The integration bridge forwards nothing but by a flow, also after its switch was killed (`fail_mode=secure`).

    Its mark is in the bridge's `external_ids`, one for each installation that needs it closed.

    Attributes:
        is_closed: whether it is.
        is_needed: another installation wants it closed too.
    """

    WAS_CLOSED: ClassVar[str] = "was-closed"  # detail of the mark: it is not ours to open
    KIND: ClassVar[str] = "closed bridge"
    NAMED_BY: ClassVar[str] = "bridge"
    bridge: str
    is_closed: bool = True
    is_needed: bool = field(default=False, compare=False)

    @property
    def stays(self) -> bool:
        """Whether the bridge stays closed when our mark goes."""
        return self.is_needed or (self.mark is not None and self.mark.detail == self.WAS_CLOSED)


@dataclass(frozen=True, kw_only=True)
class Flows(Resource):
    """The flows of one owner on the integration bridge: a slice's, what all share, or of one thing made by hand.

    Attributes:
        owner: in words; see `naming.flow_owner`.
        flows: priority, match and actions of each, sorted; see `commands/openflow.py`.
    """

    KIND: ClassVar[str] = "flows"
    NAMED_BY: ClassVar[str] = "owner"
    owner: str
    flows: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Meter(Resource):
    """What bounds the rate at which one NIC sends: an OpenFlow meter, which flows of its port name.

    A meter holds no mark. It is ours by its number, where the NIC's TAP or port is, or by a flow of ours that names it.

    Attributes:
        number: see `naming.meter_number`.
        flags: sorted.
        bands: each in the words of `dump-meters`.
    """

    KIND: ClassVar[str] = "meter"
    NAMED_BY: ClassVar[str] = "number"
    number: int
    flags: tuple[str, ...]
    bands: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Namespace(Resource):
    """A network namespace. Its mark is the alias of its `lo`; unmarked yet, it may be announced as ours."""

    KIND: ClassVar[str] = "namespace"
    NAMED_BY: ClassVar[str] = "namespace"
    namespace: str
    is_marked: bool = True


@dataclass(frozen=True, kw_only=True)
class Address(Resource):
    """The inside of an internal port: the namespace it lives in ("" = the node's own) and its addresses.

    Attributes:
        addresses: of IPv4, with their prefix lengths.
        has_ipv6: it speaks IPv6; in the node's own namespace no port of ours does.
    """

    KIND: ClassVar[str] = "address"
    NAMED_BY: ClassVar[str] = "device"
    device: str
    namespace: str
    addresses: tuple[str, ...]
    is_up: bool = True
    has_ipv6: bool = False
    is_marked: bool = True


@dataclass(frozen=True, kw_only=True)
class DhcpServer(Resource):
    """A dnsmasq in a VLAN's namespace. `hosts` are its reservations, re-read without a restart.

    Attributes:
        arguments: what it was started with besides our own words; "" = nothing.
        strays: other processes that run from its directory.
        is_in_place: its process is in the namespace of this name, and not in one that lost the name to another.
    """

    KIND: ClassVar[str] = "DHCP server"
    NAMED_BY: ClassVar[str] = "namespace"
    vlan_id: int
    namespace: str
    config: str
    hosts: str
    is_running: bool = True
    arguments: str = ""
    is_in_place: bool = True
    strays: tuple[Process, ...] = ()
    is_marked: bool = True
    pid: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Firewall(Resource):
    """Our own iptables chains and the jumps to them for a VLAN, as rules in the words of `iptables-save`.

    Attributes:
        rules: table and words of each rule, in order within a chain.
        forwarding: devices whose packets the kernel may forward.
        is_first: nobody's rule stands before our jumps.
    """

    KIND: ClassVar[str] = "NAT rules"
    NAMED_BY: ClassVar[str] = "vlan_id"
    vlan_id: int
    rules: tuple[tuple[str, tuple[str, ...]], ...]
    forwarding: tuple[str, ...] = ()
    is_first: bool = True


@dataclass(frozen=True, kw_only=True)
class Nic:
    """One NIC of a machine, in the order the guest sees."""

    interface: str
    device: str
    mac: str
    has_carrier: bool


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What a machine is to its guest, as far as a process can be asked: what was a drift only if it differs.

    How it is confined, accelerated and shown is left out: settings and later versions of this program may change
    these, and a machine that runs is not started anew for it.

    Attributes:
        disk: absolute on the host.
        ram_mib: in MiB.
        vnc_port: the TCP port of its screen.
        nics: device and MAC of each NIC, in the guest's order.
        seed: the file name of its first boot's seed; "" = none.
    """

    disk: str
    cores: int
    ram_mib: int
    vnc_port: int
    nics: tuple[tuple[str, str], ...]
    seed: str = ""


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """What QEMU is started with. Sizes: `ram_mib` in MiB; `disk` absolute on the host.

    `vnc_password` is told to it by QMP and is in no command line; empty = none. `seed` None = its guest has none.
    """

    vm_name: str
    cores: int
    ram_mib: int
    disk: str
    vnc_bind: str
    vnc_port: int
    nics: tuple[Nic, ...]
    accelerator: str
    vnet_hdr: bool
    user: str
    detach: str = "setsid"
    vnc_password: str = field(default="", repr=False)
    seed: Seed | None = field(default=None, repr=False)

    @property
    def plugged(self) -> tuple[str, ...]:
        """The interfaces whose NICs are plugged in."""
        return tuple(nic.interface for nic in self.nics if nic.has_carrier)

    @property
    def wiring(self) -> Wiring:
        """The part of it that a running machine is compared with."""
        return Wiring(
            disk=self.disk,
            cores=self.cores,
            ram_mib=self.ram_mib,
            vnc_port=self.vnc_port,
            nics=tuple((nic.device, nic.mac) for nic in self.nics),
            seed=self.seed.name if self.seed is not None else "",
        )


@dataclass(frozen=True, kw_only=True)
class Machine(Resource):
    """A QEMU. Seen ones know their process; wanted ones know what to start.

    Attributes:
        uuid: its `-uuid`.
        is_running: its process lives.
        spec: what to start; wanted ones only.
        wiring: what it was started with; None = it could not be read.
        plugged: interfaces whose NICs were last told to be plugged in; None = nobody noted it.
        status: `running`, what QMP says instead, `frozen` (SIGSTOP), or "" when it did not answer.
        lost: TAPs of its that its process does not hold; it is not on the network by these any more.
        strays: other processes that run as this machine.
        is_recorded: its pid file names its process.
        limits: what it is to be held by, None = by nothing; of a seen one what holds it, None = no cgroup2 there.
    """

    KIND: ClassVar[str] = "VM"
    NAMED_BY: ClassVar[str] = "vm_id"
    vm_id: int
    uuid: str
    is_running: bool = True
    spec: MachineSpec | None = field(default=None, compare=False)
    wiring: Wiring | None = field(default=None, compare=False)
    plugged: tuple[str, ...] | None = field(default=None, compare=False)
    pid: int | None = field(default=None, compare=False)
    start: int = field(default=0, compare=False)
    status: str = field(default="", compare=False)
    lost: tuple[str, ...] = ()
    strays: tuple[Process, ...] = ()
    is_marked: bool = True
    is_recorded: bool = True
    limits: Limits | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Disk(Resource):
    """A VM's overlay and the directory that says whose it is. Images make it; here it is mended and removed.

    The overlay has a second name in its directory. So one that was deleted can be put back, and one that was
    replaced is known from it.

    Attributes:
        path: the overlay, absolute; "" = it was never finished.
        candidate: where an overlay without a path may have been published before its maker died.
        directory: the VM's durable directory with its mark file.
        base_dir: the image folder; nothing outside of it is removed.
        file: `there`, `gone`, or `another`: what has its name is not what we made.
        is_kept: whether it has its second name.
        owner: the account that owns it; "" = not known.
        mode: of the file; None = not known.
        has_base: whether the image under it is there.
        base: what its mark file says of that image.
        record: what its mark file keeps of the VM's record; see `cloudrepo/remembrance.py`.
    """

    KIND: ClassVar[str] = "disk"
    NAMED_BY: ClassVar[str] = "vm_id"
    vm_id: int
    path: str = field(compare=False)
    directory: str = field(compare=False)
    base_dir: str = field(compare=False)
    candidate: str = field(default="", compare=False)
    file: str = "there"
    is_kept: bool = True
    owner: str = ""
    mode: int | None = None
    has_base: bool = True
    is_marked: bool = True
    base: Mapping[str, Any] = field(default_factory=dict, compare=False)
    record: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def kept(self) -> str:
        """The overlay's second name, in our own directory."""
        return f"{self.directory}/{KEPT}"


class HostState(Mapping[Key, Resource]):
    """A set of resources of one host, found by key.

    Args:
        resources: later ones replace earlier ones of the same key.
        facts: what else the probe saw that decisions need; see `HostFacts`.
    """

    def __init__(self, resources: Iterable[Resource] = (), facts: HostFacts | None = None) -> None:
        self._by_key = {resource.key: resource for resource in resources}
        self.facts = facts or HostFacts()

    def __getitem__(self, key: Key) -> Resource:
        return self._by_key[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, kind: type[R]) -> list[R]:
        """All resources of one class, in the order they were given."""
        return [resource for resource in self._by_key.values() if isinstance(resource, kind)]

    def merged(self, other: Iterable[Resource]) -> HostState:
        """This state with further resources."""
        return HostState([*self._by_key.values(), *other], self.facts)


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """Something that is not ours where ours are: a chain, a directory or a process of others.

    Attributes:
        kind: in a person's words.
        name: what it is called on the host.
        whose: the installation that made it; "" = nobody's that is known.
        note: what is odd about it.
    """

    kind: str
    name: str
    whose: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What a host is, as far as a plan depends on it.

    Attributes:
        datapath: `system` (kernel) or `netdev` (userspace), "" when there is no bridge.
        has_bridge: whether the integration bridge exists.
        uplinks: ports of the bridge that lead to the other hosts.
        is_closed: whether the bridge forwards nothing but by a flow, or did when we marked it.
        was_closed: it did so before any installation came.
        can_limit: whether the bridge has meters; None = it was not asked.
        controllers: of cgroup2, those we use and the host hands on; None = it has no cgroup2.
        is_shared: whether somebody else uses the bridge, by flows, ports or an address of its own.
        uplink: the device of the default route, "" without one.
        connected: connected networks by device, such as `{"eth0": ("10.0.10.0/24",)}`.
        forwards: whether the node forwards for everybody (`net.ipv4.ip_forward`).
        groups: groups that devices are in, but for the one all are born in.
        strangers: what is of our kinds and in our places, is no resource, and not ours; see `Stranger`.
        operation: the highest operation number that the host has seen of this installation.
        counts: by scope, how many changes the host had counted before it was looked at; see `Plan.seen`.
    """

    datapath: str = ""
    has_bridge: bool = False
    uplinks: tuple[str, ...] = ()
    is_closed: bool = False
    was_closed: bool = False
    is_shared: bool = False
    can_limit: bool | None = None
    controllers: tuple[str, ...] | None = None
    uplink: str = ""
    connected: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forwards: bool = False
    groups: tuple[str, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    operation: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_uplink(self) -> bool:
        """Whether the bridge leads out of the host."""
        return bool(self.uplinks)
