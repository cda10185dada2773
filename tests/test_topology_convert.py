"""Files of other tools become topologies that are in order, and what they cannot express is said exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, strategies as st

from cloudrepo.errors import RefusedError
from cloudrepo.topology import reading as topologies, writing
from cloudrepo.topology.convert import reading
from test_cli_recovery import run

FOLDER = Path(__file__).parent / "golden" / "topologies"
SAID = yaml.safe_load((FOLDER / "converted.yaml").read_text())
FILES = sorted(path.name for path in FOLDER.iterdir() if path.name != "converted.yaml")
#: Of which a person must take something out first; that is said.
TOO_LARGE = {"many.netlab.yml"}


def described(name: str) -> dict[str, object]:
    form, found = reading.convert((FOLDER / name).read_text(), name)
    nodes = [f"{node.name}: {node.start!r}" if node.start else node.name for node in found.topology.nodes]
    unusual = {"spoofing": "forbidden", "bridging": "forbidden", "vlans": "forbidden", "dhcp": True}
    links = [
        " ".join([str(link), *([link.subnet] if link.subnet else []),
                  *(f"{key}={value}" for key, value in link.switches.items() if unusual[key] != value)])
        for link in found.topology.links
    ]  # fmt: skip
    return {
        "format": form, "name": found.topology.name, "nodes": nodes, "links": links,
        "left": [str(one) for one in found.left],
    }  # fmt: skip


def test_thirty_files_and_more_of_three_formats_are_there() -> None:
    assert len(FILES) >= 30 and set(SAID) == set(FILES)
    assert {one["format"] for one in SAID.values()} == set(reading.FORMATS)


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_becomes_and_what_is_left(name: str) -> None:
    assert described(name) == SAID[name]


@pytest.mark.parametrize("name", FILES)
def test_what_is_made_is_in_order(name: str) -> None:
    _, found = reading.convert((FOLDER / name).read_text(), name)
    text = writing.text_of(found.topology)
    if name in TOO_LARGE:
        assert "at most 20" in SAID[name]["left"][-1]
        with pytest.raises(RefusedError, match="at most 20"):
            topologies.read(text, name)
        return
    made = topologies.read(text, name)
    assert (made.nodes, made.links) == (found.topology.nodes, found.topology.links)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.clab.yml", "nodes: [a]\n", "it has no `topology`"),
        ("x.clab.yml", "topology: {nodes: [a: b, ]\n", "line 2, column 1"),
        ("x.yml", "lab: 1\n", "none of containerlab, netlab, graphml"),
        ("x.yml", "- a\n", "none of containerlab, netlab, graphml"),
        ("x.graphml", "<graphml>", "it is no XML"),
        ("x.graphml", "<html/>", "its root is 'html'"),
        ("x.graphml", "<graphml/>", "it has no graph"),
        ("x.graphml", '<!DOCTYPE a [<!ENTITY b "c">]><graphml>&b;</graphml>', "declares a document type"),
    ],
)
def test_what_is_no_such_file_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        reading.convert(text, name)
    assert said in str(caught.value)


KEYS = (
    *("nodes", "links", "endpoints", "kind", "kinds", "exec", "name", "interfaces", "prefix", "a", "b", "linux"),
    *("type", "group", "groups", "members", "device", "defaults", "sysctls", "ipv4", "ifname"),
)
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3)
    | st.sampled_from(["a", "a:eth1", "b:eth1", "linux", "a-b", "", "r-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
NODES = st.dictionaries(st.sampled_from(["a", "b"]), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
AROUND = st.dictionaries(st.sampled_from(["defaults", "kinds", "groups"]), VALUES | NODES, max_size=3)


@example({"a": {"kind": [False], "exec": ["b"], "sysctls": [1]}}, None, {"defaults": {"exec": 1}}, "containerlab")
@example({"a": {}}, None, {"groups": {"b": {"members": 3, "device": "linux"}}}, "netlab")
@given(VALUES | NODES, VALUES, AROUND, st.sampled_from(["containerlab", "netlab"]))
def test_whatever_is_in_a_file_it_is_read_or_refused(
    nodes: object, links: object, around: dict[str, object], form: str
) -> None:
    document: object = {"nodes": nodes, "links": links, **around}
    text = yaml.safe_dump({"topology": document} if form == "containerlab" else document)
    try:
        _, found = reading.convert(text, "x", form)
    except RefusedError:
        return
    if found.topology.nodes and not any("at most" in str(one) for one in found.left):
        topologies.read(writing.text_of(found.topology), "x")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    source = str(FOLDER / "clos-other-kinds.clab.yml")
    assert run("topology", "convert", source) == 0
    shown = capsys.readouterr()
    assert "client1:eth2 -- client2:eth2" in shown.out and topologies.read(shown.out, "x").name == "clos"
    assert "Not expressed: node leaf1: its kind nokia_srlinux is no Linux machine" in shown.err
    assert run("topology", "convert", source, "-o", "clos.cloud.yml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["nodes"], found["links"]) == ("containerlab", 2, 1)
    assert {"where": "node leaf2", "what": SAID["clos-other-kinds.clab.yml"]["left"][1].partition(": ")[2]} in (
        found["not_expressed"]
    )
    assert run("topology", "validate", "clos.cloud.yml") == 0
    assert run("topology", "convert", source, "--from", "visio") == 64
