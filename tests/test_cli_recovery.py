"""One-shot commands on slices, and what the command line and the menu say and do after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import commands
from cli.installation import Installation as Opened
from cloudrepo.leadership import Leadership
from cloudrepo.settings import Settings
from crashing import SLICE, Installation
from fakes.facade import FakeApi
from test_cli_menu import LOGIN, converse

DEAD: dict[str, Any] = {
    "slice_id": 1000, "name": "one", "kind": "deploy", "is_dead": True, "is_handed": False, "is_waiting": False,
    "text": "slice 1000 “one”: deploying, begun 2026-01-01 by ann; process 7 on manager has ended",
}  # fmt: skip


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """Slice 1000 called `lab`, designed; what the command line opens."""
    made = Installation(tmp_path)
    made.designed()

    def opened(before_write: Any) -> Opened:
        return Opened(made.state, made.api.db, Settings.of({}), made.api)

    monkeypatch.setattr(Opened, "open", opened)
    monkeypatch.setenv("CLOUDREPO_STATE", str(made.state))
    yield made


def crash(installation: Installation) -> None:
    """An orchestrator dies half-way through the deploy."""
    installation.killed(40, lambda api: api.deploy_slice("admin", SLICE))


def run(*words: str) -> int:
    return commands.run(words, lambda db: None)


def test_a_slice_is_deployed_stopped_started_and_deleted_by_name_or_id(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, status in (
        (("deploy", "lab"), "running"),
        (("stop", "1000"), "stopped"),
        (("start", "lab"), "running"),
        (("delete", "1000"), "gone"),
    ):
        assert run(*words) == 0
        assert installation.states()[0] == status
    shown = capsys.readouterr()
    assert "Slice deployed successfully" in shown.out and "Slice deleted" in shown.out and shown.err == ""


def test_json_is_one_document_and_talk_goes_to_stderr(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", "lab", "--json") == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["schema_version"], document["command"], document["ok"]) == (1, "deploy", True)
    (done,) = document["operations"]
    assert (done["slice_id"], done["name"], done["ok"], done["code"]) == (SLICE, "lab", True, "done")
    assert done["message"] == "Slice deployed successfully" and done["details"]["emulated"]
    assert "start VM" in shown.err
    assert run("deploy", "lab", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    (done,) = document["operations"]
    assert not document["ok"] and done["code"] == "slice.state" and done["details"]["state"] == "running"


def test_slices_that_are_not_one(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("deploy", "nothing") == 1
    assert "There is no slice nothing" in capsys.readouterr().out
    installation.ok("create_slice", "student", "lab")
    assert run("delete", "lab") == 1
    assert "Several slices are called lab: 1000, 1003" in capsys.readouterr().out
    assert run("delete", "1000", "--as", "student") == 1
    assert "Not authorized" in capsys.readouterr().out
    assert installation.states()[0] == "design"
    assert run("deploy") == run("resume", "--nonsense") == 64


def test_no_wait_hands_over_to_a_monitor_or_is_refused_by_name(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", "lab", "--no-wait") == 1
    assert "no `./cloud monitor` runs" in capsys.readouterr().out
    monitor = Leadership(installation.state.parent / ".cloudrepo", "monitor")
    assert monitor.lead()
    assert run("deploy", "lab", "--no-wait", "--json") == 0
    monitor.release()
    assert json.loads(capsys.readouterr().out)["operations"][0]["message"] == "Handed to the monitor: deploy slice 1000"
    assert installation.states()[0] == "deploying"
    assert installation.api.executor.plans == []
    assert run("resume", "--list") == 0
    assert "handed to the monitor, which has not begun" in capsys.readouterr().out
    assert run("rollback", "lab") == 0
    assert installation.states()[0] == "design"


def test_after_a_crash_every_command_names_the_remedy_in_one_line(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    crash(installation)
    assert run("stop", "nothing") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 operation not finished" in line and "slice 1000" in line and "`./cloud resume`" in line
    assert run("resume", "--list") == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "slice 1000 “lab”: deploying, begun " in shown.out and "has ended" in shown.out


def test_resume_without_a_slice_ends_all_that_is_dead(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    crash(installation)
    assert run("resume", "--list", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["unfinished"]
    assert (found["slice_id"], found["kind"], found["is_dead"], found["who"]) == (SLICE, "deploy", True, "admin")
    assert run("resume", "--json") == 0
    (done,) = json.loads(capsys.readouterr().out)["operations"]
    assert (done["slice_id"], done["message"]) == (SLICE, "Slice deployed successfully")
    assert installation.states()[0] == "running"
    assert run("resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["operations"] == []
    assert run("resume", "lab") == 1
    assert "has nothing unfinished" in capsys.readouterr().out


def test_rollback_is_one_command(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    before = installation.picture()
    crash(installation)
    assert run("rollback", "lab") == 0
    assert "Slice 1000 was rolled back: it is design" in capsys.readouterr().out
    assert installation.picture() == before


# ── the menu ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("answer", "call"), [("1", "resume"), ("rollback", "rollback"), ("3", "")])
def test_the_menu_lists_what_was_under_way_and_does_what_is_chosen(
    monkeypatch: pytest.MonkeyPatch, answer: str, call: str
) -> None:
    api = FakeApi()
    api.create_slice("ann", "one")
    api.unfinished = [DEAD]
    shown, keyboard, status = converse(monkeypatch, api, *LOGIN, answer, "0")
    assert status == 0 and keyboard.prompts[2] == "1 resume, 2 rollback, 3 leave: "
    what, who = DEAD["text"].split("; ")
    assert shown.index(f"  {what}\n    {who}\n") < shown.index("1. Cluster status")
    assert (call, 1000) in api.calls if call else api.unfinished == [DEAD]


def test_a_host_that_is_waited_for_is_named_and_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    api.unfinished = [{**DEAD, "is_waiting": True}]
    shown, keyboard, _ = converse(monkeypatch, api, *LOGIN, "0")
    assert DEAD["text"].replace("; ", "\n    ") in shown and "ends by itself" in shown
    assert keyboard.prompts[2] == "Choose: "


def test_the_menu_starts_and_stops_a_slice_and_recovers_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    api.create_slice("ann", "one")
    alive = {**DEAD, "is_dead": False, "text": "somebody is at it"}
    api.unfinished = [alive]
    shown, _, _ = converse(monkeypatch, api, *LOGIN, "12", "1000", "13", "11", "", "0")
    assert [call for call in api.calls if call[0] in ("start", "stop")] == [("stop", 1000), ("start", 1000)]
    for line in ("11. Start Slice", "12. Stop Slice", "13. Resume or roll back", "0. Exit"):
        assert line in shown
    assert "Nothing is unfinished." in shown  # the fake ends everything of a slice with any call on it


def test_ctrl_c_at_the_question_after_the_login_opens_the_menu(monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.ask import Back

    api = FakeApi()
    api.unfinished = [DEAD]
    shown, _, status = converse(monkeypatch, api, *LOGIN, Back, "0")
    assert status == 0 and "1. Cluster status" in shown and api.unfinished == [DEAD]
