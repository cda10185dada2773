"""`./cloud drift` and `./cloud state rebuild` as a person and as a program meet them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import drift as shown
from cli.ask import Ask
from cli.documents import NotDone
from cli.installation import Installation
from cli.keyboard import TerminalKeyboard
from cli.screen import Screen
from cli.state_rebuild import rebuild_state
from fakes.orchestrator import hosts_of, orchestrator
from worlds import WORKER


class Answers(Ask):
    """A keyboard with one answer."""

    def __init__(self, *, yes: bool) -> None:
        super().__init__(TerminalKeyboard())
        self.answer = yes
        self.asked: list[str] = []

    def yes(self, label: str, *, default: bool | None = None) -> bool:
        self.asked.append(label)
        return self.answer


class Room:
    """A running slice, and what is shown of it."""

    def __init__(self, folder: Path) -> None:
        self.api = orchestrator(folder)
        for call, *arguments in (
            ("create_slice", "admin", "test"),
            ("add_vm_to_slice", "admin", 1000, "vm1", "cirros", 1),
            ("deploy_slice", "admin", 1000),
        ):
            done, payload = getattr(self.api, str(call))(*arguments)
            assert done, payload
        self.installation = Installation(folder / "database.yaml", self.api.db, self.api.settings, self.api)
        self.worker = hosts_of(self.api)[WORKER]
        self.stream = io.StringIO()
        self.screen = Screen(self.stream, width=200)

    def drift(self, words: str | None = None, *, as_json: bool = False) -> int:
        return self.told(lambda: shown.show_drift(self.installation, words, self.screen, as_json=as_json))

    def fix(self, *, yes: bool = True, answer: bool = False, as_json: bool = False) -> int:
        self.keyboard = Answers(yes=answer)
        options = {"as_json": as_json, "assume_yes": yes}
        return self.told(lambda: shown.fix_drift(self.installation, None, self.screen, self.keyboard, **options))

    def rebuild(self, *, force: bool, as_json: bool = False) -> int:
        name = self.api.site.installation
        return self.told(lambda: rebuild_state(self.installation, (), name, self.screen, force=force, as_json=as_json))

    def told(self, work: Callable[[], int]) -> int:
        """As `commands.run` ends it."""
        try:
            return work()
        except NotDone as error:
            self.screen.complain(error.answer)
            return 1

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_nothing_differs_is_status_0(room: Room) -> None:
    assert room.drift() == 0
    assert "0 differences: " in room.text and "missing" not in room.text


def test_a_difference_is_status_2_and_says_both_values(room: Room) -> None:
    room.worker.devices["tap_1001_eth1"].user = "nobody"
    assert room.drift() == 2
    assert "changed" in room.text and "TAP tap_1001_eth1 (slice 1000)" in room.text
    assert "owner nobody, wanted ubuntu" in room.text


def test_a_silent_host_is_status_1_and_the_rest_is_shown(room: Room) -> None:
    hosts_of(room.api)["10.0.10.2"].is_up = False
    del room.worker.devices["tap_1001_eth1"]
    assert room.drift() == 1
    assert "10.0.10.2" in room.text and "nothing is said of it" in room.text and "tap_1001_eth1" in room.text


def test_json_is_one_document_on_standard_output(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    del room.worker.devices["tap_1001_eth1"]
    assert room.drift(as_json=True) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1 and document["counts"]["missing"] == 1 and room.text == ""
    assert room.fix(as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"schema_version", "ok", "before", "fixed", "left", "failed", "after"}
    assert (document["before"]["differences"] > 0, document["after"]["differences"]) == (True, 0)


def test_without_a_terminal_and_without_yes_nothing_is_changed(room: Room) -> None:
    del room.worker.devices["tap_1001_eth1"]
    assert room.fix(yes=False, answer=True) == 1
    assert "--yes" in room.text and "tap_1001_eth1" not in room.worker.devices


@pytest.mark.parametrize(("answer", "status"), [(True, 0), (False, 1)])
def test_on_a_terminal_it_asks_first(room: Room, monkeypatch: pytest.MonkeyPatch, answer: bool, status: int) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    del room.worker.devices["tap_1001_eth1"]
    assert room.fix(yes=False, answer=answer) == status
    assert room.keyboard.asked == ["Set 2 objects right"]  # the TAP, and the machine that lost it
    assert ("tap_1001_eth1" in room.worker.devices) is answer


def test_what_is_left_is_status_2_and_said(room: Room) -> None:
    room.worker.devices["tap_1001_eth0"].alias = "cloudrepo/0000beef/1000/1001/eth0"
    assert room.fix() == 2
    assert "stands where ours should be" in room.text and "What is left" in room.text and "0000beef" in room.text


def test_rebuilding_says_what_could_not_be_known(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    name = room.api.site.installation
    assert room.rebuild(force=False) == 1
    assert "it has slices" in room.text
    assert room.rebuild(force=True) == 0
    assert "Rebuilt 1 slice with 1 VM" in room.text and "What could not be known" in room.text
    assert "passwords" in room.text and "before-rebuild-1" in room.text
    assert room.rebuild(force=True, as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema_version"], document["slices"], document["installation"]) == (1, 1, name)


@pytest.mark.parametrize(("words", "status"), [("test", 0), ("1000", 0), ("nonsense", 1), ("4711", 1)])
def test_a_slice_is_named_by_id_or_name(room: Room, words: str, status: int) -> None:
    assert room.drift(words) == status
    assert (f"There is no slice {words}." in room.text) is bool(status)


def test_disks_that_would_be_lost_are_said_before_the_question(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with room.api.db.transaction() as data:
        del data["slices"]["1000"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert room.fix(yes=False, answer=False) == 1
    assert "1 disk in no record will be removed" in room.text and "state rebuild --force" in room.text
    assert any(path.endswith("vm1_img.qcow2") for path in room.worker.files)
