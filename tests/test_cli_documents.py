"""Documents of commands on an installation, its log, its state file, its hosts, a screen and the lab."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import main
from cli.installation import Installation as Opened
from cloudrepo import logs
from cloudrepo.errors import Message
from cloudrepo.known_hosts import KnownHosts, fingerprint
from crashing import SLICE, Installation
from database import Database
from lab import cli as lab_cli, packages
from lab.errors import LabError
from lab.status import HostStatus, Status
from test_cli_recovery import installation, run
from test_cli_schemas import document, validator
from test_screens import Tunnels

__all__ = ["installation"]  # the fixture

CHECKOUT = Path(__file__).resolve().parent.parent
WORKER = "10.0.10.1"


# ── an installation and its log ─────────────────────────────────────────────────────────────────────────


def test_an_installation_is_made_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "class"
    assert run("init", str(home), "--json") == 0
    made = document("init", capsys)
    assert (made["directory"], made["state"]) == (str(home), str(home / "database.yaml"))
    assert Path(made["settings"]).read_text().startswith("# Every setting")
    assert run("init", str(home), "--json") == 1
    assert document("init", capsys)["error"]["code"] == "init.there"
    assert run("init", "/dev/null/x", "--json") == 1
    assert document("init", capsys)["error"]["code"] == "system"


def test_each_line_of_the_log_is_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUDREPO_STATE", str(tmp_path / "database.yaml"))
    assert run("log", "--json") == 0
    shown = capsys.readouterr()
    assert shown.out == "" and "There is no log yet" in shown.err
    monkeypatch.setenv("TZ", "Asia/Kolkata")  # 5:30 from UTC
    time.tzset()
    try:
        handler = logging.Formatter(logs.FORMAT)
        record = logging.LogRecord("orchestrator_api", logging.WARNING, "", 0, "deploy: no\nTraceback:", (), None)
        record.created, record.msecs, record.process = 1_760_000_000.25, 250.0, 77
        (tmp_path / "cloudrepo.log").write_text(handler.format(record).replace("\n", "\n    ") + "\n")
        assert run("log", "--json", "-n", "9") == 0
    finally:
        monkeypatch.undo()
        time.tzset()
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        **{"schema_version": 1, "time": "2025-10-09T08:53:20.250+00:00", "process": 77, "level": "WARNING"},
        **{"logger": "orchestrator_api", "text": "deploy: no"},
    }
    assert (second["time"], second["text"]) == (None, "Traceback:")
    for one in (first, second):
        validator("log").validate(one)


# ── the state file ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_done_to_a_state_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, copy = tmp_path / "database.yaml", tmp_path / "copy.yaml"
    monkeypatch.setenv("CLOUDREPO_STATE", str(path))
    db = Database(path)
    db.store.keep_generation()
    db.close()
    assert run("state", "export", "--json") == 0
    whole = document("state export", capsys)
    assert whole["file"] is None and len(whole["text"].encode()) == whole["bytes"] and "admin:" in whole["text"]
    assert run("state", "export", str(copy), "--json") == 0
    shown = document("state export", capsys)
    assert (shown["file"], shown["bytes"], shown["text"]) == (str(copy), copy.stat().st_size, None)
    assert run("state", "export", str(copy), "--json") == 1
    assert document("state export", capsys)["error"]["code"] == "state.export"
    assert run("state", "restore", "1", "--yes", "--json") == 0
    done = document("state restore", capsys)
    assert (done["generation"], done["state"]) == ("1", str(path)) and "is generation 1 now" in done["done"][-1]
    assert run("state", "restore", "99", "--yes", "--json") == 1
    assert document("state restore", capsys)["error"]["code"] == "state.generation"
    assert run("state", "use", "yaml", "--yes", "--json") == 1
    assert document("state use", capsys)["error"]["code"] == "state.no_journal"
    path.with_name("database.yaml.journal").write_text("")
    assert run("state", "use", "yaml", "--yes", "--json") == 0
    done = document("state use", capsys)
    assert done["which"] == "yaml" and any("journal is kept" in one for one in done["done"])


def test_a_document_asks_on_the_other_stream_and_no_is_no(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.readline", lambda: "n\n")
    assert run("state", "restore", "1", "--json") == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "unanswered" and "Replace" in shown.err


# ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def keys(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> KnownHosts:
    """The pins of an installation whose hosts all show one key."""
    pins = KnownHosts(installation.state.with_name("known_hosts"))
    transport = SimpleNamespace(shown_key=lambda ip: ("ssh-ed25519", b"new key"))
    options = SimpleNamespace(known_hosts=pins.path, host_keys="strict")
    monkeypatch.setattr(installation.api.executor, "transport", transport, raising=False)
    monkeypatch.setattr(installation.api.executor, "options", options, raising=False)
    for call in ("results", "discover_all"):
        monkeypatch.setattr(installation.api.discovery, call, lambda: answers_of(installation))
    return pins


def answers_of(installation: Installation) -> dict[str, Any]:
    """What workers say of themselves: nothing is wrong, where they are up."""
    sizes = {"max_cores": 4, "max_ram_gb": 8, "max_disk_gb": 100}
    return {
        ip: SimpleNamespace(ok=host.is_up, worker=sizes if host.is_up else None, problems=(), reason=f"{ip} is off")
        for ip, host in installation.hosts.items()
    }


def test_a_key_that_is_pinned_is_said_with_those_before(
    installation: Installation, keys: KnownHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.replace(WORKER, 22, "ssh-ed25519", b"old key")
    new, old = ({"type": "ssh-ed25519", "fingerprint": fingerprint(key)} for key in (b"new key", b"old key"))
    for changed, before in ((True, [old]), (False, [new])):
        assert run("worker", "trust", WORKER, "--yes", "--json") == 0
        told = document("worker trust", capsys)
        assert (told["changed"], told["shown"], told["pinned_before"]) == (changed, new, before)
        assert told["is_worker"] and told["problems"] == []
    assert run("worker", "trust", "10.0.10.77", "--yes", "--json") == 0
    assert document("worker trust", capsys)["is_worker"] is False
    installation.hosts[WORKER].is_up = False
    keys.replace(WORKER, 22, "ssh-ed25519", b"old key")
    assert run("worker", "trust", WORKER, "--yes", "--json") == 1
    told = document("worker trust", capsys)
    assert told["changed"] and told["problems"] == [f"{WORKER} is off"] and told["error"]["code"] == "worker.problems"
    assert run("worker", "trust", "worker1", "--json") == 1
    assert document("worker trust", capsys)["error"]["code"] == "worker.address"


def test_a_host_is_hardened_and_said(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [(True, {"changed": ["the helper was installed"], "warnings": []}), (False, Message("no", code="x.y"))]
    monkeypatch.setattr(installation.api, "harden_worker", lambda ip, **options: answers.pop(0))
    assert run("worker", "harden", WORKER, "--yes", "--json") == 0
    told = document("worker harden", capsys)
    assert (told["changed"], told["undo"], told["script"]) == (["the helper was installed"], False, None)
    assert run("worker", "harden", WORKER, "--yes", "--json") == 1
    assert document("worker harden", capsys)["error"]["code"] == "x.y"


def test_a_screen_is_said_when_its_tunnel_is_open_and_once(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.ok("deploy_slice", "admin", SLICE)
    tunnels = Tunnels()
    monkeypatch.setattr(installation.api.executor, "open_tunnel", tunnels.open_tunnel, raising=False)
    for end, status in ((KeyboardInterrupt(), 0), (SystemExit(128 + signal.SIGTERM), 143)):

        def wait(seconds: float, end: BaseException = end) -> None:
            raise end

        monkeypatch.setattr(time, "sleep", wait)
        assert run("vnc", "vm1", "--json") == status
        told = document("vnc", capsys)
        assert (told["vm_id"], told["host"], told["port"], told["tunnel"]) == (1001, "127.0.0.1", 40123, True)
        assert told["password"]
    installation.ok("stop_slice", "admin", SLICE)
    assert run("vnc", "vm1", "--json") == 1
    assert document("vnc", capsys)["error"]["code"]


# ── the lab ─────────────────────────────────────────────────────────────────────────────────────────────


class OneLab:
    """A lab of one host that is up."""

    def __init__(self) -> None:
        self.was_up = True

    def up(self, options: Any, *, with_parent: Any, say: Any) -> bool:
        say("it takes long")
        return True

    def down(self, *, purge: bool) -> bool:
        return True

    def status(self) -> Status:
        return Status(True, "/x", "m", "own", [HostStatus("h1", WORKER, "compute", 4, 8, "up")])

    def kill(self, ip: str) -> bool:
        if ip != WORKER:
            raise LabError(f"The lab has no host {ip}.", remedy=f"It has {WORKER}.")
        return True

    boot = kill

    def cut(self, ip: str) -> None:
        self.kill(ip)

    heal = cut


def test_what_happens_to_the_lab_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lab_cli, "Lab", OneLab)
    monkeypatch.setattr(lab_cli, "require_root", lambda what: None)
    monkeypatch.setattr(packages, "ensure", lambda *, assume_yes, say: say("a package"))
    for words in ("up", "status", f"kill {WORKER}", f"boot {WORKER}", f"cut {WORKER}", f"heal {WORKER}", "down"):
        assert run("lab", *words.split(), "--json") == 0
        told = document(f"lab {words.split()[0]}", capsys)
        assert told["ok"] and told["command"] == f"lab {words.split()[0]}"
        assert run("lab", *words.split()) == 0
        assert capsys.readouterr().out
    assert run("lab", "kill", "10.0.10.9", "--json") == 1
    assert document("lab kill", capsys)["error"]["hint"] == f"It has {WORKER}."


def test_the_records_are_opened_for_these(installation: Installation) -> None:
    """Or the tests above would have asked an installation of their own."""
    assert Opened.open(lambda db: None).path == installation.state


ON_A_FULL_DISK = """
import errno, main, sys
from cloudrepo.stores import folding
def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
folding.Fold._render = full
sys.exit(main.main(sys.argv[1:]))
"""


def test_what_was_done_is_done_where_it_does_not_come_into_the_state_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Document and exit status agree, a person is told, and the next command brings it there."""
    state = tmp_path / "database.yaml"
    monkeypatch.setenv("CLOUDREPO_STATE", str(state))
    assert main.main(["slice", "create", "one", "--json"]) == 0
    before = state.read_bytes()
    words = (sys.executable, "-c", ON_A_FULL_DISK, "slice", "create", "two", "--json")  # its end lets go of the journal
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"] is True and state.read_bytes() == before
    assert f"{state} cannot be written: No space left on device" in done.stderr
    assert f"it is in {state}.journal, and the next command brings it into the file" in done.stderr
    capsys.readouterr()
    assert main.main(["slice", "list", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["slices"]] == ["one", "two"]
    assert b"two" in state.read_bytes() and not state.with_name("database.yaml.journal").exists()
