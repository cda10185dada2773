"""The façade over three hosts in memory: real use cases, real messages, no SSH."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from database import Database
from deployment_api import DeploymentAPI, DiskWish, MadeDisk
from fakes.host import FakeExecutor, ModelHost
from orchestrator_api import OrchestratorAPI
from worlds import give_disk

HOSTS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")


class FakeBases:
    """Stands in for `BaseImages`: an image comes back when it is asked for."""

    def __init__(self, executor: FakeExecutor) -> None:
        self.executor = executor

    def forget(self, worker_ip: str) -> None:
        """Nothing is remembered here."""

    def digest(self, path: str) -> str:
        """Of the file itself."""
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def copies(self, worker_ip: str, base_dir: str) -> frozenset[str]:
        """None but those that tests put there."""
        return frozenset(path for path in self.executor.hosts[worker_ip].files if "/base/" in path)

    def disks_on(self, worker_ip: str, base_dir: str, path: str) -> list[Any]:
        """None that a test cares for."""
        return []

    def path_on(self, worker_ip: str, base_dir: str, sha256: str, name: str) -> str:
        """As on a real host."""
        return f"/home/ubuntu/vm_images/base/{sha256[:16]}-{name}"

    def why_stays(self, worker_ip: str, base_dir: str, sha256: str, name: str) -> str:
        """As `remove` finds it."""
        path = self.path_on(worker_ip, base_dir, sha256, name)
        return "" if path in self.executor.hosts[worker_ip].files else "none"

    def remove(self, worker_ip: str, base_dir: str, sha256: str, name: str) -> str:
        """Nothing is in the way here."""
        path = self.path_on(worker_ip, base_dir, sha256, name)
        return "removed" if self.executor.hosts[worker_ip].files.pop(path, None) else "none"

    def ensure(self, worker_ip: str, image: str, base_dir: str, *, known: Any = None) -> None:
        """It is there again."""
        self.executor.hosts[worker_ip].files["/home/ubuntu/vm_images/base/0123456789abcdef-cirros.img"] = image


class FakeDisks:
    """Stands in for a `QCOWManager`: a disk is a few entries in a host's memory."""

    base_dir = "~/vm_images"

    def __init__(self, executor: FakeExecutor, installation: str) -> None:
        self.executor = executor
        self.installation = installation
        self.bases = FakeBases(executor)

    def create(self, worker_ip: str, wish: DiskWish) -> MadeDisk:
        """Make one."""
        assert isinstance(wish.key, int)
        path = give_disk(
            self.executor.hosts[worker_ip],
            wish.key,
            wish.scope,
            installation=self.installation,
            name=wish.vm_name,
            record=wish.record,
        )
        return MadeDisk(path=path.replace("/home/ubuntu", "~"), image_source="manager")

    def delete_image(self, worker_ip: str, image_path: str) -> bool:
        """Content with everything."""
        return True


def orchestrator(folder: Path) -> OrchestratorAPI:
    """A façade whose hosts are known and have room; `hosts_of` gives what they hold."""
    executor = FakeExecutor(*(ModelHost(ip) for ip in HOSTS))
    db = Database(folder / "database.yaml")
    with db.transaction() as data:
        for ip in HOSTS:
            data["workers"][ip] = {
                "ip": ip, "max_vms": 10, "max_cores": 4, "max_ram_gb": 8, "max_disk_gb": 500,
                "used_cores": 0, "used_ram_gb": 0, "used_disk_gb": 0,
            }  # fmt: skip
    made = OrchestratorAPI(db, DeploymentAPI(executor))
    made.discovery.ensure_known = lambda *ips: None  # type: ignore[method-assign]
    made.discovery.ensure_asked = lambda: None  # type: ignore[method-assign]
    made.discovery.accelerator_of = lambda ip: "tcg"  # type: ignore[method-assign]
    made.site.accelerator_of = lambda ip: "tcg"
    made.deployment_api.qcow_manager = FakeDisks(executor, db.installation)  # type: ignore[assignment]
    return made


def give_image(api: OrchestratorAPI, name: str, owner: str, content: bytes = bytes(512)) -> Path:
    """An added image, as the library keeps one; its file."""
    folder = api.context.library.folder / name
    folder.mkdir(parents=True)
    record = {
        "name": name, "format": "raw", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
        "virtual_size": len(content), "added_by": owner, "added": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps(record))
    (folder / f"{name}.raw").write_bytes(content)
    return folder / f"{name}.raw"


def hosts_of(api: OrchestratorAPI) -> dict[str, ModelHost]:
    """The hosts in memory, by address."""
    executor: Any = api.executor
    return dict(executor.hosts)
