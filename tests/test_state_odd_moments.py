"""The state at odd moments: what is rare, and must not cost a count, a copy or a way back."""

from __future__ import annotations

import collections
import copy
import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import StateFileError
from cloudrepo.settings import History
from cloudrepo.stores import files
from cloudrepo.stores.files import Owner
from cloudrepo.stores.folding import Fold
from cloudrepo.stores.generations import Generations
from cloudrepo.stores.journaled import JournaledStore
from control import state_files
from database import Database
from state_files import a_slice, journal_of


def test_a_failed_look_by_number_does_not_uncount_a_slice(tmp_path: Path) -> None:
    db = Database(tmp_path / "database.yaml")
    db.update_slice(1000, a_slice())
    with pytest.raises(ValueError, match="no"), db.transaction() as data:
        data["slices"].get(1000)
        raise ValueError("no")
    with db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 11
    assert (db.get_user("admin") or {})["used_vms"] == 2


def test_an_inner_block_that_raises_says_so_beside_a_record_with_gaps(tmp_path: Path) -> None:
    db = Database(tmp_path / "database.yaml")
    with db.transaction() as data:
        data["slices"]["1000"] = {"owner": "admin"}
        with pytest.raises(ValueError, match="no"), db.transaction() as inner:
            inner["slices"]["1000"]["name"] = "x"
            raise ValueError("no")
    assert (db.get_slice(1000) or {})["name"] == ""


def test_a_file_damaged_by_hand_does_not_become_the_backup(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    Database(path).close()
    db = Database(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StateFileError), db.transaction() as data:
        data["operation"] = 4
    assert not path.with_name("database.yaml.backup").exists()


def test_a_journal_without_a_first_line_leaves_the_commands_working(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    Database(path).backup()
    journal_of(path).write_bytes(b"")
    assert not state_files.check(path)["ok"]
    with pytest.raises(StateFileError):
        state_files.export(path, None)
    state_files.restore(path, "backup")
    assert state_files.check(path)["ok"]


def test_two_edits_by_hand_with_a_change_between_them_and_no_fold(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    with db.transaction() as data:
        data["operation"] = 3
    for number, (old, new) in enumerate((("10.0.10.3", "10.0.10.4"), ("10.0.10.4", "10.0.10.5"))):
        path.write_text(path.read_text().replace(f"- {old}\n", f"- {new}\n"))
        with db.transaction() as data:
            data["operation"] = 10 + number
        assert db.data["workers_list"][-1] == new
    db.close()
    assert Database(path).data["operation"] == 11


def test_a_restore_keeps_as_many_generations_as_the_settings_say(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    (tmp_path / "settings.yaml").write_text("history:\n  generations: 40\n")
    Database(path).backup()
    copies = Generations(path, History(generations=40))
    for number in range(30):
        copies.keep(None, path.read_bytes() + f"# {number}\n".encode())
    state_files.restore(path, "backup")
    assert len(copies.list()) == 32  # that of the start, thirty, and what was there


def test_what_a_fold_empties_is_never_the_file_that_a_restore_puts_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process begins to fold when the restored file is written and not yet in its place."""
    path = tmp_path / "database.yaml"
    Database(path).backup()
    genuine, claimed = files.make, list[int]()
    fold = Fold(JournaledStore(path, dict), is_end=False)

    def make(target: Path, content: bytes, owner: Owner | None) -> None:
        genuine(target, content, owner)
        claimed.append(fold._claim() or -1)

    monkeypatch.setattr(files, "make", make)
    state_files.restore(path, "backup")
    try:
        now = path.stat()
        assert claimed and all(
            (os.fstat(one).st_dev, os.fstat(one).st_ino) != (now.st_dev, now.st_ino) for one in claimed
        )
    finally:
        for one in claimed:
            os.close(one)


DAY = datetime.date(2020, 2, 29)
HALVES = ("\udc80", "\ud83d\ude00")


@pytest.mark.parametrize("half", HALVES)
def test_half_a_character_is_refused_before_it_is_acknowledged(tmp_path: Path, half: str) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    db.update_slice(1000, a_slice())
    before = journal_of(path).read_bytes()
    changes: tuple[Callable[[dict[str, Any]], None], ...] = (
        lambda data: data["slices"]["1000"].update(error=half),
        lambda data: data["slices"]["1000"].update({half: 1}),
        lambda data: data["slices"]["1000"]["vms"][0].update(name=half),
        lambda data: data["workers"].update({half: {"ip": "10.0.10.1"}}),
        lambda data: data.update({half: 1}),
        lambda data: data.update(note=half),
    )
    for change in changes:
        with pytest.raises(StateFileError, match="cannot be stored") as found, db.transaction() as data:
            change(data)
        assert str(found.value).isascii()
    assert journal_of(path).read_bytes() == before
    assert "error" not in (db.get_slice(1000) or {})
    db.close()
    Database(path)


@pytest.mark.parametrize(
    ("key", "value"), [("note", "\udc80"), ("workers/10.0.10.1", {"x": ["\udc80"]}), ("\udc80", 1)]
)
def test_half_a_character_is_refused_by_key_too(tmp_path: Path, key: str, value: Any) -> None:
    db = Database(tmp_path / "database.yaml")
    with pytest.raises(StateFileError, match="cannot be stored") as found:
        db.store.put_if(key, value, 0)
    assert str(found.value).isascii()
    assert not db.store.needs_end
    assert db.store.get(key) is None


def test_whole_characters_and_numbers_that_look_like_halves_come_back(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    with db.transaction() as data:
        data["slices"]["1000"] = {"owner": "admin", "error": "\U0001f600 \ud7ff \ufffd", "number": 0xA0ED, "é": 1}
    db.close()
    record = Database(path).get_slice(1000) or {}
    assert (record["error"], record["number"], record["é"]) == ("\U0001f600 \ud7ff \ufffd", 0xA0ED, 1)


def test_the_revision_belongs_to_the_store(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    with pytest.raises(StateFileError, match="revision cannot be stored"), db.transaction() as data:
        data["revision"] = 77
    assert "revision" not in db.data
    with pytest.raises(StateFileError, match="revision cannot be stored"):
        db.store.put_if("revision", 77, 0)
    db.next_operation()
    db.close()
    assert path.read_text().count("revision:") == 1
    assert Database(path).data["operation"] == 1


def test_what_cannot_be_stored_is_said_so_wherever_it_is_met(tmp_path: Path) -> None:
    db = Database(tmp_path / "database.yaml")
    db.update_slice(1000, a_slice())
    before = db.store.revision
    with pytest.raises(StateFileError, match=r"slices\.1000\.when cannot be stored: .*a date needs quotes"):
        db.update_slice(1000, {**a_slice(), "when": DAY})
    with pytest.raises(StateFileError, match=r"slices\.1000\.when cannot be stored"), db.transaction() as data:
        data["slices"]["1000"]["when"] = DAY
        with db.transaction() as inner:
            inner["slices"]["1000"]["name"] = "x"
    assert db.get_slice(1000) == a_slice()
    db.data["note"] = DAY
    with pytest.raises(StateFileError, match="note cannot be stored"):
        db.next_operation()
    del db.data["note"]
    assert db.store.revision == before


def test_what_a_block_took_stays_part_of_the_state_when_a_block_within_raises(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    db.update_slice(1000, a_slice())
    with db.transaction() as data:
        record, workers = data["slices"]["1000"], data["workers_list"]
        first, second = record["vms"]
        mac = second["interfaces"][0]
        record["topology_type"] = "ring"
        with pytest.raises(ValueError, match="no"), db.transaction() as inner:
            touched = inner["slices"]["1000"]
            touched["name"] = "x"
            touched["vms"].reverse()
            touched["vms"].pop()["status"] = "error"
            touched["vms"][0]["interfaces"] = []
            inner["slices"]["1000"] = {**touched, "links": []}
            inner["workers_list"].clear()
            raise ValueError("no")
        assert record == {**a_slice(), "topology_type": "ring"}
        record["error"] = "failed"
        first["pid"], second["pid"], mac["mac"] = 1, 2, "52:54:00:00:00:99"
        workers.append("10.0.10.4")
    db.close()
    found = Database(path)
    kept = found.get_slice(1000) or {}
    assert (kept["error"], kept["topology_type"], kept["name"]) == ("failed", "ring", "s")
    assert [(vm["vm_id"], vm["pid"], vm["status"]) for vm in kept["vms"]] == [(1001, 1, "design"), (1002, 2, "design")]
    assert kept["vms"][1]["interfaces"][0]["mac"] == "52:54:00:00:00:99"
    assert found.data["workers_list"][-2:] == ["10.0.10.3", "10.0.10.4"]


def test_a_record_taken_before_a_failed_block_stays_part_of_the_state(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    db.update_slice(1000, a_slice())
    record = db.data["slices"]["1000"]
    with pytest.raises(ValueError, match="no"), db.transaction() as data:
        data["slices"]["1000"]["name"] = "x"
        del data["slices"]["1000"]["status"]
        raise ValueError("no")
    assert list(record.items()) == list(a_slice().items())
    record["error"] = "failed"
    db.save()
    assert (Database(path).get_slice(1000) or {})["error"] == "failed"


def test_a_key_that_a_failed_block_made_is_gone_after_a_block_within_too(tmp_path: Path) -> None:
    db = Database(tmp_path / "database.yaml")
    with pytest.raises(ValueError, match="no"), db.transaction() as data:
        data["note"] = 1
        db.next_operation()
        raise ValueError("no")
    assert "note" not in db.data
    assert db.data["operation"] == 0


def _given(**records: Any) -> dict[str, Any]:
    return records


def _matched(records: Any) -> Any:
    match records:
        case {**rest}:
            return rest
    return {}


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(dict, id="dict"),
        pytest.param(lambda records: records.copy(), id="copy"),
        pytest.param(copy.copy, id="copy.copy"),
        pytest.param(lambda records: {**records}, id="stars"),
        pytest.param(lambda records: _given(**records), id="named"),
        pytest.param(_matched, id="matched"),
        pytest.param(lambda records: records | {}, id="or"),
        pytest.param(lambda records: {} | records, id="or it"),
        pytest.param(lambda records: collections.OrderedDict(records), id="ordered"),
        pytest.param(lambda records: collections.ChainMap(records), id="chain"),
    ],
)
def test_a_record_changed_by_way_of_a_copy_of_its_collection_is_written(tmp_path: Path, copied: Any) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    db.update_slice(1000, a_slice())
    with db.transaction() as data:
        for record in copied(data["slices"]).values():
            record["error"] = "failed"
    assert (Database(path).get_slice(1000) or {}).get("error") == "failed"
    with pytest.raises(ValueError, match="no"), db.transaction() as data:
        copied(data["slices"])["1000"]["error"] = "other"
        raise ValueError("no")
    assert db.data["slices"]["1000"]["error"] == "failed"


def test_a_copy_put_in_the_place_of_a_collection_is_written(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    with db.transaction() as data:
        data["slices"] = data["slices"] | {"1000": a_slice()}
    with db.transaction() as data:
        data["slices"] = {"1001": a_slice(1001)} | data["slices"]
    assert sorted(Database(path).data["slices"]) == ["1000", "1001"]


@pytest.mark.parametrize("key", ["users/x", "slices/1000", "users/", "/users/x", "/", "", "workers", "note"])
def test_a_key_of_the_file_that_looks_like_a_records_comes_back_as_it_was(tmp_path: Path, key: str) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    if key == "workers":
        key = "workers/10.0.10.1/x"
    with db.transaction() as data:
        data[key] = {"mine": 1}
    for _ in ("from the journal", "from the file"):
        found = Database(path)
        assert found.data[key] == {"mine": 1}
        assert list(found.data["users"]) == list(db.data["users"])
        assert found.data["slices"] == {}
        db.close()
    entries = [entry.key for entry in found.store.list() if entry.value == {"mine": 1}]
    entry = found.store.get(entries[0])
    assert (len(entries), entry and entry.value) == (1, {"mine": 1})
    assert key not in [one.key for one in found.store.list("users/")]


def test_a_user_without_a_name_is_still_one_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    with db.transaction() as data:
        data["users"][""] = {"quota_vms": 3}
    found = Database(path)
    assert found.data == db.data
    assert found.data["users"][""]["quota_vms"] == 3
    for collection in ("users", "slices", "workers"):
        with pytest.raises(StateFileError, match=f"{collection} cannot be stored"):
            db.store.put_if(collection, {"quota_vms": 3}, 0)


def test_keys_of_the_file_that_are_no_text_become_text(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    Database(path).close()
    path.write_text(path.read_text().replace("...\n", "5: five\ntrue: yes\n...\n"))
    db = Database(path)
    with db.transaction() as data:
        data["5"] += "!"
    for _ in ("from the journal", "from the file"):
        found = Database(path).data
        assert (found["5"], found["true"]) == ("five!", True)
        db.close()
    number: Any = 5
    with pytest.raises(StateFileError, match="5 cannot be stored: a key of the state"), db.transaction() as data:
        data[number] = 1
    good = path.read_text()
    for line, words in (
        ("2020-02-29: x", "2020-02-29: a key is a date, which needs quotes"),
        ("5: x", "5: the key 5 is there twice, as text and as something else"),
    ):
        path.write_text(good.replace("...\n", f"{line}\n...\n"))
        with pytest.raises(StateFileError, match=rf"line \d+, {words}"):
            Database(path)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("note: 2020-02-29", "note"),
        ("note: {when: [1, 2020-02-29 10:00:00]}", r"note\.when\.1"),
        ("note: {2020-02-29: 1}", r"note\.2020-02-29"),
    ],
)
def test_a_date_written_into_the_file_is_refused_with_its_place(tmp_path: Path, line: str, place: str) -> None:
    path = tmp_path / "database.yaml"
    db = Database(path)
    db.update_slice(1000, a_slice())
    good = path.read_text()
    path.write_text(good.replace("...\n", f"{line}\n...\n"))
    looks: tuple[Callable[[], Any], ...] = (
        db.refresh,
        db.list_slices,
        lambda: db.get_user("admin"),
        lambda: db.get_slice(1000),
        lambda: db.get_worker("10.0.10.1"),
        db.save,
        db.next_operation,
        lambda: Database(path),
    )
    for look in looks:
        with pytest.raises(StateFileError, match=rf"line \d+, {place}: .*a date needs quotes\)\. Mend it by hand"):
            look()
    path.write_text(good)
    assert db.get_slice(1000) == a_slice()


def test_a_date_that_a_program_put_into_the_state_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    db, other = Database(path), Database(path)
    db.update_slice(1000, a_slice())
    other.refresh()
    other.data["slices"]["1000"]["vms"][0]["when"] = DAY
    other.data["users"]["admin"]["when"] = DAY
    other.data["workers"]["10.0.10.1"] = {"when": DAY}
    looks: tuple[tuple[str, Callable[[], Any]], ...] = (
        (r"slices\.1000\.vms\.0\.when", other.list_slices),
        (r"slices\.1000\.vms\.0\.when", lambda: other.get_slice(1000)),
        (r"users\.admin\.when", lambda: other.get_user("admin")),
        (r"workers\.10\.0\.10\.1\.when", lambda: other.get_worker("10.0.10.1")),
    )
    for place, look in looks:
        with pytest.raises(StateFileError, match=f"^{place} cannot be read: .*a date needs quotes.*start again"):
            look()
    db.update_slice(1000, a_slice(name="t"))
    with pytest.raises(StateFileError, match=r"^slices\.1000\.vms\.0\.when cannot be read"):
        other.refresh()
    assert db.get_slice(1000) == a_slice(name="t")


def test_the_place_of_what_contains_itself_is_said_too(tmp_path: Path) -> None:
    db = Database(tmp_path / "database.yaml")
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(StateFileError, match=r"^note\.0\.0.* cannot be stored"), db.transaction() as data:
        data["note"] = circle
