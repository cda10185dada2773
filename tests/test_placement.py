from __future__ import annotations

from typing import Any

import pytest

from cloudrepo.errors import RefusedError
from cloudrepo.placement import Choice, Wanted, choose_worker, next_worker, start_index
from cloudrepo.settings import Settings

A, B, C = "10.0.10.1", "10.0.10.2", "10.0.10.3"
SMALL = Wanted(1, 0.5, 1)


def worker(**changes: Any) -> dict[str, Any]:
    return {
        **{"max_vms": 10, "max_cores": 2, "max_ram_gb": 1, "max_disk_gb": 500},
        **{"used_cores": 0, "used_ram_gb": 0, "used_disk_gb": 0, **changes},
    }


def state(**workers: dict[str, Any]) -> dict[str, Any]:
    found = {ip: workers.get(name, worker()) for name, ip in (("a", A), ("b", B), ("c", C))}
    return {"workers_list": [A, B, C], "workers": found, "slices": {}, "placements": 7}


def test_the_four_documented_calls() -> None:
    index, given = 0, []
    for _ in range(4):
        choice = next_worker([A, B, C], index)
        given.append(choice.worker_ip)
        index = choice.next_index
    assert given == [A, B, C, A]


def test_a_worker_that_is_down_is_passed_over_without_favouring_its_neighbour() -> None:
    index, given = 0, []
    for _ in range(4):
        choice = next_worker([A, B, C], index, down={A})
        given.append(choice.worker_ip)
        index = choice.next_index
    assert given == [B, C, B, C]


def test_a_drained_worker_gets_nothing_and_the_refusal_names_it() -> None:
    drained = {**state(), "drained": [A, C]}
    assert [choose_worker(drained, Settings(), SMALL, index).worker_ip for index in range(3)] == [B, B, B]
    assert [next_worker([A, B, C], index, drained=[A, C]).worker_ip for index in range(3)] == [B, B, B]
    with pytest.raises(RefusedError, match=f"{A}: drained .`./cloud worker drain {A} --undo` ends that"):
        choose_worker({**state(), "drained": [A, B, C]}, Settings(), SMALL, 0)
    with pytest.raises(RefusedError, match=f"{A}: drained .*{B}: down"):
        next_worker([A, B], 0, down={B}, drained=[A])


def test_no_worker_at_all() -> None:
    with pytest.raises(RefusedError, match="there is no worker"):
        next_worker([], 0)
    with pytest.raises(RefusedError, match="there is no worker"):
        choose_worker({"workers_list": [], "workers": {}}, Settings(), SMALL, 0)
    with pytest.raises(RefusedError, match=f"{A}: down; {B}: down"):
        next_worker([A, B], 0, down={A, B})


def test_the_index_goes_on_from_the_placements_or_starts_at_0() -> None:
    assert start_index(state(), Settings()) == 7
    assert start_index(state(), Settings.of({"scheduler.index": "memory"})) == 0


def test_the_first_with_room_is_taken() -> None:
    full = worker(used_ram_gb=0.6)
    assert choose_worker(state(a=full), Settings(), SMALL, 0) == Choice(B, 2)
    assert choose_worker(state(b=full), Settings(), SMALL, 0) == Choice(A, 1)


def test_cores_are_overcommitted_eightfold_and_memory_is_not() -> None:
    settings = Settings()
    assert choose_worker(state(a=worker(used_cores=15)), settings, SMALL, 0).worker_ip == A
    assert choose_worker(state(a=worker(used_cores=16)), settings, SMALL, 0).worker_ip == B
    assert choose_worker(state(a=worker(used_ram_gb=0.5)), settings, SMALL, 0).worker_ip == A
    assert choose_worker(state(a=worker(used_ram_gb=0.501)), settings, SMALL, 0).worker_ip == B


def test_sums_of_tenths_fill_a_worker_exactly() -> None:
    part = worker(used_ram_gb=1.1, max_ram_gb=3.3)  # 1.1 + 2.2 is 3.3000000000000003
    assert choose_worker(state(a=part), Settings(), Wanted(1, 2.2, 1), 0).worker_ip == A


def test_disk_goes_by_free_space_not_by_the_sum_of_thin_disks() -> None:
    assert choose_worker(state(a=worker(used_disk_gb=5000)), Settings(), SMALL, 0).worker_ip == A
    assert choose_worker(state(a=worker(free_disk_gb=0.9)), Settings(), SMALL, 0).worker_ip == B


def test_a_full_cluster_says_what_each_worker_lacks() -> None:
    data = state(a=worker(used_ram_gb=0.8), b=worker(used_cores=16), c=worker(free_disk_gb=0.5))
    with pytest.raises(RefusedError) as caught:
        choose_worker(data, Settings(), SMALL, 1)
    text = str(caught.value)
    assert f"{A}: 0.2 of 1 GB RAM free, 0.5 wanted" in text
    assert f"{B}: 0 of 16 cores free, 1 wanted" in text
    assert f"{C}: 0.5 GB disk free, 1 wanted" in text


def test_capacity_off_is_the_documented_order() -> None:
    data = state(a=worker(used_ram_gb=100))
    assert choose_worker(data, Settings.of({"scheduler.capacity": "off"}), SMALL, 0).worker_ip == A


def test_max_vms_counts_only_when_enforced() -> None:
    data = state(a=worker(max_vms=1))
    data["slices"] = {"1000": {"vms": [{"worker_ip": A}]}}
    assert choose_worker(data, Settings(), SMALL, 0).worker_ip == A
    assert choose_worker(data, Settings.of({"scheduler.max_vms": "enforce"}), SMALL, 0).worker_ip == B


def test_the_network_node_can_be_left_out() -> None:
    settings = Settings.of({"scheduler.network_node": "exclude"})
    assert choose_worker(state(), settings, SMALL, 2) == Choice(A, 4)
    assert choose_worker(state(), Settings(), SMALL, 2) == Choice(C, 3)


def test_what_discovery_did_not_find_gets_nothing() -> None:
    data = state()
    del data["workers"][A]
    assert choose_worker(data, Settings(), SMALL, 0).worker_ip == B
    data["workers"] = {}  # nobody asked yet
    assert choose_worker(data, Settings(), SMALL, 0).worker_ip == A
    assert choose_worker(data, Settings(), SMALL, 0, down={A}).worker_ip == B
