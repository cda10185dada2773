"""Drift told and mended on hosts in memory; the lab has the same with real tools (tests/on_lab/test_drift.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cloudrepo.drift import State
from cloudrepo.naming import MANUAL, UNFINISHED
from control.processes import begin_work, end_work, this_process
from drift_scene import VLAN, Scene, scene
from fakes.host import Device, ModelHost
from worlds import NODE, WORKER, mark

__all__ = ["scene"]  # the fixture
THEIRS = "0000beef"


# ---------------------------------------------------------------------------------------- on hosts in memory


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
