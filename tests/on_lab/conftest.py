"""One lab for all these tests; an installation of its own for each, which must leave the hosts as they were."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Lab
from lab.layout import Options
from on_lab.cluster import HOSTS, Cluster, differences, network_of, snapshot


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The documented cluster. It dies with the test process."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.up(Options(), with_parent=os.getpid())
    yield lab
    lab.down(purge=True)


def forget_macs(lab: Lab) -> None:
    """Have the hosts' switches forget where MACs are.

    A VM's MAC goes by its number, so one of an earlier installation had it, perhaps on another host: for five minutes a
    switch would look for it there until the new one speaks.
    """
    for ip in HOSTS:
        lab.host(ip, ["ovs-appctl", "fdb/flush"])


@pytest.fixture(autouse=True)
def unlearnt(request: pytest.FixtureRequest) -> None:
    """Each test with an installation of its own begins so; those of a module, when they are made."""
    if "lab" in request.fixturenames and "module_clusters" not in request.fixturenames:
        forget_macs(request.getfixturevalue("lab"))


def _installations(lab: Lab, folder: Path, module: Any) -> Iterator[Callable[..., Cluster]]:
    """Makes installations on the lab; afterwards the hosts are compared with what they were before.

    Their hosts have the helper, the stricter of the two ways, unless the module's `PRIVILEGE` says `sudo`.
    """
    made: list[Cluster] = []
    usual = {"host": {"privilege": getattr(module, "PRIVILEGE", "helper")}}

    def make(**settings: Any) -> Cluster:
        made.append(Cluster(lab, folder / f"installation{len(made)}", {**usual, **settings}))
        return made[-1]

    before = snapshot(lab)
    forget_macs(lab)
    with network_of(lab.orchestrator_room().pid()):
        yield make
        for cluster in made:
            cluster.close()
    assert differences(before, snapshot(lab)) == []


@pytest.fixture
def clusters(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Installations for one test, by settings."""
    yield from _installations(lab, tmp_path, request.module)


@pytest.fixture(scope="module")
def module_clusters(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Cluster]]:
    """Installations for all tests of a module: a slice is deployed once and looked at from many sides."""
    yield from _installations(lab, tmp_path_factory.mktemp("module"), request.module)


@pytest.fixture
def cluster(clusters: Callable[..., Cluster]) -> Cluster:
    """One installation with the default settings."""
    return clusters()
