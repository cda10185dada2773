"""Looks at the lab's hosts with twelve VMs: `python -m bench.monitoring.on_lab PASSES`, where the orchestrator is.

A host's share is the time its processors spent on us: the processes of sshd, sudo and the runner, with those that
ended meanwhile. What was there both before and after counts.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import threading
import time
from typing import Any

from control.watch import Watcher
from orchestrator_api import build

OURS = ("python3", "sshd", "sudo")
VMS = 12
TICKS = os.sysconf("SC_CLK_TCK")
LOOK = r"""
import glob, json
found = {}
for path in glob.glob("/proc/[0-9]*/stat"):
    try:
        head, _, rest = open(path).read().rpartition(")")
    except OSError:
        continue
    pid, _, name = head.partition(" (")
    found[pid] = [name, sum(map(int, rest.split()[11:15]))]
print(json.dumps(found))
"""


def measure(state: str, passes: int) -> dict[str, Any]:
    """Deploy, look so many times, delete; times in seconds a look."""
    api = build(state)
    hosts = [row["ip"] for row in _ok(api.cluster_status())["workers"]]
    api.discovery.discover_all()
    with api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = VMS
    slice_id = _ok(api.create_slice("admin", "monitored"))["slice_id"]
    for number in range(VMS):
        _ok(api.add_vm_to_slice("admin", slice_id, f"vm{number}", "cirros", 1))
    _ok(api.deploy_slice("admin", slice_id))
    watcher, stop = Watcher(api.context, "monitor"), threading.Event()
    try:
        for _ in range(3):  # connections and runners are there
            watcher.look(stop)
        before = {ip: _seen(api, ip) for ip in hosts}
        walls, cpu = [], time.process_time()
        for _ in range(passes):
            began = time.perf_counter()
            decision = watcher.look(stop)
            walls.append(time.perf_counter() - began)
            assert decision is not None and not decision.repairs
        cpu = time.process_time() - cpu
        after = {ip: _seen(api, ip) for ip in hosts}
    finally:
        watcher.close()
        api.delete_slice("admin", slice_id)
        api.executor.close()
    spent = [_spent(before[ip], after[ip]) / passes for ip in hosts]
    return {
        "hosts": len(hosts),
        "vms": VMS,
        "passes": passes,
        "wall_s": statistics.median(walls),
        "wall_most_s": max(walls),
        "cpu_s": cpu / passes,
        "host_cpu_s": statistics.mean(spent),
        "host_cpu_most_s": max(spent),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _ok(answer: tuple[bool, Any]) -> Any:
    done, payload = answer
    assert done, payload
    return payload


def _seen(api: Any, ip: str) -> dict[str, list[Any]]:
    done = api.executor.execute_direct(ip, ("python3", "-c", LOOK))
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def _spent(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> float:
    both = [pid for pid in before if pid in after and before[pid][0] == after[pid][0] and before[pid][0] in OURS]
    return float(sum(after[pid][1] - before[pid][1] for pid in both)) / TICKS


if __name__ == "__main__":
    print(json.dumps(measure(os.environ["CLOUDREPO_STATE"], int(sys.argv[1]))))
