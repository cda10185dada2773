"""A worker that lies: each call of the façade ends well or with a sentence, and no other host is told its words."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cli.screen import Screen
from cli.text import clean
from cloudrepo.plan import Plan, PlanResult, StepResult
from cloudrepo.reconcile import Target, _Application
from control.watch import Watcher
from database import Database
from fakes.host import FakeExecutor
from fakes.orchestrator import HOSTS, orchestrator
from fuzzing import ODD, fuzz, garble, plain_words
from orchestrator_api import OrchestratorAPI

LIAR = HOSTS[0]
STAT = "cpu  100 0 0 300 0 0 0 0 0 0\n"
MEMINFO = "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n"
CALLS = (
    *("drift", "drift_fix", "cluster_status", "cleanup_plan", "cleanup", "stop_slice", "start_slice", "deploy_slice"),
    *("delete_slice", "list_images", "state_rebuild", "discover", "watch", "rollback"),
)


class Liar(FakeExecutor):
    """Hosts in memory, one of which changes what it answers; threads ask, so numbers decide, and not hypothesis."""

    def __init__(self, executor: FakeExecutor, seed: int) -> None:
        self.__dict__.update(executor.__dict__)
        self.plans = []
        self.random = Random(seed)  # noqa: S311 - for examples
        self.turn = threading.Lock()
        self.lies = 0

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        result = super().run_plan(host, plan, **options)
        if host != LIAR:
            return result
        with self.turn:
            return replace(result, observed={name: self._lie(one) for name, one in result.observed.items()})

    def _lie(self, answer: StepResult) -> StepResult:
        if self.lies >= 4 or self.random.random() < 0.6:
            return answer
        self.lies += 1
        if self.random.random() < 0.2:
            return replace(answer, status=1, accepted=False, err=_whole(self.random.choice(ODD)))
        return replace(answer, status=0, accepted=True, out=_whole(garble(self.random, answer.out)))


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # as the session hands it on


def deployed(folder: Path) -> OrchestratorAPI:
    """Two VMs with a link, on two hosts."""
    api = orchestrator(folder)
    hosts: Any = api.executor
    for host in hosts.hosts.values():
        host.files |= {"/proc/stat": STAT, "/proc/meminfo": MEMINFO}
        host.switches["kernel/random/boot_id"] = "boot 1"
    slice_id = api.create_slice("admin", "lab")[1]["slice_id"]
    ids = [api.add_vm_to_slice("admin", slice_id, f"vm{number}", "cirros", 1)[1]["vm_id"] for number in (1, 2)]
    done, payload = api.create_link("admin", slice_id, ids[0], "eth1", ids[1], "eth1")
    assert done, payload
    done, payload = api.deploy_slice("admin", slice_id)
    assert done, payload
    return api


def call(api: OrchestratorAPI, name: str) -> tuple[bool, Any]:
    if name == "discover":
        return True, api.discovery.discover_all()
    if name == "watch":
        watcher = Watcher(api.context, "menu")
        try:
            watcher(threading.Event())
        finally:
            watcher.close()
        return True, None
    if name == "list_images":
        return api.list_images(None, look=True)
    if name == "state_rebuild":
        return api.state_rebuild(force=True)
    if name in ("drift", "drift_fix", "cluster_status", "cleanup_plan", "cleanup", "verify"):
        answer: tuple[bool, Any] = getattr(api, name)()
        return answer
    answer = getattr(api, name)("admin", 1000)
    return answer


@fuzz(15)
@given(seed=st.integers(0, 2**32), names=st.lists(st.sampled_from(CALLS), min_size=1, max_size=3))
def test_a_lying_worker_breaks_no_call_and_is_repeated_to_nobody(
    seed: int, names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lies")
    api = deployed(folder)
    honest: Any = api.executor
    liar: Any = Liar(honest, seed)
    api.deployment_api.executor = api.site.executor = api.discovery.executor = liar
    for name in names:
        done, payload = call(api, name)
        assert getattr(payload, "code", "") != "internal", (name, payload)
        stream = io.StringIO()
        Screen(stream).complain(payload)
        assert clean(stream.getvalue().replace("\n", "")) == stream.getvalue().replace("\n", "")
        assert done or str(payload)
    for host, plan in liar.plans:
        text = json.dumps(plan.to_json())
        text.encode()
        words = [word for step in (*plan.steps, *plan.observe) for word in getattr(step.act, "words", ())]
        assert all(map(plain_words, words)), words
        if host != LIAR:
            assert "owned" not in text and "\\u001b" not in text, (names, host, text)
    Database(folder / "database.yaml").refresh()


def test_a_keeper_whose_things_cannot_be_named_lets_nobody_wait_at_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan is never made, so nothing of it can open or close the gate where workers stand."""
    api = deployed(tmp_path)
    done, payload = api.stop_slice("admin", 1000)
    assert done, payload
    genuine = _Application._plan

    def plan(self: _Application, target: Target) -> Plan:
        if target.host.is_network_node:
            raise ValueError("not the name of a network device: '{0}'")
        return genuine(self, target)

    monkeypatch.setattr(_Application, "_plan", plan)
    done, payload = api.start_slice("admin", 1000)
    assert not done and "not the name of a network device" in payload and payload.code == "host.names"
