"""`verify` on real hosts: right slices have no violation and nothing is left; real guests answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from on_lab.cluster import Cluster, Record, wait_until

pytestmark = pytest.mark.lab


@pytest.mark.cost(seconds=35)
def test_right_slices_have_no_violation_guests_answer_and_nothing_is_left(clusters: Callable[..., Cluster]) -> None:
    """Two slices with guests: a link across hosts, internet; all of it is there, and each guest is who it should be."""
    cluster = clusters()
    one = cluster.slice("a", "b", interfaces=2, internet=("a",))
    cluster.link(one, "a", "eth1", "b", "eth1")
    two = cluster.slice("c", internet=("c",))
    for made in (one, two):
        cluster.ok("deploy_slice", "admin", made["id"])
    before = cluster.snapshot()

    def answered() -> Record | None:
        found: Record = cluster.ok("verify")
        assert found["violations"] == [] and found["unreachable"] == {}, found
        # a guest answers for an address once DHCP gave it, and, on a busy host, by ARP before it does by a ping
        both = [ways for ways in found["guests"].values() if sorted(ways) == ["ARP", "ping"]]
        return found if len(both) == len(found["guests"]) == 4 and not found["unproven"] else None

    found = wait_until(answered, 90, "every guest answers, by ARP and by ping")
    assert found["nics"] == 4 and found["heard"] > 100 and found["not_heard"] > 1000
    assert cluster.snapshot() == before
    only = cluster.ok("verify", two["id"])
    assert only["violations"] == [] and 0 < only["frames"] < found["frames"]

    # a guest that takes another's MAC is not let through, and is not who it should be: it is silent
    cluster.guest(one["b"], "ip", "link", "set", "eth1", "address", "52:54:00:aa:bb:cc")
    silent = cluster.ok("verify")
    assert silent["violations"] == [] and "b:eth1" not in silent["guests"]
    for made in (one, two):
        cluster.ok("delete_slice", "admin", made["id"])
