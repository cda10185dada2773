"""Each lab of `examples/` teaches what it says: seen in its guests."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from on_lab.cluster import Cluster, wait_until
from on_lab.example_labs import lab_of

pytestmark = pytest.mark.lab

PORTS = "for port in /sys/class/net/br0/brif/*; do echo ${port##*/} $(cat $port/state); done"
PORT = "cat /sys/class/net/{}/brport/port_no"
FORWARDING, BLOCKING = "3", "4"


@pytest.fixture(scope="module")
def cluster(module_clusters: Callable[..., Cluster]) -> Cluster:
    return module_clusters()


@pytest.mark.cost(seconds=15)
def test_two_hosts_learn_each_others_mac_and_answer(cluster: Cluster) -> None:
    with lab_of(cluster, "two-hosts") as lab:
        addresses = {name: lab.address(name, "eth1") for name in ("a", "b")}
        lab.wait("a", f"ping -c 1 -W 2 {addresses['b']}", lambda out: "1 packets received" in out)
        assert lab.mac("b", "eth1") in lab.said("a", f"ip neigh show {addresses['b']} dev eth1")
        assert lab.mac("a", "eth1") in lab.said("b", f"ip neigh show {addresses['a']} dev eth1")


@pytest.mark.cost(seconds=20)
def test_static_routing_goes_by_the_router_and_only_with_a_route(cluster: Cluster) -> None:
    with lab_of(cluster, "static-routing") as lab:
        lab.wait_for_start()
        lab.wait("left", "ping -c 1 -W 2 10.0.2.2", lambda out: "ttl=63" in out)
        hops = lab.said("left", "traceroute -n -q 1 -w 3 10.0.2.2")
        assert [line.split()[1] for line in hops.splitlines()[1:]] == ["10.0.1.1", "10.0.2.2"], hops
        lab.said("left", "ip route del 10.0.2.0/24")
        assert lab.run("left", "ping -c 1 -W 2 10.0.2.2")[0] != 0
        lab.said("left", "ip route add 10.0.2.0/24 via 10.0.1.1")
        lab.said("router", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        assert lab.run("left", "ping -c 1 -W 2 10.0.2.2")[0] != 0, "a machine that does not forward is no router"


@pytest.mark.cost(seconds=20)
def test_alice_believes_mallory_as_long_as_the_network_lets_her(cluster: Cluster) -> None:
    with lab_of(cluster, "arp-spoofing") as lab:
        bob = lab.address("bob", "eth1")
        lab.address("alice", "eth1")
        seen = f"ip neigh show {bob} dev eth1"
        lie = f"ip addr add {bob}/32 dev eth1; arping -U -c 2 -I eth1 {bob}; ip addr del {bob}/32 dev eth1; true"

        def ask() -> None:
            lab.said("alice", "ip neigh flush dev eth1")
            lab.wait("alice", f"ping -c 1 -W 2 {bob}", lambda out: "1 packets received" in out)
            assert lab.mac("bob", "eth1") in lab.said("alice", seen)

        lab.address("mallory", "eth1")
        ask()
        lab.wait("mallory", lie, lambda _: lab.mac("mallory", "eth1") in lab.said("alice", seen))
        cluster.ok("set_link", "admin", lab.slice_id, 1, spoofing="forbidden")
        ask()
        lab.said("mallory", lie)
        assert lab.mac("bob", "eth1") in lab.said("alice", seen), "the network drops what is not hers to say"


@pytest.mark.cost(seconds=50)
def test_stp_blocks_one_port_of_the_ring_and_opens_it_when_another_one_goes(cluster: Cluster) -> None:
    with lab_of(cluster, "stp-ring") as lab:
        lab.wait_for_start()
        switches = ("sw1", "sw2", "sw3")

        def states() -> dict[str, str]:
            lines = [(name, *line.split()) for name in switches for line in _lines(lab.said(name, PORTS))]
            return {f"{name} {port}": state for name, port, state in lines}

        def are(*expected: str) -> bool:
            return sorted(states().values()) == sorted(expected)

        lab.wait("sw1", "true", lambda _: are(*[FORWARDING] * 5, BLOCKING))
        root = {lab.said(name, "cat /sys/class/net/br0/bridge/root_id") for name in switches}
        assert root == {lab.said("sw1", "cat /sys/class/net/br0/bridge/bridge_id")}, "all agree on the root"
        (blocked,) = [port for port, state in states().items() if state == BLOCKING]
        assert not blocked.startswith("sw1"), "the root blocks nothing"
        lab.said("sw1", "brctl delif br0 eth1")
        lab.wait("sw1", "true", lambda _: states().get(blocked) == FORWARDING)
        assert BLOCKING not in states().values()


@pytest.mark.cost(seconds=25)
def test_the_switch_of_the_star_learns_behind_which_port_a_mac_is(cluster: Cluster) -> None:
    with lab_of(cluster, "star-switch") as lab:
        lab.wait_for_start()
        with lab.heard_by("h2", "eth1") as at_h2:
            lab.wait("h1", "ping -c 3 -W 2 10.0.4.3", lambda out: "3 packets received" in out)
            wait_until(lambda: any(_is_question(one, "10.0.4.3") for one in at_h2()), 30, "who has it, h2 is asked too")
            assert not any(_is_echo(one) for one in at_h2()), "what is for h3 alone, h2 does not hear"
        table = lab.said("switch", "brctl showmacs br0")
        ports = {mac: int(port) for port, mac, *_ in map(str.split, _lines(table)[1:])}
        for host, card in (("h1", "eth1"), ("h3", "eth3")):
            assert ports[lab.mac(host, "eth1")] == int(lab.said("switch", PORT.format(card)), 16), table
        lab.said("switch", "brctl delif br0 eth3")
        assert lab.run("h1", "ping -c 2 -W 2 10.0.4.3")[0] != 0, "h3's cable leads to no switch"
        assert lab.said("h1", "ping -c 1 -W 5 10.0.4.2"), "the other port is as it was"
        lab.said("switch", "brctl addif br0 eth3")
        lab.wait("h1", "ping -c 1 -W 2 10.0.4.3")


@pytest.mark.cost(seconds=35)
def test_the_trunk_carries_two_vlans_and_keeps_them_apart(cluster: Cluster) -> None:
    with lab_of(cluster, "vlan-trunk") as lab:
        lab.wait_for_start()
        with lab.heard_by("sw2", "eth3") as on_trunk:
            lab.wait("a1", "ping -c 1 -W 2 10.0.5.2")
            lab.wait("b1", "ping -c 1 -W 2 10.0.5.4")
            tags = {one[6:12].hex(":"): one[12:16].hex() for one in on_trunk() if _is_echo(one[4:])}
        assert tags == {lab.mac("a1", "eth1"): "8100000a", lab.mac("b1", "eth1"): "81000014"}, (
            "each with its VLAN's tag"
        )
        assert lab.run("a1", "ping -c 1 -W 3 10.0.5.4")[0] != 0, "another VLAN"
        assert lab.run("b1", "ping -c 1 -W 3 10.0.5.2")[0] != 0
        counted = "ifconfig eth3.10 | sed -n 's/.*RX packets:\\([0-9]*\\).*/\\1/p'"
        assert int(lab.said("sw2", counted)) > 0, "the sheet says where to look"


def _is_question(frame: bytes, address: str) -> bool:
    """Whether it asks who has an address (RFC 826)."""
    return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == socket.inet_aton(address)


def _is_echo(frame: bytes) -> bool:
    """Whether it is a ping (RFC 792)."""
    return frame[12:14] == b"\x08\0" and frame[23] == socket.IPPROTO_ICMP and frame[34] == 8


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
