"""Who hears what a guest sends: the flows of three hosts, derived from records and played on a tiny switch."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cloudrepo import isolation, rules
from cloudrepo.commands.openflow import BUILT_IN, Flow
from cloudrepo.naming import service_mac, tap_name
from cloudrepo.resources import Closure, Flows, HostFacts
from cloudrepo.settings import Settings
from worlds import NODE, OURS, WORKER, host

OTHER = "10.0.10.2"
SETTINGS = Settings.of({})
FACTS = HostFacts(has_bridge=True, uplinks=("trunk0",))
GATEWAY, SERVER = service_mac(OURS, "gw_vlan400"), service_mac(OURS, "dhcp_v400")
EVERYBODY, GROUP = "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05"
BPDU = "01:80:c2:00:00:00"  # as destination: a bridge's own frame
STRANGE = "52:54:00:99:99:99"
ROGUE = "rogue0"
NOBODY: frozenset[str] = frozenset()

# ---------------------------------------------------------------------------------------- frames

PROTOCOLS = {
    "arp": {"arp"},
    "ip": {"ip"},
    "udp": {"ip", "udp"},
    "icmp": {"ip", "icmp"},
    "ipv6": {"ipv6"},
    "icmp6": {"ipv6", "icmp6"},
    "other": set(),
}


@dataclass(frozen=True)
class Frame:
    """One frame; `fields` are those of OpenFlow that its protocol has."""

    kind: str
    src: str
    dst: str
    tag: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    inner: tuple[int, ...] = ()  # tags within

    def tagged(self, tag: int | None) -> Frame:
        return replace(self, tag=tag)

    def tagged_again(self) -> Frame:
        """Room for one more tag around those there are."""
        return replace(self, tag=None, inner=self.inner if self.tag is None else (self.tag, *self.inner))

    def untagged(self) -> Frame:
        """Without its outermost tag."""
        return replace(self, tag=self.inner[0] if self.inner else None, inner=self.inner[1:])

    def towards(self, number: int) -> Frame:
        return replace(self, dst=number.to_bytes(6, "big").hex(":"))


def arp(src: str, spa: str, tpa: str, *, sha: str = "", dst: str = EVERYBODY) -> Frame:
    return Frame("arp", src, dst, None, {"arp_sha": sha or src, "arp_spa": spa, "arp_tpa": tpa})


def ip(src: str, dst: str, nw_src: str, nw_dst: str, kind: str = "ip", **ports: int) -> Frame:
    fields = {"nw_src": nw_src, "nw_dst": nw_dst, **{name: str(port) for name, port in ports.items()}}
    return Frame(kind, src, dst, None, fields)


def dhcp(src: str, dst: str, nw_src: str, nw_dst: str, *, answers: bool = False) -> Frame:
    ends = (67, 68) if answers else (68, 67)
    return ip(src, dst, nw_src, nw_dst, "udp", tp_src=ends[0], tp_dst=ends[1])


def ip6(src: str, dst: str, ipv6_src: str, kind: str = "ipv6", **fields: str) -> Frame:
    return Frame(kind, src, dst, None, {"ipv6_src": ipv6_src, **fields})


# ---------------------------------------------------------------------------------------- a switch


@dataclass
class Switch:
    """One host's bridge: its ports with their tags (None = a trunk), and its flows."""

    ports: dict[str, int | None]
    flows: list[Flow]
    tunnels: bool = False  # ports with a tag carry others' tags in it
    _sorted: dict[str, list[Flow]] = field(default_factory=dict)
    _sorted_of: list[Flow] | None = None

    def forwards(self, port: str, frame: Frame) -> Iterator[tuple[str, Frame]]:
        """The ports a frame leaves by, and as what."""
        best = next((one for one in self._best_first(port) if _matches(one[1], port, frame)), None)
        if best is not None:
            yield from self._act(best[2], port, frame)

    def _best_first(self, port: str) -> list[Flow]:
        """The flows that frames of a port may meet; sorted once, until somebody puts other flows in their place."""
        if self._sorted_of is not self.flows:
            self._sorted_of, self._sorted = self.flows, {}
        if port not in self._sorted:
            met = [one for one in self.flows if all(word[1] == port for word in _words(one[1]) if word[0] == "in_port")]
            self._sorted[port] = sorted(met, reverse=True)
        return self._sorted[port]

    def _act(self, actions: str, port: str, frame: Frame) -> Iterator[tuple[str, Frame]]:
        for action in actions.split(","):
            verb, _, rest = action.partition(":")
            match verb:
                case "NORMAL":
                    yield from self._flood(port, frame)
                case "output" if rest != port:  # never back to where it came from (OpenFlow 1.3, 5.9)
                    assert rest in self.ports, rest
                    yield from self._leave(rest, frame)
                case "pop_vlan":
                    frame = frame.untagged()
                case "load":
                    upper = int(rest.partition("->")[0], 16) << 4
                    assert rest.endswith("NXM_OF_ETH_DST[4..47]"), rest
                    frame = frame.towards(upper | (_number(frame.dst) & 0xF))
                case "push_vlan":
                    frame = frame.tagged_again()
                case "set_field":
                    frame = frame.tagged(int(rest.partition("->")[0]) & 0xFFF)

    def _flood(self, port: str, frame: Frame) -> Iterator[tuple[str, Frame]]:
        """A switch that has learnt nothing yet; it keeps what is for bridges to itself (IEEE 802.1Q, 8.6.3)."""
        tag = self.ports[port]
        if _number(frame.dst) & ~0xF == _number(BPDU):
            return
        if tag is not None and frame.tag and not self.tunnels:  # nought is a priority and no VLAN (IEEE 802.1Q, 6.9)
            return
        if tag is not None and frame.tag:
            frame = frame.tagged_again()
        vlan = tag or frame.tag
        for other, its_tag in self.ports.items():
            if other != port and its_tag in (vlan, None):
                yield other, frame.tagged(vlan) if its_tag is None else frame.untagged()

    def _leave(self, port: str, frame: Frame) -> Iterator[tuple[str, Frame]]:
        yield port, frame


def _matches(match: str, port: str, frame: Frame) -> bool:
    return all(_holds(name, value, port, frame) for name, value in _words(match))


@functools.cache
def _words(match: str) -> tuple[tuple[str, str], ...]:
    """Names and values; a value is empty for a protocol."""
    return tuple((name, value) for name, _, value in (word.partition("=") for word in match.split(",") if word))


def _holds(name: str, value: str, port: str, frame: Frame) -> bool:
    match name:
        case "in_port":
            return value == port
        case "dl_dst" if "/" in value:
            wanted, mask = map(_number, value.split("/"))
            return _number(frame.dst) & mask == wanted
        case "dl_src" | "dl_dst":
            return value == (frame.src if name == "dl_src" else frame.dst)
        case "dl_vlan":
            return value == str(frame.tag)
        case "vlan_tci":
            return value == isolation.ANY_TAG.partition("=")[2] and frame.tag is not None
        case "nd_sll" | "nd_tll":
            return value == frame.fields.get(name, "00:00:00:00:00:00")
        case "metadata":
            return False  # no frame comes in with some
    if not value:
        return name in PROTOCOLS[frame.kind]
    return value == frame.fields.get(name)


def _number(address: str) -> int:
    return int(address.replace(":", ""), 16)


@dataclass
class Wire:
    """All hosts, joined by their trunks; one more that keeps no rules, and that none can forbid to listen."""

    hosts: dict[str, Switch]

    def hears(self, device: str, frame: Frame) -> frozenset[str]:
        """Which devices hear what one sends."""
        return frozenset(self.copies(device, frame))

    def copies(self, device: str, frame: Frame) -> dict[str, Frame]:
        """As what."""
        here = next(ip for ip, switch in self.hosts.items() if device in switch.ports)
        heard: dict[str, Frame] = {}
        for port, out in self.hosts[here].forwards(device, frame):
            if port != "trunk0":
                heard[port] = out
                continue
            for ip, switch in self.hosts.items():
                if ip != here:
                    heard |= {
                        name: far for name, far in switch.forwards("trunk0", out) if name not in ("trunk0", ROGUE)
                    }
        return heard

    def on_trunk(self, device: str, frame: Frame) -> list[Frame]:
        """What leaves the host."""
        here = next(switch for switch in self.hosts.values() if device in switch.ports)
        return [out for port, out in here.forwards(device, frame) if port == "trunk0"]


# ---------------------------------------------------------------------------------------- a slice


def mac(vm_id: int, number: int) -> str:
    return f"52:54:00:{vm_id >> 8:02x}:{vm_id & 255:02x}:{number:02x}"


def machine(vm_id: int, worker: str) -> dict[str, Any]:
    last = vm_id - 900
    ends = ((0, 400, f"10.60.7.{last}"), (1, 100, f"192.168.100.{last}"))
    interfaces = [
        {"name": f"eth{number}", "mac": mac(vm_id, number), "vlan_id": vlan, "ip_config": {"ip": ip_}}
        for number, vlan, ip_ in ends
    ]
    return {"vm_id": vm_id, "worker_ip": worker, "interfaces": interfaces}


PLACES = {1001: WORKER, 1002: WORKER, 1003: NODE, 1004: OTHER, 1005: NODE}
SERVICES = {"gw_vlan400": 400, "dhcp_v400": 400, "gw_vlan100": 100, "dhcp_v100": 100}


def record(**switches: str) -> dict[str, Any]:
    link = {"vlan_id": 100, "cidr": "192.168.100.0/24", "gateway_ip": "192.168.100.1", **switches}
    return {"slice_id": 1000, "vms": [machine(vm_id, where) for vm_id, where in PLACES.items()], "links": [link]}


def wire(closed: bool = True, slice_: Mapping[str, Any] | None = None) -> Wire:
    """Three hosts with their flows. Bridges that are not closed have the flow they were born with."""
    slice_, hosts = slice_ or record(), {}
    for address in (WORKER, OTHER, NODE):
        on = host(address)
        made = [
            *rules.slice_flows(on, FACTS, SETTINGS, slice_, list(PLACES)),
            *rules.shared_flows(on, FACTS, SETTINGS, [slice_]),
        ]
        flows = [flow for one in made if isinstance(one, Flows) for flow in one.flows]
        taps = {
            tap_name(vm_id, name): vlan
            for vm_id, where in PLACES.items()
            for name, vlan in (("eth0", 400), ("eth1", 100))
            if where == address
        }
        ports: dict[str, int | None] = {"trunk0": None, **taps, **(SERVICES if address == NODE else {})}
        tunnels = slice_["links"][0].get("vlans") == "allowed"
        hosts[address] = Switch(ports, flows if closed else [*flows, BUILT_IN], tunnels)
    hosts["10.0.10.9"] = Switch({"trunk0": None, ROGUE: 400}, [BUILT_IN])
    return Wire(hosts)


def eth0(vm_id: int) -> str:
    return tap_name(vm_id, "eth0")


def eth1(vm_id: int) -> str:
    return tap_name(vm_id, "eth1")


ON_LINK = frozenset({*map(eth1, PLACES), "gw_vlan100", "dhcp_v100"})
Case = tuple[str, Frame, frozenset[str]]  # who sends what, and who hears it


# ---------------------------------------------------------------------------------------- VLAN 400


def internet_cases(vm_id: int) -> dict[str, Case]:
    """What a guest sends into VLAN 400 or hears from there."""
    me, mine, device = mac(vm_id, 0), f"10.60.7.{vm_id - 900}", eth0(vm_id)
    peer = 1002 if vm_id == 1001 else 1001
    its, its_ip = mac(peer, 0), f"10.60.7.{peer - 900}"
    gateway, server = frozenset({"gw_vlan400"}), frozenset({"dhcp_v400"})
    sent: dict[str, tuple[Frame, frozenset[str]]] = {
        "ARP for the gateway": (arp(me, mine, "10.60.7.1"), gateway),
        "ARP for the server": (arp(me, mine, "10.60.7.2"), server),
        "ARP answer to the gateway": (arp(me, mine, "10.60.7.1", dst=GATEWAY), gateway),
        "IPv4 by the gateway": (ip(me, GATEWAY, mine, "198.51.100.7"), gateway),
        "ping to the gateway": (ip(me, GATEWAY, mine, "10.60.7.1", "icmp"), gateway),
        "DHCP, asking": (dhcp(me, EVERYBODY, "0.0.0.0", "255.255.255.255"), server),
        "DHCP, renewing": (dhcp(me, SERVER, mine, "10.60.7.2"), server),
        "DHCP, rebinding": (dhcp(me, EVERYBODY, mine, "255.255.255.255"), server),
        "ARP for a neighbour": (arp(me, mine, its_ip), NOBODY),
        "ARP answer to a neighbour": (arp(me, "10.60.7.1", its_ip, dst=its), NOBODY),
        "ARP in the gateway's name": (arp(me, "10.60.7.1", "10.60.7.1"), NOBODY),
        "ARP in a neighbour's name": (arp(me, its_ip, "10.60.7.1"), NOBODY),
        "ARP with a neighbour's MAC inside": (arp(me, mine, "10.60.7.1", sha=its), NOBODY),
        "ARP from another MAC": (arp(STRANGE, mine, "10.60.7.1"), NOBODY),
        "ARP from another MAC, own inside": (arp(STRANGE, mine, "10.60.7.1", sha=me), NOBODY),
        "IPv4 to a neighbour": (ip(me, its, mine, its_ip), NOBODY),
        "IPv4 to a neighbour's MAC": (ip(me, its, mine, "198.51.100.7"), NOBODY),
        "IPv4 to all": (ip(me, EVERYBODY, mine, "10.60.7.255"), NOBODY),
        "IPv4 to a group": (ip(me, GROUP, mine, "224.0.0.5"), NOBODY),
        "IPv4 from a neighbour's address": (ip(me, GATEWAY, its_ip, "198.51.100.7"), NOBODY),
        "IPv4 from another MAC": (ip(its, GATEWAY, mine, "198.51.100.7"), NOBODY),
        "IPv4 to the server": (ip(me, SERVER, mine, "10.60.7.2", "icmp"), NOBODY),
        "DHCP answer to a neighbour": (dhcp(me, its, mine, its_ip, answers=True), NOBODY),
        "DHCP answer to all": (dhcp(me, EVERYBODY, mine, "255.255.255.255", answers=True), NOBODY),
        "DHCP from another MAC": (dhcp(STRANGE, EVERYBODY, "0.0.0.0", "255.255.255.255"), NOBODY),
        "DHCP to a neighbour": (dhcp(me, its, "0.0.0.0", "255.255.255.255"), NOBODY),
        "IPv6 to all": (ip6(me, "33:33:00:00:00:01", isolation.link_local(me)), NOBODY),
        "IPv6 to the gateway": (ip6(me, GATEWAY, isolation.link_local(me)), NOBODY),
        "neither ARP nor IP": (Frame("other", me, EVERYBODY), NOBODY),
        "its own tag": (ip(me, GATEWAY, mine, "198.51.100.7").tagged(400), NOBODY),
        "a link's tag": (ip(me, EVERYBODY, mine, "192.168.100.1").tagged(100), NOBODY),
        "a tag of nought": (arp(me, mine, "10.60.7.1").tagged(0), NOBODY),
    }
    heard: dict[str, Case] = {
        "from the gateway": ("gw_vlan400", ip(GATEWAY, me, "198.51.100.7", mine), frozenset({device})),
        "ARP of the gateway": ("gw_vlan400", arp(GATEWAY, "10.60.7.1", mine), frozenset({device})),
        "from the server": ("dhcp_v400", dhcp(SERVER, me, "10.60.7.2", mine, answers=True), frozenset({device})),
        "ARP of the server": ("dhcp_v400", arp(SERVER, "10.60.7.2", mine), frozenset({device})),
    }
    return {**{name: (device, *case) for name, case in sent.items()}, **heard}


def services_cases() -> dict[str, Case]:
    """What the two services send to all."""
    everyone = frozenset(map(eth0, PLACES))
    answer = dhcp(SERVER, EVERYBODY, "10.60.7.2", "255.255.255.255", answers=True)
    return {
        "DHCP answer to all": ("dhcp_v400", answer, everyone | {"gw_vlan400"}),
        "ARP for nobody": ("gw_vlan400", arp(GATEWAY, "10.60.7.1", "10.60.7.250"), NOBODY),
        "IPv4 to all": ("gw_vlan400", ip(GATEWAY, EVERYBODY, "10.60.7.1", "10.60.7.255"), NOBODY),
    }


def outcomes(on: Wire, cases: Mapping[str, Case]) -> dict[str, frozenset[str]]:
    return {name: on.hears(device, frame) for name, (device, frame, _) in cases.items()}


def expected(cases: Mapping[str, Case]) -> dict[str, frozenset[str]]:
    return {name: hearers for name, (_, _, hearers) in cases.items()}


@pytest.mark.parametrize("vm_id", PLACES)
def test_on_vlan_400_only_the_two_services_are_heard_and_hear(vm_id: int) -> None:
    cases = internet_cases(vm_id)
    assert outcomes(wire(), cases) == expected(cases)


@pytest.mark.parametrize("vm_id", PLACES)
def test_what_guests_send_is_held_on_a_bridge_that_is_not_closed_as_well(vm_id: int) -> None:
    cases = {name: case for name, case in internet_cases(vm_id).items() if case[0] == eth0(vm_id)}
    assert outcomes(wire(closed=False), cases) == expected(cases)


def test_services_speak_to_all_only_where_dhcp_needs_it() -> None:
    assert outcomes(wire(), services_cases()) == expected(services_cases())


def rogue_cases() -> dict[str, Case]:
    """What comes by the trunk from a host that keeps no rules."""
    frames = {"to all": ip(STRANGE, EVERYBODY, "10.60.7.9", "10.60.7.255"), "unknown": Frame("other", STRANGE, GROUP)}
    for vm_id in PLACES:
        frames[f"to {vm_id}"] = ip(mac(1002, 0), mac(vm_id, 0), "10.60.7.102", f"10.60.7.{vm_id - 900}")
        frames[f"ARP for {vm_id}"] = arp(STRANGE, "10.60.7.1", f"10.60.7.{vm_id - 900}")
    return {f"rogue, {name}": (ROGUE, frame, NOBODY) for name, frame in frames.items()}


@pytest.mark.parametrize("closed", [True, False])
def test_what_comes_by_the_trunk_in_vlan_400_is_heard_from_the_services_only(closed: bool) -> None:
    assert outcomes(wire(closed), rogue_cases()) == expected(rogue_cases())


def test_a_nic_without_an_address_may_ask_for_one_only() -> None:
    way = rules.services(host(WORKER), FACTS, SETTINGS)
    me = mac(1001, 0)
    switch = Switch({"trunk0": None, "t": 400}, isolation.internet_nic(isolation.Nic(device="t", mac=me), way))
    asked = list(switch.forwards("t", dhcp(me, EVERYBODY, "0.0.0.0", "255.255.255.255")))
    assert [(port, frame.tag) for port, frame in asked] == [("trunk0", 400)]
    assert list(switch.forwards("t", arp(me, "10.60.7.101", "10.60.7.1"))) == []
    assert list(switch.forwards("t", ip(me, GATEWAY, "10.60.7.101", "198.51.100.7"))) == []


# ---------------------------------------------------------------------------------------- links


def link_cases(vm_id: int) -> dict[str, Case]:
    """What a guest sends into its link."""
    me, mine, device = mac(vm_id, 1), f"192.168.100.{vm_id - 900}", eth1(vm_id)
    peer = 1002 if vm_id == 1001 else 1001
    its, its_ip = mac(peer, 1), f"192.168.100.{peer - 900}"
    gateway = service_mac(OURS, "gw_vlan100")
    local = isolation.link_local(me)
    solicits, advertises = {"icmp_type": "135"}, {"icmp_type": "136"}
    others = ON_LINK - {device}
    allowed = {
        "ARP": arp(me, mine, its_ip),
        "ARP probe": arp(me, "0.0.0.0", mine),
        "ARP of one more address": arp(me, "192.168.100.77", its_ip),
        "IPv4": ip(me, its, mine, its_ip),
        "IPv4 from one more address": ip(me, its, "172.16.0.9", its_ip),
        "routing protocol": ip(me, GROUP, mine, "224.0.0.5"),
        "broadcast": ip(me, EVERYBODY, mine, "255.255.255.255", "udp", tp_src=520, tp_dst=520),
        "DHCP, asking": dhcp(me, EVERYBODY, "0.0.0.0", "255.255.255.255"),
        "IPv6": ip6(me, its, "2001:db8::1"),
        "router advertisement": ip6(me, "33:33:00:00:00:01", local, "icmp6", icmp_type="134"),
        "solicitation": ip6(me, "33:33:ff:00:00:01", local, "icmp6", nd_sll=me, **solicits),
        "solicitation without a MAC": ip6(me, "33:33:ff:00:00:01", "::", "icmp6", **solicits),
        "advertisement": ip6(me, its, local, "icmp6", nd_target=local, nd_tll=me, **advertises),
        "advertisement without a MAC": ip6(me, its, local, "icmp6", nd_target=local, **advertises),
        "neither ARP nor IP": Frame("other", me, EVERYBODY),
    }
    spoofed = {
        "ARP in a neighbour's name": arp(me, its_ip, mine),
        "ARP in the gateway's name": arp(me, "192.168.100.1", mine),
        "ARP in the server's name": arp(me, "192.168.100.2", mine),
        "ARP with a neighbour's MAC inside": arp(me, mine, its_ip, sha=its),
        "IPv4 from a neighbour's address": ip(me, gateway, its_ip, "192.168.100.1"),
        "IPv4 from the gateway's address": ip(me, its, "192.168.100.1", its_ip),
        "IPv4 from the server's address": ip(me, its, "192.168.100.2", its_ip),
        "DHCP answer": dhcp(me, EVERYBODY, mine, "255.255.255.255", answers=True),
        "IPv6 from a neighbour's address": ip6(me, gateway, isolation.link_local(its)),
        "IPv6 from the gateway's address": ip6(me, its, isolation.link_local(gateway)),
        "advertisement of a neighbour": ip6(
            me, its, local, "icmp6", nd_target=isolation.link_local(its), nd_tll=me, **advertises
        ),
        "advertisement with a neighbour's MAC": ip6(me, its, local, "icmp6", nd_target=local, nd_tll=its, **advertises),
        "solicitation with a neighbour's MAC": ip6(me, its, local, "icmp6", nd_sll=its, **solicits),
    }
    bridged = {
        "from a neighbour's MAC": ip(its, gateway, mine, "192.168.100.1"),
        "from a strange MAC": ip(STRANGE, its, "172.16.0.9", its_ip),
        "ARP from a strange MAC": arp(STRANGE, "192.168.100.88", its_ip),
    }
    bridges = {f"BPDU {last}": Frame("other", me, f"{BPDU[:-1]}{last}") for last in "02e"}
    tagged = {f"tag {tag}": Frame("ip", me, its, tag) for tag in (0, 7, 101)}
    return {
        **{name: (device, frame, others) for name, frame in allowed.items()},
        **{f"spoofing: {name}": (device, frame, NOBODY) for name, frame in spoofed.items()},
        **{f"bridging: {name}": (device, frame, NOBODY) for name, frame in bridged.items()},
        **{f"vlans: {name}": (device, frame, NOBODY) for name, frame in tagged.items()},
        **{f"bridges: {name}": (device, frame, NOBODY) for name, frame in bridges.items()},
    }


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("vm_id", PLACES)
def test_a_link_is_plain_ethernet_and_nobody_is_taken_for_another(vm_id: int, closed: bool) -> None:
    cases = link_cases(vm_id)
    assert outcomes(wire(closed), cases) == expected(cases)


def verdicts(vm_id: int, **switches: str) -> set[str]:
    """Which of the forbidden frames somebody hears."""
    on = wire(slice_=record(**switches))
    forbidden = {name: case for name, case in link_cases(vm_id).items() if case[2] == NOBODY}
    return {name for name, (device, frame, _) in forbidden.items() if on.hears(device, frame)}


@pytest.mark.parametrize("vm_id", PLACES)
@pytest.mark.parametrize("key", ["spoofing", "bridging", "vlans"])
def test_each_switch_of_a_link_opens_what_it_says_and_nothing_else(key: str, vm_id: int) -> None:
    assert verdicts(vm_id) == set()
    opened = {name for name in link_cases(vm_id) if name.startswith(f"{key}: ")}
    if key == "bridging":
        opened |= {name for name in link_cases(vm_id) if name.startswith("bridges: ")}
    if key == "bridging":  # behind a bridge are others: whose MAC is in ARP and ND cannot be told
        opened |= {name for name in link_cases(vm_id) if "MAC inside" in name or "a neighbour's MAC" in name}
    assert verdicts(vm_id, **{key: "allowed"}) == opened
    assert verdicts(vm_id, **{key: "forbidden"}) == set()


ENDS = frozenset(map(eth1, PLACES))


@pytest.mark.parametrize("vlans", ["forbidden", "allowed"])
@pytest.mark.parametrize("last", "02ef")
@pytest.mark.parametrize("vm_id", PLACES)
def test_bridges_own_frames_reach_all_other_guests_of_the_link_as_they_were(vm_id: int, last: str, vlans: str) -> None:
    frame = Frame("other", STRANGE, f"{BPDU[:-1]}{last}")
    copies = wire(slice_=record(bridging="allowed", vlans=vlans)).copies(eth1(vm_id), frame)
    assert copies == dict.fromkeys(ENDS - {eth1(vm_id)}, frame)


def test_between_hosts_bridges_own_frames_are_nobodys_and_in_the_links_vlan() -> None:
    """A switch there would take them for its own, or block the port of a host that sends them."""
    frame = Frame("other", STRANGE, f"{BPDU[:-1]}2")
    (out,) = wire(slice_=record(bridging="allowed")).on_trunk(eth1(1001), frame)
    assert (out.tag, out.inner, out.dst) == (100, (), "03:43:52:00:00:02")
    assert out.dst[1] == "3", "a group address under local administration (IEEE 802, 8.2)"


@pytest.mark.parametrize("tag", [7, 100, 4094])
@pytest.mark.parametrize("vm_id", PLACES)
def test_guests_tags_are_carried_in_the_links_own(vm_id: int, tag: int) -> None:
    on = wire(slice_=record(vlans="allowed"))
    frame = Frame("ip", mac(vm_id, 1), EVERYBODY, tag, {"nw_src": "172.16.0.1", "nw_dst": "172.16.0.2"})
    assert on.copies(eth1(vm_id), frame) == dict.fromkeys(ON_LINK - {eth1(vm_id)}, frame)
    (out,) = on.on_trunk(eth1(vm_id), frame)
    assert (out.tag, out.inner) == (100, (tag,))
    bare = frame.tagged(None)
    assert on.copies(eth1(vm_id), bare) == dict.fromkeys(ON_LINK - {eth1(vm_id)}, bare)


def test_no_way_of_bridges_own_frames_is_idle() -> None:
    on = wire(slice_=record(bridging="allowed"))
    frame = Frame("other", STRANGE, BPDU)

    def heard() -> dict[int, dict[str, Frame]]:
        return {vm_id: on.copies(eth1(vm_id), frame) for vm_id in PLACES}

    whole = heard()
    ways = [one for one in without_one(on, is_drop=False) if "01:80" in one[1][1] or "03:43" in one[1][1]]
    assert len(ways) == len(PLACES) + 3
    for address, way in ways:
        flows = on.hosts[address].flows
        on.hosts[address].flows = [one for one in flows if one != way]
        assert heard() != whole, way
        on.hosts[address].flows = flows


def test_a_guest_may_serve_dhcp_where_nobody_else_does() -> None:
    nic = isolation.Nic(device="t", mac=mac(1001, 1))
    answer = dhcp(nic.mac, EVERYBODY, "192.168.100.9", "255.255.255.255", answers=True)
    for serves in (True, False):
        flows = isolation.link_nic(nic, (), isolation.Switches(), serves_dhcp=serves)
        heard = list(Switch({"t": 100, "u": 100}, flows).forwards("t", answer))
        assert bool(heard) is not serves


def test_links_do_not_hear_one_another_nor_vlan_400() -> None:
    frames = [arp(mac(1001, 1), "192.168.100.101", "10.60.7.1"), Frame("other", mac(1001, 1), EVERYBODY)]
    for frame in frames:
        assert wire().hears(eth1(1001), frame) == ON_LINK - {eth1(1001)}


# ---------------------------------------------------------------------------------------- nothing is idle


def all_cases() -> dict[str, Case]:
    cases = {f"{vm_id} {name}": case for vm_id in PLACES for name, case in internet_cases(vm_id).items()}
    cases |= {f"link {vm_id} {name}": case for vm_id in PLACES for name, case in link_cases(vm_id).items()}
    from_link = [
        ("gw_vlan100", arp(service_mac(OURS, "gw_vlan100"), "192.168.100.1", "192.168.100.101")),
        ("dhcp_v100", arp(service_mac(OURS, "dhcp_v100"), "192.168.100.2", "192.168.100.101")),
    ]
    cases |= {f"from {device}": (device, frame, ON_LINK - {device}) for device, frame in from_link}
    for one in PLACES:  # every claim that is held, of every other one
        for other in PLACES:
            if one != other:
                cases |= {f"{one} {name}": case for name, case in _claims(one, other).items()}
        for service, address in (("gw_vlan100", "192.168.100.1"), ("dhcp_v100", "192.168.100.2")):
            cases |= {
                f"{one} as {service} {name}": case
                for name, case in _claim(one, service_mac(OURS, service), address).items()
            }
    return {**cases, **services_cases(), **rogue_cases()}


def _claims(one: int, other: int) -> dict[str, Case]:
    return {
        f"as {other} {name}": case for name, case in _claim(one, mac(other, 1), f"192.168.100.{other - 900}").items()
    }


def _claim(one: int, its: str, its_ip: str) -> dict[str, Case]:
    me, local = mac(one, 1), isolation.link_local(its)
    frames = {
        "ARP": arp(me, its_ip, "192.168.100.9"),
        "IPv4": ip(me, EVERYBODY, its_ip, "192.168.100.9"),
        "IPv6": ip6(me, EVERYBODY, local),
        "ND": ip6(me, EVERYBODY, isolation.link_local(me), "icmp6", icmp_type="136", nd_target=local, nd_tll=me),
    }
    return {name: (eth1(one), frame, NOBODY) for name, frame in frames.items()}


def without_one(on: Wire, is_drop: bool) -> Iterator[tuple[str, Flow]]:
    """By host, each flow in turn, while it is away."""
    for address, switch in on.hosts.items():
        whole = list(switch.flows)
        for one in whole:
            if one != BUILT_IN and not one[1].startswith("metadata=") and (one[2] == "drop") is is_drop:
                switch.flows = [each for each in whole if each != one]
                yield address, one
        switch.flows = whole


@pytest.mark.parametrize("is_drop", [True, False], ids=["drops, on an open bridge", "ways, on a closed bridge"])
def test_without_any_single_flow_something_is_heard_that_was_not_or_the_other_way_round(is_drop: bool) -> None:
    on, cases = wire(closed=not is_drop), all_cases()
    whole = outcomes(on, cases)
    assert is_drop or whole == expected(cases)
    idle = [(address, one) for address, one in without_one(on, is_drop) if not _differs(on, cases, whole)]
    assert idle == []


def _differs(on: Wire, cases: Mapping[str, Case], whole: Mapping[str, frozenset[str]]) -> bool:
    return any(on.hears(device, frame) != whole[name] for name, (device, frame, _) in cases.items())


# ---------------------------------------------------------------------------------------- records


def kinds(found: Iterable[Any]) -> list[str]:
    return [type(one).__name__ for one in found]


def test_a_bridge_is_closed_where_a_slice_has_ports_and_nobody_else_would_miss_it() -> None:
    def shared(facts: HostFacts = FACTS, address: str = WORKER, slices: Any = None) -> list[str]:
        return kinds(rules.shared_flows(host(address), facts, SETTINGS, [record()] if slices is None else slices))

    assert shared() == shared(address=NODE) == ["Closure", "Flows"]
    assert shared(address="10.0.10.9") == shared(slices=[]) == []
    assert shared(HostFacts(uplinks=("a", "b"))) == shared(HostFacts(uplinks=("a",), is_shared=True)) == ["Flows"]
    assert shared(HostFacts(uplinks=("a", "b"), is_shared=True, is_closed=True)) == ["Closure", "Flows"]


def test_why_a_bridge_cannot_be_closed_is_said() -> None:
    assert rules.why_open(HostFacts(uplinks=("a", "b"))) == "it has more than one uplink (a, b)"
    assert rules.why_open(HostFacts(uplinks=("a",), is_shared=True)).startswith("others use it too")
    assert rules.why_open(HostFacts(uplinks=("a", "b"), is_shared=True, is_closed=True)) == ""
    assert rules.why_open(HostFacts(uplinks=("a",))) == rules.why_open(HostFacts()) == ""


def test_the_mark_of_a_bridge_that_was_closed_before_us_says_so() -> None:
    for was_closed in (True, False):
        facts = HostFacts(uplinks=("a",), is_closed=True, was_closed=was_closed)
        closure = rules.shared_flows(host(), facts, SETTINGS, [record()])[0]
        assert isinstance(closure, Closure) and closure.stays is was_closed


def test_a_machine_that_does_not_run_has_no_flows() -> None:
    assert rules.slice_flows(host(WORKER), FACTS, SETTINGS, record(), []) == []
    (one,) = rules.slice_flows(host(WORKER), FACTS, SETTINGS, record(), [1001])
    assert isinstance(one, Flows) and not [flow for flow in one.flows if "tap_1002" in flow[1]]
