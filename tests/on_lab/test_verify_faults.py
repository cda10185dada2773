"""What is put wrong on real hosts is found and named by `verify`, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from lab.cluster import Lab
from on_lab.cluster import HOSTS, Cluster, wait_until
from on_lab.holders import tap_holders
from on_lab.seeds import SEEDS, Lesson

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lesson(lab: Lab, module_clusters: Callable[..., Cluster]) -> Iterator[Lesson]:
    with tap_holders(lab, HOSTS):
        cluster = module_clusters(accel="tcg", qemu={"stop_grace": 0})
        one = cluster.slice("a", "b", "c", interfaces=3, internet=("a", "b", "c"))
        cluster.link(one, "a", "eth1", "b", "eth1")
        cluster.link(one, "b", "eth2", "c", "eth1")
        two = cluster.slice("d", "e", interfaces=2, internet=("d",))
        cluster.link(two, "d", "eth1", "e", "eth0")
        for made in (one, two):
            cluster.ok("deploy_slice", "admin", made["id"])
        yield Lesson(cluster=cluster, one=one, two=two)
        for made in (one, two):
            cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=8)
def test_what_is_right_has_no_violation_and_nothing_is_left(lesson: Lesson) -> None:
    before = lesson.cluster.snapshot()
    found = lesson.cluster.ok("verify")
    assert found["violations"] == [] and found["unproven"] == [] and found["unreachable"] == {}, found
    assert found["nics"] == 10 and found["heard"] > 250 and found["not_heard"] > 5000
    assert lesson.cluster.snapshot() == before


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.cost(seconds=3)
def test_what_is_put_wrong_is_found_and_named(lesson: Lesson, name: str) -> None:
    seed = SEEDS[name](lesson)
    lesson.do(seed.host, seed.wrong)
    try:
        found = lesson.cluster.ok("verify")
    finally:
        lesson.do(seed.host, seed.right)
        if seed.drifts:
            lesson.cluster.ok("drift_fix")
    texts = [one["text"] for one in found["violations"]]
    assert any(re.search(seed.named, text) for text in texts), texts
    for text in texts:
        assert any(word in text for word in seed.concerned), text


@pytest.mark.cost(seconds=5)
def test_what_was_put_right_again_is_right(lesson: Lesson) -> None:
    """After all of these faults; a switch takes a moment to learn what it had to forget."""
    wait_until(lambda: lesson.cluster.ok("verify")["violations"] == [], 30, "all is as it was")
