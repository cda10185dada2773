"""``lab down`` leaves nothing, whatever the lab was doing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cluster import Lab
from lab.host_files import host_key, make_keys
from lab.layout import IMAGE_FOLDER, Folder, Options
from lab.namespaces import CHECKOUT, holders_of
from lab_infra.footprint import Held, footprint, machine
from lab_infra.waiting import wait_for

pytestmark = pytest.mark.lab
_KEPT = {"hosts", "images", "keys", "lock", "state"}


def busy(lab: Lab) -> None:
    """Leave a namespace, a TAP and a detached process in a host, and a command outside."""
    lab.host("10.0.10.1", ["ip", "netns", "add", "left"], check=True)
    lab.host("10.0.10.1", ["ip", "tuntap", "add", "left", "mode", "tap"], check=True)
    detached = ["sh", "-c", "setsid --fork sleep 600 </dev/null >/dev/null 2>&1"]
    lab.host("10.0.10.1", detached, check=True, timeout=10)
    lab.exec(detached, check=True, timeout=10)


def host_killed(lab: Lab) -> None:
    lab.kill("10.0.10.2")


def host_died(lab: Lab) -> None:
    os.kill(lab.host_room("10.0.10.2").pid(), signal.SIGKILL)


def cable_cut(lab: Lab) -> None:
    lab.cut("10.0.10.1")


def record_lost(lab: Lab) -> None:
    lab.folder.record.unlink()


def orchestrator_died(lab: Lab) -> None:
    os.kill(lab.orchestrator_room().pid(), signal.SIGKILL)


@pytest.mark.cost(seconds=5)
@pytest.mark.parametrize("befalls", [busy, host_killed, host_died, cable_cut, record_lost, orchestrator_died])
def test_down_leaves_nothing_after(befalls: Callable[[Lab], None], fresh_lab: Lab) -> None:
    before = machine()
    assert fresh_lab.up(Options(workers=2), with_parent=os.getpid())
    assert not fresh_lab.up(Options(workers=2))
    assert machine() == before
    stock = footprint(fresh_lab)
    assert len(stock.processes) > 8
    befalls(fresh_lab)
    assert fresh_lab.down()
    assert not fresh_lab.down()
    wait_for(lambda: not stock.remains(), 30, f"nothing remains of {stock.remains()}")
    assert machine() == before
    assert {path.name for path in fresh_lab.folder.path.iterdir()} == _KEPT


def in_a_network_of_its_own(held: list[Held]) -> int:
    """The number of a network namespace that is gone again, but for what is in `held` then."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline()
        held.append(Held(process.pid, "net"))
        process.kill()
    return held[-1].number


@pytest.mark.cost(seconds=1)
def test_the_number_of_a_namespace_in_a_footprint_is_not_given_to_another_lab() -> None:
    held: list[Held] = []
    numbers = [in_a_network_of_its_own(held) for _ in range(10)]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.cost(seconds=1)
def test_the_key_maker_of_a_killed_up_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on for a moment, and is done with its key while the next one is about to make it."""
    genuine = shutil.which("ssh-keygen")
    slow = tmp_path / "bin" / "ssh-keygen"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\necho >> {tmp_path}/begun\nsleep 0.3\nexec {genuine} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    folder, nodes = Folder(tmp_path / "lab"), Options(workers=1).nodes()
    make = "import sys; from pathlib import Path; from lab.host_files import make_keys; from lab.layout import *; "
    make += "make_keys(Folder(Path(sys.argv[1])), Options(workers=1).nodes())"
    process = subprocess.Popen([sys.executable, "-c", make, str(folder.path)], cwd=CHECKOUT)
    wait_for((tmp_path / "begun").exists, 30, "it makes a key")
    process.kill()
    process.wait()
    make_keys(folder, nodes)
    for key in (folder.private_key, host_key(folder, nodes[0])):
        shown = subprocess.run([str(genuine), "-y", "-f", str(key)], capture_output=True, text=True, check=True).stdout
        assert shown.split()[:2] == key.with_suffix(".pub").read_text().split()[:2]


@pytest.mark.cost(seconds=4)
@pytest.mark.parametrize("after", [0.3, 0.45, 0.6])
def test_an_interrupted_up_leaves_nothing_running_and_can_be_repeated(after: float, fresh_lab: Lab) -> None:
    before = machine()
    process = start_up(fresh_lab)
    time.sleep(after)
    process.kill()
    process.wait()
    wait_for(lambda: not holders_of(str(fresh_lab.folder.path)) or fresh_lab.status().up, 30, "it is gone")
    assert fresh_lab.up(Options(workers=2), with_parent=os.getpid()) or fresh_lab.status().up
    assert [host.state for host in fresh_lab.status().hosts].count("up") >= 2
    assert fresh_lab.down()
    assert machine() == before


@pytest.mark.cost(seconds=4)
def test_a_lab_dies_with_its_parent(fresh_lab: Lab) -> None:
    with subprocess.Popen(["sleep", "600"]) as parent:
        fresh_lab.up(Options(workers=1), with_parent=parent.pid)
        stock = footprint(fresh_lab)
        assert fresh_lab.status().up
        parent.kill()
    wait_for(lambda: not stock.remains(), 30, "the lab is gone")
    assert not fresh_lab.status().up


@pytest.mark.cost(seconds=5)
def test_two_labs_do_not_know_each_other(lab: Lab, fresh_lab: Lab) -> None:
    fresh_lab.up(Options(workers=1), with_parent=os.getpid())
    fresh_lab.host("10.0.10.1", ["touch", "/run/second"], check=True)
    assert lab.host("10.0.10.1", ["test", "-e", "/run/second"]).returncode == 1
    assert fresh_lab.down()
    assert lab.exec(["ping", "-c", "1", "-W", "1", "10.0.10.1"]).returncode == 0
    assert lab.exec(["ls", str(IMAGE_FOLDER)]).stdout.split()


@pytest.mark.cost(seconds=6)
def test_state_keys_and_disks_outlive_down(fresh_lab: Lab) -> None:
    fresh_lab.up(Options(workers=1), with_parent=os.getpid())
    database = fresh_lab.folder.state / "database.yaml"
    assert oct(database.stat().st_mode & 0o777) == "0o600"
    database.write_text(database.read_text(encoding="utf-8") + "# kept\n", encoding="utf-8")
    key = fresh_lab.host("10.0.10.1", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout
    fresh_lab.host("10.0.10.1", ["touch", "/home/ubuntu/kept"], check=True)
    fresh_lab.down()
    fresh_lab.up(Options(workers=1), with_parent=os.getpid())
    assert database.read_text(encoding="utf-8").endswith("# kept\n")
    assert fresh_lab.host("10.0.10.1", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout == key
    assert fresh_lab.host("10.0.10.1", ["test", "-e", "/home/ubuntu/kept"]).returncode == 0


def start_up(lab: Lab) -> subprocess.Popen[bytes]:
    """Start ``lab up`` as a process of its own, with the parent watch of a test."""
    words = [sys.executable, "-m", "lab", "up", "--workers", "2", "--with-parent", str(os.getpid())]
    env = os.environ | {"CLOUDREPO_LAB_DIR": str(lab.folder.path), "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(words, env=env, cwd=Path("/"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
