"""A slice that runs is made what a file says, with real guests: what is new works, and nobody else notices."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cloudrepo.topology import reading, slices, writing
from cloudrepo.topology.model import Link, Topology
from control import topology as use
from on_lab import edits
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
#: What random edits begin with; the first link is in none.
BEFORE = """\
version: 1
name: changing
nodes:
  a: {interfaces: 3, worker: 10.0.10.1}
  b: {interfaces: 3, worker: 10.0.10.2}
  c: {interfaces: 2, worker: 10.0.10.3}
  x: {interfaces: 3, worker: 10.0.10.1, flavor: still}
links:
  - a:eth1 -- b:eth1
  - [b:eth2, c:eth1, x:eth1]
"""
SEED, EDITS = 20261129, 8
STILL = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp to hlt


@dataclass
class Scene:
    """The slice, while its guests run."""

    cluster: Cluster
    slice_id: int

    def apply(self, text: str) -> list[str]:
        """What was done."""
        lab, api = reading.read(text, "lab.cloud.yml"), self.cluster.api
        found = use.plan(api, "admin", lab)
        done = [action.text for action in use.apply(api, "admin", lab, found).done]
        assert use.plan(api, "admin", lab).difference.actions == (), "applied twice is applied once"
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

    def seen(self, topology: Topology) -> edits.Seen:
        """As the hosts have it, made of this file."""
        return edits.look(self.cluster, topology, {name: vm["vm_id"] for name, vm in self.vms().items()})

    def view(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.ok("get_slice", "admin", self.slice_id)
        return found

    def differing(self) -> list[Any]:
        return [one for one in self.cluster.ok("drift")["objects"] if one["state"] not in ("ok", "foreign")]


@pytest.fixture(scope="module")
def scene(module_clusters: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Machines of the flavor `still` have a boot sector that does nothing, so that they cost nothing."""
    image = tmp_path_factory.mktemp("still") / "still.img"
    image.write_bytes(STILL.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    cluster = module_clusters(flavors={"still": {"cores": 1, "ram_gb": 0.0625, "disk_gb": 1, "image": str(image)}})
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


@pytest.mark.cost(seconds=35)
def test_random_edits_touch_only_what_changed(scene: Scene) -> None:
    scene.apply(BEFORE)
    topology = reading.read(BEFORE, "lab.cloud.yml")
    stays = topology.links[0]
    editor = edits.Editor(SEED, "still", [stays])
    wait_until(lambda: len(leases(scene.seen(topology), stays)) == 2, 60, "a and b have their leases")
    before = scene.seen(topology)
    for number in range(EDITS):
        topology = editor.edited(topology)
        text = writing.text_of(topology)
        about = f"edit {number} of seed {SEED}:\n{writing.text_of(before.topology)}became\n{text}"
        scene.apply(text)
        after = scene.seen(topology)
        assert edits.touched(before, after) == [], about
        assert edits.essence(slices.topology_of(scene.view())) == edits.essence(topology), about
        running = {int(vm_id): at for host in after.hosts.values() for vm_id, (at, _) in host["machines"].items()}
        assert running == {vm["vm_id"]: vm["pid"] for vm in scene.vms().values()}, about
        assert set(after.ids) == {node.name for node in topology.nodes} and scene.differing() == [], about
        before = after
    assert len(leases(before, stays)) == 2
    wait_until(functools.partial(scene.works, "a", "eth1", scene.address("b", "eth1")), 60, "a reaches b")


def leases(seen: edits.Seen, link: Link) -> list[str]:
    return list((seen.server(link) or {}).get("leases", []))
