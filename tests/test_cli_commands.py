"""The entry point and the one-shot commands: exit statuses, the state path, first installations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import main
from cli.installation import Installation, state_path
from cloudrepo.settings import Settings
from database import Database

CHECKOUT = Path(__file__).resolve().parent.parent


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`main.py` as a process of its own, in a folder of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDREPO_")}
    return subprocess.run(
        (sys.executable, str(CHECKOUT / "main.py"), *words),
        cwd=folder,
        env=clean | {"CLOUDREPO_LAB_ONLY": "1", "CLOUDREPO_LAB_DIR": str(folder / "no-lab")} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["nonsense"], 64),
        (["worker"], 64),
        (["worker", "add"], 64),
        (["--nonsense"], 64),
        (["log", "-n", "many"], 64),
        (["bench", "nonsense"], 64),
        (["lab", "nonsense"], 64),
    ],
)
def test_exit_statuses(words: list[str], status: int, tmp_path: Path) -> None:
    done = run(*words, folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "database.yaml").exists()


def test_the_version_is_said(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout == "Cloud Repositorio 0.1.0\n"


@pytest.mark.parametrize(
    "text", ["- a\n- list\n", "users: [", "\x00\x01", "users: {}\nslices: 7\nworkers_list: []\nworkers: {}\n"]
)
def test_a_damaged_state_file_is_one_sentence_and_left_alone(text: str, tmp_path: Path) -> None:
    state = tmp_path / "database.yaml"
    state.write_bytes(text.encode())
    done = run("status", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(state) in done.stderr
    assert state.read_bytes() == text.encode()
    assert not (tmp_path / "database.yaml.backup").exists()


def test_an_unknown_setting_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("ssh:\n  usr: x\n")
    done = run("status", folder=tmp_path)
    assert done.returncode == 1
    assert "ssh.user" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_menu_without_a_terminal_says_so_and_names_the_one_shot_command(tmp_path: Path) -> None:
    done = run(folder=tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("The menu needs a terminal, and there is none.") and "./cloud deploy" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_state_is_backed_up_at_the_start(tmp_path: Path) -> None:
    assert run("init", "here", folder=tmp_path).returncode == 0
    state = tmp_path / "here" / "database.yaml"
    before = state.read_bytes()
    assert run("status", folder=tmp_path, CLOUDREPO_STATE=str(state)).returncode == 0
    assert (tmp_path / "here" / "database.yaml.backup").read_bytes() == before


def test_init_makes_an_installation_once(tmp_path: Path) -> None:
    first = run("init", "here", folder=tmp_path)
    assert first.returncode == 0
    folder = tmp_path / "here"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir() if "lock" not in path.name) == [
        "database.yaml",
        "settings.yaml",
    ]
    assert yaml.safe_load((folder / "settings.yaml").read_text()) is None
    assert f"export CLOUDREPO_STATE={folder}/database.yaml" in first.stdout
    before = (folder / "database.yaml").read_bytes()
    second = run("init", "here", folder=tmp_path)
    assert second.returncode == 1
    assert (folder / "database.yaml").read_bytes() == before


def test_status_contacts_nobody_of_an_untouched_cluster(tmp_path: Path) -> None:
    done = run("status", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "has never been contacted" in done.stdout
    assert "10.0.10.1" in done.stdout


def test_a_cluster_whose_keys_are_pinned_was_contacted_also_when_no_worker_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thirty menus one may read the state while no worker is in it: it must not ask its student about that."""
    path = tmp_path / "database.yaml"
    installation = Installation(path, Database(str(path)), Settings.of({}))
    monkeypatch.delenv("CLOUDREPO_LAB_DIR", raising=False)
    assert installation.untouched
    (tmp_path / "known_hosts").write_text("")
    assert not installation.untouched


@pytest.mark.parametrize("words", [["console", "web"], ["vnc", "1001"]])
def test_a_console_of_an_unknown_vm(words: list[str], tmp_path: Path) -> None:
    done = run(*words, folder=tmp_path)
    assert done.returncode == 1
    assert f"There is no VM {words[1]}" in done.stdout


def test_a_worker_is_named_by_its_address(tmp_path: Path) -> None:
    done = run("worker", "add", "worker-1; rm", folder=tmp_path)
    assert done.returncode == 1
    assert "named by its IP address" in done.stdout
    content = yaml.safe_load((tmp_path / "database.yaml").read_text())
    assert content["workers_list"] == ["10.0.10.1", "10.0.10.2", "10.0.10.3"]


def test_the_state_path_is_that_of_the_environment_else_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDREPO_STATE", raising=False)
    assert state_path() == Path("database.yaml")
    monkeypatch.setenv("CLOUDREPO_STATE", "/x/y.yaml")
    assert state_path() == Path("/x/y.yaml")


def test_ctrl_c_is_130_and_says_nothing_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_dispatch", interrupted)
    assert main.main([]) == 130
    assert capsys.readouterr() == ("", "\n")


THREADS_THAT_LINGER = """
import threading, time
import bcrypt
import main

salt = bcrypt.gensalt(4)

def toil():
    while True:
        bcrypt.hashpw(b"x", salt)  # Rust, which gives the interpreter's lock away meanwhile

def answered(words):
    for _ in range(4):
        threading.Thread(target=toil, daemon=True).start()
    time.sleep(0.1)
    print("said at last", end="")
    return 3

main._answered = answered
main._run()
"""


@pytest.mark.parametrize("time_", range(3))
def test_threads_that_linger_do_not_abort_the_process(time_: int) -> None:
    words = (sys.executable, "-c", THREADS_THAT_LINGER)
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said at last", "")
