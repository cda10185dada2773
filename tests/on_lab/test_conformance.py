"""The story of `simulated/conformance.py` on a host of the lab: what simulated hosts pretend is what real ones do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from on_lab.cluster import NETWORK_NODE, Cluster
from simulated.conformance import life, told_to
from simulated.world import World, install

pytestmark = pytest.mark.lab
PRIVILEGE = "sudo"  # the story is that of one installation of a fixed name


@pytest.mark.cost(seconds=6)
def test_a_lab_host_follows_the_story(cluster: Cluster) -> None:
    found = told_to(cluster.api.executor, NETWORK_NODE)
    assert not found, "\n".join(found)


@pytest.mark.cost(seconds=6)
def test_a_slice_lives_the_same_life_on_the_lab_and_on_simulated_hosts(
    clusters: Callable[..., Cluster], tmp_path: Path
) -> None:
    """After each of its chapters the same objects are seen on each host, in the same state, with the same marks."""
    on_lab = life(clusters(qemu={"stop_grace": 0}).api)
    with World() as world:
        api = install(world, tmp_path / "image", qemu={"stop_grace": 0})
        simulated = life(api)
        api.executor.close()
        api.db.close()
    for chapter, hosts in on_lab.items():
        assert simulated[chapter] == hosts, chapter
    assert any("VM" in line for hosts in on_lab["deployed"].values() for line in hosts)
