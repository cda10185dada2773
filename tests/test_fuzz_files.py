"""State and settings files of any content, and names of any kind: taken, or refused in a sentence; never worse."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from cloudrepo import image_library, validation
from cloudrepo.errors import CloudError, SettingsError, StateFileError
from cloudrepo.rebuilt import Rebuilt
from cloudrepo.remembrance import remembered
from cloudrepo.settings import Settings
from cloudrepo.state import normalise
from cloudrepo.stores import journal as journals
from database import Database
from fakes.orchestrator import orchestrator
from fuzzing import ODD, changed_json, fuzz, plain_words, texts, values, words
from test_rebuilt import OTHER, a_slice, disk, made
from worlds import WORKER

STATE = """\
users: {admin: {username: admin, password_hash: x, quota_vms: 10, slices: [1000]}}
workers_list: [10.0.10.1]
workers: {10.0.10.1: {ip: 10.0.10.1, max_cores: 4}}
slices:
  1000: {slice_id: 1000, name: lab, owner: admin, status: design, links: [],
    vms: [{vm_id: 1001, name: web, interfaces: []}]}
next_vm_id: 1002
"""
SETTINGS = """\
ssh: {user: ubuntu, port: 22}
quota: {cores: 4, ram_gb: unlimited}
vlan: {reserved: [400, 401]}
monitor: {hook: [a, b]}
flavors: {own: {cores: 1, ram_gb: 1, disk_gb: 2, image: /x.img}}
"""
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
FILES = {
    "a bomb of aliases": BOMB,
    "a bomb where slices are": BOMB.replace("j:", "slices:", 1),
    "a ring": "&a [*a]\n",
    "a ring in a slice": "users: {}\nslices: {1000: &s {slice_id: 1000, vms: [*s]}}\n",
    "a merge of itself": "users: &u {<<: *u}\n",
    "deep": "users: " + "[" * 20_000,
    "deep and closed": "users: " + "[" * 3000 + "]" * 3000,
    "deep mappings": "".join(" " * depth + "a:\n" for depth in range(1000)),
    "deep in a section of ours": "users:\n  a:\n" + "".join("  " * depth + "a:\n" for depth in range(2, 600)) + "...\n",
    "Python": "users: !!python/object/apply:os.system [reboot]\n",
    "a tag of its own": "users: !mine {a: 1}\n",
    "a tag with an escape": "users: !a%1b%5b2J {}\n",
    "no whole number": "next_vm_id: !!int ''\n",
    "no truth": "next_vm_id: !!bool maybe\n",
    "no time": "next_vm_id: !!timestamp soon\n",
    "binary": "users: !!binary aGFsbG8=\n",
    "a set": "users: !!set {a, b}\n",
    "a date": "users: {admin: {username: 2001-01-01}}\n",
    "a huge number": "next_vm_id: " + "9" * 5000 + "\n",
    "a huge number in hex": "next_vm_id: 0x" + "f" * 300 + "\n",
    "infinity": "next_vm_id: .inf\nworkers: {10.0.10.1: {max_cores: .nan}}\n",
    "sexagesimal": "next_vm_id: " + "59:" * 400 + "59\n",
    "two documents": "users: {}\n---\nslices: {}\n",
    "a list": "- 1\n",
    "a list as key": "? [1, 2]\n: 3\n",
    "a mapping as key": "users:\n  ? {a: 1}\n  : 3\n",
    "escapes": 'users: {"\\e[2J": {username: "\\e[2J"}}\n',
    "half a character": 'users: {"\\ud83d": {}}\n',
    "NUL": "users:\n  a\0: 1\n",
    "no text": "a: 1\n# \xff\xfe\x00",
    "tabs": "users:\n\ta: 1\n",
    "nothing": "",
    "one word": "hello",
}


#: Where each is refused in both files, and in which words.
REFUSED = {
    "a bomb of aliases": ("line 6, column 8", "aliases (*e) make it longer by 100,000 values"),
    "a bomb where slices are": ("line 6, column 8", "aliases (*e) make it longer"),
    "a ring": ("line 1, column 5", "the alias *a stands within what it stands for"),
    "a ring in a slice": ("line 2, column 42", "*s stands within"),
    "a merge of itself": ("line 1, column 16", "*u stands within"),
    "deep": ("line 1, column 57", "nested more than 50 levels deep"),
    "deep and closed": ("line 1, column 57", "nested more than 50 levels deep"),
    "deep mappings": ("line 51, column 51", "nested more than 50 levels deep"),
    "deep in a section of ours": ("line 51, column 101", "nested more than 50 levels deep"),
    "Python": ("line 1", "could not determine a constructor for the tag"),
    "a tag with an escape": ("line 1", "!a\\x1b[2J"),
    "a huge number": ("line 1, column 13", "a number of 5000 characters; as a text it needs quotes"),
    "a huge number in hex": ("line 1, column 13", "a number of 1200 bits"),
    "sexagesimal": ("line 1, column 13", "a number of"),
    "no whole number": ("line 1, column 13", "a value does not fit its kind tag:yaml.org,2002:int"),
    "no truth": ("line 1, column 13", "a value does not fit its kind tag:yaml.org,2002:bool"),
    "no time": ("line 1, column 13", "a value does not fit its kind tag:yaml.org,2002:timestamp"),
    "a list as key": ("line 1", "key"),
    "NUL": ("line 2, column 4", "the character '\\x00' is not allowed"),
    "no text": ("line 2", "byte 7 is not UTF-8 text"),
    "tabs": ("line 2, column 1", "cannot start any token"),
}
STRETCH_S = 60.0  # in which a text of this size is read or refused; it takes a thousandth of that


def load(path: Path, content: bytes, kind: Callable[[Path], Any], refusal: type[CloudError]) -> str:
    """Load a file, or meet its refusal: a sentence that can be shown and says what to do. The file stays as it was.

    Returns:
        The refusal, or "".
    """
    path.write_bytes(content)
    begun, said = time.monotonic(), ""
    try:
        kind(path)
    except refusal as error:
        said = str(error)
        assert said.isprintable() and len(said) < 1000 and error.remedy and path.name in said, ascii(said)
        assert path.read_bytes() == content
    assert time.monotonic() - begun < STRETCH_S
    return said


def state(path: Path) -> None:
    """What is taken can also be stored and read again."""
    db = Database(path)
    db.refresh()
    with db.transaction() as data:
        data["placements"] = 1
    db.close()
    assert Database(path).data == db.data


def settings(path: Path) -> None:
    assert isinstance(Settings.load(path.with_name("database.yaml"), {}), Settings)


BOTH = pytest.mark.parametrize(
    ("file", "kind", "refusal"),
    [("database.yaml", state, StateFileError), ("settings.yaml", settings, SettingsError)],
)


@BOTH
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_odd(
    name: str, file: str, kind: Callable[[Path], Any], refusal: type[CloudError], tmp_path: Path
) -> None:
    content = FILES[name].encode("utf-8" if name != "no text" else "latin-1")
    said = load(tmp_path / file, content, kind, refusal)
    if name in REFUSED:
        place, words = REFUSED[name]
        assert place in said and words in said


@BOTH
@pytest.mark.parametrize("what", ["directory", "pipe", "device"])
def test_something_else_in_the_place_of_a_file(
    what: str, file: str, kind: Callable[[Path], Any], refusal: type[CloudError], tmp_path: Path
) -> None:
    path = tmp_path / file
    put(path, what)
    with pytest.raises(refusal) as caught:
        kind(path)
    assert f"cannot be read: it is a {what}, not a file" in str(caught.value) and caught.value.remedy
    assert path.exists() and not path.is_file()


def put(path: Path, what: str) -> None:
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


def test_settings_larger_than_settings_are(tmp_path: Path) -> None:
    said = load(tmp_path / "settings.yaml", b"# x\n" * 300_000, settings, SettingsError)
    assert "larger than 1,048,576 bytes" in said


def test_aliases_are_counted_over_all_sections_of_a_file(tmp_path: Path) -> None:
    """Each section alone is within the bound."""

    def sections(count: int) -> bytes:
        twice = "a: &a [x, x, x, x, x, x, x, x, x], b: &b [{}], c: [{}]".format(
            ", ".join(["*a"] * 9), ", ".join(["*b"] * 90)
        )
        return b"users: {}\n" + "".join(f"note{n}: {{{twice}}}\n" for n in range(count)).encode() + b"...\n"

    assert not load(tmp_path / "database.yaml", sections(5), state, StateFileError)
    said = load(tmp_path / "database.yaml", sections(50), state, StateFileError)
    assert "make it longer by 100,000 values" in said


@st.composite
def edited(draw: st.DrawFn, text: str) -> bytes:
    """A good file, edited badly: a value changed, a line lost, a piece from elsewhere in it."""
    if draw(st.booleans()):
        data = yaml.safe_load(text)
        place = data
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
                place = place[key]
                continue
            place[key] = draw(values)
            break
        try:
            return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
        except (ValueError, yaml.YAMLError, RecursionError):
            pass
    start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    piece = draw(st.one_of(texts, st.sampled_from(["&a ", "*a", "!!x ", "<<: ", "- ", "? ", "{", "[", "|\n", "%"])))
    return (text[:start] + piece + text[end:]).encode("utf-8", "surrogatepass")


@fuzz(80)
@given(content=st.one_of(edited(STATE), st.binary(max_size=80)))
def test_a_state_file_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    load(tmp_path_factory.mktemp("state") / "database.yaml", content, state, StateFileError)


@fuzz(120)
@given(content=st.one_of(edited(SETTINGS), st.binary(max_size=80)))
def test_a_settings_file_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    load(tmp_path_factory.getbasetemp() / "settings.yaml", content, settings, SettingsError)


@fuzz(60)
@given(
    text=words, key=st.sampled_from(["SSH_PORT", "VLAN_RESERVED", "QUOTA_CORES", "FLAVORS", "INTERNET_CIDR", "ACCEL"])
)
def test_a_variable_is_taken_or_refused(text: str, key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        Settings.load(tmp_path_factory.getbasetemp() / "none" / "database.yaml", {f"CLOUDREPO_{key}": text})
    except SettingsError as error:
        assert str(error)


# -- journals ------------------------------------------------------------------------------------------------


def journal_beside(folder: Path) -> tuple[Path, Path]:
    """A state file and a journal that holds a change of it, as a killed process leaves them."""
    path = folder / "database.yaml"
    path.write_text(STATE)
    db = Database(path)
    with db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 20
    shutil.copytree(folder, folder / "killed")
    db.close()
    return folder / "killed" / "database.yaml", folder / "killed" / "database.yaml.journal"


def refused_journal(path: Path) -> str:
    before = path.read_bytes()
    with pytest.raises(StateFileError) as caught:
        Database(path)
    assert path.read_bytes() == before and caught.value.remedy and str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("what", ["directory", "pipe"])
def test_something_else_in_the_place_of_a_journal(what: str, tmp_path: Path) -> None:
    path, journal = journal_beside(tmp_path)
    journal.unlink()
    put(journal, what)
    assert f"database.yaml.journal cannot be read: it is a {what}, not a file" in refused_journal(path)


def test_a_journal_line_of_100_megabytes_is_damage(tmp_path: Path) -> None:
    path, journal = journal_beside(tmp_path)
    with journal.open("ab") as file:
        file.truncate(file.tell() + 100 * 2**20)
        file.write(b"\n")
    assert "line 3" in refused_journal(path) and "its checksum is wrong" in refused_journal(path)


def test_a_journal_line_that_is_nested_deeply_is_damage(tmp_path: Path) -> None:
    path, journal = journal_beside(tmp_path)
    body = b'{"revision":3,"after":2,"put":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    journal.write_bytes(journal.read_bytes() + body + b',"sum":"' + journals._sum(body) + b'"}\n')
    assert "line 3" in refused_journal(path) and "not what was written there" in refused_journal(path)


@pytest.mark.parametrize("key", ["continues", "revision", "said", "installation", "sections"])
def test_a_journal_whose_first_line_has_other_values_is_damage(key: str, tmp_path: Path) -> None:
    path, journal = journal_beside(tmp_path)
    first, rest = journal.read_bytes().split(b"\n", 1)
    words = json.loads(first)
    del words["sum"]
    words[key] = [1]
    journal.write_bytes(journals._line(words) + rest)
    assert "line 1, byte 0: it is not what was written there" in refused_journal(path)


@pytest.mark.parametrize("value", [10**400, json.loads("[" * 60 + "]" * 60)], ids=["long", "deep"])
def test_what_could_not_be_read_again_is_not_stored(value: Any, tmp_path: Path) -> None:
    path, _journal = journal_beside(tmp_path)
    db = Database(path)
    with pytest.raises(StateFileError, match="more than 300 digits, or values are nested more than 48 levels deep"):  # noqa: SIM117
        with db.transaction() as data:
            data["slices"]["1000"]["note"] = value
    db.close()
    assert "note" not in Database(path).data["slices"]["1000"]


# -- names -------------------------------------------------------------------------------------------------

NAMES: dict[str, Callable[[Any], Any]] = {
    "vm": validation.vm_name, "slice": validation.slice_name, "user": validation.username,
    "topology": validation.topology_type, "interface": validation.interface_name, "mac": validation.mac_address,
    "image": image_library.require_name,
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
@fuzz(60)
@given(value=st.one_of(words, values))
def test_a_name_is_plain_or_refused_in_a_short_sentence(kind: str, value: Any) -> None:
    try:
        name = NAMES[kind](value)
    except CloudError as error:
        said = str(error)
        assert len(said) < 400 and said.isprintable(), ascii(said)
        return
    assert plain_words(name) and name.isprintable()
    if kind != "slice":
        assert name.isascii() and not name.startswith("-") and not set(name) & set("/\\ '\"`$;|&<>*?~#,=")


def test_an_odd_name_in_any_call_is_refused_and_reaches_no_host(tmp_path: Path) -> None:
    api = orchestrator(tmp_path)
    executor: Any = api.executor
    slice_id = api.create_slice("admin", "lab")[1]["slice_id"]
    before = len(executor.plans)
    for value in ODD:
        answers = [
            api.create_slice("admin", "x", value or " "),
            api.add_vm_to_slice("admin", slice_id, value, "cirros", 1),
            api.add_vm_to_slice("admin", slice_id, "vm1", value, 1),
            api.create_link("admin", slice_id, 1, value, 2, value),
            api.add_user(None, value, "correct horse"),
            api.set_role(None, "student", value),
            api.set_quota(None, "student", {value: value}),
            api.console_target("admin", value),
            api.set_restart_policy("admin", slice_id, 1, value),
            api.add_image(None, value, value, format=value),
            api.remove_image(None, value),
            api.cleanup_plan(value or " "),
        ]
        refusals = [payload for done, payload in answers if not done]
        assert len(refusals) >= len(answers) - 3, answers  # `True` is a plain word
        assert all(getattr(payload, "code", "") != "internal" for payload in refusals), answers
        assert not [payload[:40] + payload[-80:] for payload in refusals if len(payload) > 1000]
    for _host, plan in executor.plans[before:]:
        assert all(step.act.ACT.startswith("observe") or not plan.steps for step in plan.steps)
    text = (tmp_path / "events.jsonl").read_bytes()
    assert b"\x1b" not in text and b"\0" not in text and all(line.endswith(b"}") for line in text.splitlines())


# -- mark files of a worker that lies ------------------------------------------------------------------------


def marked(change: Callable[[dict[str, Any]], None]) -> Rebuilt:
    """Two VMs of a slice on two hosts; the mark file of the first is changed."""
    record = a_slice()
    lie: dict[str, Any] = json.loads(json.dumps(remembered(record, record["vms"][0])))
    change(lie)
    return made({WORKER: [disk(record, record["vms"][0], record=lie)], OTHER: [disk(record, record["vms"][1])]})


LIES: dict[str, Any] = {
    "name": "\x1b[2J", "owner": "eve; reboot", "cores": 10**9, "ram_gb": "much", "disk_gb": -1, "vnc_port": 70000,
    "flavor": ["x"] * 10000, "interfaces": [{"name": "eth0", "mac": "52:54:00:00:00:01"}] * 5000,
    "image": "a\nb", "restart": "sometimes", "links": [{}] * 100_000,
}  # fmt: skip
HEADS: dict[str, Any] = {
    "name": "\x1b]0;owned\x07", "owner": {"a": 1}, "vlan_pool_start": 5000, "vlan_pool_end": "119", "deployed": "yes",
    "slice_id": 1001, "topology_type": "--x",
}  # fmt: skip


def refused_lie(found: Rebuilt) -> str:
    """The other VM is there, the lie is named in words that can be shown; returns them."""
    assert [vm["vm_id"] for record in found.slices.values() for vm in record["vms"]] == [1002]
    assert all(sentence.isprintable() and len(sentence) < 600 for sentence in found.unknown)
    return next(sentence for sentence in found.unknown if f"VM 1001 on {WORKER}" in sentence)


@pytest.mark.parametrize("key", LIES)
def test_a_mark_file_with_what_no_vm_has_is_named_and_the_rest_is_rebuilt(key: str) -> None:
    assert "what no record of ours has" in refused_lie(marked(lambda lie: lie.update({key: LIES[key]})))


@pytest.mark.parametrize("key", HEADS)
def test_a_mark_file_with_what_no_slice_has_is_named_and_the_rest_is_rebuilt(key: str) -> None:
    assert "what no record of ours has" in refused_lie(marked(lambda lie: lie["slice"].update({key: HEADS[key]})))


def test_hosts_that_disagree_on_the_owner_of_a_slice() -> None:
    def take(lie: dict[str, Any]) -> None:
        lie["owner"] = lie["slice"]["owner"] = "eve"

    found = marked(take)
    assert len(found.slices["1000"]["vms"]) == 1
    assert any("the owner of slice 1000 is ann, and others say eve" in one for one in found.unknown)


@pytest.mark.parametrize("vlan", [101, 400])
def test_a_link_on_another_vlan_than_its_other_end_says_is_left_out(vlan: int) -> None:
    def move(lie: dict[str, Any]) -> None:
        lie["interfaces"][1]["vlan_id"] = vlan
        lie["links"][0]["vlan_id"] = vlan

    found = marked(move)
    record = found.slices["1000"]
    assert record["links"] == []
    assert all(one["vlan_id"] in (None, 400) for vm in record["vms"] for one in vm["interfaces"])
    assert any("link 1 of slice 1000: its" in one or "what no record of ours has" in one for one in found.unknown)


def test_a_nic_on_a_vlan_without_a_link_is_on_none() -> None:
    def listen(lie: dict[str, Any]) -> None:
        lie["interfaces"][0]["vlan_id"] = 777

    assert marked(listen).slices["1000"]["vms"][0]["interfaces"][0]["vlan_id"] is None


def test_a_vlan_that_two_slices_claim_is_of_neither() -> None:
    one, two = a_slice(), a_slice(slice_id=1100, owner="eve")
    two["vms"] = [{**vm, "vm_id": vm["vm_id"] + 100, "owner": "eve"} for vm in two["vms"]]
    two["links"][0] |= {"vm1_id": 1101, "vm2_id": 1102}
    found = made({WORKER: [disk(each, vm) for each in (one, two) for vm in each["vms"]]})
    assert [record["links"] for record in found.slices.values()] == [[], []]
    assert any("whose VLAN 100 is: link 1 of slice 1000, link 1 of slice 1100" in said for said in found.unknown)
    nics = [nic for record in found.slices.values() for vm in record["vms"] for nic in vm["interfaces"]]
    assert all(nic["vlan_id"] is None for nic in nics)


def test_a_vm_that_two_hosts_show_is_taken_once() -> None:
    record = a_slice()
    found = made({WORKER: [disk(record, record["vms"][0])], OTHER: [disk(record, record["vms"][0])]})
    assert len(found.slices["1000"]["vms"]) == 1
    assert any(f"whether VM 1001 on {OTHER} is the true one" in one for one in found.unknown)


def test_an_operation_that_nobody_can_have_counted_to_is_not_believed() -> None:
    found = made({WORKER: []}, operation=2**62)
    assert found.operation == 0 and any(f"the last on {WORKER}" in one for one in found.unknown)


@fuzz(80)
@given(data=st.data())
def test_whatever_a_mark_file_keeps_records_are_made_that_can_be_stored(data: st.DataObject) -> None:
    record = a_slice()
    text = data.draw(changed_json(json.dumps(remembered(record, record["vms"][0]))))
    lie = json.loads(text)
    found = made({
        WORKER: [disk(record, record["vms"][0], record=lie if isinstance(lie, dict) else {})],
        OTHER: [disk(record, record["vms"][1])],
    })  # fmt: skip
    assert 1002 in [vm["vm_id"] for each in found.slices.values() for vm in each["vms"]]
    assert all(sentence.isprintable() and len(sentence) < 1000 for sentence in found.unknown)
    assert normalise({"slices": json.loads(json.dumps(found.slices))})["slices"]
