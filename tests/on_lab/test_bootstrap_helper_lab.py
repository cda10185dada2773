"""`worker add --bootstrap` with `host.privilege: helper`: a bare host becomes a worker whose account runs one program.

It is killed half-way twice before: in the part that makes a worker, and in the part that installs the helper.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloudrepo.host.hardening import COMPILED, FOLDER, HELPER
from cloudrepo.host.programs import helper_files
from control import hardening
from lab.guestless import FIRST_IN_PATH
from on_lab.bare_host import BARE, bare, cloud
from on_lab.cluster import Cluster
from on_lab.hardened import HOME, IMAGES, bounds_file

pytestmark = pytest.mark.lab
RULE = "/etc/sudoers.d/zz-cloudrepo-ubuntu"

STRIP = f"""
mkdir /root/images
test ! -e {HOME} || mv {HOME} /root/images
"""
RESTORE = f"""
rm -rf {HOME}
test ! -e /root/images/cloudrepo || mv /root/images/cloudrepo {HOME}
rmdir /root/images
"""
ADD = ("worker", "add", BARE, "--bootstrap", "--admin", "admin", "--uplink", "eth1", "--datapath", "netdev")


@pytest.fixture(scope="module")
def cluster(module_clusters: Callable[..., Cluster]) -> Iterator[Cluster]:
    made = module_clusters(accel="tcg", qemu={"user": "cloudvm"})
    with bare(made, STRIP, RESTORE, undo=hardening.script(made.api.context, BARE, undo=True)):
        yield made


def add(cluster: Cluster) -> tuple[int, dict[str, Any]]:
    """The command with `--json`: its status and its document."""
    status, document, _said = cloud(cluster, *ADD)
    return status, document


@contextmanager
def deadly(cluster: Cluster, program: str) -> Iterator[None]:
    """A program of the host that does what it is to do, and kills who called it."""
    place = f"{FIRST_IN_PATH}/{program}"
    script = f'#!/bin/sh\n"$(PATH=/usr/sbin:/usr/bin command -v {program})" "$@"\nkill -9 $PPID\n'
    cluster.host(BARE, "sh", "-ec", 'mkdir -p "${1%/*}"; cat > "$1"; chmod 755 "$1"', "sh", place, input=script)
    try:
        yield
    finally:
        cluster.host(BARE, "rm", place)


@pytest.mark.cost(seconds=35)
def test_a_bare_host_becomes_a_worker_with_the_helper_though_it_is_killed_on_the_way(cluster: Cluster) -> None:
    with deadly(cluster, "useradd"):
        status, cut = add(cluster)
    assert status == 1 and cut["error"]["message"], cut
    assert BARE not in cluster.api.db.data["workers_list"], "what ended half-way is not enrolled"
    with deadly(cluster, "visudo"):
        status, cut = add(cluster)
    assert status == 1 and cut["error"]["message"], cut
    assert cluster.lab.host(BARE, ["test", "-e", RULE]).returncode == 1
    status, made = add(cluster)
    assert status == 0 and made["is_new"] and made["problems"] == [] == made["warnings"], made
    assert {f"made {path}" for path in (HELPER, RULE, bounds_file(cluster.api))} <= set(made["changed"]), made
    assert sum(line.startswith("copied ") for line in made["changed"]) == len(cluster.base_images)
    status, again = add(cluster)
    assert (status, again["is_new"], again["changed"], again["warnings"]) == (0, False, [], [])


@pytest.mark.cost(seconds=4)
def test_what_it_said_is_so_on_the_host(cluster: Cluster) -> None:
    """Also what it had no time to say before it was killed."""

    def host(*words: str) -> str:
        return cluster.host(BARE, *words).strip()

    assert host("stat", "-c", "%U:%G %a", HELPER, RULE) == "root:root 755\nroot:root 440"
    (program, _), files = helper_files(FOLDER).items(), helper_files(FOLDER)
    assert {name: host("cat", f"{FOLDER}/{name}") for name in files} == {n: text.strip() for n, text in files.items()}
    [compiled] = host("ls", COMPILED).split()
    assert compiled.startswith(f"{program[0].removesuffix('.py')}.cpython-")
    assert host("stat", "-c", "%U:%G %a", COMPILED, f"{COMPILED}/{compiled}") == "root:root 755\nroot:root 644"
    assert host("ovs-vsctl", "list-ports", "br-int") == "eth1" and "UP" in host("ip", "link", "show", "dev", "eth1")
    assert host("getent", "passwd", "cloudvm").endswith(":/nonexistent:/usr/sbin/nologin")
    assert json.loads(host("cat", bounds_file(cluster.api)))["trunks"] == ["eth1"]
    assert len(host("sh", "-c", f"ls {IMAGES}/base/*.img {IMAGES}/base/*.qcow2").split()) == len(cluster.base_images)
    shell = cluster.api.executor.execute_direct
    assert shell(BARE, "sudo -n true").returncode != 0 and "cut" in shell(BARE, f"sudo -n {HELPER} < /dev/null").stderr
    found = cluster.ok("doctor", [BARE])
    assert [one for one in found["findings"] if one["level"] != "ok"] == []
