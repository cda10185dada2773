"""The labs of `examples/`: each file is in order, has a sentence and its picture, and docs/labs.md tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudrepo.topology.model import Topology
from cloudrepo.topology.reading import Known, read
from lab.state import default_flavors
from main import main

CHECKOUT = Path(__file__).resolve().parent.parent
FILES = sorted((CHECKOUT / "examples").glob("*.cloud.yml"))
NAMES = [path.name.removesuffix(".cloud.yml") for path in FILES]


def topology_of(path: Path) -> Topology:
    return read(path.read_text(encoding="utf-8"), path.name, known=Known(flavors=default_flavors()))


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
def test_each_has_the_picture_that_draw_makes_of_it(path: Path, tmp_path: Path) -> None:
    """Byte for byte: `./cloud topology draw examples/NAME.cloud.yml -o examples/NAME.svg`."""
    drawn = tmp_path / "drawn.svg"
    assert main(["topology", "draw", str(path), "-o", str(drawn)]) == 0
    assert path.with_name(path.name.replace(".cloud.yml", ".svg")).read_bytes() == drawn.read_bytes()
