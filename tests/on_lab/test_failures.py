"""A deploy that fails at each of its stages: the error says where and why, and no host keeps anything."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cloudrepo import stages
from cloudrepo.plan import Qmp
from on_lab import faults
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, differences

pytestmark = pytest.mark.lab

FIRST, SECOND = HOSTS[:2]
SILENCE_S = 3.0  # how long these tests wait for a QEMU that says nothing


@dataclass(frozen=True)
class Failure:
    """One way for a deploy to fail, and what the person must then read: host, step, the host's own words."""

    step: str
    fault: Callable[[Cluster, Record], AbstractContextManager[None]]
    host: str
    words: tuple[str, ...]


def broken(step: str, host: str, tool: str, mark: str, *words: str) -> Failure:
    """A tool of a host refuses."""

    def fault(cluster: Cluster, made: Record) -> AbstractContextManager[None]:
        return faults.broken_tool(cluster.lab, host, tool, mark)

    return Failure(step, fault, host, (*words, faults.WORDS))


def unreachable(cluster: Cluster, made: Record) -> Iterator[None]:
    cluster.api.executor.close()  # a new login finds out sooner than an old connection
    with faults.cut_off(cluster.lab, SECOND):
        yield
    cluster.api.executor.close()


def foreign_namespace(cluster: Cluster, made: Record) -> Iterator[None]:
    cluster.host(NETWORK_NODE, "ip", "netns", "add", "ns-dhcp-vlan100")
    yield
    cluster.host(NETWORK_NODE, "ip", "netns", "delete", "ns-dhcp-vlan100")


def damaged_disk(cluster: Cluster, made: Record) -> AbstractContextManager[None]:
    return faults.damaged_file(cluster.lab, SECOND, f"{cluster.images}/vm2_img.qcow2")


def screen_taken(cluster: Cluster, made: Record) -> AbstractContextManager[None]:
    return faults.occupied_port(cluster.lab, SECOND, cluster.vm(made["vm2"])["vnc_port"])


def silent_machine(cluster: Cluster, made: Record) -> AbstractContextManager[None]:
    return faults.broken_tool(cluster.lab, FIRST, "qemu-system-x86_64", "-uuid", hangs=True)


FAILURES = (
    Failure("reach", contextmanager(unreachable), SECOND, ("no answer from", "check that the host is up")),
    broken("look", NETWORK_NODE, "ovs-vsctl", "list Bridge", "could not look at ports of the bridge"),
    Failure(
        "foreign",
        contextmanager(foreign_namespace),
        NETWORK_NODE,
        ("namespace ns-dhcp-vlan100", "not ours", "vlan.first"),
    ),
    broken("TAPs", SECOND, "ip", "tuntap add", "could not add", "tap_1002_eth1"),
    broken("namespaces", NETWORK_NODE, "ip", "netns add", "could not add", "ns-dhcp-vlan100"),
    broken("ports of a worker", FIRST, "ovs-vsctl", "add-port", "could not add", "tap_1001_eth1"),
    broken("ports of the node", NETWORK_NODE, "ovs-vsctl", "add-port", "could not add", "gw_vlan100"),
    broken("addresses", NETWORK_NODE, "ip", "address replace", "could not set addresses of"),
    broken("DHCP server", NETWORK_NODE, "dnsmasq", "dhcp-100", "could not start DHCP server of VLAN 100"),
    broken("NAT", NETWORK_NODE, "iptables-restore", "MASQUERADE", "could not set NAT of VLAN 400"),
    broken("QEMU", SECOND, "qemu-system-x86_64", "-uuid", "VM 1002 (vm2) did not start"),
    Failure("disk", damaged_disk, SECOND, ("VM 1002 (vm2) did not start", "vm2_img.qcow2")),
    Failure("screen", screen_taken, SECOND, ("VM 1002 (vm2) did not start", "Address already in use")),
    Failure("QMP", silent_machine, FIRST, ("VM 1001 (vm1) did not start", "does not answer")),
)


def two_machines(cluster: Cluster) -> Record:
    """A slice whose deploy has every stage: a link over two workers, and the internet."""
    made = cluster.slice("vm1", "vm2", internet=("vm1",), flavor="blank")
    cluster.link(made, "vm1", "eth1", "vm2", "eth1")
    assert [cluster.vm(made[name])["worker_ip"] for name in ("vm1", "vm2")] == [FIRST, SECOND]
    return made


def machines_started(cluster: Cluster, slice_id: int) -> tuple[str, list[str]]:
    """The message of a deploy that must fail, and the machines whose start was begun."""
    begun: list[str] = []

    def progress(event: Any) -> None:
        if event.label.startswith("start VM"):
            begun.append(event.label)

    return cluster.refused("deploy_slice", "admin", slice_id, progress=progress), begun


@pytest.mark.cost(seconds=50)
def test_a_deploy_that_fails_at_each_of_its_stages_leaves_nothing(
    clusters: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "Qmp", functools.partial(Qmp, timeout_s=SILENCE_S))
    cluster = clusters(ssh={"connect_timeout": 2})
    before = cluster.snapshot()
    made = two_machines(cluster)
    for failure in FAILURES:
        with failure.fault(cluster, made):
            message, begun = machines_started(cluster, made["id"])
        for words in (failure.host, *failure.words):
            assert words in message, f"{failure.step}: {message}"
        if failure.host == NETWORK_NODE or failure.step == "reach":  # no machine before all networks stand
            assert begun == [], failure.step
        assert cluster.ok("get_slice", "admin", made["id"])["status"] == "design", failure.step
        assert differences(before, cluster.snapshot()) == [], failure.step
    cluster.ok("deploy_slice", "admin", made["id"])
    cluster.ok("delete_slice", "admin", made["id"])
    assert differences(before, cluster.snapshot()) == []


@pytest.mark.cost(seconds=8)
def test_machines_that_start_meanwhile_are_taken_down_when_a_network_fails(clusters: Callable[..., Cluster]) -> None:
    """`deploy.order: parallel` starts machines before the networks stand; a failure leaves nothing all the same."""
    cluster = clusters(deploy={"order": "parallel"})
    before = cluster.snapshot()
    made = two_machines(cluster)
    with faults.broken_tool(cluster.lab, NETWORK_NODE, "dnsmasq", "dhcp-100"):
        message, begun = machines_started(cluster, made["id"])
    assert faults.WORDS in message and NETWORK_NODE in message
    assert len(begun) > 0
    assert differences(before, cluster.snapshot()) == []
    cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=12)
def test_deployed_twice_and_deleted_twice(cluster: Cluster) -> None:
    before = cluster.snapshot()
    made = two_machines(cluster)
    cluster.ok("deploy_slice", "admin", made["id"])
    up = cluster.snapshot()
    assert "it is running" in cluster.refused("deploy_slice", "admin", made["id"])
    assert differences(up, cluster.snapshot()) == []
    cluster.ok("delete_slice", "admin", made["id"])
    assert cluster.refused("delete_slice", "admin", made["id"]) == "Slice not found"
    assert differences(before, cluster.snapshot()) == []


@pytest.mark.cost(seconds=15)
def test_a_worker_that_cannot_be_reached_does_not_keep_the_others_from_being_cleaned(
    clusters: Callable[..., Cluster],
) -> None:
    """The slice stays `deleting`, naming the worker, until a second delete when the worker is back."""
    cluster = clusters(ssh={"connect_timeout": 2})
    before = cluster.snapshot()
    made = two_machines(cluster)
    cluster.ok("deploy_slice", "admin", made["id"])
    cluster.api.executor.close()
    with faults.cut_off(cluster.lab, SECOND):
        message = cluster.refused("delete_slice", "admin", made["id"])
        assert f"slice {made['id']} is not deleted yet" in message and SECOND in message
        record = cluster.ok("get_slice", "admin", made["id"])
        assert (record["status"], record["pending"]) == ("deleting", [SECOND])
        left = differences(before, cluster.snapshot())
        assert left and all(line.startswith(SECOND) for line in left)
    cluster.api.executor.close()
    assert cluster.ok("delete_slice", "admin", made["id"]) == "Slice deleted"
    assert differences(before, cluster.snapshot()) == []
