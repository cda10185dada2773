"""The orchestrator under measurement, in a process of its own: told what to do by lines of JSON.

Run as `python -m bench.deployment.orchestrator STATE` where the orchestrator runs. Each line on stdin is
`{"do": NAME}`; each answer is one line with `seconds` and what else is known.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.deployment.slice import DATA_INTERFACES, FLAVOR, GUESTS, LEFT, RIGHT
from cloudrepo.plan import Plan, PlanResult
from cloudrepo.settings import Settings
from database import Database
from deployment_api import DeploymentAPI
from orchestrator_api import OrchestratorAPI
from remote_executor import RemoteExecutor

USER = "bench"
QUOTA = 100


class CountingExecutor(RemoteExecutor):
    """A `RemoteExecutor` that counts the messages to each host."""

    messages: Counter[str]

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        """Count, then run it."""
        self.messages[host] += 1
        return super().run_plan(host, plan, **options)


class Orchestrator:
    """One installation; each public method is one thing that is measured."""

    def __init__(self, state: Path) -> None:
        settings = Settings.load(state)
        self.executor = CountingExecutor(settings.ssh.user, settings=settings, known_hosts=state.parent / "known_hosts")
        self.executor.messages = Counter()
        self.api = OrchestratorAPI(Database(state), DeploymentAPI(self.executor), settings=settings)
        with self.api.db.transaction() as data:
            data["users"][USER] = {**data["users"]["admin"], "username": USER, "quota_vms": QUOTA}
        self.slice_id = 0

    def discover(self) -> dict[str, Any]:
        """Ask the workers what they are, as the start of the menu does."""
        self.api.discovery.discover_all()
        return {}

    def design(self) -> dict[str, Any]:
        """From `create_slice` to the last link; a VM's overlay is made when it is added."""
        self.slice_id = int(self._ok("create_slice", "bench")["slice_id"])
        ids = [self._add(f"vm{number}") for number in range(1, GUESTS + 1)]
        for before, after in itertools.pairwise(ids):
            self._ok("create_link", self.slice_id, before, f"eth{RIGHT}", after, f"eth{LEFT}")
        return {}

    def _add(self, name: str) -> int:
        vm = self._ok("add_vm_to_slice", self.slice_id, name, FLAVOR, DATA_INTERFACES, True)
        return int(vm["vm_id"])

    def deploy(self) -> dict[str, Any]:
        """`deploy_slice` alone."""
        self._ok("deploy_slice", self.slice_id)
        return {}

    def addresses(self) -> dict[str, Any]:
        """Where the guests answer."""
        record = self.api.db.get_slice(self.slice_id) or {"vms": []}
        return {"addresses": [vm["interfaces"][0]["ip_config"]["ip"] for vm in record["vms"]]}

    def delete(self) -> dict[str, Any]:
        """`delete_slice` alone."""
        self._ok("delete_slice", self.slice_id)
        return {}

    def memory(self) -> dict[str, Any]:
        """The most memory this process ever had, in MiB (proc(5), VmHWM)."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        return {"peak_mib": kib / 1024}

    def cleanup(self) -> dict[str, Any]:
        """Remove all that is left on the hosts, and hang up."""
        self.api.cleanup()
        self.executor.close()
        return {}

    def _ok(self, call: str, *arguments: Any) -> Any:
        done, payload = getattr(self.api, call)(USER, *arguments)
        if not done:
            raise SystemExit(f"{call}: {payload}")
        return payload

    def answer(self, name: str) -> dict[str, Any]:
        """Do one thing, and say how long it took and how many messages each host got."""
        self.executor.messages.clear()
        act: Callable[[], dict[str, Any]] = getattr(self, name)
        began = time.monotonic()
        facts = act()
        return {"seconds": time.monotonic() - began, "messages": dict(self.executor.messages), **facts}


def main() -> None:
    """Serve until the end of stdin."""
    orchestrator = Orchestrator(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(orchestrator.answer(json.loads(line)["do"])), flush=True)


if __name__ == "__main__":
    main()
