"""Drift told and mended on hosts in memory; the lab has the same with real tools (tests/on_lab/test_drift.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import drift
from cloudrepo.aspects import aspects
from cloudrepo.drift import State
from cloudrepo.naming import MANUAL, SHARED, UNFINISHED
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
from control.processes import begin_work, end_work, this_process
from fakes.host import Device, ModelHost
from fakes.orchestrator import hosts_of, orchestrator
from orchestrator_api import OrchestratorAPI
from worlds import NODE, OURS, WORKER, mark

Record = dict[str, Any]
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


# ---------------------------------------------------------------------------------------- on hosts in memory


class Scene:
    """A running slice of two linked VMs, one with internet access."""

    def __init__(self, folder: Path) -> None:
        self.api: OrchestratorAPI = orchestrator(folder)
        self.hosts = hosts_of(self.api)
        self.ok("create_slice", "admin", "test")
        self.ok("add_vm_to_slice", "admin", 1000, "vm1", "cirros", 1, True)
        self.ok("add_vm_to_slice", "admin", 1000, "vm2", "cirros", 1)
        self.ok("create_link", "admin", 1000, 1001, "eth1", 1002, "eth1")
        self.ok("deploy_slice", "admin", 1000)

    def ok(self, call: str, *args: Any) -> Any:
        done, payload = getattr(self.api, call)(*args)
        assert done, payload
        return payload

    @property
    def installation(self) -> str:
        return self.api.site.installation

    def differences(self, report: Record | None = None) -> dict[str, str]:
        """By kind and name: state, and what differs."""
        found = report or self.ok("drift")
        return {
            f"{one['kind']} {one['name']}": " ".join(
                [one["state"], *(f"{each['what']}={each['found']}" for each in one["differs"])]
            )
            for one in found["objects"]
            if one["difference"]
        }

    def mended(self) -> Record:
        answer: Record = self.ok("drift_fix")
        assert answer["failed"] == [] and self.differences(answer["after"]) == {}
        return answer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


VLAN = 100
Mutation = Callable[[ModelHost, Scene], Any]


def _kill(host: ModelHost, words: str) -> None:
    for pid, process in list(host.processes.items()):
        if any(words in word for word in process.words):
            del host.processes[pid]


def _drop(mapping: dict[str, Any], part: str) -> None:
    del mapping[next(key for key in mapping if part in key)]


def _set_mode(host: ModelHost, path: str) -> None:
    host.owners[host.inodes[path]] = ("root", 0o666)


VM1 = "/home/ubuntu/vm_images/vm1_img.qcow2"
MUTATIONS: dict[str, tuple[str, Mutation, str, str]] = {
    "TAP deleted": (WORKER, lambda h, s: h.devices.pop("tap_1001_eth1"), "TAP tap_1001_eth1", "missing"),
    "TAP down": (
        WORKER,
        lambda h, s: setattr(h.devices["tap_1001_eth1"], "is_up", False),
        "TAP tap_1001_eth1",
        "changed state=down",
    ),
    "TAP of another owner": (
        WORKER,
        lambda h, s: setattr(h.devices["tap_1001_eth1"], "user", "nobody"),
        "TAP tap_1001_eth1",
        "changed owner=nobody",
    ),
    "TAP with an address by a guest's router advertisement": (
        WORKER,
        lambda h, s: h.devices["tap_1001_eth1"].addresses.append("fd66::5054:ff:fe00:1/64"),
        "TAP tap_1001_eth1",
        "changed the host=answers on it",
    ),
    "alias gone": (
        WORKER,
        lambda h, s: setattr(h.devices["tap_1001_eth1"], "alias", ""),
        "TAP tap_1001_eth1",
        "changed mark=none",
    ),
    "port on another bridge": (
        WORKER,
        lambda h, s: h.elsewhere.update({"tap_1001_eth1": h.ports.pop("tap_1001_eth1")}),
        "port tap_1001_eth1",
        "changed bridge=br-other",
    ),
    "port a trunk": (
        WORKER,
        lambda h, s: h.ports["tap_1001_eth1"].update(trunks=[5]),
        "port tap_1001_eth1",
        "changed trunks=5",
    ),
    "external_ids gone": (
        WORKER,
        lambda h, s: h.ports["tap_1001_eth1"]["ids"].clear(),
        "port tap_1001_eth1",
        "changed mark=none",
    ),
    "QEMU killed": (WORKER, lambda h, s: _kill(h, "guest=vm1"), "VM 1001", "missing process=none"),
    "QEMU frozen": (
        WORKER,
        lambda h, s: setattr(next(iter(h.processes.values())), "is_frozen", True),
        "VM 1001",
        "changed process=frozen",
    ),
    "mark file of a VM gone": (
        WORKER,
        lambda h, s: h.files.pop(f"/run/cloudrepo-{s.installation}/vm-1001/mark"),
        "VM 1001",
        "changed mark=none",
    ),
    "pid file gone": (
        WORKER,
        lambda h, s: _drop(h.files, "vm-1001/pid"),
        "VM 1001",
        "changed pid file=does not name it",
    ),
    "disk deleted": (WORKER, lambda h, s: (h.files.pop(VM1), h.inodes.pop(VM1)), "disk 1001", "missing file=gone"),
    "disk open to all": (
        WORKER,
        lambda h, s: _set_mode(h, VM1),
        "disk 1001",
        "changed owner=root mode=0666",
    ),
    "mark file of a disk cut": (
        WORKER,
        lambda h, s: h.files.update({next(p for p in h.files if "vm-1001/mark.json" in p): '{"mark": "clou'}),
        "disk 1001",
        "changed mark=none",
    ),
    "base image gone": (WORKER, lambda h, s: _drop(h.files, "/base/"), "disk 1001", "changed base image=gone"),
    "namespace gone": (
        NODE,
        lambda h, s: h._ip(("netns", "delete", f"ns-dhcp-vlan{VLAN}"), ""),
        f"namespace ns-dhcp-vlan{VLAN}",
        "missing",
    ),
    "gateway without its address": (
        NODE,
        lambda h, s: h.devices[f"gw_vlan{VLAN}"].addresses.clear(),
        f"address gw_vlan{VLAN} in ns-dhcp-vlan{VLAN}",
        "changed addresses=none",
    ),
    "gateway in the node's own namespace": (
        NODE,
        lambda h, s: setattr(h.devices[f"gw_vlan{VLAN}"], "namespace", ""),
        f"address gw_vlan{VLAN} in ns-dhcp-vlan{VLAN}",
        "changed namespace=the node's own",
    ),
    "dnsmasq killed": (
        NODE,
        lambda h, s: _kill(h, f"dhcp-{VLAN}/"),
        f"DHCP server ns-dhcp-vlan{VLAN}",
        "missing process=none",
    ),
    "MASQUERADE gone": (
        NODE,
        lambda h, s: h.rules["nat"][f"CR-{s.installation}-POSTROUTING"].clear(),
        "NAT rules 400",
        "changed rule=none",
    ),
}


@pytest.mark.parametrize("case", MUTATIONS)
def test_what_befell_an_object_is_named_and_set_right(scene: Scene, case: str) -> None:
    ip, mutation, name, said = MUTATIONS[case]
    assert scene.differences() == {}
    before = {host: one.picture() for host, one in scene.hosts.items()}
    mutation(scene.hosts[ip], scene)
    assert scene.differences()[name].startswith(said)
    scene.mended()
    for host, picture in before.items():
        after = scene.hosts[host].picture()
        for part in ("ports", "devices", "namespaces", "rules", "directories", "processes"):
            assert after[part] == picture[part], (host, part)


@pytest.mark.parametrize(
    "case", ["QEMU frozen", "pid file gone", "mark file of a VM gone", "disk deleted", "alias gone"]
)
def test_a_machine_is_not_started_anew_where_it_can_go_on(scene: Scene, case: str) -> None:
    ip, mutation, _, _ = MUTATIONS[case]
    before = set(scene.hosts[ip].processes)
    mutation(scene.hosts[ip], scene)
    scene.mended()
    assert set(scene.hosts[ip].processes) == before
    assert not any(process.is_frozen for process in scene.hosts[ip].processes.values())


def test_a_machine_that_lost_its_tap_is_started_anew_and_its_record_knows(scene: Scene) -> None:
    worker = scene.hosts[WORKER]
    (before,) = worker.processes
    del worker.devices["tap_1001_eth1"]
    scene.mended()
    (after,) = worker.processes
    assert after != before
    assert scene.ok("get_slice", "admin", 1000)["vms"][0]["pid"] == after


def test_a_second_qemu_of_a_machine_is_ended_and_the_first_runs_on(scene: Scene) -> None:
    worker = scene.hosts[WORKER]
    (first,) = worker.processes
    worker.processes[9999] = type(worker.processes[first])(worker.processes[first].words)
    assert scene.differences() == {"VM 1001": "changed further processes=9999"}
    scene.mended()
    assert list(worker.processes) == [first]


# ---------------------------------------------------------------------------------------- another slice's mark


def carry(scene: Scene, scope: str, what: str) -> None:
    """Give an object of slice 1000 a mark that names another one."""

    def text(vm_id: int | None, detail: str) -> str:
        return str(mark(scope, vm_id, detail, installation=scene.installation))

    worker, node = scene.hosts[WORKER], scene.hosts[NODE]
    run = f"/run/cloudrepo-{scene.installation}"
    changes: dict[str, Callable[[], Any]] = {
        "TAP tap_1001_eth1": lambda: setattr(worker.devices["tap_1001_eth1"], "alias", text(1001, "eth1")),
        "port tap_1001_eth1": lambda: worker.ports["tap_1001_eth1"]["ids"].update(cloudrepo=text(1001, "eth1")),
        f"namespace ns-dhcp-vlan{VLAN}": lambda: node.namespaces.update({f"ns-dhcp-vlan{VLAN}": text(None, "100")}),
        f"address gw_vlan{VLAN} in ns-dhcp-vlan{VLAN}": lambda: setattr(
            node.devices[f"gw_vlan{VLAN}"], "alias", text(None, "100")
        ),
        f"DHCP server ns-dhcp-vlan{VLAN}": lambda: node.files.update(
            {f"{run}/dhcp-{VLAN}/mark": text(None, "100") + "\n"}
        ),
        "VM 1001": lambda: worker.files.update({f"{run}/vm-1001/mark": text(1001, "vm1") + "\n"}),
    }
    changes[what]()


BARE = (
    *("TAP tap_1001_eth1", "port tap_1001_eth1", f"namespace ns-dhcp-vlan{VLAN}"),
    *(f"address gw_vlan{VLAN} in ns-dhcp-vlan{VLAN}", f"DHCP server ns-dhcp-vlan{VLAN}"),
)


@pytest.mark.parametrize("scope", ["977", "1003", SHARED])  # in no record; a slice that has no such object; VLAN 400
@pytest.mark.parametrize("what", BARE)
def test_another_slices_mark_on_what_only_our_records_have_is_set_right(scene: Scene, what: str, scope: str) -> None:
    scene.ok("create_slice", "admin", "other")
    assert "1003" in scene.api.db.data["slices"]
    before = {host: one.picture() for host, one in scene.hosts.items()}
    guests = {host: set(one.processes) for host, one in scene.hosts.items() if host != NODE}
    carry(scene, scope, what)
    assert scene.differences()[what].startswith(f"changed mark=cloudrepo/{scene.installation}/{scope}/")
    answer = scene.mended()
    assert answer["left"] == []
    for host, picture in before.items():
        after = scene.hosts[host].picture()
        for part in ("ports", "devices", "namespaces", "rules", "directories", "processes"):
            assert after[part] == picture[part], (host, part)
    for host, running in guests.items():
        assert set(scene.hosts[host].processes) == running, "no guest was started anew"


def test_it_is_set_right_before_the_slice_whose_mark_it_is_takes_it_away(scene: Scene) -> None:
    """What carries the mark of a slice that is gone is an orphan of it, but for what our records have."""
    worker = scene.hosts[WORKER]
    orphan = str(mark(977, 978, "eth0", installation=scene.installation))
    worker.devices = {"tap_978_eth0": Device("tap", user="ubuntu", alias=orphan), **worker.devices}
    carry(scene, "977", "TAP tap_1001_eth1")
    running = set(worker.processes)
    scene.mended()
    assert set(worker.processes) == running and "tap_978_eth0" not in worker.devices
    locks = [plan.scopes for ip, plan in scene.api.executor.plans if ip == WORKER]
    assert ("1000", "977") in locks, "whoever is at that slice is not met at the object"


def test_another_slices_mark_is_left_where_records_are_in_doubt_or_a_guest_may_be_lost(scene: Scene) -> None:
    scene.ok("create_slice", "admin", "other")
    vm = scene.ok("add_vm_to_slice", "admin", 1003, "vm3", "cirros", 1)
    with scene.api.db.transaction() as data:  # what no history makes: two slices with one number
        (record,) = [one for one in data["slices"]["1003"]["vms"] if one["vm_id"] == vm["vm_id"]]
        record["vm_id"] = 1001
        record["operation"] = {"kind": "add_vm", "process": "", "number": 1}  # it comes or goes: nothing is said of it
    for scope, what in (("1003", "TAP tap_1001_eth1"), (MANUAL, "port tap_1001_eth1"), ("977", "VM 1001")):
        carry(scene, scope, what)
    found = {name: said for name, said in scene.differences().items() if name in (*BARE, "VM 1001")}
    assert set(found) == {"TAP tap_1001_eth1", "port tap_1001_eth1", "VM 1001"}
    answer = scene.ok("drift_fix")
    left = " ".join(one["why"] for one in answer["left"])
    assert all(name in left for name in found) and "mark of another slice of ours and is not touched" in left
    assert scene.hosts[WORKER].devices["tap_1001_eth1"].alias.split("/")[2] == "1003"


def test_a_deploy_does_not_take_what_another_slice_has_left(scene: Scene) -> None:
    """Numbers are used again after an older state was put back: what stands there may be a slice that runs."""
    scene.ok("stop_slice", "admin", 1000)
    ours = str(mark(977, 1001, "eth1", installation=scene.installation))
    scene.hosts[WORKER].devices["tap_1001_eth1"] = Device("tap", user="ubuntu", alias=ours)
    done, message = scene.api.start_slice("admin", 1000)
    assert not done and "tap_1001_eth1 is there and is not ours" in message
    assert scene.hosts[WORKER].devices["tap_1001_eth1"].alias == ours


# ---------------------------------------------------------------------------------------- orphans


def test_orphans_go_and_what_was_made_by_hand_or_by_others_stays(scene: Scene) -> None:
    worker, node = scene.hosts[WORKER], scene.hosts[NODE]
    ours = str(mark(977, 978, "eth0", installation=scene.installation))
    worker.devices["tap_978_eth0"] = Device("tap", user="ubuntu", alias=ours)
    worker.devices["foreign0"] = Device("tap", alias="keep me")
    node.namespaces["ns-dhcp-vlan999"] = ""
    by_hand = str(mark(MANUAL, 7, "eth0", installation=scene.installation))
    worker.devices["tap_7_eth0"] = Device("tap", user="ubuntu", alias=by_hand)
    assert scene.differences() == {"TAP tap_978_eth0": "orphan"}
    answer = scene.mended()
    assert answer["fixed"] == [{"about": "what is left of slice 977", "hosts": {WORKER: ["remove TAP tap_978_eth0"]}}]
    assert {"foreign0", "tap_7_eth0"} <= worker.devices.keys() and "tap_978_eth0" not in worker.devices
    assert "ns-dhcp-vlan999" in node.namespaces
    states = {one["name"]: one["state"] for one in answer["after"]["objects"]}
    assert (states["foreign0"], states["tap_7_eth0"], states["ns-dhcp-vlan999"]) == ("foreign", "manual", "foreign")


def test_what_is_left_of_a_deleted_internet_slice_goes_with_its_own_lock(scene: Scene) -> None:
    with scene.api.db.transaction() as data:
        del data["slices"]["1000"]
    assert set(scene.differences().values()) == {"orphan"}
    scene.mended()
    for host in scene.hosts.values():
        assert host.namespaces == {} and host.processes == {} and set(host.ports) == {"trunk0"}


def busy(scene: Scene, process: str) -> None:
    """Somebody is deploying it; when it is this process, then with a thread that lives."""
    begin_work(str(scene.api.db.path), 999)
    with scene.api.db.transaction() as data:
        record = data["slices"]["1000"]
        record["status"] = "deploying"
        record["operation"] = {"number": 999, "kind": "deploy", "process": process, "began": "now"}


def test_a_slice_somebody_is_at_is_named_and_left_alone(scene: Scene) -> None:
    busy(scene, this_process())
    scene.hosts[WORKER].devices["tap_1001_eth1"].is_up = False
    report = scene.ok("drift")
    assert scene.differences(report) == {}
    (unsettled,) = report["unsettled"]
    assert unsettled["slice_id"] == 1000 and unsettled["busy"] and "is at it" in unsettled["why"]
    answer = scene.ok("drift_fix")
    assert answer["fixed"] == [] and [one["about"] for one in answer["left"]] == ["slice 1000"]
    assert not scene.hosts[WORKER].devices["tap_1001_eth1"].is_up
    done, message = scene.api.drift_fix(1000)
    assert not done and "slice 1000 is not set right now" in message and "is at it" in message
    done, message = scene.api.cleanup()
    assert not done and "while somebody is at work" in message
    assert scene.hosts[WORKER].processes


def test_a_slice_whose_operation_died_is_for_resume_and_not_for_fix(scene: Scene) -> None:
    busy(scene, "gone:1:1" if this_process().startswith("gone") else f"{this_process().split(':')[0]}:999999:1")
    (unsettled,) = scene.ok("drift")["unsettled"]
    assert not unsettled["busy"]
    assert "`./cloud resume 1000` goes on, `./cloud rollback 1000` takes back" in unsettled["why"]


@pytest.mark.parametrize("command", ["deploy", "stop", "delete"])
def test_a_slice_in_error_with_nothing_to_resume_names_what_works_there(scene: Scene, command: str) -> None:
    with scene.api.db.transaction() as data:
        data["slices"]["1000"] |= {"status": "error", "error": "10.0.10.1: no space left."}
    (unsettled,) = scene.ok("drift")["unsettled"]
    commands = "`./cloud deploy 1000`, `./cloud stop 1000` or `./cloud delete 1000`"
    assert unsettled["why"] == f"slice 1000 is error: 10.0.10.1: no space left. {commands} ends that"
    scene.ok(f"{command}_slice", "admin", 1000)
    assert scene.ok("drift")["unsettled"] == []


def test_a_slice_that_waits_for_a_host_says_so_and_can_be_resumed(scene: Scene) -> None:
    scene.hosts["10.0.10.2"].is_up = False
    done, _ = scene.api.stop_slice("admin", 1000)
    assert not done and scene.api.db.data["slices"]["1000"]["status"] == "error"
    scene.hosts["10.0.10.2"].is_up = True
    (unsettled,) = scene.ok("drift")["unsettled"]
    assert "when 10.0.10.2 can be reached, `./cloud resume 1000` as well" in unsettled["why"]
    scene.ok("resume", "admin", 1000)
    assert scene.ok("drift")["unsettled"] == []


def test_a_stop_that_comes_first_is_not_undone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look was taken while the slice ran; by the time of the message it is being stopped."""
    scene.hosts[WORKER].devices["tap_1001_eth1"].is_up = False
    genuine = scene.api.executor.run_plan

    def then_taken(host: str, plan: Any, **options: Any) -> Any:
        if scene.api.db.data["slices"]["1000"].get("operation", {}).get("kind") == "repair":
            busy(scene, this_process())
        return genuine(host, plan, **options)

    monkeypatch.setattr(scene.api.executor, "run_plan", then_taken)
    answer = scene.ok("drift_fix")
    assert answer["fixed"] == [] and "not worked on any more" in answer["left"][0]["why"]
    assert scene.api.db.data["slices"]["1000"]["operation"]["number"] == 999
    assert not scene.hosts[WORKER].devices["tap_1001_eth1"].is_up


def test_a_host_that_does_not_answer_is_named_and_the_rest_is_told(scene: Scene) -> None:
    scene.hosts["10.0.10.2"].is_up = False
    scene.hosts[WORKER].devices["tap_1001_eth1"].is_up = False
    report = scene.ok("drift")
    assert list(report["unreachable"]) == ["10.0.10.2"]
    assert list(scene.differences(report)) == ["TAP tap_1001_eth1"]


def test_a_replaced_disk_is_never_touched_and_the_note_says_where_ours_is(scene: Scene) -> None:
    worker = scene.hosts[WORKER]
    worker.inodes[VM1], worker.files[VM1] = 777, "theirs"
    assert scene.differences() == {"disk 1001": "changed file=another"}
    answer = scene.ok("drift_fix")
    (left,) = [one for one in answer["after"]["objects"] if one["difference"]]
    assert "vm-1001/overlay.qcow2" in left["note"] and worker.files[VM1] == "theirs"
    del worker.files[VM1], worker.inodes[VM1]
    scene.mended()
    assert worker.files[VM1] == "qcow2"


def test_a_deleted_slice_leaves_the_file_that_took_its_disks_place(scene: Scene) -> None:
    worker = scene.hosts[WORKER]
    worker.inodes[VM1], worker.files[VM1] = 777, "theirs"
    scene.ok("delete_slice", "admin", 1000)
    assert worker.files[VM1] == "theirs"
    assert not any("vm-1001" in path for path in (*worker.files, *worker.directories))


def test_one_slice_alone_by_its_number(scene: Scene) -> None:
    report = scene.ok("drift", 1000)
    assert {one["scope"] for one in report["objects"]} == {"1000"}
    done, message = scene.api.drift(4711)
    assert (done, str(message)) == (False, "Slice not found")


def test_looking_changes_nothing_and_needs_one_message_a_host(scene: Scene) -> None:
    plans: list[Any] = scene.api.executor.plans
    pictures = [one.picture() for one in scene.hosts.values()]
    operation = scene.api.db.data["operation"]
    del plans[:]
    scene.ok("drift")
    assert sorted(ip for ip, _ in plans) == sorted(scene.hosts) and all(plan.operation == 0 for _, plan in plans)
    assert [one.picture() for one in scene.hosts.values()] == pictures
    assert scene.api.db.data["operation"] == operation


def test_the_report_has_its_documented_keys(scene: Scene) -> None:
    report = json.loads(json.dumps(scene.ok("drift")))
    assert set(report) == {
        *("schema_version", "installation", "differences", "counts", "objects", "unsettled", "unreachable", "problems"),
    }
    assert set(report["counts"]) == {state.value for state in State}
    assert all(
        set(one) == {"host", "kind", "name", "state", "difference", "scope", "installation", "differs", "note"}
        for one in report["objects"]
    )


def test_unfinished_directories_of_nobody_are_orphans(scene: Scene) -> None:
    worker = scene.hosts[WORKER]
    worker.directories.add(f"/run/cloudrepo-{scene.installation}/vm-4242")
    report = scene.ok("drift")
    (found,) = [one for one in report["objects"] if one["difference"]]
    assert (found["kind"], found["name"], found["state"], found["scope"]) == ("VM", "4242", "orphan", UNFINISHED)
    scene.mended()
    assert not any("4242" in path for path in worker.directories)


def test_nothing_is_cleaned_up_while_a_disk_is_made_there(scene: Scene) -> None:
    state, operation = (
        str(scene.api.db.path),
        {"number": 7, "kind": "add_vm", "process": this_process(), "began": "now"},
    )
    with scene.api.db.transaction() as data:
        vm = data["slices"]["1000"]["vms"][0]
        vm["status"], vm["operation"] = "creating", operation
    begin_work(state, 7)
    try:
        done, said = scene.api.cleanup()
        assert not done and f"VM {vm['vm_id']} of slice 1000" in said and "is at it since now" in said
    finally:
        end_work(state, 7)
    assert scene.api.cleanup()[0]


def test_events_say_what_was_set_right_and_what_was_cleaned_up(scene: Scene) -> None:
    del scene.hosts[WORKER].devices["tap_1001_eth1"]
    scene.mended()
    scene.ok("cleanup")
    said = [(one.what, one.about, one.outcome) for one in scene.api.context.events.read()]
    assert ("drift.fixed", "slice 1000", "done") in said
    assert ("host.cleaned", f"worker {NODE}", "done") in said
    record = scene.ok("get_slice", "admin", 1000)
    assert record["status"] == "error" and "removed by a clean-up" in record["error"]
