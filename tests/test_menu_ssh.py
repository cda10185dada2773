"""The menu over a real SSH: a walk, other letters, other sizes, and a connection that is cut while hosts work."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from database import Database
from menu_process import PASSWORD
from menu_terminal import CHOOSE, CTRL_C, DOWN, ENTER, ESC, HERE, PATIENCE_S, Terminal
from private_sshd import PrivateSshd, private_sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSshd]:
    with private_sshd(tmp_path_factory.mktemp("door"), "AcceptEnv LANG LC_*") as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installation with a slice of two machines, whose hosts do what they are told at once."""
    for name in ("gate", "design"):
        (tmp_path / name).touch()
    return tmp_path


@contextmanager
def menu(sshd: PrivateSshd, folder: Path, **variables: str) -> Iterator[Terminal]:
    """`ssh -tt` to the menu, as somebody at another PC would; `variables` are of that PC."""
    remote = ("env", f"PYTHONPATH={HERE.parent}:{HERE}", sys.executable, str(HERE / "menu_process.py"), str(folder))
    options = {
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(sshd.directory / "known_hosts"),
        "IdentitiesOnly": "yes",
        "SendEnv": "LANG LC_*",
        "LogLevel": "ERROR",
    }
    words = ["-tt", "-F", "none", "-i", sshd.key_file, "-p", str(sshd.port)]
    words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    words += [f"{sshd.user}@127.0.0.1", *remote, "ann", "student"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDREPO_", "LC_"))}
    environment |= {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | variables
    child: pexpect.spawn[bytes] = pexpect.spawn("ssh", words, env=environment, dimensions=(24, 80), timeout=PATIENCE_S)
    child.delaybeforesend = None
    try:
        yield Terminal(child, 80, 24)
    finally:
        child.close(force=True)


def menus(folder: Path) -> set[int]:
    """Processes that serve this installation on the other side."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and b"-tt" not in words:
            found.add(int(entry.name))
    return found


def wait_until_gone(folder: Path) -> None:
    """Until no process serves it any more."""
    until = time.monotonic() + PATIENCE_S
    while menus(folder):
        assert time.monotonic() < until, f"left behind: {menus(folder)}"
        time.sleep(0.05)


def test_a_walk_and_other_sizes(sshd: PrivateSshd, folder: Path) -> None:
    with menu(sshd, folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("10")
        terminal.answer("Slice ID [1000]:", "")
        terminal.shows("link 1  vm1 eth1 ── vm2 eth1")
        terminal.choose("create slice")
        terminal.asks("Slice name:")
        terminal.send(CTRL_C)
        terminal.shows("Back to the menu. Nothing was changed.")
        terminal.asks(CHOOSE)
        terminal.send(DOWN)
        terminal.matches(r"Choose: 1\s*\n\s+1 +Cluster status")
        terminal.send(ESC)
        terminal.until(lambda: "     Cluster status" not in terminal.text, "the list to close")
        terminal.send("\x15")
        for columns, rows in ((120, 40), (60, 15), (80, 24)):
            terminal.resize(columns, rows)
            terminal.send("2" + ENTER)
            terminal.asks("Slice name:")
            terminal.send(ESC)
            terminal.asks(CHOOSE)
            terminal.until(lambda rows=rows: terminal.lines[rows - 1].startswith("ann | VMs"), "the status at the foot")
            assert max(map(len, terminal.lines)) <= columns
        terminal.choose("0")
        assert terminal.ends() == 0
    assert menus(folder) == set()


def test_a_pc_that_shows_no_utf8_gets_ascii(sshd: PrivateSshd, folder: Path) -> None:
    with menu(sshd, folder, LANG="C") as terminal:
        seen = terminal.listen()
        terminal.log_in("ann")
        terminal.choose("5")
        terminal.until(lambda: "  `- VM 1002: vm2" in terminal.past, "the slice")
        terminal.shows(".-------------.")
        terminal.choose("6")
        terminal.answer("Slice ID [1000]:", "")
        terminal.shows("Slice deployed successfully")
        terminal.choose("0")
        assert terminal.ends() == 0
    sent = b"".join(seen).decode("ascii")
    assert "\\u" not in sent


def test_a_connection_that_is_cut_leaves_the_work_in_the_journal(sshd: PrivateSshd, folder: Path) -> None:
    """As after any death of a process: the next login is told, and rolls it back (to hosts that are new, and empty)."""
    (folder / "gate").unlink()
    with menu(sshd, folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("6")
        terminal.asks("Slice ID")
        terminal.send(ENTER)
        terminal.matches(r"10\.0\.10\.[123] +─+ +0/[0-9]+")
        assert menus(folder)
        terminal.child.kill(signal.SIGKILL)
        wait_until_gone(folder)
    record = Database(folder / "database.yaml").data["slices"]["1000"]
    assert record["status"] == "deploying" and record["operation"]["kind"] == "deploy"
    (folder / "gate").touch()
    with menu(sshd, folder) as terminal:
        terminal.answer("Username:", "ann")
        terminal.asks("Password:")
        terminal.send(PASSWORD + ENTER)
        terminal.matches(r"\n +process \d+ on \S+ has ended\n")
        terminal.answer("1 resume, 2 rollback, 3 leave:", "rollback")
        terminal.asks(CHOOSE)
        terminal.choose("0")
        assert terminal.ends() == 0
    record = Database(folder / "database.yaml").data["slices"]["1000"]
    assert record["status"] == "design" and not record.get("operation")


def test_a_connection_that_is_cut_at_a_question_leaves_nothing(sshd: PrivateSshd, folder: Path) -> None:
    with menu(sshd, folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("2")
        terminal.asks("Slice name:")
        terminal.send("half a na")
        terminal.shows("half a na")
        terminal.child.kill(signal.SIGKILL)
        wait_until_gone(folder)
    assert list(Database(folder / "database.yaml").data["slices"]) == ["1000"]
