from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cloudrepo import limits, probe
from cloudrepo.errors import HostError
from cloudrepo.naming import SHARED, UNFINISHED, Mark
from cloudrepo.plan import ReadFile, Run, StepResult
from cloudrepo.resources import (
    Address,
    Closure,
    DhcpServer,
    Disk,
    Firewall,
    Flows,
    HostState,
    Machine,
    Meter,
    Namespace,
    Port,
    Tap,
)
from worlds import NODE, OURS, WORKER, host, mark

CAPTURED = Path(__file__).parent / "golden" / "captured"
RUN = f"/run/cloudrepo-{OURS}"
DISKS = f"/home/ubuntu/vm_images/.cloudrepo-{OURS}"


def text(name: str) -> str:
    return (CAPTURED / name).read_text()


def machine_row(**changes: Any) -> dict[str, Any]:
    whole = f"{mark(1000, 1001, 'eth0.eth1')}\nuuid-1\n"
    return {"dir": f"{RUN}/vm-1001", "mark": whole, "pid": 7, "alive": True, "status": "running", **changes}


def server_row(vlan: int = 100, **changes: Any) -> dict[str, Any]:
    files = {"mark": f"{mark(1000, None, str(vlan))}\n", "dnsmasq.conf": "port=0\n", "hosts": ""}
    return {"dir": f"{RUN}/dhcp-{vlan}", "files": files, "pid": 8, "alive": True, **changes}


def answers(**changes: Any) -> dict[str, StepResult]:
    """What a network node answers that has nothing of ours but what is given."""
    given_ = {
        "ports": text("ovs-ports.txt"),
        "flows": text("ovs-flows.txt"),
        "addresses": text("ip-address.txt"),
        "IPv6 devices": "/proc/sys/net/ipv6/conf/lo/disable_ipv6:0\n",
        "machines": "[]",
        "disks": "[]",
        "processes": "[]",
        "namespaces": "{}",
        "servers": "[]",
        "rules": "",
        "controllers": "cpu memory pids\n",
        "controllers beside cgroup1": "",
        "routes": text("ip-route.txt"),
        "meters": "",
        "forwarding": "0\n",
        "forwarding devices": "/proc/sys/net/ipv4/conf/gw_vlan400/forwarding:1\n",
        **{name: one if isinstance(one, str) else json.dumps(one) for name, one in changes.items()},
    }
    return {name: StepResult(name=name, label=f"look at {name}", status=0, out=out) for name, out in given_.items()}


def seen(ip: str = NODE, **changes: Any) -> HostState:
    return probe.read(host(ip), answers(**changes))


# ---------------------------------------------------------------------------------------- questions


def test_a_worker_is_asked_less_than_the_network_node() -> None:
    asked = {ip: [step.name for step in probe.questions(host(ip))] for ip in (WORKER, NODE)}
    assert asked[WORKER] == [
        *("ports", "flows", "meters", "addresses", "machines", "IPv6 devices", "disks", "processes"),
        *("controllers", "controllers beside cgroup1"),
    ]
    assert asked[NODE] == [
        *(*asked[WORKER], "namespaces", "servers", "rules", "routes", "forwarding", "forwarding devices")
    ]


def test_every_question_is_read_only() -> None:
    for step in (*probe.questions(host()), *probe.first_question(host()).steps):
        if isinstance(step.act, Run):
            assert set(step.act.words) & {"list", "show", "iptables-save", "grep", "dump-flows", "dump-meters"}, (
                step.act.words
            )
        else:
            assert type(step.act) is ReadFile or type(step.act).__name__.startswith("Observe")


# ---------------------------------------------------------------------------------------- what is there


def test_captured_answers_of_a_real_node() -> None:
    state = seen()
    assert {port.device: port.tag for port in state.of(Port) if port.mark} == {"gw_vlan400": 400, "tap_1001_eth0": 400}
    assert [tap.device for tap in state.of(Tap) if tap.mark] == ["tap_1001_eth0"]
    assert (state.facts.datapath, state.facts.has_bridge, state.facts.has_uplink) == ("netdev", True, True)
    assert (state.facts.uplink, state.facts.forwards) == ("up0", False)
    assert state.facts.connected == {"trunk1": ("10.0.10.0/24",), "up0": ("203.0.113.0/24",)}


def test_internal_ports_of_the_userspace_datapath_are_no_taps() -> None:
    state = seen()
    assert "gw_vlan400" not in [tap.device for tap in state.of(Tap)]
    assert [address.device for address in state.of(Address)] == ["gw_vlan400"]


def test_no_bridge_and_no_uplink_are_facts() -> None:
    assert seen(ports=text("ovs-empty.txt")).facts.has_bridge is False
    bare = seen(ports=text("ovs-bare-bridge.txt")).facts
    assert (bare.has_bridge, bare.has_uplink) == (True, False)
    assert seen(forwarding="1\n").facts.forwards is True
    asked = {step.name: one for step in probe.questions(host(WORKER)) for one in [answers()[step.name]]}
    assert probe.read(host(WORKER), asked).facts.uplink == "", "only the network node is asked for its routes"


def test_a_machine_with_its_process() -> None:
    (machine,) = seen(machines=[machine_row()]).of(Machine)
    assert (machine.vm_id, machine.uuid, machine.is_running, machine.pid) == (1001, "uuid-1", True, 7)
    assert machine.mark == mark(1000, 1001, "eth0.eth1") and machine.status == "running"
    (dead,) = seen(machines=[machine_row(alive=False, pid=None, status=None)]).of(Machine)
    assert (dead.is_running, dead.pid, dead.status) == (False, None, "")


def test_a_disk_with_its_mark_file() -> None:
    row = {
        "dir": f"{DISKS}/vm-1001",
        "files": {"mark.json": json.dumps({"mark": str(mark(1000, 1001, "disk")), "disk": "/i/vm1.qcow2"})},
    }
    (disk,) = seen(disks=[row]).of(Disk)
    assert (disk.vm_id, disk.path, disk.directory, disk.mark) == (
        *(1001, "/i/vm1.qcow2", row["dir"], mark(1000, 1001, "disk")),
    )


def test_our_rules_are_one_object() -> None:
    (firewall,) = seen(rules=text("iptables-rules.txt")).of(Firewall)
    assert firewall.mark == mark(SHARED, None, "400") and len(firewall.rules) == 9
    assert firewall.forwarding == ("gw_vlan400",)
    assert not firewall.is_first, "another installation's jump stands before ours"
    alone = "".join(line for line in text("iptables-rules.txt").splitlines(True) if "0000beef" not in line)
    (firewall,) = seen(rules=alone).of(Firewall)
    assert firewall.is_first
    accepts = alone.replace("*nat\n", "*nat\n-A POSTROUTING -j ACCEPT\n")
    assert not seen(rules=accepts).of(Firewall)[0].is_first
    assert seen(rules="").of(Firewall) == []


# ---------------------------------------------------------------------------------------- the bridge

TABLES = """\
{"data":[["br-int",["set",[["uuid","a"],["uuid","b"],["uuid","c"]]],"",MODE,["map",IDS]]],"headings":["name","ports",\
"datapath_type","fail_mode","external_ids"]}
{"data":[[["uuid","a"],"br-int",["set",[]],["set",[]],["set",[]],["map",[]]],\
[["uuid","b"],"trunk0",["set",[]],["set",[]],["set",[]],["map",[]]],\
[["uuid","c"],"NAME",TAG,["set",[]],["set",[]],["map",[]]]],\
"headings":["_uuid","name","tag","trunks","vlan_mode","external_ids"]}
{"data":[["br-int","internal",["set",[]],["set",[]]],["trunk0","",["set",[]],["set",[]]],\
["NAME","TYPE",["set",[]],["set",[]]]],"headings":["name","type","error","mac"]}
"""
BORN = " priority=0 actions=NORMAL\n"
OUR_FLOW = " cookie=0xab12cd34000003e8, priority=10 actions=drop\n"
ANOTHERS_FLOW = " cookie=0xffff0000000003e8, priority=10 actions=drop\n"


def bridge(
    name: str = "trunk1", *, kind: str = "", tag: int | None = None, marks: Any = (), closed: bool = False
) -> str:
    """`br-int` with its uplink and one more port."""
    ids = [[f"cloudrepo-{one.installation}", str(one)] for one in marks]
    values = {
        **{"MODE": '"secure"' if closed else '["set",[]]', "IDS": json.dumps(ids), "NAME": name, "TYPE": kind},
        "TAG": '["set",[]]' if tag is None else str(tag),
    }
    found = TABLES
    for key, value in values.items():
        found = found.replace(key, value)
    return found


def test_flows_are_ours_by_their_cookie_and_a_closed_bridge_by_its_mark() -> None:
    state = seen()
    assert [(one.owner, len(one.flows), one.mark) for one in state.of(Flows)] == [("slice 1000", 2, mark(1000))]
    (closure,) = state.of(Closure)
    assert (closure.bridge, closure.is_closed, closure.is_needed, closure.mark) == ("br-int", True, False, mark(SHARED))
    assert state.facts.is_closed and not state.facts.was_closed
    assert seen(ports=text("ovs-empty.txt")).of(Flows) == []
    opened = seen(ports=bridge(marks=[mark(SHARED)]))
    assert not opened.of(Closure)[0].is_closed and opened.facts.is_closed, "somebody opened it again"
    assert not seen(ports=bridge(marks=[mark(SHARED, installation="ffff0000")])).facts.is_closed


METERS = (
    "meter=256256 kbps burst bands=\ntype=drop rate=8000 burst_size=1600\n\nmeter=9 kbps bands=\ntype=drop rate=1\n"
)


def test_a_meter_is_ours_by_the_nic_it_is_numbered_for_or_by_a_flow_that_names_it() -> None:
    """eth0 of VM 1001 has its TAP there; of the others only a flow, of us or of others, or nothing."""

    def whose(flows: str = "", meters: str = METERS) -> dict[int, Mark | None]:
        return {one.number: one.mark for one in seen(meters=meters, flows=flows).of(Meter)}

    assert whose() == {256256: mark(1000, 1001, "eth0"), 9: None}
    by_flow = OUR_FLOW.replace("drop", "meter:512003,NORMAL") + ANOTHERS_FLOW.replace("drop", "meter:9,NORMAL")
    theirs = mark(1000, 0, "eth9", installation="ffff0000")
    found = whose(by_flow, METERS + "\nmeter=512003 kbps bands=\ntype=drop rate=1\n")
    assert found == {256256: mark(1000, 1001, "eth0"), 9: theirs, 512003: mark(1000, 2000, "eth3")}
    (one, _) = seen(meters=METERS).of(Meter)
    assert (one.flags, one.bands) == (("burst", "kbps"), ("type=drop rate=8000 burst_size=1600",))
    assert seen(ports=text("ovs-empty.txt"), meters=METERS).of(Meter) == []


def test_what_meters_a_bridge_has_is_asked_only_where_it_matters() -> None:
    limited = replace(host(WORKER), is_limited=True)
    assert [step.name for step in probe.questions(limited)][-1] == "meter features"
    assert seen().facts.can_limit is None
    for most, expected in ((0, False), (7, True)):
        said = f"max_meter:{most} max_bands:1 max_color:0\nband_types: drop\ncapabilities: kbps burst\n"
        given = answers(**{"meter features": said})
        assert probe.read(limited, given).facts.can_limit is expected


def test_a_port_is_an_uplink_when_it_is_nobodys_trunk() -> None:
    def uplinks(**changes: Any) -> tuple[str, ...]:
        return seen(ports=bridge(**changes)).facts.uplinks

    assert uplinks() == ("trunk0", "trunk1")
    assert uplinks(name="vx1", kind="vxlan") == ("trunk0", "vx1")
    assert uplinks(name="tap_1001_eth0") == ("trunk0",), "a TAP that lost its mark is no way out"
    assert uplinks(tag=5) == uplinks(kind="internal") == ("trunk0",)
    assert seen().facts.uplinks == ("trunk0",), "a port whose device is missing cannot be named by a flow"


@pytest.mark.parametrize(
    ("port", "flows", "is_shared"),
    [
        ({}, BORN, False),
        ({"tag": 5}, BORN, True),
        ({"name": "mgmt0", "kind": "internal"}, BORN, True),
        ({"name": "tap_1001_eth0", "tag": 5}, BORN, False),
        ({}, f"{BORN} cookie=0x7, in_port=trunk0 actions=NORMAL\n", True),
        ({}, f"{BORN} in_port=trunk0 actions=NORMAL\n", True),
        ({}, BORN + OUR_FLOW, False),
        ({}, ANOTHERS_FLOW, True),
        ({"marks": [mark(SHARED, installation="ffff0000")]}, ANOTHERS_FLOW, False),
    ],
)
def test_a_bridge_is_shared_when_others_would_miss_it(port: dict[str, Any], flows: str, is_shared: bool) -> None:
    assert seen(ports=bridge(**port), flows=flows).facts.is_shared is is_shared


def test_a_bridge_whose_own_port_has_an_address_is_shared() -> None:
    rows = json.loads(text("ip-address.txt"))
    own = {"family": "inet", "local": "10.0.10.9", "prefixlen": 24}
    row = {"ifname": "br-int", "flags": ["UP"], "addr_info": [own]}
    assert seen(ports=bridge(), flows=BORN, addresses=[*rows, row]).facts.is_shared


def test_a_bridge_that_was_closed_before_us_is_not_ours_to_open() -> None:
    def was_closed(flows: str = "", **changes: Any) -> bool:
        return seen(ports=bridge(**changes), flows=flows).facts.was_closed

    assert was_closed(closed=True)
    assert not was_closed(BORN)
    assert not was_closed(closed=True, marks=[mark(SHARED)])
    assert was_closed(closed=True, marks=[mark(SHARED, None, Closure.WAS_CLOSED)])
    assert not was_closed(OUR_FLOW, closed=True), "our mark was lost"


# ---------------------------------------------------------------------------------------- announced


def test_a_tap_without_an_alias_is_ours_when_our_machines_directory_announces_it() -> None:
    before = {tap.device: tap.mark for tap in seen().of(Tap)}
    assert before["tap_1001_eth1"] is None, "nothing announces it: foreign"
    after = {tap.device: tap.mark for tap in seen(machines=[machine_row()]).of(Tap)}
    assert after["tap_1001_eth1"] == mark(1000, 1001, "eth1")
    assert after["foreign1"] is None and after["tap_1001_eth0"] == mark(1000, 1001, "eth0")


def held(name: str = "ip-netns.txt") -> dict[str, Any]:
    return {"ns-dhcp-vlan100": {"status": 0, "out": text(name), "err": ""}}


def test_a_namespace_is_marked_by_its_lo() -> None:
    (space,) = seen(namespaces=held()).of(Namespace)
    assert space == Namespace(namespace="ns-dhcp-vlan100", mark=mark(1000, None, "100"))


def test_an_unmarked_namespace_is_foreign_unless_our_servers_directory_announces_it() -> None:
    (space,) = seen(namespaces=held("ip-netns-fresh.txt")).of(Namespace)
    assert space.mark is None
    (space,) = seen(namespaces=held("ip-netns-fresh.txt"), servers=[server_row()]).of(Namespace)
    assert space == Namespace(namespace="ns-dhcp-vlan100", mark=mark(1000, None, "100"), is_marked=False)
    (space,) = seen(namespaces=held("ip-netns-fresh.txt"), servers=[server_row(101)]).of(Namespace)
    assert space.mark is None, "announced is another one"


@pytest.mark.parametrize(("alias", "is_ours"), [(str(mark(1000, None, "100")), True), ("theirs", False), (None, False)])
def test_an_announced_namespace_that_holds_a_strangers_device_stays_foreign(alias: str | None, is_ours: bool) -> None:
    rows = json.loads(text("ip-netns-fresh.txt"))
    rows.append({"ifname": "gw_vlan100", "flags": [], "addr_info": [], **({"ifalias": alias} if alias else {})})
    spaces = {"ns-dhcp-vlan100": {"status": 0, "out": json.dumps(rows), "err": ""}}
    (space,) = seen(namespaces=spaces, servers=[server_row()]).of(Namespace)
    assert (space.mark is not None) is is_ours


def test_a_device_without_an_alias_is_its_ports() -> None:
    (address,) = seen().of(Address)
    assert address.device == "gw_vlan400" and address.mark == mark(SHARED, None, "400")


def test_directories_without_a_mark_are_unfinished() -> None:
    state = seen(
        machines=[machine_row(mark=None, pid=None, alive=False, status=None)],
        servers=[server_row(100, files={}), server_row(400, files={})],
        disks=[{"dir": f"{DISKS}/vm-1002", "files": {"mark.json": '{"mark": "clou'}}],
    )
    assert [one.mark for one in (*state.of(Machine), *state.of(DhcpServer), *state.of(Disk))] == [
        mark(UNFINISHED, 1001),
        mark(UNFINISHED, None, "100"),
        mark(SHARED, None, "400"),
        mark(UNFINISHED, 1002),
    ]


def test_a_namespace_that_could_not_be_looked_into_is_left_out() -> None:
    spaces = {"ns-dhcp-vlan9": {"status": 1, "out": "", "err": "Invalid netns"}}
    assert seen(namespaces=spaces).of(Namespace) == []


# ---------------------------------------------------------------------------------------- nonsense

SWITCHES = ("forwarding", "forwarding devices", "IPv6 devices")  # plain text: what is not in it is off
NAMES = [step.name for step in probe.questions(host()) if step.name not in SWITCHES]
NONSENSE = ["", "\n", "no such file", "[", "{}", "5", '"x"', "[5]", '[{"dir": 5}]', "[" * 100000, "null"]


TRUE_ANSWERS = {
    ("flows", ""),
    ("flows", "\n"),
    ("meters", ""),
    ("meters", "\n"),
    ("rules", ""),
    ("rules", "\n"),
    ("namespaces", "{}"),
    ("routes", '[{"dir": 5}]'),
    *((name, text) for name in limits.PLACES for text in ("", "\n", "no such file", "null")),
}


@pytest.mark.parametrize(
    ("name", "nonsense"),
    [
        pytest.param(name, nonsense, id=f"{name}-{number}")
        for name in NAMES
        for number, nonsense in enumerate(NONSENSE)
        if (name, nonsense) not in TRUE_ANSWERS
    ],
)
def test_an_answer_that_is_none_is_that_hosts_error_and_never_a_fact(name: str, nonsense: str) -> None:
    with pytest.raises(HostError) as error:
        seen(**{name: nonsense})
    assert error.value.host == NODE and error.value.code == "host.probe" and f"about {name}" in str(error.value)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_or_refused_answer_is_said_with_the_hosts_words(name: str) -> None:
    missing = answers()
    del missing[name]
    with pytest.raises(HostError, match=f"did not answer the question about {name}"):
        probe.read(host(), missing)
    refused = answers()
    refused[name] = StepResult(name=name, label=f"look at {name}", status=1, err="no db", accepted=False)
    with pytest.raises(HostError, match=f"could not look at {name}: no db"):
        probe.read(host(), refused)


@given(name=st.sampled_from(NAMES), out=st.text(max_size=200))
def test_any_text_is_read_or_refused(name: str, out: str) -> None:
    try:
        seen(**{name: out})
    except HostError:
        pass


@given(name=st.sampled_from(["ports", "addresses", "routes"]), cut=st.integers(0, 8000))
def test_a_cut_answer_is_never_a_fact(name: str, cut: int) -> None:
    full = text({"ports": "ovs-ports.txt", "addresses": "ip-address.txt", "routes": "ip-route.txt"}[name]).rstrip()
    if cut < len(full):
        with pytest.raises(HostError):
            seen(**{name: full[:cut]})


@given(cut=st.integers(0, 1500))
def test_rules_cut_within_a_table_are_never_a_fact(cut: int) -> None:
    part = text("iptables-rules.txt")[:cut]
    if part.count("\n*") > part.count("\nCOMMIT"):
        with pytest.raises(HostError):
            seen(rules=part)


def test_damaged_fences_count_nothing() -> None:
    for damaged in ("", "[]", '{"scopes": {}}'):
        found = answers()
        found["fences"] = StepResult(name="fences", label="look", status=0, out=damaged)
        assert probe.read(host(), found).facts.counts.get("1000", 0) == 0
    found["fences"] = StepResult(name="fences", label="look", status=0, out='{"scopes": []}')
    with pytest.raises(HostError):
        probe.read(host(), found)
