"""Topology files: what they say, every mistake at once, and a schema that agrees with the checker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, strategies as st

from cloudrepo.errors import RefusedError
from cloudrepo.link_switches import USUAL
from cloudrepo.topology import keys, patterns, reading, shapes
from cloudrepo.topology.model import End, Link, Node, Topology
from test_cli_recovery import run

CHECKOUT = Path(__file__).resolve().parent.parent
GOOD = """\
version: 1
name: two halves
variables: {n: 3, size: cirros}
defaults: {flavor: "${size}"}
nodes:
  r: {shape: ring, size: 3, internet: true}
  h[1-${n}]:
  sw:
    interfaces: 5
    worker: 10.0.10.2
    ssh_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ann@home]
    start: |
      echo ${HOME}
links:
  - sw:eth5 -- r1:eth4
  - [sw, "h[1-${n}]"]
  - {ends: [r2, h1], dhcp: false, subnet: 10.1.2.0/24, spoofing: allowed}
"""
KNOWN = reading.Known(flavors=("cirros", "ubuntu"), images=("frr",), workers=("10.0.10.1", "10.0.10.2"))


def read(text: str, **given: Any) -> Topology:
    return reading.read(text, "lab.cloud.yml", known=KNOWN, given=given)


def mistakes(text: str, **given: Any) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        read(text, **given)
    head, *lines = str(caught.value).splitlines()
    assert "nothing was done" in head and len(caught.value.details["mistakes"]) == len(lines)
    return lines


def test_a_file_says_machines_and_networks() -> None:
    found = read(GOOD)
    assert (found.name, found.type, found.source) == ("two halves", "custom", "lab.cloud.yml")
    assert [node.name for node in found.nodes] == ["r1", "r2", "r3", "h1", "h2", "h3", "sw"]
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ann@home"
    assert found.node("sw") == Node(
        name="sw", flavor="cirros", interfaces=5, worker="10.0.10.2", ssh_keys=(key,), start="echo ${HOME}\n"
    )
    assert found.node("r1") == Node(name="r1", flavor="cirros", internet=True)
    assert found.links == (
        *(Link(ends=(End(a), End(b))) for a, b in (("r1", "r2"), ("r2", "r3"), ("r3", "r1"))),
        Link(ends=(End("sw", "eth5"), End("r1", "eth4"))),
        Link(ends=(End("sw"), End("h1"), End("h2"), End("h3"))),
        Link(
            ends=(End("r2"), End("h1")),
            switches={**USUAL, "dhcp": False, "spoofing": "allowed"},
            subnet="10.1.2.0/24",
        ),
    )
    assert (found.needed("r1"), found.needed("sw"), found.needed("h1")) == (4, 5, 2)


def test_a_variable_of_the_command_line_comes_first() -> None:
    found = read(GOOD, n=1, size="ubuntu")
    assert [node.name for node in found.nodes if node.name.startswith("h")] == ["h1"]
    assert {node.flavor for node in found.nodes} == {"ubuntu"}
    assert mistakes(GOOD, m=1) == ["lab.cloud.yml:3:12: there is no variable m in this file. The nearest is n"] or (
        "Known are n, size" in mistakes(GOOD, m=1)[0]
    )


def test_anchors_and_merges_are_read() -> None:
    found = read(
        "version: 1\nname: x\nnodes:\n  a: &router {flavor: ubuntu, internet: true}\n"
        "  b: {<<: *router, internet: false}\n  c: *router\nlinks: [[a, b]]\n"
    )
    assert [(node.name, node.flavor, node.internet) for node in found.nodes] == [
        ("a", "ubuntu", True), ("b", "ubuntu", False), ("c", "ubuntu", True),
    ]  # fmt: skip


BAD = """\
version: 2
nmae: bad lab
name: lab
name: lab2
variables: {n: 3, bad name: 1, list: [1]}
size: 3
defaults: {flavor: huge, count: 2}
nodes:
  r1: {flavour: cirros, internet: maybe, worker: 10.0.10.9}
  r-2: {flavor: cirross, interfaces: 99, image: fr}
  r_2: {}
  1st: {}
  h[3-1]:
  s: {shape: rign, size: 5}
  t: {shape: ring, size: 2}
  u: {count: "${m}", worker: 10.0.0.300}
  v[1-2]: {count: 2}
  w: {ssh_keys: [nonsense], restart: alwys, start: 5}
  x: {interfaces: 1}
  y: [1]
links:
  - r1 -- rr1
  - r1:eth0 -- r-2:eth1
  - r1 - r-2
  - [r1]
  - {ends: [r1, r-2], dhpc: false, spoofing: yes, subnet: 10.1.2.3/24}
  - r1:eth1 -- r-2:eth1
  - r1:eth1 -- w:eth16
  - r1:eth1 -- x:eth2
  - [r1, r1]
  - r1 -- r-2 -- x
  - {dhcp: false}
  - 5
  - []
  - {ends: []}
"""
SAID = """\
1:10: version: 1 is wanted, found the number 2
2:1: a topology file has no key 'nmae'. The nearest is name
4:1: 'name' is there twice. The first is in line 3
5:19: a variable cannot be named 'bad name'. Use letters, digits and _
5:38: a variable is a text, a number or a truth value, and not a list
6:1: a size without a shape. Shapes are line, ring, star, mesh, tree, bus; or use `count`
7:20: there is no flavor 'huge'. Known are cirros, ubuntu
7:26: `defaults` has no key 'count'. The nearest is
9:8: a node has no key 'flavour'. The nearest is flavor
9:35: internet: true or false is wanted, found 'maybe'
9:50: there is no worker '10.0.10.9'. The nearest is 10.0.10.
10:17: there is no flavor 'cirross'. The nearest is cirros
10:38: interfaces: a whole number from 0 to 15 is wanted, found the number 99
10:49: there is no image 'fr'. The nearest is frr
11:3: r_2 and r-2 (line 10) would have the same host name. Choose names that differ in more than case, - and _
12:3: a VM cannot be named '1st'. A name is a letter, then up to 30 letters, digits, - or _
13:3: 'h[3-1]': the range 3-1 ends before it begins
14:14: shape: one of line, ring, star, mesh, tree, bus is wanted, found 'rign'. The nearest is ring
15:26: a ring cannot have 2 machines. From 3 to 20 are possible
16:14: there is no variable 'm'. Known are n
16:30: worker: 10.0.0.300 is no IPv4 address
17:19: 'v[1-2]' says by its brackets how many there are. Leave one out
18:17: ssh_keys: a public SSH key is wanted, found 'nonsense'
18:38: restart: one of never, on-failure, always is wanted, found 'alwys'. The nearest is always
18:52: start: a script is wanted, found the number 5. In quotes it is a text
19:3: x has 1 data interfaces, and its links need 2. Write `interfaces: 2`, or leave it out
20:6: the node y is a mapping of keys, and not a list
22:5: there is no node 'rr1'. The nearest is r1
23:5: eth0 is a machine's way to the internet and cannot be linked. Use eth1, eth2 …
24:5: 'r1 - r-2' is no link: two ends are joined by ` -- `. Is it
25:5: a link has two ends or more, and this has 1. Write `a:eth1 -- b:eth1`, or a list such as [a, b]
26:23: a link has no key 'dhpc'. The nearest is dhcp
26:46: spoofing: one of allowed, forbidden is wanted, found the truth value yes. The nearest is allowed
26:59: subnet: 10.1.2.3/24 is no subnet. 10.1.2.0/24 is the subnet of that address
28:5: there is no interface 'eth16'. Data interfaces are eth1 to eth15
29:5: r1:eth1 is an end of two links. The other is in line 27
30:5: r1 is twice an end of this link. A link joins different machines
31:5: 'r1 -- r-2 -- x' has 3 ends. One network of all is [r1, r-2, x]; for a chain write a link for each two
32:5: a link without ends. Such as `ends: [r1, r2]`
33:5: a link is two ends, a list of ends, or a mapping, and not the number 5. Write `a:eth1 -- b:eth1`
34:5: a link without ends. Write `a:eth1 -- b:eth1`, or a list such as [a, b]
35:12: a link without ends. Write `a:eth1 -- b:eth1`
"""


def test_every_mistake_is_reported_at_once_with_its_place_and_what_may_be_meant() -> None:
    found, wanted = mistakes(BAD), SAID.splitlines()
    for line, start in zip(found, wanted, strict=False):
        assert line.startswith(f"lab.cloud.yml:{start}")
    assert len(found) == len(wanted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: the file is empty. It begins with `version: 1`"),
        ("- a\n", "1:1: a topology file is a mapping of keys, and this is a list"),
        ("version: 1\nname: [\n", "3:1: this is no YAML"),
        ("version: 1\nname: x\nnodes:\n\ta: {}\n", "no tab"),
        ("version: 1\nname: x\nsize: 3\nnodes: {a: {count: ${n}}}\n", "needs quotes"),
        ("version: 1\nname: x\n", "1:1: there are no nodes. Write `nodes:`, or `shape:` and `size:`"),
        ("version: 1\nname: '12'\nnodes: [a]\n", "2:7: name: a slice cannot be named '12'"),
        ("version: 1\nname: x\nnodes: [a, b]\nlinks:\n" + "- [a, b]\n" * 21, "25:3: there are 21 links"),
        ("version: 1\nname: x\nnodes: ['a[1-300]']\n", "longer than 254"),
        ("version: 1\nname: x\nnodes: ['a[1-9][1-99]']\n", "makes 891 names; 254 are possible"),
        ("version: 1\nname: x\nnodes: {a: {count: 200}, b: {count: 99}}\n", "there are 299 nodes; 254 are possible"),
        ("version: 1\nname: x\nnodes: ['a[1-9']\n", "a bracket without its other half"),
        ("version: 1\nname: x\nnodes: {a: {count: 7}}\nlinks: [{ends: [a], subnet: 10.0.0.0/29}]\n",
         "10.0.0.0/29 has addresses for 4 machines, and this link has 7. Choose a larger subnet"),
        ("version: 1\nname: x\nnodes: [a, b]\nlinks: [{ends: [a, b], subnet: 10.0.0.0/24}, "
         "{ends: [a, b], subnet: 10.0.0.0/16}]\n", "overlaps 10.0.0.0/24 of line 4, and a is on both"),
        ("version: 1\nname: x\nnodes: [a, b]\nlinks: [{ends: [a, b], subnet: 224.1.0.0/24}]\n", "no subnet for hosts"),
        ("version: 1\nname: x\nnodes: [a, b]\nlinks: [{ends: [a, b], subnet: 10.0.0.0/30}]\n", "From /8 to /29"),
    ],
)  # fmt: skip
def test_single_mistakes(text: str, said: str) -> None:
    assert any(said in line for line in mistakes(text))


def test_a_bomb_of_aliases_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for n in range(1, 9):
        bomb += f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n"
    assert "aliases" in mistakes(bomb)[0]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("r1", ["r1"]),
        ("r[1-3]", ["r1", "r2", "r3"]),
        ("r[01-03,7]x", ["r01x", "r02x", "r03x", "r7x"]),
        ("p[1-2]h[1-2]", ["p1h1", "p1h2", "p2h1", "p2h2"]),
    ],
)
def test_patterns(text: str, names: list[str]) -> None:
    assert patterns.expanded(text) == names


# ── shapes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "size", "links"),
    [
        ("line", 3, "vm1:eth1-vm2:eth1 vm2:eth2-vm3:eth1"),
        ("ring", 3, "vm1:eth1-vm2:eth1 vm2:eth2-vm3:eth1 vm3:eth2-vm1:eth2"),
        ("star", 3, "vm1:eth1-vm2:eth1 vm1:eth2-vm3:eth1"),
        ("mesh", 3, "vm1:eth1-vm2:eth1 vm1:eth2-vm3:eth1 vm2:eth2-vm3:eth2"),
        ("tree", 4, "vm1:eth1-vm2:eth1 vm1:eth2-vm3:eth1 vm2:eth2-vm4:eth1"),
        ("bus", 3, "vm1:eth1-vm2:eth1-vm3:eth1"),
    ],
)
def test_shapes(shape: str, size: int, links: str) -> None:
    assert " ".join("-".join(map(str, link)) for link in shapes.design(shape, size).links) == links


@given(st.sampled_from(shapes.NAMES), st.data())
def test_every_shape_of_every_size_is_whole_and_fits_a_slice(shape: str, data: st.DataObject) -> None:
    known = shapes.SHAPES[shape]
    size = data.draw(st.integers(known.least, known.most))
    made = shapes.design(shape, size, "n")
    assert list(made.interfaces) == [f"n{number}" for number in range(1, size + 1)]
    ends = [end for link in made.links for end in link]
    assert len(set(ends)) == len(ends) and len(made.links) <= shapes.MOST_LINKS
    for name, count in made.interfaces.items():
        assert {end.interface for end in ends if end.node == name} == {f"eth{n}" for n in range(1, count + 1)}
        assert 1 <= count <= 15
    reached, links = {"n1"}, list(made.links)
    for _ in range(size):
        for link in links:
            if any(end.node in reached for end in link):
                reached |= {end.node for end in link}
    assert len(reached) == size


@pytest.mark.parametrize(
    ("shape", "size", "said"),
    [
        ("ring", 2, "From 3 to 20"),
        ("mesh", 7, "From 2 to 6"),
        ("rign", 3, "The nearest is ring"),
        ("star", True, "cannot have True"),
    ],
)
def test_a_size_that_a_shape_does_not_have_is_refused(shape: str, size: int, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        shapes.design(shape, size)


# ── the schema ──────────────────────────────────────────────────────────────────────────────────────────

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ann@home"
VALIDATOR = jsonschema.Draft202012Validator(keys.schema())


def test_the_published_schema_is_the_checkers() -> None:
    published = CHECKOUT / "docs" / "topology.schema.json"
    assert published.read_text() == json.dumps(keys.schema(), indent=2) + "\n", "./cloud topology schema >it"
    jsonschema.Draft202012Validator.check_schema(keys.schema())


def test_the_schema_refuses_every_kind_of_wrong_value() -> None:
    VALIDATOR.validate(yaml.safe_load(GOOD))
    document = yaml.safe_load(BAD.replace("name: lab2\n", ""))
    wrong = {"/".join(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(document)}
    assert {"", "version", "defaults", "nodes/r1", "nodes/y", "links/4", "links/11"} <= wrong


_NODE = {
    "flavor": st.sampled_from(["cirros", "", 5, None, ["x"]]),
    "image": st.sampled_from(["frr", 1.5, {}]),
    "internet": st.sampled_from([True, False, "yes", 1, None]),
    "interfaces": st.sampled_from([0, 7, 15, 16, -1, 2.5, True, "3"]),
    "worker": st.sampled_from(["10.0.10.1", "host", 10]),
    "restart": st.sampled_from(["never", "on-failure", "always", "", False]),
    "users": st.sampled_from([["ann"], ["ann", "bob"], "ann", ["A b"], []]),
    "ssh_keys": st.sampled_from([[KEY], [], ["x"], "ssh-rsa AAAA", [5]]),
    "cloud_init": st.sampled_from([{"users": []}, "#cloud-config", "", [], 7]),
    "start": st.sampled_from(["true\n", "", 5, ["a"]]),
}
_COUNTED = {**_NODE, "count": st.sampled_from([1, 3, 0, 255, "2", True])}
_LINK = {
    "ends": st.sampled_from([["a", "b"], "a -- b", "a:eth1 -- b:eth2", "a", [], ["a", 5], None, "a - b", "a--b"]),
    "dhcp": st.sampled_from([True, False, "no", 0]),
    "subnet": st.sampled_from(["10.0.0.0/24", "ten", 10, ""]),
    "spoofing": st.sampled_from(["allowed", "forbidden", True, "ALLOWED"]),
    "bridging": st.sampled_from(["allowed", None]),
    "vlans": st.sampled_from(["forbidden", "f"]),
    "dhpc": st.just(True),
}


def some(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=values)


DOCUMENTS = st.fixed_dictionaries(
    {"version": st.sampled_from([1, 1, 1, 1, "1", 2, 1.5]), "name": st.sampled_from(["x", "a lab", "net 1", "", 5])},
    optional={
        "type": st.sampled_from(["star", "my_lab-1", "a b", 3]),
        "defaults": st.one_of(some(_NODE), st.just([])),
        "variables": st.sampled_from([{"n": 1}, {"n": "a"}, {"bad name": 1}, {"n": [1]}, [], {"n": None}]),
        "links": st.one_of(st.lists(st.one_of(some(_LINK), _LINK["ends"]), max_size=2), st.just({})),
        "surplus": st.just(1),
    },
).flatmap(
    lambda head: st.one_of(st.none(), some(_COUNTED), st.just(5), st.just([])).map(
        lambda node: {**head, "nodes": {"a": None, "b": {"flavor": "cirros"}, "c": node}}
    )
)
#: What only the checker can know: it is between the parts, or deeper than a pattern goes.
_BEYOND_A_SCHEMA = (
    "needs",
    "need ",
    "end of two links",
    "twice an end",
    "a link has two ends",
    "no node",
    "cloud-init document",
)


@given(DOCUMENTS)
def test_schema_and_checker_agree(document: dict[str, Any]) -> None:
    is_valid = VALIDATOR.is_valid(document)
    try:
        reading.read(yaml.safe_dump(document), "x")
    except RefusedError as error:
        found = [one["problem"] for one in error.details["mistakes"]]
        structural = [one for one in found if not any(words in one for words in _BEYOND_A_SCHEMA)]
        assert is_valid == (not structural), structural
    else:
        assert is_valid, [error.message for error in VALIDATOR.iter_errors(document)]


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLOUDREPO_STATE", str(tmp_path / "database.yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_validate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lab.cloud.yml").write_text(GOOD)
    assert run("topology", "validate", "lab.cloud.yml") == 0
    assert capsys.readouterr().out == "lab.cloud.yml is in order: two halves, 7 nodes and 6 links.\n"
    assert run("topology", "validate", "lab.cloud.yml", "--json", "--var", "n=5") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["name"], found["nodes"], found["links"], found["ends"]) == (
        *(True, "two halves", 9, 6, 16),
    )
    Path("lab.cloud.yml").write_text(BAD)
    assert run("topology", "validate", "lab.cloud.yml") == 1
    assert "lab.cloud.yml:9:8: a node has no key 'flavour'. The nearest is flavor" in capsys.readouterr().err
    assert run("topology", "validate", "lab.cloud.yml", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "topology.file"
    assert {
        "line": 2,
        "column": 1,
        "problem": "a topology file has no key 'nmae'",
        "remedy": "The nearest is name",
    } in (error["details"]["mistakes"])
    assert not (folder / "database.yaml").exists()


def test_validate_asks_for_flavors_only_where_there_is_an_installation(folder: Path) -> None:
    Path("lab.cloud.yml").write_text("version: 1\nname: x\nnodes: {a: {flavor: of-another-place}}\n")
    assert run("topology", "validate", "lab.cloud.yml") == 0
    (folder / "database.yaml").write_text("users: {}\n")
    assert run("topology", "validate", "lab.cloud.yml") == 1


def test_what_is_no_text_and_what_is_no_file_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lab.cloud.yml").write_bytes(b"version: 1\nname: \xff\n")
    assert run("topology", "validate", "lab.cloud.yml") == 1
    assert "lab.cloud.yml:2: this is not UTF-8 text" in capsys.readouterr().out
    assert run("topology", "validate", "nowhere.cloud.yml") == 1
    assert "nowhere.cloud.yml" in capsys.readouterr().err
    assert run("topology", "validate", "lab.cloud.yml", "--var", "n") == 64


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("topology", "schema") == 0
    assert json.loads(capsys.readouterr().out) == keys.schema()
