"""A state file and a journal that do not simply belong together: put back, edited, alien, gone; and how one goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import database
from cloudrepo.accounts import is_legacy
from cloudrepo.errors import StateFileError
from cloudrepo.stores import filesystem
from control import state_files
from database import Database
from main import main
from orchestrator_api import build
from state_files import a_slice, in_child, journal_of

SHIPPED = Path(__file__).parent.parent / "database.yaml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.yaml"


def killed(path: Path, *slices: int, save_after: int | None = None) -> None:
    """A process that makes slices and is killed without an end."""

    def work(_tell: Callable[[str], None]) -> None:
        db = Database(path)
        db.backup()
        for number in slices:
            db.update_slice(number, a_slice(number))
            if number == save_after:
                db.save()
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) == ([], False)


def refused(path: Path, words: str) -> StateFileError:
    """Opening is refused in one sentence, and nothing is changed."""
    before = {entry: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()}
    with pytest.raises(StateFileError, match=words) as caught:
        Database(path)
    assert {entry: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()} == before
    assert "\n" not in str(caught.value)
    return caught.value


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_after_a_kill_the_same_file_and_its_journal_are_the_state(path: Path) -> None:
    killed(path, 1000, 1001, 1002, save_after=1001)
    assert list(Database(path).data["slices"]) == ["1000", "1001", "1002"]


def test_the_documented_recovery_after_a_kill_asks_what_is_meant(path: Path) -> None:
    Database(path)
    killed(path, 1000, 1001, save_after=1000)
    shutil.copy(path.with_name("database.yaml.backup"), path)
    error = refused(path, r"database\.yaml is older than its journal: the journal holds 1 changes up to revision 3")
    assert "slices/1001" in str(error)
    assert "./cloud state use yaml" in error.remedy
    assert "./cloud state use journal" in error.remedy


def test_the_documented_recovery_after_an_orderly_end_is_simply_the_state(path: Path) -> None:
    Database(path)
    db = Database(path)
    db.backup()
    db.update_slice(1000, a_slice())
    db.close()
    assert not journal_of(path).exists()
    shutil.copy(path.with_name("database.yaml.backup"), path)
    assert Database(path).data["slices"] == {}


def test_workers_list_edited_after_a_kill_is_merged_with_the_journal(path: Path) -> None:
    killed(path, 1000, 1001, save_after=1000)
    edit(path, "workers_list:\n- 10.0.10.1\n", "workers_list:\n- 10.0.10.9\n# mine\n- 10.0.10.1\n")
    db = Database(path)
    assert db.data["workers_list"][:2] == ["10.0.10.9", "10.0.10.1"]
    assert list(db.data["slices"]) == ["1000", "1001"]
    assert db.data["users"]["admin"]["slices"] == [1000, 1001]
    db.next_operation()
    db.close()
    assert list(yaml.safe_load(path.read_text())["slices"]) == ["1000", "1001"]


def test_a_slice_taken_out_by_hand_and_one_made_in_the_journal_are_merged(path: Path) -> None:
    killed(path, 1000, 1001, 1002, save_after=1001)
    state = yaml.safe_load(path.read_text())
    del state["slices"]["1000"]
    path.write_text(yaml.safe_dump(state, sort_keys=False, explicit_end=True))
    db = Database(path)
    assert list(db.data["slices"]) == ["1001", "1002"]
    assert (db.data["users"]["admin"]["used_vms"], db.data["users"]["admin"]["slices"]) == (4, [1001, 1002])
    assert Database(path).data == db.data


def test_an_edit_of_what_the_journal_changed_is_refused_by_name(path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    db.save()
    with db.transaction() as data:
        data["slices"]["1000"]["status"] = "running"
    edit(path, "    name: s\n", "    name: mine\n")
    error = refused(path, "edited while its journal held changes of the same: both changed slices/1000")
    assert "./cloud state use" in error.remedy


def folded_and_killed(path: Path, *slices: int) -> None:
    """A process that is killed when its fold has put the new YAML in place, and not yet the new journal."""
    db = Database(path)
    for number in slices:
        db.update_slice(number, a_slice(number))

    def dies(_content: bytes) -> None:
        raise KeyboardInterrupt

    db.store.replace_journal = dies  # type: ignore[attr-defined] # the seam between the two renames
    with pytest.raises(KeyboardInterrupt):
        db.save()
    assert len(yaml.safe_load(path.read_text())["slices"]) == len(slices)
    assert len(journal_of(path).read_bytes().splitlines()) == len(slices) + 2


def test_an_edit_of_a_file_whose_fold_was_cut_short_is_merged(path: Path) -> None:
    folded_and_killed(path, 1000, 1001)
    edit(path, "- 10.0.10.1\n", "- 10.0.10.9\n")
    edit(path, "    name: s\n", "    name: mine\n")  # of what the journal made and the file had already
    assert state_files.check(path)["journal"]["relation"] == "edited"
    db = Database(path)
    assert db.data["workers_list"][0] == "10.0.10.9"
    assert [record["name"] for record in db.list_slices()] == ["mine", "mine"]
    assert Database(path).data == db.data
    db.next_operation()
    db.close()
    assert not journal_of(path).exists()
    assert Database(path).data == db.data


def test_an_edit_of_a_file_whose_fold_was_cut_short_and_a_change_after_it(path: Path) -> None:
    folded_and_killed(path, 1000, 1001)
    later = Database(path)
    with later.transaction() as data:
        data["slices"]["1001"]["status"] = "error"
    good = path.read_bytes()
    edit(path, "  '1000':\n    slice_id: 1000\n    name: s\n", "  '1000':\n    slice_id: 1000\n    name: mine\n")
    db = Database(path)
    assert [(one["name"], one["status"]) for one in db.list_slices()] == [("mine", "design"), ("s", "error")]

    del db, later
    journal_of(path).unlink()
    path.unlink()
    folded_and_killed(path, 1000, 1001)
    with Database(path).transaction() as data:
        data["slices"]["1001"]["status"] = "error"
    assert path.read_bytes().split(b"installation")[0] == good.split(b"installation")[0]
    edit(path, "    name: s\n", "    name: mine\n")
    refused(path, "both changed slices/1001")
    state_files.use(path, "journal")
    found = [(one["name"], one["status"]) for one in Database(path).list_slices()]
    assert found == [("mine", "design"), ("s", "error")]


def test_a_layout_of_ones_own_is_no_conflict(path: Path) -> None:
    killed(path, 1000, 1001, save_after=1000)
    path.write_text("# mine\n" + yaml.safe_dump(yaml.safe_load(path.read_text())) + "...\n")
    assert list(Database(path).data["slices"]) == ["1000", "1001"]


def test_a_journal_of_another_installation_is_foreign(path: Path, tmp_path: Path) -> None:
    killed(path, 1000)
    other = tmp_path / "other" / "database.yaml"
    other.parent.mkdir()
    Database(other)
    shutil.copy(journal_of(path), journal_of(other))
    refused(other, "belongs to another installation than the journal beside it")


def test_a_journal_of_another_file_of_the_installation_is_refused(path: Path, tmp_path: Path) -> None:
    db = Database(path)
    copy = tmp_path / "copy.yaml"
    db.next_operation()
    db.close()
    shutil.copy(path, copy)
    killed(path, 1000)
    later = Database(copy)
    later.update_slice(2000, a_slice(2000))
    later.close()
    shutil.copy(journal_of(path), journal_of(copy))
    refused(copy, "is not the file that its journal continues")


def test_a_journal_without_its_file_is_kept(path: Path) -> None:
    killed(path, 1000)
    path.unlink()
    refused(path, "is missing, and there is a journal that continues it")


def test_two_files_of_one_directory_share_the_lock_and_nothing_else(tmp_path: Path) -> None:
    one, two = Database(tmp_path / "one.yaml"), Database(tmp_path / "two.yaml")
    one.update_slice(1000, a_slice())
    two.update_slice(2000, a_slice(2000))
    one.close()
    assert list(Database(tmp_path / "one.yaml").data["slices"]) == ["1000"]
    assert list(Database(tmp_path / "two.yaml").data["slices"]) == ["2000"]


def test_the_file_alone_copied_elsewhere_is_the_whole_state(path: Path, tmp_path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    db.save()
    db.update_slice(1001, a_slice(1001))
    db.close()
    elsewhere = tmp_path / "elsewhere" / "database.yaml"
    elsewhere.parent.mkdir()
    shutil.copy(path, elsewhere)
    assert Database(elsewhere).data == db.data
    assert [entry.name for entry in elsewhere.parent.iterdir()] == ["database.yaml"]


def test_the_documented_file_is_loaded_upgraded_and_its_users_log_in(path: Path) -> None:
    text = SHIPPED.read_text()
    path.write_text(text.replace("slices: {}", "slices:\n  1000:\n    owner: student\n  '1001': {name: x}"))
    api = build(path)
    assert list(api.db.data["slices"]) == ["1000", "1001"]
    assert api.login("student", "student")[0]
    api.db.close()
    upgraded = yaml.safe_load(path.read_text())
    assert not is_legacy(upgraded["users"]["student"]["password_hash"])
    assert is_legacy(upgraded["users"]["admin"]["password_hash"])
    assert (upgraded["schema_version"], list(upgraded["slices"])) == (1, ["1000", "1001"])
    assert build(path).login("student", "student")[0]


# ---------------------------------------------------------------------------------------- what it stands on


def test_a_live_process_takes_in_a_hand_edit_and_goes_on(path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    edit(path, "quota_vms: 6", "quota_vms: 7")
    db.update_slice(1001, a_slice(1001))
    for found in (db, Database(path)):
        assert found.data["users"]["student"]["quota_vms"] == 7
        assert list(found.data["slices"]) == ["1000", "1001"]


def test_files_are_for_their_owner_alone(path: Path) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    journal = journal_of(path)
    assert journal.stat().st_mode & 0o777 == 0o600
    db.save()
    db.backup()
    db.close()
    for file in [entry for entry in path.parent.rglob("*") if entry.is_file()]:
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_root_keeps_the_owner_of_the_file(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    Database(path)
    os.chown(path, 12345, 23456)
    db = Database(path)
    db.update_slice(1000, a_slice())
    assert (journal_of(path).stat().st_uid, journal_of(path).stat().st_gid) == (12345, 23456)
    db.close()
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_file_of_somebody_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    refused(path, "belongs to another account")


@pytest.mark.parametrize(("call", "what"), [("write", "journal"), ("fsync", "journal")])
def test_a_full_disk_loses_nothing(path: Path, call: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(path)
    db.update_slice(1000, a_slice())
    journal = journal_of(path)
    before = journal.read_bytes()
    genuine = getattr(os, call)

    def full(descriptor: int, *rest: Any) -> Any:
        if call == "write":
            genuine(descriptor, bytes(rest[0])[:7])  # a part fits
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(StateFileError, match=r"journal cannot be written: No space left on device. Nothing was"):
            db.update_slice(1001, a_slice(1001))
        with pytest.raises(StateFileError, match=r"database\.yaml cannot be written: No space left on device"):
            db.save()
    assert journal.read_bytes()[: len(before)] == before
    assert list(db.data["slices"]) == ["1000"] == list(Database(path).data["slices"])
    db.update_slice(1002, a_slice(1002))
    db.close()
    assert list(Database(path).data["slices"]) == ["1000", "1002"]
    assert {entry.name for entry in path.parent.iterdir()} == {".cloudrepo", "database.yaml", "database.yaml.backup"}


def test_a_file_limit_that_is_reached_is_a_full_disk(path: Path) -> None:
    def work(tell: Callable[[str], None]) -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        db = Database(path)
        db.update_slice(1000, a_slice())
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal_of(path).stat().st_size + 100, -1))
        try:
            db.update_slice(1001, a_slice(1001))
        except StateFileError as error:
            tell(error.code)
        db.next_operation()
        tell("small")

    before = "state.write small".split()  # noqa: SIM905
    assert in_child(work)[0] in (before, before[:1])
    assert list(Database(path).data["slices"]) == ["1000"]


def test_a_directory_that_takes_nothing_is_one_sentence(path: Path) -> None:
    """As another account, since root may write anywhere."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another account")
    path.parent.chmod(0o755)
    Database(path)
    os.chown(path, 12345, 12345)

    def work(tell: Callable[[str], None]) -> None:
        os.setgid(12345)
        os.setuid(12345)
        db = Database(path)  # reading needs nothing
        try:
            db.next_operation()
        except StateFileError as error:
            tell("refused" if "cannot be written: Permission denied" in str(error) else str(error).replace(" ", "_"))

    for parent in path.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    assert in_child(work) == (["refused"], True)
    assert not journal_of(path).exists()


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem that takes nothing, as root meets it, too."""

    def guarded(genuine: Callable[..., Any], *, is_open: bool) -> Callable[..., Any]:
        def call(name: Any, *rest: Any, **options: Any) -> Any:
            if str(name).startswith(str(folder)) and not (is_open and not rest[0] & WRITING):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return genuine(name, *rest, **options)

        return call

    for name in ("open", "replace", "rename", "unlink", "mkdir", "link"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), is_open=name == "open"))


@pytest.mark.parametrize("words", [("resume", "--list"), ("state", "check"), ("state", "history"), ("state", "export")])
def test_where_nothing_can_be_written_a_journal_that_was_left_is_read(
    path: Path,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    killed(path, 1000, 1010, save_after=1000)
    make_read_only(path.parent, monkeypatch)
    monkeypatch.setenv("CLOUDREPO_STATE", str(path))
    files = {entry: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()}
    database._open_ones.clear()
    assert main(words) == 0
    assert "Traceback" not in capfd.readouterr().err
    db = Database(path)
    assert list(db.data["slices"]) == ["1000", "1010"]
    with pytest.raises(StateFileError, match="cannot be written: Read-only file system"):
        db.next_operation()
    db.close()
    assert {entry: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()} == files


def test_a_full_disk_does_not_hold_up_who_only_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(path, 1000)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    db = Database(path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        db.close()
        writing = Database(path)
        with pytest.raises(StateFileError, match="No space left"):
            writing.next_operation()
    assert journal_of(path).exists()
    writing.next_operation()
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StateFileError, match="No space left"):
            writing.close()  # what it wrote is not in the file yet
    writing.close()
    assert not journal_of(path).exists()


def test_a_journal_that_is_a_link_is_refused(path: Path, tmp_path: Path) -> None:
    Database(path)
    journal_of(path).symlink_to(tmp_path / "elsewhere")
    refused(path, "journal cannot be read")


MOUNTS = """22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/local\\040disk rw - xfs /dev/sdb1 rw
32 22 0:42 / /mnt rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("where", "kind"),
    [("/srv/x", "ext4"), ("/home/ann/x", "nfs4"), ("/home/local disk/x", "xfs"), ("/homes/x", "ext4")],
)
def test_the_filesystem_of_a_file_is_found(where: str, kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert filesystem.filesystem_type(Path(where), mounts) == kind


def test_a_remote_filesystem_is_warned_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(filesystem, "filesystem_type", lambda _path: "nfs4")
    Database(path).next_operation()
    assert "is on nfs4, where locks may not hold between machines" in caplog.text


def test_a_filesystem_without_locks_is_warned_of_once_and_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def none(*_args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    db = Database(path)
    db.next_operation()
    db.next_operation()
    db.close()
    assert caplog.text.count("has no locks (No locks available): only one process may use it") == 1
    assert Database(path).data["operation"] == 2
