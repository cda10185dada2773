"""`./cloud menu`: what the caller brings along counts for nothing, and nothing is opened but the menu."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import signal
import sys
from pathlib import Path

import pexpect
import pytest

import main
from cli import boundary
from cloudrepo.errors import CloudError
from test_cli_commands import CHECKOUT, run

ACCOUNT = pwd.getpwuid(os.geteuid())


# ── nothing is opened ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sent", "is_terminal", "says"),
    [("id", True, "no commands and no file transfer"), ("", False, "needs a terminal"), ("", True, "")],
)
def test_a_command_or_a_missing_terminal_is_refused(sent: str, is_terminal: bool, says: str) -> None:
    refusal = boundary.why_not({"SSH_ORIGINAL_COMMAND": sent} if sent else {}, is_terminal=is_terminal)
    assert says in refusal and bool(refusal) == bool(says)


def test_without_a_terminal_nothing_is_read_and_nothing_made(tmp_path: Path) -> None:
    done = run("menu", "--state", str(tmp_path / "database.yaml"), folder=tmp_path, SSH_ORIGINAL_COMMAND="scp -f x")
    assert (done.returncode, done.stdout) == (64, "")
    assert "no file transfer" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", ["database.yaml", "../database.yaml", "~/database.yaml"])
def test_a_relative_state_file_is_refused(named: str) -> None:
    """The working directory is the caller's, and so would be the users in it."""
    with pytest.raises(CloudError, match="is not named from the root on"):
        boundary.state_file(named, "/home/cloud")


def test_a_state_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A fresh one lets the shipped users in with the shipped passwords."""
    with pytest.raises(CloudError, match="there is no state file"):
        boundary.state_file(str(tmp_path / "database.yaml"), "/")
    assert list(tmp_path.iterdir()) == []


def test_by_default_it_is_the_one_in_the_accounts_home(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/database.yaml").touch()
    assert boundary.state_file("", str(tmp_path)) == tmp_path / "cluster/database.yaml"


@pytest.mark.parametrize("words", [["menu", "--nonsense"], ["menu", "x"], ["menu", "--state"]])
def test_other_words_are_usage(words: list[str], tmp_path: Path) -> None:
    assert run(*words, folder=tmp_path).returncode == 64


# ── the environment ─────────────────────────────────────────────────────────────────────────────────────


def test_of_the_environment_a_few_plain_words_stay(tmp_path: Path) -> None:
    sent = {"TERM": "xterm-256color", "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.1 22", "SUDO_USER": "ann"}
    hostile = {
        **{"CLOUDREPO_STATE": "/tmp/x", "CLOUDREPO_MONITOR_HOOK": "[sh]", "CLOUDREPO_LAB_ONLY": "1", "HOME": "/tmp"},
        **{"PYTHONPATH": "/tmp", "LD_PRELOAD": "x.so", "SSH_AUTH_SOCK": "/tmp/a", "LESS": "!sh", "PATH": "/tmp"},
        **{"COLORTERM": "true\x1b]0;x", "NO_COLOR": "1" * 300, "USER": "root", "LOGNAME": "root", "COLUMNS": "1"},
    }
    environ = sent | hostile
    boundary.clear_environment(environ, ACCOUNT, tmp_path)
    ours = {"CLOUDREPO_STATE": str(tmp_path), "PATH": boundary.PATH, "LANG": "C.UTF-8"}
    who = {"HOME": ACCOUNT.pw_dir, "USER": ACCOUNT.pw_name, "LOGNAME": ACCOUNT.pw_name}
    assert environ == sent | ours | who


def test_the_ways_out_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(signal, "signal", lambda number, how: done.append((number, how)))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: done.append((what, limits)))
    monkeypatch.setattr(os, "umask", lambda mask: done.append(("umask", mask)))
    monkeypatch.setattr(os, "chdir", lambda path: done.append(("in", path)))
    boundary.close_ways_out()
    assert done == [
        (signal.SIGTSTP, signal.SIG_IGN),
        (signal.SIGQUIT, signal.SIG_IGN),
        (resource.RLIMIT_CORE, (0, 0)),
        ("umask", 0o077),
        ("in", "/"),
    ]


def test_the_menu_does_not_ask_about_a_journal_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is there is no operator, and the question has no pause between guesses."""
    from cli import menu

    asked: list[bool] = []

    def open_menu(before_write: object, *, may_decide: bool) -> int:
        asked.append(may_decide)
        return 0

    monkeypatch.setattr(menu, "open_menu", open_menu)
    monkeypatch.setattr(boundary, "why_not", lambda environ, *, is_terminal: "")
    monkeypatch.setattr(boundary, "state_file", lambda named, home: Path(named))
    monkeypatch.setattr(boundary, "clear_environment", lambda *args: None)
    monkeypatch.setattr(boundary, "close_ways_out", lambda: None)
    assert main.main(["menu", "--state", "/x/database.yaml"]) == 0
    assert asked == [False]


# ── the whole of it, in a terminal ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`cloud` with an environment that is complete, as an operator leaves it."""
    folder = tmp_path / "program"
    folder.mkdir()
    for name in ("cloud", "requirements.txt"):
        shutil.copy(CHECKOUT / name, folder / name)
    (folder / "main.py").write_text(
        f"import runpy, sys\nsys.path[0] = {str(CHECKOUT)!r}\n"
        f"runpy.run_path({str(CHECKOUT / 'main.py')!r}, run_name='__main__')\n"
    )
    venv = folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), venv / "pyvenv.cfg") if Path(
        sys.prefix, "pyvenv.cfg"
    ).exists() else None
    (venv / "lib").symlink_to(Path(sys.prefix, "lib"))
    shutil.copy(CHECKOUT / "requirements.txt", venv / "pins-requirements.txt")
    return folder / "cloud"


def test_hostile_variables_and_keys_meet_the_login_and_nothing_else(program: Path, tmp_path: Path) -> None:
    state = tmp_path / "cluster/database.yaml"
    state.parent.mkdir(mode=0o700)
    state.write_text("users: {}\nworkers_list: []\nworkers: {}\nslices: {}\n")
    evil = tmp_path / "evil"
    (evil / "bin").mkdir(parents=True)
    mark = evil / "reached"
    (evil / "sitecustomize.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (evil / "profile").write_text(f"touch {mark}\n")
    for name in ("bash", "python", "env", "readlink", "bin/python"):
        (evil / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (evil / name).chmod(0o755)
    shutil.copy(CHECKOUT / "database.yaml", evil / "database.yaml")
    hostile = {
        **{"PATH": f"{evil}:/usr/bin:/bin", "BASH_ENV": str(evil / "profile"), "ENV": str(evil / "profile")},
        **{"BASH_FUNC_set%%": f"() {{ touch {mark}; }}", "PYTHONPATH": str(evil), "PYTHONINSPECT": "1"},
        **{"CLOUDREPO_STATE": str(evil / "database.yaml"), "CLOUDREPO_VENV": str(evil), "TERM": "xterm"},
        **{"CLOUDREPO_PYTHON": str(evil / "python"), "SHELLOPTS": "xtrace", "PS4": f"$(touch {mark})"},
    }
    child = pexpect.spawn(
        str(program), ["menu", "--state", str(state)], env=hostile, cwd=str(evil), encoding="utf-8", timeout=60
    )
    try:
        for keys in ("\x1a", "\x1c"):
            child.expect_exact("Username:")
            child.send(f"{keys}admin\r")
            child.expect_exact("Password:")
            child.send("admin\r")
            child.expect_exact("wrong user name or password")  # which it is in the state that was named
            child.kill(signal.SIGTSTP)  # as those keys do while no question is there to take them
            child.kill(signal.SIGQUIT)
        child.expect_exact("Username:")
        child.send("\x04")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
    assert not mark.exists()
    assert sorted(path.name for path in evil.iterdir()) == sorted(
        ["bash", "bin", "database.yaml", "env", "profile", "python", "readlink", "sitecustomize.py"]
    )


def test_an_environment_that_is_not_complete_is_not_completed_in_a_strangers_session(program: Path) -> None:
    (program.parent / ".venv/pins-requirements.txt").write_text("others\n")
    done = pexpect.spawn(str(program), ["menu"], encoding="utf-8", timeout=60)
    try:
        done.expect_exact("The menu cannot start: its Python environment")
        done.expect_exact("cloud --version")
        done.expect(pexpect.EOF)
    finally:
        done.close(force=True)
    assert done.exitstatus == 1
