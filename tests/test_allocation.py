from __future__ import annotations

from typing import Any

import pytest

from cloudrepo import allocation
from cloudrepo.errors import RefusedError
from cloudrepo.settings import Settings

VLAN = Settings().vlan
CIDR = "10.60.7.0/24"


def state(*records: dict[str, Any]) -> dict[str, Any]:
    return {"slices": {str(record["slice_id"]): record for record in records}, "next_vm_id": 1000}


def a_slice(slice_id: int, start: int | None = None, links: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    entries = [{"link_id": number + 1, "vlan_id": vlan} for number, vlan in enumerate(links)]
    end = None if start is None else start + 19
    return {"slice_id": slice_id, "vlan_pool_start": start, "vlan_pool_end": end, "vms": [], "links": entries, **more}


def a_vm(vm_id: int, **more: Any) -> dict[str, Any]:
    return {
        **{"vm_id": vm_id, "worker_ip": "w1", "vnc_port": None, "qcow_image": None, "interfaces": []},
        **more,
    }


def on_400(ip: str) -> list[dict[str, Any]]:
    return [{"mac": "", "vlan_id": 400, "ip_config": {"ip": ip}}]


def test_slices_and_vms_share_one_counter() -> None:
    data = state()
    assert [allocation.next_id(data) for _ in range(3)] == [1000, 1001, 1002]
    assert data["next_vm_id"] == 1003


def test_operations_count_up() -> None:
    data = state()
    assert [allocation.next_operation(data) for _ in range(3)] == [1, 2, 3]


def test_links_count_from_1() -> None:
    assert allocation.next_link_id(a_slice(1000)) == 1
    assert allocation.next_link_id(a_slice(1000, 100, (100, 101))) == 3


@pytest.mark.parametrize(("slice_id", "block"), [(1000, (100, 119)), (1001, (120, 139)), (1099, (2080, 2099))])
def test_documented_blocks(slice_id: int, block: tuple[int, int]) -> None:
    assert allocation.choose_block(state(), slice_id, VLAN) == block


def test_a_taken_block_gives_the_next_free_one() -> None:
    data = state(a_slice(1000, 100), a_slice(1001, 120))
    assert allocation.choose_block(data, 1100, VLAN) == (140, 159)


def test_a_block_with_somebody_elses_single_vlan_is_not_free() -> None:
    assert allocation.choose_block(state(a_slice(1, None, (105,))), 1000, VLAN) == (120, 139)


def test_the_search_goes_around_the_end() -> None:
    taken = [a_slice(5000 + n, start) for n, start in enumerate(range(2080, 4080, 20))]
    assert allocation.choose_block(state(*taken), 1099, VLAN) == (100, 119)


def test_the_block_with_400_is_only_taken_as_the_documented_one() -> None:
    assert allocation.choose_block(state(), 1015, VLAN) == (400, 419)
    assert allocation.choose_block(state(a_slice(1014, 380)), 1114, VLAN) == (420, 439)


def test_slice_1015_has_twenty_links_without_400() -> None:
    data = state(a_slice(1015, 400))
    record = data["slices"]["1015"]
    for number in range(20):
        record["links"].append({"link_id": number + 1, "vlan_id": allocation.choose_vlan(data, 1015, VLAN)})
    assert [link["vlan_id"] for link in record["links"]] == [*range(401, 420), 4094]
    with pytest.raises(RefusedError) as caught:
        allocation.choose_vlan(data, 1015, VLAN)
    assert str(caught.value) == "VLAN pool exhausted"


def test_a_removed_links_vlan_is_given_again() -> None:
    assert allocation.choose_vlan(state(a_slice(1000, 100, (100, 102))), 1000, VLAN) == 101


def test_single_vlans_come_from_outside_the_pools_first() -> None:
    pools = [a_slice(5000 + n, start) for n, start in enumerate(range(100, 4080, 20))]
    data = state(*pools, a_slice(9000))
    assert allocation.choose_block(data, 9000, VLAN) is None
    given = []
    for number in range(17):
        given.append(allocation.choose_vlan(data, 9000, VLAN))
        data["slices"]["9000"]["links"].append({"link_id": number + 1, "vlan_id": given[-1]})
    assert given == [*range(4094, 4079, -1), 4079, 4078]


def test_a_pool_that_lost_a_vlan_passes_over_it() -> None:
    data = state(a_slice(1000, 100, (100,)), a_slice(9000, None, (101,)))
    assert allocation.choose_vlan(data, 1000, VLAN) == 102


def test_refused_only_when_none_is_free() -> None:
    everything = tuple(vlan for vlan in range(100, 4095) if vlan not in (400, 777))
    data = state(a_slice(1, None, everything), a_slice(2, None))
    assert allocation.choose_vlan(data, 2, VLAN) == 777
    data["slices"]["2"]["links"].append({"link_id": 1, "vlan_id": 777})
    with pytest.raises(RefusedError, match=r"^VLAN pool exhausted$"):
        allocation.choose_vlan(data, 2, VLAN)


def test_link_addresses_follow_the_formula() -> None:
    addresses = allocation.link_addresses(100)
    assert addresses.cidr == "192.168.100.0/24"
    assert (addresses.gateway, addresses.dhcp) == ("192.168.100.1", "192.168.100.2")
    assert addresses.ip_config(1) == {
        "ip": "192.168.100.11",
        "netmask": "255.255.255.0",
        "gateway": "192.168.100.1",
    }
    assert allocation.link_addresses(356).cidr == addresses.cidr


def test_the_documented_internet_address_or_the_next() -> None:
    config = {"ip": "10.60.7.101", "netmask": "255.255.255.0", "gateway": "10.60.7.1"}
    assert allocation.choose_internet_address(state(), 1001, CIDR) == config
    data = state(a_slice(1, vms=[a_vm(1001, interfaces=on_400("10.60.7.101"))]))
    assert allocation.choose_internet_address(data, 1101, CIDR)["ip"] == "10.60.7.102"
    assert allocation.internet_gateway(CIDR) == "10.60.7.1"


def test_every_internet_address_but_four_and_then_a_refusal() -> None:
    vms: list[dict[str, Any]] = []
    data = state(a_slice(1, vms=vms))
    given = set()
    for vm_id in range(252):
        ip = allocation.choose_internet_address(data, vm_id, CIDR)["ip"]
        vms.append(a_vm(vm_id, interfaces=on_400(ip)))
        given.add(ip)
    assert given == {f"10.60.7.{host}" for host in range(3, 255)}
    with pytest.raises(RefusedError, match=r"no address of 10\.60\.7\.0/24 is free for internet access") as caught:
        allocation.choose_internet_address(data, 1, CIDR)
    assert "252 are in use" in str(caught.value) and "internet.cidr" in caught.value.remedy


def test_a_small_internet_subnet() -> None:
    config = {"ip": "10.1.0.3", "netmask": "255.255.255.240", "gateway": "10.1.0.1"}
    assert allocation.choose_internet_address(state(), 1001, "10.1.0.0/28") == config


def test_vnc_ports_count_over_the_cluster_and_are_reused() -> None:
    vms = [a_vm(1, vnc_port=5901), a_vm(2, vnc_port=5903, worker_ip="w2")]
    data = state(a_slice(1, vms=vms))
    assert allocation.choose_vnc_port(data, "w1", 5901, 5999) == 5902


def test_vnc_ports_repeat_over_workers_only_when_the_cluster_has_none_left() -> None:
    vms = [a_vm(1, vnc_port=5901), a_vm(2, vnc_port=5902, worker_ip="w2")]
    data = state(a_slice(1, vms=vms))
    assert allocation.choose_vnc_port(data, "w1", 5901, 5902) == 5902
    vms.append(a_vm(3, vnc_port=5902))
    with pytest.raises(RefusedError, match="no VNC port is free on w1: 5901-5902 are all in use"):
        allocation.choose_vnc_port(data, "w1", 5901, 5902)


def test_documented_macs() -> None:
    assert allocation.formula_macs(1001, 3) == ["52:54:00:03:e9:00", "52:54:00:03:e9:01", "52:54:00:03:e9:02"]
    assert allocation.formula_macs(1, 1, "02:00:00") == ["02:00:00:00:01:00"]
    assert allocation.formula_macs(1, 256)[-1] == "52:54:00:00:01:ff"
    for count in (257, -1):
        with pytest.raises(RefusedError):
            allocation.formula_macs(1, count)


def test_macs_that_would_repeat_are_moved_on() -> None:
    taken = [{"mac": "52:54:00:03:e9:00", "vlan_id": None, "ip_config": None}]
    data = state(a_slice(1, vms=[a_vm(1001, interfaces=taken)]))
    assert allocation.choose_macs(data, 1001 + 65536, 2) == ["52:54:00:03:ea:00", "52:54:00:03:ea:01"]
    assert allocation.choose_macs(data, 1001, 1) == ["52:54:00:03:e9:00"]  # its own are no obstacle


def test_disks_get_the_documented_name_or_a_longer_one() -> None:
    vms: list[dict[str, Any]] = []
    data = state(a_slice(1000, vms=vms))
    settings = Settings()
    names = []
    for vm_id in (1001, 1002, 1003):
        names.append(allocation.choose_image_path(data, settings, "w1", 1000, vm_id, "vm1"))
        vms.append(a_vm(vm_id, qcow_image=names[-1]))
    assert names == [f"~/vm_images/{name}_img.qcow2" for name in ("vm1", "1000_vm1", "1000_1003_vm1")]
    assert allocation.choose_image_path(data, settings, "w2", 1000, 1004, "vm1") == names[0]
    unique = Settings.of({"images.name": "unique", "images.base_dir": "/var/vm/"})
    assert allocation.choose_image_path(data, unique, "w2", 1000, 5, "a") == "/var/vm/1000_5_a_img.qcow2"
