"""Runs as the only program of a guest whose kernel has all controllers: holds processes within limits, as on a host.

The first word is the file of the runner. What became of whom is one line of JSON on the console.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import uuid
from types import SimpleNamespace
from typing import Any

MIB = 1 << 20
GROUP = "cloudrepo-0a1b2c3d/vm-{}"

#: What a process does when it is told to, by the limit that should hold it; it prints what it got.
GREEDY = {
    "memory": "held = bytearray(120 << 20); print(len(held) >> 20)",
    "pids": """
import os, time
children = 0
for _ in range(20):
    try:
        child = os.fork()
    except OSError:
        break
    if child == 0:
        os.close(1)  # else whoever reads it would wait for all of them
        time.sleep(60); os._exit(0)
    children += 1
print(children)
""",
    "cpu": """
import time
until, before = time.monotonic() + 1.5, time.process_time()
while time.monotonic() < until:
    pass
print(round((time.process_time() - before) / 1.5, 3))
""",
}
#: Tight, and so wide that the process gets all it wants.
LIMITS = {
    "memory": (("memory.max", str(48 * MIB)), ("memory.max", str(400 * MIB))),
    "pids": (("pids.max", "8"), ("pids.max", "64")),
    "cpu": (("cpu.max", "20000 100000"), ("cpu.max", "200000 100000")),
}


def runner(path: str) -> Any:
    """What is in the runner, by name."""
    return SimpleNamespace(**runpy.run_path(path))


def tried(acts: Any, number: int, what: str, limit: tuple[str, str]) -> dict[str, Any]:
    """One process in a group of its own: how it ended, what it got, what the group says."""
    token, group, pid_file = str(uuid.uuid4()), GROUP.format(number), f"/pid-{number}"
    words = [sys.executable, "-I", "-S", "-c", f"input()\n{GREEDY[what]}", token]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with open(pid_file, "w", encoding="ascii") as file:
        file.write(f"{process.pid} {acts.state_and_start(process.pid)[1]}\n")
    said = acts.act_confine({"pid_file": pid_file, "token": token, "group": group, "limits": [list(limit)]})
    seen = acts.held_by({"root": "/run/cloudrepo-0a1b2c3d"}, f"/run/cloudrepo-0a1b2c3d/vm-{number}", process.pid)
    got = process.communicate(b"\n")[0].decode().strip()
    place = f"/sys/fs/cgroup/{group}"
    events = {name: acts.read_text(f"{place}/{name}") or "" for name in ("memory.events", "pids.events", "cpu.stat")}
    for left in (acts.read_text(f"{place}/cgroup.procs") or "").split():
        os.kill(int(left), 9)
    return {
        "confined": said, "seen": seen, "status": process.returncode, "got": got, "events": events,
        "released": acts.act_release({"group": group}), "is_gone": not os.path.exists(place),
    }  # fmt: skip


def main() -> None:
    acts = runner(sys.argv[1])
    found: dict[str, Any] = {"controllers": acts.read_text("/sys/fs/cgroup/cgroup.subtree_control")}
    for at, (what, limits) in enumerate(LIMITS.items()):
        tight, wide = (tried(acts, 2 * at + more, what, limit) for more, limit in enumerate(limits))
        found[what] = {"tight": tight, "wide": wide}
    print("\nRESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
