"""`./cloud monitor`, its systemd unit, `./cloud events`, and what the status screen says of the monitor."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import health_monitor
from cli.events import show_events
from cli.monitor import unit
from cli.screen import Screen
from cli.screens.cluster import show_cluster
from cli.screens.slices import show_slice
from cloudrepo import notify
from cloudrepo.events import EventLog
from cloudrepo.leadership import Leadership, holder
from control import watch

CHECKOUT = Path(__file__).resolve().parent.parent


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `main.py` as a process of its own, on the state file in a folder; it ends with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDREPO_")}
        process = subprocess.Popen(
            (sys.executable, str(CHECKOUT / "main.py"), *words),
            cwd=folder,
            env=clean | {"CLOUDREPO_LAB_ONLY": "1", "CLOUDREPO_STATE": str(folder / "database.yaml")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
            process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line it prints; it is killed when none comes."""
    timer = threading.Timer(30, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        return process.stdout.readline()
    finally:
        timer.cancel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installation whose only worker is this machine's loopback, where nothing listens on that port."""
    (tmp_path / "database.yaml").write_text("users: {}\nworkers_list: [127.0.0.9]\nslices: {}\n")
    settings = "monitor: {interval: 0.2, misses: 2}\nssh: {port: 1, connect_timeout: 0.5}\nnetwork: {node: 127.0.0.9}\n"
    (tmp_path / "settings.yaml").write_text(settings)
    return tmp_path


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_says_a_line_for_each_change_and_ends_in_order(number: int, status: int, folder: Path, start: Start) -> None:
    process = start(folder, "monitor")
    events = EventLog(folder / "events.jsonl")
    until = time.monotonic() + 30
    while not any(event.what == "worker.down" for event in events.read()) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    found = holder(folder / ".cloudrepo")
    assert found is not None and (found.pid, found.kind) == (process.pid, "monitor")
    process.send_signal(number)
    said, complaints = process.communicate(timeout=60)
    assert process.returncode == status, complaints
    lines = said.splitlines()
    assert any("127.0.0.9 did not answer" in line for line in lines)
    assert sum("127.0.0.9 is down" in line for line in lines) == 1
    assert lines[-1] == "Ended; the state is saved."
    assert holder(folder / ".cloudrepo") is None
    observed = json.loads((folder / ".cloudrepo" / "observed.json").read_text())
    assert observed["workers"]["127.0.0.9"]["state"] == "down"


def test_a_second_monitor_waits_and_says_for_whom(folder: Path, start: Start) -> None:
    first = Leadership(folder / ".cloudrepo", "monitor")
    assert first.lead()
    process = start(folder, "monitor")
    assert line_of(process) == f"Waiting: {holder(folder / '.cloudrepo')} watches the hosts.\n"
    first.release()
    assert line_of(process) == "Watching 1 host every 0.2 s. Ctrl-C ends it.\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_cluster_that_may_be_somebody_elses_is_not_watched(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path, "monitor")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "never been contacted" in said
    assert not (tmp_path / ".cloudrepo" / "observed.json").exists()


# ── the unit ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_unit_names_the_state_and_the_program_and_survives_strange_paths(tmp_path: Path) -> None:
    state = tmp_path / 'a 100% "lab" $HOME' / "database.yaml"
    text = unit(state, cloud=Path("/opt/my cloud/cloud"), user="ann", venv="/v env")
    real = os.path.realpath(state)
    quoted = real.replace("%", "%%").replace('"', '\\"').replace("$", "$$")
    assert f'Environment="CLOUDREPO_STATE={quoted}"' in text
    assert 'Environment="CLOUDREPO_VENV=/v env"' in text
    assert 'ExecStart="/opt/my cloud/cloud" monitor' in text
    assert f"WorkingDirectory={os.path.dirname(real).replace('%', '%%')}" in text
    assert "User=ann" in text and "KillMode=mixed" in text
    for line in text.splitlines():
        assert not line or line.startswith(("#", "[")) or "=" in line


def test_systemd_waits_longer_than_an_end_in_order_takes(tmp_path: Path) -> None:
    text = unit(tmp_path / "database.yaml")
    [line] = [line for line in text.splitlines() if line.startswith("TimeoutStopSec=")]
    ways = 2  # a hook and mail
    longest_s = 2 * health_monitor.STOP_WAIT_S + watch.CLOSE_WAIT_S + watch.CUT_WAIT_S + ways * notify.CLOSE_WAIT_S
    assert longest_s < float(line.partition("=")[2])
    assert f"takes longer than {watch.CLOSE_WAIT_S:g} s" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    folder = tmp_path / "an installation"
    folder.mkdir()
    path = tmp_path / "cloud-monitor.service"
    path.write_text(unit(folder / "database.yaml", user="root"))
    done = subprocess.run(("systemd-analyze", "verify", str(path)), capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if path.name in line]) == (0, []), done.stderr


def test_the_unit_is_printed_for_a_state_file_that_is_there(folder: Path, start: Start) -> None:
    process = start(folder, "monitor", "--print-unit")
    said, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert f'Environment="CLOUDREPO_STATE={folder}/database.yaml"' in said
    (folder / "database.yaml").unlink()
    process = start(folder, "monitor", "--print-unit")
    said, complaints = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "") and "There is no state file" in complaints


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────


def show(folder: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> list[str]:
    stream = io.StringIO()
    wanted = {"count": 40, "follow": False, "about": "", "as_json": False, **options}
    assert show_events(folder, Screen(stream, width=200), **wanted) == 0
    return (stream.getvalue() + capsys.readouterr().out).splitlines()


def test_events_are_shown_for_people_and_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, capsys) == [f"Nothing is in {tmp_path}/events.jsonl."]
    assert show(tmp_path, capsys, as_json=True) == []
    events = EventLog(tmp_path / "events.jsonl")
    events.record("create_slice", who="ann", about="slice 1000", slice_name="net\x1b[2J lab")
    events.record("deploy_slice", who="ann", about="slice 1000", outcome="refused", reason="it has no VMs")
    events.record("vm.died", who="monitor", about="vm 1001", outcome="warning", text="VM 1001 died", slice=1000)
    lines = show(tmp_path, capsys)
    assert [line.split("  ", 1)[1] for line in lines] == [
        r"ann  create_slice slice 1000: done; slice_name net\x1b[2J lab",
        "ann  deploy_slice slice 1000: refused; it has no VMs",
        "monitor  vm.died vm 1001: warning; VM 1001 died",
    ]
    assert len(show(tmp_path, capsys, count=1)) == 1
    assert len(show(tmp_path, capsys, about="1001")) == 1
    assert len(show(tmp_path, capsys, about="slice 1000")) == 3
    found = [json.loads(line) for line in show(tmp_path, capsys, as_json=True)]
    assert [one["schema_version"] for one in found] == [1, 1, 1]
    assert found[1]["details"] == {"reason": "it has no VMs"}


def test_events_are_followed_until_ctrl_c(folder: Path, start: Start) -> None:
    events = EventLog(folder / "events.jsonl")
    events.record("before", who="ann", about="slice 1000")
    process = start(folder, "events", "--follow", "--json", "-n", "1", "--about", "slice 1000")
    assert json.loads(line_of(process))["what"] == "before"
    events.record("other", who="ann", about="slice 1001")
    events.record("after", who="ann", about="slice 1000")
    assert json.loads(line_of(process))["what"] == "after"
    process.send_signal(signal.SIGINT)
    rest, complaints = process.communicate(timeout=60)
    assert (process.returncode, rest, complaints) == (130, "", "")


@pytest.mark.parametrize("words", [("events", "--follow"), ("events", "--follow", "--json"), ("log", "-f")])
def test_following_ends_when_it_is_told_to_or_nobody_reads(folder: Path, start: Start, words: tuple[str, ...]) -> None:
    EventLog(folder / "events.jsonl").record("before", who="ann", about="slice 1000")
    (folder / "cloudrepo.log").write_text("before\n")
    process = start(folder, *words)
    assert "before" in line_of(process)
    process.terminate()
    assert (process.communicate(timeout=60), process.returncode) == (("", ""), 143)
    process = start(folder, *words)
    assert "before" in line_of(process)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # and nothing more happens that would be written
    assert process.wait(30) == 1
    with process.stderr:
        assert process.stderr.read() == ""


def test_a_log_is_followed_over_its_rotation(folder: Path, start: Start) -> None:
    path = folder / "cloudrepo.log"
    path.write_text("before\n")
    process = start(folder, "log", "-f")
    assert line_of(process) == "before\n"
    path.rename(folder / "cloudrepo.log.1")
    path.write_text("after\n")
    assert line_of(process) == "after\n"
    process.terminate()
    process.communicate(timeout=60)


# ── what is shown ───────────────────────────────────────────────────────────────────────────────────────


def shown(status: dict[str, Any]) -> str:
    stream = io.StringIO()
    show_cluster(Screen(stream, width=160), status)
    return stream.getvalue()


def test_the_status_screen_says_who_watches_how_long_ago_and_what_is_in_use() -> None:
    worker = {"ip": "10.0.10.1", "state": "suspect", "reason": "no answer", "load": None}
    loaded = {"ip": "10.0.10.2", "state": "up", "load": {"cpu_percent": 12.5, "ram_gb": 3.0, "disk_gb": None}}
    monitor = {"text": "./cloud monitor (process 7, since then)", "last_pass": "x", "age_s": 4.2, "took_s": 0.05}
    monitor |= {"is_stale": False, "save_error": "no space", "vms": {"killed": 1, "running": 11}}
    text = shown({"workers": [worker, loaded], "monitor": monitor})
    assert "Monitor: ./cloud monitor (process 7, since then)" in text
    assert "last look 4 s ago, took 0.05 s; VMs: 1 killed, 11 running" in text
    assert "The state cannot be saved: no space" in text
    measured = text[text.index("In use now") :].splitlines()
    assert [line.split() for line in measured[:3]] == [
        ["In", "use", "now", "CPU", "%", "RAM", "GB", "Disk", "GB"],
        ["10.0.10.2", "12.5", "3", "?"],
        [],
    ]
    assert "suspect" in text
    assert "too old to go by" in shown({"workers": [], "monitor": {**monitor, "is_stale": True}})
    assert "nobody watches the hosts" in shown({"workers": [], "monitor": {"text": "", "last_pass": None}})


def test_a_slice_shows_what_was_seen_where_it_is_not_what_should_be() -> None:
    base = {"name": "vm1", "worker_ip": "10.0.10.1", "vnc_port": 5901, "disk_gb": 1, "interfaces": []}
    vms = [
        {**base, "vm_id": 1001, "status": "running", "observed": "running", "observed_reason": "", "error": ""},
        {**base, "vm_id": 1002, "status": "running", "observed": "killed", "observed_reason": "abort", "error": ""},
        {**base, "vm_id": 1003, "status": "error", "observed": "off", "observed_reason": "", "error": "died: abort"},
        {**base, "vm_id": 1004, "status": "running", "observed": None, "observed_reason": "", "error": ""},
    ]
    record = {"slice_id": 1000, "status": "running", "vms": vms, "links": [], "name": "", "error": ""}
    stream = io.StringIO()
    show_slice(Screen(stream, width=160), record | {"vlan_pool_start": 100, "vlan_pool_end": 119})
    lines = [line.strip() for line in stream.getvalue().splitlines()]
    assert lines[2:8] == [
        "└─ VM 1001: vm1 (VNC: 5901, Worker: 10.0.10.1, Disk: 1 GB)",
        "└─ VM 1002: vm1 (VNC: 5901, Worker: 10.0.10.1, Disk: 1 GB, seen: killed)",
        "abort",
        "└─ VM 1003: vm1 (VNC: 5901, Worker: 10.0.10.1, Disk: 1 GB, error)",
        "died: abort",
        "└─ VM 1004: vm1 (VNC: 5901, Worker: 10.0.10.1, Disk: 1 GB)",
    ]
