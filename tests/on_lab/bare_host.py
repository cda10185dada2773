"""A host of the lab that is no worker: nothing is there, until `worker add --bootstrap` makes it one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.namespaces import CHECKOUT
from on_lab.cluster import HOSTS, Cluster

BARE = HOSTS[1]

#: What makes it bare, and what is left of the test; each test has more of both.
STRIP = """
ovs-vsctl --timeout=20 del-br br-int
ip link set dev eth1 down
mv /etc/sudoers.d/ubuntu /root/rule
"""
RESTORE = """
mv /root/rule /etc/sudoers.d/ubuntu
userdel cloudvm
"""


@contextmanager
def bare(cluster: Cluster, strip: str, restore: str, undo: str = "") -> Iterator[Cluster]:
    """The cluster without this host, and the lab as it was.

    Args:
        cluster: its installation.
        strip: a shell script that takes more from the host.
        restore: one that gives it back, after which a step that fails ends nothing.
        undo: a Python program for the host that comes before.
    """
    with cluster.api.db.transaction() as data:
        data["workers_list"].remove(BARE)
        data["workers"].pop(BARE, None)
    if undo:
        cluster.host(BARE, "/usr/bin/python3", "-I", "-", input=undo)
    cluster.host(BARE, "sh", "-ec", STRIP + strip)
    cluster.api.executor.drop(BARE)
    try:
        yield cluster
    finally:
        cluster.host(BARE, "sh", "-c", RESTORE + restore)


def cloud(cluster: Cluster, *words: str) -> tuple[int, dict[str, Any], str]:
    """A one-shot command with `--json`: its status, its document, and what it said beside that."""
    environment = {"CLOUDREPO_STATE": str(cluster.state)}
    words = (sys.executable, str(CHECKOUT / "main.py"), *words, "--json")
    done = cluster.lab.exec(list(words), env=environment, timeout=200)
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr
