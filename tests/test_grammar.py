"""The helper's grammar: every act that is made anywhere in the product is in it, and a changed word takes it out."""

from __future__ import annotations

import ast
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import limit_acts, plan as acts, wire_acts
from cloudrepo.commands import bridging, openflow
from cloudrepo.host.grammar import WORDS
from cloudrepo.host.judge import NotAllowed, judge_plan, judge_step
from cloudrepo.plan import Plan, Step
from every_plan import BASE, disk_images, looks, network_and_machines, use_cases
from fakes.bounds import as_sent, bounds_for
from test_architecture import CHECKOUT, sources
from worlds import OURS

ACT_MODULES = ("cloudrepo.plan", "cloudrepo.wire_acts", "cloudrepo.limit_acts")
KINDS = {
    name: kind
    for name, kind in (vars(acts) | vars(wire_acts) | vars(limit_acts)).items()
    if isinstance(kind, type) and issubclass(kind, acts.Act)
}
BOUNDS = bounds_for(OURS)


def act_sites() -> set[tuple[str, int]]:
    """Every place in the product where an act is made."""
    found = set()
    for file in sources():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in ACT_MODULES
            for alias in node.names
            if alias.name in KINDS
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                found.add((str(file.relative_to(CHECKOUT)), node.lineno))
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Plan], set[tuple[str, int]]]:
    """All plans, and where their acts were made."""
    made: set[tuple[str, int]] = set()
    genuine = {kind: kind.__init__ for kind in KINDS.values()}

    def recording(kind: type[acts.Act]) -> Any:
        @functools.wraps(genuine[kind])
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            frame = sys._getframe(1)
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(CHECKOUT):
                made.add((str(path.relative_to(CHECKOUT)), frame.f_lineno))
            genuine[kind](self, *args, **kwargs)

        return init

    for kind in KINDS.values():
        kind.__init__ = recording(kind)  # type: ignore[method-assign]
    try:
        plans = [*network_and_machines(), *looks(), *disk_images(), *use_cases(tmp_path_factory.mktemp("grammar"))]
    finally:
        for kind, init in genuine.items():
            kind.__init__ = init  # type: ignore[method-assign]
    return plans, made


def test_every_place_where_an_act_is_made_is_tried(corpus: tuple[list[Plan], set[tuple[str, int]]]) -> None:
    """Else an act could be made that no hardened host takes; add it to one of the collections in every_plan.py."""
    assert sorted(act_sites() - corpus[1]) == []


def test_every_plan_is_within_the_grammar(corpus: tuple[list[Plan], set[tuple[str, int]]]) -> None:
    refused = []
    for plan in corpus[0]:
        try:
            judge_plan(as_sent(plan), BOUNDS)
        except NotAllowed as error:
            refused.append(str(error))
    assert refused == []


# ── and nothing else ────────────────────────────────────────────────────────────────────────────────────


def steps_of(plans: list[Plan]) -> Iterator[dict[str, Any]]:
    """Every different step, as a host reads it."""
    seen = set()
    for plan in plans:
        sent = as_sent(plan)
        for step in [*(one for stage in sent["stages"] for one in stage["steps"]), *sent["observe"]]:
            key = json.dumps({name: step[name] for name in sorted(step) if name not in ("name", "label")})
            if key not in seen:
                seen.add(key)
                yield step


#: What is done to a word so that it means something else to a tool, a shell or a file system.
TWISTS: dict[str, Callable[[str], str]] = {
    "line break": lambda word: word + "\n",
    "second line": lambda word: word + "\nlink delete dev mgmt",
    "end of text": lambda word: word + "\0",
    "upwards": lambda word: word + "/../../etc/passwd",
    "shell": lambda word: word + ";id",
    "comma": lambda word: word + ",script=/tmp/x",
    "blank": lambda word: word + " --modprobe=/tmp/x",
    "option": lambda word: "--modprobe=" + word,
    "before": lambda word: "/tmp/x" + word,
    "another alphabet": lambda word: word + "\uff11",
}


def words_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every text in a value, with the way to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from words_in(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from words_in(item, (*path, index))


def changed(step: dict[str, Any], path: tuple[Any, ...], text: str) -> dict[str, Any]:
    """The step with another text at that place."""
    twin: dict[str, Any] = json.loads(json.dumps(step))
    place: Any = twin
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = text
    return twin


def is_allowed(step: dict[str, Any]) -> bool:
    try:
        judge_step(step, BOUNDS)
    except NotAllowed:
        return False
    return True


#: A text of which only some words are looked at: what a person may read in the records.
FREE = ("name", "label")


def test_a_changed_word_is_refused(corpus: tuple[list[Plan], set[tuple[str, int]]]) -> None:
    let_through = []
    for step in steps_of(corpus[0]):
        for way, word in words_in({key: value for key, value in step.items() if key not in FREE}):
            for twist, change in TWISTS.items():
                is_binary = way == ("stdin",) and step["words"][0] == "python3"
                if (twist == "line break" and word.startswith("{\n")) or (is_binary and twist == "before"):
                    continue  # JSON, which may end with an empty line; and base64, in which words mean nothing
                if is_allowed(changed(step, way, change(word))):
                    let_through.append((step["act"], way, twist, change(word)))
    assert let_through == []


def test_a_word_more_or_less_is_refused(corpus: tuple[list[Plan], set[tuple[str, int]]]) -> None:
    """In commands; one of a list of paths or switches, or of a machine's options, may be missing."""
    let_through = []
    for step in steps_of(corpus[0]):
        given = step.get("words")
        if not given or step["act"] == "namespaces":
            continue
        for at in range(len(given) + 1):
            for more in ("-x", "--help", "x", "", "/etc/shadow", "--", "root"):
                if is_allowed({**step, "words": [*given[:at], more, *given[at:]]}):
                    let_through.append((given, at, more))
        listing = given[0] in ("df", "sysctl", "qemu-system-x86_64", "ovs-vsctl") or given[-1].startswith("metadata=")
        for at in range(len(given)):
            if is_allowed({**step, "words": [*given[:at], *given[at + 1 :]]}) and not listing:
                let_through.append((given, at, "less"))
    assert let_through == []


def test_a_step_as_another_account_or_with_another_field_is_refused(
    corpus: tuple[list[Plan], set[tuple[str, int]]],
) -> None:
    let_through = []
    for step in steps_of(corpus[0]):
        twins = [
            {**step, "more": "x"},
            {**step, "act": "exec"},
            *({k: v for k, v in step.items() if k != key} for key in step if key != "ok"),
        ]
        twins += [{**step, "user": user} for user in ("root", "nobody", "ubuntu\n", "#0") if "user" in step]
        if step.get("user") == "" and "stdin" in step:
            twins.append({**step, "user": "ubuntu"})
        twins += [{**step, "mode": mode} for mode in (0o4755, 0o777, "0600", True) if "mode" in step]
        let_through += [twin for twin in twins if is_allowed(twin)]
    assert let_through == []


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"PATH": "/tmp"}},
        {"installation": "feedface"},
        {"fence_dir": "/root", "operation": 1},
        {"fence_dir": f"{BASE}/.cloudrepo-feedface"},
        {"operation": -1},
        {"operation": True},
        {"operation": "1"},
        {"scopes": ["../x"]},
        {"scopes": [7]},
        {"seen": {"a b": 1}},
        {"lease_s": 1e9},
        {"lock_wait_s": "1"},
        {"more": 1},
    ],
)
def test_a_plan_with_other_bounds_is_refused(change: dict[str, Any]) -> None:
    plan = as_sent(Plan(installation=OURS))
    judge_plan(plan, BOUNDS)
    with pytest.raises(NotAllowed):
        judge_plan({**plan, **change}, BOUNDS)


@pytest.mark.parametrize(
    "change",
    [
        ("81000064", "81000063"),  # a VLAN that is none of ours
        ("81000064", "8100e064"),  # with a priority
        ("88b5", "0806"),
        ("ffffffffffff", "0180c2000000"),  # a bridge's own
        ("ffffffffffff", "52540000000a"),
        ("63825363350101", "63825363350103"),  # DHCPREQUEST
        ("00440043", "00430044"),  # a server's answer
    ],
)
def test_a_tagged_frame_of_another_kind_is_refused(
    corpus: tuple[list[Plan], set[tuple[str, int]]], change: tuple[str, str]
) -> None:
    tried = 0
    for step in steps_of(corpus[0]):
        for at, (space, device, frame) in enumerate(step.get("frames", ()) if step["act"] == "emit" else ()):
            if frame[24:28] == "8100" and change[0] in frame:
                twin = changed(step, ("frames", at), "")
                twin["frames"][at] = [space, device, frame.replace(*change, 1)]
                assert not is_allowed(twin), frame
                tried += 1
    assert tried


@pytest.mark.parametrize(
    "line",
    [
        "add cookie=0x{other}00000001,priority=1,in_port=tap_1_eth1,actions=drop",
        "delete cookie=0x{other}00000001/-1",
        "delete cookie=0x{ours}00000001/0",
        "delete",
        "add cookie=0x{ours}00000001,priority=1,actions=drop",
        "add cookie=0x{ours}00000001,priority=1,ip,actions=drop",
        "add cookie=0x{ours}00000001,priority=1,in_port=trunk0,actions=drop",
        "add cookie=0x{ours}00000001,priority=1,in_port=trunk0,dl_vlan=99,actions=drop",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,in_port=tap_2_eth1,actions=drop",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=controller",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=output:1",
        "add cookie=0x{ours}00000001,priority=1,metadata=0x{ours}00000001,actions=NORMAL",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=meter:258,NORMAL",  # of eth2
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=meter:1,NORMAL",
        # to a port of others without a tag, which is the network that the host itself is in
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=output:eth1",
        "add cookie=0x{ours}00000001,priority=1,in_port=eth1,dl_vlan=100,actions=pop_vlan,output:eth2",
        "add cookie=0x{ours}00000001,priority=1,in_port=eth1,dl_vlan=100,actions=pop_vlan,NORMAL",
        # with a tag that is none of ours
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=push_vlan:0x8100,output:eth1",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=set_field:4196->vlan_vid,output:eth1",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,"
        "actions=push_vlan:0x8100,set_field:4195->vlan_vid,output:eth1",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,"
        "actions=push_vlan:0x8100,set_field:4196->vlan_vid,NORMAL",
        # for which a switch shuts the port
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,"
        "actions=push_vlan:0x8100,set_field:4196->vlan_vid,load:0x180c200000->NXM_OF_ETH_DST[4..47],output:eth1",
        "add table=1,cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=drop",
        "add cookie=0x{ours}00000001,priority=1,in_port=tap_1_eth1,actions=drop # x",
        "",
    ],
)
def test_a_flow_that_is_about_others_is_refused(line: str) -> None:
    def step(text: str) -> dict[str, Any]:
        act = acts.Run(words=openflow.change("br-int"), stdin=text)
        return dict(json.loads(json.dumps(Step(name="f", label="f", act=act).to_json())))

    good = f"add cookie=0x{OURS}00000001,priority=1,in_port=tap_1_eth1,actions=drop\n"
    assert is_allowed(step(good))
    assert not is_allowed(step(good + line.format(ours=OURS, other="feedface") + "\n"))


@pytest.mark.parametrize(
    "direction",
    [
        "in_port=eth1,dl_vlan=100,actions=drop",
        "in_port=tap_1_eth1,actions=push_vlan:0x8100,set_field:4196->vlan_vid,output:eth1",
        "in_port=eth1,dl_vlan=100,actions=output:eth3,pop_vlan,output:tap_1_eth1",
    ],
)
def test_the_way_to_the_other_hosts_is_another_card_than_the_one_to_the_internet(direction: str) -> None:
    text = f"add cookie=0x{OURS}00000001,priority=1,{direction}\n"
    step = Step(name="f", label="f", act=acts.Run(words=openflow.change("br-int"), stdin=text)).to_json()
    assert judge_step(json.loads(json.dumps(step)), bounds_for(OURS, uplink="eth2")) is not None


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (bridging.join("br-int", "eth0"), ""),  # it was none when the host was prepared
        (bridging.join("br-else", "eth1"), ""),
        (bridging.make_bridge("br-else", "system"), ""),
        (("ip", "-batch", "-"), bridging.mtu("eth1", 68)),
        (("ip", "-batch", "-"), "link set dev eth1 down\n"),
        (("ip", "-batch", "-"), bridging.up("tap_1_eth1").replace("up", "mtu 1500")),
    ],
)
def test_what_is_the_administrators_is_refused(words: tuple[str, ...], stdin: str) -> None:
    step = Step(name="fix", label="fix", act=acts.Run(words=words, stdin=stdin)).to_json()
    assert not is_allowed(json.loads(json.dumps(step)))


def test_nothing_joins_the_bridge_where_no_uplink_was_known() -> None:
    step = json.loads(
        json.dumps(Step(name="f", label="f", act=acts.Run(words=bridging.join("br-int", "eth1"))).to_json())
    )
    judge_step(step, bounds_for(OURS, trunks=["eth1"]))
    for bounds in (bounds_for(OURS, trunks=[]), bounds_for(OURS, trunks=["eth2"])):
        with pytest.raises(NotAllowed):
            judge_step(step, bounds)


@pytest.mark.parametrize(
    ("space", "named"),
    [("", []), ("ns-dhcp-vlan100", []), ("rogue", [("astray", "rogue0")]), ("../x", None), (".x", None), ("a b", None)],
)
def test_a_namespace_of_others_is_listened_in_at_named_devices_only(space: str, named: Any) -> None:
    step = {"name": "n", "label": "l", **wire_acts.Listen(places={space: ("rogue0",)}, run="ab" * 8).to_json()}
    if named is None:
        assert not is_allowed(step)
    else:
        assert [one for one in judge_step(step, BOUNDS) if one[0] == "astray"] == named


def test_every_word_of_the_tables_is_used_and_known() -> None:
    from cloudrepo.host import grammar, texts

    text = Path(grammar.__file__).read_text(encoding="utf-8").partition("PLAIN_ACTS")[2]
    text += Path(texts.__file__).read_text(encoding="utf-8")
    used = {piece.partition(">")[0] for piece in text.split("<")[1:] if ">" in piece}
    assert {name for name in WORDS if name not in used} == set()
