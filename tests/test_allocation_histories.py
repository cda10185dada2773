"""Allocation over long random histories of slices, VMs and links made and deleted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from cloudrepo import allocation
from cloudrepo.errors import RefusedError
from cloudrepo.settings import Settings
from models import VM, Interface, Link, Slice

WORKERS = ("w1", "w2", "w3")


class Cluster:
    """What the façade would do to the records, without hosts."""

    def __init__(self, seed: int, first_id: int, **values: Any) -> None:
        self.data: dict[str, Any] = {"slices": {}, "next_vm_id": first_id}
        self.settings = Settings.of(values)
        self.choose = random.Random(seed)  # noqa: S311
        self.refused: Counter[str] = Counter()

    @property
    def slices(self) -> list[dict[str, Any]]:
        return list(self.data["slices"].values())

    @property
    def vms(self) -> list[Any]:
        return list(allocation.all_vms(self.data))

    def add_slice(self) -> int:
        slice_id = allocation.next_id(self.data)
        start, end = allocation.choose_block(self.data, slice_id, self.settings.vlan) or (None, None)
        record = Slice(slice_id, "ann", vlan_pool_start=start, vlan_pool_end=end).to_dict()
        self.data["slices"][str(slice_id)] = record
        return slice_id

    def add_vm(self, slice_id: int) -> None:
        data, chosen = self.data, self.settings
        vm_id = allocation.next_id(data)
        worker, name = self.choose.choice(WORKERS), self.choose.choice(["a", "b"])
        macs = allocation.choose_macs(data, vm_id, self.choose.randint(1, 4))
        nics = [Interface(f"eth{index}", mac) for index, mac in enumerate(macs)]
        nics[0].vlan_id = 400
        nics[0].ip_config = allocation.choose_internet_address(data, vm_id, chosen.internet.cidr)
        port = allocation.choose_vnc_port(data, worker, chosen.vnc.first_port, chosen.vnc.last_port)
        disk = allocation.choose_image_path(data, chosen, worker, slice_id, vm_id, name)
        vm = VM(vm_id, name, "ann", worker, vnc_port=port, interfaces=nics, qcow_image=disk)
        data["slices"][str(slice_id)]["vms"].append(vm.to_dict())

    def add_link(self, slice_id: int) -> int:
        record = self.data["slices"][str(slice_id)]
        vlan = allocation.choose_vlan(self.data, slice_id, self.settings.vlan)
        record["links"].append(Link(allocation.next_link_id(record), vlan, 1, "eth1", 2, "eth1").to_dict())
        return vlan

    def step(self) -> None:
        kind = self.choose.choices(["slice", "vm", "link", "unlink", "remove", "delete"], [3, 5, 12, 3, 2, 1])[0]
        record = self.choose.choice(self.slices) if self.slices else None
        try:
            if kind == "slice" or record is None:
                self.add_slice()
            elif kind == "vm":
                self.add_vm(record["slice_id"])
            elif kind == "link":
                self.add_link(record["slice_id"])
            elif kind == "delete":
                del self.data["slices"][str(record["slice_id"])]
            elif entries := record["links" if kind == "unlink" else "vms"]:
                entries.remove(self.choose.choice(entries))
        except RefusedError as error:
            self.refused[error.code] += 1

    def check(self) -> None:
        links = [link["vlan_id"] for record in self.slices for link in record["links"]]
        distinct(links)
        assert all(100 <= vlan <= 4094 and vlan != 400 for vlan in links)
        for record in self.slices:
            assert len(record["links"]) <= 20
            distinct(link["link_id"] for link in record["links"])
        pools = [record["vlan_pool_start"] for record in self.slices if record["vlan_pool_start"] is not None]
        distinct(pools)
        assert all(start % 20 == 0 for start in pools)
        distinct([record["slice_id"] for record in self.slices] + [vm["vm_id"] for vm in self.vms])
        distinct(interface["mac"] for vm in self.vms for interface in vm["interfaces"])
        distinct(vm["interfaces"][0]["ip_config"]["ip"] for vm in self.vms)
        distinct((vm["worker_ip"], vm["vnc_port"]) for vm in self.vms)
        distinct((vm["worker_ip"], vm["qcow_image"]) for vm in self.vms)


def distinct(values: Iterable[Any]) -> None:
    repeated = {value: count for value, count in Counter(values).items() if count > 1}
    assert not repeated, repeated


@given(st.integers(0, 2**32), st.sampled_from([0, 990, 1000, 1310, 65500]))
@hypothesis_settings(max_examples=30)
def test_nothing_is_ever_given_twice(seed: int, first_id: int) -> None:
    cluster = Cluster(seed, first_id)
    for _ in range(150):
        cluster.step()
    cluster.check()
    distinct(vm["vnc_port"] for vm in cluster.vms)  # over the cluster, while there are enough


@given(st.integers(0, 2**32))
@hypothesis_settings(max_examples=20)
def test_nor_when_everything_is_scarce(seed: int) -> None:
    cluster = Cluster(seed, 1000, **{"internet.cidr": "10.60.7.0/28", "vnc.last_port": 5903, "vlan.last": 150})
    for _ in range(150):
        cluster.step()
        cluster.check()


@pytest.mark.parametrize("slice_id", [1000, 1015, 1100, 1115, 1198, 1199])
def test_every_one_of_200_slices_gets_twenty_links(slice_id: int) -> None:
    cluster = Cluster(0, 1000)
    for _ in range(200):
        cluster.add_slice()
    for _ in range(20):
        cluster.add_link(slice_id)
    cluster.check()
    with pytest.raises(RefusedError, match=r"^VLAN pool exhausted$"):
        cluster.add_link(slice_id)


def test_the_200th_slice_still_gets_a_link() -> None:
    cluster = Cluster(0, 1000)
    ids = [cluster.add_slice() for _ in range(200)]
    assert cluster.data["slices"][str(ids[-1])]["vlan_pool_start"] is None
    for slice_id in ids:
        for _ in range(19):
            cluster.add_link(slice_id)
    cluster.check()


def test_all_3994_vlans_can_be_used_and_no_more() -> None:
    cluster = Cluster(0, 1000)
    ids = [cluster.add_slice() for _ in range(250)]
    given = 0
    for _ in range(16):
        for slice_id in ids:
            try:
                cluster.add_link(slice_id)
                given += 1
            except RefusedError:
                cluster.refused["full"] += 1
    assert given == 3994
    assert cluster.refused["full"] == 250 * 16 - 3994
    cluster.check()
