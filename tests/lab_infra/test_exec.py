"""``lab exec`` and the rest of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cluster import Lab
from lab.layout import IMAGE_NAMES
from lab.namespaces import CHECKOUT
from lab_infra.waiting import wait_for

pytestmark = pytest.mark.lab


def command_line(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"CLOUDREPO_LAB_DIR": str(lab.folder.path)}
    argv = [sys.executable, "-m", "lab", *words]
    return subprocess.run(argv, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.cost(seconds=1)
def test_the_environment_of_exec(lab: Lab, tmp_path: Path) -> None:
    script = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.executable]))"
    env, cwd, python = json.loads(lab.exec(["python", "-c", script], cwd=tmp_path, check=True).stdout)
    state = lab.folder.path / "state"
    assert env["CLOUDREPO_STATE"] == str(state / "database.yaml")
    assert env["CLOUDREPO_SSH_KNOWN_HOSTS"] == str(state / "known_hosts")
    assert env["CLOUDREPO_SSH_KEY"] == str(lab.folder.private_key)
    assert (env["CLOUDREPO_LAB_ONLY"], env["CLOUDREPO_LAB_DIR"]) == ("1", str(lab.folder.path))
    assert env["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert cwd == str(tmp_path)
    assert Path(python).parent == Path(sys.executable).parent


@pytest.mark.cost(seconds=1)
def test_the_images_are_at_the_documented_path(lab: Lab) -> None:
    listed = lab.exec(["ls", "/tmp/vm_images"], check=True).stdout.split()
    assert set(IMAGE_NAMES) <= set(listed)
    info = lab.exec(["qemu-img", "info", "--output=json", f"/tmp/vm_images/{IMAGE_NAMES[0]}"], check=True)
    assert json.loads(info.stdout)["virtual-size"] <= 64 * 1024 * 1024


@pytest.mark.cost(seconds=2)
def test_the_exit_status_is_the_commands(lab: Lab) -> None:
    assert command_line(lab, "exec", "--", "sh", "-c", "exit 7").returncode == 7
    assert command_line(lab, "host", "10.0.10.1", "--", "sh", "-c", "exit 8").returncode == 8
    assert command_line(lab, "exec", "--", "sh", "-c", "kill -9 $$").returncode == 137


@pytest.mark.cost(seconds=2)
def test_a_host_can_be_managed_from_where_the_orchestrator_runs(lab: Lab) -> None:
    words = [sys.executable, "-m", "lab"]
    done = lab.exec([*words, "host", "10.0.10.2", "--", "hostname"], cwd=CHECKOUT)
    assert done.stdout == "worker2\n", done.stderr
    assert lab.exec([*words, "kill", "10.0.10.2"], cwd=CHECKOUT).returncode == 0
    assert lab.exec([*words, "boot", "10.0.10.2"], cwd=CHECKOUT).returncode == 0
    assert [host.state for host in lab.status().hosts] == ["up", "up", "up"]


@pytest.mark.cost(seconds=2)
def test_a_command_that_takes_too_long_is_killed(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.host("10.0.10.1", ["sleep", "4711"], timeout=0.5)
    alive = ["pgrep", "-fx", "sleep 4711"]
    wait_for(lambda: lab.host("10.0.10.1", alive).returncode == 1, 3, "the command is gone")


@pytest.mark.cost(seconds=2)
def test_an_unknown_host_is_one_sentence(lab: Lab) -> None:
    for words in (["kill", "10.0.10.9"], ["host", "nowhere", "--", "true"], ["boot", "8.8.8.8"]):
        done = command_line(lab, *words)
        assert done.returncode == 1
        assert "The lab has no host" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.cost(seconds=1)
def test_status_for_programs(lab: Lab) -> None:
    found = json.loads(command_line(lab, "status", "--json").stdout)
    assert found["up"] is True
    assert [host["address"] for host in found["hosts"]] == ["10.0.10.1", "10.0.10.2", "10.0.10.3"]
    assert [host["role"] for host in found["hosts"]] == ["compute", "compute", "compute + network"]
