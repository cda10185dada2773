"""Pictures: what is drawn can be read back, and no name in it is anything but a name."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pydot
import pytest
from hypothesis import given, settings, strategies as st

from cloudrepo.pictures import boxes, dot, html, mermaid, rails, svg, terminal
from cloudrepo.pictures.graph import Graph, of_slice, visible
from cloudrepo.pictures.marks import ASCII, UNICODE
from crashing import SLICE, Installation
from picture_reader import Reader, graph
from test_cli_recovery import installation, run

__all__ = ["installation"]

HOSTILE = (
    '"><script>alert(1)</script>',
    "</title></svg><img src=x onerror=alert(1)>",
    '"]; click n0 "javascript:alert(1)"',
    '%%{init: {"securityLevel":"loose"}}%% `x`',
    r"\N\G\l\" ]; evil -- evil [label=<<b>x</b>>",
    "&lt;b&gt; &#34; ]]> --> <!--",
    "\x1b[2J\x1b]0;title\x07\u202eevil\n\r\t",
    "${7*7} {{7*7}} <?php ?>",
)
PAIRS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.lists(st.integers(0, n - 1), min_size=2, max_size=3, unique=True), max_size=16 if n > 2 else 2)
        if n > 1
        else st.just([]),
    )
)


# ── the terminal ────────────────────────────────────────────────────────────────────────────────────────


def wanted_lines(one: Graph) -> list[tuple[str, str]]:
    """The lines a drawing must have: between two VMs, or from a network of more to each of its VMs."""
    names = {node.key: node.name for node in one.nodes}
    found = []
    for network in one.networks:
        ends = [names[end.node] for end in network.ends]
        found += [(ends[0], ends[1])] if network.is_wire else [(network.name, end) for end in ends]
    return sorted((min(pair), max(pair)) for pair in found)


@settings(max_examples=30)
@given(PAIRS, st.sampled_from((60, 80, 120)))
def test_a_drawing_of_boxes_can_be_read_back(shape: tuple[int, list[list[int]]], width: int) -> None:
    one = graph(*shape)
    text = {node.key: node.name for node in one.nodes}
    drawing = boxes.draw(boxes.sketch(one, UNICODE, text), width, UNICODE)
    if drawing is None:
        return  # a tangle: see the rails
    assert max(map(len, drawing)) <= width
    reader = Reader(drawing)
    assert set(reader.boxes.values()) >= {node.name for node in one.nodes}
    assert reader.connections() == wanted_lines(one)


@settings(max_examples=30)
@given(PAIRS)
def test_rails_can_be_read_back(shape: tuple[int, list[list[int]]]) -> None:
    one = graph(*shape)
    drawing = rails.draw(one, 200, UNICODE, {node.key: node.name for node in one.nodes})
    assert drawing is not None
    box = drawing[[line[:1] for line in drawing].index("┌")].index("┐") + 1
    seen: dict[int, set[str]] = {}
    for line in drawing:
        for x, char in enumerate(line):
            if char == "●" and x > box:
                seen.setdefault(x, set()).add(line.split()[2].rstrip("├─│"))
    ends = [{one.nodes[int(end.node)].name for end in network.ends} for network in one.networks]
    assert [seen[x] for x in sorted(seen)] == ends


@pytest.mark.parametrize(
    ("number", "pairs"),
    [
        (12, [(place, place + 1) for place in range(11)]),
        (12, [(place, (place + 1) % 12) for place in range(12)]),
        (12, [(0, place) for place in range(1, 12)]),
        (12, [((place - 1) // 2, place) for place in range(1, 12)]),
        (12, [tuple(range(12))]),
        (8, [(one, other) for one in range(8) for other in range(one)]),
    ],
    ids=["line", "ring", "star", "tree", "bus", "mesh"],
)
def test_twelve_machines_are_drawn_on_eighty_columns(number: int, pairs: list[tuple[int, ...]]) -> None:
    lines = terminal.drawn(graph(number, pairs), 80, UNICODE)
    assert lines is not None and max(map(len, lines)) <= 80


def test_a_line_of_three() -> None:
    drawing = terminal.draw(graph(3, [(0, 1), (1, 2)], online=[0]), 80)
    assert drawing == [
        "┌─────────────┐      ┌─────────────┐      ┌─────────────┐",
        "│ ● vm1       │      │ ● vm2       │      │ ● vm3       │",
        "│   10.0.10.1 ├ 100 ─┤   10.0.10.2 ├ 101 ─┤   10.0.10.3 │",
        "│   internet  │      │             │      │             │",
        "└─────────────┘      └─────────────┘      └─────────────┘",
        "",
        "● running",
        "link 1  vm1 eth2 ── vm2 eth1  VLAN 100",
        "link 2  vm2 eth2 ── vm3 eth1  VLAN 101",
    ]


def test_without_unicode_the_same_is_drawn_in_ascii() -> None:
    for shape in ((4, [(a, b) for a in range(4) for b in range(a)]), (3, [(0, 1, 2)])):
        fine, plain = (terminal.draw(graph(*shape), unicode=unicode) for unicode in (True, False))
        table = str.maketrans("─│┼┌┐└┘╭╮╰╯├┬┤┴●", "-||..''..''+-+-*")
        assert [line.translate(table) for line in fine] == plain
        assert "".join(plain).isascii()
    assert r"\xf1" in "".join(terminal.draw(graph(1, [], names=["ñ"]), unicode=False))


def test_thirteen_machines_are_a_table() -> None:
    lines = terminal.draw(graph(13, [(0, 1), (1, 2, 3)], online=[0]), 80)
    assert lines[0].split() == ["VM", "State", "Worker", "NIC", "Address", "VLAN", "Joined", "to"]
    assert len([line for line in lines if line.startswith("●")]) == 13
    assert lines[1].split() == ["●", "vm1", "running", "10.0.10.1", "eth0", "10.60.7.101", "400", "internet"]
    assert lines[4].split() == ["eth2", "101", "vm3", "eth1,", "vm4", "eth1"]


def test_lines_that_do_not_fit_are_a_table() -> None:
    assert terminal.draw(graph(2, [(0, 1)] * 40), 80)[0].startswith("VM ")
    assert terminal.draw(graph(2, [(0, 1)]), 12)[0].startswith("VM ")


def test_nothing_is_drawn_of_nothing() -> None:
    assert terminal.draw(graph(0, [])) == []
    assert "<svg" in svg.draw(graph(0, [])) and "</html>" in html.draw(graph(0, []))


def test_names_of_wide_letters_keep_the_border_straight() -> None:
    from wcwidth import wcswidth

    lines = terminal.draw(graph(2, [(0, 1)], names=["機械", "x" * 60]), legend=False)
    assert len({wcswidth(line) for line in lines}) == 1
    assert "…" in "".join(lines)


# ── what people named can do nothing ────────────────────────────────────────────────────────────────────


def hostile() -> Graph:
    names = [visible(name) for name in HOSTILE]
    return graph(len(names), [(0, 1), (1, 2), (3, 4, 5)], online=[2], names=names)


def benign() -> Graph:
    return graph(len(HOSTILE), [(0, 1), (1, 2), (3, 4, 5)], online=[2])


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag, tuple(name for name, _value in attrs)] += 1

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_hostile_name_adds_no_element_to_a_page() -> None:
    page, usual = Tags(html.draw(hostile())), Tags(html.draw(benign()))
    assert page.tags == usual.tags
    assert all(visible(name) in page.words for name in HOSTILE)
    assert not any(tag in ("script", "img", "a", "iframe", "object") for tag, _names in page.tags)
    assert "default-src 'none'" in html.draw(hostile())


def test_a_hostile_name_adds_no_element_to_an_svg() -> None:
    shown, usual = (ET.fromstring(svg.draw(one)) for one in (hostile(), benign()))  # noqa: S314 - our own text
    assert Counter(one.tag for one in shown.iter()) == Counter(one.tag for one in usual.iter())
    titles = [one.text or "" for one in shown.iter("{http://www.w3.org/2000/svg}title")]
    assert all(any(title.startswith(visible(name)) for title in titles) for name in HOSTILE)


def test_a_hostile_name_is_a_label_in_graphviz() -> None:
    read = pydot.graph_from_dot_data(dot.draw(hostile()))
    assert read is not None and len(read) == 1
    nodes = {one.get_name(): str(one.get("label")) for one in read[0].get_nodes()}
    plain = pydot.graph_from_dot_data(dot.draw(benign()))
    assert plain is not None
    assert nodes.keys() == {one.get_name() for one in plain[0].get_nodes()}
    assert len(read[0].get_edges()) == len(plain[0].get_edges())
    for place, name in enumerate(HOSTILE):
        label = nodes[f"n{place}"]
        assert label.startswith('"' + visible(name).replace("\\", "\\\\").replace('"', '\\"') + "\\n")


def test_a_hostile_name_is_a_label_in_mermaid() -> None:
    label = r"(?:[^\W_]|[ ._:/-]|#\d+;|<br/>)*"
    allowed = re.compile(
        rf'flowchart LR|  %% {label}|  n\d+\["{label}"\]|  w\d+\(\("{label}"\)\)|  n\d+ ---\|"{label}"\| [nw]\d+'
        r"|  classDef state\d+ stroke:#[0-9a-f]{6},stroke-width:3px|  class [n\d,]+ state\d+"
    )
    lines = mermaid.draw(hostile()).splitlines()
    assert [line for line in lines if not allowed.fullmatch(line)] == []
    assert len(lines) == len(mermaid.draw(benign()).splitlines())
    decoded = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), "\n".join(lines))
    assert all(visible(name) in decoded for name in HOSTILE)


def test_a_hostile_name_moves_no_cursor() -> None:
    for lines in (terminal.draw(hostile()), terminal.table(hostile(), ASCII)):
        assert all(line.isprintable() for line in lines)


# ── the plane ───────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=15)
@given(PAIRS)
def test_no_box_stands_on_another(shape: tuple[int, list[list[int]]]) -> None:
    one = graph(*shape, online=[0])
    places = list(svg.positions(one).values())
    for number, (x, y) in enumerate(places):
        assert x >= svg.WIDTH / 2 and y >= svg.TITLE
        for u, v in places[:number]:
            assert abs(x - u) >= svg.WIDTH or abs(y - v) >= svg.HEIGHT


def test_each_state_and_worker_has_its_colour() -> None:
    page = svg.draw(graph(4, []))
    assert all(colour in page for colour in (svg.STATES["running"], *svg.WORKERS[:3]))
    assert svg.state_colour("deploying") == svg.UNDER_WAY


def test_a_hundred_machines_are_drawn() -> None:
    page = html.draw(graph(100, [((place - 1) // 2, place) for place in range(1, 100)]))
    assert page.count('class="node"') == 100


# ── a slice, and the command ────────────────────────────────────────────────────────────────────────────


def test_the_graph_of_a_slice(installation: Installation) -> None:
    one = of_slice(installation.ok("get_slice", "admin", SLICE))
    assert one.title == "Slice 1000 “lab”" and one.state == "design"
    assert [node.name for node in one.nodes] == ["vm1", "vm2"]
    assert one.online == {"1001"} and one.workers == ("10.0.10.1", "10.0.10.2")
    assert [network.name for network in one.networks] == ["internet", "link 1"]
    assert one.networks[1].is_wire and one.networks[1].vlan == 100
    about = "\n".join(svg.about_node(one.nodes[0]))
    assert "eth0  10.60.7.101  52:54:00:" in about and "eth1" in about


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (("--format", "svg"), "<?xml"),
        (("--format", "html"), "<!DOCTYPE html>"),
        (("--format", "mermaid"), "flowchart LR"),
        (("--format", "dot"), 'graph "Slice 1000'),
        ((), "Slice 1000 “lab” · design"),
    ],
)
def test_draw_writes_to_the_standard_output(
    installation: Installation, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], begins: str
) -> None:
    assert run("draw", "lab", *words) == 0
    assert capsys.readouterr().out.startswith(begins)


def test_draw_goes_by_the_name_of_the_file(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, begins in (("a.svg", "<?xml"), ("a.html", "<!DOCTYPE"), ("a.mmd", "flow"), ("a.gv", "graph"), ("a", "S")):
        assert run("draw", "1000", "-o", str(tmp_path / name)) == 0
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)
    assert run("draw", "1000", "--format", "dot", "-o", str(tmp_path / "b.svg")) == 0
    assert (tmp_path / "b.svg").read_text().startswith("graph")
    assert "was drawn as dot in" in capsys.readouterr().out


def test_draw_says_what_it_cannot(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("draw", "1000", "--format", "png") == 64
    assert "found 'png'" in capsys.readouterr().err
    assert run("draw", "none") == 1
    assert run("draw", "1000", "-o", str(tmp_path / "no/such/a.svg")) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_draw_for_programs(installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert run("draw", "1000", "--format", "svg", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document.items() >= {"ok": True, "command": "draw", "slice_id": 1000, "format": "svg", "file": None}.items()
    assert document["picture"].startswith("<?xml")
    assert run("draw", "1000", "-o", str(tmp_path / "a.dot"), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["file"] == str(tmp_path / "a.dot") and document["picture"] is None


def test_no_two_lines_share_a_step() -> None:
    """Above and below the box in the middle there is room for one line each: a third finds no way."""
    from cloudrepo.pictures.routing import Box, Paper

    paper = Paper(39, 7, {str(place): Box(14 * place, 1, 11, 5) for place in range(3)})
    paths = [paper.connect("0", "2") for _ in range(3)]
    assert [path is not None for path in paths] == [True, True, False]
    steps = [tuple(sorted(step)) for path in paths if path for step in itertools.pairwise(path)]
    assert len(set(steps)) == len(steps)
