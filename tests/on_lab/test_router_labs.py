"""The labs of `examples/` that need a router, which is also a guest with Debian's own cloud-init."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import router_image
from lab.cluster import Lab
from lab.image_cache import place_copy
from lab.layout import ROUTER_IMAGE_NAME
from on_lab.cluster import Cluster
from on_lab.example_labs import ROUTER, LabOf, lab_of

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def image(lab: Lab) -> Path:
    """The image of routers, which takes a minute to build when it is not in the cache."""
    found = lab.folder.images / ROUTER_IMAGE_NAME
    place_copy(router_image.ensure(lab.folder.cache()), found)
    return found


@pytest.fixture(scope="module")
def cluster(image: Path, module_clusters: Callable[..., Cluster]) -> Cluster:
    """The image comes first: afterwards this is in the lab's network, where no package can be had."""
    return module_clusters(flavors={ROUTER: {"cores": 1, "ram_gb": 0.25, "disk_gb": 1, "image": str(image)}})


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private SSH key; the public one is beside it."""
    path = tmp_path_factory.mktemp("key") / "id"
    words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ann@home", "-f", str(path))
    subprocess.run(words, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def triangle(cluster: Cluster, key: Path) -> Iterator[LabOf]:
    """Three routers in a triangle; the first has a user and a key besides."""
    told = {"users": ["ann"], "ssh_keys": [key.with_suffix(".pub").read_text().strip()]}
    with lab_of(cluster, "ospf-triangle", {"r1": told}) as lab:
        lab.wait_for_start()
        yield lab


@pytest.mark.cost(seconds=150)
def test_real_cloud_init_does_what_a_seed_says(triangle: LabOf, key: Path) -> None:
    said, public = triangle.said, key.with_suffix(".pub").read_text()
    assert said("r1", "dpkg-query -f '${Package} ${Status}' -W cloud-init") == "cloud-init install ok installed"
    assert said("r1", "cat /etc/hostname; hostname") == "r1\nr1\n"
    assert "127.0.1.1\tr1" in said("r1", "cat /etc/hosts")
    assert said("r1", "cat /home/ann/.ssh/authorized_keys") == public
    assert said("r1", "cat /home/debian/.ssh/authorized_keys") == public, "the image's usual account"
    assert said("r1", "getent shadow ann").split(":")[1].startswith("!"), "she has no password"
    assert "10.255.0.1/32" in said("r1", "ip -4 addr show dev lo"), "the start script ran"
    assert triangle.run("r2", "id ann")[0] != 0, "whose seed has no such user"
    # She logs in with her key, from r2, and becomes root without a password.
    secret = base64.b64encode(key.read_bytes()).decode()
    triangle.said("r2", f"umask 077; echo {secret} | base64 -d > /root/key")
    login = "ssh -i /root/key -o BatchMode=yes -o StrictHostKeyChecking=no ann@10.0.1.1 'id -un; hostname; sudo id -un'"
    triangle.wait("r2", login, lambda out: out == "ann\nr1\nroot\n")


@pytest.mark.cost(seconds=30)
def test_ospf_learns_networks_and_another_way_when_a_cable_fails(triangle: LabOf) -> None:
    lab = triangle
    for name in ("r1", "r2", "r3"):
        lab.wait(name, "vtysh -c 'show ip ospf neighbor json'", lambda out: _states(out) == ["Full", "Full"])
    learned = json.loads(lab.wait("r1", "vtysh -c 'show ip route ospf json'", lambda out: "10.0.2.0/24" in out))
    hops = {hop["ip"] for route in learned["10.0.2.0/24"] for hop in route["nexthops"]}
    assert hops == {"10.0.1.2", "10.0.3.1"}, "the far network is equally far by either neighbour"
    way = "ip route get 10.255.0.3"
    lab.wait("r1", way, lambda out: "via 10.0.3.1 dev eth2" in out)
    assert "ttl=64" in lab.said("r1", "ping -c 1 -W 5 10.255.0.3"), "r3 itself answers, at the end of one cable"
    lab.said("r1", "ip link set eth2 down")
    lab.wait("r1", way, lambda out: "via 10.0.1.2 dev eth1" in out)
    assert "ttl=63" in lab.wait("r1", "ping -c 1 -W 5 10.255.0.3"), "by r2"
    assert "state DOWN" in lab.said("r1", "ip link show dev eth2"), "who takes a card down means it"


@pytest.mark.cost(seconds=60)
def test_the_firewall_hides_inside_and_opens_the_web_server_only(cluster: Cluster) -> None:
    with lab_of(cluster, "dmz-nat") as lab:
        lab.wait_for_start()
        assert lab.wait("outside", "fetch http://198.51.100.1/") == "this is web\n", "by the firewall's own address"
        assert lab.wait("inside", "fetch http://198.51.100.9/") == "this is outside\n"
        asked = lab.said("outside", "cat /run/web.log")
        assert "198.51.100.1" in asked and "10.0.8.2" not in asked, "inside is hidden"
        lab.said("outside", "ip route add 10.0.8.0/24 via 198.51.100.1")
        lab.said("outside", "ip route add 10.0.7.0/24 via 198.51.100.1")
        assert lab.run("outside", "ping -c 1 -W 2 10.0.8.2")[0] != 0
        assert lab.run("outside", "ping -c 1 -W 2 10.0.7.2")[0] != 0, "of the web server only its port is open"
        assert lab.run("web", "ping -c 1 -W 2 10.0.8.2")[0] != 0, "the DMZ does not reach inside"
        lab.wait("inside", "ping -c 1 -W 5 10.0.7.2")


def _states(out: str) -> list[str]:
    """The state of each OSPF neighbour, as `show ip ospf neighbor json` has it: `Full/-`, `Full/DR`."""
    found = json.loads(out)["neighbors"]
    return [str(one.get("nbrState", one.get("state", ""))).split("/")[0] for many in found.values() for one in many]
