"""A look at many workers that answer at once: `python -m bench.monitoring.simulated WORKERS VMS_PER_WORKER PASSES`.

The hosts are simulated, all else is what runs in a `./cloud monitor`: the records in a state file, the questions, the
JSON of the answers and its parsing, the decision, the snapshot that is written, the threads. Each host takes
`ANSWER_S` to answer, as one over a fast network does.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cloudrepo.naming import machine_dir
from cloudrepo.plan import Plan, PlanResult, StepResult
from control.watch import Watcher
from database import Database
from deployment_api import DeploymentAPI
from orchestrator_api import OrchestratorAPI

ANSWER_S = 0.005
MEMINFO = "MemTotal: 65841532 kB\nMemFree: 12345678 kB\nMemAvailable: 43210987 kB\n" + "Other: 1 kB\n" * 45


class Hosts:
    """An executor whose hosts have what the records say."""

    remote_user = "ubuntu"

    def __init__(self, installation: str, vms: dict[str, list[int]]) -> None:
        self.installation = installation
        self.vms = vms
        self.ticks = 0

    def images_home(self, host: str) -> str:
        """As the account's."""
        return self.home(host)

    def home(self, host: str) -> str:
        """As on every host."""
        return "/home/ubuntu"

    def another(self) -> Hosts:
        """The same: there are no connections."""
        return self

    def close(self) -> None:
        """There is none."""

    def gather(self, work: Any) -> dict[str, Any]:
        """All at once."""
        with ThreadPoolExecutor(max(1, len(work))) as pool:
            return dict(zip(work, pool.map(lambda call: call(), work.values()), strict=True))

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        """Answer the questions of a look."""
        time.sleep(ANSWER_S)
        self.ticks += 1
        texts = {
            "boot": "0b7c4d3e-9a51-4c4d-8a73-0c5a0e6f1b2c\n",
            "processors": f"cpu  {4000 + self.ticks} 0 900 {90000 + self.ticks} 50 0 3 0 0 0\n" + "cpu0 1 2 3 4\n" * 32,
            "memory": MEMINFO,
            "space": "1B-blocks Avail\n1099511627776 549755813888\n",
            "machines": json.dumps([self._machine(vm_id) for vm_id in self.vms.get(host, ())]),
            "servers": "[]",
        }
        steps = [step.name for step in plan.observe]
        observed = {name: StepResult(name=name, label=name, status=0, out=texts[name]) for name in steps}
        return PlanResult(host=host, observed=observed)

    def _machine(self, vm_id: int) -> dict[str, Any]:
        facts = {
            "dir": machine_dir(self.installation, vm_id),
            "mark": f"cloudrepo/{self.installation}/1000/{vm_id}/eth0",
        }
        return facts | {"pid": vm_id, "alive": True, "start_time": 1, "process_state": "S", "status": "running"}


def prepare(folder: Path, workers: int, vms_per_worker: int) -> OrchestratorAPI:
    """An installation with slices of ten VMs, all of which run."""
    db = Database(folder / "database.yaml")
    ips = [f"10.{number // 250}.{number % 250}.1" for number in range(workers)]
    placed: dict[str, list[int]] = {ip: [] for ip in ips}
    with db.transaction() as data:
        data["workers_list"] = ips
        sizes = {"max_vms": 99, "max_cores": 32, "max_ram_gb": 64, "max_disk_gb": 1000, "accel": "tcg"}
        data["workers"] = {ip: {"ip": ip, **sizes} for ip in ips}
        vm_id = 1000
        for first in range(0, workers * vms_per_worker, 10):
            vm_id += 1
            slice_id, vms = vm_id, []
            for number in range(first, min(first + 10, workers * vms_per_worker)):
                vm_id += 1
                ip = ips[number % workers]
                placed[ip].append(vm_id)
                vm = {"vm_id": vm_id, "name": f"vm{number}", "owner": "admin", "worker_ip": ip, "status": "running"}
                vms.append(vm | {"cores": 1, "ram_gb": 0.5, "disk_gb": 1, "interfaces": []})
            record = {"slice_id": slice_id, "owner": "admin", "name": "s", "status": "running", "vms": vms, "links": []}
            data["slices"][str(slice_id)] = record
    return OrchestratorAPI(db, DeploymentAPI(Hosts(db.installation, placed)))


def measure(workers: int, vms_per_worker: int, passes: int) -> dict[str, Any]:
    """Times in seconds, memory in MiB; the first look, which makes everything, is not among the samples."""
    with tempfile.TemporaryDirectory(prefix="cloud-bench-") as folder:
        api = prepare(Path(folder), workers, vms_per_worker)
        watcher, stop = Watcher(api.context, "monitor"), threading.Event()
        before = _peak_mib()
        walls, cpus = [], []
        for _ in range(passes + 1):
            wall, cpu = time.perf_counter(), time.process_time()
            decision = watcher.look(stop)
            assert decision is not None and not decision.repairs and not decision.notices
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        size = (Path(folder) / ".cloudrepo" / "observed.json").stat().st_size
        watcher.close()
    return {
        "workers": workers,
        "vms": workers * vms_per_worker,
        "wall_s": statistics.median(walls[1:]),
        "wall_most_s": max(walls[1:]),
        "cpu_s": statistics.median(cpus[1:]),
        "peak_mib": _peak_mib(),
        "grown_mib": _peak_mib() - before,
        "snapshot_bytes": size,
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:]))))
