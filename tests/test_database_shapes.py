"""What a state file may look like, and how one that is none is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from cloudrepo import state
from cloudrepo.errors import StateFileError
from database import Database

SLICE = """
    owner: admin
    vlan_pool_start: 100
    vlan_pool_end: 119
    vms:
    - {vm_id: 1001, name: vm1, worker_ip: 10.0.10.1, interfaces: [{name: eth0, mac: "52:54:00:03:e9:00"}]}
"""


def load(folder: Path, text: str | bytes) -> Database:
    path = folder / "database.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Database(path)


@pytest.mark.parametrize("key", ["1000", "'1000'"])
def test_numbers_and_text_are_the_same_key(tmp_path: Path, key: str) -> None:
    db = load(tmp_path, f"slices:\n  {key}:{SLICE}")
    assert list(db.data["slices"]) == ["1000"]
    record = db.get_slice(1000)
    assert record is not None
    assert record["slice_id"] == 1000


def test_gaps_are_filled(tmp_path: Path) -> None:
    db = load(tmp_path, f"users:\n  admin: {{password_hash: x}}\nslices:\n  1000:{SLICE}")
    assert db.data["workers_list"] == ["10.0.10.1", "10.0.10.2", "10.0.10.3"]
    assert db.data["workers"] == {}
    assert db.data["users"]["admin"] == {
        **{"username": "admin", "password_hash": "x", "quota_vms": 10, "used_vms": 1, "slices": [1000]}
    }
    vm = db.data["slices"]["1000"]["vms"][0]
    assert (vm["owner"], vm["cores"], vm["ram_gb"], vm["status"], vm["pid"]) == ("admin", 1, 0.5, "design", None)
    assert vm["interfaces"][0]["vlan_id"] is None
    assert db.data["next_vm_id"] == 1002  # no id is ever given twice, whatever the counter says


def test_used_figures_are_recomputed(tmp_path: Path) -> None:
    text = f"""
users: {{admin: {{used_vms: 77, slices: [5]}}}}
workers: {{10.0.10.1: {{used_cores: 9}}}}
slices:
  1000:{SLICE}"""
    db = load(tmp_path, text)
    assert (db.data["users"]["admin"]["used_vms"], db.data["users"]["admin"]["slices"]) == (1, [1000])
    assert db.data["workers"]["10.0.10.1"]["used_cores"] == 1


def test_an_owner_is_found_by_the_users_list(tmp_path: Path) -> None:
    db = load(tmp_path, "users: {ann: {slices: [1000]}}\nslices: {'1000': {}}")
    assert db.data["slices"]["1000"]["owner"] == "ann"


def test_empty_and_missing_lists_of_workers_differ(tmp_path: Path) -> None:
    assert load(tmp_path, "users: {}\nworkers_list: []\n").data["workers_list"] == []
    assert load(tmp_path, "users: {}\nworkers_list:\n").data["workers_list"] == []
    assert len(load(tmp_path, "users: {}\n").data["workers_list"]) == 3


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    db = load(tmp_path, "users: {ann: {email: a@b}}\nnote: mine\n")
    db.next_operation()
    again = Database(db.path)
    assert again.data["note"] == "mine"
    assert again.data["users"]["ann"]["email"] == "a@b"


def test_anchors_of_a_hand_written_file_part(tmp_path: Path) -> None:
    db = load(tmp_path, "users:\n  a: &u {password_hash: x, quota_vms: 1, list: &l [1]}\n  b: {<<: *u}\n")
    db.data["users"]["a"]["list"].append(2)
    assert db.data["users"]["b"]["list"] == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("# only a comment\n", ["empty"]),
        ("- a\n- b\n", ["holds a list"]),
        ("42\n", ["holds a number"]),
        ("some text\n", ["holds a text"]),
        ("replicas: 3\nimage: nginx\n", ["none of the keys", "not a state file"]),
        ("users:\n  admin: {\n", ["damaged", "line 3"]),
        ("users:\n\tadmin: x\n", ["damaged", "line 2"]),
        (b"users: \xff\xfe\n", ["damaged", "UTF-8"]),
        (b"\x00\x01\x02", ["damaged"]),
        ("users: {}\nusers: {}\n", ["line 2", "users is there twice"]),
        ("users: {a: {}, a: {}}\n", ["a is there twice"]),
        ("users: !!python/object:os.system {}\n", ["damaged"]),
        ("users: []\n", ["line 1", "mapping is wanted, found a list"]),
        ("users:\n  admin: 5\n", ["line 2, users.admin", "found a number"]),
        ("users:\n  admin:\n    quota_vms: many\n", ["line 3, users.admin.quota_vms", "'many'"]),
        ("users:\n  admin:\n    quota_vms: -1\n", ["line 3"]),
        ("users:\n  admin:\n    username: root\n", ["line 3", "listed as admin but named root"]),
        ("users: {}\nworkers_list: 10.0.10.1\n", ["line 2", "list of addresses"]),
        ("users: {}\nworkers_list:\n- 1\n", ["line 3", "address"]),
        ("workers:\n  w1: {max_cores: two}\n", ["line 2", "max_cores"]),
        ("slices: {x: {}}\n", ["line 1", "under its number"]),
        ("slices: {1000: {}, '1000': {}}\n", ["slice 1000 is there twice"]),
        ("slices:\n  1000:\n    slice_id: 7\n", ["line 3", "listed as 1000 but numbered 7"]),
        ("slices:\n  1000:\n    vlan_pool_start: 100\n", ["belong together"]),
        ("slices:\n  1000:\n    vms:\n    - {name: x}\n", ["line 4", "vm_id"]),
        ("slices:\n  1000:\n    vms:\n    - {vm_id: 1, name: x, pid: a}\n", ["line 4", "pid"]),
        ("slices:\n  1000:\n    name: 2026-01-01\n", ["name: a text is wanted"]),
        ("slices:\n  1000:\n    note: 2026-01-01\n", ["a date needs quotes"]),
        ("slices:\n  1000:\n    links:\n    - {link_id: 1}\n", ["line 4", "vlan_id"]),
        ("users: {}\nnext_vm_id: soon\n", ["line 2", "next_vm_id"]),
        ("users: {}\nschema_version: 2\n...\n", ["line 2", "newer version"]),
        ("users: {}\nschema_version: 1\n", ["was cut"]),
        ("users: {}\ninstallation: 12345678\n", ["line 2", "eight hex digits"]),
        ("users: &a {x: *a}\n", ["line 1, column 15", "*a stands within what it stands for"]),
    ],
)
def test_what_is_no_state_is_refused_and_left_alone(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    with pytest.raises(StateFileError) as caught:
        load(tmp_path, text)
    for word in words:
        assert word in str(caught.value)
    path = tmp_path / "database.yaml"
    assert path.read_bytes() == (text if isinstance(text, bytes) else text.encode())
    assert [entry.name for entry in tmp_path.iterdir()] == ["database.yaml"]
    assert "Mend it by hand" in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_the_backup_is_offered_when_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    (tmp_path / "database.yaml.backup").write_text("users: {}\n")
    with pytest.raises(StateFileError) as caught:
        load(tmp_path, "")
    assert f"cp {path}.backup {path}" in caught.value.remedy


def test_a_file_of_ours_cut_anywhere_is_refused(tmp_path: Path) -> None:
    db = Database(tmp_path / "database.yaml")
    db.next_operation()
    whole = db.path.read_bytes()
    for length in range(len(whole)):
        if length < whole.index(b"\n"):
            continue  # `schema_version` itself is cut: no key of a state file is there
        with pytest.raises(StateFileError):
            load(tmp_path, whole[:length])
    for length in range(whole.index(b"\n")):
        with pytest.raises(StateFileError):
            load(tmp_path, whole[:length])


def test_no_directory_to_write_in(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match="cannot be used"):
        Database(tmp_path / "missing" / "database.yaml")


def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "database.yaml").mkdir()
    with pytest.raises(StateFileError, match="cannot be read"):
        Database(tmp_path / "database.yaml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(state.DOCUMENTED_KEYS), PLAIN))
def test_any_plain_value_is_normalised_or_refused(raw: dict[str, object]) -> None:
    try:
        found = state.normalise(raw)
    except state.ShapeError:
        return
    assert state.normalise(found) == found


@given(PLAIN)
@hypothesis_settings(max_examples=50)
def test_fingerprints_are_equal_exactly_when_values_are(value: object) -> None:
    printed = state.fingerprint(value)
    assert state.restored(printed) == value
    assert state.fingerprint(state.restored(printed)) == printed
