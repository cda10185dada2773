"""The labs of `examples/`: each file is in order, has a sentence and its picture, and docs/labs.md tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudrepo.pictures import svg
from cloudrepo.pictures.graph import End, Graph, Network, Nic, Node
from cloudrepo.topology.model import Topology
from cloudrepo.topology.reading import Known, read
from lab.state import default_flavors

CHECKOUT = Path(__file__).resolve().parent.parent
FILES = sorted((CHECKOUT / "examples").glob("*.cloud.yml"))
NAMES = [path.name.removesuffix(".cloud.yml") for path in FILES]


def topology_of(path: Path) -> Topology:
    return read(path.read_text(encoding="utf-8"), path.name, known=Known(flavors=default_flavors()))


def graph_of(topology: Topology) -> Graph:
    """What a file would make, before it is made."""
    networks = [
        Network(key=str(number), name=f"link {number}", ends=tuple(End(end.node, end.interface) for end in link.ends))
        for number, link in enumerate(topology.links, 1)
    ]
    nodes = []
    for node in topology.nodes:
        used = {end.nic: one.key for one in networks for end in one.ends if end.node == node.name}
        nics = [Nic(name=f"eth{index}") for index in range((node.interfaces or 0) + 1)]
        nics = [Nic(name=nic.name, network=used.get(nic.name, "")) for nic in nics]
        facts = (("flavor", node.flavor),)
        nodes.append(Node(key=node.name, name=node.name, state="design", nics=tuple(nics), facts=facts))
    return Graph(title=topology.name, nodes=tuple(nodes), networks=tuple(networks), state="design")


def test_there_are_the_labs_of_the_page() -> None:
    first = ["arp-spoofing", "dmz-nat", "ospf-triangle", "star-switch"]
    assert [*first, "static-routing", "stp-ring", "two-hosts", "vlan-trunk"] == NAMES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_each_is_in_order_with_every_interface_named(path: Path) -> None:
    topology = topology_of(path)
    assert all(end.interface for link in topology.links for end in link.ends), "a sheet speaks of interfaces by name"
    assert all((node.interfaces or 0) >= topology.needed(node.name) for node in topology.nodes)
    for node in topology.nodes:
        assert not node.start or node.start.endswith("\n")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_each_has_a_sentence_and_the_page_tells_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and first.endswith((".", "!")), first
    page = (CHECKOUT / "docs/labs.md").read_text(encoding="utf-8")
    assert f"(../examples/{path.name})" in page and first.removeprefix("# ") in page
    assert f"(../examples/{path.name.removesuffix('.cloud.yml')}.svg)" in page


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_each_has_the_picture_that_draw_makes_of_it(path: Path) -> None:
    picture = path.with_name(path.name.replace(".cloud.yml", ".svg"))
    assert picture.read_text(encoding="utf-8") == svg.draw(graph_of(topology_of(path)))
