"""A real guest reads its seed: name, keys, users and start script; and the seed goes with its machine."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable

import pytest

from cloudrepo.naming import machine_dir
from on_lab.cluster import Cluster, wait_until

pytestmark = pytest.mark.lab

KIND = "ssh-ed25519"
KEY = f"{KIND} {base64.b64encode(struct.pack('>I', 11) + KIND.encode() + bytes(36)).decode()} ann@home"
#: It sets an address by hand: a DHCP client that finds no server beside it must leave that alone.
SCRIPT = "ip addr add 198.51.100.7/24 dev eth1\necho \"it says 'hello' on $(hostname)\"\nexit 3\n"


@pytest.mark.cost(seconds=35)
def test_the_small_guest_does_what_its_seed_says_at_each_start(module_clusters: Callable[..., Cluster]) -> None:
    cluster = module_clusters()
    made = {"id": cluster.ok("create_slice", "admin", "first boot")["slice_id"]}
    wish = {"users": ["ann"], "ssh_keys": [KEY], "start_script": SCRIPT}
    for name, told in (("web_1", wish), ("plain", None)):
        made[name] = cluster.ok("add_vm_to_slice", "admin", made["id"], name, "cirros", 1, first_boot=told)["vm_id"]
    cluster.ok("create_link", "admin", made["id"], made["web_1"], "eth1", made["plain"], "eth1", dhcp=False)
    cluster.ok("deploy_slice", "admin", made["id"])
    vm = cluster.vm(made["web_1"])
    directory = machine_dir(cluster.api.site.installation, made["web_1"])

    def seeds() -> list[str]:
        return cluster.host(vm["worker_ip"], "find", "/run", "-name", "seed-*").split()

    def file(path: str) -> str:
        return cluster.guest(made["web_1"], "cat", path).out

    assert [path.rpartition("/")[0] for path in seeds()] == [directory]
    wait_until(lambda: file("/run/first-boot/status") == "3\n", 60, "the start script ran")
    assert file("/run/first-boot/output") == "it says 'hello' on web-1\n"
    assert file("/root/.ssh/authorized_keys") == file("/home/ann/.ssh/authorized_keys") == f"{KEY}\n"
    assert cluster.guest(made["web_1"], "hostname").out == "web-1\n"
    assert "198.51.100.7/24" in cluster.guest(made["web_1"], "ip", "-4", "addr", "show", "dev", "eth1").out
    assert cluster.guest(made["plain"], "ls", "/dev/vdb").status != 0, "a VM that wants none has no second disk"
    assert cluster.ok("drift")["differences"] == 0

    cluster.ok("stop_vm", "admin", made["id"], made["web_1"])
    assert seeds() == []
    cluster.ok("start_vm", "admin", made["id"], made["web_1"])
    assert len(seeds()) == 1
    wait_until(lambda: file("/run/first-boot/status") == "3\n", 60, "the start script ran again")
    cluster.ok("delete_slice", "admin", made["id"])
    assert seeds() == []
