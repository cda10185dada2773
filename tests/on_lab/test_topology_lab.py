"""A slice that runs is made what a file says, with real guests: what is new works, and nobody else notices."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cloudrepo.topology import reading
from control import topology
from on_lab.cluster import Cluster, wait_until

pytestmark = pytest.mark.lab

LAB = """\
version: 1
name: changing
nodes:
  a: {worker: 10.0.10.1}
  b: {worker: 10.0.10.2}
  c: {worker: 10.0.10.3}
links:
  - a:eth1 -- b:eth1
"""
LATER = LAB + "  - b:eth2 -- c:eth1\n"
#: A machine comes, a link and an end of a network go, and a network of three is there.
LAST = LAB.replace("  c: {", "  d: {worker: 10.0.10.1}\n  c: {").replace(
    "a:eth1 -- b:eth1", "[b:eth2, c:eth1, d:eth1, a:eth2]"
)


@dataclass
class Scene:
    """The slice, while its guests run."""

    cluster: Cluster
    slice_id: int

    def apply(self, text: str) -> list[str]:
        lab, api = reading.read(text, "lab.cloud.yml"), self.cluster.api
        found = topology.plan(api, "admin", lab)
        done = [action.text for action in topology.apply(api, "admin", lab, found).done]
        assert topology.plan(api, "admin", lab).difference.actions == (), "applied twice is applied once"
        return done

    def vms(self) -> dict[str, dict[str, Any]]:
        record = self.cluster.api.db.get_slice(self.slice_id)
        assert record is not None
        return {vm["name"]: vm for vm in record["vms"]}

    def address(self, name: str, interface: str) -> str:
        """What the records promise."""
        return str(next(one["ip_config"]["ip"] for one in self.vms()[name]["interfaces"] if one["name"] == interface))

    def works(self, name: str, interface: str, other: str) -> bool:
        """Whether a guest has its lease, and an answer from another one by that interface."""
        vm_id = self.vms()[name]["vm_id"]
        shown = self.cluster.guest(vm_id, "ip", "-4", "-o", "addr", "show", "dev", interface).out
        asked = ("ping", "-c", "1", "-W", "1", "-I", interface, other)
        return self.address(name, interface) in shown and self.cluster.guest(vm_id, *asked).status == 0

    def differing(self) -> list[Any]:
        return [one for one in self.cluster.ok("drift")["objects"] if one["state"] not in ("ok", "foreign")]


@pytest.fixture(scope="module")
def scene(module_clusters: Callable[..., Cluster]) -> Iterator[Scene]:
    cluster = module_clusters()
    made = Scene(cluster, 1000)
    made.apply(LAB)
    cluster.ok("deploy_slice", "admin", 1000)
    for name in "abc":
        cluster.guest(made.vms()[name]["vm_id"], "true")  # it has booted
    yield made
    cluster.ok("delete_slice", "admin", 1000)


@pytest.mark.cost(seconds=45)
def test_files_change_what_runs_and_touch_nothing_else(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    pids = {name: vm["pid"] for name, vm in scene.vms().items()}
    began = time.monotonic()
    assert scene.apply(LATER) == ["link b:eth2 -- c:eth1"]
    applied = time.monotonic()
    target = scene.address("c", "eth1")
    wait_until(lambda: scene.works("b", "eth2", target), 60, "a ping by the new link")
    with capsys.disabled():
        after = time.monotonic() - applied
        print(f" [applied in {applied - began:.2f} s, lease and ping {after:.2f} s after]", end="")
    assert {name: vm["pid"] for name, vm in scene.vms().items()} == pids
    assert scene.differing() == []

    booted = scene.cluster.guest(scene.vms()["b"]["vm_id"], "cat", "/proc/sys/kernel/random/boot_id").out
    done = scene.apply(LAST)
    assert [words.partition(" ")[0] for words in done] == ["remove", "add", "link", "start"], done
    assert done[2] == "link 2 joins b:eth2, c:eth1, d:eth1, a:eth2"
    assert {name: vm["pid"] for name, vm in scene.vms().items() if name != "d"} == pids
    assert scene.cluster.guest(scene.vms()["b"]["vm_id"], "cat", "/proc/sys/kernel/random/boot_id").out == booted
    for name, interface in (("d", "eth1"), ("a", "eth2")):
        wait_until(functools.partial(scene.works, name, interface, target), 90, f"{name} reaches c")
    gone = scene.cluster.guest(scene.vms()["b"]["vm_id"], "cat", "/sys/class/net/eth1/carrier").out
    assert gone == "0\n", "the cable of the link that went is out"
    assert scene.differing() == []

    (link,) = scene.cluster.ok("get_slice", "admin", 1000)["links"]
    proof = scene.cluster.ok("verify", 1000)
    assert len(link["more_ends"]) == 2 and proof["violations"] == [] and proof["heard"] > 12, "each of four hears three"
    assert scene.apply(LAST.replace("  d: {worker: 10.0.10.1}\n", "").replace("d:eth1, ", "")) == [
        "remove d, with its disk"
    ]
    assert {name: vm["pid"] for name, vm in scene.vms().items()} == pids
    assert scene.works("a", "eth2", target) and scene.differing() == []
