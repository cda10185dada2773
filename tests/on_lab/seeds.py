"""Faults for `verify` to find, each seeded on hosts of the lab and taken back. Words for hosts, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from on_lab.cluster import NETWORK_NODE, Cluster, Record

Words = tuple[str, ...]
BRIDGE = "br-int"
UPLINK = "eth2"  # the network node's, in the lab

#: A DHCP server of nobody's, in a namespace of its own on somebody's port.
ROGUE = """
ip netns add rogue
ovs-vsctl --timeout=20 add-port br-int rogue0 tag=$1 -- set Interface rogue0 type=internal
ip link set rogue0 netns rogue
ip -n rogue address add $2.250/24 dev rogue0
ip -n rogue link set rogue0 up
ovs-ofctl add-flow br-int cookie=0x77,priority=5000,in_port=rogue0,actions=NORMAL
ip netns exec rogue dnsmasq --conf-file=/dev/null --port=0 --no-ping --interface=rogue0 --bind-interfaces \
    --dhcp-range=$2.200,$2.240 --dhcp-leasefile=/run/rogue.leases --pid-file=/run/rogue.pid --user=root
"""
ROGUE_ENDS = """
kill $(cat /run/rogue.pid)
ovs-vsctl --timeout=20 del-port br-int rogue0
ovs-ofctl del-flows br-int cookie=0x77/-1
ip netns delete rogue
rm -f /run/rogue.leases /run/rogue.pid
"""
DOUBLE = """
ovs-vsctl --timeout=20 add-port br-int double0 tag=$1 -- set Interface double0 type=internal mac=\\"$2\\"
ip link set double0 address $2 up
ovs-ofctl add-flow br-int cookie=0x77,priority=5000,in_port=double0,actions=NORMAL
"""
DOUBLE_ENDS = """
ovs-vsctl --timeout=20 del-port br-int double0
ovs-ofctl del-flows br-int cookie=0x77/-1
"""
SERVER = 'for one in /run/cloudrepo-*/dhcp-$1; do kill -$2 "$(cat "$one/pid")"; done'


@dataclass(frozen=True, kw_only=True)
class End:
    """A NIC as hosts know it."""

    host: str
    tap: str
    mac: str
    vlan: int


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A fault.

    Attributes:
        host: where it is.
        wrong, right: what is done there, and what takes it back; each a list of words.
        named: what one of the violations must say (a pattern).
        hop: where it breaks, as that violation says (a pattern).
        concerned: NICs, services or devices of which each violation must name one.
        drifts: it is taken back by `drift --fix` instead.
    """

    host: str
    wrong: tuple[Words, ...]
    right: tuple[Words, ...] = ()
    named: str
    hop: str
    concerned: tuple[str, ...]
    drifts: bool = False


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Slice one: `a`, `b`, `c` in a line, each on a host of its own, with internet; slice two: `d`, `e`, linked."""

    cluster: Cluster
    one: Record
    two: Record

    def end(self, name: str, interface: str) -> End:
        """A NIC."""
        vm = self.cluster.vm({**self.one, **self.two}[name])
        record = next(one for one in vm["interfaces"] if one["name"] == interface)
        return End(
            host=str(vm["worker_ip"]),
            tap=f"tap_{vm['vm_id']}_{interface}",
            mac=str(record["mac"]),
            vlan=int(record["vlan_id"]),
        )

    def do(self, host: str, words: tuple[Words, ...]) -> None:
        """Run words on a host, one list after another."""
        for one in words:
            self.cluster.host(host, *one)


def _port(tap: str, *words: str) -> Words:
    return ("ovs-vsctl", "--timeout=20", *words[:1], "port", tap, *words[1:])


def _tag(end: End, vlan: int) -> Words:
    return _port(end.tap, "set", f"tag={vlan}")


def _script(text: str, *words: str) -> Words:
    return ("sh", "-ec", text, "sh", *words)


def untagged(lesson: Lesson) -> Seed:
    """A port without a tag is a trunk: it hears everybody."""
    end = lesson.end("a", "eth1")
    return Seed(
        host=end.host,
        wrong=(_port(end.tap, "clear", "tag"),),
        right=(_tag(end, end.vlan),),
        named=f"reaches a:eth1 and must not .*{end.tap} on {end.host}",
        hop=rf"port {end.tap} on {end.host}: it has no tag",
        concerned=("a:eth1",),
    )


def wrong_tag(lesson: Lesson) -> Seed:
    """A port with the tag of nobody."""
    end = lesson.end("a", "eth1")
    return Seed(
        host=end.host,
        wrong=(_tag(end, 999),),
        right=(_tag(end, end.vlan),),
        named="a:eth1 does not reach b:eth1",
        hop=rf"port {end.tap} on {end.host}: its tag is 999, and should be {end.vlan}",
        concerned=("a:eth1",),
    )


def foreign_slice(lesson: Lesson) -> Seed:
    """A port with the tag of somebody else's link."""
    end, other = lesson.end("a", "eth1"), lesson.end("d", "eth1")
    return Seed(
        host=end.host,
        wrong=(_tag(end, other.vlan),),
        right=(_tag(end, end.vlan),),
        named="d:eth1 reaches a:eth1 and must not",
        hop=rf"port {end.tap} on {end.host}: its tag is {other.vlan}, and should be {end.vlan}",
        concerned=("a:eth1",),
    )


def missing_trunk_vlan(lesson: Lesson) -> Seed:
    """The way between hosts carries all VLANs but one."""
    end = lesson.end("a", "eth1")
    others = {lesson.end("c", "eth1").vlan, lesson.end("d", "eth1").vlan, 400}
    return Seed(
        host=end.host,
        wrong=(_port("eth1", "set", f"trunks={','.join(map(str, sorted(others)))}"),),
        right=(_port("eth1", "clear", "trunks"),),
        named="a:eth1 does not reach b:eth1",
        hop=rf"uplink eth1 on {end.host}: it does not carry VLAN {end.vlan}",
        concerned=("a:eth1", f"VLAN {end.vlan}"),
    )


def second_server(lesson: Lesson) -> Seed:
    """Somebody's own DHCP server on a link."""
    end = lesson.end("d", "eth1")
    server = _subnet(lesson, end.vlan)
    return Seed(
        host=end.host,
        wrong=(_script(ROGUE, str(end.vlan), server),),
        right=(_script(ROGUE_ENDS),),
        named=rf"a second DHCP server \({server}\.250, MAC .*\) offers d:eth1",
        hop=rf"rogue0 on {end.host}, in namespace rogue",
        concerned=("rogue0", "second DHCP server"),
    )


def _subnet(lesson: Lesson, vlan: int) -> str:
    """The first three numbers of a link's subnet."""
    for record in lesson.cluster.api.db.list_slices():
        for link in record["links"]:
            if link["vlan_id"] == vlan:
                return str(link["gateway_ip"]).rpartition(".")[0]
    raise AssertionError(vlan)


def swapped(lesson: Lesson) -> Seed:
    """Two NICs of a machine on each other's wire."""
    first, second = lesson.end("b", "eth1"), lesson.end("b", "eth2")
    return Seed(
        host=first.host,
        wrong=(_tag(first, second.vlan), _tag(second, first.vlan)),
        right=(_tag(first, first.vlan), _tag(second, second.vlan)),
        named="a:eth1 reaches b:eth2 and must not",
        hop=rf"port {second.tap} on {second.host}: its tag is {first.vlan}, and should be {second.vlan}",
        concerned=("b:eth1", "b:eth2"),
    )


def small_mtu(lesson: Lesson) -> Seed:
    """The way between hosts does not carry a full frame."""
    end = lesson.end("a", "eth1")
    return Seed(
        host=end.host,
        wrong=(("ip", "link", "set", "eth1", "mtu", "1200"),),
        right=(("ip", "link", "set", "eth1", "mtu", "1500"),),
        named=r"a:eth1 does not reach b:eth1 \(broadcast of full size",
        hop=rf"uplink eth1 on {end.host}: its MTU is 1200",
        concerned=("of full size",),
    )


def dead_tap(lesson: Lesson) -> Seed:
    """A TAP that was switched off."""
    end = lesson.end("e", "eth0")
    return Seed(
        host=end.host,
        wrong=(("ip", "link", "set", end.tap, "down"),),
        right=(("ip", "link", "set", end.tap, "up"),),
        named="d:eth1 does not reach e:eth0",
        hop=rf"TAP {end.tap} on {end.host}: it is switched off",
        concerned=("e:eth0",),
    )


def wide_nat(lesson: Lesson) -> Seed:
    """A translation of whatever leaves."""
    rule = ("POSTROUTING", "-o", UPLINK, "-j", "MASQUERADE")
    return Seed(
        host=NETWORK_NODE,
        wrong=(("iptables", "-t", "nat", "-I", *rule),),
        right=(("iptables", "-t", "nat", "-D", *rule),),
        named="NAT is wider than VLAN 400: what 10.60.8.0 sends leaves eth2",
        hop=rf"NAT rules of {NETWORK_NODE}",
        concerned=("NAT is wider",),
    )


def route_to_management(lesson: Lesson) -> Seed:
    """The network node forwards guests to the hosts."""
    rule = ("FORWARD", "-i", "gw_vlan400", "-d", "10.0.10.0/24", "-j", "ACCEPT")
    return Seed(
        host=NETWORK_NODE,
        wrong=(("iptables", "-I", *rule),),
        right=(("iptables", "-D", *rule),),
        named="a:eth0 reaches eth0 of 10.0.10.1 and must not .IPv4 to the host 10.0.10.1",
        hop=rf"forwarding of 10.0.10.1|forwarding of {NETWORK_NODE}",
        concerned=("IPv4 to the host",),
    )


def denied_network(lesson: Lesson) -> Seed:
    """The network node forwards guests to a network that the settings deny."""
    rule = ("FORWARD", "-i", "gw_vlan400", "-d", "169.254.0.0/16", "-j", "ACCEPT")
    return Seed(
        host=NETWORK_NODE,
        wrong=(("iptables", "-I", *rule),),
        right=(("iptables", "-D", *rule),),
        named=r"a:eth0 reaches .* and must not .IPv4 to 169\.254\.0\.1 in 169\.254\.0\.0/16, which is denied",
        hop=rf"forwarding of {NETWORK_NODE}",
        concerned=("which is denied",),
    )


def missing_flow(lesson: Lesson) -> Seed:
    """One flow is gone: that by which a NIC is heard."""
    end = lesson.end("a", "eth1")
    flow = f"priority=200,in_port={end.tap},dl_src={end.mac}"
    return Seed(
        host=end.host,
        wrong=(("ovs-ofctl", "-O", "OpenFlow13", "--strict", "del-flows", BRIDGE, flow),),
        named="a:eth1 does not reach b:eth1",
        hop=rf"flows br-int on {end.host}: it is dropped by the flow priority 10",
        concerned=("a:eth1",),
        drifts=True,
    )


def foreign_flow(lesson: Lesson) -> Seed:
    """Somebody's own flow switches VLAN 400 on a host: neighbours hear each other."""
    end = lesson.end("a", "eth0")
    flow = f"cookie=0x77,priority=5000,in_port={end.tap},actions=NORMAL"
    return Seed(
        host=end.host,
        wrong=(("ovs-ofctl", "add-flow", BRIDGE, flow),),
        right=(("ovs-ofctl", "del-flows", BRIDGE, "cookie=0x77/-1"),),
        named="a:eth0 reaches .* and must not",
        hop=rf"flows on {end.host}: priority 5000, .* lets it through|is no slice's",
        concerned=("a:eth0",),
    )


def flushed(lesson: Lesson) -> Seed:
    """All flows of a host are gone. The bridge is closed: what has no rule reaches nobody."""
    end = lesson.end("a", "eth1")
    return Seed(
        host=end.host,
        wrong=(("ovs-ofctl", "del-flows", BRIDGE),),
        named="a:eth1 does not reach b:eth1",
        hop=rf"flows br-int on {end.host}: no flow is for it",
        concerned=("does not reach", "offers", "does not answer"),
        drifts=True,
    )


def double_mac(lesson: Lesson) -> Seed:
    """Somebody's port has the MAC of a NIC on its wire."""
    end = lesson.end("d", "eth1")
    return Seed(
        host=end.host,
        wrong=(_script(DOUBLE, str(end.vlan), end.mac),),
        right=(_script(DOUBLE_ENDS),),
        named=f"double0 on {end.host} has the MAC {end.mac} of d:eth1",
        hop=rf"on {end.host}",
        concerned=("double0", "d:eth1"),
    )


def stopped_server(lesson: Lesson) -> Seed:
    """A DHCP server that is there and does nothing."""
    vlan = str(lesson.end("a", "eth1").vlan)
    return Seed(
        host=NETWORK_NODE,
        wrong=(_script(SERVER, vlan, "STOP"),),
        right=(_script(SERVER, vlan, "CONT"),),
        named=f"the DHCP server of VLAN {vlan} offers a:eth1 no address",
        hop=rf"dnsmasq in ns-dhcp-vlan{vlan} on {NETWORK_NODE}, process \d+, is stopped",
        concerned=(f"the DHCP server of VLAN {vlan}",),
    )


SEEDS: dict[str, Callable[[Lesson], Seed]] = {
    "untagged port": untagged,
    "wrong tag": wrong_tag,
    "missing trunk VLAN": missing_trunk_vlan,
    "second DHCP server": second_server,
    "swapped NICs": swapped,
    "small MTU": small_mtu,
    "dead TAP": dead_tap,
    "NAT too wide": wide_nat,
    "route to management": route_to_management,
    "denied network": denied_network,
    "missing flow": missing_flow,
    "flow of somebody else": foreign_flow,
    "flow table flushed": flushed,
    "duplicate MAC": double_mac,
    "port of a foreign slice": foreign_slice,
    "stopped dnsmasq": stopped_server,
}
