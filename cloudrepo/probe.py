"""Looking at a host: the read-only questions of one message, and what their answers mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from cloudrepo import guest_accounts, limits, sightings
from cloudrepo.commands import dnsmasq, iproute, iptables, openflow, ovs, qemu
from cloudrepo.errors import HostError
from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import (
    INTERNET_VLAN,
    SHARED,
    TAP_PREFIX,
    Mark,
    dhcp_namespace,
    dhcp_port,
    flow_owner,
    gateway_port,
    meter_number,
    parse_cookie,
    parse_mark,
    run_root,
    tap_name,
)
from cloudrepo.plan import (
    EVERYTHING,
    Act,
    ObserveDisks,
    ObserveMachines,
    ObserveNamespaces,
    ObserveProcesses,
    ObserveServers,
    ReadFile,
    Run,
    Stage,
    Step,
    StepResult,
)
from cloudrepo.resources import (
    KEPT,
    Address,
    Closure,
    DhcpServer,
    Firewall,
    Flows,
    HostFacts,
    HostState,
    Machine,
    Meter,
    Namespace,
    Port,
    Resource,
    Stranger,
    Tap,
)

METER_WORD = re.compile(r"\bmeter:(\d+)", re.ASCII)
NAMESPACE_PREFIX = dhcp_namespace(0)[:-1]
VLAN_DEVICE_PREFIXES = (gateway_port(0)[:-1], dhcp_port(0)[:-1])
FlowsByMark = Mapping[Mark | None, tuple[openflow.Flow, ...]]
DATAPATH_DEVICE = "ovs-"  # what the datapaths themselves are called: ovs-netdev, ovs-system
RUN_PREFIX = run_root("")[len("/run/") :]
STORE_PREFIX = ".cloudrepo-"
IMAGE_DIRECTORY = "image directory"  # the kind of a stranger
FORWARD_SWITCH = "/proc/sys/net/ipv4/ip_forward"
#: What a parser raises at an answer that is none: garbled, cut, or nested without end.
NOT_UNDERSTOOD = json_text.NOT_UNDERSTOOD
FORWARDING_DEVICES = ("grep", "-rs", "--include=forwarding", "1", "/proc/sys/net/ipv4/conf")
OPEN_TO_IPV6 = ("grep", "-rs", "--include=disable_ipv6", "0", "/proc/sys/net/ipv6/conf")
METERS, FEATURES = "meters", "meter features"  # questions
FENCES = "fences"  # the question about them, and the runner's file


@dataclass(frozen=True, kw_only=True)
class Host:
    """What must be known of a host to look at it.

    Attributes:
        ip: its address.
        installation: whose marks count as ours.
        bridge: the integration bridge.
        base_dir: the image folder, absolute on the host.
        is_network_node: whether VLANs, DHCP and NAT live here.
        user: the account that guests run as which have no number of their own; see `user_of`.
        first_uid: the number of VM 0 where each VM has its own; 0 = all run as `user`.
        is_limited: whether NICs have a rate, so that it matters whether the bridge has meters.
    """

    ip: str
    installation: str
    bridge: str
    base_dir: str
    is_network_node: bool
    user: str
    is_limited: bool = False
    first_uid: int = 0

    def user_of(self, vm_id: int) -> str:
        """As whom a VM's QEMU runs, and whose its TAPs and its disk are: the name of an account, or a number.

        Raises:
            RefusedError: no number is left for so high an id.
        """
        return guest_accounts.uid_of(self.first_uid, vm_id) if self.first_uid else self.user

    @property
    def disks_root(self) -> str:
        """The directory that holds one durable directory for each VM of this installation."""
        return f"{self.base_dir}/{STORE_PREFIX}{self.installation}"


def require_bridge(host: Host, facts: HostFacts) -> None:
    """Refuse to plan anything for a host without the integration bridge.

    Raises:
        HostError: naming the host and how the bridge is made.
    """
    if not facts.has_bridge:
        raise HostError(
            host.ip,
            f"there is no Open vSwitch bridge {host.bridge}",
            remedy=f"Make it there with `sudo ovs-vsctl add-br {host.bridge}` and add its uplink port",
            code="host.bridge",
        )


def first_question(host: Host) -> Stage:
    """How many changes the host has counted; asked before all others, so that what changes meanwhile shows."""
    act = ReadFile(path=f"{host.disks_root}/{FENCES}")
    return Stage(name="first", steps=(Step(name=FENCES, label="look at the count of changes", act=act),))


def questions(host: Host, *, is_broad: bool = False) -> tuple[Step, ...]:
    """The observation of a host, as steps of a plan.

    Args:
        host: the host.
        is_broad: ask also for what others have there, and a worker for what only a network node should have.
    """
    asked: dict[str, tuple[str, Act]] = {
        "ports": ("ports of the bridge", Run(words=ovs.list_ports())),
        "flows": ("flows of the bridge", Run(words=openflow.dump(host.bridge))),
        METERS: ("meters of the bridge", Run(words=openflow.list_meters(host.bridge))),
        "addresses": ("devices and addresses", Run(words=iproute.list_addresses())),
        "machines": ("machines", ObserveMachines(root=run_root(host.installation), socket="qmp.sock")),
        "IPv6 devices": ("devices with IPv6", Run(words=OPEN_TO_IPV6, ok=(0, 1, 2))),  # 2: the host has no IPv6
        "disks": ("disks", ObserveDisks(root=host.disks_root, kept=KEPT)),
        "processes": ("processes", ObserveProcesses(names=(qemu.BINARY, dnsmasq.BINARY))),
    }
    asked |= limits.questions()
    if host.is_limited:
        asked[FEATURES] = ("what meters the bridge has", Run(words=openflow.meter_features(host.bridge)))
    if is_broad:
        asked |= {
            "run directories": ("directories of installations", ObserveServers(root="/run", prefix=RUN_PREFIX)),
            "image directories": ("image directories", ObserveServers(root=host.base_dir, prefix=STORE_PREFIX)),
        }
    if host.is_network_node or is_broad:
        asked |= {
            "namespaces": (
                "namespaces",
                ObserveNamespaces(prefix=NAMESPACE_PREFIX, words=iproute.list_addresses()),
            ),
            "servers": (
                "DHCP servers",
                ObserveServers(
                    root=run_root(host.installation), prefix="dhcp-", files=("mark", "dnsmasq.conf", "hosts")
                ),
            ),
            "rules": ("NAT rules", Run(words=iptables.save())),
            "routes": ("routes", Run(words=iproute.list_routes())),
            "forwarding": ("forwarding", ReadFile(path=FORWARD_SWITCH)),
            "forwarding devices": ("forwarding devices", Run(words=FORWARDING_DEVICES, ok=(0, 1))),
        }
    return tuple(Step(name=name, label=f"look at {label}", act=act) for name, (label, act) in asked.items())


def read(host: Host, answers: Mapping[str, StepResult]) -> HostState:
    """What the answers to `questions(host)` say, and that to `first_question` if it was asked.

    Raises:
        HostError: an answer is missing, was refused by the host, or cannot be understood.
    """
    try:
        return _Reader(host, answers).state()
    except NOT_UNDERSTOOD as error:  # answers that make sense one by one, and not together
        text = "its answers cannot be understood"
        raise HostError(host.ip, text, evidence=repr(error)[:200], code="host.probe") from error


class _Reader:
    """Turns the answers of one host into resources; the marks of directories are read first."""

    def __init__(self, host: Host, answers: Mapping[str, StepResult]) -> None:
        self.host = host
        self.answers = answers

    def state(self) -> HostState:
        bridge = self._parse("ports", lambda text: ovs.parse_ports(text, self.host.bridge))
        processes = self._parse("processes", sightings.parse_processes)
        taps = self._taps(bridge)
        disks = self._parse("disks", lambda text: sightings.parse_disks(text, self.host))
        machines = self._parse("machines", lambda text: sightings.parse_machines(text, self.host.installation))
        machines = sightings.with_processes(
            machines, processes, taps, installation=self.host.installation, vm_ids=[disk.vm_id for disk in disks]
        )
        taps = self._announced_taps(taps, machines)
        aliases = self._parse("addresses", iproute.parse_aliases)
        strangers = [
            *sightings.strange_machines(processes, self.host.installation),
            *sightings.strange_devices(aliases, taps, self.host.installation),
        ]
        flows = self._flows(bridge)
        resources: list[Resource] = [*taps, *machines, *disks, *self._closure(bridge), *self._our_flows(flows)]
        resources += self._meters(bridge, [*taps, *(bridge.ports if bridge else ())], flows)
        if "namespaces" in self.answers or self.host.is_network_node:
            ports, found, strange = self._network_node(bridge, taps, processes)
            resources += [*ports, *found]
            strangers += strange
        else:
            resources += self._ports(bridge, {tap.device: tap.mark for tap in taps})
        return HostState(resources, self._facts(bridge, flows, [*strangers, *self._others()]))

    def _taps(self, bridge: ovs.Bridge | None) -> list[Tap]:
        """TAPs but for the userspace datapath's internal ports, which are TAPs as well."""
        ports = (*bridge.ports, *bridge.elsewhere) if bridge else ()
        internal = {port.device for port in ports if port.is_internal and not port.device.startswith(TAP_PREFIX)}
        with_ipv6 = self._parse("IPv6 devices", sightings.switched_devices)
        return [
            replace(tap, has_ipv6=tap.device in with_ipv6)
            for tap in self._parse("addresses", iproute.parse_taps)
            if tap.device not in internal and not tap.device.startswith((*VLAN_DEVICE_PREFIXES, DATAPATH_DEVICE))
        ]

    def _network_node(
        self, bridge: ovs.Bridge | None, taps: list[Tap], processes: list[sightings.Seen]
    ) -> tuple[list[Port], list[Resource], list[Stranger]]:
        servers = self._parse("servers", lambda text: sightings.parse_servers(text, self.host.installation))
        servers = sightings.with_server_processes(servers, processes, self.host.installation)
        inside: list[Address] = []
        namespaces: list[Namespace] = []
        for name, text in self._parse("namespaces", self._namespace_texts).items():
            held = iproute.parse_addresses(text, namespace=name)
            inside += held
            namespaces.append(
                self._announced(iproute.parse_namespace(text, name), _vlan_devices(held, bridge), servers)
            )
        devices = self._parse("addresses", iproute.parse_addresses)
        here = [*devices, *inside]
        marks = {device.device: device.mark for device in here if device.device.startswith(VLAN_DEVICE_PREFIXES)}
        present = {device.device for device in here}
        ports = [
            replace(port, has_device=False)
            if port.is_internal and port.mark is not None and port.device not in present
            else port
            for port in self._ports(bridge, {**{tap.device: tap.mark for tap in taps}, **marks})
        ]
        strangers = [
            *sightings.strange_inmates(inside, namespaces, self.host.installation),
            *sightings.strange_servers(processes, self.host.installation),
            *self._strange_chains(),
        ]
        return ports, [*namespaces, *servers, *_vlan_devices(here, bridge), *self._firewall()], strangers

    def _ports(self, bridge: ovs.Bridge | None, marks: Mapping[str, Mark | None]) -> list[Port]:
        """The ports of the bridge, and those of ours that went astray to another one.

        A port without a mark is ours when its device is: the device carries our mark, or is announced.
        """
        ports = (*bridge.ports, *bridge.elsewhere) if bridge else ()
        return [
            replace(port, mark=mark, is_marked=False)
            if port.mark is None
            and (mark := marks.get(port.device)) is not None
            and mark.installation == self.host.installation
            else port
            for port in ports
        ]

    def _announced_taps(self, taps: list[Tap], machines: list[Machine]) -> list[Tap]:
        """A TAP without an alias is ours when a machine directory of ours announces it.

        Making a TAP and marking it are two calls; a crash between them must not leave a stranger.
        """
        announced = {
            tap_name(machine.vm_id, interface): Mark(
                machine.mark.installation, machine.mark.scope, machine.vm_id, interface
            )
            for machine in machines
            if machine.mark is not None
            for interface in machine.mark.detail.split(".")
            if interface
        }
        return [
            replace(tap, mark=announced[tap.device], is_marked=False)
            if tap.mark is None and tap.device in announced
            else tap
            for tap in taps
        ]

    def _announced(self, namespace: Namespace, held: list[Address], servers: list[DhcpServer]) -> Namespace:
        """A namespace without a mark is ours when our DHCP server's directory announces it, and it holds only ours."""
        if namespace.mark is not None or any(_whose(device.mark) != self.host.installation for device in held):
            return namespace
        mark = next((server.mark for server in servers if server.namespace == namespace.namespace), None)
        return replace(namespace, mark=mark, is_marked=False)

    def _namespace_texts(self, text: str) -> dict[str, str]:
        answers = json_text.loads(text)
        return {name: answer["out"] for name, answer in answers.items() if answer["status"] == 0}

    def _firewall(self) -> list[Firewall]:
        rules = self._rules(iptables.parse_rules)
        if not rules:
            return []
        comments = [words[words.index("--comment") + 1] for _, words in rules if "--comment" in words]
        mark = next((parse_mark(text) for text in comments), None) or Mark(self.host.installation, SHARED)
        forwarding = self._parse("forwarding devices", sightings.switched_devices)
        return [
            Firewall(
                vlan_id=INTERNET_VLAN,
                rules=tuple(rules),
                forwarding=forwarding,
                is_first=self._rules(iptables.are_first),
                mark=mark,
            )
        ]

    def _strange_chains(self) -> list[Stranger]:
        found = self._rules(iptables.parse_strangers)
        return [Stranger(kind="chain", name=name, whose=whose) for name, whose in found.items()]

    def _rules(self, parser: Callable[[str, str], Any]) -> Any:
        answer = self.answers.get("rules")
        if answer is not None and not answer.accepted and not self.host.is_network_node:
            return parser("", self.host.installation)  # a worker needs no iptables
        return self._parse("rules", lambda text: parser(text, self.host.installation))

    def _others(self) -> list[Stranger]:
        """Directories of other installations, where they were asked for."""
        asked = (("run directories", RUN_PREFIX, "directory"), ("image directories", STORE_PREFIX, IMAGE_DIRECTORY))
        return [
            Stranger(kind=kind, name=path, whose=path.rpartition(prefix)[2])
            for name, prefix, kind in asked
            if name in self.answers
            for path in self._parse(name, sightings.parse_directories)
            if not path.endswith(prefix + self.host.installation)
        ]

    def _flows(self, bridge: ovs.Bridge | None) -> FlowsByMark:
        """The flows on the bridge by whose they would be; none of a bridge that is not there."""
        if bridge is None:
            return {}
        found: dict[Mark | None, tuple[openflow.Flow, ...]] = {}
        for cookie, flows in self._parse("flows", openflow.parse_dump).items():
            mark = parse_cookie(cookie)
            found[mark] = (*found.get(mark, ()), *flows)
        return found

    def _our_flows(self, flows: FlowsByMark) -> list[Flows]:
        return [
            Flows(owner=flow_owner(mark), flows=found, mark=mark)
            for mark, found in flows.items()
            if mark is not None and mark.installation == self.host.installation
        ]

    def _meters(self, bridge: ovs.Bridge | None, devices: Iterable[Tap | Port], flows: FlowsByMark) -> list[Meter]:
        """The meters, each with the mark of the NIC it is numbered for; else with that of a flow that names it."""
        if bridge is None:
            return []
        marks = [one.mark for one in devices if one.mark is not None and one.mark.vm_id is not None]
        by_device = {meter_number(mark.vm_id or 0, mark.detail): mark for mark in marks}
        named = {
            int(number): Mark(mark.installation, mark.scope, int(number) >> 8, f"eth{int(number) & 255}")
            for mark, found in flows.items()
            if mark is not None
            for _, _, actions in found
            for number in METER_WORD.findall(actions)
        }
        return [
            Meter(number=number, flags=flags, bands=bands, mark=by_device.get(number, named.get(number)))
            for number, (flags, bands) in self._parse(METERS, openflow.parse_meters).items()
        ]

    def _closure(self, bridge: ovs.Bridge | None) -> list[Closure]:
        """The bridge as something of ours, if we closed it."""
        marks = bridge.closed_by if bridge is not None else ()
        own = [mark for mark in marks if mark.installation == self.host.installation]
        is_closed = bridge is not None and bridge.is_closed
        return [
            Closure(bridge=self.host.bridge, is_closed=is_closed, is_needed=len(marks) > 1, mark=mark) for mark in own
        ]

    def _was_closed(self, bridge: ovs.Bridge, flows: FlowsByMark) -> bool:
        """Whether somebody else closed it: a mark says so, or it is closed and nothing there is ours.

        We close a bridge and mark it in one transaction; where the mark was lost since, our flows tell.
        """
        if bridge.closed_by:
            return any(mark.detail == Closure.WAS_CLOSED for mark in bridge.closed_by)
        return bridge.is_closed and not self._our_flows(flows)

    def _is_shared(self, bridge: ovs.Bridge, flows: FlowsByMark) -> bool:
        """Whether others would miss the bridge if it forwarded by our flows only: their flows, ports or addresses."""
        ours = {self.host.installation, *(mark.installation for mark in bridge.closed_by)}
        strange = [
            one for mark, found in flows.items() if mark is None or mark.installation not in ours for one in found
        ]
        addressed = [one.device for one in self._parse("addresses", iproute.parse_addresses) if one.addresses]
        return any(one != openflow.BUILT_IN for one in strange) or bool(bridge.others) or self.host.bridge in addressed

    def _facts(self, bridge: ovs.Bridge | None, flows: FlowsByMark, strangers: list[Stranger]) -> HostFacts:
        facts = HostFacts(
            datapath=bridge.datapath if bridge else "",
            has_bridge=bridge is not None,
            uplinks=bridge.uplinks if bridge else (),
            is_closed=bridge is not None and (bridge.is_closed or bool(self._closure(bridge))),
            was_closed=bridge is not None and self._was_closed(bridge, flows),
            is_shared=bridge is not None and self._is_shared(bridge, flows),
            can_limit=self._can_limit(bridge),
            controllers=limits.controllers(self.answers, self._parse),
            groups=self._parse("addresses", iproute.parse_groups),
            counts=self._parse(FENCES, _counts) if FENCES in self.answers else {},
            operation=self._parse(FENCES, _highest) if FENCES in self.answers else 0,
            strangers=tuple(strangers),
        )
        if "routes" not in self.answers and not self.host.is_network_node:
            return facts
        return replace(
            facts,
            uplink=self._parse("routes", iproute.parse_default_device),
            connected=self._parse("routes", iproute.parse_connected),
            forwards=self.answers["forwarding"].out.strip() == "1",
        )

    def _can_limit(self, bridge: ovs.Bridge | None) -> bool | None:
        is_asked = bridge is not None and self.host.is_limited
        return self._parse(FEATURES, openflow.parse_meter_features) if is_asked else None

    def _parse(self, name: str, parser: Callable[[str], Any]) -> Any:
        answer = self.answers.get(name)
        if answer is None:
            raise HostError(self.host.ip, f"the host did not answer the question about {name}", code="host.probe")
        if not answer.accepted:
            raise HostError(
                self.host.ip,
                f"could not {answer.label}",
                evidence=(answer.err or answer.out).strip()[-500:] or f"status {answer.status}",
                code="host.probe",
                details={"step": name},
            )
        try:
            return parser(answer.out)
        except NOT_UNDERSTOOD as error:
            raise HostError(
                self.host.ip,
                f"the answer about {name} cannot be understood",
                evidence=f"{error!r} in {answer.out[:200]!r}",
                code="host.probe",
            ) from error


def _vlan_devices(devices: list[Address], bridge: ovs.Bridge | None) -> list[Address]:
    """The devices under our names. One without an alias is ours when its port on the bridge is.

    A port appears on the host before it can be marked there; its mark in OVS came with it.
    """
    ports = {port.device: port.mark for port in (bridge.ports if bridge else ())}
    return [
        replace(device, mark=ports[device.device], is_marked=False)
        if device.mark is None and ports.get(device.device) is not None
        else device
        for device in devices
        if device.device.startswith(VLAN_DEVICE_PREFIXES)
    ]


def _counts(text: str) -> dict[str, int]:
    """By scope, the count at its last change; a damaged file has none, and the runner will refuse to use it."""
    fields = sightings.json_object(text)
    scopes = fields.get("scopes", {})
    return {EVERYTHING: fields.get("changes", 0), **{scope: count for scope, (_, count) in scopes.items()}}


def _highest(text: str) -> int:
    """The highest operation number in a file of fences."""
    fields = sightings.json_object(text)
    numbers = [number for number, _ in fields.get("scopes", {}).values()]
    return max([0, int(fields.get("floor", 0)), *map(int, numbers)])


def _whose(mark: Mark | None) -> str:
    return mark.installation if mark is not None else ""
