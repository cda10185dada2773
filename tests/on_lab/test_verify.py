"""`verify` on real hosts: right slices have no violation, and what is put wrong is found and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from on_lab.cluster import Cluster, Record, wait_until

pytestmark = pytest.mark.lab


@dataclass
class Class:
    """Two slices that run: three machines in a line on three hosts with internet, and two linked ones."""

    cluster: Cluster
    one: Record
    two: Record

    def verify(self, slice_id: int | None = None) -> Record:
        found: Record = self.cluster.ok("verify", slice_id)
        return found

    def tap(self, made: Record, name: str, interface: str) -> tuple[str, str]:
        """Host and TAP of a NIC."""
        return str(self.cluster.vm(made[name])["worker_ip"]), f"tap_{made[name]}_{interface}"


@pytest.fixture(scope="module")
def lesson(module_clusters: Callable[..., Cluster]) -> Iterator[Class]:
    cluster = module_clusters()
    one = cluster.slice("a", "b", "c", interfaces=2, internet=("a", "b", "c"))
    cluster.link(one, "a", "eth1", "b", "eth1")
    cluster.link(one, "b", "eth2", "c", "eth1")
    two = cluster.slice("a", "b", internet=("a",))
    cluster.link(two, "a", "eth1", "b", "eth1")
    for made in (one, two):
        cluster.ok("deploy_slice", "admin", made["id"])
    yield Class(cluster, one, two)
    for made in (one, two):
        cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=40)
def test_right_slices_have_no_violation_and_nothing_is_left(lesson: Class) -> None:
    def proven() -> Record | None:
        found = lesson.verify()
        assert found["violations"] == [] and found["unreachable"] == {}
        return found if not found["unproven"] else None

    before = lesson.cluster.snapshot()
    found = wait_until(proven, 30, "every NIC heard something")
    assert found["nics"] == 13 and found["heard"] > 30 and found["not_heard"] > 500
    assert lesson.cluster.snapshot() == before
    only = lesson.verify(lesson.two["id"])
    assert only["violations"] == [] and 0 < only["frames"] < found["frames"]


def faults(lesson: Class) -> dict[str, tuple[str, tuple[str, ...], tuple[str, ...], set[str]]]:
    """By name: the host, what is done there, how it is taken back, and NICs of which one must be in each violation."""
    host, tap = lesson.tap(lesson.one, "a", "eth1")
    other_host, other = lesson.tap(lesson.two, "b", "eth1")
    vlan = str(
        next(one["vlan_id"] for one in lesson.cluster.vm(lesson.one["a"])["interfaces"] if one["name"] == "eth1")
    )
    foreign = next(one["vlan_id"] for one in lesson.cluster.vm(lesson.two["b"])["interfaces"] if one["name"] == "eth1")
    return {
        "wrong tag": (
            host,
            ("ovs-vsctl", "set", "port", tap, "tag=999"),
            ("ovs-vsctl", "set", "port", tap, f"tag={vlan}"),
            {"a:eth1"},
        ),
        "tag of a foreign slice": (
            host,
            ("ovs-vsctl", "set", "port", tap, f"tag={foreign}"),
            ("ovs-vsctl", "set", "port", tap, f"tag={vlan}"),
            {"a:eth1"},
        ),
        "dead TAP": (
            other_host,
            ("ip", "link", "set", other, "down"),
            ("ip", "link", "set", other, "up"),
            {"b:eth1", "a:eth1"},
        ),
    }


@pytest.mark.parametrize("name", ["wrong tag", "tag of a foreign slice", "dead TAP"])
@pytest.mark.cost(seconds=8)
def test_what_is_put_wrong_is_found_and_named(lesson: Class, name: str) -> None:
    host, wrong, right, named = faults(lesson)[name]
    lesson.cluster.host(host, *wrong)
    try:
        found = lesson.verify()
    finally:
        lesson.cluster.host(host, *right)
    assert found["violations"], found
    for one in found["violations"]:
        assert {one["sender"], one["listener"]} & named, one
    assert lesson.verify()["violations"] == []


@pytest.mark.cost(seconds=8)
def test_flushed_flows_let_nothing_through_and_are_found(lesson: Class) -> None:
    """The bridge is closed: what has no rule reaches nobody."""
    host, _ = lesson.tap(lesson.one, "a", "eth1")
    lesson.cluster.host(host, "ovs-ofctl", "del-flows", "br-int")
    found: Any = lesson.verify()
    assert found["violations"] and not any(one["heard"] for one in found["violations"])
    lesson.cluster.ok("drift_fix")
    assert lesson.verify()["violations"] == []


@pytest.mark.cost(seconds=8)
def test_a_missing_rule_is_found_by_what_it_lets_through(lesson: Class) -> None:
    """Somebody's own flow switches VLAN 400 on a host: neighbours hear each other."""
    host, tap = lesson.tap(lesson.one, "a", "eth0")
    flow = f"cookie=0x77,priority=5000,in_port={tap},actions=NORMAL"
    lesson.cluster.host(host, "ovs-ofctl", "add-flow", "br-int", flow)
    try:
        found = lesson.verify()
    finally:
        lesson.cluster.host(host, "ovs-ofctl", "del-flows", "br-int", "cookie=0x77/-1")
    assert any(one["heard"] and one["sender"] == "a:eth0" for one in found["violations"])
    assert lesson.verify()["violations"] == []
