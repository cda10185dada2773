"""Which worker a VM gets, on real workers: in order, for many at once, around one that is down, when all are full."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cluster import Lab
from on_lab.cluster import HOSTS, Cluster

pytestmark = pytest.mark.lab

CHECKOUT = Path(__file__).resolve().parents[2]
THIRTY = Path(__file__).with_name("thirty.py")


def _placed(cluster: Cluster, slice_id: int) -> list[str]:
    return [vm["worker_ip"] for vm in cluster.ok("get_slice", "admin", slice_id)["vms"]]


def _disks(cluster: Cluster, ip: str) -> int:
    return cluster.host(ip, "ls", cluster.images).count("_img.qcow2")


@pytest.mark.cost(seconds=2)
def test_the_four_documented_calls_leave_out_who_is_down(cluster: Cluster) -> None:
    assert [cluster.api.get_next_worker() for _ in range(4)] == [*HOSTS, HOSTS[0]]
    cluster.lab.cut(HOSTS[1])
    try:
        cluster.api.executor.close()
        cluster.api.discovery.discover_all()
    finally:
        cluster.lab.heal(HOSTS[1])
    assert [cluster.api.get_next_worker() for _ in range(4)] == [HOSTS[2], HOSTS[0], HOSTS[2], HOSTS[0]]


@pytest.mark.cost(seconds=25)
def test_thirty_processes_with_a_vm_each_spread_evenly(clusters: Callable[..., Cluster]) -> None:
    cluster = clusters(ssh={"connect_timeout": 60})  # thirty logins at once, all on this one machine
    with cluster.api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 30
    slice_id = cluster.ok("create_slice", "admin", "thirty")["slice_id"]
    words = [sys.executable, str(THIRTY), str(cluster.state), str(slice_id), "30"]
    environment = {
        "PYTHONPATH": str(CHECKOUT),
        "CLOUDREPO_SSH_KNOWN_HOSTS": str(cluster.folder / "known_hosts"),
        "CLOUDREPO_STATE": str(cluster.state),
    }
    done = cluster.lab.exec(words, env=environment, timeout=150)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found = cluster.ok("get_slice", "admin", slice_id)["vms"]
    assert Counter(vm["worker_ip"] for vm in found) == dict.fromkeys(HOSTS, 10)
    assert sorted(vm["vm_id"] for vm in found) == list(range(slice_id + 1, slice_id + 31))
    assert sorted(vm["vnc_port"] for vm in found) == list(range(5901, 5931))
    assert [_disks(cluster, ip) for ip in HOSTS] == [10, 10, 10]
    assert cluster.api.db.data["users"]["admin"]["used_vms"] == 30
    assert cluster.refused("add_vm_to_slice", "admin", slice_id, "one-more", "cirros", 1) == "Quota exceeded"
    cluster.ok("delete_slice", "admin", slice_id)
    assert [_disks(cluster, ip) for ip in HOSTS] == [0, 0, 0]


@pytest.mark.cost(seconds=12)
def test_a_worker_that_lost_its_power_gets_nothing_until_it_is_found_again(lab: Lab, cluster: Cluster) -> None:
    slice_id = cluster.ok("create_slice", "admin", "down and back")["slice_id"]
    lab.kill(HOSTS[1])
    try:
        found = cluster.api.discovery.discover_all()
        assert [ip for ip in HOSTS if not found[ip].ok] == [HOSTS[1]]
        row = cluster.ok("cluster_status")["workers"][1]
        assert (row["ip"], row["state"]) == (HOSTS[1], "down")
        assert HOSTS[1] in row["reason"]
        for name in ("a", "b", "c"):
            cluster.ok("add_vm_to_slice", "admin", slice_id, name, "cirros", 1)
        assert _placed(cluster, slice_id) == [HOSTS[0], HOSTS[2], HOSTS[0]]
    finally:
        lab.boot(HOSTS[1])
    found = cluster.api.discovery.discover_all()
    assert found[HOSTS[1]].ok
    assert cluster.ok("cluster_status")["workers"][1]["state"] == "up"
    for name in ("d", "e", "f"):
        cluster.ok("add_vm_to_slice", "admin", slice_id, name, "cirros", 1)
    assert sorted(_placed(cluster, slice_id)[3:]) == sorted(HOSTS)
    cluster.ok("delete_slice", "admin", slice_id)


@pytest.mark.cost(seconds=6)
def test_full_is_said_with_what_every_worker_lacks(lab: Lab, clusters: Callable[..., Cluster]) -> None:
    """Memory counts as it is, cores eightfold; a worker that is down is named with the others."""
    image = str(lab.folder.images / "cirros-0.6.2-x86_64-disk.img")
    flavors = {
        "half": {"cores": 1, "ram_gb": 4.5, "disk_gb": 1, "image": image},
        "wide": {"cores": 33, "ram_gb": 0.1, "disk_gb": 1, "image": image},
        "deep": {"cores": 1, "ram_gb": 0.1, "disk_gb": 900_000, "image": image},
    }
    cluster = clusters(flavors=flavors)
    sizes = {row["ip"]: (row["max_cores"], row["max_ram_gb"]) for row in cluster.ok("cluster_status")["workers"]}
    assert set(sizes.values()) == {(4, 8)}
    slice_id = cluster.ok("create_slice", "admin", "full")["slice_id"]
    for name in ("a", "b", "c"):
        cluster.ok("add_vm_to_slice", "admin", slice_id, name, "half", 0)
    assert _placed(cluster, slice_id) == list(HOSTS)
    before = cluster.ok("get_slice", "admin", slice_id)

    message = cluster.refused("add_vm_to_slice", "admin", slice_id, "d", "half", 0)
    assert message.startswith("no worker can take the VM")
    for ip in HOSTS:
        assert f"{ip}: 3.5 of 8 GB RAM free, 4.5 wanted" in message
    message = cluster.refused("add_vm_to_slice", "admin", slice_id, "d", "wide", 0)
    for ip in HOSTS:
        assert f"{ip}: 31 of 32 cores free, 33 wanted" in message
    message = cluster.refused("add_vm_to_slice", "admin", slice_id, "d", "deep", 0)
    assert message.count("GB disk free, 900000 wanted") == message.count("GB disk free") == 3
    lab.cut(HOSTS[2])
    try:
        cluster.api.executor.close()
        cluster.api.discovery.discover_all()
    finally:
        lab.heal(HOSTS[2])
    message = cluster.refused("add_vm_to_slice", "admin", slice_id, "d", "half", 0)
    assert f"{HOSTS[0]}: 3.5 of 8 GB RAM free" in message
    assert f"{HOSTS[2]}: down" in message
    assert cluster.ok("get_slice", "admin", slice_id) == before
    cluster.ok("delete_slice", "admin", slice_id)
