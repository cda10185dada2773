"""Numbers are not given twice: counters count on when an older state is put back, and learn from hosts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudrepo.errors import MessageRefused
from cloudrepo.stores.generations import Generations
from control import cleaning, processes, state_files
from crashing import SLICE, Installation
from database import Database
from state_files import a_slice, journal_of
from test_state_recovery import killed

Counters = tuple[int, int]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.yaml"


def counters(path: Path) -> Counters:
    """The operation and the id that the next process gives, each minus one."""
    db = Database(path)
    with db.transaction() as data:
        return data["operation"], data["next_vm_id"] - 1


def used(path: Path, *slices: int, operations: int = 5) -> None:
    """A process with an orderly end, which gives numbers."""
    db = Database(path)
    db.backup()
    for number in slices:
        db.update_slice(number, a_slice(number))
    for _ in range(operations):
        db.next_operation()
    db.close()


@pytest.mark.parametrize("wanted", ["1", "2", "backup"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_restore_counts_on(path: Path, wanted: str, is_killed: bool) -> None:
    used(path, 1000)
    used(path, 1010)
    used(path, 1020)
    if is_killed:
        killed(path, 1030, 1040, save_after=1030)
    was = counters(path) if not is_killed else (15, 1042)
    before = Generations(path).list()
    state_files.restore(path, wanted)
    content = yaml.safe_load(path.read_text())
    assert (content["operation"], content["next_vm_id"] - 1) == was == counters(path)
    assert len(content["slices"]) < 5
    assert state_files.check(path)["ok"]
    Database(path).close()
    # and what is restored after that, and back again
    state_files.restore(path, str(before[0].number))
    assert counters(path) == was


def test_restore_of_what_never_counted_or_is_laid_out_by_hand(path: Path) -> None:
    used(path, 1000)
    copies = Generations(path)
    texts = (
        (b"users: {}\nslices: {}\nworkers_list: [10.0.10.1] # mine\n", True),
        (b"# mine\nusers: {}\nnext_vm_id:    1000\nslices: {}\n", True),
        (b"{users: {}, slices: {}, next_vm_id: 1000} # mine\n", False),
        (b"--- # mine\nusers: {}\n", False),
    )
    for text, is_kept_as_it_stands in texts:
        copies.keep(None, text)
        number = copies.list()[-1].number
        state_files.restore(path, str(number))
        assert counters(path) == (5, 1002), text
        assert (b"# mine" in path.read_bytes()) == is_kept_as_it_stands, text
        Database(path).close()


def test_restore_in_place_of_a_damaged_file_counts_on(path: Path) -> None:
    used(path, 1000)
    used(path, 1010)
    shutil.rmtree(path.parent / ".cloudrepo")
    Generations(path).keep(None, path.with_name("database.yaml.backup").read_bytes())
    path.write_text("users: [\n" + path.read_text())
    state_files.restore(path, "1")
    assert counters(path) == (10, 1012)


@pytest.mark.parametrize("which", ["yaml", "journal"])
@pytest.mark.parametrize("has_copies", [True, False])
def test_a_decision_counts_on(path: Path, which: Any, has_copies: bool) -> None:
    used(path, 1000)
    old = path.read_bytes()
    used(path, 1010)
    killed(path, 1020, 1030, save_after=1020)
    path.write_bytes(old)
    if not has_copies:
        shutil.rmtree(path.parent / ".cloudrepo")
        path.with_name("database.yaml.backup").unlink()
    state_files.use(path, which)
    assert counters(path) == (10 if has_copies else 5, 1032)


def test_a_journal_of_another_installation_does_not_count(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "database.yaml"
    other.parent.mkdir()
    killed(other, 5000)
    used(path, 1000)
    shutil.copy(journal_of(other), journal_of(path))
    state_files.use(path, "yaml")
    assert counters(path) == (5, 1002)


def test_the_documented_recovery_after_an_orderly_end_counts_on(path: Path) -> None:
    used(path, 1000)
    used(path, 1010)
    used(path, 1020)
    shutil.copy(path.with_name("database.yaml.backup"), path)
    text = path.read_bytes()
    assert list(Database(path).data["slices"]) == ["1000", "1010"]
    assert path.read_bytes() == text  # who only reads changes nothing
    assert Database(path).next_operation() == 16
    assert counters(path) == (16, 1022)


def test_a_process_that_runs_counts_on_when_the_file_is_put_back_under_it(path: Path) -> None:
    used(path, 1000)
    old = path.read_bytes()
    db = Database(path)
    for number in (1010, 1020):
        db.update_slice(number, a_slice(number))
        db.next_operation()
    db.close()
    shutil.rmtree(path.parent / ".cloudrepo")
    path.write_bytes(old)
    assert list(db.data["slices"]) == ["1000", "1010", "1020"]
    assert db.next_operation() == 8
    assert list(db.data["slices"]) == ["1000"]
    assert counters(path) == (8, 1022)


def test_a_counter_in_a_file_that_was_not_put_back_is_a_persons_to_set(path: Path) -> None:
    used(path, 1000)
    text = path.read_text()
    path.write_text(text.replace("next_vm_id: 1003", "next_vm_id: 5000"))
    used(path, operations=1)
    assert counters(path) == (6, 4999)
    path.write_text(path.read_text().replace("next_vm_id: 5000", "next_vm_id: 2000"))
    assert counters(path)[1] == 1999


# ── what hosts have seen ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def set_back(installation: Installation, old: bytes) -> None:
    """An older state file is all there is, as on another machine."""
    installation.api.db.close()
    installation.state.write_bytes(old)
    shutil.rmtree(installation.state.parent / ".cloudrepo", ignore_errors=True)
    installation.state.with_name("database.yaml.backup").unlink(missing_ok=True)
    installation.api = installation.orchestrator()


def highest(installation: Installation) -> int:
    return max(number for host in installation.hosts.values() for number, _ in host.fences.values())


def worn(installation: Installation) -> bytes:
    """A slice that was deployed and stopped; the state file of before, and hosts that have seen later numbers."""
    installation.designed()
    installation.api.db.save()
    old = installation.state.read_bytes()
    for call in ("deploy_slice", "stop_slice", "start_slice", "stop_slice"):
        for _ in range(10):
            installation.api.db.next_operation()
        installation.ok(call, "admin", SLICE)
    assert highest(installation) > yaml.safe_load(old)["operation"] + 30
    return old


CALLS: dict[str, Callable[[Installation], Any]] = {
    "deploy": lambda one: one.ok("deploy_slice", "admin", SLICE),
    "delete": lambda one: one.ok("delete_slice", "admin", SLICE),
    "clean": lambda one: cleaning.clean(one.api.context, None),
}


@pytest.mark.parametrize("name", CALLS)
def test_hosts_that_saw_higher_numbers_are_learnt_from(installation: Installation, name: str) -> None:
    old = worn(installation)
    before = highest(installation)
    set_back(installation, old)
    assert Database(installation.state).data["operation"] < before
    found = CALLS[name](installation)
    if name == "clean":
        assert found["unreachable"] == {}
    now = Database(installation.state).data["operation"]
    assert before < now < before + 20
    if name == "deploy":
        assert installation.states() == ("running", ["running", "running"])
        assert installation.record().get("operation") is None
    assert highest(installation) <= now


def test_an_operation_whose_place_was_taken_learns_nothing_and_ends(installation: Installation) -> None:
    """It is refused by a number, and its own record says that it is not the one at work any more."""
    installation.designed()
    api, other = installation.api, installation.orchestrator()
    executor = api.executor
    genuine = executor.run_plan
    taken: list[int] = []

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        if plan.operation and not taken:
            with other.db.transaction() as data:  # another process takes the slice over, and was at the hosts
                data["operation"] += 100
                noted = data["slices"][str(SLICE)]["operation"]
                noted["number"] = data["operation"]
                taken.append(data["operation"])
            for one in installation.hosts.values():
                one.fences[str(SLICE)] = (taken[0], one.changes)
        return genuine(host, plan, **options)

    executor.run_plan = run_plan
    refusal = installation.refused("deploy_slice", "admin", SLICE)
    assert "is not worked on any more by this operation" in refusal
    assert all(not host.processes for host in installation.hosts.values())


def test_an_equal_number_of_another_process_is_not_ones_own(installation: Installation) -> None:
    """Two processes were given one number, since the file was put back between them."""
    installation.designed()
    other = f"{processes.this_process().partition(':')[0]}:1:0:elsewhere"
    genuine = installation.api.executor.run_plan

    def run_plan(host: str, plan: Any, **options: Any) -> Any:
        if plan.operation:
            db = Database(installation.state)
            with db.transaction() as data:
                data["slices"][str(SLICE)]["operation"]["process"] = other
            raise MessageRefused(host, "late", code="host.refused.operation", details={"seen": plan.operation})
        return genuine(host, plan, **options)

    installation.api.executor.run_plan = run_plan
    assert "is not worked on any more" in installation.refused("deploy_slice", "admin", SLICE)
    assert installation.record()["operation"]["process"] == other
