from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudrepo.errors import StateFileError
from cloudrepo.stores import files
from cloudrepo.stores.journaled import JournaledStore
from database import Database
from models import VM, Interface, Link, Slice

SHIPPED = Path(__file__).parent.parent / "database.yaml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.yaml"


def a_slice(slice_id: int = 1000, names: tuple[str, ...] = ("vm1", "vm2")) -> dict[str, Any]:
    vms = [
        VM(slice_id + n, name, "admin", "10.0.10.1", interfaces=[Interface("eth0", f"52:54:00:00:00:{n:02x}")])
        for n, name in enumerate(names, 1)
    ]
    links = [Link(1, 100, slice_id + 1, "eth0", slice_id + 2, "eth0")] if len(vms) > 1 else []
    return Slice(slice_id, "admin", vms=vms, links=links).to_dict()


def raw(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def folded(db: Database) -> Any:
    """What is in the file after the journal was brought into it."""
    db.save()
    return raw(db.path)


# ---------------------------------------------------------------------------------------- the file


def test_a_missing_file_is_made_with_the_documented_content(path: Path) -> None:
    db = Database(path)
    found = raw(path)
    assert list(found["users"]) == ["admin", "student"]
    assert [user["quota_vms"] for user in found["users"].values()] == [10, 6]
    assert found["workers"] == {}
    assert found["workers_list"] == ["10.0.10.1", "10.0.10.2", "10.0.10.3"]
    assert found["slices"] == {}
    assert (found["next_vm_id"], found["next_vlan_id"]) == (1000, 100)
    assert found["installation"] == db.installation
    assert len(db.installation) == 8
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["database.yaml"]


def test_the_default_is_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Database()
    assert (tmp_path / "database.yaml").exists()


def test_the_shipped_file_is_the_documented_one_and_only_read(path: Path) -> None:
    shutil.copy(SHIPPED, path)
    db = Database(path)
    assert path.read_bytes() == SHIPPED.read_bytes()
    shipped = raw(SHIPPED)
    assert set(shipped) == {"users", "workers", "workers_list", "slices", "next_vm_id", "next_vlan_id"}
    for name in ("admin", "student"):
        assert shipped["users"][name]["password_hash"] == hashlib.sha256(name.encode()).hexdigest()
    assert "installation" not in db.data
    db.save()
    assert path.read_bytes() == SHIPPED.read_bytes()  # nothing was changed, nothing is written


def test_the_first_write_keeps_a_backup_and_later_ones_leave_it(path: Path) -> None:
    shutil.copy(SHIPPED, path)
    db = Database(path)
    db.update_slice(1000, a_slice())
    db.update_slice(1100, a_slice(1100))
    backup = path.with_name("database.yaml.backup")
    assert folded(db)["installation"] == db.installation
    assert backup.read_bytes() == SHIPPED.read_bytes()
    assert backup.stat().st_mode & 0o777 == 0o600


def test_the_documented_recovery(path: Path) -> None:
    shutil.copy(SHIPPED, path)
    db = Database(path)
    db.update_slice(1000, a_slice())
    db.close()
    assert "1000" in Database(path).data["slices"]
    shutil.copy(path.with_name("database.yaml.backup"), path)
    assert Database(path).data["slices"] == {}


def test_what_was_written_is_what_is_loaded(path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    with db.transaction() as data:
        data["slices"]["1000"]["name"] = "Práctica: 'x' # no comment\u2028\n- y"
        data["workers"]["10.0.10.1"] = {"ip": "10.0.10.1", "max_cores": 2}
        data["users"]["on"] = {"username": "on", "password_hash": "", "quota_vms": 1}
        data["slices"]["1000"]["notes"] = [{"2026-01-01": None}, {"a": [[], {}, 0.1, "52:54:00"]}]
    assert Database(path).data == db.data


def test_a_change_of_one_vm_changes_only_its_lines(path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    db.update_slice(1001, a_slice(1001, ("x",)))
    db.save()
    before = path.read_text().splitlines()
    with db.transaction() as data:
        data["slices"]["1000"]["vms"][1]["status"] = "running"
    db.save()
    after = path.read_text().splitlines()
    assert [(old, new) for old, new in zip(before, after, strict=True) if old != new] == [
        ("revision: 3", "revision: 4"),
        ("      status: design", "      status: running"),
    ]


def test_only_the_slice_that_changed_is_dumped_again(path: Path) -> None:
    db = Database(path)
    for slice_id in (1000, 1100, 1200):
        db.update_slice(slice_id, a_slice(slice_id))
    db.save()
    assert isinstance(db.store, JournaledStore)
    for opened in (db, Database(path)):  # who wrote the file, and who read it
        with opened.transaction() as data:
            data["slices"]["1100"]["vms"][0]["pid"] = 42 if opened is db else 43
        opened.save()
        assert isinstance(opened.store, JournaledStore)
        text = path.read_bytes()
        begin, end = (text.index(f"  '{number}':".encode()) for number in (1100, 1200))
        assert opened.store.renderer.dumped_bytes == end - begin


def test_shared_values_are_written_out_in_full(path: Path) -> None:
    db = Database(path)
    config = {"ip": "10.60.7.101"}
    with db.transaction() as data:
        data["shared"] = [config, config]
    assert folded(db)["shared"] == [config, config]
    assert "&id" not in path.read_text()


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    Database(tmp_path / "real.yaml")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real.yaml")
    db = Database(tmp_path / "link.yaml")
    db.update_slice(1000, a_slice())
    assert (tmp_path / "real.yaml.journal").exists()
    db.close()
    assert (tmp_path / "link.yaml").is_symlink()
    assert "1000" in raw(tmp_path / "real.yaml")["slices"]


# ---------------------------------------------------------------------------------------- transactions


def test_a_block_that_raises_changes_nothing(path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    db.update_slice(1001, a_slice(1001))
    content, memory, users = path.read_bytes(), db.data, Database(path).data
    with pytest.raises(RuntimeError, match="no"), db.transaction() as data:
        data["slices"]["1000"]["vms"].clear()
        del data["slices"]["1001"]
        data["slices"]["1002"] = a_slice(1002)
        data["next_vm_id"] = 5
        data["added"] = 1
        del data["workers_list"]
        data["users"] = {}
        raise RuntimeError("no")
    assert path.read_bytes() == content
    assert db.data is memory
    assert db.data == users
    assert list(db.data["slices"]) == ["1000", "1001"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("slices"),
        lambda data: data.update(slices=None),
        lambda data: data["slices"].update({"1000": None}),
        lambda data: data["slices"]["1000"].update(made=threading.Lock()),
        lambda data: data["slices"]["1000"].update(status=None),
        lambda data: data["slices"].update({1000: {}}),
        lambda data: data.update(next_vm_id="soon"),
        lambda data: data.pop("next_vm_id"),
    ],
)
def test_a_block_that_leaves_no_state_is_refused(path: Path, damage: Any) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    content, before = path.read_bytes(), Database(path).data
    with pytest.raises(StateFileError), db.transaction() as data:
        damage(data)
    assert path.read_bytes() == content
    assert db.data == before


def test_a_transaction_within_one_is_part_of_it(path: Path) -> None:
    db = Database(path)
    with db.transaction() as outer:
        outer["next_vm_id"] = 2000
        with db.transaction() as inner:
            inner["next_vm_id"] = 3000
        assert Database(path).data["next_vm_id"] == 1000
        with pytest.raises(RuntimeError), db.transaction() as inner:
            inner["next_vm_id"] = 4000
            raise RuntimeError
        assert outer["next_vm_id"] == 3000
    assert folded(db)["next_vm_id"] == 3000


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_write_that_fails_changes_nothing(path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(path)
    content, before = path.read_bytes(), Database(path).data
    genuine = os.open

    def full(*args: Any, **kwargs: Any) -> Any:
        if call == "open" and args[1] & os.O_CREAT == 0:
            return genuine(*args, **kwargs)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(StateFileError, match="cannot be written: No space left"):
            db.update_slice(1000, a_slice())
    assert path.read_bytes() == content
    assert db.data == before
    assert {entry.name for entry in path.parent.iterdir()} <= {"database.yaml", "database.yaml.backup"}
    db.update_slice(1000, a_slice())
    assert "1000" in folded(db)["slices"]


def test_update_slice_keeps_a_copy_and_derives_the_rest(path: Path) -> None:
    db = Database(path)
    record = a_slice()
    with db.transaction() as data:
        data["workers"]["10.0.10.1"] = {"max_cores": 2, "max_ram_gb": 1, "max_disk_gb": 500}
    db.update_slice(1000, record)
    record["status"] = "changed"
    assert db.data["slices"]["1000"]["status"] == "design"
    assert db.data["users"]["admin"]["used_vms"] == 2
    assert db.data["users"]["admin"]["slices"] == [1000]
    worker = db.data["workers"]["10.0.10.1"]
    assert (worker["used_cores"], worker["used_ram_gb"], worker["used_disk_gb"]) == (2, 1.0, 2)
    with db.transaction() as data:
        del data["slices"]["1000"]
    assert folded(db)["users"]["admin"]["used_vms"] == 0
    assert raw(path)["workers"]["10.0.10.1"]["used_ram_gb"] == 0


def test_reading_gives_copies(path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    for record in (db.get_slice(1000), db.get_slice("1000"), db.list_slices("admin")[0]):
        assert record is not None
        record["vms"].clear()
    assert len(db.data["slices"]["1000"]["vms"]) == 2
    assert db.get_slice(999) is None
    assert db.get_user("nobody") is None
    assert db.get_worker("10.0.10.1") is None
    assert db.list_slices("student") == []
    assert [record["slice_id"] for record in db.list_slices()] == [1000]


def test_threads_lose_no_update(path: Path) -> None:
    db = Database(path)

    def count() -> None:
        for _ in range(10):
            db.next_operation()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folded(db)["operation"] == 80


def test_save_writes_what_was_changed_outside_of_a_transaction(path: Path) -> None:
    db = Database(path)
    db.data["users"]["ann"] = {"username": "ann", "password_hash": "x", "quota_vms": 1}
    db.save()
    assert raw(path)["users"]["ann"]["used_vms"] == 0


def test_a_save_within_a_transaction_writes_nothing_of_it(path: Path) -> None:
    db = Database(path)
    db.next_operation()
    with pytest.raises(RuntimeError), db.transaction() as data:
        data["next_vm_id"] = 2000
        db.save()
        raise RuntimeError
    db.save()
    assert (raw(path)["next_vm_id"], raw(path)["operation"]) == (1000, 1)


def test_an_end_after_a_save_only_removes_the_journal(path: Path) -> None:
    db = Database(path)
    db.next_operation()
    db.save()
    before = path.stat().st_ino
    db.close()
    assert path.stat().st_ino == before
    assert not path.with_name("database.yaml.journal").exists()


def test_nothing_to_fold_writes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(path)
    db.next_operation()
    db.save()

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("a file was touched")

    for call in ("open", "write", "fsync", "replace", "read"):
        monkeypatch.setattr(os, call, refuse)
    db.save()


# ---------------------------------------------------------------------------------------- others at the file


def test_what_another_process_wrote_is_seen_and_kept(path: Path) -> None:
    one, two = Database(path), Database(path)
    one.update_slice(1000, a_slice())
    assert two.get_slice(1000) is not None
    two.update_slice(1100, a_slice(1100))
    one.update_slice(1200, a_slice(1200))
    assert list(folded(two)["slices"]) == ["1000", "1100", "1200"]


def test_a_hand_edit_is_taken_in_and_kept(path: Path) -> None:
    db = Database(path)
    path.write_text(path.read_text().replace("quota_vms: 6", "quota_vms: 7"))
    db.next_operation()
    assert folded(db)["users"]["student"]["quota_vms"] == 7
    assert db.data["users"]["student"]["quota_vms"] == 7


def test_a_hand_edit_and_an_unsaved_change_elsewhere_are_merged(path: Path) -> None:
    db = Database(path)
    db.data["users"]["admin"]["quota_vms"] = 50
    path.write_text(path.read_text().replace("quota_vms: 6", "quota_vms: 7"))
    db.save()
    assert [user["quota_vms"] for user in raw(path)["users"].values()] == [50, 7]


def test_two_changes_of_one_thing_are_refused_by_name(path: Path) -> None:
    db = Database(path)
    db.data["users"]["student"]["quota_vms"] = 50
    edited = path.read_text().replace("quota_vms: 6", "quota_vms: 7")
    path.write_text(edited)
    with pytest.raises(StateFileError, match=r"both changed users\.student"):
        db.save()
    assert path.read_text() == edited


def test_a_file_damaged_meanwhile_is_not_overwritten(path: Path) -> None:
    db = Database(path)
    before = dict(db.data)
    path.write_text("users: [\n")
    with pytest.raises(StateFileError, match="line 2"):
        db.update_slice(1000, a_slice())
    assert path.read_text() == "users: [\n"
    assert db.data == before


def test_a_queue_that_moves_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many processes may take longer than the patience with one of them, as long as they write."""
    db, other = Database(path), Database(path)
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.2)
    held, done = threading.Event(), threading.Event()

    def work() -> None:
        with other.store.exclusive():
            held.set()
            for _ in range(12):
                time.sleep(0.05)
                path.touch()
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert held.wait(30)
    assert db.next_operation() == 1
    assert done.wait(30)
    worker.join()


def test_a_lock_held_by_another_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db, other = Database(path), Database(path)
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    with other.transaction(), pytest.raises(StateFileError, match="locked by another process"):
        db.next_operation()
    assert db.next_operation() == 1
