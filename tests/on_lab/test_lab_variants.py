"""The product on clusters of other shapes: the uplink is the management network; one host is everything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Lab
from lab.layout import Options
from on_lab.cluster import Cluster, differences, network_of, snapshot

pytestmark = pytest.mark.lab
FROM_THE_INTERNET = "http://203.0.113.1/"


@contextmanager
def cluster_on(folder: Path, options: Options, settings: dict[str, Any]) -> Iterator[Cluster]:
    """An installation on a lab of its own, which must leave its hosts as they were."""
    lab = Lab(folder / "lab")
    lab.up(options, with_parent=os.getpid())
    try:
        before = snapshot(lab)
        with network_of(lab.orchestrator_room().pid()):
            cluster = Cluster(lab, folder / "installation", settings)
            try:
                yield cluster
            finally:
                cluster.close()
        assert differences(before, snapshot(lab)) == []
    finally:
        lab.down(purge=True)


@pytest.mark.cost(seconds=15)
def test_where_the_uplink_is_the_management_network_nothing_of_it_is_reached(tmp_path: Path) -> None:
    """A page from the internet comes; the next hop and the hosts beside it stay out of reach, by TCP and by ping."""
    with cluster_on(tmp_path, Options(uplink="mgmt"), {}) as cluster:
        made = cluster.slice("vm1", internet=("vm1",))
        cluster.ok("deploy_slice", "admin", made["id"])
        cluster.wait_for_address(made["vm1"], "eth0")
        assert cluster.guest(made["vm1"], "fetch", FROM_THE_INTERNET).status == 0
        assert cluster.pings(made["vm1"], "10.60.7.1")
        for host in ("10.0.10.1", "10.0.10.2", "10.0.10.3", "10.0.10.254", "10.0.10.253"):
            assert not cluster.pings(made["vm1"], host, count=1), host
            assert cluster.guest(made["vm1"], "nc", "-w", "2", host, "22").status != 0, host


@pytest.mark.cost(seconds=15)
def test_one_host_can_be_everything(tmp_path: Path) -> None:
    """Both guests, the gateway, DHCP and NAT on one worker, whose bridge then needs no uplink."""
    settings = {"network": {"node": "10.0.10.1"}}
    with cluster_on(tmp_path, Options(workers=1), settings) as cluster:
        with cluster.api.db.transaction() as data:
            data["workers_list"] = ["10.0.10.1"]
        cluster.api.discovery.discover_all()
        for port in cluster.host("10.0.10.1", "ovs-vsctl", "list-ports", "br-int").split():
            cluster.host("10.0.10.1", "ovs-vsctl", "del-port", port)
        before = cluster.snapshot()
        made = cluster.slice("vm1", "vm2", internet=("vm2",))
        cluster.link(made, "vm1", "eth1", "vm2", "eth1")
        cluster.ok("deploy_slice", "admin", made["id"])
        cluster.wait_for_address(made["vm2"], "eth1")
        cluster.wait_for_address(made["vm1"], "eth1")
        assert cluster.pings(made["vm1"], "192.168.100.11")
        assert cluster.guest(made["vm2"], "fetch", FROM_THE_INTERNET).status == 0
        cluster.ok("delete_slice", "admin", made["id"])
        assert differences(before, cluster.snapshot()) == []
        cluster.host("10.0.10.1", "ovs-vsctl", "add-port", "br-int", "eth1")
