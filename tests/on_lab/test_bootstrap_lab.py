"""A host without bridge, privilege, image folder and account of QEMU becomes a worker; and a worker goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab.cluster import Lab
from on_lab.bare_host import BARE, bare, cloud
from on_lab.cluster import Cluster

pytestmark = pytest.mark.lab
PRIVILEGE = "sudo"

STRIP = """
rm -rf /home/ubuntu/vm_images
"""
RESTORE = """
rm -f /etc/sudoers.d/cloudrepo-ubuntu
chmod 750 /home/ubuntu
rm -rf /home/ubuntu/vm_images
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab, module_clusters: Callable[..., Cluster]) -> Iterator[Cluster]:
    with bare(module_clusters(accel="tcg", qemu={"user": "cloudvm"}), STRIP, RESTORE) as made:
        yield made


@pytest.mark.cost(seconds=25)
def test_a_bare_host_becomes_a_worker_and_the_second_time_nothing_is_done(cluster: Cluster) -> None:
    status, refused, _ = cloud(cluster, "worker", "add", BARE, "--bootstrap")
    assert status == 1 and "--admin USER" in refused["error"]["message"], refused
    wrong = ("worker", "add", BARE, "--bootstrap", "--admin", "admin", "--uplink")
    status, refused, _ = cloud(cluster, *wrong, "eth0")
    assert status == 1 and f"eth0 has the host's own address {BARE}" in refused["error"]["message"], refused
    assert "that the host does not use itself: eth1" in refused["error"]["message"]
    assert "nothing was changed" in refused["error"]["message"]
    status, made, said = cloud(cluster, *wrong, "eth1", "--datapath", "netdev")
    assert status == 0 and made["is_new"] and made["problems"] == [], (made, said)
    for line in (
        "made the account cloudvm for QEMU",
        "made br-int (netdev datapath)",
        "added eth1 to br-int",
        "switched eth1 on",
        "made /home/ubuntu/vm_images",
        "let cloudvm through /home/ubuntu (o+x)",
        "made /etc/sudoers.d/cloudrepo-ubuntu: ubuntu may be root by sudo",
    ):
        assert line in made["changed"] and f"{BARE}: {line}" in said, made
    assert sum(line.startswith("copied ") for line in made["changed"]) == len(cluster.base_images)
    status, again, _ = cloud(cluster, *wrong, "eth1", "--datapath", "netdev")
    assert (status, again["is_new"], again["changed"], again["warnings"]) == (0, False, [], [])


@pytest.mark.cost(seconds=8)
def test_the_doctor_finds_nothing_wrong_with_it(cluster: Cluster) -> None:
    status, found, _ = cloud(cluster, "doctor", "--host", BARE)
    assert [one for one in found["findings"] if one["level"] != "ok"] == [] and status == 0


@pytest.mark.cost(seconds=8)
def test_it_is_drained_and_taken_out_again(cluster: Cluster) -> None:
    assert cloud(cluster, "worker", "drain", BARE)[1]["is_drained"]
    shown = {one["ip"]: one["is_drained"] for one in cloud(cluster, "worker", "list")[1]["workers"]}
    assert shown[BARE] and sum(shown.values()) == 1
    status, gone, _ = cloud(cluster, "worker", "remove", BARE, "--yes")
    assert (status, gone["vms"], gone["left"]) == (0, [], "")
    assert BARE not in [one["ip"] for one in cloud(cluster, "worker", "list")[1]["workers"]]
