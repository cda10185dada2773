"""An added image on real hosts: a disk on it, who has a copy, and its way out again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from on_lab.cluster import HOSTS, Cluster

pytestmark = pytest.mark.lab


def copies(cluster: Cluster, ip: str) -> list[str]:
    return cluster.host(ip, "find", cluster.home, "-name", "*-added.qcow2*").split()


@pytest.mark.cost(seconds=25)
def test_an_added_image_is_brought_used_and_removed(clusters: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, other = clusters(), clusters()
    file = tmp_path / "added.qcow2"
    shutil.copy(cluster.image, file)
    image = cluster.ok("add_image", "admin", "added", str(file))
    made = {"id": cluster.ok("create_slice", "admin", "on it")["slice_id"]}
    vm = cluster.ok("add_vm_to_slice", "admin", made["id"], "vm1", "cirros", 0, image="added")
    ip, base = vm["worker_ip"], f"{cluster.images}/base/{image['sha256'][:16]}-added.qcow2"
    disk = cluster.place(vm["qcow_image"])
    info = json.loads(cluster.host(ip, "qemu-img", "info", "--output=json", "-U", disk))
    assert (info["full-backing-filename"], info["backing-filename-format"]) == (base, image["format"])
    assert cluster.ok("list_images", None, look=True)["images"][0]["workers"] == [ip]
    done, message = cluster.api.deploy_slice("admin", made["id"])
    assert done, message
    assert cluster.guest(vm["vm_id"], "true").status == 0

    assert f"slice {made['id']} (on it)" in cluster.refused("remove_image", "admin", "added")
    assert sorted(copies(cluster, ip)) == [base, f"{base}.json"]
    # Another installation has a disk on the same copy: not its own to remove, and not ours while the disk is there.
    other.ok("add_image", "admin", "added", str(file))
    theirs = other.ok("create_slice", "admin", "theirs")["slice_id"]
    with other.api.db.transaction() as data:
        data["workers_list"] = [ip]
    their_vm = other.ok("add_vm_to_slice", "admin", theirs, "other", "cirros", 0, image="added")
    cluster.ok("delete_slice", "admin", made["id"])
    left = cluster.ok("remove_image", "admin", "added")
    assert left["removed_from"] == [] and "is on it" in left["left"][ip], left
    cluster.ok("add_image", "admin", "added", str(file))
    other.ok("remove_vm", "admin", theirs, their_vm["vm_id"])
    assert "brought it" in other.ok("remove_image", "admin", "added")["left"][ip]
    assert cluster.ok("remove_image", "admin", "added") == {"name": "added", "removed_from": [ip], "left": {}}
    assert [copies(cluster, one) for one in HOSTS] == [[], [], []]
    other.ok("delete_slice", "admin", theirs)
