"""Thirty processes change one state file through the real use cases, and some of them are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudrepo.invariants import violations
from database import Database
from deployment_api import DeploymentAPI
from fakes.host import FakeExecutor, ModelHost
from fakes.orchestrator import HOSTS, FakeDisks
from orchestrator_api import OrchestratorAPI

PROCESSES, OPERATIONS, KILLS = 30, 50, 12
USERS = [f"user{number}" for number in range(6)]
QUOTA = 9


def prepare(path: Path) -> None:
    """Users with a small quota, and workers with room for all."""
    db = Database(path)
    with db.transaction() as data:
        for name in USERS:
            data["users"][name] = {"password_hash": "", "quota_vms": QUOTA}
        for ip in HOSTS:
            data["workers"][ip] = {"ip": ip, "max_cores": 64, "max_ram_gb": 256}
    db.close()


def opened(path: Path) -> OrchestratorAPI:
    """The façade; its hosts are in memory, and disks are made by nobody."""
    executor = FakeExecutor(*(ModelHost(ip) for ip in HOSTS))
    db = Database(path)
    api = OrchestratorAPI(db, DeploymentAPI(executor))
    api.discovery.ensure_known = lambda *ips: None  # type: ignore[method-assign]
    api.discovery.ensure_asked = lambda: None  # type: ignore[method-assign]
    api.deployment_api.qcow_manager = FakeDisks(executor, db.installation)  # type: ignore[assignment]
    return api


class Visitor:
    """One process: random operations, each told before it begins and when it was acknowledged.

    Args:
        path: the state file.
        seed: of what it does.
        tell: writes a line that survives the process.
    """

    def __init__(self, path: Path, seed: int, tell: Callable[[Any], None]) -> None:
        self.api = opened(path)
        self.choose = random.Random(seed)  # noqa: S311
        self.tell = tell
        self.user = USERS[seed % len(USERS)]

    def act(self) -> None:
        """One operation on whatever is there."""
        acts = (self.create, self.create, self.add, self.add, self.add, self.link, self.link)
        self.choose.choice((*acts, self.unlink, self.remove, self.delete, self.look))()

    def a_slice(self) -> dict[str, Any]:
        own = self.api.db.list_slices(self.user)
        return self.choose.choice(own) if own else {"slice_id": 0, "vms": [], "links": []}

    def call(self, what: str, about: list[Any], name: str, *words: Any) -> Any:
        self.tell(["try", what, *about])
        ok, answer = getattr(self.api, name)(self.user, *words)
        self.tell(["done" if ok else "refused", what, *about])
        return answer if ok else None

    def create(self) -> None:
        ok, made = self.api.create_slice(self.user, "a slice")
        assert ok, made
        self.tell(["done", "create", made["slice_id"]])

    def add(self) -> None:
        one = self.a_slice()
        name = f"vm{self.choose.randrange(10**6)}"
        vm = self.call("add", [one["slice_id"], name], "add_vm_to_slice", one["slice_id"], name, "cirros", 3, True)
        if vm is not None:
            self.tell(["done", "vm", vm["vm_id"], one["slice_id"]])

    def link(self) -> None:
        one = self.a_slice()
        ends = [(vm["vm_id"], nic["name"]) for vm in one["vms"] for nic in vm["interfaces"] if nic["vlan_id"] is None]
        if len({vm for vm, _nic in ends}) < 2:
            return
        first = self.choose.choice(ends)
        second = self.choose.choice([end for end in ends if end[0] != first[0]])
        link = self.call("link", [one["slice_id"]], "create_link", one["slice_id"], *first, *second)
        if link is not None:
            self.tell(["done", "linked", link["link_id"], one["slice_id"]])

    def unlink(self) -> None:
        one = self.a_slice()
        if one["links"]:
            link = self.choose.choice(one["links"])["link_id"]
            self.call("unlink", [link, one["slice_id"]], "remove_link", one["slice_id"], link)

    def remove(self) -> None:
        one = self.a_slice()
        if one["vms"]:
            vm = self.choose.choice(one["vms"])["vm_id"]
            self.call("remove", [vm, one["slice_id"]], "remove_vm", one["slice_id"], vm)

    def delete(self) -> None:
        one = self.a_slice()
        self.call("delete", [one["slice_id"]], "delete_slice", one["slice_id"])

    def look(self) -> None:
        self.api.db.save()  # as the monitor of each menu does


def visit(path: Path, seed: int, count: int) -> int:
    """A process of its own that does so much; its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        report = os.open(path.parent / f"told-{seed}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        visitor = Visitor(path, seed, lambda words: void(os.write(report, (json.dumps(words) + "\n").encode())))
        for _ in range(count):
            visitor.act()
            visitor.tell(["acted"])
        visitor.api.db.close()
        status = 0
    except BaseException as error:
        print(f"process {seed}: {error!r}", file=sys.stderr)
    finally:
        os._exit(status)


def void(_value: object) -> None:
    """Nothing."""


def told(folder: Path) -> list[list[Any]]:
    """What all processes told, also those that were killed."""
    return [json.loads(line) for path in folder.glob("told-*") for line in path.read_text().splitlines()]


def acted(folder: Path, seed: int) -> int:
    path = folder / f"told-{seed}"
    return path.read_text().count('["acted"]') if path.exists() else 0


def test_thirty_processes_and_some_killed_keep_what_must_be_true_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    prepare(path)
    choose, killed = random.Random(7), 0  # noqa: S311
    running = {visit(path, seed, OPERATIONS): seed for seed in range(PROCESSES)}
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            seed = running.pop(pid)
            assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
            if os.WIFSIGNALED(status):  # another takes its place
                left = OPERATIONS - acted(tmp_path, seed)
                running[visit(path, seed, max(1, left))] = seed
        elif killed < KILLS and sum(acted(tmp_path, seed) for seed in range(PROCESSES)) > 100 * killed:
            os.kill(choose.choice(list(running)), signal.SIGKILL)
            killed += 1
        else:
            time.sleep(0.02)
    assert killed == KILLS
    assert len([1 for words in told(tmp_path) if words == ["acted"]]) >= PROCESSES * OPERATIONS
    db = Database(path)
    assert violations(db.data) == []
    check_nothing_is_lost(db, told(tmp_path))
    db.next_operation()
    db.close()
    assert not path.with_name("database.yaml.journal").exists()


def check_nothing_is_lost(db: Database, words: list[list[Any]]) -> None:
    """What was acknowledged is there, unless somebody at least began to take it away again."""
    slices = {record["slice_id"]: record for record in db.list_slices()}
    vms = {vm["vm_id"] for record in slices.values() for vm in record["vms"]}
    links = {(link["link_id"], number) for number, record in slices.items() for link in record["links"]}
    created = [line[2] for line in words if line[:2] == ["done", "create"]]
    assert len(created) == len(set(created)) > 100
    begun = {
        what: {tuple(line[2:]) for line in words if line[:2] == ["try", what]}
        for what in ("delete", "remove", "unlink")
    }
    gone = {line[2] for line in words if line[:2] == ["done", "delete"]}
    assert gone.isdisjoint(slices)
    assert {number for number in created if (number,) not in begun["delete"]} <= slices.keys()
    for _done, _what, vm, number in (line for line in words if line[:2] == ["done", "vm"]):
        assert vm in vms or (vm, number) in begun["remove"] or (number,) in begun["delete"]
    removed = {line[2] for line in words if line[:2] == ["done", "remove"]}
    assert removed.isdisjoint(vms)
    removing = {number for _vm, number in begun["remove"]} | {number for (number,) in begun["delete"]}
    for _done, _what, link, number in (line for line in words if line[:2] == ["done", "linked"]):
        assert (link, number) in links or (link, number) in begun["unlink"] or number in removing
    assert len([1 for line in words if line[:2] == ["done", "linked"]]) > 20
