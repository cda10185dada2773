"""Every entry of the menu in a real terminal: good answers, bad ones with the reason, Esc and Ctrl-C everywhere."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.entries import ENTRIES
from database import Database
from menu_process import PASSWORD
from menu_prompts import Prompt, explore, labels, without_numbers
from menu_terminal import CHOOSE, CTRL_C, ENTER, ESC, Terminal, menu


@dataclass(frozen=True)
class Step:
    """One question: how it begins, a bad answer with the reason that is given, a good answer."""

    prompt: str
    good: str
    bad: str = ""
    why: str = ""


@dataclass(frozen=True)
class Walk:
    """One entry: its questions, and what is shown at the end. `undo` = the entry that takes it back, with answers."""

    entry: str
    steps: tuple[Step, ...]
    shows: str
    is_secret: bool = False


SLICE = Step("Slice ID", "1000", "7x", "None of your slices is 7x")
YES = Step("", "y", "maybe", "Please answer y or n.")

WALKS = (
    Walk("1", (), "10.0.10.3"),
    Walk("2", (Step("Slice name:", "another", "123", "a slice cannot be named '123'"),), "Slice created! ID: "),
    Walk(
        "3",
        (
            SLICE,
            Step("VM name:", "web", "vm1", "already has a VM named vm1"),
            Step("Flavor:", "cirros", "9", "Please choose 1 to 2; found '9'."),
            Step("Data interfaces:", "2", "99", "It is 15 at most; found 99."),
            Step("Internet access (y/n):", "n", "maybe", "Please answer y or n."),
        ),
        "VM added! ID: ",
    ),
    Walk(
        "4",
        (
            SLICE,
            Step("First VM (ID or name):", "vm1", "nobody", "There is no VM nobody in this slice."),
            Step("Interface of vm1", "eth2", "eth9", "vm1 has no eth9; free: eth2"),
            Step("Second VM (ID or name):", "vm2", "nobody", "There is no VM nobody in this slice."),
            Step("Interface of vm2", "eth2", "eth9", "vm2 has no eth9; free: eth2"),
        ),
        "Link created! ID: ",
    ),
    Walk("5", (), "Slice 1000 [design]: 2 VMs, 1 Links, VLAN pool: 100-119"),
    Walk("6", (SLICE,), "Slice deployed successfully"),
    Walk(
        "7",
        (SLICE, Step("Delete slice 1000", "y", "maybe", "Please answer y or n.")),
        "Slice deleted",
    ),
    Walk(
        "9",
        (
            Step("Shape:", "custom", "cube", "Please choose 1 to 7; found 'cube'."),
            Step("Machines (1 to 30):", "3", "31", "It is 30 at most; found 31."),
            Step("Link:", "1-2", "1-9", "There is no machine 9; there are 1 to 3."),
            Step("Link:", "2-3", "2-2", "A link joins different machines."),
            Step("Link:", "done", "2", "A link is written 1-2; found 2."),
            Step("Flavor:", "1", "x", "Please choose 1 to 2"),
            Step(
                "Who reaches the internet:", "vm3, vm1", "vm4", "Please choose 1 to 3, or name machines of vm1 to vm3"
            ),
            Step("Make these 3 cirros machines and 2 links (Y/n):", "y", "maybe", "Please answer y or n."),
            Step("Slice name:", "by hand", "1", "a slice cannot be named '1'"),
        ),
        "3 VMs and 2 links.",
    ),
    Walk("10", (SLICE,), "link 1  vm1 eth1 ── vm2 eth1  VLAN 100"),
    Walk("13", (), "Nothing is unfinished."),
    Walk(
        "14",
        (
            SLICE,
            Step("Link ID", "1", "5", "There is no link 5; there is 1."),
            Step("Switch:", "dhcp", "9", "Please choose 1 to 4"),
            Step("DHCP server (y/n):", "n", "maybe", "Please answer y or n."),
        ),
        "no DHCP",
    ),
    Walk("15", (Step("What:", "3", "4", "Please choose 1 to 3"),), ""),
    Walk(
        "16",
        (
            SLICE,
            Step("VM (ID or name):", "vm2", "vm9", "There is no VM vm9 here; there is vm1, vm2."),
            Step("Remove VM 1002 vm2", "y", "maybe", "Please answer y or n."),
        ),
        "VM removed",
    ),
    Walk(
        "17",
        (
            SLICE,
            Step("Link ID", "1", "x", "There is no link x; there is 1."),
            Step("Remove link 1", "y", "maybe", "Please answer y or n."),
        ),
        "Link removed",
    ),
    Walk(
        "20",
        (
            SLICE,
            Step("VM (ID or name):", "vm1", "vm9", "There is no VM vm9 here"),
            Step("Policy:", "always", "often", "Please choose 1 to 4"),
        ),
        "always",
    ),
    Walk("25", (Step("How many", "5", "x", "A whole number is needed here; found 'x'."),), "create_link"),
    Walk("26", (), "Nothing was left running here."),
    Walk(
        "27",
        (Step("New password:", "orange-eight"), Step("Again:", "orange-eight")),
        "Password changed",
        is_secret=True,
    ),
    Walk("28", (), "A first lab: 9 asks for a shape"),  # its end: all of it is longer than a screen
)
RUNNING = (
    Walk(
        "8", (Step("VM (ID or name):", "vm1", "vm9", "There is no VM vm9 here"), Step("Console:", "x")), "choose 1 to 2"
    ),
    Walk("12", (SLICE,), "stop"),
    Walk("11", (SLICE,), "start"),
    Walk("19", (SLICE, Step("VM (ID or name):", "vm1", "vm9", "There is no VM vm9 here")), "stop"),
    Walk("18", (SLICE, Step("VM (ID or name)", "1001", "vm9", "There is no VM vm9 here")), "start"),
)
ADMIN = (
    Walk("24", (Step("What:", "1", "9", "Please choose 1 to 6"),), ""),
    Walk(
        "24",
        (
            Step("What:", "2"),
            Step("User name:", "bob", "student", "There is a user student."),
            Step("1 admin, 2 instructor, 3 student:", "3", "4", "Please choose 1 to 3"),
        ),
        "User bob was added as student. First password: ",
    ),
    Walk(
        "24",
        (
            Step("What:", "5"),
            Step("User:", "student", "nobody", "There is no user nobody."),
            Step("1 vms, 2 cores", "vms", "9", "Please choose 1 to 4"),
            Step("New limit of vms:", "3"),
        ),
        "The quota of student was changed.",
    ),
)


CLOSELY = (
    Walk(
        "21",
        (
            SLICE,
            Step("From (VM:interface):", "vm1:eth1", "vm1", "There is vm1:eth1, vm2:eth1; found vm1."),
            Step("To (VM:interface", "vm2:eth1", "vm1:eth1", "There is vm2:eth1, gateway, dhcp; found vm1:eth1."),
        ),
        "The way from 1001:eth1 to 1002:eth1 is whole.",
    ),
    Walk("22", (Step("Slice ID, or all [all]:", "", "7", "There is no slice 7."),), "evidence: of all for ann"),
    Walk("22", (Step("Slice ID, or all [all]:", "hers"),), "evidence: of 1003 for ann"),
    Walk(
        "23",
        (Step("Slice ID, or all [all]:", "lab", "no", "There is no slice no."), Step("Set 2 of them right", "n", "x")),
        "Nothing was changed.",
    ),
    Walk("23", (Step("Slice ID, or all [all]:", ""), Step("Set 2 of them right", "y")), "finds no difference."),
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "gate").touch()
    yield tmp_path


def records(folder: Path) -> str:
    """What the records say, but for counters and who is at what."""
    data = Database(folder / "database.yaml").data
    return json.dumps({"slices": data["slices"], "users": data["users"]}, sort_keys=True)


def enter(terminal: Terminal) -> None:
    """Log in where something is asked before the menu."""
    terminal.answer("Username:", "ann")
    terminal.asks("Password:")
    terminal.send(PASSWORD + ENTER)


def done(terminal: Terminal, walk: Walk) -> None:
    """Bad answers, each with its reason, then the good ones, and the end."""
    terminal.choose(walk.entry)
    for step in walk.steps:
        terminal.asks(step.prompt)
        if step.bad:
            terminal.send(step.bad + ENTER)
            terminal.shows(step.why)
            terminal.asks(step.prompt)
        terminal.send(step.good + ENTER)
    if walk.shows:
        terminal.until(lambda: walk.shows in terminal.text, repr(walk.shows))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """All that the menu asks."""
    return list(explore(tmp_path_factory.mktemp("explored")))


def test_no_question_of_the_code_is_missed(questions: list[Prompt]) -> None:
    """Those that need work under way are asked below."""
    asked = {without_numbers(question.label) for question in questions}
    missed = {label for label in labels() if not any(re.fullmatch(label, one) for one in asked)}
    assert missed == {re.escape("Come back to")}
    assert {entry.number for entry in ENTRIES} - {one.entry for one in questions} == {"0", "1", "5", "26", "28"}


@pytest.mark.parametrize(("part", "key"), [(0, ESC), (1, ESC), (0, CTRL_C), (1, CTRL_C)])
def test_every_question_can_be_left_and_nothing_is_changed(
    folder: Path, questions: list[Prompt], part: int, key: str
) -> None:
    """Half of them at a time, so that two processors have something to do."""
    (folder / "furnished").touch()
    half = [one for one in questions if int(one.entry) % 2 == part]
    assert len(half) > 25
    with menu(folder, user="ann", role="admin") as terminal:
        enter(terminal)
        terminal.asks("1 resume, 2 rollback, 3 leave:")  # what was cut short, is asked about before the menu
        terminal.send(key)
        terminal.asks(CHOOSE)
        before = records(folder)
        for one in half:
            terminal.send("".join(f"{words}{ENTER}" for words in (one.entry, *one.answers)))
            terminal.asks(one.label)
            terminal.send(key)
            terminal.asks(CHOOSE)
            assert records(folder) == before, one


def test_every_entry_has_a_walk() -> None:
    assert {walk.entry for walk in (*WALKS, *RUNNING, *ADMIN, *CLOSELY)} == {entry.number for entry in ENTRIES} - {"0"}


def test_every_entry_with_good_and_bad_answers(folder: Path) -> None:
    """In an order in which each finds what it needs; deploying and deleting at the end."""
    (folder / "design").touch()
    order = ("1", "2", "5", "10", "13", "14", "15", "20", "25", "26", "28", "4", "9", "3", "27")
    by_entry = {walk.entry: walk for walk in WALKS}
    with menu(folder) as terminal:
        terminal.log_in("ann")
        for entry in order:
            done(terminal, by_entry[entry])
        terminal.asks(CHOOSE)


def test_what_takes_away(folder: Path) -> None:
    (folder / "design").touch()
    by_entry = {walk.entry: walk for walk in WALKS}
    with menu(folder) as terminal:
        terminal.log_in("ann")
        for entry in ("17", "16", "7"):
            done(terminal, by_entry[entry])
        terminal.asks(CHOOSE)
    assert Database(folder / "database.yaml").data["slices"] == {}


def test_what_runs(folder: Path) -> None:
    (folder / "design").touch()
    by_entry = {walk.entry: walk for walk in WALKS}
    with menu(folder) as terminal:
        terminal.log_in("ann")
        done(terminal, by_entry["6"])
        done(terminal, RUNNING[0])
        terminal.send(ESC)
        for walk in RUNNING[1:]:
            done(terminal, walk)
        terminal.asks(CHOOSE)


def test_what_looks_closely(folder: Path) -> None:
    """What these hosts cannot have on a wire is told to them; differences between them and the records are real."""
    (folder / "furnished").touch()
    with menu(folder, user="ann", role="admin") as terminal:
        enter(terminal)
        terminal.answer("1 resume, 2 rollback, 3 leave:", "leave")
        for walk in CLOSELY:
            done(terminal, walk)
        terminal.asks(CHOOSE)


def test_what_administrators_have(folder: Path) -> None:
    with menu(folder, user="admin", role="admin") as terminal:
        terminal.log_in("admin")
        for walk in ADMIN:
            done(terminal, walk)
        terminal.asks(CHOOSE)
    users = Database(folder / "database.yaml").data["users"]
    assert users["bob"]["role"] == "student" and users["student"]["quota_vms"] == 3


# ── long work ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def slow(folder: Path) -> Path:
    """An installation whose hosts begin no step until the gate is there."""
    (folder / "design").touch()
    (folder / "gate").unlink()
    return folder


def test_work_is_left_running_and_come_back_to(slow: Path) -> None:
    with menu(slow) as terminal:
        terminal.log_in("ann")
        terminal.answer(CHOOSE, "6")
        terminal.asks("Slice ID")
        terminal.send(ENTER)
        terminal.shows("Esc leaves it running, Ctrl-C stops it.")
        terminal.matches(r"10\.0\.10\.[123] +─+ +0/[0-9]+")
        terminal.send(ESC)
        terminal.shows("It goes on: deploy of slice 1000. 26 comes back to it.")
        terminal.shows("1 operation under way")
        terminal.choose("26")
        terminal.shows("1. deploy of slice 1000 (0 of ")
        terminal.answer("Come back to:", "")
        terminal.matches(r"10\.0\.10\.[123] +─+ +0/[0-9]+")
        (slow / "gate").touch()
        terminal.shows("Slice deployed successfully")
        terminal.shows("slice 1000 running")


def test_work_that_ends_meanwhile_is_told_at_the_menu(slow: Path) -> None:
    with menu(slow) as terminal:
        terminal.log_in("ann")
        terminal.answer(CHOOSE, "6")
        terminal.asks("Slice ID")
        terminal.send(ENTER)
        terminal.shows("Esc leaves it running")
        terminal.send(ESC)
        terminal.shows("1 operation under way")
        (slow / "gate").touch()
        terminal.shows("slice 1000 running")
        terminal.choose("1")
        terminal.shows("Slice deployed successfully")


@pytest.mark.parametrize(("answer", "shows"), [("1", "what was made is kept"), ("2", "what was made was rolled back")])
def test_ctrl_c_in_work_begins_no_step_and_asks(slow: Path, answer: str, shows: str) -> None:
    with menu(slow) as terminal:
        terminal.log_in("ann")
        terminal.answer(CHOOSE, "6")
        terminal.asks("Slice ID")
        terminal.send(ENTER)
        terminal.shows("Ctrl-C stops it.")
        terminal.send(CTRL_C)
        terminal.asks("1 keep what was made for a later deploy, 2 roll it back:")
        terminal.send(answer + ENTER)
        (slow / "gate").touch()
        terminal.shows(shows)
        terminal.asks(CHOOSE)


@pytest.mark.parametrize("key", [ESC, CTRL_C])
def test_questions_about_work_can_be_left_and_it_goes_on(slow: Path, key: str) -> None:
    with menu(slow) as terminal:
        terminal.log_in("ann")
        terminal.answer(CHOOSE, "6")
        terminal.asks("Slice ID")
        terminal.send(ENTER)
        terminal.shows("Esc leaves it running")
        terminal.send(ESC)
        for entry, question in (("26", "Come back to:"), ("0", "1 wait for it, 2 leave")):
            terminal.choose(entry)
            terminal.asks(question)
            terminal.send(key)
            terminal.asks(CHOOSE)
        terminal.shows("1 operation under way")
        (slow / "gate").touch()
        terminal.shows("slice 1000 running")


def test_leaving_waits_for_work_where_that_is_chosen(slow: Path) -> None:
    with menu(slow) as terminal:
        terminal.log_in("ann")
        terminal.answer(CHOOSE, "6")
        terminal.asks("Slice ID")
        terminal.send(ENTER)
        terminal.shows("Esc leaves it running")
        terminal.send(ESC)
        terminal.choose("0")
        terminal.shows("Under way: deploy of slice 1000 (0 of ")
        terminal.answer("1 wait for it, 2 leave", "wait for it")
        terminal.matches(r"10\.0\.10\.[123] +─+ +0/[0-9]+")
        (slow / "gate").touch()
        assert terminal.ends() == 0
        assert "Slice deployed successfully" in terminal.past and terminal.past.rstrip().endswith("Goodbye.")
    assert Database(slow / "database.yaml").data["slices"]["1000"]["status"] == "running"


def test_leaving_the_menu_with_work_under_way_asks(slow: Path) -> None:
    with menu(slow) as terminal:
        terminal.log_in("ann")
        terminal.answer(CHOOSE, "6")
        terminal.asks("Slice ID")
        terminal.send(ENTER)
        terminal.shows("Esc leaves it running")
        terminal.send(ESC)
        terminal.choose("0")
        terminal.asks("1 wait for it, 2 leave")
        terminal.send("3" + ENTER)
        terminal.choose("exit")
        terminal.asks("1 wait for it, 2 leave")
        terminal.send("2" + ENTER)
        until = time.monotonic() + 60
        status = terminal.ends()
        assert time.monotonic() < until
    assert status == 130
    assert Database(slow / "database.yaml").data["slices"]["1000"]["status"] == "deploying"
