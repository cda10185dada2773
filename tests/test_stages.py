from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudrepo.diff import Change
from cloudrepo.plan import Qmp, Remove, Run, SignalProcess, Spawn, Stage, Step, StopProcess
from cloudrepo.resources import (
    Address,
    DhcpServer,
    Disk,
    Firewall,
    HostFacts,
    Machine,
    Namespace,
    Port,
    Resource,
    Tap,
)
from cloudrepo.settings import Settings
from cloudrepo.stages import NETWORK_GATE, StageBuilder
from worlds import NODE, World, host, mark

FACTS = HostFacts(datapath="system", has_bridge=True, uplinks=("trunk0",), uplink="up0")
FULL = World(links={100: (10,), 101: (11,)}, internet=(101,), vms={1001: (400, 100), 1002: (None, 101)})
DISK = Disk(vm_id=1001, path="/i/vm1.qcow2", directory="/i/.c/vm-1001", base_dir="/i", mark=mark(1000, 1001, "disk"))


class Seen(dict[Any, Any]):
    facts = FACTS

    def of(self, kind: type) -> list[Any]:
        return []


def wanted(world: World = FULL) -> list[Resource]:
    return world.wanted(host(NODE), Seen())  # type: ignore[arg-type]


def stages(changes: list[Change], **options: Any) -> dict[str, Stage]:
    return {stage.name: stage for stage in StageBuilder(host(NODE), FACTS, **options).build(changes)}


def made(resources: list[Resource], **options: Any) -> dict[str, Stage]:
    return stages([Change(wanted=one) for one in resources], **options)


def gone(resources: list[Resource], **options: Any) -> dict[str, Stage]:
    return stages([Change(seen=one) for one in resources], **options)


def every(found: dict[str, Stage]) -> list[Step]:
    return [step for stage in found.values() for step in stage.steps]


def runs(found: dict[str, Stage], tool: str) -> list[Run]:
    return [step.act for step in every(found) if isinstance(step.act, Run) and step.act.words[0] == tool]


def pick(kind: type[Resource], world: World = FULL) -> Any:
    return next(one for one in wanted(world) if isinstance(one, kind))


# ---------------------------------------------------------------------------------------- order


def test_making_goes_from_the_wires_inwards() -> None:
    found = made(wanted())
    assert list(found) == ["announce", "NAT", "devices", "servers", "forwarding", "machines"]
    names = [step.name for step in found["devices"].steps]
    assert names == ["devices:add", "devices:no-ipv6", "devices:up", "ports:add"]


def test_taking_away_goes_from_the_machine_outwards() -> None:
    found = gone([*wanted(), DISK])
    assert list(found) == ["stop machines", "stop servers", "remove networks", "remove files"]
    names = [step.name for step in found["remove networks"].steps]
    assert names == ["nat:no-forwarding", "devices:remove", "ports:remove", "nat:remove"]
    files = [step.name for step in found["remove files"].steps]
    assert files[-3:] == ["disk1001:remove", "disk1001:forget", "root:remove"]


def test_everything_away_comes_before_anything_new() -> None:
    old, new = wanted(World(links={100: ()}, vms={1001: (None,)})), wanted(World(links={101: ()}, vms={1002: (None,)}))
    found = list(stages([*(Change(wanted=one) for one in new), *(Change(seen=one) for one in old)]))
    assert found.index("remove files") < found.index("announce")


def test_no_change_no_stage() -> None:
    assert stages([]) == {}


def test_step_names_are_unique_and_keep_a_lane() -> None:
    names = [step.name for step in every(stages([Change(wanted=one, seen=one) for one in [*wanted(), DISK]]))]
    assert len(names) == len(set(names)) and all(":" in name for name in names)


def test_a_server_and_its_namespace_are_in_one_lane_and_in_order() -> None:
    servers = made(wanted())["servers"]
    assert servers.parallel > 1
    lane = [step.name for step in servers.steps if step.name.startswith("ns-dhcp-vlan100:")]
    assert lane == [
        f"ns-dhcp-vlan100:{what}" for what in ("move", "addresses", "hosts", "dnsmasq.conf", "arp", "serve")
    ]


def test_the_gate_stands_before_the_machines_and_nowhere_else() -> None:
    assert all(not stage.gate for stage in made(wanted()).values())
    found = made(wanted(), gate=NETWORK_GATE)
    assert [name for name, stage in found.items() if stage.gate] == ["machines"]
    keeper = made(wanted(World(links={100: ()})), gate=NETWORK_GATE)
    assert keeper["machines"].steps == () and keeper["machines"].gate, "who keeps the gate arrives at it too"


# ---------------------------------------------------------------------------------------- few calls


def test_one_transaction_for_all_ports_and_one_batch_for_all_devices() -> None:
    found = made(wanted())
    (transaction,) = runs(found, "ovs-vsctl")
    assert transaction.words.count("add-port") == len([one for one in wanted() if isinstance(one, Port)])
    add, *moves = [one for one in runs(found, "ip") if one.words == ("ip", "-batch", "-")]
    assert add.stdin.count("tuntap add") == 4 and add.stdin.count("netns add") == 3
    moved = "".join(one.stdin for one in moves)
    assert moved.count(" netns ") == 5 and "gw_vlan400 netns" not in moved, "all but the gateway of VLAN 400"
    away = gone(wanted())
    (transaction,) = runs(away, "ovs-vsctl")
    assert transaction.words.count("del-port") == len([one for one in wanted() if isinstance(one, Port)])
    (batch,) = runs(away, "ip")
    assert (
        batch.stdin.count("link delete group") == 1
        and batch.stdin.count("link set") == 4
        and batch.stdin.count("netns delete") == 3
    )


def test_the_hosts_end_of_a_tap_speaks_no_ipv6_and_that_before_it_is_up() -> None:
    """Else a guest that announces itself as a router gives the worker an address beside it."""
    added, *_, up = [run.stdin for run in runs(made(wanted()), "ip") if "tap_" in run.stdin]
    assert " up" not in added and up.count(" up\n") == up.count("\n") == added.count("tuntap add")
    names = [step.name for step in every(made(wanted()))]
    assert names.index("devices:no-ipv6") < names.index("devices:up")
    closed = [word for run in runs(made(wanted()), "sysctl") for word in run.words if "/tap_" in word]
    assert closed and all(word.startswith("net/ipv6/conf/tap_") and word.endswith("/disable_ipv6=1") for word in closed)


def test_internal_ports_go_with_their_port_and_not_by_ip() -> None:
    (batch,) = runs(gone(wanted()), "ip")
    assert "gw_vlan" not in batch.stdin and "dhcp_v" not in batch.stdin.replace("ns-dhcp", "")


def test_what_announces_other_things_is_written_before_and_removed_after_them() -> None:
    found = made(wanted())
    assert {step.name for step in found["announce"].steps} >= {"vm1001:mark", "dhcp100:mark", "dhcp400:mark"}
    away = gone(wanted())
    assert {step.name for step in away["remove files"].steps} >= {"vm1001:clear", "dhcp100:clear"}


# ---------------------------------------------------------------------------------------- changes


def test_other_reservations_only_are_a_reload() -> None:
    server: DhcpServer = pick(DhcpServer)
    found = stages([Change(wanted=server, seen=replace(server, hosts="", pid=7))])
    assert list(found) == ["servers"]
    write, reload = found["servers"].steps
    assert write.name.endswith(":hosts") and isinstance(reload.act, SignalProcess) and reload.act.signal == "HUP"


def test_another_configuration_or_a_dead_server_is_a_restart_stopped_first() -> None:
    server: DhcpServer = pick(DhcpServer)
    for seen in (replace(server, config="port=0"), replace(server, is_running=False)):
        found = stages([Change(wanted=server, seen=seen)])
        assert list(found) == ["stop servers", "remove files", "announce", "servers"]
        assert isinstance(found["stop servers"].steps[0].act, StopProcess)
        assert "dnsmasq" in runs(found, "nsenter")[-1].words


def test_a_replaced_machine_is_stopped_and_cleared_before_it_is_started() -> None:
    machine: Machine = pick(Machine)
    found = stages([Change(wanted=machine, seen=replace(machine, is_running=False, spec=None))])
    assert list(found) == ["stop machines", "remove files", "announce", "machines"]


def test_a_port_is_retagged_in_place() -> None:
    port: Port = pick(Port)
    found = stages([Change(wanted=port, seen=replace(port, tag=7))])
    (transaction,) = runs(found, "ovs-vsctl")
    assert list(found) == ["devices"] and f"tag={port.tag}" in transaction.words and "del-port" not in transaction.words


def test_a_tap_is_set_right_in_place_unless_its_account_differs() -> None:
    tap: Tap = pick(Tap)
    right, up = runs(stages([Change(wanted=tap, seen=replace(tap, is_up=False))]), "ip")
    assert "tuntap" not in right.stdin and up.stdin == f"link set dev {tap.device} up\n"
    away, new, _up = runs(stages([Change(wanted=tap, seen=replace(tap, user="root"))]), "ip")
    assert "link delete" in away.stdin and "tuntap add" in new.stdin


def test_an_unmarked_namespace_is_marked_and_not_made_again() -> None:
    space: Namespace = pick(Namespace)
    (batch,) = runs(stages([Change(wanted=space, seen=replace(space, is_marked=False))]), "ip")
    assert "netns add" not in batch.stdin and f"alias {space.mark}" in batch.stdin


def test_stale_addresses_go_and_a_device_in_place_is_not_moved() -> None:
    address: Address = pick(Address)
    seen = replace(address, addresses=("192.168.100.9/24",))
    (batch,) = runs(stages([Change(wanted=address, seen=seen)]), "ip")
    assert batch.words[:3] == ("ip", "-n", address.namespace) and "address delete 192.168.100.9/24" in batch.stdin


def switches(found: dict[str, Stage]) -> list[tuple[str, ...]]:
    """What each `sysctl` about forwarding sets, as `device=0` or `device=1`."""
    told = [tuple(word.split("/")[3:] for word in run.words[2:]) for run in runs(found, "sysctl")]
    return [tuple(f"{device}{what.removeprefix('forwarding')}" for device, what in one) for one in told]


def test_rules_are_replaced_in_one_transaction_while_nothing_is_forwarded_from_vlan_400() -> None:
    firewall: Firewall = pick(Firewall)
    found = stages([Change(wanted=firewall, seen=replace(firewall, rules=firewall.rules[:4]))])
    assert list(found) == ["NAT", "forwarding"]
    assert [step.name for step in every(found)] == ["nat:halt", "nat:add", "nat:forwarding"]
    (restore,) = runs(found, "iptables-restore")
    assert restore.words == ("iptables-restore", "--noflush", "--wait", "10") and "-X" not in restore.stdin
    assert restore.stdin.startswith("*nat"), "what is let through is translated"
    assert switches(found) == [("gw_vlan400=0",), ("gw_vlan400=1", "up0=1")]


def test_rules_that_were_lost_come_before_the_port_they_are_about() -> None:
    found = made([one for one in wanted() if isinstance(one, (Firewall, Port, Address))])
    assert [name for name in found if name != "servers"] == ["NAT", "devices", "forwarding"]


def test_an_uplink_that_is_used_no_more_stops_forwarding() -> None:
    firewall: Firewall = pick(Firewall)
    rules = tuple(
        (table, tuple("old0" if word == "up0" else word for word in words)) for table, words in firewall.rules
    )
    seen = replace(firewall, rules=rules, forwarding=("docker0", "old0", "gw_vlan400"))
    assert switches(stages([Change(wanted=firewall, seen=seen)])) == [
        ("gw_vlan400=0", "old0=0"),
        ("gw_vlan400=1", "up0=1"),
    ]
    assert switches(gone([seen])) == [("gw_vlan400=0", "old0=0")]


def test_forwarding_is_switched_off_again_by_the_uplink_unless_the_node_forwards_for_everybody() -> None:
    firewall: Firewall = pick(Firewall)
    assert switches(gone([firewall])) == [("gw_vlan400=0", "up0=0")]
    assert runs(gone([firewall]), "sysctl")[0].words[1] == "-qew", "the port may be gone"
    forwards = StageBuilder(host(NODE), replace(FACTS, forwards=True)).build([Change(seen=firewall)])
    assert switches({stage.name: stage for stage in forwards}) == [("gw_vlan400=0",)]
    flushed = replace(firewall, rules=tuple(one for one in firewall.rules if "-o" not in one[1]))
    assert switches(gone([flushed])) == [("gw_vlan400=0", "up0=0")]


# ---------------------------------------------------------------------------------------- machines


def test_a_machine_is_started_by_its_account_and_proved_by_its_uuid() -> None:
    machine: Machine = pick(Machine)
    start, told = made([machine])["machines"].steps
    assert isinstance(start.act, Spawn) and start.act.user == "ubuntu" and start.act.words[0] == "qemu-system-x86_64"
    assert isinstance(told.act, Qmp) and told.act.expect_uuid == machine.uuid
    assert (start.vm_id, told.vm_id, told.label) == (1001, 1001, "VM 1001 (vm1) runs")
    daemon = made(wanted(replace(FULL, settings=Settings.of({"qemu.detach": "daemonize"}))))["machines"].steps[0].act
    assert isinstance(daemon, Run) and daemon.user == "ubuntu" and "-daemonize" in daemon.words


def test_a_machine_is_stopped_by_uuid_with_its_graces() -> None:
    machine: Machine = pick(Machine)
    found = gone([machine], stop_grace_s=20.0, quit_grace_s=3.0)["stop machines"]
    (stop,) = [step.act for step in found.steps]
    assert isinstance(stop, StopProcess)
    assert (stop.token, stop.grace_s, stop.quit_s) == (machine.uuid, 20.0, 3.0)
    assert stop.timeout_s > 23 and found.parallel > 2, "guests of a worker are waited for together"


def test_a_disk_is_removed_within_the_image_folder_only() -> None:
    overlay, directory = (step.act for step in gone([DISK])["remove files"].steps)
    assert overlay == Remove(path="/i/vm1.qcow2", within="/i")
    assert directory == Remove(path="/i/.c/vm-1001", within=host(NODE).disks_root, tree=True)
    (only,) = gone([replace(DISK, path="")])["remove files"].steps
    assert only.name == "disk1001:forget"


def test_a_disk_that_was_published_and_not_marked_yet_goes_as_another_name_of_its_draft() -> None:
    overlay, _ = (step.act for step in gone([replace(DISK, path="", candidate="/i/vm1.qcow2")])["remove files"].steps)
    assert overlay == Remove(path="/i/vm1.qcow2", within="/i", same_as="/i/.c/vm-1001/disk.qcow2")
