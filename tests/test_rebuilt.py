"""Records made anew from what hosts show: what is known again, and what is said not to be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.contradictions import Contradiction, contradictions
from cloudrepo.naming import MANUAL, UNFINISHED
from cloudrepo.rebuilt import ALWAYS_UNKNOWN, Rebuilt, rebuilt
from cloudrepo.remembrance import remembered
from cloudrepo.resources import Disk, HostFacts, HostState, Machine, Resource
from database import Database
from fakes.orchestrator import hosts_of, orchestrator
from worlds import WORKER, mark, vm

OTHER = "10.0.10.2"
LINK = {
    "link_id": 1, "vlan_id": 100, "vm1_id": 1001, "vm1_interface": "eth1", "vm2_id": 1002, "vm2_interface": "eth1",
    "cidr": "192.168.100.0/24", "gateway_ip": "192.168.100.1",
}  # fmt: skip


def linked(vm_id: int, worker: str) -> dict[str, Any]:
    one = vm(vm_id, (None, 100), worker=worker)
    one["interfaces"][1]["link_id"] = 1
    return one


def a_slice(**fields: Any) -> dict[str, Any]:
    return {
        "slice_id": 1000, "name": "lab", "owner": "ann", "topology_type": "linear", "status": "running",
        "vlan_pool_start": 100, "vlan_pool_end": 119, "vms": [linked(1001, WORKER), linked(1002, OTHER)],
        "links": [dict(LINK)], "deployed": True, **fields,
    }  # fmt: skip


def disk(of: dict[str, Any], one: dict[str, Any], **fields: Any) -> Disk:
    number = one["vm_id"]
    whole: dict[str, Any] = {
        "vm_id": number,
        "path": f"/home/ubuntu/vm_images/{one['name']}_img.qcow2",
        "directory": f"/d/vm-{number}",
        "base_dir": "/home/ubuntu/vm_images",
        "mark": mark(of["slice_id"], number, "disk"),
        "record": remembered(of, one),
    }
    return Disk(**{**whole, **fields})


def running(vm_id: int, pid: int) -> Machine:
    return Machine(vm_id=vm_id, uuid="u", mark=mark(1000, vm_id, "eth0.eth1"), pid=pid)


def made(by_host: dict[str, list[Resource]], **facts: Any) -> Rebuilt:
    states = {ip: HostState(resources, HostFacts(**facts)) for ip, resources in by_host.items()}
    return rebuilt(states, "~/vm_images")


def test_a_running_slice_is_as_it_was() -> None:
    record = a_slice()
    hosts: dict[str, list[Resource]] = {
        OTHER: [disk(record, record["vms"][1]), running(1002, 8)],
        WORKER: [disk(record, record["vms"][0]), running(1001, 7)],
    }
    found = made(hosts, operation=41)
    wanted = copy.deepcopy(record)
    for one, pid in zip(wanted["vms"], (7, 8), strict=True):
        one |= {"status": "running", "pid": pid}
    assert found.slices == {"1000": wanted}
    assert (found.owners, found.operation, found.vms) == (["ann"], 41, 2)
    assert found.unknown == [*ALWAYS_UNKNOWN]


def test_what_does_not_run_was_stopped_as_far_as_can_be_known() -> None:
    record = a_slice()
    disks: dict[str, list[Resource]] = {
        WORKER: [disk(record, record["vms"][0])],
        OTHER: [disk(record, record["vms"][1])],
    }
    found = made(disks)
    assert found.slices["1000"]["status"] == "stopped"
    assert {one["status"] for one in found.slices["1000"]["vms"]} == {"stopped"}
    assert any("never came up" in one for one in found.unknown)
    disks[WORKER].append(running(1001, 7))
    found = made(disks)
    assert [one["status"] for one in found.slices["1000"]["vms"]] == ["running", "stopped"]
    assert any("whether VM 1002 of slice 1000 (lab) was stopped or has died" in one for one in found.unknown)


def test_a_slice_that_was_never_deployed_is_in_design_and_its_links_are_unknown() -> None:
    record = a_slice(deployed=None, links=[])
    found = made({WORKER: [disk(record, vm(1001, (None, None)))]})
    assert found.slices["1000"]["status"] == "design" and found.slices["1000"]["vms"][0]["status"] == "design"
    assert any("the links of slice 1000" in one for one in found.unknown)


def test_a_link_without_its_other_end_is_left_out_and_said() -> None:
    record = a_slice()
    found = made({WORKER: [disk(record, record["vms"][0])]})
    assert found.slices["1000"]["links"] == []
    assert found.slices["1000"]["vms"][0]["interfaces"][1]["link_id"] is None
    assert any("its other end, VM 1002, was not found" in one for one in found.unknown)


@pytest.mark.parametrize(
    "change",
    [
        {"record": {}},
        {"record": {"vm_id": 1001}},
        {"record": {"vm_id": 7, "slice": {}}},
        {"path": ""},
        {"mark": mark(UNFINISHED, 1001)},
        {"mark": mark(MANUAL, 1001)},
    ],
)
def test_a_disk_that_does_not_say_what_it_was_is_named_and_no_record_is_invented(change: dict[str, Any]) -> None:
    record = a_slice()
    found = made({WORKER: [disk(record, record["vms"][0], **change)]})
    assert found.slices == {} and any("VM 1001" in one for one in found.unknown)


def test_what_a_later_deploy_wrote_is_believed_over_the_first_day() -> None:
    early, late = a_slice(deployed=None), a_slice()
    found = made({WORKER: [disk(late, late["vms"][0])], OTHER: [disk(early, early["vms"][1])]})
    assert found.slices["1000"]["deployed"] is True


def test_a_state_file_with_slices_is_put_aside_before_it_is_written_over(tmp_path: Path) -> None:
    api = orchestrator(tmp_path)
    api.create_slice("admin", "mine")
    api.add_vm_to_slice("admin", 1000, "vm1", "cirros", 1)
    name = api.site.installation
    done, message = api.state_rebuild(installation=name)
    assert not done and "it has slices" in message and "1000 (mine)" in message
    with api.db.transaction() as data:
        data["slices"]["1000"]["name"] = "changed since"
    done, report = api.state_rebuild(installation=name, force=True)
    assert done, report
    assert api.db.data["slices"]["1000"]["name"] == "mine"
    aside = Path(report["set_aside"])
    assert "changed since" in aside.read_text() and aside.stat().st_mode & 0o777 == 0o600


def bobs() -> dict[str, Any]:
    """The same slice, and somebody else's."""
    one = a_slice(owner="bob")
    for each in one["vms"]:
        each["owner"] = "bob"
    return one


def on_two_hosts(first: dict[str, Any], second: dict[str, Any]) -> list[Any]:
    """What is contradictory about two VMs of slice 1000, by what each host's mark files say of it."""
    states = {
        WORKER: HostState([disk(first, first["vms"][0])]),
        OTHER: HostState([disk(second, second["vms"][1])]),
    }
    return list(contradictions(states))


def test_hosts_that_agree_contradict_nothing() -> None:
    assert on_two_hosts(a_slice(), a_slice()) == []
    one = a_slice()
    twins = HostState([disk(one, one["vms"][0]), disk(bobs(), bobs()["vms"][0])])
    assert list(contradictions({WORKER: twins})) == [], "what one host says twice is told by `rebuilt`"


def test_hosts_that_disagree_on_an_owner_are_both_named() -> None:
    [found] = on_two_hosts(a_slice(), bobs())
    assert found.text == f"slice 1000 is ann's by VM 1001 on {WORKER}, and bob's by VM 1002 on {OTHER}"
    assert found.hosts == (WORKER, OTHER)


def test_equal_macs_on_two_hosts_are_both_named() -> None:
    other = a_slice()
    mac = other["vms"][0]["interfaces"][1]["mac"]
    other["vms"][1]["interfaces"][0]["mac"] = mac
    [found] = on_two_hosts(a_slice(), other)
    assert found.text == f"the MAC {mac} is that of VM 1001 on {WORKER} and of VM 1002 on {OTHER}"


def test_what_contradicts_itself_is_not_rebuilt_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = orchestrator(tmp_path)
    done, made = api.create_slice("admin", "lab")
    assert done, made
    for name in ("one", "two"):
        assert api.add_vm_to_slice("admin", made["slice_id"], name, "cirros", 1, False)[0]
    done, deployed = api.deploy_slice("admin", made["slice_id"])
    assert done, deployed
    before = copy.deepcopy(api.db.data["slices"])
    invented = Contradiction(text="a and b", hosts=("a", "b"))
    monkeypatch.setattr("control.rebuild.contradictions", lambda states: [*contradictions(states), invented])
    done, message = api.state_rebuild(installation=api.site.installation, force=True)
    assert not done and "the records are not rebuilt: a and b" in message and "without a or without b" in message
    assert message.code == "rebuild.contradiction" and api.db.data["slices"] == before


def test_two_installations_on_the_hosts_must_be_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two, empty = (orchestrator(tmp_path / name) for name in ("a", "b", "."))
    for api in (one, two):
        api.deployment_api.executor = api.site.executor = empty.executor
        api.deployment_api.qcow_manager.executor = empty.executor
    for api, name in ((one, "vm1"), (two, "vm2")):
        api.create_slice("admin", "s")
        done, _ = api.add_vm_to_slice("admin", 1000, name, "cirros", 1)
        assert done
    done, message = empty.state_rebuild()
    assert not done and one.site.installation in message and two.site.installation in message
    done, report = empty.state_rebuild(installation=two.site.installation)
    assert done and report["vms"] == 1
    assert [vm["name"] for vm in empty.db.data["slices"]["1000"]["vms"]] == ["vm2"]
    copy_ = tmp_path / "copied" / "database.yaml"
    copy_.parent.mkdir()
    copy_.write_bytes((tmp_path / "database.yaml").read_bytes())
    for path in (tmp_path / "database.yaml", copy_):  # with what is beside it, and the file alone
        assert Database(path).installation == two.site.installation


def test_a_host_that_does_not_answer_stops_it(tmp_path: Path) -> None:
    api = orchestrator(tmp_path)
    hosts_of(api)[OTHER].is_up = False
    done, message = api.state_rebuild()
    assert not done and OTHER in message and "--host" in message
