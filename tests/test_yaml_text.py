"""The state's text read by sections is what the whole text means."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings as hypothesis_settings, strategies as st

from cloudrepo import bounded_yaml, state
from cloudrepo.stores import yaml_text
from cloudrepo.stores.yaml_lines import LineReader, LineWriter, NotOurs, is_list_of_records
from cloudrepo.stores.yaml_text import Renderer
from models import VM, Interface, Link, Slice

INSERTED = [
    *(
        "",
        "# a comment",
        "  # one",
        "note: mine",
        "  ann: {}",
        "  '1000': {}",
        "  1000: {}",
        "...",
        "---",
        "- x",
        "  - x",
    ),
    *(
        "users: {}",
        "users:",
        "slices:",
        "slices: {}",
        "slices: {5: {}}",
        "    name: other",
        "   odd: 1",
        "\tx: 1",
        "'",
        "}",
    ),
    *(
        "text: |",
        "  a: |",
        "   literal",
        "a: &x 1",
        "b: *x",
        "? key",
        'quoted: "one',
        'two"',
        "  <<: {a: 1}",
        "\u2028: 1",
    ),
]


def example() -> dict[str, Any]:
    users = {name: {"username": name, "password_hash": "x", "quota_vms": 9} for name in ("admin", "ann")}
    data = state.fresh(users)
    for slice_id in (1000, 1100):
        vms = [VM(slice_id + 1, "vm1", "ann", "10.0.10.1", interfaces=[Interface("eth0", "52:54:00:00:00:01")])]
        record = Slice(slice_id, "ann", name="é: 'x'", vms=vms, links=[Link(1, 100, 1, "eth1", 2, "eth1")])
        data["slices"][str(slice_id)] = record.to_dict()
    return data


def render(data: dict[str, Any]) -> str:
    prints = {key: state.fingerprint(value) for key, value in state.sections(data).items()}
    return Renderer().render(7, prints, {})[0].decode()


def parse(text: str) -> Any:
    return yaml_text.parse(text.encode())[0]


def outcome(parser: Any, text: str) -> Any:
    try:
        return parser(text)
    except (yaml.YAMLError, ValueError):
        return "damaged"


def test_what_was_rendered_is_read_without_yaml_in_general(monkeypatch: pytest.MonkeyPatch) -> None:
    data = example()
    rendered = render(data)
    general: list[str] = []
    genuine = bounded_yaml.load_flat

    def counted(part: str) -> Any:
        general.append(part)
        return genuine(part)

    for module in (bounded_yaml, yaml_text):
        monkeypatch.setattr(module, "load_flat", counted)
    assert parse(rendered) == {**data, "revision": 7}
    assert general
    assert [part for part in general if " vm_id" in part or "username" in part] == []


def test_sections_stand_where_they_are_said_to_stand() -> None:
    rendered = render(example()).encode()
    found, spans = yaml_text.parse(rendered)
    assert list(spans) == list(state.sections(found))
    begin, end = spans["slices", "1100"]
    assert yaml.safe_load(rendered[begin:end]) == {"1100": found["slices"]["1100"]}
    texts = {key: rendered[begin:end] for key, (begin, end) in spans.items() if key != ("revision", "")}
    prints = {key: state.fingerprint(value) for key, value in state.sections(example()).items()}
    renderer = Renderer()
    assert renderer.render(7, prints, texts)[0] == rendered
    assert renderer.dumped_bytes == 0


@pytest.mark.parametrize("ending", ["", "\n", "# end\n"])
def test_other_layouts_are_read_too(ending: str) -> None:
    whole = "{users: {a: {}}, slices: {}}\n" + ending
    assert parse(whole) == {"users": {"a": {}}, "slices": {}}


ODD = "|no|On|null|~|1|0x1f|1_0|0o7|1e3|1:30|52:54:00:03:10:00|52:54:00:03:e8:00|2026-01-01|=|<<|-|- a|a: b|a #b|a:|'"
ODD += '|"|é|...|---|.5|0.5|+1|*a|&b|x\ny|x\ty|\u2028|%a|@a|10.0.10.1|~/images/a_img.qcow2|a b|{a}|[b]|!c|>|?'
WORDS = st.sampled_from(ODD.split("|"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["name", "vms", "note", "y"]), VALUES, min_size=1, max_size=3))
@hypothesis_settings(max_examples=200)
def test_lines_are_written_and_read_as_yaml_in_general_does(value: dict[str, Any]) -> None:
    whole = {"slices": {"1000": value}}
    ordered = sorted(value.items(), key=lambda item: is_list_of_records(item[1]))
    general = yaml_text._dump({"slices": {"1000": dict(ordered)}}, 2)
    try:
        written = LineWriter(lambda part: yaml_text._dump(part, 0)).mapping(value)
    except NotOurs:
        written = general
    assert written == general
    try:
        found = LineReader(bounded_yaml.load).mapping(general.split("\n")[:-1])
    except NotOurs:
        return
    assert state.fingerprint(found) == state.fingerprint(
        bounded_yaml.load("slices:\n  '1000':\n" + general)["slices"]["1000"]
    )
    assert bounded_yaml.load(f"slices:\n  '1000':\n{written}") == whole


@given(st.integers(0, 2**32))
@hypothesis_settings(max_examples=2000)
def test_however_it_is_edited_it_means_the_same(seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311
    lines = render(example()).split("\n")
    for _ in range(choose.randint(1, 3)):
        at = choose.randrange(len(lines))
        kind = choose.choice(["insert", "delete", "copy", "indent", "cut"])
        if kind == "insert":
            lines.insert(at, choose.choice(INSERTED))
        elif kind == "copy":
            lines.insert(choose.randrange(len(lines)), lines[at])
        elif kind == "indent":
            lines[at] = choose.choice([" ", "  "]) + lines[at] if choose.random() < 0.5 else lines[at][2:]
        elif kind == "cut":
            lines[at] = lines[at][: len(lines[at]) // 2]
        elif len(lines) > 1:
            del lines[at]
    edited = "\n".join(lines)
    wanted = outcome(bounded_yaml.load, edited)
    found = outcome(parse, edited)
    for collection in state.COLLECTIONS:  # `users:` with nothing below is an empty collection either way
        for value in (wanted, found):
            if isinstance(value, dict) and collection in value and value[collection] is None:
                value[collection] = {}
    assert found == wanted
