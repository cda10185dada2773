"""`./cloud user` as people and programs meet it, and what the menu shows to whom."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from cli.ask import Ask
from cli.menu import CLI
from cli.screen import Screen
from cloudrepo.accounts import verify_password
from cloudrepo.events import FILE_NAME, EventLog
from crashing import Installation
from database import Database
from test_cli_menu import NoMonitor, Script
from test_cli_recovery import installation, run
from test_cli_scripts import process

__all__ = ["installation"]


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_user_from_first_to_last(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("user", "add", "ann", "--role", "instructor", "--generate", "--cores", "4", "--json") == 0
    made = document(capsys)
    assert (made["ok"], made["user"]["role"], made["user"]["quota"]["cores"]["limit"]) == (True, "instructor", 4)
    record = installation.api.db.get_user("ann")
    assert record is not None and verify_password(made["first_password"], record["password_hash"])
    assert record["must_change_password"] is True

    assert run("user", "quota", "ann", "--vms", "2", "--ram", "1.5", "--disk", "unlimited") == 0
    shown = capsys.readouterr().out
    assert "ann" in shown and "0 of 2" in shown and "0 of 1.5" in shown and "unlimited" not in shown
    assert run("user", "quota", "ann", "--json") == 0
    assert document(capsys)["user"]["quota"]["vms"] == {"used": 0, "limit": 2}

    assert run("user", "role", "ann", "admin", "--json") == 0
    assert document(capsys)["role"] == "admin"
    assert run("user", "passwd", "ann", "--generate") == 0
    said = capsys.readouterr().out
    password = said.split("First password: ")[1].split()[0]
    record = installation.api.db.get_user("ann")
    assert record is not None and verify_password(password, record["password_hash"])

    assert run("user", "list", "--json") == 0
    assert [(one["username"], one["role"]) for one in document(capsys)["users"]] == [
        ("admin", "admin"),
        ("ann", "admin"),
        ("student", "student"),
    ]
    assert run("user", "list") == 0
    assert "first password" in capsys.readouterr().out
    assert run("user", "remove", "ann") == 0
    assert "User ann removed." in capsys.readouterr().out
    assert installation.api.db.get_user("ann") is None


def test_what_is_refused_is_said_with_status_1(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("user", "remove", "admin"), "only administrator"),
        (("user", "role", "admin", "student"), "only administrator"),
        (("user", "role", "student", "root"), "is no role"),
        (("user", "quota", "student", "--ram", "lots"), "a quota of ram_gb cannot be 'lots'"),
        (("user", "quota", "nobody"), "User not found"),
        (("user", "remove", "nobody"), "User not found"),
        (("user", "add", "student", "--generate"), "a user student already"),
        (("user", "add", "a b", "--generate"), "cannot be named"),
    ):
        assert run(*words) == 1, words
        assert said in capsys.readouterr().out, words
        assert run(*words, "--json") == 1
        found = document(capsys)
        assert not found["ok"] and said in found["error"]["message"] and "first_password" not in found
    assert run("user", "remove", "") == run("user") == run("user", "role", "student") == 64


def test_slices_are_given_by_command(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    installation.ok("create_slice", "student", "theirs")
    assert run("user", "remove", "student") == 1
    assert "--give-slices-to USER" in capsys.readouterr().out
    assert run("user", "remove", "student", "--give-slices-to", "admin") == 0
    assert [record["owner"] for record in installation.api.db.list_slices()] == ["admin", "admin"]


def test_a_first_password_is_asked_twice(tmp_path: Path) -> None:
    state = tmp_path / "database.yaml"
    done = process("user", "add", "ann", state=state, stdin=None, input="correct horse\ncorrect horse\n")
    assert done.returncode == 0, done.stderr
    user = Database(state).get_user("ann")
    assert user is not None and verify_password("correct horse", user["password_hash"])
    done = process("user", "passwd", "ann", "--json", state=state, stdin=None, input="battery staple\nbattery maple\n")
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["code"] == "password.again"
    done = process("user", "passwd", "ann", state=state)
    assert done.returncode == 1 and "the input ended" in done.stderr
    after = Database(state).get_user("ann")
    assert after is not None and after["password_hash"] == user["password_hash"]
    events = list(EventLog(tmp_path / FILE_NAME).read())
    assert [(event.what, event.who, event.about) for event in events] == [("add_user", "operator", "user ann")]
    assert events[0].details["operator"] and "horse" not in str(events)


def menu(installation: Installation, monkeypatch: pytest.MonkeyPatch, *answers: str) -> str:
    """What a person sees in the menu over the real façade."""
    stream = io.StringIO()
    from cli.installation import Installation as Opened

    opened = Opened(installation.state, installation.api.db, installation.api.settings, installation.api)
    monkeypatch.setattr(CLI, "_start_monitor", lambda self: NoMonitor())
    monkeypatch.setattr(CLI, "_open_workers", lambda self: None)
    CLI(opened, screen=Screen(stream, width=120), ask=Ask(Script(*answers))).run()
    return stream.getvalue()


def test_the_menu_acts_for_who_logged_in_and_shows_an_instructor_everybodys_slices(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = installation.api
    theirs = installation.ok("create_slice", "student", "of a student")["slice_id"]
    for name, role in (("ines", "instructor"), ("sam", "student")):
        assert api.add_user(None, name, "correct horse", role=role)[0]
        assert api.set_password(name, "battery staple")[0]
    shown = menu(installation, monkeypatch, "ines", "battery staple", "5", "7", str(theirs), "y", "0")
    assert f"student: {theirs} “of a student”" in shown and "admin: 1000" in shown
    assert "Slice deleted" in shown
    assert api.session.username == "ines"
    api.session = type(api.session)()
    shown = menu(installation, monkeypatch, "sam", "battery staple", "5", "7", "0")
    assert "of a student" not in shown and "Slices of others" not in shown
    assert "You have no slices yet." in shown
    installation.ok("create_slice", "sam", "his own")
    shown = menu(installation, monkeypatch, "sam", "battery staple", "7", "1000", "0")
    assert "Not authorized" in shown


def test_a_new_user_is_asked_for_a_password_before_anything_else(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = installation.api
    assert api.add_user(None, "ann", "correct horse")[0]
    words = ("x" * 80, "x" * 80, "correct horse", "correct horse", "short", "short", "battery staple", "battery staple")
    shown = menu(installation, monkeypatch, "ann", "correct horse", *words, "0")
    said = capsys.readouterr().out
    for rule in ("80 bytes", "must not be an old one", "too short", "The password was changed."):
        assert rule in said
    assert "Welcome, ann" in shown
    user = api.db.get_user("ann")
    assert user is not None and "must_change_password" not in user


def test_the_menu_says_which_quota_it_was(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    api = installation.api
    api.add_user(None, "ann", "correct horse", quotas={"cores": 0})
    api.set_password("ann", "battery staple")
    api.create_slice("ann", "one")
    shown = menu(installation, monkeypatch, "ann", "battery staple", "3", "", "vm1", "cirros", "1", "n", "0")
    assert "Quota exceeded" in shown and "cores: 0 used of 0, 1 asked for" in shown


def test_an_operator_who_acts_for_somebody_is_in_the_event_log(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.installation import operators_session

    monkeypatch.setattr("getpass.getuser", lambda: "root")
    installation.api.session = operators_session()
    assert run("delete", "lab", "--yes") in (0, 64)
    assert run("delete", "lab") in (0, 1)
    (event,) = [one for one in installation.api.context.events.read() if one.what == "delete_slice"]
    assert (event.who, event.details["operator"]) == ("admin", "root")
