"""The menu over a façade without hosts: what is asked, in which order, and what is printed."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from cli import background, entries
from cli.ask import Ask, Back, Leave
from cli.installation import Installation
from cli.menu import CLI
from cli.screen import Screen
from cloudrepo import permissions
from cloudrepo.leadership import Leadership
from fakes.facade import FakeApi

LOGIN = ("ann", "orange-7")


class Script:
    """A keyboard that types what it is given; an exception in the list is raised, the end is Ctrl-D."""

    def __init__(self, *answers: str | type[Exception]) -> None:
        self.answers = list(answers)
        self.prompts: list[str] = []

    def read(self, prompt: str, *, secret: bool = False, hints: object = None) -> str:
        self.prompts.append(prompt)
        answer = self.answers.pop(0) if self.answers else Leave
        if isinstance(answer, str):
            return answer
        raise answer


class NoMonitor:
    last_error = None

    def start(self) -> None: ...
    def stop(self) -> None: ...


def installation(api: FakeApi) -> Installation:
    fake = cast(Any, api)
    return Installation(Path("database.yaml"), fake.db, fake.settings, fake)


def converse(monkeypatch: pytest.MonkeyPatch, api: FakeApi, *answers: str | type[Exception]) -> tuple[str, Script, int]:
    """Run the menu over `api` with these answers; what was shown, the keyboard, the status."""
    stream, keyboard = io.StringIO(), Script(*answers)
    cli = CLI(
        installation(api),
        screen=Screen(stream, width=100),
        ask=Ask(keyboard),
    )
    monkeypatch.setattr(CLI, "_start_monitor", lambda self: NoMonitor())
    monkeypatch.setattr(CLI, "_discover", lambda self: self._begun.set())
    status = cli.run()
    return stream.getvalue(), keyboard, status


def test_the_documented_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    shown, keyboard, status = converse(
        monkeypatch, api, *LOGIN,
        "2", "net lab",
        "3", "1000", "web", "1", "1", "y",
        "3", "", "db", "cirros", "1", "n",
        "4", "1000", "1001", "eth1", "db", "eth1",
        "5", "6", "1000", "7", "1000", "y", "0",
    )  # fmt: skip

    assert status == 0
    lines = shown.splitlines()
    for line in (
        "Slice created! ID: 1000",
        "VM added! ID: 1001, VNC: 5901, Flavor: cirros",
        "VM added! ID: 1002, VNC: 5902, Flavor: cirros",
        "Link created! ID: 1, VLAN: 100",
        "=" * 70,
        "Slice 1000 [design]: 2 VMs, 1 Links, VLAN pool: 100-119",
        "  └─ VM 1001: web (VNC: 5901, Worker: 10.0.10.1, Disk: 1 GB)",
        "       eth0: 52:54:00:03:e9:00, VLAN 400, internet, 10.60.7.101",
        "       eth1: 52:54:00:03:e9:01, VLAN 100, link 1 to db eth1",
    ):
        assert line in lines
    assert any(line.startswith("Slice deployed successfully") for line in lines)
    assert "Emulated on 10.0.10.2." in lines
    assert any(line.startswith("Slice deleted") for line in lines)
    assert ("create_link", 1000, 1001, "eth1", 1002, "eth1") in api.calls
    first_vm = keyboard.prompts.index("VM name: ")
    assert keyboard.prompts[first_vm - 1 : first_vm + 4] == [
        "Slice ID [1000]: ", "VM name: ", "Flavor: ", "Data interfaces: ", "Internet access (y/n): ",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "before",
    [
        ("2",), ("3",), ("3", "1000"), ("3", "1000", "x"), ("3", "1000", "x", "1"), ("3", "1000", "x", "1", "1"),
        ("4",), ("4", "1000"), ("4", "1000", "1001"), ("6",), ("7",), ("7", "1000"),
    ],
)  # fmt: skip
def test_ctrl_c_at_any_question_returns_to_the_menu_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, before: tuple[str, ...]
) -> None:
    api = FakeApi()
    api.create_slice("ann", "kept")
    api.add_vm_to_slice("ann", 1000, "web", "cirros", 1)
    made = repr(api.slices)
    shown, _keyboard, status = converse(monkeypatch, api, *LOGIN, *before, Back, "0")
    assert repr(api.slices) == made
    assert "Back to the menu. Nothing was changed." in shown
    assert status == 0
    assert shown.count("1. Cluster status") == 2


def test_ctrl_c_at_the_menu_says_how_to_leave_and_ctrl_d_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, _keyboard, status = converse(monkeypatch, FakeApi(), *LOGIN, Back, Leave)
    assert "0 leaves. Nothing was changed." in shown
    assert shown.splitlines()[-1] == "Goodbye."
    assert status == 0


def test_a_first_password_is_changed_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeApi()
    answers = ("bob", "bob", "short", "short", "long enough", "different", "long enough", "long enough", "0")
    shown, keyboard, status = converse(monkeypatch, api, *answers)
    said = capsys.readouterr().out
    assert "At least 8 characters are needed." in said
    assert "The two are not the same." in said
    assert api.passwords["bob"] == "long enough"
    assert "Choose: " not in keyboard.prompts[:8]
    assert "Welcome, bob" in shown
    assert status == 0


def test_leaving_the_first_password_as_it_is_does_not_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, _keyboard, status = converse(monkeypatch, FakeApi(), "bob", "bob", Back)
    assert status == 1
    assert "Welcome" not in shown


def test_wrong_passwords_end_after_five(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    _shown, _keyboard, status = converse(monkeypatch, api, *["ann", "wrong"] * 5, *LOGIN)
    assert status == 1
    assert len(api.calls) == 5


@pytest.mark.parametrize("agreed", ["y", "n"])
def test_an_untouched_cluster_is_asked_about_once_before_it_is_contacted(
    monkeypatch: pytest.MonkeyPatch, agreed: str
) -> None:
    contacted: list[str] = []
    monkeypatch.delenv("CLOUDREPO_LAB_DIR", raising=False)
    stream, keyboard = io.StringIO(), Script(*LOGIN, agreed, "1", "0")
    cli = CLI(
        installation(FakeApi(touched=False)),
        screen=Screen(stream, width=100),
        ask=Ask(keyboard),
    )
    monkeypatch.setattr(CLI, "_start_monitor", lambda self: NoMonitor())

    def discover(self: CLI) -> None:
        contacted.append("all")
        self._begun.set()

    monkeypatch.setattr(CLI, "_discover", discover)
    cli._begin_discovery()
    assert contacted == []
    assert cli.run() == 0
    assert contacted == (["all"] if agreed == "y" else [])
    assert sum("Contact" in prompt for prompt in keyboard.prompts) == 1
    assert "./cloud lab up" in stream.getvalue()
    assert "./cloud worker add IP" in stream.getvalue()


def test_what_people_type_cannot_move_the_cursor_or_be_read_as_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    hostile = "[bold]x[/bold]\x1b[2J\u202e:smile:"
    api.create_slice("ann", hostile)  # as it may stand in a state file; the menu takes no such name
    shown, _keyboard, _status = converse(monkeypatch, api, *LOGIN, "5", "0")
    assert r"[bold]x[/bold]\x1b[2J\u202e:smile:" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_numbers_are_asked_again_until_they_are_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeApi()
    api.create_slice("ann", "one")
    converse(monkeypatch, api, *LOGIN, "3", "two", "1000", "web", "9", "2", "two", "2", "maybe", "n", "0")
    said = capsys.readouterr().out
    assert "None of your slices is two; an ID is a number." in said
    assert "Please choose 1 to 2; found '9'." in said
    assert "Please answer y or n." in said
    assert api.calls[-1] == ("add_vm", 1000, "web", "ubuntu", 2, False, "")


def test_a_failed_deploy_is_said_in_the_words_of_the_facade(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(fail="10.0.10.2: could not add port tap_1001_eth1: no such bridge br-int")
    api.create_slice("ann", "one")
    shown, _keyboard, _status = converse(monkeypatch, api, *LOGIN, "6", "1000", "0")
    assert "10.0.10.2: could not add port tap_1001_eth1: no such bridge br-int" in shown
    assert "10.0.10.3        2/3  step 2" in shown


@pytest.mark.parametrize(("answer", "keep", "said"), [("1", True, "is kept"), ("2", False, "was rolled back")])
def test_ctrl_c_in_a_deploy_begins_no_step_and_asks(
    monkeypatch: pytest.MonkeyPatch, answer: str, keep: bool, said: str
) -> None:
    api = FakeApi(deploy_seconds=0.3)
    api.create_slice("ann", "one")
    interrupt_once(monkeypatch, api)
    shown, _keyboard, status = converse(monkeypatch, api, *LOGIN, "6", "1000", answer, "0")
    assert api.calls[-1] == ("keep", keep)
    assert f"Stopped; what was made {said}." in shown
    assert "step 2" not in shown
    assert status == 0


def test_a_second_ctrl_c_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(deploy_seconds=0.3)
    api.create_slice("ann", "one")
    interrupt_once(monkeypatch, api)
    _shown, _keyboard, status = converse(monkeypatch, api, *LOGIN, "6", "1000", Back)
    assert status == 130
    assert not any(call[0] == "keep" for call in api.calls)


def interrupt_once(monkeypatch: pytest.MonkeyPatch, api: FakeApi) -> None:
    """Let the first wait for the running deploy be ended by Ctrl-C, once its first step is under way."""
    genuine = background.Work.answer
    interrupted: list[bool] = []

    def answer(self: background.Work, timeout_s: float) -> tuple[bool, Any] | None:
        if not interrupted:
            assert api.deploying.wait(30)
            interrupted.append(True)
            raise KeyboardInterrupt
        return genuine(self, timeout_s)

    monkeypatch.setattr(background.Work, "answer", answer)


def test_the_menu_says_who_watches_and_watches_only_once_somebody_is_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks: list[str] = []
    monkeypatch.setattr("control.watch.Watcher", lambda context, kind, **options: lambda stop: looks.append(kind))
    api = FakeApi()
    cast(Any, api).context = None
    fake = cast(Any, api)
    cli = CLI(Installation(tmp_path / "database.yaml", fake.db, fake.settings, fake), screen=Screen(io.StringIO()))
    cli._watch(threading.Event())
    assert looks == []
    cli._say_who_watches()
    cli._watch(threading.Event())
    assert looks == ["menu"]

    def said() -> str:
        stream = io.StringIO()
        cli.screen = Screen(stream, width=200)
        cli._say_who_watches()
        return stream.getvalue()

    assert "No ./cloud monitor runs: this menu watches" in said()
    claim = Leadership(tmp_path / ".cloudrepo", "monitor")
    assert claim.lead()
    assert "The hosts are watched by ./cloud monitor (process" in said()
    claim.release()


def test_a_cluster_that_may_be_somebody_elses_is_not_watched(tmp_path: Path) -> None:
    fake = cast(Any, FakeApi(touched=False))
    cli = CLI(Installation(tmp_path / "database.yaml", fake.db, fake.settings, fake), screen=Screen(io.StringIO()))
    cli._say_who_watches()
    cli._watch(threading.Event())
    assert cli._watcher is None


def test_every_entry_leads_somewhere_and_its_operation_is_known() -> None:
    for entry in entries.ENTRIES:
        assert not entry.target or callable(entries.load(entry.target))
        assert not entry.needs or entry.needs in permissions.RULES
    numbers = [entry.number for entry in entries.ENTRIES]
    assert len(set(numbers)) == len(numbers)


def test_numbers_keep_their_meaning() -> None:
    kept = {
        "1": "Cluster status", "2": "Create Slice", "3": "Add VM to Slice", "4": "Create Link between VMs",
        "5": "View my Slices", "6": "Deploy Slice", "7": "Delete Slice", "8": "Console", "11": "Start Slice",
        "12": "Stop Slice", "13": "Resume or roll back", "14": "Link switches", "15": "Images", "0": "Exit",
    }  # fmt: skip
    assert kept.items() <= {entry.number: entry.words for entry in entries.ENTRIES}.items()
