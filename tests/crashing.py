"""An installation on hosts in memory whose orchestrator can be killed at any of its moments."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudrepo.plan import Plan, PlanResult
from database import Database
from deployment_api import DeploymentAPI, DiskWish, MadeDisk
from fakes.host import FakeExecutor, ModelHost
from fakes.orchestrator import FakeBases
from orchestrator_api import OrchestratorAPI
from worlds import OURS, give_disk

WORKERS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")
SLICE = 1000


class Killed(BaseException):
    """The orchestrator is gone: nothing of it runs any more, not even what cleans up."""


class Life:
    """One life of an orchestrator, which may be cut short.

    Its moments are: each message to a host, each step's begin and end there, and each transaction before it begins
    and after it is durable.

    Args:
        die_at: the moment at which it is killed, from 1; 0 = never.
    """

    def __init__(self, die_at: int = 0) -> None:
        self.die_at = die_at
        self.moments: list[str] = []
        self.is_over = False
        self._lock = threading.Lock()

    def moment(self, what: str) -> None:
        """Pass a moment, or die in it."""
        with self._lock:
            self.moments.append(what)
            self.is_over = self.is_over or len(self.moments) == self.die_at
        if self.is_over:
            raise Killed


class _Gate:
    """A gate that nobody waits at for a dead orchestrator."""

    def __init__(self, gate: Any, life: Life) -> None:
        self._gate = gate
        self._life = life

    def wait(self, timeout: float) -> bool:
        for _ in range(int(timeout * 200)):
            if self._life.is_over:
                raise Killed
            if self._gate.wait(0.005):
                return True
        return False


class MortalExecutor(FakeExecutor):
    """Talks to hosts as long as its orchestrator lives; a host begins no step without it."""

    def __init__(self, life: Life, hosts: Mapping[str, ModelHost]) -> None:
        super().__init__()
        self.hosts = dict(hosts)
        self.life = life

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        tell = options.get("on_event") or (lambda event: None)

        def on_event(event: Any) -> None:
            self.life.moment(f"{host} {event.kind} {event.name}")
            tell(event)

        self.life.moment(f"{host} message")
        gates = {name: _Gate(gate, self.life) for name, gate in (options.get("gates") or {}).items()}
        return super().run_plan(host, plan, on_event=on_event, gates=gates, stop=options.get("stop"))


class MortalDisks:
    """Stands in for a `QCOWManager`: a disk is two entries in a host's memory."""

    base_dir = "~/vm_images"

    def __init__(self, executor: MortalExecutor) -> None:
        self.executor = executor
        self.bases = FakeBases(executor)

    def create(self, worker_ip: str, wish: DiskWish) -> MadeDisk:
        assert isinstance(wish.key, int)
        self.executor.life.moment(f"{worker_ip} disk begins")
        give_disk(self.executor.hosts[worker_ip], wish.key, wish.scope)
        self.executor.life.moment(f"{worker_ip} disk is made")
        return MadeDisk(path=f"~/vm_images/vm{wish.key}_img.qcow2", image_source="manager")


class Installation:
    """A folder with a state file and hosts, and one orchestrator after another at work on them.

    Attributes:
        hosts: by address.
        api: the façade of the orchestrator that lives now.
    """

    def __init__(self, folder: Path) -> None:
        self.state = folder / "database.yaml"
        self.hosts = {ip: ModelHost(ip) for ip in WORKERS}
        with Database(self.state).transaction() as data:
            data["installation"] = OURS
            for ip in WORKERS:
                data["workers"][ip] = {"ip": ip, "max_cores": 4, "max_ram_gb": 8}
        self.api = self.orchestrator()

    def orchestrator(self, life: Life | None = None) -> OrchestratorAPI:
        """A new orchestrator on the same state file and hosts."""
        life = life or Life()
        db = Database(self.state)
        executor = MortalExecutor(life, self.hosts)
        api = OrchestratorAPI(db, DeploymentAPI(executor))
        genuine = db.transaction

        @contextmanager
        def transaction() -> Iterator[Any]:
            life.moment("transaction")
            with genuine() as data:
                yield data
            life.moment("durable")

        db.transaction = transaction  # type: ignore[method-assign]
        api.discovery.ensure_known = lambda *ips: None  # type: ignore[method-assign]
        api.discovery.ensure_asked = lambda: None  # type: ignore[method-assign]
        api.discovery.accelerator_of = lambda ip: "tcg"  # type: ignore[method-assign]
        api.site.accelerator_of = lambda ip: "tcg"
        api.deployment_api.qcow_manager = MortalDisks(executor)  # type: ignore[assignment]
        return api

    def ok(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """Call the façade and insist on success."""
        done, payload = getattr(self.api, call)(*args, **kwargs)
        assert done, f"{call}: {payload}"
        return payload

    def refused(self, call: str, *args: Any, **kwargs: Any) -> str:
        """Call the façade and insist on a refusal; its message."""
        done, payload = getattr(self.api, call)(*args, **kwargs)
        assert not done, f"{call} succeeded: {payload}"
        return str(payload)

    def killed(self, die_at: int, work: Callable[[OrchestratorAPI], Any]) -> Life:
        """Have an orchestrator of its own do some work, and die at it; its life."""
        life = Life(die_at)
        try:
            work(self.orchestrator(life))
        except Killed:
            pass
        self.api = self.orchestrator()  # the next one
        return life

    def designed(self) -> None:
        """Slice 1000: VMs 1001 (with internet) and 1002 on two workers, and a link between them."""
        self.ok("create_slice", "admin", "lab")
        self.ok("add_vm_to_slice", "admin", SLICE, "vm1", "cirros", 1, True)
        self.ok("add_vm_to_slice", "admin", SLICE, "vm2", "cirros", 1)
        self.ok("create_link", "admin", SLICE, 1001, "eth1", 1002, "eth1")

    def picture(self) -> dict[str, Any]:
        """All that is on the hosts, but for base images, and directories that stay empty until the next boot."""
        found = {ip: host.picture() for ip, host in self.hosts.items()}
        for each in found.values():
            each["files"] = [path for path in each["files"] if "/vm_images/base/" not in path]
            each["directories"] = [path for path in each["directories"] if path != f"/run/cloudrepo-{OURS}"]
        return found

    def record(self) -> dict[str, Any]:
        """The slice's record, `{}` when it is gone."""
        return Database(self.state).get_slice(SLICE) or {}

    def states(self) -> tuple[str, list[str]]:
        """The recorded states: of the slice, and of its VMs."""
        record = self.record()
        return record.get("status", "gone"), [vm["status"] for vm in record.get("vms", [])]
