"""The crash matrix: an orchestrator or a host dies at every point of every operation, and one call mends it."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator_api import OrchestratorAPI
from simulated.crash_workers import Workers
from simulated.crashes import AGAIN, DELETE, DRIFT, REPEAT, USER, Case, Scenario, call, cases, clean_up, rehearse
from simulated.leftovers import Known
from simulated.world import Picture, World, install, open_installation

CORES = len(os.sched_getaffinity(0))
WORKERS = CORES // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) + 1  # now and then a case waits


def ok(api: OrchestratorAPI, name: str, *args: Any) -> Any:
    done, payload = getattr(api, name)(USER, *args)
    assert done, payload
    return payload


class Stages:
    """Worlds before each operation: two VMs on two hosts, a link, internet for one."""

    def __init__(self, folder: Path) -> None:
        with World() as world:
            api = install(world, folder / "image")
            self.slice_id = ok(api, "create_slice", "test")["slice_id"]
            vms = (("a", True), ("b", False))
            self.vms = [ok(api, "add_vm_to_slice", self.slice_id, name, "cirros", 1, web)["vm_id"] for name, web in vms]
            self.unlinked = self._keep(world, api)
            api = open_installation(world)
            ok(api, "create_link", self.slice_id, self.vms[0], "eth1", self.vms[1], "eth1")
            self.designed = self._keep(world, api)
            api = open_installation(world)
            ok(api, "deploy_slice", self.slice_id)
            self.running = self._keep(world, api)
            api = open_installation(world)
            ok(api, "stop_slice", self.slice_id)
            self.stopped = self._keep(world, api)
        with World(self.running) as world:
            api = open_installation(world)
            ok(api, "stop_vm", self.slice_id, self.vms[1])
            self.half = self._keep(world, api)
        with World(self.running) as world:
            api = open_installation(world)
            ok(api, "delete_slice", self.slice_id)
            self.deleted = self._keep(world, api)

    def _keep(self, world: World, api: OrchestratorAPI) -> Picture:
        api.executor.close()
        api.db.close()
        return world.take_picture()

    def scenario(self, name: str) -> Scenario:
        """An operation by its name."""
        link = ("create_link", self.slice_id, self.vms[0], "eth1", self.vms[1], "eth1")
        one = (self.slice_id, self.vms[1])
        picture, work = {
            "deploy": (self.designed, call("deploy_slice", self.slice_id)),
            "delete": (self.running, call("delete_slice", self.slice_id)),
            "stop": (self.running, call("stop_slice", self.slice_id)),
            "start": (self.stopped, call("start_slice", self.slice_id)),
            "add": (self.designed, call("add_vm_to_slice", self.slice_id, "c", "cirros", 1)),
            "link": (self.unlinked, call(*link)),
            "set link": (self.running, call("set_link", self.slice_id, 1, bridging="allowed", dhcp=False)),
            "remove one": (self.designed, call("remove_vm", *one)),
            "stop one": (self.running, call("stop_vm", *one)),
            "start one": (self.half, call("start_vm", *one)),
            "clean up": (self.running, clean_up),
        }[name]
        # what has been deleted half can be started, not run on
        back = {"delete": self.stopped, "clean up": self.deleted}.get(name)
        scenario = rehearse(name, picture, self.slice_id, work, back=back)
        # the record of a link says what is wanted from its first moment; to set it again, or drift, brings it to hosts
        ways = {"clean up": (AGAIN, DELETE), "set link": (REPEAT, DRIFT)}.get(name, scenario.ways)
        return replace(scenario, ways=ways, repeats=name in REPEATED)


REPEATED = ("remove one", "stop one", "start one", "set link", "clean up")
OPERATIONS = ("deploy", "delete", "stop", "start", "add", *REPEATED)
#: Of how many tests the kills of an operation are, and its cuts and losses of power; about forty points in each.
PARTS = {"deploy": (6, 2), "delete": (5, 2), "stop": (5, 2), "start": (6, 2), "set link": (4, 1), "clean up": (6, 2)}
PARTS |= {name: (2, 1) for name in ("add", "remove one", "stop one", "start one")} | {"link": (1, 0)}


def parts(kind: int, names: tuple[str, ...]) -> list[Any]:
    """Each part of each operation: tests of their own, so that processes share them."""
    of = [(name, part) for name in names for part in range(PARTS[name][kind])]
    return [pytest.param(name, part, id=f"{name}-{part + 1} of {PARTS[name][kind]}") for name, part in of]


def slice_of(todo: list[Case], part: int, count: int) -> list[Case]:
    """One of so many parts, of neighbours: those often leave the same."""
    return todo[len(todo) * part // count : len(todo) * (part + 1) // count]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """What this process has of the matrix; worlds before an operation are made once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    matrix = Matrix((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "matrix")
    yield matrix
    matrix.workers.close()


class Matrix:
    """Scenarios, and what came of leftovers, in a folder that processes share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.workers = Workers(WORKERS)

    def problems(self, name: str, action: str, part: int) -> list[str]:
        """What is wrong after a part of an operation's crashes."""
        scenario = self._once(name, lambda: self._once("stages", lambda: Stages(self.folder)).scenario(name))
        known = self.folder / f"{name}.{action}"
        known.mkdir(exist_ok=True)
        todo = slice_of(cases(scenario, action), part, PARTS[name][action != "kill"])
        return self.workers.run(scenario, todo, Known(known))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """What the first who wants it makes; others wait for it, and begin from the same."""
        path = self.folder / f"{name}.pickle"
        with open(self.folder / f"{name}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                fresh = path.with_suffix(".fresh")
                fresh.write_bytes(pickle.dumps(make()))
                fresh.rename(path)
            return pickle.loads(path.read_bytes())  # noqa: S301  our own


@pytest.mark.parametrize(("name", "part"), parts(0, (*OPERATIONS, "link")))
def test_an_orchestrator_is_killed_at_every_point(matrix: Matrix, name: str, part: int) -> None:
    assert matrix.problems(name, "kill", part) == []


@pytest.mark.parametrize(("name", "part"), parts(1, OPERATIONS))
def test_a_connection_is_cut_at_every_point(matrix: Matrix, name: str, part: int) -> None:
    assert matrix.problems(name, "cut", part) == []


@pytest.mark.parametrize(("name", "part"), parts(1, OPERATIONS))
def test_a_host_loses_power_at_every_point(matrix: Matrix, name: str, part: int) -> None:
    assert matrix.problems(name, "power", part) == []


@pytest.mark.parametrize("count", range(1, 8))
def test_parts_leave_out_no_point_and_hold_none_twice(count: int) -> None:
    todo: list[Any] = list(range(83))
    assert [case for part in range(count) for case in slice_of(todo, part, count)] == todo
