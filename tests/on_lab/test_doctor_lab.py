"""What may be wrong with hosts before a class: put wrong on the lab, found by `doctor`, and nothing else found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from on_lab import sick_hosts
from on_lab.cluster import HOSTS, Cluster

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster(module_clusters: Callable[..., Cluster]) -> Cluster:
    return module_clusters(accel="tcg")


def findings(cluster: Cluster) -> list[dict[str, object]]:
    """What is not as it should be."""
    found: list[dict[str, object]] = cluster.ok("doctor")["findings"]
    return [one for one in found if one["level"] != "ok"]


@pytest.mark.cost(seconds=8)
def test_a_sound_lab_has_nothing_and_is_left_as_it_was(cluster: Cluster) -> None:
    before = cluster.snapshot()
    found = cluster.ok("doctor")
    assert [one for one in found["findings"] if one["level"] != "ok"] == []
    assert found["hosts"] == list(HOSTS)
    assert found["vlans"].startswith("100-16") and found["vlans"].endswith(",4094"), found["vlans"]
    assert "VLANs 100-163,400 and 64 others, 129 of 3995" in found["findings"][-1]["text"]
    assert cluster.snapshot() == before


@pytest.mark.parametrize("name", sick_hosts.SICKNESSES)
@pytest.mark.cost(seconds=3)
def test_what_is_wrong_is_named_with_its_remedy_and_nothing_else(cluster: Cluster, name: str) -> None:
    sickness = sick_hosts.SICKNESSES[name]
    with sickness.caught(cluster):
        found = findings(cluster)
    assert [one["code"] for one in found] == [sickness.code], found
    assert sickness.says in str(found[0]["text"]) + str(found[0]["evidence"]), found
    assert sickness.remedy in str(found[0]["remedy"]), found
    assert found[0]["hosts"] == list(sickness.hosts), found
