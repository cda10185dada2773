"""Two installations on the same hosts, and things on a host that are nobody's: each touches only its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, differences

pytestmark = pytest.mark.lab

FIRST, SECOND = HOSTS[:2]


def linked(cluster: Cluster, flavor: str = "blank") -> Record:
    """A slice of two linked VMs on two hosts."""
    made = cluster.slice("vm1", "vm2", flavor=flavor)
    cluster.link(made, "vm1", "eth1", "vm2", "eth1")
    return made


def second(clusters: Callable[..., Cluster], *, first_id: int = 5000, first_vlan: int = 1100) -> Cluster:
    """Another installation, which counts VMs, VLANs and ports from other numbers."""
    cluster = clusters(
        vlan={"first": first_vlan, "last": first_vlan + 999}, vnc={"first_port": 6901, "last_port": 7900}
    )
    with cluster.api.db.transaction() as data:
        data["next_vm_id"] = first_id
    return cluster


def processes(cluster: Cluster) -> list[str]:
    """The command lines of this installation's machines, on all hosts."""
    mark = f"cloudrepo-{cluster.api.site.installation}/"
    return [line for ip in HOSTS for line in cluster.host(ip, "ps", "-e", "-o", "args=").splitlines() if mark in line]


@pytest.mark.cost(seconds=20)
def test_each_installation_takes_down_only_its_own(clusters: Callable[..., Cluster]) -> None:
    """Equal VM names side by side; the delete of one and the clean-up of the other."""
    one, two = clusters(), second(clusters)
    before = one.snapshot()
    a, b = linked(one, "cirros"), linked(two, "cirros")
    one.ok("deploy_slice", "admin", a["id"])
    only_one = one.snapshot()
    two.ok("deploy_slice", "admin", b["id"])
    for cluster, made, base in ((one, a, "192.168.100"), (two, b, "192.168.76")):  # VLANs 100 and 1100
        found = [cluster.wait_for_address(made[name], "eth1") for name in ("vm1", "vm2")]
        assert found == [f"{base}.10", f"{base}.11"]
    assert one.pings(a["vm1"], "192.168.100.11") and two.pings(b["vm1"], "192.168.76.11")

    listed = two.ok("cleanup_plan")["hosts"]
    assert sum(map(len, listed.values())) > 0
    assert not any("vlan100" in text.split() or "VLAN 100" in text for texts in listed.values() for text in texts)
    two.ok("cleanup")
    assert differences(only_one, one.snapshot()) == []
    assert len(processes(one)) == 3 and processes(two) == []  # two machines and a DHCP server
    assert one.pings(a["vm1"], "192.168.100.11")
    one.ok("delete_slice", "admin", a["id"])
    assert differences(before, one.snapshot()) == []
    assert two.ok("get_slice", "admin", b["id"])["status"] == "error"
    two.ok("delete_slice", "admin", b["id"])


@pytest.mark.cost(seconds=12)
def test_a_vlan_of_another_installation_is_refused_and_left_alone(clusters: Callable[..., Cluster]) -> None:
    one, two = clusters(), second(clusters, first_vlan=100)
    a, b = linked(one), linked(two)
    one.ok("deploy_slice", "admin", a["id"])
    before = one.snapshot()
    message = two.refused("deploy_slice", "admin", b["id"])
    assert NETWORK_NODE in message and "ns-dhcp-vlan100" in message
    assert one.api.site.installation in message and "vlan.first" in message
    assert differences(before, one.snapshot()) == []
    assert two.ok("get_slice", "admin", b["id"])["status"] == "design"
    two.ok("delete_slice", "admin", b["id"])
    assert differences(before, one.snapshot()) == []
    one.ok("delete_slice", "admin", a["id"])


@pytest.mark.cost(seconds=8)
def test_a_namespace_made_by_hand_is_reported_and_never_touched(cluster: Cluster) -> None:
    made = linked(cluster)
    cluster.host(NETWORK_NODE, "ip", "netns", "add", "ns-dhcp-vlan100")
    cluster.host(
        NETWORK_NODE, "ip", "-n", "ns-dhcp-vlan100", "link", "add", "keep", "type", "veth", "peer", "name", "kept"
    )
    try:
        before = cluster.snapshot()
        message = cluster.refused("deploy_slice", "admin", made["id"])
        assert "namespace ns-dhcp-vlan100" in message and "not ours" in message and NETWORK_NODE in message
        assert differences(before, cluster.snapshot()) == []
        cluster.ok("delete_slice", "admin", made["id"])
        cluster.ok("cleanup")
        assert differences(before, cluster.snapshot()) == []
        assert "keep" in cluster.host(NETWORK_NODE, "ip", "-n", "ns-dhcp-vlan100", "link", "show")
    finally:
        cluster.host(NETWORK_NODE, "ip", "netns", "delete", "ns-dhcp-vlan100")


@pytest.mark.cost(seconds=6)
def test_a_tap_made_by_hand_under_our_name_is_never_touched(cluster: Cluster) -> None:
    made = linked(cluster)
    cluster.host(FIRST, "ip", "tuntap", "add", "dev", "tap_1001_eth1", "mode", "tap")
    try:
        before = cluster.snapshot()
        message = cluster.refused("deploy_slice", "admin", made["id"])
        assert FIRST in message and "tap_1001_eth1" in message and "next_vm_id" in message
        assert differences(before, cluster.snapshot()) == []
        cluster.ok("delete_slice", "admin", made["id"])
        assert differences(before, cluster.snapshot()) == []
    finally:
        cluster.host(FIRST, "ip", "link", "delete", "tap_1001_eth1")


@pytest.mark.cost(seconds=6)
def test_a_foreign_file_under_the_name_of_a_disk_is_kept(cluster: Cluster) -> None:
    disk = f"{cluster.images}/vm1_img.qcow2"
    cluster.host(FIRST, "sh", "-c", 'mkdir -p "${1%/*}" && echo precious > "$1"', "sh", disk)
    try:
        made = cluster.slice("vm1", flavor="blank")
        assert cluster.vm(made["vm1"])["qcow_image"] == f"~/vm_images/{made['id']}_vm1_img.qcow2"
        cluster.ok("deploy_slice", "admin", made["id"])
        cluster.ok("delete_slice", "admin", made["id"])
        cluster.ok("cleanup")
        assert cluster.host(FIRST, "cat", disk) == "precious\n"
    finally:
        cluster.host(FIRST, "rm", disk)
