"""What may be wrong with hosts before a class: put wrong on the lab, found by `doctor`, and nothing else found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from on_lab import sick_hosts
from on_lab.cluster import HOSTS, Cluster

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bare(module_clusters: Callable[..., Cluster]) -> Iterator[Cluster]:
    made = module_clusters(accel="tcg")
    with sick_hosts.own_disks(made):
        yield made


@pytest.fixture(scope="module")
def cluster(bare: Cluster) -> Cluster:
    """The lab with its images, as each test but the first wants it, run alone too."""
    assert bare.ok("doctor_fix")["failed"] == []
    return bare


def findings(cluster: Cluster) -> list[dict[str, object]]:
    """What is not as it should be."""
    found: list[dict[str, object]] = cluster.ok("doctor")["findings"]
    return [one for one in found if one["level"] != "ok"]


@pytest.mark.cost(seconds=10)
def test_images_are_brought_by_fix_and_nothing_is_left_to_say(bare: Cluster) -> None:
    before, missing = findings(bare), len(bare.base_images) * len(HOSTS)
    assert {one["code"] for one in before} == {"hosts.image.missing"} and len(before) == missing, before
    fixed = bare.ok("doctor_fix")
    assert fixed["failed"] == [] and len(fixed["changed"]) == missing, fixed
    assert all(one["text"].startswith("copied ") for one in fixed["changed"])
    assert [one for one in fixed["findings"] if one["level"] != "ok"] == []
    assert bare.ok("doctor_fix")["changed"] == []


@pytest.mark.cost(seconds=8)
def test_a_sound_lab_has_nothing_and_is_left_as_it_was(cluster: Cluster) -> None:
    before = cluster.snapshot()
    found = cluster.ok("doctor")
    assert [one for one in found["findings"] if one["level"] != "ok"] == []
    assert found["hosts"] == list(HOSTS)
    assert found["vlans"].startswith("100-16") and found["vlans"].endswith(",4094"), found["vlans"]
    assert "VLANs 100-163,400 and 64 others, 129 of 3995" in found["findings"][-1]["text"]
    assert cluster.snapshot() == before


@pytest.mark.cost(seconds=8)
def test_all_vlans_can_be_tried_and_the_one_that_is_lost_is_found(cluster: Cluster) -> None:
    with sick_hosts.dropped(cluster, "-p", "802_1Q", "--vlan-id", "3777"):
        found = cluster.ok("doctor", (), range(100, 4095))
    assert found["vlans"] == "100-4094"
    (lost,) = [one for one in found["findings"] if one["level"] != "ok"]
    assert lost["code"] == "hosts.vlan" and "frames in VLAN 3777 are lost between all hosts" in lost["text"], lost


@pytest.mark.parametrize("name", sick_hosts.SICKNESSES)
@pytest.mark.cost(seconds=3)
def test_what_is_wrong_is_named_with_its_remedy_and_nothing_else(cluster: Cluster, name: str) -> None:
    sickness = sick_hosts.SICKNESSES[name]
    with sickness.caught(cluster):
        found = findings(cluster)
    assert [one["code"] for one in found] == [sickness.code], found
    assert sickness.says in str(found[0]["text"]) + str(found[0]["evidence"]), found
    assert sickness.remedy in str(found[0]["remedy"]), found
    assert found[0]["hosts"] == list(sickness.hosts), found


@pytest.mark.cost(seconds=10)
def test_what_is_ours_to_set_right_is_set_right(cluster: Cluster) -> None:
    """On one host the bridge is gone, on one its uplink is off, on one it is narrow."""
    first, second, third = HOSTS
    cluster.host(first, "ovs-vsctl", "del-br", "br-int")
    cluster.host(second, *sick_hosts.UPLINK, "down")
    cluster.host(third, *sick_hosts.UPLINK, "mtu", "1400")
    cluster.api.discovery.discover_all()  # as a menu does: what a worker had is not forgotten
    assert {str(one["code"]) for one in findings(cluster)} == {"hosts.bridge", "hosts.uplink.down", "hosts.mtu"}
    fixed = cluster.ok("doctor_fix")
    assert fixed["failed"] == []
    assert {(one["host"], one["text"]) for one in fixed["changed"]} == {
        (first, "made br-int (netdev datapath)"),
        (first, "added eth1 to br-int"),
        (second, "switched eth1 on, until its next boot"),
        (third, "set the MTU of eth1 to 1500, until its next boot"),
    }
    assert [one for one in fixed["findings"] if one["level"] != "ok"] == []
    assert cluster.ok("doctor_fix")["changed"] == []


@pytest.mark.cost(seconds=8)
def test_a_damaged_image_is_replaced_where_no_disk_is_on_it(cluster: Cluster) -> None:
    """And else left, with whose disks they are."""
    made = cluster.ok("create_slice", "admin", "lab")["slice_id"]
    vm = cluster.ok("add_vm_to_slice", "admin", made, "web", "cirros", 1, False)
    ip = vm["worker_ip"]
    with sick_hosts.damaged_image(cluster, ip, is_mended=True):
        found = cluster.ok("doctor", [ip], [4094])
        (told,) = [one for one in found["findings"] if one["level"] != "ok"]
        assert (told["code"], told["hosts"], found["fixes"]) == ("hosts.image.damaged.used", [ip], [])
        assert f"these are on it: VM {vm['vm_id']} (lab/web)" in told["text"]
        assert cluster.ok("doctor_fix", [ip], [4094])["changed"] == []
        cluster.ok("delete_slice", "admin", made)
        found = cluster.ok("doctor", [ip], [4094])
        (told,) = [one for one in found["findings"] if one["level"] != "ok"]
        (fix,) = found["fixes"]
        assert told["code"] == "hosts.image.damaged" and fix["text"].endswith("again, in place of the damaged copy")
        assert cluster.ok("doctor_fix", [ip], [4094], [])["changed"] == [], "nobody agreed to it"
        fixed = cluster.ok("doctor_fix", [ip], [4094], found["fixes"])
        assert (len(fixed["changed"]), fixed["failed"], fixed["fixes"]) == (1, [], [])
        assert [one for one in fixed["findings"] if one["level"] != "ok"] == []


@pytest.mark.cost(seconds=3)
def test_what_is_not_ours_to_set_right_is_left_with_its_remedy(cluster: Cluster) -> None:
    sickness = sick_hosts.SICKNESSES["VLAN 105 is dropped on the trunk"]
    with sickness.caught(cluster):
        fixed = cluster.ok("doctor_fix")
    assert (fixed["changed"], fixed["failed"]) == ([], [])
    assert [one["code"] for one in fixed["findings"] if one["level"] != "ok"] == ["hosts.vlan"]
