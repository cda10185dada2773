"""What the builders give, shown to the real tools: as root, in namespaces of their own, without a lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import isolation
from cloudrepo.commands import dnsmasq, iproute, iptables, openflow, ovs, qemu
from cloudrepo.commands.dnsmasq import Range
from cloudrepo.commands.openflow import Flow
from cloudrepo.firewall import internet_firewall
from cloudrepo.naming import first_cookie, flow_cookie, meter_number, service_mac
from cloudrepo.resources import Closure, Firewall, HostFacts, MachineSpec, Nic, Port, Tap
from cloudrepo.settings import Settings
from cloudrepo.verification import tracing
from vm_launcher import machine
from worlds import OURS, lease, mark

pytestmark = pytest.mark.lab

#: Runs commands given as JSON on stdin in fresh namespaces; answers with status and text of each.
APART = textwrap.dedent(
    """
    import json, subprocess, sys
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    answers = []
    for words, text in json.load(sys.stdin):
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60)
        answers.append([done.returncode, done.stdout, done.stderr])
    print(json.dumps(answers))
    """
)
#: An Open vSwitch of its own with the userspace datapath, and its end.
OVS = """
mkdir -p /run/openvswitch
ovsdb-tool create {directory}/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server {directory}/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile=/run/openvswitch/a.pid --detach \
    --log-file={directory}/a.log >/dev/null 2>&1
ovs-vsctl --no-wait init
ovs-vswitchd --pidfile=/run/openvswitch/b.pid --detach --log-file={directory}/b.log >/dev/null 2>&1
ovs-vsctl add-br br-int -- set bridge br-int datapath_type=netdev
"""
#: The switch is killed and started again; ovs-vsctl waits until it is as the database says.
OVS_KILLED = """
kill -9 $(cat /run/openvswitch/b.pid)
for _ in $(seq 100); do  # until the killed one has let go of its files
    ovs-vswitchd --pidfile=/run/openvswitch/b.pid --detach --log-file={directory}/c.log >/dev/null 2>&1 && break
    sleep 0.1
done
ovs-vsctl --timeout=20 set bridge br-int other_config:a=b
"""
OVS_END = "kill $(cat /run/openvswitch/b.pid) $(cat /run/openvswitch/a.pid)"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def apart(*commands: tuple[tuple[str, ...], str]) -> list[tuple[int, str, str]]:
    """Run commands one after another, apart from this machine's network and mounts."""
    words = ("unshare", "-n", "-m", "--propagation", "private", sys.executable, "-c", APART)
    env = {"PATH": SYSTEM_PATH}
    done = subprocess.run(words, input=json.dumps(commands), capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return [tuple(answer) for answer in json.loads(done.stdout)]


def run(*words: str) -> tuple[tuple[str, ...], str]:
    return words, ""


def shell(line: str) -> tuple[tuple[str, ...], str]:
    return ("sh", "-ec", line), ""


@pytest.mark.cost(seconds=1)
def test_ip_takes_our_taps_and_shows_them_as_we_read_them() -> None:
    """An account that exists, a mark as alias, ARP off, and up; then gone again."""
    tap = Tap(device="tap_1001_eth0", user="nobody", mark=mark(1000, 1001, "eth0"))
    *made, gone = apart(
        (iproute.batch(), iproute.batch_text([*iproute.add_tap(tap), iproute.set_up(tap.device)])),
        run(*iproute.list_addresses()),
        (iproute.batch(), iproute.batch_text([iproute.delete_link(tap.device)])),
        run(*iproute.list_addresses()),
    )
    assert [status for status, _, _ in made] == [0, 0, 0], made
    assert iproute.parse_taps(made[1][1]) == [tap]
    assert iproute.parse_taps(gone[1]) == []


@pytest.mark.cost(seconds=1)
def test_ip_removes_several_taps_as_a_group_and_no_other() -> None:
    """The group holds exactly the named devices."""
    taps = [Tap(device=f"tap_1001_eth{n}", user="nobody", mark=mark(1000, 1001, f"eth{n}")) for n in range(3)]
    answers = apart(
        (
            iproute.batch(),
            iproute.batch_text(line for tap in taps for line in (*iproute.add_tap(tap), iproute.set_up(tap.device))),
        ),
        (iproute.batch(), iproute.batch_text(iproute.delete_links([taps[0].device, taps[2].device]))),
        run(*iproute.list_addresses()),
    )
    assert [status for status, _, _ in answers] == [0, 0, 0], answers
    assert iproute.parse_taps(answers[2][1]) == [taps[1]]


@pytest.mark.cost(seconds=1)
def test_ip_takes_our_namespaces_and_shows_them_as_we_read_them() -> None:
    """A namespace with its mark, a device moved into it, and an address set right."""
    from cloudrepo.resources import Address

    inside = Address(device="gw_vlan100", namespace="n1", addresses=("192.168.100.1/24",), mark=mark(1000, None, "100"))
    answers = apart(
        run("ip", "link", "add", "gw_vlan100", "type", "veth", "peer", "name", "other"),
        (
            iproute.batch(),
            iproute.batch_text([iproute.add_namespace("n1"), iproute.move_link("gw_vlan100", "n1")]),
        ),
        run("ip", "-n", "n1", "address", "add", "192.168.100.9/24", "dev", "gw_vlan100"),
        (
            iproute.batch(namespace="n1"),
            iproute.batch_text(
                [
                    *iproute.mark_namespace(inside.mark),
                    *iproute.set_address(inside, stale=["192.168.100.9/24"]),
                ]
            ),
        ),
        run(*iproute.list_addresses(namespace="n1")),
        run(*iproute.in_namespace("n1", iproute.list_routes())),
        (iproute.batch(), iproute.batch_text([iproute.delete_namespace("n1")])),
        run("ip", "netns", "list"),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    assert iproute.parse_addresses(answers[4][1], namespace="n1") == [inside]
    assert iproute.parse_namespace(answers[4][1], "n1").mark == inside.mark
    assert iproute.parse_connected(answers[5][1]) in ({"gw_vlan100": ("192.168.100.0/24",)}, {})
    assert answers[7][1] == ""


def every_nat() -> list[Firewall]:
    settings = Settings.of({})
    facts = HostFacts(uplink="up0", connected={"up0": ("203.0.113.0/24",)})
    same = HostFacts(uplink="eth0", connected={"eth0": ("10.0.10.0/24",), "docker0": ("172.17.0.0/16",)})
    own_dns = Settings.of({"internet.dns": "10.60.7.1", "network.deny": ["10.0.0.0/8", "192.168.7.9"]})
    shared = mark("shared", None, "400")
    return [
        internet_firewall(shared, "10.60.7.0/24", "10.60.7.1", settings, facts, ["10.0.10.3"]),
        internet_firewall(shared, "10.60.7.0/24", "10.60.7.1", settings, same, ["10.0.10.3"]),
        internet_firewall(shared, "10.60.7.0/24", "10.60.7.1", own_dns, facts, ["10.0.10.3"]),
    ]


@pytest.mark.parametrize("firewall", every_nat(), ids=["own uplink", "uplink is management", "own DNS"])
@pytest.mark.cost(seconds=1)
def test_iptables_saves_our_rules_in_the_words_we_wanted(firewall: Firewall) -> None:
    """Else every look at the node would see a difference. Others' rules stay, in place and after."""
    foreign = ("iptables", "-A", "FORWARD", "-m", "comment", "--comment", 'it\'s "theirs"', "-j", "ACCEPT")
    answers = apart(
        run(*foreign),
        run(*iptables.save()),
        (iptables.restore(), iptables.restore_text(add=firewall.rules)),
        run(*iptables.save()),
        (iptables.restore(), iptables.restore_text(remove=firewall.rules, add=firewall.rules)),
        run(*iptables.save()),
        (iptables.restore(), iptables.restore_text(remove=firewall.rules)),
        run(*iptables.save()),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    before, made, again, after = (answers[number][1] for number in (1, 3, 5, 7))
    assert sorted(iptables.parse_rules(made, OURS)) == sorted(firewall.rules)
    assert iptables.parse_rules(again, OURS) == iptables.parse_rules(made, OURS), "set twice is set once"
    assert iptables.parse_rules(after, OURS) == [] and "CR-" not in after

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("-A")]

    assert lines(before) == lines(after) == [line for line in lines(made) if "theirs" in line]


@pytest.mark.parametrize(
    "offer",
    [
        Range(cidr="192.168.100.0/24", first="192.168.100.100", last="192.168.100.250"),
        Range(cidr="10.60.0.0/20", router="10.60.0.1", dns="8.8.8.8,1.1.1.1", lease_s=120),
        Range(cidr="10.0.0.0/29", first="10.0.0.4", last="10.0.0.6", router="10.0.0.1"),
    ],
)
@pytest.mark.cost(seconds=1)
def test_dnsmasq_takes_our_configuration(offer: Range, tmp_path: Path) -> None:
    """Its syntax, and the reservations when it starts: its log names no bad line."""
    directory = str(tmp_path)
    os.chmod(tmp_path.parent, 0o755)  # noqa: S103 - it reads its files as nobody
    tmp_path.chmod(0o777)
    (tmp_path / "dnsmasq.conf").write_text(dnsmasq.config(mark(1000, None, "100"), directory, "dhcp_v100", offer))
    base = offer.cidr.rpartition(".")[0]
    (tmp_path / "hosts").write_text(
        f"52:54:00:03:e9:00,{base}.3,vm-1\n" + dnsmasq.hosts([lease(3, 100)]).replace("192.168.100", base)
    )
    own = int.from_bytes(os.urandom(2))
    answers = apart(
        run("dnsmasq", "--test", f"--conf-file={directory}/dnsmasq.conf"),
        run("ip", "link", "add", "dhcp_v100", "type", "veth", "peer", "name", f"p{own}"),
        run("ip", "address", "add", f"{base}.2/24", "dev", "dhcp_v100"),
        run("ip", "link", "set", "dhcp_v100", "up"),
        run(*dnsmasq.serve(directory)),
        shell(f"kill -HUP $(cat {directory}/pid); sleep 0.3; kill $(cat {directory}/pid); cat {directory}/log"),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    assert "syntax check OK" in answers[0][2]
    log = answers[-1][1]
    assert "read " in log and "bad " not in log and "duplicate" not in log.replace("duplicate dhcp-host IP", "")


@pytest.mark.cost(seconds=3)
def test_ovs_takes_our_transactions_and_a_name_like_an_option_is_no_option(tmp_path: Path) -> None:
    """The userspace datapath of an own daemon: tags, types, marks and removal, as we read them."""
    ports = [
        Port(device="gw_vlan100", tag=100, is_internal=True, mark=mark(1000, None, "100")),
        Port(device="tap_1001_eth1", tag=101, mark=mark(1000, 1001, "eth1")),
    ]
    retag = Port(device="gw_vlan100", tag=777, is_internal=True, mark=mark(1000, None, "100"))
    answers = apart(
        shell(OVS.format(directory=tmp_path) + "ip tuntap add dev tap_1001_eth1 mode tap"),
        run(*ovs.transaction("br-int", add=ports)),
        run(*ovs.list_ports()),
        run(*ovs.transaction("br-int", add=[retag])),
        run(*ovs.list_ports()),
        run("ovs-vsctl", "--", "--if-exists", "del-port", "br-int", "--help"),
        run(*ovs.transaction("br-int", remove=["gw_vlan100", "tap_1001_eth1", "never_there"])),
        run(*ovs.list_ports()),
        shell(OVS_END),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers

    def seen(number: int) -> Any:
        bridge = ovs.parse_ports(answers[number][1], "br-int")
        assert bridge is not None and bridge.datapath == "netdev"
        return {port.device: port for port in bridge.ports if port.device != "br-int"}

    assert seen(2) == {port.device: port for port in ports}
    assert seen(4)["gw_vlan100"] == retag
    assert "Usage" not in answers[5][1]
    assert seen(7) == {}


def every_flow() -> dict[int, tuple[Flow, ...]]:
    """By cookie, what the policy makes on a node of a slice with every kind of end, and on a worker."""
    way = {
        is_here: isolation.services(OURS, "10.60.7.1", "10.60.7.2", is_here=is_here, uplinks=("trunk0", "trunk1"))
        for is_here in (True, False)
    }
    online = isolation.Nic(device="tap_1001_eth0", mac="52:54:00:03:e9:00", ip="10.60.7.101")
    linked = isolation.Nic(device="tap_1001_eth1", mac="52:54:00:03:e9:01", ip="192.168.100.10")
    others = [isolation.Peer(mac="52:54:00:03:ea:01", ip="192.168.100.11"), isolation.Peer(mac="52:54:00:03:eb:01")]
    link = isolation.link_nic(linked, others, isolation.Switches(), serves_dhcp=True)
    wire = isolation.wire(100, uplinks=("trunk0", "trunk1"), services=("gw_vlan100", "dhcp_v100"))
    made = {}
    for number, is_here in enumerate((True, False), start=1000):
        flows = [*isolation.internet_nic(online, way[is_here]), *isolation.internet_host(way[is_here])]
        made[flow_cookie(mark(number))] = flows
    made[flow_cookie(mark(1002))] = [*link, *wire]
    bridges = [isolation.link_nic(linked, others, isolation.Switches(bridging=True), serves_dhcp=False)]
    bridges += [
        isolation.bridged(100, (linked.device, online.device), uplinks) for uplinks in (("trunk0", "trunk1"), ())
    ]
    bridges += [isolation.bridged(101, (linked.device,), ("trunk0",))]
    for number, flows in enumerate(bridges, start=1003):
        made[flow_cookie(mark(number))] = flows
    return {cookie: tuple(sorted({*flows, openflow.sign(cookie)})) for cookie, flows in made.items()}


@pytest.mark.parametrize("cookie", every_flow())
@pytest.mark.cost(seconds=3)
def test_ovs_shows_our_flows_in_the_words_we_wanted(cookie: int, tmp_path: Path) -> None:
    """Else every look would see a difference. A word that is dropped from a match would be told here as well."""
    services = [
        Port(device=name, tag=tag, is_internal=True, mac=service_mac(OURS, name), mark=mark("shared", None, str(tag)))
        for tag in (100, 400)
        for name in (f"gw_vlan{tag}", f"dhcp_v{tag}")
    ]
    taps = [Port(device=f"tap_1001_eth{n}", tag=400 if n == 0 else 100, mark=mark(1000, 1001)) for n in range(2)]
    names = ("tap_1001_eth0", "tap_1001_eth1", "trunk0", "trunk1")
    devices = "; ".join(f"ip tuntap add dev {name} mode tap" for name in names)
    trunks = "; ".join(f"ovs-vsctl add-port br-int {name}" for name in ("trunk0", "trunk1"))
    wanted = every_flow()[cookie]
    closure = Closure(bridge="br-int", mark=mark("shared"))
    change = openflow.change_text(remove=[cookie], add={cookie: wanted})
    answers = apart(
        shell(OVS.format(directory=tmp_path) + f"{devices}; {trunks}"),
        run(*ovs.transaction("br-int", add=[*services, *taps], close=closure)),
        run(*ovs.list_ports()),
        (openflow.change("br-int"), change),
        run(*openflow.dump("br-int")),
        (openflow.change("br-int"), change),
        run(*openflow.dump("br-int")),
        run(*openflow.list_signs("br-int", first_cookie(OURS))),
        run(*openflow.list_signs("br-int", first_cookie("ffff0000"))),
        shell(OVS_KILLED.format(directory=tmp_path)),
        run(*openflow.dump("br-int")),
        run(*ovs.transaction("br-int", remove=[port.device for port in (*services, *taps)], open_=closure)),
        run(*ovs.list_ports()),
        run(*openflow.dump("br-int")),
        shell(OVS_END),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    closed, opened = (ovs.parse_ports(answers[number][1], "br-int") for number in (2, 12))
    assert closed is not None and closed.is_closed and closed.closed_by == (mark("shared"),)
    assert {port.device: port.mac for port in closed.ports if port.mac} == {port.device: port.mac for port in services}
    assert openflow.parse_dump(answers[4][1]) == openflow.parse_dump(answers[6][1]) == {cookie: wanted}
    assert openflow.parse_dump(answers[7][1]) == {cookie: (openflow.sign(cookie),)} and answers[8][1] == ""
    assert openflow.parse_dump(answers[10][1]) == {}, "a switch that was killed comes back closed and empty"
    assert opened is not None and not opened.is_closed and opened.closed_by == ()
    assert openflow.parse_dump(answers[13][1]) == {0: (openflow.BUILT_IN,)}


@pytest.mark.parametrize("name", ["vm1", "process=x", "-x"])
@pytest.mark.cost(seconds=3)
def test_qemu_takes_our_command_line_and_has_what_it_says(name: str, tmp_path: Path) -> None:
    """Started paused and asked by QMP: our UUID, our name, and each NIC known by the name we unplug it by."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{tmp_path}/disk.qcow2", "1M"], check=True)
    nics = tuple(
        Nic(interface=f"eth{index}", device=f"t{index}", mac=f"52:54:00:03:e9:0{index}", has_carrier=index != 1)
        for index in range(3)
    )
    spec = MachineSpec(
        vm_name=name, cores=1, ram_mib=64, disk=f"{tmp_path}/disk.qcow2", vnc_bind="127.0.0.1", vnc_port=5999,
        nics=nics, accelerator="tcg", vnet_hdr=False, user="root",
    )  # fmt: skip
    record = {"vm_id": 1001, "interfaces": [{"name": nic.interface} for nic in nics]}
    wanted = machine("1000", record, OURS, spec)
    asked = [
        {"execute": "qmp_capabilities"},
        *qemu.start_commands(wanted)[:-1],
        {"execute": "query-uuid"},
        {"execute": "query-name"},
        {"execute": "query-status"},
        {"execute": "quit"},
    ]
    client = f"""
import json, socket, time
link = socket.socket(socket.AF_UNIX)
for _ in range(100):
    try:
        link.connect({str(tmp_path / "qmp.sock")!r}); break
    except OSError: time.sleep(0.1)
stream = link.makefile("rw")
stream.readline()
for command in {asked!r}:
    stream.write(json.dumps(command) + "\\n"); stream.flush()
    answer = json.loads(stream.readline())
    while "event" in answer: answer = json.loads(stream.readline())
    print(json.dumps(answer))
"""
    words = qemu.command(wanted, str(tmp_path))
    quoted = " ".join("'" + word + "'" for word in words)
    taps = "; ".join(f"ip tuntap add dev t{index} mode tap" for index in range(3))
    answers = apart(
        shell("ip link set lo up; " + taps),
        shell(f"{quoted} >{tmp_path}/log 2>&1 &"),
        run(sys.executable, "-c", client),
        run("cat", f"{tmp_path}/log"),
    )
    assert answers[2][0] == 0, answers
    _, down, uuid, called, status, _ = map(json.loads, answers[2][1].splitlines())
    assert down == {"return": {}}, "the one NIC without a carrier is unplugged by its id"
    assert uuid["return"]["UUID"] == wanted.uuid
    assert called["return"]["name"] == name
    assert status["return"]["status"] == "prelaunch"


@pytest.mark.cost(seconds=3)
def test_an_internal_port_whose_namespace_went_comes_back_only_in_two_transactions(tmp_path: Path) -> None:
    """Why such a port is taken away before it is made: setting it right in place leaves it without a device."""
    port = Port(device="gw_vlan100", tag=100, is_internal=True, mark=mark(1000, None, "100"))
    show = shell("sleep 0.3; ip -br link | grep -c gw_vlan100 || true")
    answers = apart(
        shell(OVS.format(directory=tmp_path)),
        run(*ovs.transaction("br-int", add=[port])),
        shell("ip netns add n1; ip link set dev gw_vlan100 netns n1; ip netns delete n1; sleep 0.3"),
        run(*ovs.transaction("br-int", add=[port])),
        show,
        run(*ovs.transaction("br-int", remove=["gw_vlan100"])),
        run(*ovs.transaction("br-int", add=[port])),
        show,
        shell(OVS_END),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    assert (answers[4][1].strip(), answers[7][1].strip()) == ("0", "1")


@pytest.mark.cost(seconds=3)
def test_ovs_has_the_meters_we_wanted_and_flows_by_them(tmp_path: Path) -> None:
    """Made, read back, changed under the flows that name them, gone with those, and gone with a killed switch."""
    cookie, number = flow_cookie(mark(1000)), meter_number(1001, "eth1") or 0
    wanted, another = openflow.limit(8000), openflow.limit(20_000)
    nic = isolation.Nic(device="tap_1001_eth1", mac="52:54:00:03:e9:01")
    link = isolation.link_nic(nic, (), isolation.Switches(bridging=True), serves_dhcp=True)
    bare = [*link, *isolation.bridged(100, (nic.device,), ("trunk0",)), openflow.sign(cookie)]
    flows = tuple(sorted(isolation.metered(bare, {nic.device: number})))
    set_flows = (openflow.change("br-int"), openflow.change_text(remove=[cookie], add={cookie: flows}))
    names = ("tap_1001_eth1", "trunk0")
    devices = "; ".join(f"ip tuntap add dev {name} mode tap; ovs-vsctl add-port br-int {name}" for name in names)
    answers = apart(
        shell(OVS.format(directory=tmp_path) + devices),
        run(*openflow.meter_features("br-int")),
        run(*openflow.set_meter("br-int", number, *wanted, is_new=True)),
        set_flows,
        run(*openflow.list_meters("br-int")),
        run(*openflow.dump("br-int")),
        run(*openflow.set_meter("br-int", number, *another, is_new=False)),
        run(*openflow.list_meters("br-int")),
        run(*openflow.dump("br-int")),
        run(*openflow.delete_meter("br-int", number)),
        run(*openflow.delete_meter("br-int", number)),
        run(*openflow.list_meters("br-int")),
        run(*openflow.dump("br-int")),
        run(*openflow.set_meter("br-int", number, *wanted, is_new=True)),
        set_flows,
        shell(OVS_KILLED.format(directory=tmp_path)),
        run(*openflow.list_meters("br-int")),
        shell(OVS_END),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    said = [out for _, out, _ in answers]
    assert openflow.parse_meter_features(said[1]) is True
    assert openflow.parse_meters(said[4]) == {number: wanted} and openflow.parse_meters(said[7]) == {number: another}
    assert openflow.parse_dump(said[5])[cookie] == openflow.parse_dump(said[8])[cookie] == flows
    assert openflow.parse_meters(said[11]) == {}
    assert openflow.parse_dump(said[12])[cookie] == tuple(one for one in flows if "meter:" not in one[2])
    assert openflow.parse_meters(said[16]) == {}


@pytest.mark.cost(seconds=3)
def test_ovs_says_where_it_heard_a_mac_and_sends_frames_there_until_it_hears_it_elsewhere(tmp_path: Path) -> None:
    """What `path` calls stale: both ways in which such a frame is lost, and that one frame of the VM ends it."""
    mine, theirs = "52:54:00:03:e9:01", "52:54:00:03:ea:01"
    near = [Port(device=f"tap_{vm}_eth1", tag=100, mark=mark(1000, vm, "eth1")) for vm in (1001, 1002)]
    devices = "; ".join(f"ip tuntap add dev {name} mode tap" for name in ("trunk0", *(one.device for one in near)))

    def frame(source: str, target: str) -> bytes:
        return bytes.fromhex(f"{target}{source}88b5".replace(":", "")).ljust(60, b"\0")

    def spoke(port: str, told: bytes) -> tuple[tuple[str, ...], str]:
        return run("ovs-ofctl", "packet-out", "br-int", f"in_port={port},packet={told.hex()},actions=NORMAL")

    named = "ln -s b.pid /run/openvswitch/ovs-vswitchd.pid"  # where ovs-appctl looks for it
    abroad = tracing.tagged(frame(theirs, "ff:ff:ff:ff:ff:ff"), 100)
    asked = [
        run(*tracing.ask_learned("br-int")),
        run(*tracing.ask("br-int", near[0].device, frame(mine, theirs))),
        run(*tracing.ask("br-int", "trunk0", tracing.tagged(frame(mine, theirs), 100))),
    ]
    answers = apart(
        shell(OVS.format(directory=tmp_path) + f"{devices}; ovs-vsctl add-port br-int trunk0; {named}"),
        run(*ovs.transaction("br-int", add=near)),
        run("ovs-vsctl", "get", "Interface", "trunk0", "ofport"),
        spoke("trunk0", abroad),
        *asked,
        spoke(near[1].device, frame(theirs, "ff:ff:ff:ff:ff:ff")),
        *asked,
        shell(OVS_END),
    )
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    said = [out for _, out, _ in answers]
    (before,) = [one for one in tracing.read_learned(said[4]) if one.mac == theirs]
    assert (before.port, before.vlan) == (int(said[2]), 100) and before.age_s is not None and before.age_s < 60
    assert [tracing.read(text).ports for text in said[5:7]] == [("trunk0",), ()]
    assert all("NORMAL" in tracing.read(text).rules[-1].actions for text in said[5:7])
    (after,) = [one for one in tracing.read_learned(said[8]) if one.mac == theirs]
    assert after.port != before.port and after.vlan == 100
    assert [tracing.read(text).ports for text in said[9:11]] == [(near[1].device,), (near[1].device,)]
