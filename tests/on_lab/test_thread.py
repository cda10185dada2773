"""The main line: two guests on two hosts, from design to nothing left."""

from __future__ import annotations

import pytest

from on_lab.cluster import NETWORK_NODE, Cluster, differences

pytestmark = pytest.mark.lab


@pytest.mark.cost(seconds=12)
def test_two_guests_on_two_hosts_talk_and_leave_nothing(cluster: Cluster) -> None:
    """Addresses by DHCP as recorded, a ping over the link, a page from the internet, and no trace afterwards."""
    before = cluster.snapshot()
    made = cluster.slice("vm1", "vm2", internet=("vm1",))
    link = cluster.link(made, "vm1", "eth1", "vm2", "eth1")
    assert link["vlan_id"] == 100
    message = cluster.ok("deploy_slice", "admin", made["id"])
    assert message == "Slice deployed successfully"

    for name, interface in (("vm1", "eth0"), ("vm1", "eth1"), ("vm2", "eth1")):
        vm = cluster.vm(made[name])
        recorded = next(one["ip_config"]["ip"] for one in vm["interfaces"] if one["name"] == interface)
        assert cluster.wait_for_address(made[name], interface) == recorded
    assert cluster.vm(made["vm1"])["worker_ip"] != cluster.vm(made["vm2"])["worker_ip"]
    assert cluster.pings(made["vm1"], "192.168.100.11")
    assert cluster.guest(made["vm1"], "fetch", "http://203.0.113.1/").status == 0
    assert cluster.guest(made["vm2"], "fetch", "http://203.0.113.1/").status != 0
    switch = "/proc/sys/net/ipv6/conf/gw_vlan400/disable_ipv6"
    assert cluster.host(NETWORK_NODE, "cat", switch).strip() == "1"

    assert cluster.ok("delete_slice", "admin", made["id"]) == "Slice deleted"
    assert differences(before, cluster.snapshot()) == []
