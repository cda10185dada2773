"""`./cloud doctor --fix`: shows what it would do, asks, does nothing else, and asks again of what shows only then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cli.keyboard import TerminalKeyboard
from crashing import Installation
from test_cli_recovery import installation, run
from test_cli_schemas import document

__all__ = ["installation"]  # the fixture
A, B = "10.0.10.1", "10.0.10.2"
BRIDGE = [(A, "make br-int (netdev datapath)"), (A, "add eth1 to br-int")]
UPLINK = [(A, "switch eth1 on, until its next boot")]


class Hosts:
    """A façade with this to set right, one list after another, and what was asked of it."""

    def __init__(self, *rounds: list[tuple[str, str]]) -> None:
        self.rounds = list(rounds)
        self.asked: list[Any] = []
        self.fails = False

    def doctor(self, hosts: Any = (), vlans: Any = ()) -> tuple[bool, dict[str, Any]]:
        fixes = [{"host": host, "text": text} for host, text in (self.rounds[0] if self.rounds else [])]
        level = "wrong" if fixes else "ok"
        finding = {"code": "hosts.bridge", "level": level, "text": f"{A}: br-int", "evidence": "", "remedy": ""}
        found = [{**finding, "hosts": [A]}]
        return True, {"findings": found, "fixes": fixes, "hosts": [A, B], "vlans": "100,400", "seconds": 1.0}

    def doctor_fix(self, hosts: Any = (), vlans: Any = (), agreed: Any = None) -> tuple[bool, dict[str, Any]]:
        self.asked.append((list(hosts), list(vlans), [(one["host"], one["text"]) for one in agreed]))
        said: dict[str, Any] = {"changed": [], "failed": list(agreed)} if self.fails else {"changed": list(agreed)}
        if not self.fails:
            self.rounds.pop(0)
        return True, {**self.doctor()[1], "failed": [], **said}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A person at a terminal who answers this; a question more is an error."""
    given: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(TerminalKeyboard, "read", lambda self, prompt, **options: given.pop(0))
    yield given
    assert not given, "not all was asked"


def made(installation: Installation, monkeypatch: pytest.MonkeyPatch, *rounds: list[tuple[str, str]]) -> Hosts:
    hosts = Hosts(*rounds)
    monkeypatch.setattr(installation.api, "doctor", hosts.doctor)
    monkeypatch.setattr(installation.api, "doctor_fix", hosts.doctor_fix)
    return hosts


@pytest.fixture
def hosts(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """A bridge is gone, and when it is there again its uplink is off."""
    return made(installation, monkeypatch, BRIDGE, UPLINK)


def test_a_look_changes_nothing_and_asks_nothing(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--json") == 1
    found = document("doctor", capsys)
    assert [one["text"] for one in found["fixes"]] == [text for _, text in BRIDGE]
    assert hosts.asked == [] and "changed" not in found


def test_a_dry_run_is_the_list(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--fix", "--dry-run") == 2
    shown = capsys.readouterr().out
    assert "To be set right:" in shown and f"  {A}  make br-int (netdev datapath)\n" in shown
    assert run("doctor", "--fix", "--dry-run", "--yes", "--json") == 2
    assert document("doctor", capsys)["ok"] and hosts.asked == []


def test_without_a_terminal_and_without_yes_nothing_is_changed(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert run("doctor", "--fix") == 1
    shown = capsys.readouterr().out
    assert "Nothing was changed. `--yes`" in shown and "make br-int" in shown
    assert run("doctor", "--fix", "--json") == 1
    assert document("doctor", capsys)["error"]["code"] == "unanswered" and hosts.asked == []


@pytest.mark.parametrize(
    ("typed", "agreed", "status"), [("n", [], 1), ("y n", [BRIDGE], 1), ("y y", [BRIDGE, UPLINK], 0)]
)
def test_a_person_is_asked_of_each_list(
    hosts: Hosts, answers: list[str], typed: str, agreed: list[Any], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answers += typed.split()
    assert run("doctor", "--fix", "--host", A, "--vlans", "100") == status
    assert hosts.asked == [([A], [100], one) for one in agreed]
    shown = capsys.readouterr().out
    assert ("Nothing was changed" in shown) is (not agreed)
    assert (f"{A}: switch eth1 on" in shown) is (agreed[1:] == [UPLINK])


def test_with_yes_both_lists_are_done_and_one_document_says_so(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor", "--fix", "--yes", "--json") == 0
    found = document("doctor", capsys)
    assert [(one["host"], one["text"]) for one in found["changed"]] == BRIDGE + UPLINK
    assert found["fixes"] == [] == found["failed"]


def test_what_fails_is_not_tried_for_ever(hosts: Hosts, answers: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    answers.append("y")
    hosts.fails = True
    assert run("doctor", "--fix", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert len(hosts.asked) == 1 and len(found["failed"]) == 2 and found["changed"] == []


def test_where_nothing_is_ours_to_set_right_nobody_is_asked(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, answers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sound = made(installation, monkeypatch)
    assert run("doctor", "--fix") == 0
    assert "Nothing of it is ours to set right." in capsys.readouterr().out and sound.asked == []
