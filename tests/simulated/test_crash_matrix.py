"""The crash matrix: an orchestrator or a host dies at every point of every operation, and one call mends it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator_api import OrchestratorAPI
from simulated.crashes import AGAIN, DELETE, DRIFT, REPEAT, USER, Scenario, call, cases, clean_up, rehearse, run_all
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
        self.folder = folder
        with World() as world:
            api = install(world, folder / "image")
            self.slice_id = ok(api, "create_slice", "test")["slice_id"]
            vms = (("a", True), ("b", False))
            self.vms = [ok(api, "add_vm_to_slice", self.slice_id, name, "cirros", 1, web)["vm_id"] for name, web in vms]
            self.unlinked = self._keep(world, api, "unlinked")
            api = open_installation(world)
            ok(api, "create_link", self.slice_id, self.vms[0], "eth1", self.vms[1], "eth1")
            self.designed = self._keep(world, api, "designed")
            api = open_installation(world)
            ok(api, "deploy_slice", self.slice_id)
            self.running = self._keep(world, api, "running")
            api = open_installation(world)
            ok(api, "stop_slice", self.slice_id)
            self.stopped = self._keep(world, api, "stopped")
        with World(self.running) as world:
            api = open_installation(world)
            ok(api, "stop_vm", self.slice_id, self.vms[1])
            self.half = self._keep(world, api, "half")
        with World(self.running) as world:
            api = open_installation(world)
            ok(api, "delete_slice", self.slice_id)
            self.deleted = self._keep(world, api, "deleted")

    def _keep(self, world: World, api: OrchestratorAPI, name: str) -> Picture:
        api.executor.close()
        api.db.close()
        return world.take_picture(self.folder / name)

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


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """Made once: each case begins with a copy."""
    yield Stages(tmp_path_factory.mktemp("stages"))


REPEATED = ("remove one", "stop one", "start one", "set link", "clean up")
OPERATIONS = ("deploy", "delete", "stop", "start", "add", *REPEATED)


@pytest.mark.parametrize("name", [*OPERATIONS, "link"])
def test_an_orchestrator_is_killed_at_every_point(stages: Stages, name: str) -> None:
    scenario = stages.scenario(name)
    assert run_all(scenario, cases(scenario, "kill"), WORKERS) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_connection_is_cut_at_every_point(stages: Stages, name: str) -> None:
    scenario = stages.scenario(name)
    assert run_all(scenario, cases(scenario, "cut"), WORKERS) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_host_loses_power_at_every_point(stages: Stages, name: str) -> None:
    scenario = stages.scenario(name)
    assert run_all(scenario, cases(scenario, "power"), WORKERS) == []
