"""A slice that runs on hosts in memory, for tests of drift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.orchestrator import hosts_of, orchestrator
from orchestrator_api import OrchestratorAPI

Record = dict[str, Any]
VLAN = 100


class Scene:
    """A running slice of two linked VMs, one with internet access."""

    def __init__(self, folder: Path) -> None:
        self.api: OrchestratorAPI = orchestrator(folder)
        self.hosts = hosts_of(self.api)
        self.ok("create_slice", "admin", "test")
        self.ok("add_vm_to_slice", "admin", 1000, "vm1", "cirros", 1, True)
        self.ok("add_vm_to_slice", "admin", 1000, "vm2", "cirros", 1)
        self.ok("create_link", "admin", 1000, 1001, "eth1", 1002, "eth1")
        self.ok("deploy_slice", "admin", 1000)

    def ok(self, call: str, *args: Any) -> Any:
        done, payload = getattr(self.api, call)(*args)
        assert done, payload
        return payload

    @property
    def installation(self) -> str:
        return self.api.site.installation

    def differences(self, report: Record | None = None) -> dict[str, str]:
        """By kind and name: state, and what differs."""
        found = report or self.ok("drift")
        return {
            f"{one['kind']} {one['name']}": " ".join(
                [one["state"], *(f"{each['what']}={each['found']}" for each in one["differs"])]
            )
            for one in found["objects"]
            if one["difference"]
        }

    def mended(self) -> Record:
        answer: Record = self.ok("drift_fix")
        assert answer["failed"] == [] and self.differences(answer["after"]) == {}
        return answer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)
