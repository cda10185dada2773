"""The journal cut and damaged at every byte, and the process killed at every call that writes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudrepo.errors import StateFileError
from cloudrepo.stores.journal import JournalDamage, read
from database import Database
from simulated.world import short_folder
from state_files import a_slice, content, in_child, journal_of


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: a process that is killed loses no more there than on a disk."""
    with tempfile.TemporaryDirectory(dir=short_folder()) as folder:
        yield Path(folder)


def a_journal(folder: Path) -> tuple[Path, list[dict[str, object]], list[int]]:
    """A state with a journal of a few records; the state after each, and where each ends."""
    path = folder / "database.yaml"
    db = Database(path)
    states, ends = [content(path)], [0]
    for work in (
        lambda: db.update_slice(1000, a_slice(name="é", vms=1)),
        lambda: db.next_operation(),
        lambda: db.update_slice(1010, a_slice(1010, vms=0)),
        lambda: _remove(db, "1000"),
    ):
        work()
        states.append(content(path))
        ends.append(journal_of(path).stat().st_size)
    return path, states, ends


def _remove(db: Database, key: str) -> None:
    with db.transaction() as data:
        del data["slices"][key]


def test_a_journal_cut_at_any_byte_loads_to_the_last_whole_record_or_is_refused(tmp_path: Path) -> None:
    path, states, ends = a_journal(tmp_path)
    journal = journal_of(path)
    whole, yaml = journal.read_bytes(), path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole) + 1):
        journal.write_bytes(whole[:length])
        if length < first:
            with pytest.raises(StateFileError, match=r"database\.yaml\.journal is damaged: line 1, byte 0"):
                Database(path)
        else:
            reached = max(number for number, end in enumerate(ends) if end <= length)
            assert content(path) == states[reached], length
        assert (path.read_bytes(), journal.read_bytes()) == (yaml, whole[:length])


def test_a_cut_line_is_gone_with_the_next_change_and_its_revision_is_given_again(tmp_path: Path) -> None:
    path, states, _ends = a_journal(tmp_path)
    journal = journal_of(path)
    journal.write_bytes(journal.read_bytes()[:-7])
    db = Database(path)
    assert content(path) == states[-2]
    db.update_slice(1020, a_slice(1020))
    assert set(Database(path).data["slices"]) == {"1000", "1010", "1020"}
    assert journal.read_bytes().count(b"\n") == 5


def test_a_byte_that_flipped_anywhere_is_noticed(tmp_path: Path) -> None:
    path, _states, ends = a_journal(tmp_path)
    journal = journal_of(path)
    whole = journal.read_bytes()
    for at in range(len(whole)):
        for bit in (1, 0x20):
            flipped = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
            with pytest.raises(JournalDamage):
                read(flipped)
        if at % 41 == 0 or at == len(whole) - 1:
            journal.write_bytes(flipped)
            with pytest.raises(StateFileError) as caught:
                Database(path)
            assert str(journal) in str(caught.value)
            assert "./cloud state use" in caught.value.remedy
    line = whole[: ends[2] + 5].count(b"\n") + 1
    journal.write_bytes(whole[: ends[2] + 5] + b"#" + whole[ends[2] + 6 :])
    with pytest.raises(StateFileError, match=f"line {line}, byte {ends[2]}: its checksum is wrong"):
        Database(path)


def test_a_line_that_was_taken_out_is_missed(tmp_path: Path) -> None:
    path, _states, ends = a_journal(tmp_path)
    journal = journal_of(path)
    whole = journal.read_bytes()
    journal.write_bytes(whole[: ends[1]] + whole[ends[2] :])
    with pytest.raises(StateFileError, match="what comes before it is missing"):
        Database(path)


def every_crash(
    folder: Path,
    work: Callable[[Path, Callable[[str], None]], None],
    after: Callable[[Path], None] = lambda path: None,
) -> int:
    """Kill `work` before each of its calls that write; what is told is what the files must hold.

    `work` tells the number of a slice when its change was acknowledged; `after` is done before the next start.
    Returns the number of calls.
    """
    for number in range(1000):
        here = folder / str(number)
        here.mkdir()
        path = here / "database.yaml"
        Database(path)
        told, is_whole = in_child(lambda tell, path=path: work(path, tell), dies_at=number)  # type: ignore[misc]
        after(path)
        found = sorted(Database(path).data["slices"])
        begun = [str(int(told[-1]) + 1)] if told else ["1000"]
        assert found in (sorted(told), sorted(told + begun)), number
        db = Database(path)  # and it can be worked with
        db.update_slice(2000, a_slice(2000))
        db.close()
        assert sorted(Database(path).data["slices"]) == sorted([*found, "2000"]), number
        assert not journal_of(path).exists(), number
        assert {entry.name for entry in here.iterdir()} <= {".cloudrepo", "database.yaml", "database.yaml.backup"}
        if is_whole:
            return number
        shutil.rmtree(here)
    raise AssertionError("it never came to its end")


def four_slices(path: Path, tell: Callable[[str], None]) -> None:
    """Four changes, folded after the second, the third and the last."""
    db = Database(path)
    for number in (1000, 1001):
        db.update_slice(number, a_slice(number))
        tell(str(number))
    db.save()
    db.update_slice(1002, a_slice(1002))
    tell("1002")
    db.save()
    db.update_slice(1003, a_slice(1003))
    tell("1003")
    db.close()


def test_killed_at_any_call_of_commit_and_fold_it_loads_what_was_acknowledged(tmp_path: Path) -> None:
    assert every_crash(tmp_path, four_slices) > 60


def test_an_edit_by_hand_after_a_kill_at_any_call_is_merged(tmp_path: Path) -> None:
    edited: list[Path] = []

    def edit(path: Path) -> None:
        text = path.read_text()
        path.write_text("# mine\n" + text.replace("quota_vms: 6", "quota_vms: 7"))
        data = Database(path).data
        assert data["users"]["student"]["quota_vms"] == 7
        edited.append(path)

    assert every_crash(tmp_path, four_slices, edit) == len(edited) - 1 > 60


def test_killed_in_a_fold_while_another_appends_nothing_of_either_is_lost(tmp_path: Path) -> None:
    def work(path: Path, tell: Callable[[str], None]) -> None:
        db, other = Database(path), Database(path)
        db.update_slice(1000, a_slice(1000))
        tell("1000")
        genuine = db.store.renderer.render  # type: ignore[attr-defined] # the seam between the point and the switch

        def meanwhile(*args: object) -> object:
            other.update_slice(1001, a_slice(1001))
            tell("1001")
            return genuine(*args)

        db.store.renderer.render = meanwhile  # type: ignore[attr-defined]
        db.save()
        assert sorted(db.data["slices"]) == ["1000", "1001"]

    assert every_crash(tmp_path, work) > 30
