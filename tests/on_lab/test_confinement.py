"""What a machine's process is on its host: a number and a cgroup of its own, and no other machine's files in reach."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cloudrepo import limits
from cloudrepo.naming import machine_dir, tap_name
from lab.cluster import Lab
from lab.guestless import guestless
from on_lab.cluster import HOSTS, Cluster, Record

pytestmark = pytest.mark.lab


@contextmanager
def cgroup2(lab: Lab) -> Iterator[None]:
    """Hosts that have cgroup2: they show this machine's, below a directory of their own in it."""
    place = "/sys/fs/cgroup"
    for ip in HOSTS:
        lab.host(ip, ["mount", "-t", "cgroup2", "cgroup2", place], check=True)
        lab.host(
            ip, ["sh", "-ec", f"mkdir {place}/lab-$1 && mount --bind {place}/lab-$1 {place}", "sh", ip], check=True
        )
    try:
        yield
    finally:
        for ip in HOSTS:
            lab.host(ip, ["sh", "-ec", f"umount {place}; rmdir {place}/lab-$1; umount {place}", "sh", ip], check=True)


@pytest.fixture(scope="module")
def pair(lab: Lab, module_clusters: Callable[..., Cluster]) -> Iterator[tuple[Cluster, Record]]:
    """Two machines; where each is does not matter, since its files are looked at under the other's number."""
    with guestless(lab, HOSTS), cgroup2(lab):
        cluster = module_clusters(accel="tcg", qemu={"stop_grace": 0})
        made = cluster.slice("a", "b", interfaces=2, internet=("a", "b"))
        cluster.link(made, "a", "eth1", "b", "eth1")
        cluster.ok("deploy_slice", "admin", made["id"])
        yield cluster, made
        cluster.ok("delete_slice", "admin", made["id"])


def uid(cluster: Cluster, vm_id: int) -> int:
    return cluster.api.settings.qemu.first_uid + vm_id


def read_as(cluster: Cluster, host: str, number: int, path: str) -> str:
    """What somebody of this number gets who reads a file of a host: its first bytes, or why not."""
    words = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", "--", "head", "-c", "3", path]
    done = cluster.lab.host(host, words)
    return done.stdout if done.returncode == 0 else done.stderr


@pytest.mark.cost(seconds=8)
def test_each_process_tap_and_disk_has_the_number_of_its_machine(pair: tuple[Cluster, Record]) -> None:
    cluster, made = pair
    for name in ("a", "b"):
        vm = cluster.vm(made[name])
        host, number = vm["worker_ip"], uid(cluster, made[name])
        directory = machine_dir(cluster.api.site.installation, made[name])
        pid = cluster.host(host, "cat", f"{directory}/pid").split()[0]
        lines = cluster.host(host, "cat", f"/proc/{pid}/status").splitlines()
        ids = {line.split(":")[0]: line.split()[1:] for line in lines if line.startswith(("Uid:", "Gid:", "Groups:"))}
        assert ids["Uid"] == ids["Gid"] == [str(number)] * 4
        kvm = [str(os.stat("/dev/kvm").st_gid)] if os.path.exists("/dev/kvm") else []
        assert ids["Groups"] in ([], kvm)
        owner = cluster.host(host, "cat", f"/sys/class/net/{tap_name(made[name], 'eth1')}/owner").strip()
        assert owner == str(number)
        for path in (cluster.place(vm["qcow_image"]), directory):
            assert cluster.host(host, "stat", "-c", "%u %g %A", path).split()[:2] == [str(number)] * 2
    assert cluster.ok("drift")["differences"] == 0


@pytest.mark.cost(seconds=2)
def test_a_machine_reads_its_own_disk_and_no_other_machines(pair: tuple[Cluster, Record]) -> None:
    cluster, made = pair
    for name in ("a", "b"):
        vm = cluster.vm(made[name])
        host, disk = vm["worker_ip"], cluster.place(vm["qcow_image"])
        directory = machine_dir(cluster.api.site.installation, made[name])
        assert read_as(cluster, host, uid(cluster, made[name]), disk).startswith("QFI")
        for other in (made["a"] + made["b"] - made[name], 0):
            for path in (disk, f"{directory}/qemu.log", f"{directory}/qmp.sock", f"{directory}/serial.log"):
                assert "Permission denied" in read_as(cluster, host, uid(cluster, other), path), path


@pytest.mark.cost(seconds=6)
def test_each_process_is_in_a_cgroup_of_its_own_and_is_put_back_there(pair: tuple[Cluster, Record]) -> None:
    """This proves the group. Whether limits stand in it depends on the controllers that the machine hands on."""
    cluster, made = pair
    assert cluster.ok("drift")["differences"] == 0
    for name in ("a", "b"):
        host, group = cluster.vm(made[name])["worker_ip"], limits.group_of(cluster.api.site.installation, made[name])
        directory = machine_dir(cluster.api.site.installation, made[name])
        pid = cluster.host(host, "cat", f"{directory}/pid").split()[0]
        assert cluster.host(host, "cat", f"/sys/fs/cgroup/{group}/cgroup.procs").split() == [pid]
        cluster.host(host, "sh", "-c", 'echo "$1" > /sys/fs/cgroup/cgroup.procs', "sh", pid)
    told = json.dumps(cluster.ok("drift"))
    assert told.count("none of its own") == 2, told
    cluster.ok("drift_fix")
    assert cluster.ok("drift")["differences"] == 0


@pytest.mark.cost(seconds=1)
def test_what_a_host_cannot_limit_is_told_of_the_worker(pair: tuple[Cluster, Record]) -> None:
    cluster, _ = pair
    handed_on = cluster.host(HOSTS[0], "cat", "/sys/fs/cgroup/cgroup.subtree_control").split()
    lacking = [one for one in limits.CONTROLLERS if one not in handed_on]
    workers = {one["ip"]: one for one in cluster.ok("cluster_status")["workers"]}
    assert [workers[ip]["unlimited"] for ip in HOSTS] == [lacking] * 3
