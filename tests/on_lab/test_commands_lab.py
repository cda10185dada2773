"""Commands on real hosts with real guests: a plan that is applied, and programs in a guest by its real agent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import commands
from cli.installation import Installation
from on_lab.cluster import Cluster, wait_until

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


def run(*words: str) -> int:
    return commands.run(words, lambda db: None)


class Bench:
    """A slice that was deployed by a plan, and what was seen on the way.

    Attributes:
        plan: as it was saved.
        snapshots: of the hosts before the look, and after it.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.made = cluster.slice("a", "b")
        cluster.link(self.made, "a", "eth1", "b", "eth1")
        self.file = folder / "lab.plan"
        before = cluster.snapshot()
        assert run("plan", str(self.made["id"]), "-o", str(self.file)) == 2
        self.snapshots = before, cluster.snapshot()
        self.plan: dict[str, Any] = json.loads(self.file.read_text())["plan"]
        assert run("apply", str(self.file), "-q") == 0


@pytest.fixture(scope="module")
def bench(module_clusters: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        cluster = module_clusters()
        api = cluster.api  # one for all commands, so that its connections are closed with the cluster

        def opened(before_write: Any) -> Installation:
            return Installation(cluster.state, api.db, api.settings, api)

        patch.setattr(Installation, "open", opened)
        yield Bench(cluster, tmp_path_factory.mktemp("plan"))


@pytest.mark.cost(seconds=25)
def test_a_plan_is_a_look_and_what_it_says_is_what_is_there_after_it(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = bench.snapshots
    assert before == after, "a look changes nothing"
    planned = {(host["host"], one["kind"], one["name"]) for host in bench.plan["hosts"] for one in host["actions"]}
    assert run("drift", str(bench.made["id"]), "--json") == 0
    found = json.loads(capsys.readouterr().out)["objects"]
    there = {(one["host"], one["kind"], one["name"]) for one in found if one["state"] == "ok" and one["kind"] != "disk"}
    assert {one for one in planned if one[1] in ("TAP", "VM", "port", "namespace", "DHCP server")} <= there
    assert run("plan", str(bench.made["id"]), "--action", "stop", "-o", str(bench.file)) == 2
    vm = bench.cluster.vm(bench.made["b"])
    assert run("vm", "stop", str(bench.made["b"])) == 0
    capsys.readouterr()
    assert run("apply", str(bench.file), "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "plan.stale", error
    assert f"VM {vm['vm_id']} is gone from {vm['worker_ip']}" in error["details"]["moved"]


@pytest.mark.cost(seconds=15)
def test_programs_in_a_guest_have_their_own_status_and_output(
    bench: Bench, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    vm = str(bench.made["a"])
    wait_until(lambda: run("exec", vm, "--timeout", "5", "--", "true") == 0, 120, "the guest's agent answers")
    capfdbinary.readouterr()
    for command, status in (
        (("true",), 0),
        (("false",), 1),
        (("sh", "-c", "exit 127"), 127),
        (("no-such-program",), 127),
        (("sh", "-c", "exit 130"), 130),
        (("sh", "-c", "kill -INT $$"), 130),
    ):
        assert run("exec", vm, "--", *command) == status, (command, capfdbinary.readouterr())
    capfdbinary.readouterr()
    assert run("exec", vm, "--", "sh", "-c", f"head -c {MIB} /dev/zero; echo done >&2") == 0
    out, err = capfdbinary.readouterr()
    assert (out == b"\0" * MIB, err) == (True, b"done\n")
    assert run("exec", vm, "--timeout", "1", "--", "sleep", "3000") == 124
    capfdbinary.readouterr()
    sleeping = ("sh", "-c", "! ps | grep -q '[s]leep 3000'")
    wait_until(lambda: run("exec", vm, "--", *sleeping) == 0, 30, "what took too long is ended in the guest")
