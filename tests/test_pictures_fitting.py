"""Pictures in few lines: they fit, and what they show can be read back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings

from cli.screens.labs import Plan
from cloudrepo.pictures import boxes, fitting, rails
from cloudrepo.pictures.marks import UNICODE, columns_of
from cloudrepo.topology.shapes import SHAPES, wires
from picture_reader import Reader, graph
from test_pictures import PAIRS, wanted_lines

SIZES = ((80, 20), (60, 11))


def plan(shape: str, size: int, online: int = 0) -> Plan:
    return Plan(size, tuple(wires(shape, size)), frozenset(range(online)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_every_lab_fits_and_nothing_is_left_out_unsaid(shape: str, columns: int, rows: int) -> None:
    known = SHAPES[shape]
    for size in {known.least, min(5, known.most), min(12, known.most), min(30, known.most)}:
        for online in {0, size}:
            one = plan(shape, size, online).graph()
            lines = fitting.draw(one, columns, rows)
            assert 0 < len(lines) <= rows and max(map(columns_of, lines)) <= columns
            text = "\n".join(lines)
            more = re.search(r"^and (\d+) more$", text, re.M)
            if size <= 12 and not more and "eth1" not in text:  # a drawing
                assert all(re.search(rf"\b{node.name}\b", text) for node in one.nodes)
            elif online or more:
                named = len(re.findall(r"\b(?:link \d+|internet)  ", text))
                assert named + int(more[1] if more else 0) == len(one.networks)


def test_twelve_machines_at_80x24_are_a_drawing() -> None:
    """Whatever their shape: 20 lines are left beside a question and the status."""
    for shape, known in SHAPES.items():
        text = "\n".join(fitting.draw(plan(shape, min(12, known.most), 12).graph(), 80, 20))
        assert "eth" not in text and ("┌" in text or "●" in text), shape


def test_a_bus_of_two_hundred_says_how_many_there_are() -> None:
    assert fitting.draw(plan("bus", 200, 1).graph(), 80, 20) == [
        "internet  vm1",
        "link 1  vm1 eth1 ── vm2 eth1 ── … ── vm200 eth1 (200 machines)",
    ]


def test_a_list_that_is_too_long_says_what_it_leaves_out() -> None:
    lines = fitting.draw(plan("line", 21).graph(), 40, 6)
    assert lines[0] == "link 1  vm1 eth1 ── vm2 eth1" and lines[-1] == "and 15 more"


def test_machines_without_links_are_named() -> None:
    assert fitting.draw(Plan(20, ()).graph(), 40, 6)[0].startswith("vm1, vm2, vm3")
    assert fitting.draw(Plan(0, ()).graph(), 40, 6) == []


def test_ascii_is_ascii() -> None:
    for shape in ("ring", "mesh", "bus"):
        for rows in (4, 8, 20):
            assert "".join(fitting.draw(plan(shape, 6, 1).graph(), 80, rows, unicode=False)).isascii()


@settings(max_examples=10)
@given(PAIRS)
def test_boxes_of_one_line_can_be_read_back(shape: tuple[int, list[list[int]]]) -> None:
    one = graph(*shape)
    text = {node.key: node.name for node in one.nodes}
    drawing = boxes.draw(boxes.sketch(one, UNICODE, text, is_low=True), 80, UNICODE)
    if drawing is not None:
        assert Reader(drawing).connections() == wanted_lines(one)


@settings(max_examples=20)
@given(PAIRS)
def test_lines_with_rails_can_be_read_back(shape: tuple[int, list[list[int]]]) -> None:
    one = graph(*shape)
    drawing = rails.low(one, 200, UNICODE, {node.key: node.name for node in one.nodes})
    assert drawing is not None
    seen: dict[int, set[str]] = {}
    for line in drawing[bool(one.networks) :]:
        for x, char in enumerate(line):
            if char == "●" and x > 1:
                seen.setdefault(x, set()).add(line.split()[1])
    ends = [{one.nodes[int(end.node)].name for end in network.ends} for network in one.networks]
    assert [seen[x] for x in sorted(seen)] == ends


def test_a_rail_has_its_links_number_before_there_is_a_vlan() -> None:
    low = rails.low(plan("star", 4).graph(), 80, UNICODE, {str(place): f"vm{place + 1}" for place in range(4)})
    assert low is not None and low[0].split() == ["1", "2", "3"]
