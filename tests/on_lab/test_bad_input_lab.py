"""Hosts and accounts that are not as they should be: one sentence naming host and remedy, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Lab
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, differences

pytestmark = pytest.mark.lab

FIRST, SECOND = HOSTS[:2]
FOLDER = "/home/ubuntu/vm_images"
SUDO = {"privilege": "sudo"}  # for what is about the account, its home or its sudo


def records(cluster: Cluster) -> tuple[Any, ...]:
    """What a refused call must not change: slices, counters of ids, users."""
    cluster.api.db.refresh()
    data = cluster.api.db.data
    return str(data["slices"]), data["next_vm_id"], str(data["users"])


def refused_whole(cluster: Cluster, call: str, *args: Any) -> str:
    """A refusal that changed no record and nothing on a host."""
    before, hosts = records(cluster), cluster.snapshot()
    message = cluster.refused(call, *args)
    assert records(cluster) == before
    assert differences(hosts, cluster.snapshot()) == []
    return one_sentence(message)


def one_sentence(message: str) -> str:
    """The message, which is short, has no traceback and no second line."""
    assert len(message) < 600 and "\n" not in message and "Traceback" not in message, message
    return message


def linked(cluster: Cluster) -> Record:
    made = cluster.slice("vm1", "vm2")
    cluster.link(made, "vm1", "eth1", "vm2", "eth1")
    return made


def failed_deploy(cluster: Cluster, made: Record) -> str:
    """A failed deploy after which hosts and slice are as before."""
    hosts = cluster.snapshot()
    message = cluster.refused("deploy_slice", "admin", made["id"])
    assert differences(hosts, cluster.snapshot()) == []
    assert cluster.ok("get_slice", "admin", made["id"])["status"] == "design"
    return one_sentence(message)


@pytest.mark.cost(seconds=6)
def test_a_bridge_without_uplink(cluster: Cluster) -> None:
    made = linked(cluster)
    for ip in (SECOND, NETWORK_NODE):
        cluster.host(ip, "ovs-vsctl", "del-port", "br-int", "eth1")
        try:
            message = failed_deploy(cluster, made)
        finally:
            cluster.host(ip, "ovs-vsctl", "add-port", "br-int", "eth1")
        assert message.startswith(ip) and "br-int has no uplink" in message and "ovs-vsctl add-port br-int" in message
    cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=5)
def test_a_bridge_that_is_missing(clusters: Callable[..., Cluster]) -> None:
    cluster = clusters(network={"bridge": "br-none"})
    made = linked(cluster)
    message = failed_deploy(cluster, made)
    assert message.startswith(NETWORK_NODE) and "br-none" in message and "ovs-vsctl add-br br-none" in message
    alone = cluster.slice("vm1")
    message = failed_deploy(cluster, alone)
    assert "br-none" in message and "ovs-vsctl add-br br-none" in message
    for each in (made, alone):
        cluster.ok("delete_slice", "admin", each["id"])


@pytest.mark.cost(seconds=4)
def test_an_image_that_nobody_has(clusters: Callable[..., Cluster]) -> None:
    flavor = {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": "/nowhere/lost.img"}
    cluster = clusters(flavors={"lost": flavor})
    made = cluster.slice()
    message = refused_whole(cluster, "add_vm_to_slice", "admin", made["id"], "vm1", "lost", 1)
    assert message.startswith(FIRST) and message.count("/nowhere/lost.img") >= 2 and "Put the image at" in message


@contextmanager
def full_disk(lab: Lab, ip: str) -> Iterator[None]:
    lab.host(ip, ["install", "-d", "-o", "ubuntu", FOLDER], check=True)
    lab.host(ip, ["mount", "-t", "tmpfs", "-o", "size=2m,uid=1000,gid=1000,mode=755", "full", FOLDER], check=True)
    try:
        yield
    finally:
        lab.host(ip, ["umount", FOLDER], check=True)


@pytest.mark.cost(seconds=6)
def test_a_disk_that_is_full(lab: Lab, clusters: Callable[..., Cluster]) -> None:
    with full_disk(lab, FIRST):
        cluster = clusters(scheduler={"capacity": "off"}, host=SUDO)
        made = cluster.slice()
        message = refused_whole(cluster, "add_vm_to_slice", "admin", made["id"], "vm1", "cirros", 1)
        assert message.startswith(FIRST) and "free" in message
    with full_disk(lab, FIRST):
        cautious = clusters(host=SUDO)
        made = cautious.slice("vm1")
        assert cautious.vm(made["vm1"])["worker_ip"] == SECOND
        cautious.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=6)
def test_no_key_and_the_wrong_user(clusters: Callable[..., Cluster], tmp_path: Path) -> None:
    for ssh, words in (
        ({"key": str(tmp_path / "no-key")}, ("there is no private key", "ssh-keygen -t ed25519")),
        ({"user": "nobody-here"}, ("nobody-here@10.0.10.1", "lets none of our keys in", "ssh-copy-id")),
    ):
        cluster = clusters(ssh=ssh, host=SUDO)
        made = cluster.slice()
        message = refused_whole(cluster, "add_vm_to_slice", "admin", made["id"], "vm1", "cirros", 1)
        assert FIRST in message and SECOND in message
        reason = cluster.api.discovery.down_reasons()[FIRST]
        for each in words:
            assert each in one_sentence(reason), reason
        status = {worker["ip"]: worker for worker in cluster.ok("cluster_status")["workers"]}
        assert status[FIRST]["state"] == "down" and status[FIRST]["reason"] == reason


@contextmanager
def sudo_with_password(lab: Lab, ip: str) -> Iterator[None]:
    rule = "/etc/sudoers.d/ubuntu"
    genuine = lab.host(ip, ["cat", rule], check=True).stdout
    lab.host(ip, ["sh", "-c", 'cat > "$1"', "sh", rule], input="ubuntu ALL=(ALL) ALL\n", check=True)
    try:
        yield
    finally:
        lab.host(ip, ["sh", "-c", 'cat > "$1"', "sh", rule], input=genuine, check=True)


@contextmanager
def no_python(lab: Lab, ip: str) -> Iterator[None]:
    hide = (
        "mkdir -p /run/hide/up /run/hide/work && "
        "mount -t overlay hide -o lowerdir=/usr/bin,upperdir=/run/hide/up,workdir=/run/hide/work /usr/bin && "
        "rm /usr/bin/python3"
    )
    lab.host(ip, ["sh", "-c", hide], check=True)
    try:
        yield
    finally:
        lab.host(ip, ["sh", "-c", "umount -l /usr/bin && rm -r /run/hide"], check=True)


@pytest.mark.cost(seconds=8)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (sudo_with_password, ("sudo asks for a password", "NOPASSWD")),
        (no_python, ("python3", "is missing", "apt-get install python3")),
    ],
)
def test_a_host_that_cannot_take_messages(
    lab: Lab, clusters: Callable[..., Cluster], fault: Callable[[Lab, str], Any], words: tuple[str, ...]
) -> None:
    """Discovery leaves it out and says why; a slice that is there already cannot be deployed, and says why."""
    cluster = clusters(host=SUDO)
    made = linked(cluster)
    cluster.api.executor.close()  # a runner that waits there already would not notice
    with fault(lab, SECOND):
        message = cluster.refused("deploy_slice", "admin", made["id"])
        newcomer = clusters(host=SUDO)
        reason = newcomer.api.discovery.down_reasons()[SECOND]
    for text in (one_sentence(message), one_sentence(reason)):
        assert text.startswith(SECOND), text
        for each in words:
            assert each in text, text
    assert SECOND not in newcomer.api.db.data["workers"]
    cluster.ok("delete_slice", "admin", made["id"])
