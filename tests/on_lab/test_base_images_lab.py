"""Base images on real hosts: a copy that was cut or damaged is never used, and goes on where it ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import HostError
from on_lab.cluster import HOSTS, Cluster
from remote_executor import Upload

pytestmark = pytest.mark.lab

MIB = 1024**2
SIZE = 48 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A raw image that no compression and no luck makes smaller."""
    path = tmp_path / "noise.img"
    path.write_bytes(os.urandom(SIZE))
    return path


def hang_up(cluster: Cluster, ip: str) -> None:
    """End all SSH sessions on a host from its side."""
    for line in cluster.host(ip, "ps", "-e", "-o", "pid=,args=").splitlines():
        pid, _, words = line.strip().partition(" ")
        if words.startswith("sshd: ubuntu"):
            cluster.lab.host(ip, ["kill", "-9", pid])


def watch_uploads(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[Upload]:
    """All uploads that arrive from now on."""
    arrived: list[Upload] = []
    genuine = cluster.api.executor.upload

    def upload(*args: Any, **options: Any) -> Upload:
        arrived.append(genuine(*args, **options))
        return arrived[-1]

    monkeypatch.setattr(cluster.api.executor, "upload", upload)
    return arrived


def bases(cluster: Cluster, ip: str) -> str:
    """What stands in the store of base images."""
    return cluster.lab.host(ip, ["find", f"{cluster.images}/base", "-name", "*noise*"]).stdout


@pytest.mark.cost(seconds=20)
def test_a_copy_that_is_cut_is_never_used_and_goes_on_where_it_ended(
    cluster: Cluster, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip, store = HOSTS[0], cluster.api.deployment_api.qcow_manager.bases
    arrived = watch_uploads(cluster, monkeypatch)
    cut: list[int] = []

    def cut_at_sixty(done: int, total: int) -> None:
        if done >= total * 0.6 and not cut:
            cut.append(done)
            hang_up(cluster, ip)

    with pytest.raises(HostError):
        store.ensure(ip, str(image), progress=cut_at_sixty)
    assert bases(cluster, ip) == "" and arrived == []
    found = store.ensure(ip, str(image))
    assert arrived[0].sent <= 0.45 * SIZE and arrived[0].sent + arrived[0].resumed_from == SIZE
    assert cluster.host(ip, "sha256sum", found.path_on_host).split()[0] == found.sha256
    assert cluster.host(ip, "find", cluster.images, "-name", "*.part") == ""

    # Damaged where it stands, at the same size: it is noticed, and brought anew.
    cluster.host(ip, "sh", "-c", 'printf damaged | dd of="$1" conv=notrunc 2>/dev/null', "sh", found.path_on_host)
    store.forget(ip)
    again = store.ensure(ip, str(image))
    assert len(arrived) == 2
    assert cluster.host(ip, "sha256sum", again.path_on_host).split()[0] == found.sha256
    cluster.host(ip, "rm", again.path_on_host, f"{again.path_on_host}.json")


@pytest.mark.cost(seconds=12)
def test_what_arrived_of_a_cut_copy_is_checked_before_it_is_used(
    cluster: Cluster, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip, store = HOSTS[1], cluster.api.deployment_api.qcow_manager.bases
    arrived = watch_uploads(cluster, monkeypatch)

    def cut_early(done: int, total: int) -> None:
        if done >= total * 0.3:
            hang_up(cluster, ip)

    with pytest.raises(HostError):
        store.ensure(ip, str(image), progress=cut_early)
    part = cluster.host(ip, "find", cluster.images, "-name", "*.part").strip()
    cluster.host(ip, "sh", "-c", 'printf damaged | dd of="$1" conv=notrunc 2>/dev/null', "sh", part)
    found = store.ensure(ip, str(image))
    assert (arrived[0].resumed_from, arrived[0].sent) == (0, SIZE)
    assert cluster.host(ip, "sha256sum", found.path_on_host).split()[0] == found.sha256
    cluster.host(ip, "rm", found.path_on_host, f"{found.path_on_host}.json")


@pytest.mark.cost(seconds=12)
def test_hosts_get_their_copies_at_the_same_time(cluster: Cluster, image: Path) -> None:
    store = cluster.api.deployment_api.qcow_manager.bases
    seen: dict[str, list[float]] = {ip: [] for ip in HOSTS}

    def bring(ip: str) -> str:
        return store.ensure(ip, str(image), progress=lambda done, total: seen[ip].append(time.monotonic())).sha256

    with ThreadPoolExecutor() as pool:
        digests = set(pool.map(bring, HOSTS))
    assert len(digests) == 1
    assert max(times[0] for times in seen.values()) < min(times[-1] for times in seen.values())
    for ip in HOSTS:
        cluster.host(ip, "find", f"{cluster.images}/base", "-name", "*noise*", "-delete")


@pytest.mark.cost(seconds=8)
def test_an_image_that_only_the_worker_has_is_used_and_said(clusters: Callable[..., Cluster]) -> None:
    ip = HOSTS[0]
    cluster = clusters()
    cluster.ok(
        "remove_vm", "admin", (first := cluster.slice("brings"))["id"], first["brings"]
    )  # the lab's image is there
    own = f"{cluster.images}/own.img"
    cluster.host(
        ip, "sh", "-c", f'cp {cluster.images}/base/*cirros*.img "$1" && chown ubuntu "$1" && chmod 644 "$1"', "sh", own
    )
    try:
        alone = clusters(
            flavors={"own": {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": "/nowhere/own.img"}},
        )
        with alone.api.db.transaction() as data:
            data["workers_list"] = [ip]
        made = {"id": alone.ok("create_slice", "admin", "own image")["slice_id"]}
        vm = alone.ok("add_vm_to_slice", "admin", made["id"], "vm1", "own", 0)
        done, message = alone.api.deploy_slice("admin", made["id"])
        assert done, message
        assert own in message.hint and ip in message.hint
        assert alone.guest(vm["vm_id"], "true").status == 0
        alone.ok("delete_slice", "admin", made["id"])
        assert cluster.host(ip, "stat", "--format=%U", own) == "ubuntu\n"  # only a copy of it was used
    finally:
        cluster.host(ip, "rm", own)
    cluster.ok("delete_slice", "admin", first["id"])
