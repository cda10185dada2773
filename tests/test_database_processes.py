"""Several processes at one state file, some of them killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from database import Database

ROOT = Path(__file__).parent.parent
ADD_A_SLICE = """
import sys
from cloudrepo import allocation
from cloudrepo.settings import Settings
from database import Database
from models import Slice
db, vlan = Database(sys.argv[1]), Settings().vlan
for _ in range(int(sys.argv[2])):
    with db.transaction() as data:
        slice_id = allocation.next_id(data)
        start, end = allocation.choose_block(data, slice_id, vlan)
        data["slices"][str(slice_id)] = Slice(slice_id, "admin", vlan_pool_start=start, vlan_pool_end=end).to_dict()
    print(slice_id, flush=True)
"""


def start(path: Path, count: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", ADD_A_SLICE, str(path), str(count)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def acknowledged(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    with process.stdout as out:  # not `communicate`, which passes over what `readline` has read ahead
        words = out.read().split()
    process.wait(timeout=60)
    return words


def test_thirty_processes_each_make_a_change(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"  # not there yet: they also race to make it
    processes = [start(path, 1) for _ in range(30)]
    given = [slice_id for process in processes for slice_id in acknowledged(process)]
    assert [process.returncode for process in processes] == [0] * 30
    data = yaml.safe_load(path.read_text())
    assert sorted(given) == sorted(data["slices"]) == [str(number) for number in range(1000, 1030)]
    assert len({record["vlan_pool_start"] for record in data["slices"].values()}) == 30
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".cloudrepo",
        "database.yaml",
        "database.yaml.backup",
    ]


def test_killed_writers_leave_a_whole_file_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    Database(path)
    given: set[str] = set()
    for delay_ms in (0, 3, 7, 11, 17, 23, 31, 41):
        process = start(path, 1000)
        assert process.stdout is not None
        given.add(process.stdout.readline().strip())
        time.sleep(delay_ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        given.update(acknowledged(process))
        found = set(Database(path).data["slices"])
        assert given <= found
        assert len(found - given) <= 8  # at most one each, written and not yet told
    db = Database(path)
    db.next_operation()  # no lock of the dead is left
    db.close()
    assert given <= set(yaml.safe_load(path.read_text())["slices"])
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {".cloudrepo", "database.yaml", "database.yaml.backup"}
