"""What is written beside the work: the log with its documented lines, the flush, the backup."""

from __future__ import annotations

import logging
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cloudrepo import logs
from health_monitor import HealthMonitor
from on_lab.cluster import Cluster, wait_until

pytestmark = pytest.mark.lab


@pytest.fixture
def log_of() -> Iterator[Callable[[Cluster], Path]]:
    """Sends the log of this process to an installation's file for one test."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level

    def configure(cluster: Cluster) -> Path:
        return logs.configure(cluster.state)

    yield configure
    for handler in [one for one in root.handlers if one not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


@pytest.mark.cost(seconds=6)
def test_the_log_tells_workers_calls_and_host_actions(cluster: Cluster, log_of: Callable[[Cluster], Path]) -> None:
    """Worker list, each worker, each call with user and outcome, each action on a host, each failed save."""
    path = log_of(cluster)
    with cluster.api.db.transaction() as data:
        data["workers_list"] = ["10.0.10.1", "10.0.10.77"]
    cluster.api.discovery.discover_all()
    made = cluster.slice("vm1", flavor="blank")
    cluster.ok("deploy_slice", "admin", made["id"])
    cluster.refused("deploy_slice", "admin", made["id"])
    cluster.refused("deploy_slice", "student", made["id"])
    cluster.ok("delete_slice", "admin", made["id"])
    monitor = HealthMonitor(_Unsaveable(), interval=0.05)
    monitor.start()
    wait_until(lambda: monitor.last_error, 60, "a failed save")
    monitor.stop()

    text = path.read_text()
    for line in (
        r"INFO worker_discovery: Worker list loaded: 10\.0\.10\.1, 10\.0\.10\.77$",
        r"INFO worker_discovery: Worker found: 10\.0\.10\.1: ",
        r"WARNING worker_discovery: Worker skipped: 10\.0\.10\.77: ",
        r"INFO orchestrator_api: add_vm_to_slice by admin: done",
        r"INFO orchestrator_api: deploy_slice by admin: done",
        r"WARNING orchestrator_api: deploy_slice by admin refused: slice \d+ cannot be deployed: it is running",
        r"WARNING orchestrator_api: deploy_slice by student refused: Not authorized",
        r"10\.0\.10\.1: start VM \d+ \(vm1\) ended 0",
        r"ERROR health_monitor: Monitor error: no room",
    ):
        assert re.search(line, text, re.MULTILINE), f"{line}\n{text}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


class _Unsaveable:
    def save(self) -> None:
        raise OSError("no room")


@pytest.mark.cost(seconds=6)
@pytest.mark.parametrize("interval", [1, 15])
def test_the_monitor_flushes_at_its_interval_and_at_its_end(cluster: Cluster, interval: int) -> None:
    """A change made outside of a transaction is in the file after an interval, and in any case after `stop`."""
    monitor = HealthMonitor(cluster.api.db, interval=interval)
    monitor.start()
    began = time.monotonic()
    cluster.api.db.data["users"]["student"]["quota_vms"] = 77

    def saved() -> bool:
        return bool(yaml.safe_load(cluster.state.read_text())["users"]["student"]["quota_vms"] == 77)

    if interval == 1:
        wait_until(saved, 60, "the flush")
        assert time.monotonic() - began > 0.5
    else:
        time.sleep(2)
        assert not saved()
    cluster.api.db.data["users"]["student"]["quota_vms"] = 78
    began = time.monotonic()
    monitor.stop()
    assert time.monotonic() - began < 3
    assert yaml.safe_load(cluster.state.read_text())["users"]["student"]["quota_vms"] == 78


@pytest.mark.cost(seconds=1)
def test_the_file_as_it_was_at_the_start_is_kept(cluster: Cluster) -> None:
    """`database.yaml.backup` is the state before the first write of a process."""
    from database import Database

    before = cluster.state.read_text()
    db = Database(cluster.state)
    with db.transaction() as data:
        data["users"]["student"]["quota_vms"] = 3
    db.save()
    backup = cluster.state.with_name("database.yaml.backup")
    assert backup.read_text() == before != cluster.state.read_text()
