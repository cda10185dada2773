"""Drift on real hosts: what was changed behind our back is found and named, set right, and nobody else's is touched.

Two slices are deployed once. Many things befall many objects, then one look must name each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from control.processes import begin_work, end_work, this_process
from lab.cluster import Lab
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record
from on_lab.drifts import Deployed, Drift, befall
from on_lab.faults import cut_off

pytestmark = pytest.mark.lab

#: Things of nobody, and of another installation, on the network node; and how to tell whether they are as they were.
STRANGERS = """
ip tuntap add dev foreign0 mode tap; ip link set dev foreign0 alias "keep me"
ip netns add ns-dhcp-vlan999; ip -n ns-dhcp-vlan999 link add keep0 type veth peer name keep1
ovs-vsctl add-port br-int strange0 tag=7 -- set interface strange0 type=internal -- set port strange0 external_ids:x=y
iptables -N CR-0000beef-FORWARD; iptables -A CR-0000beef-FORWARD -i nobody0 -j DROP
mkdir -p /run/cloudrepo-0000beef/vm-7; echo theirs > /run/cloudrepo-0000beef/vm-7/mark
ip -n INSIDE link add guest0 type veth peer name guest1
ip link add stray0 type veth peer name stray1; ip link set dev stray0 alias WRONG
"""
DESCRIBED = """
ip -o -d link show foreign0; ip -o -d link show stray0; ip -n ns-dhcp-vlan999 -o link; ip -n INSIDE -o link show guest0
ovs-vsctl --columns=name,tag,external_ids list port strange0
iptables-save | grep 0000beef; ls -lR --full-time /run/cloudrepo-0000beef; cat /run/cloudrepo-0000beef/vm-7/mark
"""
TAKEN_AWAY = """
ip link delete foreign0; ip link delete stray0; ip -n INSIDE link delete guest0 || true; ip netns delete ns-dhcp-vlan999
iptables -D FORWARD -i nobody0 -j ACCEPT; ovs-vsctl del-port strange0
iptables -F CR-0000beef-FORWARD; iptables -X CR-0000beef-FORWARD
rm -r /run/cloudrepo-0000beef
"""
IN_FRONT = "FORWARD -i nobody0 -j ACCEPT"
PAUSE = """python3 - DIR <<'X'
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1] + "/qmp.sock"); f = s.makefile("rw"); f.readline()
for word in ("qmp_capabilities", "stop"):
    f.write(json.dumps({"execute": word})); f.flush(); f.readline()
X"""
BY_HAND = """ip tuntap add dev byhand0 mode tap; python3 - PID TAP <<'X'
import os, subprocess, sys, time
pid, tap = int(sys.argv[1]), sys.argv[2]
words = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
os.kill(pid, 9)
while os.path.exists(f"/proc/{pid}/cmdline") and open(f"/proc/{pid}/cmdline").read(): time.sleep(0.05)
words = [word.replace(tap, "byhand0") for word in words]
void = subprocess.DEVNULL
subprocess.Popen(words, stdin=void, stdout=void, stderr=void, start_new_session=True); time.sleep(1)
X"""


@dataclass
class Scene:
    """Two deployed slices, and their objects by name."""

    cluster: Cluster
    a: Deployed
    b: Deployed

    def report(self) -> Record:
        return dict(self.cluster.ok("drift"))

    def described(self) -> str:
        return self.cluster.host(NETWORK_NODE, "sh", "-c", self.inside(DESCRIBED))

    def inside(self, script: str) -> str:
        return script.replace("INSIDE", f"ns-dhcp-vlan{self.a.vlans[1]}").replace("WRONG", self.a.mark("a3", "eth1"))

    def pids(self) -> dict[str, int]:
        return {name: self.cluster.vm(vm["vm_id"])["pid"] for one in (self.a, self.b) for name, vm in one.vms.items()}


def deployed(cluster: Cluster, letter: str, *, internet: bool) -> Deployed:
    """A triangle of three VMs, one on each host."""
    first, second, third = (f"{letter}{number}" for number in (1, 2, 3))
    made = cluster.slice(first, second, third, interfaces=2, internet=(first,) if internet else (), flavor="blank")
    cluster.link(made, first, "eth1", second, "eth1")
    cluster.link(made, second, "eth2", third, "eth1")
    cluster.link(made, first, "eth2", third, "eth2")
    cluster.ok("deploy_slice", "admin", made["id"])
    return Deployed(cluster, made)


@pytest.fixture(scope="module")
def scene(module_clusters: Callable[..., Cluster]) -> Iterator[Scene]:
    cluster = module_clusters(ssh={"connect_timeout": 1.0}, qemu={"stop_grace": 0.2, "quit_grace": 0.5})
    found = Scene(cluster, deployed(cluster, "a", internet=True), deployed(cluster, "b", internet=False))
    cluster.host(NETWORK_NODE, "sh", "-ec", found.inside(STRANGERS))
    try:
        yield found
    finally:
        cluster.host(NETWORK_NODE, "sh", "-c", found.inside(TAKEN_AWAY))
        for one in (found.a, found.b):
            cluster.ok("delete_slice", "admin", one.slice_id)


def differing(report: Record) -> list[Any]:
    return [one for one in report["objects"] if one["difference"]]


def first_round(scene: Scene) -> list[Drift]:
    a, b = scene.a, scene.b
    chain = f"CR-{a.installation}"
    again = "ip link delete dev DEV; ip tuntap add dev DEV mode tap user nobody; ip link set dev DEV arp off up alias "
    open_ipv6 = "echo 0 > /proc/sys/net/ipv6/conf/DEV/disable_ipv6"
    return [
        a.on_tap("TAP", "a1", "eth1", "ip link delete dev DEV", state="missing"),
        a.on_tap("TAP", "a1", "eth2", "ip link set dev DEV down", says="state down, wanted up"),
        b.on_tap("TAP", "b1", "eth1", again + b.mark("b1", "eth1"), says=f"owner nobody, wanted {b.runs_as('b1')}"),
        b.on_tap("TAP", "b1", "eth2", "ip netns add elsewhere; ip link set dev DEV netns elsewhere", state="missing"),
        a.on_tap("TAP", "a2", "eth2", open_ipv6, says="the host's IPv6 on, wanted off"),
        a.on_port("port", "a2", "eth1", "ovs-vsctl del-port DEV", state="missing"),
        b.on_port(
            "port", "b2", "eth1",
            "ovs-vsctl del-port DEV -- add-br br-else -- set bridge br-else datapath_type=netdev "
            "-- add-port br-else DEV",
            says="bridge br-else, wanted the integration bridge",
        ),
        b.on_port("port", "b2", "eth2", "ovs-vsctl set interface DEV type=internal", says="type internal, wanted"),
        a.on_port("tag", "a3", "eth1", "ovs-vsctl set port DEV tag=905", says=f"tag 905, wanted {a.vlans[1]}"),
        a.on_port("tag", "a3", "eth2", "ovs-vsctl clear port DEV tag", says=f"tag none, wanted {a.vlans[2]}"),
        b.on_port("tag", "b3", "eth1", "ovs-vsctl set port DEV trunks=8,7", says="trunks 7 8, wanted none"),
        a.on_node("rule", 400, "NAT rules", f"iptables -D {chain}-INPUT -i GW -j DROP", says="rule none, wanted"),
        a.on_node("rule", 400, "NAT rules", f"iptables -A {chain}-FORWARD -s 10.9.9.9 -j ACCEPT", says="10.9.9.9/32"),
        a.on_node("NAT", 400, "NAT rules", f"iptables -t nat -F {chain}-POSTROUTING", says="MASQUERADE"),
        a.on_node("namespace", a.vlans[0], "namespace", "ip netns delete NS", state="missing"),
        a.on_node("namespace", a.vlans[1], "namespace", "ip -n NS link set dev lo alias ''", says="mark none, wanted"),
        a.on_node("namespace", a.vlans[2], "address", "ip -n NS link delete dev GW", state="missing"),
        b.on_node("DHCP server", b.vlans[0], "DHCP server", "kill -9 PID", state="missing"),
        b.on_node(
            "DHCP server", b.vlans[1], "DHCP server", "echo log-dhcp >> DIR/dnsmasq.conf",
            says="configuration log-dhcp, wanted none",
        ),
        b.on_node("DHCP server", b.vlans[2], "DHCP server", "sed -i d DIR/hosts", says="reservations none"),
        b.on_vm("QEMU", "b3", "kill -9 PID", state="missing"),
        a.on_vm("QEMU", "a2", "kill -STOP PID", says="process frozen, wanted running"),
        b.on_vm("QEMU", "b2", PAUSE, says="process paused, wanted running"),
        a.on_disk("disk", "a1", "rm DISK", state="missing", says="file gone, wanted there"),
        a.on_disk("disk", "a3", "chmod 644 DISK", says="mode 0644, wanted 0600"),
        b.on_disk("disk", "b3", "chown nobody DISK", says=f"owner nobody, wanted {b.runs_as('b3')}"),
        a.on_flows(
            "flow", "a3", f"OFCTL --strict del-flows br-int priority=10,in_port={a.tap('a3', 'eth1')}",
            says=f"flow none, wanted priority=10,in_port={a.tap('a3', 'eth1')} actions=drop",
        ),
        b.on_flows(
            "flow", "b3", "OFCTL add-flow br-int cookie=COOKIE,priority=9,arp,actions=NORMAL",
            says="flow priority=9,arp actions=NORMAL, wanted none",
        ),
        b.on_flows("flow", "b2", "ovs-ofctl del-flows br-int", state="missing"),
        b.on_bridge(
            "closed bridge", "b1", "ovs-vsctl clear bridge br-int fail_mode", says="fail_mode standalone, wanted secure"
        ),
    ]  # fmt: skip


def second_round(scene: Scene) -> list[Drift]:
    a, b = scene.a, scene.b
    chain, shared = f"CR-{a.installation}", f"cloudrepo/{a.installation}/shared/-/400"
    first = f"{chain}-FORWARD -i GW -m conntrack ! --ctstate NEW,SNAT -j DROP"
    stale = "kill PID; sleep 0.3; nsenter --net=/run/netns/NS dnsmasq --conf-file=DIR/dnsmasq.conf --log-dhcp"
    jump = f"-m comment --comment {shared} -j {chain}"
    other = f"{a.images}/.cloudrepo-{a.installation}/vm-{b.vms['b3']['vm_id']}/mark.json"
    return [
        a.on_node("rule", 400, "NAT rules", f"iptables -D {first}; iptables -A {first}", says="order filter"),
        a.on_node("rule", 400, "NAT rules", "sysctl -qw net.ipv4.conf.GW.forwarding=0", says="gw_vlan400 off"),
        a.on_node("rule", 400, "NAT rules", f"iptables -I {IN_FRONT}", says="jumps behind rules of others, wanted"),
        a.on_node("IPv6", 400, "address", "sysctl -qw net.ipv6.conf.GW.disable_ipv6=0", says="IPv6 open, wanted"),
        a.on_node("NAT", 400, "NAT rules", f"iptables -t nat -D POSTROUTING {jump}-POSTROUTING", says="-A POSTROUTING"),
        a.on_node(
            "NAT", 400, "NAT rules",
            "sysctl -qw net.ipv4.conf.$(ip -o -4 route show default | sed 's/.* dev //;s/ .*//').forwarding=0",
            says="forwarding by",
        ),
        a.on_node(
            "mark", 400, "NAT rules", f"iptables -D INPUT {jump}-INPUT; iptables -A INPUT -j {chain}-INPUT",
            says=f"rule filter -A INPUT -j {chain}-INPUT, wanted none",
        ),
        a.on_node("DHCP server", a.vlans[2], "DHCP server", stale, says="further arguments --log-dhcp, wanted none"),
        b.on_vm("QEMU", "b2", BY_HAND.replace("TAP", b.tap("b2", "eth1")), says="NICs"),
        a.on_disk(
            "disk", "a2", "rm $(grep -o '/[^\"]*/base/[^\"]*' DIR/mark.json)", says="base image gone, wanted there"
        ),
        a.on_node("gateway address", a.vlans[1], "address", "ip -n NS addr flush dev GW", says="addresses none"),
        b.on_node("gateway address", b.vlans[0], "address", "ip -n NS addr add 10.9.9.1/24 dev GW", says="10.9.9.1/24"),
        b.on_node("gateway address", b.vlans[1], "address", "ip -n NS link set dev GW down", says="state down"),
        a.on_tap("ifalias", "a2", "eth2", "ip link set dev DEV alias ''", says="mark none, wanted"),
        a.on_tap(
            "ifalias", "a3", "eth0", f"ip link set dev DEV alias {a.mark('a1', 'eth0')}", says=a.mark("a1", "eth0")
        ),
        Drift(
            about="ifalias", host=NETWORK_NODE, script="", kind="device", name="stray0", state="foreign"
        ),  # on the wrong device: since the beginning
        a.on_port("mark", "a1", "eth1", "ovs-vsctl remove port DEV external_ids cloudrepo", says="mark none, wanted"),
        b.on_port(
            "mark", "b1", "eth2", f"ovs-vsctl set port DEV external_ids:cloudrepo={a.mark('a1', 'eth2')}",
            says=f"mark {a.mark('a1', 'eth2')}, wanted {b.mark('b1', 'eth2')}",
        ),
        b.on_node(
            "mark", b.vlans[1], "namespace", f"ip -n NS link set dev lo alias {a.link_mark(a.vlans[1])}",
            says=f"mark {a.link_mark(a.vlans[1])}, wanted",
        ),
        b.on_vm("mark", "b3", "rm DIR/mark", says="mark none, wanted"),
        a.on_vm("mark", "a3", "rm DIR/pid", says="pid file does not name it"),
        b.on_node("mark", b.vlans[2], "DHCP server", ": > DIR/mark", says="mark none, wanted"),
        a.on_disk("mark", "a3", f"cp {other} DIR/mark.json", says="mark none, wanted"),
        a.on_flows(
            "flow", "a1", f"OFCTL mod-flows br-int cookie=COOKIE/-1,in_port={a.tap('a1', 'eth2')},actions=NORMAL",
            says="actions=NORMAL, wanted none",
        ),
        a.on_bridge("mark", "a2", "ovs-vsctl remove bridge br-int external_ids KEY", state="missing"),
        b.on_bridge("closed bridge", "b3", "ovs-vsctl set bridge br-int fail_mode=standalone", says="fail_mode"),
    ]  # fmt: skip


def report_with_all(scene: Scene, drifts: Sequence[Drift]) -> Record:
    """A look that shows them all, or the last one: on a busy host a killed process ends a moment after its signal."""
    until = time.monotonic() + 15
    while True:
        report = scene.report()
        if time.monotonic() > until or not any(drift.found_in(report) for drift in drifts):
            return report
        time.sleep(0.5)


@pytest.mark.cost(seconds=20)
def test_each_of_many_drifts_is_found_named_and_set_right(scene: Scene) -> None:
    strangers = scene.described()
    clean = scene.report()
    assert differing(clean) == [] and not clean["problems"]
    rounds = ((first_round, ("a2", "a3", "b2")), (second_round, ("a1", "a2", "a3", "b1", "b3")))
    for drifts_of, steady in rounds:
        drifts = drifts_of(scene)
        before = scene.pids()
        befall(scene.cluster, drifts)
        report = report_with_all(scene, drifts)
        assert [text for drift in drifts if (text := drift.found_in(report))] == []
        answer = scene.cluster.ok("drift_fix")
        assert (answer["failed"], differing(answer["after"])) == ([], [])
        after = scene.pids()
        assert {name: after[name] for name in steady} == {name: before[name] for name in steady}, "they only went on"
        assert scene.described() == strangers
    assert IN_FRONT in scene.cluster.host(NETWORK_NODE, "iptables-save"), "somebody else's rule stays, and comes second"
    foreign = {(one["kind"], one["name"]) for one in scene.report()["objects"] if one["state"] == "foreign"}
    assert foreign >= {
        *(("TAP", "foreign0"), ("namespace", "ns-dhcp-vlan999"), ("port", "strange0"), ("device", "stray0")),
        *(("chain", "CR-0000beef-FORWARD"), ("directory", "/run/cloudrepo-0000beef")),
        ("device", f"guest0 in ns-dhcp-vlan{scene.a.vlans[1]}"),
    }
    for ip, script in ((HOSTS[0], "ip netns delete elsewhere"), (HOSTS[1], "ovs-vsctl del-br br-else")):
        scene.cluster.host(ip, "sh", "-ec", script)
    scene.cluster.host(HOSTS[1], "ip", "link", "delete", "byhand0")


@pytest.mark.cost(seconds=4)
def test_what_is_in_the_way_is_left_alone_and_the_report_says_what_to_do(scene: Scene) -> None:
    """Another installation's mark on our TAP; a disk that was replaced; the rest is set right all the same."""
    a, b = scene.a, scene.b
    theirs = "cloudrepo/0000beef/1000/1001/eth0"
    drifts = [
        b.on_tap("ifalias", "b1", "eth0", f"ip link set dev DEV alias {theirs}", state="foreign", says=theirs),
        a.on_disk("disk", "a2", "cp DISK DISK.aside; mv DISK.aside DISK", says="file another, wanted there"),
        a.on_tap("TAP", "a2", "eth0", "ip link set dev DEV down", says="state down"),
        b.on_port("tag", "b3", "eth1", "ovs-vsctl set port DEV tag=905", says="tag 905"),
    ]
    befall(scene.cluster, drifts)
    report = report_with_all(scene, drifts)
    assert [text for drift in drifts if (text := drift.found_in(report))] == []
    pids = scene.pids()
    answer = scene.cluster.ok("drift_fix")
    left = {(one["kind"], one["name"]): one["note"] for one in differing(answer["after"])}
    number = str(a.vms["a2"]["vm_id"])
    assert left.keys() == {("TAP", b.tap("b1", "eth0")), ("disk", number)}
    assert "stands where ours should be" in left["TAP", b.tap("b1", "eth0")]
    assert f"vm-{number}/overlay.qcow2" in left["disk", number]
    assert scene.cluster.host(HOSTS[0], "cat", f"/sys/class/net/{b.tap('b1', 'eth0')}/ifalias").strip() == theirs
    assert scene.pids() == pids
    scene.cluster.host(HOSTS[0], "ip", "link", "set", "dev", b.tap("b1", "eth0"), "alias", b.mark("b1", "eth0"))
    scene.cluster.host(HOSTS[1], "rm", a.disk("a2"))
    answer = scene.cluster.ok("drift_fix")
    assert (answer["failed"], differing(answer["after"])) == ([], [])
    assert scene.pids() == pids, "the disk a machine runs on was put back under its name"


@pytest.mark.cost(seconds=15)
def test_orphans_go_made_by_hand_and_busy_slices_stay_and_a_silent_host_is_named(scene: Scene, lab: Lab) -> None:
    cluster = scene.cluster
    orphan = f"cloudrepo/{scene.a.installation}/977/978/eth0"
    add = f"ip tuntap add dev tap_978_eth0 mode tap; ip link set dev tap_978_eth0 alias {orphan}"
    cluster.host(HOSTS[0], "sh", "-ec", add)
    assert cluster.api.vlan_manager.create_vlan_with_gateway(777, "192.168.9.0/24", "192.168.9.1")
    try:
        report = scene.report()
        (found,) = differing(report)
        assert (found["name"], found["state"], found["scope"]) == ("tap_978_eth0", "orphan", "977")
        by_hand = {one["name"] for one in report["objects"] if one["state"] == "manual"}
        assert {"ns-dhcp-vlan777", "gw_vlan777"} <= by_hand
        with cluster.api.db.transaction() as data:
            record = data["slices"][str(scene.b.slice_id)]
            record["status"] = "deploying"
            record["operation"] = {"number": 1, "kind": "deploy", "process": this_process(), "began": "now"}
        begin_work(str(cluster.api.db.path), 1)
        cluster.host(HOSTS[2], "ip", "link", "set", "dev", scene.b.tap("b3", "eth1"), "down")
        assert "is at it" in cluster.refused("drift_fix", scene.b.slice_id)
        with cut_off(lab, HOSTS[1]):
            report = scene.report()
        assert list(report["unreachable"]) == [HOSTS[1]]
        assert [one["name"] for one in differing(report)] == ["tap_978_eth0"], "the rest is told all the same"
        answer = cluster.ok("drift_fix")
        assert differing(answer["after"]) == [] and answer["after"]["unsettled"][0]["slice_id"] == scene.b.slice_id
        assert "DOWN" in cluster.host(HOSTS[2], "ip", "link", "show", "dev", scene.b.tap("b3", "eth1"))
        assert any(one["about"] == f"slice {scene.b.slice_id}" for one in answer["left"])
        with cluster.api.db.transaction() as data:
            record = data["slices"][str(scene.b.slice_id)]
            record["status"] = "running"
            del record["operation"]
        end_work(str(cluster.api.db.path), 1)
        answer = cluster.ok("drift_fix", scene.b.slice_id)
        assert (answer["failed"], differing(answer["after"])) == ([], [])
        assert "ns-dhcp-vlan777" in cluster.host(NETWORK_NODE, "ip", "netns", "list"), "made by hand is never touched"
    finally:
        assert cluster.api.vlan_manager.delete_vlan(777)
