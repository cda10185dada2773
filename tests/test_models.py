from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from models import VM, Flavor, Interface, Link, Slice, User


@pytest.fixture(autouse=True)
def documented_flavors() -> Iterator[None]:
    before = dict(Flavor.FLAVORS)
    yield
    Flavor.use(before)


def example_vm() -> VM:
    config = {"ip": "10.60.7.101", "netmask": "255.255.255.0", "gateway": "10.60.7.1"}
    eth0 = Interface("eth0", "52:54:00:03:e9:00", vlan_id=400, ip_config=config)
    eth1 = Interface("eth1", "52:54:00:03:e9:01")
    return VM(1001, "vm1", "admin", "10.0.10.1", "cirros", 1, 0.5, 1, 5901, [eth0, eth1], "~/vm_images/vm1_img.qcow2")


def test_user_defaults_and_quota() -> None:
    user = User("ann", "x")
    assert user.to_dict() == {"username": "ann", "password_hash": "x", "quota_vms": 10, "used_vms": 0, "slices": []}
    user.used_vms = 9
    assert user.can_create_vms(1)
    assert not user.can_create_vms(2)
    assert not User("eve", "x", quota_vms=0).can_create_vms(1)


def test_documented_flavors() -> None:
    cirros = {"cores": 1, "ram_gb": 0.5, "disk_gb": 1, "image": "/tmp/vm_images/cirros-0.6.2-x86_64-disk.img"}
    assert Flavor.get("cirros") == cirros
    assert Flavor.get("ubuntu") == {
        **cirros,
        "disk_gb": 2.2,
        "image": "/tmp/vm_images/focal-server-cloudimg-amd64.img",
    }
    assert Flavor.get("windows") is None
    assert list(Flavor.FLAVORS) == ["cirros", "ubuntu"]
    assert Flavor.name_of(cirros) == "cirros"
    assert Flavor.name_of({"cores": 9}) == ""


def test_a_flavor_given_out_is_a_copy() -> None:
    spec = Flavor.get("cirros")
    assert spec is not None
    spec["cores"] = 64
    assert Flavor.FLAVORS["cirros"]["cores"] == 1


def test_flavors_of_the_settings_replace_the_documented_ones() -> None:
    offered = Flavor.FLAVORS
    Flavor.use({"tiny": {"cores": 1, "ram_gb": 0.1, "disk_gb": 1, "image": "/x"}})
    assert list(offered) == ["tiny"]  # whoever holds FLAVORS sees the change
    assert Flavor.get("cirros") is None


def test_vm_dict_has_the_documented_keys_in_order() -> None:
    assert list(example_vm().to_dict()) == [
        *("vm_id", "name", "owner", "worker_ip", "flavor", "cores", "ram_gb", "disk_gb", "vnc_port"),
        *("interfaces", "qcow_image", "status", "pid"),
    ]
    assert list(example_vm().to_dict()["interfaces"][0]) == ["name", "mac", "vlan_id", "ip_config", "link_id"]
    assert example_vm().to_dict()["status"] == "design"


def test_link_dict_is_the_documented_one() -> None:
    assert Link(1, 100, 1001, "eth1", 1002, "eth1").to_dict() == {
        **{"link_id": 1, "vlan_id": 100, "vm1_id": 1001, "vm1_interface": "eth1"},
        **{"vm2_id": 1002, "vm2_interface": "eth1"},
    }


def test_records_survive_yaml_and_back() -> None:
    record = Slice(1000, "admin", "linear", vms=[example_vm()], links=[Link(1, 100, 1001, "eth1", 1002, "eth1")])
    assert Slice.from_dict(yaml.safe_load(yaml.safe_dump(record.to_dict()))) == record
    user = User("ann", "x", 3, 2, [1000], must_change_password=True, role="instructor")
    assert User.from_dict(yaml.safe_load(yaml.safe_dump(user.to_dict()))) == user


def test_to_dict_shares_nothing_with_the_object() -> None:
    vm = example_vm()
    record = vm.to_dict()
    record["interfaces"][0]["ip_config"]["ip"] = "changed"
    assert vm.interfaces[0].ip_config is not None
    assert vm.interfaces[0].ip_config["ip"] == "10.60.7.101"


@pytest.mark.parametrize(("slice_id", "start", "end"), [(1000, 100, 119), (1001, 120, 139), (1099, 2080, 2099)])
def test_documented_pools(slice_id: int, start: int, end: int) -> None:
    record = Slice(slice_id, "admin")
    assert (record.vlan_pool_start, record.vlan_pool_end) == (start, end)
    assert record.get_next_vlan() == start


def test_the_next_vlan_is_the_lowest_unused() -> None:
    record = Slice(1000, "admin", links=[Link(n, vlan, 1, "eth1", 2, "eth1") for n, vlan in ((1, 100), (2, 102))])
    assert record.get_next_vlan() == 101


def test_the_internet_vlan_is_never_given_to_a_link() -> None:
    record = Slice(1015, "admin")
    given = []
    while (vlan := record.get_next_vlan()) is not None:
        given.append(vlan)
        record.links.append(Link(len(given), vlan, 1, "eth1", 2, "eth1"))
    assert given == list(range(401, 420))


def test_a_slice_without_a_pool_has_no_next_vlan() -> None:
    assert Slice(1000, "admin", vlan_pool_start=None, vlan_pool_end=None).get_next_vlan() is None
