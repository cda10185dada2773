"""What one process measures of a state file; run as a program, it prints one JSON object.

python -m bench.storage.client load|commit|fold|menu FILE …
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()


def peak_mib() -> float:
    """The most memory this process had at a time."""
    return _status("VmHWM")


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def load(path: Path) -> dict[str, Any]:
    """Open a state; seconds without the start of Python and the imports, and with them."""
    from database import Database

    imported = time.perf_counter()
    database = Database(path)
    done = time.perf_counter()
    vms = sum(len(record["vms"]) for record in database.data["slices"].values())
    return {"load_s": done - imported, "imports_s": imported - BEGAN, "vms": vms, "peak_mib": peak_mib()}


def change(database: Any, key: str, status: str) -> None:
    """What a commit is in these figures: one VM of one slice gets another state."""
    with database.transaction() as data:
        data["slices"][key]["vms"][0]["status"] = status


def commit(path: Path, count: int) -> dict[str, Any]:
    """Commits, and between them bare appends of as many bytes with an fsync each."""
    from database import Database

    database = Database(path)
    keys = list(database.data["slices"])
    choose = random.Random(1)  # noqa: S311
    database.next_operation()  # the journal is begun
    journal = path.with_name(path.name + ".journal")
    bare = os.open(path.with_name("bare"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    commits, fsyncs, sizes = list[float](), list[float](), list[int]()
    for number in range(count):
        size = journal.stat().st_size
        key = choose.choice(keys)
        began = time.perf_counter()
        change(database, key, f"state{number}")
        commits.append(time.perf_counter() - began)
        sizes.append(journal.stat().st_size - size)
        line = b"x" * sizes[-1]
        began = time.perf_counter()
        os.write(bare, line)
        os.fsync(bare)
        fsyncs.append(time.perf_counter() - began)
    os.close(bare)
    began = time.perf_counter()
    with database.transaction() as data:
        record = next(iter(data["slices"].values()))  # whoever looks at all of them by `values` pays for all
        record["status"] = "looked at"
    return {"commits": commits, "fsyncs": fsyncs, "bytes": sizes, "touch_all_s": time.perf_counter() - began}


def fold(path: Path, rounds: int) -> dict[str, Any]:
    """Folds of one changed slice, while this process and another one go on writing; the longest pause of each."""
    from cloudrepo.stores.journaled import JournaledStore
    from database import Database

    database, pauses, stop = Database(path), list[float](), threading.Event()
    other = path.with_name("pauses.json")
    pid = os.fork()
    if pid == 0:
        _write_meanwhile(path, other)
    assert isinstance(database.store, JournaledStore)
    writer = threading.Thread(target=_pauses, args=(database, pauses, stop, 0))
    key = list(database.data["slices"])[1]
    while not path.with_name("writing").exists():
        time.sleep(0.02)
    change(database, key, "first")
    database.save()
    folds = list[float]()
    writer.start()
    for number in range(rounds):
        time.sleep(0.3)
        change(database, key, f"fold{number}")
        began = time.perf_counter()
        database.save()
        folds.append(time.perf_counter() - began)
    stop.set()
    writer.join()
    path.with_name("stop").touch()
    os.waitpid(pid, 0)
    database.save()
    change(database, key, "alone")
    database.save()
    return {
        "dumped_alone_bytes": database.store.renderer.dumped_bytes,
        "fold_s": folds,
        "pause_s": max(pauses),
        "other_pause_s": max(json.loads(other.read_text(encoding="ascii"))),
        "file_bytes": path.stat().st_size,
        "peak_mib": peak_mib(),
    }


def _pauses(database: Any, pauses: list[float], stop: threading.Event, slot: int) -> None:
    """Commit every few milliseconds, always to one slice, and note how long each took."""
    key, number = list(database.data["slices"])[slot], 0
    while not stop.is_set():
        number += 1
        began = time.perf_counter()
        change(database, key, f"w{number}")
        pauses.append(time.perf_counter() - began)
        time.sleep(0.004)


def _write_meanwhile(path: Path, report: Path) -> None:
    """Another process that writes until it is told to stop; never returns."""
    from database import Database

    database, pauses, stop = Database(path), list[float](), threading.Event()
    writer = threading.Thread(target=_pauses, args=(database, pauses, stop, 2))
    change(database, list(database.data["slices"])[2], "begun")
    path.with_name("writing").touch()
    writer.start()
    while not path.with_name("stop").exists():
        time.sleep(0.02)
    stop.set()
    writer.join()
    report.write_text(json.dumps(pauses), encoding="ascii")
    os._exit(0)


def menu(path: Path) -> dict[str, Any]:
    """What a menu holds while a person looks at it: façade, state, prompt; then it waits for a line."""
    import prompt_toolkit

    import cli.menu
    from cli.installation import Installation
    from orchestrator_api import build

    os.environ["CLOUDREPO_STATE"] = str(path)
    installation = Installation.open(lambda database: None)
    build(path, db=installation.db)
    assert {cli.menu.__name__, prompt_toolkit.__name__} <= sys.modules.keys()
    print("ready", flush=True)
    sys.stdin.readline()
    return {"rss_mib": _status("VmRSS"), "pss_mib": _pss()}


def _pss() -> float:
    """Memory of this process, what it shares with others counted in parts."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def main() -> None:
    """Measure what the words say."""
    what, path, *rest = sys.argv[1:]
    measures = {"load": load, "commit": commit, "fold": fold, "menu": menu}
    found = measures[what](Path(path), *map(int, rest))  # type: ignore[operator]
    print(json.dumps(found), flush=True)
    os._exit(0)  # the state is thrown away


if __name__ == "__main__":
    main()
