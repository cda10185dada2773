"""In what two objects differ, and in which state each is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudrepo import drift
from cloudrepo.aspects import aspects
from cloudrepo.naming import MANUAL
from cloudrepo.resources import (
    Address,
    DhcpServer,
    Disk,
    Firewall,
    HostFacts,
    HostState,
    Machine,
    MachineSpec,
    Meter,
    Namespace,
    Nic,
    Port,
    Process,
    Resource,
    Stranger,
    Tap,
)
from worlds import OURS, mark

THEIRS = "0000beef"


# ---------------------------------------------------------------------------------------- in what two objects differ

TAP = Tap(device="tap_1001_eth1", user="ubuntu", mark=mark(1000, 1001, "eth1"))
PORT = Port(device="tap_1001_eth1", tag=100, mark=mark(1000, 1001, "eth1"))
METER = Meter(number=7, flags=("burst", "kbps"), bands=("type=drop rate=8",), mark=mark(1000, 1001, "eth1"))
TUNNEL = replace(PORT, vlan_mode=Port.TUNNEL, outer=Port.OUTER)
SPACE = Namespace(namespace="ns-dhcp-vlan100", mark=mark(1000, None, "100"))
GATEWAY = Address(
    device="gw_vlan100", namespace="ns-dhcp-vlan100", addresses=("192.168.100.1/24",), mark=mark(1000, None, "100")
)
SERVER = DhcpServer(
    vlan_id=100, namespace="ns-dhcp-vlan100", config="port=0\nno-ping\n", hosts="a\nb\n", mark=mark(1000, None, "100")
)
SPEC = MachineSpec(
    vm_name="vm1", cores=1, ram_mib=512, disk="/i/vm1.qcow2", vnc_bind="::1", vnc_port=5901, accelerator="tcg",
    nics=(Nic(interface="eth1", device="tap_1001_eth1", mac="52:54:00:03:e9:01", has_carrier=True),),
    vnet_hdr=True, user="ubuntu",
)  # fmt: skip
VM = Machine(vm_id=1001, uuid="u", mark=mark(1000, 1001, "eth1"), spec=SPEC)
SEEN_VM = replace(VM, spec=None, wiring=SPEC.wiring, plugged=("eth1",), status="running", pid=7)
DISK = Disk(
    vm_id=1001, path="/i/vm1.qcow2", directory="/i/.c/vm-1001", base_dir="/i", owner="ubuntu", mode=0o600,
    mark=mark(1000, 1001, "disk"), record={"name": "vm1"},
)  # fmt: skip
FIRST, SECOND = ("filter", ("-A", "CR-F", "-j", "A")), ("filter", ("-A", "CR-F", "-j", "B"))
RULES = Firewall(vlan_id=400, rules=(FIRST, SECOND), forwarding=("gw_vlan400",), mark=mark("shared", None, "400"))


def stray(pid: int) -> Process:
    return Process(pid=pid, start=1, token="u")


DIFFERENCES: list[tuple[Resource, Resource, str]] = [
    (TAP, replace(TAP, user="nobody"), "owner nobody, wanted ubuntu"),
    (TAP, replace(TAP, is_up=False), "state down, wanted up"),
    (TAP, replace(TAP, is_silent=False), "the host answers on it, wanted silent on it"),
    (TAP, replace(TAP, is_marked=False), f"mark none, wanted {TAP.mark}"),
    (TAP, replace(TAP, mark=mark(1000, 1002, "eth1")), f"mark {mark(1000, 1002, 'eth1')}, wanted {TAP.mark}"),
    (PORT, replace(PORT, tag=105), "tag 105, wanted 100"),
    (PORT, replace(PORT, tag=None), "tag none, wanted 100"),
    (PORT, replace(PORT, trunks=(7, 8)), "trunks 7 8, wanted none"),
    (PORT, replace(PORT, vlan_mode="native-tagged"), "VLAN mode native-tagged, wanted access"),
    (METER, replace(METER, flags=("kbps",)), "flags kbps, wanted burst kbps"),
    (METER, replace(METER, bands=("type=drop rate=9",)), "bands type=drop rate=9, wanted type=drop rate=8"),
    (METER, replace(METER, mark=mark(1000, 1001, "eth2")), f"mark {mark(1000, 1001, 'eth2')}, wanted {METER.mark}"),
    (TUNNEL, replace(TUNNEL, vlan_mode=""), "VLAN mode access, wanted dot1q-tunnel"),
    (TUNNEL, replace(TUNNEL, outer=""), "outer tag none, wanted 802.1q"),
    (TUNNEL, replace(TUNNEL, cvlans=(7, 8)), "inner tags 7 8, wanted none"),
    (PORT, replace(PORT, bridge="br-ex"), "bridge br-ex, wanted the integration bridge"),
    (PORT, replace(PORT, is_internal=True), "type internal, wanted system"),
    (PORT, replace(PORT, odd_type="vxlan"), "type vxlan, wanted system"),
    (replace(PORT, is_internal=True), replace(PORT, is_internal=True, has_device=False), "device gone, wanted there"),
    (PORT, replace(PORT, is_marked=False), f"mark none, wanted {PORT.mark}"),
    (SPACE, replace(SPACE, is_marked=False), f"mark none, wanted {SPACE.mark}"),
    (GATEWAY, replace(GATEWAY, addresses=()), "addresses none, wanted 192.168.100.1/24"),
    (
        GATEWAY,
        replace(GATEWAY, addresses=("10.9.9.1/24", "192.168.100.1/24")),
        "addresses 10.9.9.1/24 192.168.100.1/24, wanted 192.168.100.1/24",
    ),
    (GATEWAY, replace(GATEWAY, is_up=False), "state down, wanted up"),
    (GATEWAY, replace(GATEWAY, namespace=""), "namespace the node's own, wanted ns-dhcp-vlan100"),
    (SERVER, replace(SERVER, is_running=False), "process none, wanted running"),
    (SERVER, replace(SERVER, config="port=0\nlog-dhcp\n"), "configuration log-dhcp, wanted no-ping"),
    (SERVER, replace(SERVER, hosts="b\n"), "reservations none, wanted a"),
    (SERVER, replace(SERVER, arguments="--log-dhcp"), "further arguments --log-dhcp, wanted none"),
    (SERVER, replace(SERVER, strays=(stray(9),)), "further processes 9, wanted none"),
    (SERVER, replace(SERVER, is_in_place=False), "namespace one without a name, wanted ns-dhcp-vlan100"),
    (SERVER, replace(SERVER, is_marked=False), f"mark none, wanted {SERVER.mark}"),
    (VM, replace(SEEN_VM, is_running=False), "process none, wanted running"),
    (VM, replace(SEEN_VM, status="frozen"), "process frozen, wanted running"),
    (VM, replace(SEEN_VM, status="paused"), "process paused, wanted running"),
    (VM, replace(SEEN_VM, lost=("tap_1001_eth1",)), "TAPs it does not hold tap_1001_eth1, wanted none"),
    (VM, replace(SEEN_VM, strays=(stray(9), stray(10))), "further processes 9 10, wanted none"),
    (VM, replace(SEEN_VM, is_recorded=False), "pid file does not name it, wanted names its process"),
    (VM, replace(SEEN_VM, is_marked=False), f"mark none, wanted {VM.mark}"),
    (VM, replace(SEEN_VM, wiring=replace(SPEC.wiring, disk="/x")), "disk /x, wanted /i/vm1.qcow2"),
    (
        VM,
        replace(SEEN_VM, wiring=replace(SPEC.wiring, nics=(("byhand0", "52:54:00:03:e9:01"),))),
        "NICs byhand0 52:54:00:03:e9:01, wanted tap_1001_eth1 52:54:00:03:e9:01",
    ),
    (VM, replace(SEEN_VM, plugged=()), "plugged NICs none, wanted eth1"),
    (
        VM,
        replace(SEEN_VM, plugged=None),
        "plugged NICs none, wanted eth1",
    ),
    (DISK, replace(DISK, file="gone"), "file gone, wanted there"),
    (DISK, replace(DISK, file="another"), "file another, wanted there"),
    (DISK, replace(DISK, owner="root"), "owner root, wanted ubuntu"),
    (DISK, replace(DISK, mode=0o644), "mode 0644, wanted 0600"),
    (DISK, replace(DISK, has_base=False), "base image gone, wanted there"),
    (DISK, replace(DISK, is_kept=False), "kept copy none, wanted there"),
    (DISK, replace(DISK, is_marked=False), f"mark none, wanted {DISK.mark}"),
    (DISK, replace(DISK, record={"name": "x"}), 'name in its mark file "x", wanted "vm1"'),
    (RULES, replace(RULES, rules=(FIRST,)), "rule none, wanted filter -A CR-F -j B"),
    (RULES, replace(RULES, rules=(FIRST, SECOND, ("nat", ("-A", "X")))), "rule nat -A X, wanted none"),
    (RULES, replace(RULES, rules=(SECOND, FIRST)), "order filter -A CR-F -j B, wanted filter -A CR-F -j A"),
    (RULES, replace(RULES, rules=(FIRST, SECOND, SECOND)), "order filter -A CR-F -j B, wanted none"),
    (RULES, replace(RULES, forwarding=()), "forwarding by gw_vlan400 off, wanted on"),
    (RULES, replace(RULES, is_first=False), "jumps behind rules of others, wanted first"),
    (replace(GATEWAY, namespace=""), replace(GATEWAY, namespace="", has_ipv6=True), "IPv6 open, wanted closed"),
]


@pytest.mark.parametrize(
    ("wanted", "found", "said"), [pytest.param(*one, id=f"{one[0].KIND}: {one[2][:40]}") for one in DIFFERENCES]
)
def test_what_differs_is_said_with_both_values(wanted: Resource, found: Resource, said: str) -> None:
    assert [str(one) for one in aspects(wanted, found)] == [said]


@pytest.mark.parametrize("same", [TAP, PORT, SPACE, GATEWAY, SERVER, RULES, DISK], ids=lambda one: one.KIND)
def test_an_object_does_not_differ_from_itself(same: Resource) -> None:
    assert aspects(same, same) == ()


@pytest.mark.parametrize("status", ["", "running", "suspended"])
def test_a_machine_that_did_not_answer_or_sleeps_by_its_own_wish_is_no_drift(status: str) -> None:
    assert aspects(VM, replace(SEEN_VM, status=status)) == ()


def test_what_more_a_node_forwards_and_how_a_machine_is_confined_is_no_drift() -> None:
    assert aspects(RULES, replace(RULES, forwarding=("eth9", "gw_vlan400"))) == ()
    assert aspects(GATEWAY, replace(GATEWAY, has_ipv6=True)) == (), "in a namespace of its own it leads nowhere"
    later = replace(VM, spec=replace(SPEC, accelerator="kvm", vnc_bind="0.0.0.0", vnet_hdr=False, detach="daemonize"))
    assert aspects(later, SEEN_VM) == ()


# ---------------------------------------------------------------------------------------- in which state an object is


def states(wanted: list[Resource], seen: list[Resource], **options: Any) -> dict[str, str]:
    facts = HostFacts(strangers=tuple(options.pop("strangers", ())))
    found = drift.classify("h", wanted, HostState(seen, facts), installation=OURS, bridge="br-int", **options)
    return {f"{one.kind} {one.name}": one.state.value + (" in the way" if one.is_in_the_way else "") for one in found}


def test_the_six_states() -> None:
    assert states(
        [PORT, TAP, SPACE],
        [
            *(PORT, replace(SPACE, is_marked=False)),
            Port(device="gw_vlan9", tag=9, is_internal=True, mark=mark(999, None, "9")),
            Tap(device="tap_7_eth0", user="ubuntu", mark=mark(MANUAL, 7, "eth0")),
            Tap(device="foreign0", user="", mark=None),
        ],
    ) == {
        "port tap_1001_eth1": "ok",
        "TAP tap_1001_eth1": "missing",
        "namespace ns-dhcp-vlan100": "changed",
        "port gw_vlan9": "orphan",
        "TAP tap_7_eth0": "manual",
        "TAP foreign0": "foreign",
    }


def test_only_what_stands_where_ours_should_be_makes_a_foreign_object_a_difference() -> None:
    theirs = replace(TAP, mark=mark(1000, 1001, "eth1", installation=THEIRS))
    assert states([TAP], [theirs]) == {"TAP tap_1001_eth1": "foreign in the way"}
    assert states([], [theirs]) == {"TAP tap_1001_eth1": "foreign"}
    (finding,) = drift.classify("h", [TAP], HostState([theirs]), installation=OURS, bridge="br-int")
    assert finding.is_difference and finding.whose == THEIRS and "stands where ours should be" in finding.note


def test_another_slices_mark_on_our_object_is_told_and_left() -> None:
    assert states([TAP], [replace(TAP, mark=mark(1100, 1001, "eth1"))]) == {"TAP tap_1001_eth1": "changed in the way"}


def test_uplink_and_other_bridges_are_nobodys_business_and_others_ports_are() -> None:
    seen: list[Resource] = [
        Port(device="trunk0", tag=None, mark=None),
        Port(device="br-int", tag=None, is_internal=True, mark=None),
        Port(device="elsewhere", tag=None, is_internal=True, bridge="br-ex", mark=None),
        Port(device="vx0", tag=None, odd_type="vxlan", mark=None),
        Port(device="strange0", tag=None, is_internal=True, mark=None),
        Port(device="foreign0", tag=None, mark=None),
        Tap(device="foreign0", user="", mark=None),
    ]
    assert states([], seen) == {f"{kind} {name}": "foreign" for kind, name in (
        ("port", "strange0"), ("port", "foreign0"), ("TAP", "foreign0"),
    )}  # fmt: skip


def test_a_process_that_is_gone_is_missing_and_so_is_a_file() -> None:
    gone: list[Resource] = [
        replace(SEEN_VM, is_running=False),
        replace(SERVER, is_running=False),
        replace(DISK, file="gone"),
    ]
    assert set(states([VM, SERVER, DISK], gone).values()) == {"missing"}
    other = replace(SEEN_VM, is_running=False, strays=(stray(9),))
    assert states([VM], [other]) == {"VM 1001": "changed"}, "another process runs as it"


def test_nothing_is_said_of_what_is_not_settled() -> None:
    orphan = Tap(device="tap_2_eth0", user="ubuntu", mark=mark(1100, 2, "eth0"))
    assert states([], [orphan], is_settled=lambda one: one.scope != "1100") == {}
    assert states([], [orphan], is_settled=lambda one: True) == {"TAP tap_2_eth0": "orphan"}


def test_strangers_that_are_no_objects_of_ours_are_named_with_their_installation() -> None:
    found = [Stranger(kind="chain", name="CR-0000beef-INPUT", whose=THEIRS)]
    assert states([], [], strangers=found) == {"chain CR-0000beef-INPUT": "foreign"}
