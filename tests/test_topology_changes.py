"""A slice is made what a file says: twice is once, what is there stays, and what is written of it makes one like it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.link_switches import USUAL
from cloudrepo.topology import reading, slices, writing
from cloudrepo.topology.difference import Difference, difference
from cloudrepo.topology.model import End, Link, Node, Topology
from control import topology as calls
from crashing import SLICE, WORKERS, Installation
from test_cli_recovery import installation, run

__all__ = ["installation"]  # the fixture

LAB = """\
# the lab of week 3
version: 1
name: week 3   # as in the syllabus
nodes:
  r[1-2]: {flavor: cirros}
  # the one that students log in to
  host:
    flavor: cirros
    internet: true   # for apt
links:
  - r1:eth1 -- r2:eth1   # the backbone
  # the access network
  - {ends: [r2, host], spoofing: allowed}
"""


def read(text: str) -> Topology:
    return reading.read(text, "lab.cloud.yml")


def apply(made: Installation, topology: Topology, replaced: Sequence[str] = ()) -> list[str]:
    """Apply a topology; what was done."""
    found = calls.plan(made.api, "admin", topology, replace=replaced)
    return [action.text for action in calls.apply(made.api, "admin", topology, found).done]


def planned(made: Installation, topology: Topology, replaced: Sequence[str] = ()) -> Difference:
    return calls.plan(made.api, "admin", topology, replace=replaced).difference


def exported(made: Installation, slice_id: int = SLICE) -> Topology:
    return calls.export(made.api, "admin", slice_id)


def differing(made: Installation) -> list[Any]:
    return [one for one in made.ok("drift")["objects"] if one["state"] not in ("ok", "foreign")]


# ── a file and a slice ──────────────────────────────────────────────────────────────────────────────────


def test_applied_twice_is_applied_once(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    lab = read(LAB)
    assert apply(made, lab) == [
        "create the slice week 3",
        "add r1: cirros, 3 data interfaces",
        "add r2: cirros, 4 data interfaces",
        "add host: cirros, 3 data interfaces, internet",
        "link r1:eth1 -- r2:eth1",
        "link r2:eth2 -- host:eth1",
    ]
    view = made.ok("get_slice", "admin", SLICE)
    assert (view["name"], view["topology_type"], view["status"]) == ("week 3", "custom", "design")
    assert [link["spoofing"] for link in view["links"]] == ["forbidden", "allowed"]
    assert planned(made, lab).actions == () == planned(made, lab).refusals
    made.ok("deploy_slice", "admin", SLICE)
    assert planned(made, lab).actions == ()
    made.ok("stop_slice", "admin", SLICE)
    assert planned(made, lab).actions == ()


def test_a_slice_that_runs_is_changed_and_nothing_else_is_touched(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    apply(made, read(LAB))
    made.ok("deploy_slice", "admin", SLICE)
    pids = {vm["name"]: vm["pid"] for vm in made.record()["vms"]}
    text = LAB.replace("  r[1-2]: {flavor: cirros}\n", "  r[1-3]: {flavor: cirros}\n")
    text = text.replace("spoofing: allowed}\n", "dhcp: false}\n  - r3 -- r1\n")
    assert apply(made, read(text)) == [
        "add r3: cirros, 3 data interfaces",
        "link 2 (r2 -- host): spoofing forbidden, dhcp false",
        "link r3:eth1 -- r1:eth2",
        "start r3",
    ]
    now = made.record()
    assert {vm["name"]: vm["pid"] for vm in now["vms"] if vm["name"] != "r3"} == pids
    assert [vm["status"] for vm in now["vms"]] == ["running"] * 4
    assert not differing(made)
    assert apply(made, read(text)) == []
    less = text.replace("  r[1-3]: {flavor: cirros}\n", "  r[2-3]: {flavor: cirros}\n")
    less = less.replace("  - r1:eth1 -- r2:eth1   # the backbone\n", "").replace("  - r3 -- r1\n", "")
    assert apply(made, read(less)) == ["remove r1, with its disk"]
    assert not differing(made) and planned(made, read(less)).actions == ()


def test_a_network_grows_and_shrinks_without_its_other_ends(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    text = "version: 1\nname: bus\nnodes: {h: {count: 4}}\nlinks:\n  - [h1, h2, h3]\n"
    apply(made, read(text))
    made.ok("deploy_slice", "admin", SLICE)
    assert apply(made, read(text.replace("h3]", "h3, h4]"))) == ["link 1 joins h1:eth1, h2:eth1, h3:eth1, h4:eth1"]
    assert apply(made, read(text.replace("[h1, ", "[h4, "))) == ["link 1 joins h4:eth1, h2:eth1, h3:eth1"]
    assert not differing(made)
    assert planned(made, read(text.replace("[h1, h2, h3]", "h2 -- h3"))).actions[0].text == (
        "link 1 joins h2:eth1, h3:eth1"
    )


def test_another_subnet_or_worker_or_flavor(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    text = (
        "version: 1\nname: x\nnodes:\n  a: {worker: 10.0.10.2, restart: always, start: 'echo 1'}\n"
        "  b: {interfaces: 1}\n"
        "links:\n  - {ends: [a, b], subnet: 10.1.0.0/24}\n"
    )
    apply(made, read(text))
    (a, b), (link,) = made.record()["vms"], made.record()["links"]
    assert (a["worker_ip"], a["restart"], a["first_boot"]) == ("10.0.10.2", "always", {"start_script": "echo 1\n"})
    assert link["cidr"] == "10.1.0.0/24" and len(b["interfaces"]) == 2
    assert apply(made, read(text.replace("10.1.0", "10.2.0"))) == [
        "remove link 1 (a:eth1 -- b:eth1)", "link a:eth1 -- b:eth1",
    ]  # fmt: skip
    text = text.replace("10.1.0", "10.2.0")
    for old, new, said in (
        ("10.0.10.2", "10.0.10.1", "worker: it has 10.0.10.2, and the file says 10.0.10.1"),
        ("b: {", "b: {flavor: ubuntu, ", "flavor: it has cirros, and the file says ubuntu"),
        ("b: {", "b: {internet: true, ", "internet: it has false, and the file says true"),
        ("interfaces: 1", "interfaces: 2", "data interfaces: it has 1, and the file says 2"),
        ("echo 1", "echo 2", "its first boot is over"),
    ):
        other = read(text.replace(old, new))
        name = "b" if "b:" in old or "interfaces" in old else "a"
        (refusal,) = planned(made, other).refusals
        assert said in refusal and f"`--replace {name}`" in refusal and refusal.startswith("lab.cloud.yml:")
        with pytest.raises(RefusedError, match="nothing was done"):
            apply(made, other)
        found = planned(made, other, replaced=[name])
        assert found.refusals == () and found.lost == (name,)
        assert [one.kind for one in found.actions][:2] == ["remove_vm", "add_vm"]
        assert found.actions == planned(made, other, replaced=["*"]).actions
    assert apply(made, read(text.replace("flavor", "flavor").replace("b: {", "b: {internet: true, ")), ["b"]) == [
        "remove b, with its disk, to make it anew",
        "add b: cirros, 1 data interfaces, internet",
        "link a:eth1 -- b:eth1",
    ]


def test_a_link_that_a_file_leaves_open_gives_way_to_one_that_names_its_interface(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    text = "version: 1\nname: x\nnodes: [a, b, c]\nlinks:\n  - a -- b\n"
    apply(made, read(text))
    assert apply(made, read(text + "  - a:eth1 -- c\n")) == [
        "remove link 1 (a:eth1 -- b:eth1)", "link a:eth2 -- b:eth1", "link a:eth1 -- c:eth1",
    ]  # fmt: skip
    assert planned(made, read(text + "  - a:eth1 -- c\n")).actions == ()


def test_networks_that_swap_an_interface_are_made_anew(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    text = "version: 1\nname: x\nnodes: {h: {count: 3}}\nlinks:\n"
    before = "  - [h1:eth1, h2:eth1, h3:eth1]\n  - [h1:eth2, h2:eth2, h3:eth2]\n"
    after = "  - [h1:eth1, h2:eth1, h3:eth2]\n  - [h1:eth2, h2:eth2, h3:eth1]\n"
    apply(made, read(text + before))
    made.ok("deploy_slice", "admin", SLICE)
    assert [words.partition(" ")[0] for words in apply(made, read(text + after))] == ["remove"] * 2 + ["link"] * 2
    assert planned(made, read(text + after)).actions == () and not differing(made)


def test_a_new_slice_is_whole_or_not_there(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    with made.api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 2
    with pytest.raises(CloudError, match=r"could not add host.*Quota exceeded.*removed again"):
        apply(made, read(LAB))
    assert made.ok("list_slices", "admin") == []
    with made.api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 3
    apply(made, read(LAB))
    more = LAB.replace("r[1-2]", "r[1-3]").replace("r1:eth1 --", "r3 --")
    with pytest.raises(CloudError, match="1 of 3 changes were made before; apply the file again"):
        apply(made, read(more))
    with made.api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 4
    slice_id = made.ok("list_slices", "admin")[0]["slice_id"]
    assert len(apply(made, read(more))) == 2 and exported(made, slice_id).node("r3") is not None


def test_several_slices_of_one_name_and_unsettled_ones_are_refused(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    apply(made, read(LAB))
    with made.api.db.transaction() as data:
        data["slices"][str(SLICE)]["vms"][0]["status"] = "creating"
    with pytest.raises(RefusedError, match="r1 is creating"):
        apply(made, read(LAB))
    with made.api.db.transaction() as data:
        data["slices"][str(SLICE)]["status"] = "error"
        data["slices"][str(SLICE)]["vms"][0]["status"] = "error"
    with pytest.raises(RefusedError, match="it is error, and must be design"):
        apply(made, read(LAB))
    made.ok("create_slice", "admin", "week 3")
    with pytest.raises(RefusedError, match="several slices named week 3: their ids are 1000, "):
        apply(made, read(LAB))


# ── random ones ─────────────────────────────────────────────────────────────────────────────────────────

NAMES = ("a", "b", "c-1", "d_2", "e")
SWITCHES = st.fixed_dictionaries(
    {}, optional={"spoofing": st.just("allowed"), "vlans": st.just("allowed"), "dhcp": st.just(False)}
)


@st.composite
def topologies(draw: st.DrawFn, name: str = "lab") -> Topology:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    free = {one: [f"eth{n}" for n in range(1, 5)] for one in names}
    links: list[Link] = []
    for subnet in draw(st.lists(st.sampled_from(["", "", "10.7.0.0/24"]), max_size=4)):
        some = [one for one in names if free[one]]
        if len(some) < 2:
            break
        nodes = draw(st.lists(st.sampled_from(some), min_size=2, max_size=4, unique=True))
        is_open = draw(st.booleans())
        ends = []
        for node in nodes:
            interface = draw(st.sampled_from(free[node]))
            free[node].remove(interface)
            ends.append(End(node, "" if is_open else interface))
        more = draw(SWITCHES)
        alone = subnet and not any(link.subnet for link in links)
        links.append(Link(ends=tuple(ends), switches={**USUAL, **more}, subnet=subnet if alone else ""))
    bare = Topology(name=name, links=tuple(links))
    nodes_ = []
    for one in names:
        count = draw(st.sampled_from([None, 5]))
        nodes_.append(
            Node(
                name=one, flavor="cirros", internet=draw(st.booleans()),
                interfaces=max(count, bare.needed(one)) if count else None,
                restart=draw(st.sampled_from(["", "always"])),
                start=draw(st.sampled_from(["", "echo one\necho two\n"])),
            )
        )  # fmt: skip
    return replace(bare, nodes=tuple(nodes_), type=draw(st.sampled_from(["custom", "star"])))


def essence(topology: Topology) -> tuple[Any, ...]:
    """What must be equal: machines and networks, in whatever order, with the interfaces that were chosen."""
    nodes = {
        node.name: (
            node.flavor, node.internet, node.restart, node.start,
            node.interfaces if node.interfaces is not None else slices.default_interfaces(topology.needed(node.name)),
        )
        for node in topology.nodes
    }  # fmt: skip
    links = sorted((sorted(map(str, link.ends)), sorted(link.switches.items()), link.subnet) for link in topology.links)
    return topology.type, nodes, links


#: Each example makes machines on hosts in memory.
FEW = settings(max_examples=12, suppress_health_check=list(HealthCheck))


@FEW
@given(topologies())
def test_export_apply_export_is_equal(topology: Topology) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = Installation(Path(folder))
        apply(made, topology)
        first = exported(made)
        assert planned(made, topology).actions == ()
        text = writing.text_of(first)
        again = replace(reading.read(text, "x"), name="again")
        apply(made, again)
        second_id = made.ok("list_slices", "admin")[-1]["slice_id"]
        assert essence(exported(made, second_id)) == essence(first)
        assert planned(made, again).actions == () and planned(made, reading.read(text, "x")).actions == ()
        assert writing.updated(text, first, "x") == text


@FEW
@given(topologies(), topologies())
def test_a_random_edit_of_a_slice_that_runs_touches_only_what_changed(before: Topology, after: Topology) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = Installation(Path(folder))
        apply(made, before)
        made.ok("deploy_slice", "admin", SLICE)
        pids = {vm["name"]: vm["pid"] for vm in made.record()["vms"]}
        found = planned(made, after, replaced=["*"])
        apply(made, after, replaced=["*"])
        record = made.record()
        touched = {action.node for action in found.actions if action.kind in ("remove_vm", "add_vm")}
        kept = {vm["name"]: vm["pid"] for vm in record["vms"] if vm["name"] not in touched}
        assert kept == {name: pid for name, pid in pids.items() if name not in touched}
        assert {vm["status"] for vm in record["vms"]} == {"running"}
        assert planned(made, after).actions == ()
        assert not differing(made), "the hosts are as the records say"


# ── a file that a person wrote ──────────────────────────────────────────────────────────────────────────


def test_what_is_as_the_file_says_leaves_it_as_it_is(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    apply(made, read(LAB))
    assert writing.updated(LAB, exported(made), "lab.cloud.yml") == LAB


def test_comments_survive_an_export_onto_their_file(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    apply(made, read(LAB))
    vms = {vm["name"]: vm["vm_id"] for vm in made.record()["vms"]}
    made.ok("remove_link", "admin", SLICE, 1)
    made.ok("add_vm_to_slice", "admin", SLICE, "extra", "cirros", 2)
    made.ok("set_restart_policy", "admin", SLICE, vms["host"], "never")
    made.ok("create_link", "admin", SLICE, vms["r1"], "eth2", vms["host"], "eth3", vlans="allowed")
    text = writing.updated(LAB, exported(made), "lab.cloud.yml")
    for comment in ("# the lab of week 3", "# as in the syllabus", "# the one that students log in to", "# for apt"):
        assert comment in text
    assert "r[1-2]: {flavor: cirros}" in text and "restart: never" in text and "extra:" in text
    assert "the access network" in text and "r1:eth2 -- host:eth3" in text and "backbone" not in text
    assert planned(made, read(text)).actions == ()
    made.ok("remove_vm", "admin", SLICE, vms["r2"])
    text = writing.updated(text, exported(made), "lab.cloud.yml")
    assert "r[1-2]" not in text and "r1:" in text and "# for apt" in text and "# the one that students" in text
    assert planned(made, read(text)).actions == ()


def test_a_shape_is_written_out_where_a_link_of_it_is_gone(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    ring = "version: 1\nname: ring\nshape: ring\nsize: 4   # small\nnodes:\n  x:\nlinks:\n- x -- vm1\n"
    apply(made, read(ring))
    assert made.record()["topology_type"] == "ring"
    assert writing.updated(ring, exported(made), "x") == ring
    made.ok("remove_link", "admin", SLICE, 2)
    text = writing.updated(ring, exported(made), "x")
    assert "size" not in text and "vm4:" in text and "x -- vm1" in text and "type: ring" in text
    assert planned(made, read(text)).actions == ()


# ── the commands ────────────────────────────────────────────────────────────────────────────────────────


def test_plan_apply_and_export(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.cloud.yml").write_text(LAB)
    assert run("topology", "plan", "lab.cloud.yml") == 2
    out = capsys.readouterr().out
    assert "week 3: 6 changes of a new slice." in out and "+ link r2:eth2 -- host:eth1" in out
    assert run("topology", "apply", "lab.cloud.yml", "--dry-run", "--json") == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["slice_id"], found["differences"], found["actions"][0]) == (
        *(None, 6, {"action": "create_slice", "text": "create the slice week 3"}),
    )
    assert run("topology", "apply", "lab.cloud.yml", "--deploy", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["done"], found["status"]) == (True, 6, "running")
    slice_id = str(found["slice_id"])
    assert run("topology", "plan", "lab.cloud.yml") == 0
    assert "is as the file says" in capsys.readouterr().out
    assert run("topology", "apply", "lab.cloud.yml") == 0
    assert run("topology", "export", slice_id, "-o", "new.cloud.yml") == 0
    assert run("topology", "plan", "new.cloud.yml", "--slice", slice_id) == 0
    assert run("topology", "export", slice_id, "--pin") == 0
    assert "worker: 10.0.10." in capsys.readouterr().out
    Path("lab.cloud.yml").write_text(
        LAB.replace("  r[1-2]", "  r2").replace("  - r1:eth1 -- r2:eth1", "  - r2 -- host")
    )
    assert run("topology", "apply", "lab.cloud.yml") == 1, "nobody is there to say yes"
    assert run("topology", "apply", "lab.cloud.yml", "--yes") == 0
    assert run("topology", "plan", "lab.cloud.yml", "--json") == 0
    Path("lab.cloud.yml").write_text(LAB.replace("{flavor: cirros}", "{flavor: cirross, worker: 10.0.10.8}"))
    capsys.readouterr()
    assert run("topology", "apply", "lab.cloud.yml", "--yes", "--json") == 1
    wrong = json.loads(capsys.readouterr().out)["error"]
    assert wrong["code"] == "topology.file" and len(wrong["details"]["mistakes"]) == 2


def test_a_name_of_two_slices_lists_both(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.cloud.yml").write_text(LAB)
    for user in ("admin", "student"):
        installation.ok("create_slice", user, "week 3")
    assert run("topology", "plan", "lab.cloud.yml") == 1
    shown = "".join(capsys.readouterr())
    assert "Several slices are called week 3" in shown
    assert run("topology", "plan", "lab.cloud.yml", "--as", "student") == 2


def test_a_picture_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.cloud.yml").write_text(LAB)
    assert run("topology", "draw", "lab.cloud.yml") == 0
    out = capsys.readouterr().out
    assert "r1" in out and "host" in out and "r2 eth2" in out
    assert run("topology", "draw", "lab.cloud.yml", "-o", "lab.svg") == 0
    assert "<svg" in Path("lab.svg").read_text()
    assert run("topology", "draw", "lab.cloud.yml", "--format", "mermaid", "--json") == 0


def test_a_difference_is_pure_and_needs_no_slice() -> None:
    found = difference(read(LAB), None, default_flavor="cirros")
    assert [action.kind for action in found.actions] == ["create_slice", *["add_vm"] * 3, *["add_link"] * 2]
    assert WORKERS  # the fixture's, which no pin of this file names
