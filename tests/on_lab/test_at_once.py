"""Several operations at once: threads, processes, and what all slices share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from on_lab.acting import Actor
from on_lab.cluster import NETWORK_NODE, Cluster, differences, wait_until

pytestmark = pytest.mark.lab


def leases(cluster: Cluster) -> list[str]:
    """The reservations on VLAN 400."""
    return cluster.host(NETWORK_NODE, "cat", f"/run/cloudrepo-{cluster.api.site.installation}/dhcp-400/hosts").split()


@pytest.mark.cost(seconds=20)
def test_two_slices_share_the_internet_network(cluster: Cluster) -> None:
    """Deployed at the same time both are served; the end of one leaves the other's lease and NAT."""
    before = cluster.snapshot()
    one, two = (cluster.slice("vm1", internet=("vm1",)) for _ in range(2))
    with ThreadPoolExecutor() as pool:
        for answer in [pool.submit(cluster.ok, "deploy_slice", "admin", made["id"]) for made in (one, two)]:
            assert answer.result() == "Slice deployed successfully"
    addresses = [cluster.vm(made["vm1"])["interfaces"][0]["ip_config"]["ip"] for made in (one, two)]
    assert all(any(address in lease for lease in leases(cluster)) for address in addresses)

    assert cluster.wait_for_address(two["vm1"], "eth0") == addresses[1]
    cluster.ok("delete_slice", "admin", one["id"])
    assert len(leases(cluster)) == 1
    cluster.guest(two["vm1"], "sh", "-c", "ip link set eth0 down; sleep 2; ip link set eth0 up")
    assert cluster.wait_for_address(two["vm1"], "eth0") == addresses[1]
    wait_until(lambda: cluster.guest(two["vm1"], "fetch", "http://203.0.113.1/").status == 0, 60, "NAT")
    cluster.ok("delete_slice", "admin", two["id"])
    assert differences(before, cluster.snapshot()) == []


@pytest.mark.cost(seconds=30)
def test_six_processes_at_once(cluster: Cluster) -> None:
    """Each creates, deploys and deletes a slice with internet access; none fails, nothing is left."""
    before = cluster.snapshot()
    actors = [Actor(cluster.state) for _ in range(6)]
    try:
        for number, actor in enumerate(actors):
            actor.tell("create_slice", "admin", f"class {number}")
        slices = [actor.answer()["slice_id"] for actor in actors]
        for actor, slice_id in zip(actors, slices, strict=True):
            actor.tell("add_vm_to_slice", "admin", slice_id, "vm1", "blank", 1, True)
            actor.tell("deploy_slice", "admin", slice_id)
        for actor in actors:
            assert actor.answer()["status"] == "design"
        assert [actor.answer() for actor in actors] == ["Slice deployed successfully"] * 6
        assert len(leases(cluster)) == 6
        assert len(set(slices)) == 6
        for actor, slice_id in zip(actors, slices, strict=True):
            actor.tell("delete_slice", "admin", slice_id)
        assert [actor.answer() for actor in actors] == ["Slice deleted"] * 6
    finally:
        for actor in actors:
            actor.close()
    assert differences(before, cluster.snapshot()) == []
