from __future__ import annotations

from typing import Any

import pytest

from cloudrepo.errors import HostError
from cloudrepo.naming import SHARED, UNFINISHED
from cloudrepo.resources import (
    Closure,
    DhcpServer,
    Disk,
    Firewall,
    Flows,
    HostFacts,
    HostState,
    Machine,
    Namespace,
    Port,
    Resource,
    Tap,
)
from cloudrepo.settings import Settings
from cloudrepo.site import Site
from control.targets import SlicePlanner, has_internet, hosts_of, leases_of, slice_scope
from fakes.host import FakeExecutor
from worlds import NODE, OURS, WORKER, host, mark, vm

OTHER = "10.0.10.2"
FACTS = HostFacts(
    datapath="system", has_bridge=True, uplinks=("trunk0",), uplink="up0",
    connected={"up0": ("203.0.113.0/24",)},
)  # fmt: skip


def link(number: int, vlan: int) -> dict[str, Any]:
    base = f"192.168.{vlan % 256}"
    ends = {"vm1_id": 1001, "vm1_interface": "eth1", "vm2_id": 1002, "vm2_interface": "eth1"}
    return {"link_id": number, "vlan_id": vlan, "cidr": f"{base}.0/24", "gateway_ip": f"{base}.1", **ends}


def record(slice_id: int, *vms: dict[str, Any], links: tuple[int, ...] = (), status: str = "running") -> dict[str, Any]:
    return {
        "slice_id": slice_id,
        "status": status,
        "vms": [{**one, "status": status} for one in vms],  # what runs with it; `test_live_changes` has others
        "links": [link(number, vlan) for number, vlan in enumerate(links, start=1)],
    }


def online(vm_id: int, last: int, worker: str = WORKER) -> dict[str, Any]:
    made = vm(vm_id, (400,), worker=worker)
    made["interfaces"][0]["ip_config"] = {"ip": f"10.60.7.{last}"}
    return made


def state(*vm_ids: int, facts: HostFacts = FACTS) -> HostState:
    return HostState([disk(vm_id) for vm_id in vm_ids], facts)


def disk(vm_id: int) -> Disk:
    return Disk(vm_id=vm_id, path=f"/i/{vm_id}", directory=f"/d/{vm_id}", base_dir="/i", mark=mark(1000, vm_id, "disk"))


def wanted(one: dict[str, Any], ip: str, seen: HostState, *others: dict[str, Any], **wish: Any) -> list[Resource]:
    site = Site(executor=FakeExecutor(), settings=Settings.of({}), installation=OURS)
    data = {"slices": {str(each["slice_id"]): each for each in (one, *others)}, "workers_list": [WORKER, OTHER, NODE]}
    return SlicePlanner(site, data, one, **wish).wanted(host(ip), seen)


def kinds(resources: list[Resource]) -> list[type]:
    return list(dict.fromkeys(type(one) for one in resources))


# ---------------------------------------------------------------------------------------- which hosts


def test_the_network_node_first_then_workers_by_vm() -> None:
    one = record(1000, vm(1003, worker=WORKER), vm(1001, worker=OTHER), vm(1002, worker=WORKER), links=(100,))
    assert hosts_of(one, NODE) == [NODE, OTHER, WORKER]
    assert hosts_of(record(1000, vm(1001, worker=NODE), links=(100,)), NODE) == [NODE]


def test_the_network_node_only_where_it_has_or_had_work() -> None:
    alone = record(1000, vm(1001, (None,)))
    assert hosts_of(alone, NODE) == [WORKER]
    assert hosts_of(alone | {"deployed": True}, NODE) == [NODE, WORKER]
    assert hosts_of(record(1000, online(1001, 101)), NODE) == [NODE, WORKER]


def test_internet_is_a_nic_on_vlan_400() -> None:
    assert has_internet(record(1000, online(1001, 101))) and not has_internet(record(1000, vm(1001, (None, 100))))


# ---------------------------------------------------------------------------------------- scope


def test_a_slice_speaks_for_its_own_what_is_shared_and_its_unfinished_directories() -> None:
    speaks = slice_scope(record(1000, vm(1001), links=(100,)))
    assert speaks(mark(1000)) and speaks(mark(SHARED))
    assert speaks(mark(UNFINISHED, 1001)) and speaks(mark(UNFINISHED, None, "100"))
    for other in (mark(1100), mark(10000), mark("manual"), mark(UNFINISHED, 1002), mark(UNFINISHED, None, "101")):
        assert not speaks(other)


def test_a_slice_speaks_for_unfinished_directories_of_vms_it_gave_up() -> None:
    """Their maker died before it could mark them, and the host was not there to be cleared."""
    given_up = {**record(1000, vm(1001)), "forgotten": [1002]}
    assert slice_scope(given_up)(mark(UNFINISHED, 1002))
    assert not slice_scope(given_up)(mark(UNFINISHED, 1003))


# ---------------------------------------------------------------------------------------- on the network node


def test_links_by_id_with_a_lease_for_each_end() -> None:
    one = record(1000, vm(1001, (None, 100)), vm(1002, (None, 100)), links=(101, 100))
    made = wanted(one, NODE, state(), networks=True)
    assert [space.namespace for space in made if isinstance(space, Namespace)] == ["ns-dhcp-vlan101", "ns-dhcp-vlan100"]
    assert {resource.mark.scope for resource in made if resource.mark and not isinstance(resource, Closure)} == {"1000"}
    assert [(one.bridge, str(one.mark)) for one in made if isinstance(one, Closure)] == [
        ("br-int", f"cloudrepo/{OURS}/shared/-/")
    ]
    server = next(each for each in made if isinstance(each, DhcpServer) and each.vlan_id == 100)
    assert server.hosts == "52:54:00:03:e9:01,192.168.100.11,vm1\n52:54:00:03:ea:01,192.168.100.11,vm2\n"


def test_nothing_without_the_wish_for_networks() -> None:
    assert wanted(record(1000, vm(1001, (None, 100)), links=(100,)), NODE, state()) == []


def hosts_file(resources: list[Resource]) -> str:
    return "".join(one.hosts for one in resources if isinstance(one, DhcpServer) and one.vlan_id == 400)


def test_vlan_400_is_made_of_all_active_slices() -> None:
    one, other = record(1000, online(1001, 101), status="deploying"), record(1100, online(1101, 102))
    made = wanted(one, NODE, state(), other, networks=True)
    assert hosts_file(made).splitlines() == ["52:54:00:03:e9:00,10.60.7.101,vm1", "52:54:00:04:4d:00,10.60.7.102,vm101"]
    assert {each.mark.scope for each in made if each.mark} == {SHARED}
    assert len([each for each in made if isinstance(each, Firewall)]) == 1


@pytest.mark.parametrize("status", ["design", "stopped", "deleting", "error"])
def test_slices_that_are_not_active_have_no_part_in_it(status: str) -> None:
    one, other = record(1000, online(1001, 101)), record(1100, online(1101, 102), status=status)
    assert "10.60.7.102" not in hosts_file(wanted(one, NODE, state(), other, networks=True))


def test_vlan_400_stays_for_others_and_goes_with_the_last() -> None:
    one, other = record(1000, online(1001, 101), status="deleting"), record(1100, online(1101, 102))
    assert hosts_file(wanted(one, NODE, state(), other)) == "52:54:00:04:4d:00,10.60.7.102,vm101\n"
    assert wanted(one, NODE, state()) == []
    assert wanted(record(1000, vm(1001, (None,))), NODE, state(), other, networks=True) != []


def test_a_network_node_without_a_way_out_is_said_only_where_it_is_needed() -> None:
    blind = HostFacts(has_bridge=True, uplinks=("trunk0",))
    with pytest.raises(HostError, match="no default route"):
        wanted(record(1000, online(1001, 101)), NODE, state(facts=blind), networks=True)
    assert wanted(record(1000, vm(1001), links=(100,)), NODE, state(facts=blind), networks=True)


# ---------------------------------------------------------------------------------------- on workers


def test_only_what_is_placed_there_and_disks_are_kept() -> None:
    one = record(1000, vm(1001, (None, 100)), vm(1002, (None, 100), worker=OTHER), links=(100,))
    made = wanted(one, WORKER, state(1001), machines=[1001, 1002], networks=True)
    assert kinds(made) == [Closure, Tap, Port, Machine, Disk, Flows]
    assert [each.vm_id for each in made if isinstance(each, Machine)] == [1001]
    assert wanted(one, WORKER, state(1001)) == [disk(1001)], "stopped: its disk alone"
    assert wanted(one, WORKER, state(1001), disks=False) == [], "deleted: nothing"


def test_one_machine_of_two() -> None:
    one = record(1000, vm(1001, (None,)), vm(1002, (None,)))
    made = wanted(one, WORKER, state(1001, 1002), machines=[1002])
    assert [each.vm_id for each in made if isinstance(each, Machine)] == [1002]
    assert [each.vm_id for each in made if isinstance(each, Disk)] == [1001, 1002]


def test_a_machine_starts_from_the_disk_that_was_seen() -> None:
    one = record(1000, vm(1001, (None,)))
    (machine,) = [each for each in wanted(one, WORKER, state(1001), machines=[1001]) if isinstance(each, Machine)]
    assert machine.spec is not None and machine.spec.disk == "/i/1001"
    with pytest.raises(HostError, match=r"the disk of VM 1001 \(vm1\) is not there") as error:
        wanted(one, WORKER, state(), machines=[1001])
    assert error.value.host == WORKER and error.value.code == "vm.disk"


def test_an_uplink_is_required_only_where_hosts_must_be_joined() -> None:
    cut = HostFacts(datapath="system", has_bridge=True)
    joined = record(1000, vm(1001, (None, 100)), links=(100,))
    with pytest.raises(HostError, match="br-int has no uplink") as error:
        wanted(joined, WORKER, state(1001, facts=cut), machines=[1001])
    assert f"{NODE} and {WORKER}" in str(error.value) and error.value.code == "host.uplink"
    assert wanted(joined, WORKER, state(1001, facts=cut)), "to stop and to delete nothing is required"
    alone = record(1000, vm(1001, (None,)), vm(1002, (None,), worker=OTHER))
    assert wanted(alone, WORKER, state(1001, facts=cut), machines=[1001])
    single = record(1000, vm(1001, (None, 100), worker=NODE), links=(100,))
    assert wanted(single, NODE, state(1001, facts=cut), machines=[1001], networks=True)


def test_leases_are_of_nics_with_an_address_on_that_vlan() -> None:
    one = record(1000, vm(1001, (None, 100, 101)) | {"name": "Web_1"})
    (lease,) = leases_of([one], 100)
    assert (lease.mac, lease.ip, lease.hostname) == ("52:54:00:03:e9:01", "192.168.100.11", "web-1")
    assert leases_of([one], 102) == []
