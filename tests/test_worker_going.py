"""Workers that are drained, and those that are taken out: what is refused, and what becomes of the records."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.orchestrator import orchestrator
from orchestrator_api import OrchestratorAPI

A, B, NODE = "10.0.10.1", "10.0.10.2", "10.0.10.3"


@pytest.fixture
def api(tmp_path: Path) -> OrchestratorAPI:
    return orchestrator(tmp_path)


def place(api: OrchestratorAPI, count: int = 1) -> list[str]:
    """Where so many new VMs are put."""
    made, answer = api.create_slice("admin", "lab")
    assert made, answer
    found = []
    for number in range(count):
        done, vm = api.add_vm_to_slice("admin", answer["slice_id"], f"vm{number}", "cirros", 1)
        assert done, vm
        found.append(vm["worker_ip"])
    return found


def test_a_drained_worker_keeps_its_vms_and_gets_no_new_ones(api: OrchestratorAPI) -> None:
    assert set(place(api, 3)) == {A, B, NODE}
    done, answer = api.drain_worker(B)
    assert done and answer["is_drained"] and answer["changed"]
    assert [(one["name"], one["slice_id"], one["owner"]) for one in answer["vms"]] == [("vm1", 1000, "admin")]
    assert B not in place(api, 4)
    assert api.drain_worker(B)[1]["changed"] is False, "it was already"
    shown = {one["ip"]: one["is_drained"] for one in api.cluster_status()[1]["workers"]}
    assert shown == {A: False, B: True, NODE: False}
    for ip in (A, NODE):
        assert api.drain_worker(ip)[0]
    slice_id = api.db.list_slices()[-1]["slice_id"]
    refused, message = api.add_vm_to_slice("admin", slice_id, "more", "cirros", 1)
    assert not refused and message.count("drained (`./cloud worker drain") == 3
    assert api.drain_worker(B, undo=True)[1] == {**answer, "is_drained": False}
    assert api.add_vm_to_slice("admin", slice_id, "more", "cirros", 1)[1]["worker_ip"] == B
    assert api.drain_worker("10.9.9.9")[1].code == "worker.unknown"


def test_what_is_drained_is_so_in_the_next_process(api: OrchestratorAPI, tmp_path: Path) -> None:
    api.drain_worker(A)
    api.db.save()
    assert "drained:\n- 10.0.10.1\n" in (tmp_path / "database.yaml").read_text()


def test_a_worker_with_vms_is_not_taken_out_and_nothing_is_changed(api: OrchestratorAPI) -> None:
    assert place(api, 2) == [A, B]
    done, message = api.remove_worker(B)
    assert not done and message.code == "worker.used" and "(vm1, slice 1000)" in message
    assert "--force" in message and f"worker drain {B}" in message
    assert api.db.data["workers_list"] == [A, B, NODE] and not api.db.data.get("drained")
    done, answer = api.remove_worker(B, force=True)
    assert done and answer["left"] == "its VMs are there" and [one["name"] for one in answer["vms"]] == ["vm1"]
    assert api.db.data["workers_list"] == [A, NODE]
    assert len(api.get_slice("admin", 1000)[1]["vms"]) == 2, "they stay in the records"


def test_an_empty_worker_is_taken_out_and_the_network_node_stays_one(api: OrchestratorAPI) -> None:
    api.drain_worker(B)
    assert api.remove_worker(B) == (True, {"ip": B, "removed": [], "vms": [], "left": ""})
    assert api.db.data["workers_list"] == [A, NODE] and api.db.data["drained"] == []
    assert B not in api.db.data["workers"]
    assert api.remove_worker(B)[1].code == "worker.unknown"
    done, answer = api.remove_worker(NODE)
    assert done and "network node" in answer["left"]
