"""`./cloud state`: check, history, restore, use and export, on good files and on damaged ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import database
from cli import state as commands
from cli.ask import Ask
from cli.screen import Screen
from cloudrepo.errors import CloudError, StateFileError
from cloudrepo.invariants import violations
from cloudrepo.settings import History
from cloudrepo.stores.generations import Generations
from control import state_files
from database import Database
from main import main
from state_files import a_slice, journal_of
from test_state_recovery import SHIPPED, killed


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "database.yaml"
    monkeypatch.setenv("CLOUDREPO_STATE", str(path))
    return path


def run(*words: str) -> int:
    """As a process of its own: what the test has open is not its to close."""
    database._open_ones.clear()
    return main(["state", *words])


def report(capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    status = run("check", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["ok"]) == (1, status == 0)
    return found


def ended(path: Path, *slices: int) -> None:
    """A process with an orderly end; it makes a generation, and one at its start of a file that was there."""
    is_new = not path.exists()
    db = Database(path)
    if not is_new:
        db.backup()
    for number in slices:
        db.update_slice(number, a_slice(number))
    db.close()


def test_check_of_a_good_state_says_what_is_in_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed(path, 1000, 1010, save_after=1000)
    found = report(capsys)
    assert found["problems"] == []
    assert (found["counts"]["slices"], found["counts"]["vms"]) == (2, 4)
    assert found["journal"]["relation"] == "continues"
    assert found["revision"] == 3
    assert run("check") == 0
    assert "Nothing is wrong." in capsys.readouterr().out


def test_check_names_damage_with_its_place(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed(path, 1000)
    journal = journal_of(path)
    journal.write_bytes(journal.read_bytes().replace(b'"admin"', b'"adm1n"', 1))
    assert "line 2, byte" in report(capsys)["problems"][0]["text"]
    path.write_text("users: [\n")
    assert ["line 2" in problem["text"] for problem in report(capsys)["problems"]] == [True, True]
    path.unlink()
    assert "cannot be read: No such file" in report(capsys)["problems"][0]["text"]


def broken(change: Any) -> list[str]:
    """What is found of a state that was good before `change`."""
    data: Any = {
        "users": {"ann": {"quota_vms": 4}},
        "workers": {},
        "workers_list": ["10.0.10.1"],
        "next_vm_id": 1010,
        "slices": {},
    }
    for number in (1000, 1004):
        record = a_slice(number)
        record["owner"] = "ann"
        for index, vm in enumerate(record["vms"]):
            vm |= {"owner": "ann", "vnc_port": 5900 + number + index, "qcow_image": f"/i/{number}{index}"}
            vm["interfaces"] = [
                {
                    "name": "eth0",
                    "mac": f"m{number}{index}",
                    "vlan_id": number % 100 + 100,
                    "link_id": 1,
                    "ip_config": None,
                }
            ]
        ids = [vm["vm_id"] for vm in record["vms"]]
        record["links"] = [
            {
                "link_id": 1,
                "vlan_id": number % 100 + 100,
                "vm1_id": ids[0],
                "vm1_interface": "eth0",
                "vm2_id": ids[1],
                "vm2_interface": "eth0",
            }
        ]
        data["slices"][str(number)] = record
    assert violations(data) == []
    change(data, data["slices"]["1000"], data["slices"]["1000"]["vms"][0])
    return violations(data)


def internet(data: Any) -> None:
    for record in data["slices"].values():
        nic = {"name": "eth9", "mac": str(record["slice_id"]), "vlan_id": 400, "link_id": None}
        record["vms"][0]["interfaces"].append(nic | {"ip_config": {"ip": "10.60.7.101"}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data, record, vm: vm.update(vm_id=1005), "the number 1005 is there 2 times"),
        (lambda data, record, vm: data.update(next_vm_id=1006), "next_vm_id is 1006, and 1006 is given already"),
        (lambda data, record, vm: record["links"][0].update(vlan_id=104), "VLAN 104 is there 2 times"),
        (lambda data, record, vm: record["links"][0].update(vlan_id=400), "is on VLAN 400"),
        (lambda data, record, vm: record["links"].clear(), "is an end of link 1, which is not there"),
        (lambda data, record, vm: vm["interfaces"].clear(), "ends at eth0 of VM 1001, which is not there"),
        (lambda data, record, vm: vm["interfaces"][0].update(link_id=None), "which does not know of it"),
        (lambda data, record, vm: vm.update(vnc_port=6905 - 1), "the screen's port"),
        (lambda data, record, vm: vm.update(qcow_image="/i/10041"), "the disk"),
        (lambda data, record, vm: vm["interfaces"][0].update(mac="m10041"), "the MAC address m10041 is there 2 times"),
        (lambda data, record, vm: internet(data), "the internet address 10.60.7.101 is there 2 times"),
        (lambda data, record, vm: vm.update(worker_ip="10.0.10.7"), "is on worker 10.0.10.7, which is not there"),
        (lambda data, record, vm: vm.update(owner="bob"), "belongs to bob, and its slice to ann"),
        (lambda data, record, vm: vm.update(name="vm2"), "in slice 1000 the name vm2"),
        (lambda data, record, vm: record.update(owner="bob"), "belongs to bob, who is no user"),
        (lambda data, record, vm: data["users"]["ann"].update(quota_vms=3), "ann has 4 VMs, and a quota of 3"),
    ],
)
def test_what_cannot_be_true_is_named(change: Any, words: str) -> None:
    assert any(words in sentence for sentence in broken(change)), broken(change)


def test_check_of_a_state_that_cannot_be_true_fails(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(path, 1000)
    path.write_text(path.read_text().replace("worker_ip: 10.0.10.1", "worker_ip: 10.0.10.7", 1))
    assert [problem["code"] for problem in report(capsys)["problems"]] == ["state.invariant"]
    assert Database(path).data["slices"]  # it is said, and not in the way


# ---------------------------------------------------------------------------------------- generations


def test_starts_and_orderly_ends_make_generations_when_something_changed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(SHIPPED, path)
    ended(path)
    ended(path, 1000)
    ended(path)
    assert run("history", "--json") == 0
    found = json.loads(capsys.readouterr().out)["generations"]
    assert [(one["generation"], one["counts"]["slices"], one["good"]) for one in found] == [(1, 0, True), (2, 1, True)]
    assert run("history") == 0
    assert "Generation" in capsys.readouterr().out


def test_only_the_newest_generations_are_kept(path: Path) -> None:
    for number in range(1000, 1050, 10):
        db = Database(path, copies=History(generations=3))
        db.update_slice(number, a_slice(number))
        db.close()
    assert [one["generation"] for one in state_files.history(path)] == [3, 4, 5]


def test_a_clock_that_jumps_changes_nothing(path: Path) -> None:
    """Order is by revision and number, never by a time."""
    for day, number in ((3, 1000), (2, 1010), (1, 1020)):
        db = Database(path)
        db.update_slice(number, a_slice(number))
        db.save()
        os.utime(path, (day * 86400, day * 86400))
        db.update_slice(number, a_slice(number, name="again"))
        db.close()
        for file in (path, *(path.parent / ".cloudrepo" / "history" / "database.yaml").iterdir()):
            os.utime(file, (day * 86400, day * 86400))
    assert [one["counts"]["slices"] for one in state_files.history(path)] == [1, 2, 3]
    assert [one["name"] for one in Database(path).list_slices()] == ["again"] * 3
    assert state_files.check(path)["revision"] == 7


def test_a_long_run_makes_generations_in_between(path: Path) -> None:
    db = Database(path, copies=History(pause=0))
    for number in (1000, 1010):
        db.update_slice(number, a_slice(number))
        db.save()
        db.save()
    assert [one["counts"]["slices"] for one in state_files.history(path)] == [1, 2]


def test_a_generation_is_restored_and_the_way_back_is_open(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(path, 1000)
    killed(path, 1010)
    before = Database(path).data
    assert run("restore", "1", "--yes") == 0
    restored = Database(path)
    assert list(restored.data["slices"]) == ["1000"]
    assert restored.store.revision > 3
    assert len(list(path.parent.glob("database.yaml.journal.aside-*"))) == 1
    assert run("restore", "2", "-y") == 0
    assert Database(path).data == before


def test_a_process_that_runs_follows_a_restore(path: Path) -> None:
    ended(path, 1000)
    db = Database(path)
    db.update_slice(1010, a_slice(1010))
    state_files.restore(path, "1")
    db.update_slice(1020, a_slice(1020))
    assert list(db.data["slices"]) == ["1000", "1020"] == list(Database(path).data["slices"])


def test_a_damaged_file_is_put_aside_when_a_generation_is_restored(path: Path) -> None:
    ended(path, 1000)
    path.write_text("users: [")
    with pytest.raises(StateFileError):
        Database(path)
    assert run("restore", "1", "--yes") == 0
    assert list(Database(path).data["slices"]) == ["1000"]
    assert [one.read_text() for one in path.parent.glob("database.yaml.aside-*")] == ["users: ["]


@pytest.mark.parametrize("wanted", ["7", "x", "", "backup"])
def test_a_generation_that_is_not_there_is_one_sentence(
    path: Path, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    db = Database(path)
    before = path.read_bytes()
    db.store.keep_generation()
    assert run("restore", wanted, "--yes") == 1
    assert f"there is no generation {wanted}" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_generation_that_was_damaged_is_not_restored(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(path, 1000)
    (generation,) = (path.parent / ".cloudrepo" / "history" / "database.yaml").iterdir()
    generation.write_text(generation.read_text().replace("name: s\n", "name: t\n"))
    assert run("restore", "1", "--yes") == 1
    assert "is not what it was" in capsys.readouterr().err
    assert state_files.history(path)[0]["good"] is False


# ---------------------------------------------------------------------------------------- use, export


def put_back(path: Path) -> None:
    """The documented recovery after a kill: the file is older than its journal."""
    ended(path, 1000)
    killed(path, 1010, 1020, save_after=1010)
    shutil.copy(path.with_name("database.yaml.backup"), path)


def test_use_yaml_goes_on_with_the_file_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_back(path)
    journal = journal_of(path).read_bytes()
    assert run("use", "yaml", "--yes") == 0
    db = Database(path)
    assert list(db.data["slices"]) == ["1000"]
    (aside,) = path.parent.glob("database.yaml.journal.aside-*")
    assert aside.read_bytes() == journal
    assert db.store.revision > 4
    assert report(capsys)["ok"]


def test_use_journal_lays_it_over_the_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_back(path)
    assert report(capsys)["journal"]["relation"] == "older"
    assert run("use", "journal", "--yes") == 0
    assert list(Database(path).data["slices"]) == ["1000", "1020"]  # 1010 was folded into the file that was replaced
    assert report(capsys)["ok"]


@pytest.mark.parametrize("is_folded", [False, True])
def test_use_journal_over_an_older_copy_takes_the_generation_that_it_continues(
    path: Path, is_folded: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(path, 1000)
    old = path.read_bytes()
    ended(path, 1010)
    if is_folded:
        db = Database(path, copies=History(pause=0))  # each fold is followed by a generation
        db.update_slice(1020, a_slice(1020))
        db.save()
        db.update_slice(1030, a_slice(1030))
        del db
    else:
        killed(path, 1020, 1030)
    acknowledged = Database(path).data
    path.write_bytes(old.replace(b"quota_vms: 6", b"quota_vms: 7"))
    assert report(capsys)["journal"]["relation"] == "older"
    assert run("use", "journal", "--yes") == 0
    words = capsys.readouterr().out
    assert f"is generation {3 if is_folded else 2} now, which its journal continues" in words
    db = Database(path)
    assert db.data == acknowledged
    assert list(db.data["slices"]) == ["1000", "1010", "1020", "1030"]
    assert report(capsys)["ok"]
    number = words.partition("What was there is generation ")[2].partition(".")[0]
    state_files.restore(path, number)  # what was put back is not lost either
    assert Database(path).data["users"]["student"]["quota_vms"] == 7


def test_use_journal_does_not_trust_a_generation_that_was_damaged(path: Path) -> None:
    ended(path, 1000)
    old = path.read_bytes()
    ended(path, 1010)
    killed(path, 1020)
    path.write_bytes(old)
    for copy in Generations(path).list()[1:]:
        copy.path.write_bytes(copy.path.read_bytes().replace(b"    name: s\n", b"    name: t\n"))
    (said,) = [one for one in state_files.use(path, "journal") if "now holds" in one]
    assert "./cloud state history" in said
    assert list(Database(path).data["slices"]) == ["1000", "1020"]


def test_use_journal_keeps_what_stands_before_the_damage(path: Path) -> None:
    killed(path, 1000, 1010, 1020)
    journal = journal_of(path)
    journal.write_bytes(journal.read_bytes().replace(b'"slices/1020"', b'"slices/1029"', 1))
    with pytest.raises(StateFileError, match="keeps the 2 changes before that"):
        Database(path)
    assert run("use", "journal", "-y") == 0
    assert list(Database(path).data["slices"]) == ["1000", "1010"]


def test_use_without_a_journal_and_with_a_foreign_one(path: Path, tmp_path: Path) -> None:
    ended(path, 1000)
    with pytest.raises(CloudError, match="has no journal"):
        state_files.use(path, "yaml")
    other = tmp_path / "other" / "database.yaml"
    other.parent.mkdir()
    killed(other, 1000)
    shutil.copy(journal_of(other), journal_of(path))
    with pytest.raises(CloudError, match="belongs to another installation"):
        state_files.use(path, "journal")
    state_files.use(path, "yaml")
    assert list(Database(path).data["slices"]) == ["1000"]


def test_use_of_something_else_is_a_usage_error(path: Path) -> None:
    assert run("use", "backup") == 64


def test_an_export_is_the_whole_state_as_one_file(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(path, 1000, 1010, save_after=1000)
    target = tmp_path / "export.yaml"
    assert run("export", str(target)) == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert Database(target).data == Database(path).data
    assert journal_of(path).exists()
    assert run("export", str(target)) == 1
    assert "is there already" in capsys.readouterr().err
    assert run("export") == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(target.read_text())


class Answers:
    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def read(self, prompt: str, *, secret: bool = False, hints: object = None) -> str:
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "decided", "slices"),
    [
        (("admin", "admin", "1"), True, ["1000"]),
        (("admin", "admin", "2"), True, ["1000", "1020"]),
        (("admin", "admin", "3"), False, None),
        (("student", "student"), False, None),
        (("admin", "wrong"), False, None),
        (("nobody", "x"), False, None),
    ],
)
def test_the_menu_asks_an_administrator(
    path: Path, answers: tuple[str, ...], decided: bool, slices: list[str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    put_back(path)
    with pytest.raises(StateFileError) as caught:
        Database(path)
    assert commands.decide(caught.value, Screen(), Ask(Answers(*answers))) is decided
    assert "slices/1020" in capsys.readouterr().out or answers[1] != "admin"
    if slices is None:
        with pytest.raises(StateFileError, match="is older than its journal"):
            Database(path)
    else:
        assert list(Database(path).data["slices"]) == slices


# ---------------------------------------------------------------------------------------- ends of processes


def test_a_one_shot_command_leaves_the_file_alone(path: Path) -> None:
    """`worker add` of an address that does not answer still changes `workers_list`."""
    shutil.copy(SHIPPED, path)
    words = (sys.executable, str(SHIPPED.parent / "main.py"), "worker", "add", "127.0.0.9")
    environment = os.environ | {"CLOUDREPO_SSH_CONNECT_TIMEOUT": "0.3", "CLOUDREPO_SSH_PORT": "9"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "127.0.0.9 is enrolled" in done.stdout, done.stderr
    assert "127.0.0.9" in yaml.safe_load(path.read_text())["workers_list"]
    assert not journal_of(path).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_menu_that_is_ended_by_a_signal_leaves_the_file_alone(path: Path, number: signal.Signals) -> None:
    shutil.copy(SHIPPED, path)
    text = f"""
import sys, threading, time
sys.path.insert(0, {str(SHIPPED.parent)!r})
import main
from cli import menu
def serve(self):
    self.installation.db.next_operation()
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
for stream in (sys.stdin, sys.stdout):  # pipes that pass for a terminal: what they show is not the subject
    stream.isatty = lambda: True
menu.CLI._open_workers = lambda self: None
menu.log_in = lambda *args: {{"username": "admin"}}
menu.CLI._serve = lambda self, account: serve(self)
sys.exit(main.main([]))
"""
    process = subprocess.Popen(
        (sys.executable, "-c", text), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            while process.stdout.readline().strip() != "ready":
                assert process.poll() is None
                time.sleep(0.01)
            assert journal_of(path).exists()
            process.send_signal(number)
            assert process.wait(60) == (143 if number == signal.SIGTERM else 130)
    finally:  # also when it did not end in time
        process.kill()
        process.wait(60)
    assert not journal_of(path).exists()
    assert yaml.safe_load(path.read_text())["operation"] >= 1


def test_a_program_that_simply_ends_leaves_the_file_alone(path: Path) -> None:
    text = f"import sys; sys.path.insert(0, {str(SHIPPED.parent)!r})\nfrom database import Database\n"
    text += f"Database({str(path)!r}).next_operation()\n"
    subprocess.run((sys.executable, "-c", text), check=True, timeout=60)
    assert yaml.safe_load(path.read_text())["operation"] == 1
    assert not journal_of(path).exists()
