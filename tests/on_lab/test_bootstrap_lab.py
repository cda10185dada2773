"""A host without bridge, privilege, image folder and account of QEMU becomes a worker; and a worker goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.cluster import Lab
from lab.namespaces import CHECKOUT
from on_lab.cluster import HOSTS, Cluster

pytestmark = pytest.mark.lab
PRIVILEGE = "sudo"
BARE = HOSTS[1]

STRIP = """
ovs-vsctl --timeout=20 del-br br-int
ip link set dev eth1 down
mv /etc/sudoers.d/ubuntu /root/rule
rm -rf /home/ubuntu/vm_images
"""
#: What is left of the test, and the lab as it was.
RESTORE = """
mv /root/rule /etc/sudoers.d/ubuntu
rm -f /etc/sudoers.d/cloudrepo-ubuntu
userdel cloudvm
chmod 750 /home/ubuntu
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab, module_clusters: Callable[..., Cluster]) -> Iterator[Cluster]:
    made = module_clusters(accel="tcg", qemu={"user": "cloudvm"})
    with made.api.db.transaction() as data:
        data["workers_list"].remove(BARE)
        data["workers"].pop(BARE, None)
    made.host(BARE, "sh", "-ec", STRIP)
    made.api.executor.drop(BARE)
    try:
        yield made
    finally:
        made.host(BARE, "sh", "-c", RESTORE)
        made.host(BARE, "sh", "-c", "rm -rf /home/ubuntu/vm_images")


def cloud(cluster: Cluster, *words: str) -> tuple[int, dict[str, Any], str]:
    """A one-shot command with `--json`: its status, its document, and what it said beside that."""
    environment = {"CLOUDREPO_STATE": str(cluster.state)}
    words = (sys.executable, str(CHECKOUT / "main.py"), *words, "--json")
    done = cluster.lab.exec(list(words), env=environment, timeout=200)
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


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
