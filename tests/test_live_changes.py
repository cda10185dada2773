"""A slice that runs is changed: links and VMs come and go, nobody else is touched, and a crash leaves no half of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import HostUnreachable
from crashing import SLICE, Installation
from orchestrator_api import OrchestratorAPI

FIRST, SECOND, NODE = "10.0.10.1", "10.0.10.2", "10.0.10.3"
Work = Callable[[OrchestratorAPI], Any]


def running(folder: Path, count: int = 3, interfaces: int = 3) -> Installation:
    """Slice 1000 with VMs 1001, 1002, 1003 …, of which the first two are linked, and running."""
    folder.mkdir(exist_ok=True)
    made = Installation(folder)
    made.ok("create_slice", "admin", "lab")
    for number in range(1, count + 1):
        made.ok("add_vm_to_slice", "admin", SLICE, f"vm{number}", "cirros", interfaces)
    made.ok("create_link", "admin", SLICE, 1001, "eth1", 1002, "eth1")
    made.ok("deploy_slice", "admin", SLICE)
    return made


def processes(made: Installation) -> dict[str, list[int]]:
    return {ip: sorted(host.processes) for ip, host in made.hosts.items()}


def unplugged(made: Installation, vm_id: int) -> set[str]:
    """NICs of a machine that are pulled out."""
    for host in made.hosts.values():
        for process in host.processes.values():
            if any(f"/vm-{vm_id}/" in word for word in process.words):
                return {name.removeprefix("nic-") for name in process.links_down}
    raise AssertionError(f"VM {vm_id} does not run")


def differing(made: Installation) -> list[Any]:
    found = made.ok("drift")
    return [one for one in found["objects"] if one["state"] not in ("ok", "foreign")]


def test_a_link_is_plugged_in_and_pulled_out_and_no_machine_is_started_anew(tmp_path: Path) -> None:
    made = running(tmp_path)
    machines, before = processes(made), made.picture()
    assert unplugged(made, 1002) == {"eth0", "eth2", "eth3"}
    link = made.ok("create_link", "admin", SLICE, 1002, "eth2", 1003, "eth1")
    assert (link["link_id"], link["vm1_id"], link["vm2_interface"]) == (2, 1002, "eth1")
    assert unplugged(made, 1002) == {"eth0", "eth3"} and unplugged(made, 1003) == {"eth0", "eth2", "eth3"}
    assert unplugged(made, 1001) == {"eth0", "eth2", "eth3"}
    assert not differing(made)
    assert len([pid for pid in processes(made)[NODE] if pid not in machines[NODE]]) == 1, "a DHCP server"
    made.ok("remove_link", "admin", SLICE, 2)
    assert unplugged(made, 1002) == {"eth0", "eth2", "eth3"} and processes(made) == machines
    assert made.picture() == before


def test_only_hosts_of_its_ends_hear_of_a_link(tmp_path: Path) -> None:
    made = running(tmp_path, count=4)
    heard: list[str] = []
    executor = made.api.context.site.executor
    genuine = executor.run_plan

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        heard.append(host)
        return genuine(host, plan, **options)

    executor.run_plan = run_plan
    workers = {vm["vm_id"]: vm["worker_ip"] for vm in made.record()["vms"]}
    made.ok("create_link", "admin", SLICE, 1001, "eth2", 1004, "eth1")
    assert set(heard) == {NODE, workers[1001], workers[1004]} and SECOND not in heard


def test_a_network_of_three_is_joined_and_left(tmp_path: Path) -> None:
    made = running(tmp_path, count=4)
    made.ok("create_link", "admin", SLICE, 1001, "eth2", 1002, "eth2", more_ends=[(1003, "eth2")], subnet="10.9.0.0/24")
    (_, bus) = made.ok("get_slice", "admin", SLICE)["links"]
    assert (bus["cidr"], bus["more_ends"]) == ("10.9.0.0/24", [{"vm_id": 1003, "interface": "eth2"}])
    assert addresses(made, 2) == {1001: "10.9.0.10", 1002: "10.9.0.11", 1003: "10.9.0.12"}
    assert not differing(made)
    view = made.ok("set_ends", "admin", SLICE, 2, [(1001, "eth2"), (1003, "eth2"), (1004, "eth3")])
    assert view["more_ends"] == [{"vm_id": 1004, "interface": "eth3"}]
    assert addresses(made, 2) == {1001: "10.9.0.10", 1003: "10.9.0.12", 1004: "10.9.0.11"}
    assert "eth2" in unplugged(made, 1002) and "eth3" not in unplugged(made, 1004)
    assert not differing(made)
    made.ok("remove_vm", "admin", SLICE, 1003)
    assert addresses(made, 2) == {1001: "10.9.0.10", 1004: "10.9.0.11"}
    assert not differing(made)
    said = made.refused("set_ends", "admin", SLICE, 2, [(1001, "eth2")])
    assert said == "a link needs two ends: found 1"
    assert "eth1 of VM 1002 is already an end of link 1" in made.refused(
        "set_ends", "admin", SLICE, 2, [(1001, "eth2"), (1002, "eth1")]
    )


def addresses(made: Installation, link_id: int) -> dict[int, str]:
    return {
        vm["vm_id"]: one["ip_config"]["ip"]
        for vm in made.record()["vms"]
        for one in vm["interfaces"]
        if one["link_id"] == link_id
    }


def test_a_vm_comes_and_goes(tmp_path: Path) -> None:
    made = running(tmp_path)
    machines, before = processes(made), made.picture()
    vm = made.ok("add_vm_to_slice", "admin", SLICE, "new", "cirros", 2, True, worker=SECOND)
    assert (vm["worker_ip"], vm["status"]) == (SECOND, "design")
    made.ok("create_link", "admin", SLICE, vm["vm_id"], "eth1", 1001, "eth2")
    assert not differing(made), "it is on no network before it starts"
    made.ok("start_vm", "admin", SLICE, vm["vm_id"])
    assert unplugged(made, vm["vm_id"]) == {"eth2"} and "eth2" not in unplugged(made, 1001)
    assert all(set(machines[ip]) <= set(now) for ip, now in processes(made).items())
    assert not differing(made)
    assert made.ok("remove_vm", "admin", SLICE, vm["vm_id"]) == "VM removed"
    assert processes(made) == machines
    assert made.picture() == before
    assert [link["link_id"] for link in made.record()["links"]] == [1]


def test_a_worker_that_is_none_and_a_full_one_are_refused(tmp_path: Path) -> None:
    made = running(tmp_path)
    said = made.refused("add_vm_to_slice", "admin", SLICE, "new", "cirros", 2, worker="10.0.10.9")
    assert said == "there is no worker 10.0.10.9: there are 10.0.10.1, 10.0.10.2, 10.0.10.3"
    with made.api.db.transaction() as data:
        data["workers"][FIRST]["max_ram_gb"] = 0.5
    said = made.refused("add_vm_to_slice", "admin", SLICE, "new", "cirros", 2, worker=FIRST)
    assert "10.0.10.1: 0 of 0.5 GB RAM free, 0.5 wanted" in said and SECOND not in said


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        ("10.60.7.0/25", "overlaps 10.60.7.0/24"),
        ("10.1.2.3/24", "10.1.2.0/24 is the subnet of that address"),
        ("10.0.0.0/29", ""),
        ("224.0.0.0/8", "no subnet for hosts"),
    ],
)
def test_subnets(subnet: str, said: str, tmp_path: Path) -> None:
    made = running(tmp_path)
    if said:
        assert said in made.refused("create_link", "admin", SLICE, 1001, "eth2", 1002, "eth2", subnet=subnet)
        assert len(made.record()["links"]) == 1
    else:
        made.ok("create_link", "admin", SLICE, 1001, "eth2", 1002, "eth2", subnet=subnet)
        assert addresses(made, 2) == {1001: "10.0.0.3", 1002: "10.0.0.4"}


# ── what does not succeed ───────────────────────────────────────────────────────────────────────────────

CHANGES: dict[str, Work] = {
    "create_link": lambda api: api.create_link("admin", SLICE, 1002, "eth2", 1003, "eth1"),
    "remove_link": lambda api: api.remove_link("admin", SLICE, 1),
    "set_ends": lambda api: api.set_ends("admin", SLICE, 1, [(1001, "eth1"), (1003, "eth2")]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_host_that_is_away_leaves_all_as_it_was(name: str, tmp_path: Path) -> None:
    made = running(tmp_path)
    before, record = made.picture(), made.record()
    made.hosts[SECOND].is_up = False
    done, answer = CHANGES[name](made.api)
    assert not done and SECOND in str(answer)
    made.hosts[SECOND].is_up = True
    assert made.picture() == before and made.record() == record


def test_a_vm_whose_worker_is_away_is_not_removed(tmp_path: Path) -> None:
    made = running(tmp_path)
    before, record = made.picture(), made.record()
    made.hosts[SECOND].is_up = False
    assert SECOND in made.refused("remove_vm", "admin", SLICE, 1002)
    made.hosts[SECOND].is_up = True
    assert made.picture() == before and made.record() == record


def test_a_disk_goes_only_when_all_others_have_let_go_of_its_vm(tmp_path: Path) -> None:
    made = running(tmp_path)
    record, disks = made.record(), {path for host in made.hosts.values() for path in host.files if "img" in path}
    executor = made.api.context.site.executor
    genuine = executor.run_plan

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        if host == FIRST and any(step.name.endswith(":plug") for step in plan.steps):
            executor.run_plan = genuine
            raise HostUnreachable(FIRST, "the connection was lost")
        return genuine(host, plan, **options)

    executor.run_plan = run_plan
    assert "connection was lost" in made.refused("remove_vm", "admin", SLICE, 1002)
    assert {path for host in made.hosts.values() for path in host.files if "img" in path} == disks
    assert made.record()["links"] == record["links"] and made.states() == ("running", ["running"] * 3)
    assert not differing(made), "it is there again"


@pytest.mark.parametrize("name", CHANGES)
def test_a_crash_at_any_moment_leaves_what_a_repair_ends(name: str, tmp_path: Path) -> None:
    """The record says what should be, before the change or after it; what the monitor does by itself makes it so."""
    work = CHANGES[name]
    whole = running(tmp_path / "whole")
    before = whole.picture()
    life = whole.killed(0, work)
    after = whole.picture()
    assert after != before
    count = len(life.moments)
    for die_at in sorted({1, 2, count // 4, count // 2, 3 * count // 4, count - 2, count - 1, count}):
        made = running(tmp_path / str(die_at))
        was = made.record()
        made.killed(die_at, work)
        is_written = made.record()["links"] != was["links"]
        assert made.ok("unfinished_operations") == []
        made.ok("drift_fix")
        assert made.picture() == (after if is_written else before), life.moments[die_at - 1]
        assert not differing(made)
        made.ok("stop_slice", "admin", SLICE)


def test_a_note_that_was_not_written_is_written_when_it_is_done_again(tmp_path: Path) -> None:
    """Of machines that an earlier version started, nobody knows which NICs are plugged in: all are told."""
    made = running(tmp_path)
    for host in made.hosts.values():
        for path, text in host.files.items():
            if path.endswith("/mark") and "/vm-" in path:
                host.files[path] = "".join(text.splitlines(keepends=True)[:2])
                for process in host.processes.values():
                    process.links_down.clear()
    assert {one["name"] for one in differing(made)} == {"1001", "1002", "1003"}
    machines = processes(made)
    made.ok("drift_fix")
    assert not differing(made) and processes(made) == machines
    assert unplugged(made, 1002) == {"eth0", "eth2", "eth3"}


def test_hosts_that_fail_in_the_middle_are_put_back(tmp_path: Path) -> None:
    made = running(tmp_path)
    before, record = made.picture(), made.record()
    executor = made.api.context.site.executor
    genuine, calls = executor.run_plan, 0

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        nonlocal calls
        if host == SECOND and any(step.name.endswith(":plug") for step in plan.steps) and not calls:
            calls += 1
            raise HostUnreachable(SECOND, "the connection was lost")
        return genuine(host, plan, **options)

    executor.run_plan = run_plan
    assert "connection was lost" in made.refused("create_link", "admin", SLICE, 1002, "eth2", 1003, "eth1")
    assert calls == 1 and made.picture() == before and made.record() == record
