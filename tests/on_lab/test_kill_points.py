"""Orchestrators killed at many points of deploy and delete on real hosts, and what comes after them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloudrepo import leadership, reconcile
from cloudrepo.plan import Plan
from cloudrepo.transports import ssh_login
from control import recovery
from lab.cluster import Lab
from on_lab import faults
from on_lab.acting import ROOT, Actor
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, differences, wait_until

pytestmark = pytest.mark.lab

FIRST, SECOND = HOSTS[:2]
ID = 1000
LOSS_S = 2.0  # after which a connection without a sign of life is given up, on either side


class Scene:
    """Slice 1000 over two workers with a link and internet access, always with the same ids, and how it looks.

    Attributes:
        bare, up: the hosts with the slice designed, and deployed.
        events: by call, how many events of progress it has.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.empty = self.picture()
        self.events: dict[str, int] = {}
        self.design()
        self.bare = self.picture()
        self._count("deploy_slice")
        self.up = self.picture()
        self._count("delete_slice")
        assert differences(self.empty, self.picture()) == []

    def design(self, flavor: str = "blank") -> None:
        """The slice, on hosts that have nothing of it. Its guests are asked nothing but by who says so."""
        with self.cluster.api.db.transaction() as data:
            data["next_vm_id"], data["placements"] = ID, 0
        made = self.cluster.slice("vm1", "vm2", internet=("vm1",), flavor=flavor)
        self.cluster.link(made, "vm1", "eth1", "vm2", "eth1")
        assert made["id"] == ID

    def _count(self, call: str) -> None:
        told: list[Any] = []
        self.cluster.ok(call, "admin", ID, progress=told.append)
        self.events[call] = len(told)

    def picture(self) -> dict[str, Record]:
        """What is on the hosts, disks of VMs included."""
        found = self.cluster.snapshot()
        for ip, kinds in found.items():
            folder = f"{self.cluster.images}/.cloudrepo-{self.cluster.api.site.installation}"
            look = f'cd {self.cluster.images}; ls -d ./*_img.qcow2 "$1"/vm-* 2>/dev/null; true'
            kinds["disks"] = self.cluster.host(ip, "sh", "-c", look, "sh", folder).split()
        return found

    def kill_in(self, call: str, part: float) -> None:
        """Have an orchestrator begin this, and kill it after this part of its events."""
        dying = Actor(self.cluster.state, die_at=max(1, round(part * self.events[call])))
        assert dying.ok(call, "admin", ID) is None and dying.close() == -9
        (found,) = self.cluster.ok("unfinished_operations")
        assert (found["kind"], found["is_dead"], found["who"]) == (call.partition("_")[0], True, "admin")

    def expect(self, wanted: dict[str, Record], status: str, where: str) -> None:
        """The hosts are exactly so, and the records say so."""
        assert differences(wanted, self.picture()) == [], where
        assert self.status() == status, where
        assert self.cluster.ok("unfinished_operations") == [], where

    def expect_soon(self, wanted: dict[str, Record], where: str) -> None:
        """The hosts are exactly so, but for what a monitor asks there at that moment."""
        wait_until(lambda: differences(wanted, self.picture()) == [], 30, where)

    def status(self) -> str:
        """The slice's state; `gone` without a record."""
        return str((self.cluster.api.db.get_slice(ID) or {"status": "gone"})["status"])


@pytest.mark.cost(seconds=80)
def test_killed_at_many_points_of_deploy_and_delete(cluster: Cluster) -> None:
    """21 points: 6 deploys rolled back, 6 resumed, 3 deletes rolled back, 6 resumed. The last deploy's link works."""
    scene = Scene(cluster)
    scene.design()
    for part in (0.02, 0.2, 0.4, 0.6, 0.8, 0.92):
        scene.kill_in("deploy_slice", part)
        cluster.ok("rollback", "admin", ID)
        scene.expect(scene.bare, "design", f"deploy {part}, rolled back")
    for number, part in enumerate((0.05, 0.25, 0.45, 0.65, 0.85, 0.9)):
        scene.kill_in("deploy_slice", part)
        assert cluster.ok("resume", "admin", ID) == "Slice deployed successfully"
        scene.expect(scene.up, "running", f"deploy {part}, resumed")
        if number % 2 == 0:
            scene.kill_in("delete_slice", 0.02 + number / 20)
            cluster.ok("rollback", "admin", ID)
            scene.expect(scene.bare, "stopped", f"delete {number}, rolled back")
            cluster.ok("start_slice", "admin", ID)
        if number == 5:
            assert cluster.wait_for_address(1001, "eth1") == "192.168.100.10"
            assert cluster.wait_for_address(1002, "eth1") == "192.168.100.11"
            assert cluster.pings(1001, "192.168.100.11")
        scene.kill_in("delete_slice", part)
        assert cluster.ok("resume", "admin", ID) == "Slice deleted"
        scene.expect(scene.empty, "gone", f"delete {part}, resumed")
        if number < 5:
            scene.design("cirros" if number == 4 else "blank")


# ── two QEMUs on one disk ───────────────────────────────────────────────────────────────────────────────

# Says at its end how many processes of QEMU had one disk open at a time, at most.
_WATCH = """
import os, sys, threading
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
print("watching", flush=True)
most = 0
while not over.wait(0.01):
    disks = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open("/proc/" + pid + "/cmdline").read().split("\\0")
        except OSError:
            continue
        if "qemu-system" in words[0]:
            for word in words:
                if "file=" in word:
                    disks[word] = disks.get(word, 0) + 1
    most = max([most, *disks.values()])
print(most)
"""


@contextmanager
def machines_watched(lab: Lab) -> Iterator[Callable[[], list[int]]]:
    """Watch all hosts; gives a function that ends it and says the most machines that any disk of a host had."""
    watchers = [
        lab.host_room(ip).popen(["/usr/bin/python3", "-I", "-c", _WATCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for ip in HOSTS
    ]

    def most() -> list[int]:
        return [int(watcher.communicate(timeout=60)[0]) for watcher in watchers]

    try:
        for watcher in watchers:
            assert watcher.stdout is not None and watcher.stdout.readline() == "watching\n"
        yield most
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.wait()


@pytest.mark.cost(seconds=10)
def test_several_processes_that_go_on_after_a_kill_never_give_two_machines_on_one_disk(cluster: Cluster) -> None:
    """Killed while machines start, whose step goes on; resume, deploy, start and rollback come all at once."""
    scene = Scene(cluster)
    scene.design()
    actors = [Actor(cluster.state) for _ in range(4)]
    with machines_watched(cluster.lab) as most:
        for part in (0.7, 0.85):
            scene.kill_in("deploy_slice", part)
            for actor, call in zip(actors, ("resume", "deploy_slice", "resume", "start_slice"), strict=True):
                actor.tell(call, "admin", ID)
            answers = [actor.answered() or (False, "it died") for actor in actors]
            assert [done for done, _ in answers].count(True) == 1, answers
            scene.expect(scene.up, "running", f"killed at {part}, then all at once")
            cluster.ok("delete_slice", "admin", ID)
            scene.design()
        assert most() == [1, 1, 0]
    for actor in actors:
        assert actor.close() == 0
    cluster.ok("delete_slice", "admin", ID)


# ── cables and power ────────────────────────────────────────────────────────────────────────────────────


def once_at(ip: str, words: str, act: Callable[[], object]) -> tuple[Callable[[Any], None], threading.Event]:
    """A progress callback that acts at the first step on a host whose label has these words; and whether it did."""
    done = threading.Event()

    def progress(event: Any) -> None:
        if event.host == ip and words in event.label and not done.is_set():
            done.set()
            act()

    return progress, done


@pytest.mark.cost(seconds=18)
def test_a_cable_pulled_in_mid_plan(clusters: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner stops by itself; the host is waited for, and cleared when the monitor or a resume reaches it."""
    monkeypatch.setattr(ssh_login, "LOST_AFTER_MS", int(LOSS_S * 1000))
    monkeypatch.setattr(reconcile, "Plan", functools.partial(Plan, lease_s=LOSS_S))
    cluster = clusters(ssh={"connect_timeout": 2})
    scene = Scene(cluster)
    scene.design()
    progress, pulled = once_at(SECOND, "tap_", lambda: cluster.lab.cut(SECOND))
    try:
        assert SECOND in cluster.refused("deploy_slice", "admin", ID, progress=progress)
        assert pulled.is_set() and scene.status() == "design"
        (waiting,) = cluster.ok("unfinished_operations")
        assert waiting["is_waiting"] and waiting["hosts"] == [SECOND]
        assert differences({ip: scene.bare[ip] for ip in (FIRST, NETWORK_NODE)}, scene.picture()) == []
    finally:
        cluster.lab.heal(SECOND)
    assert SECOND in cluster.ok("resume", "admin", ID)
    scene.expect(scene.bare, "design", "resumed after the cable was back")

    cluster.ok("deploy_slice", "admin", ID)
    progress, pulled = once_at(SECOND, "stop VM", lambda: cluster.lab.cut(SECOND))
    try:
        assert "is not deleted yet" in cluster.refused("delete_slice", "admin", ID, progress=progress)
        assert pulled.is_set() and scene.status() == "deleting"
        assert recovery.finish_pending(cluster.api.context, answering={FIRST, NETWORK_NODE}) == []
    finally:
        cluster.lab.heal(SECOND)
    (said,) = recovery.finish_pending(cluster.api.context)
    assert "which is deleted" in said
    scene.expect(scene.empty, "gone", "finished after the cable was back")


@pytest.mark.cost(seconds=14)
def test_power_fails_in_mid_plan_on_the_orchestrator_and_on_a_host(clusters: Callable[..., Cluster]) -> None:
    """Both are gone in the middle of a deploy, and then of a delete; with the host back, a resume ends it."""
    cluster = clusters(ssh={"connect_timeout": 2})
    scene = Scene(cluster)
    scene.design()
    for ip, call, part, answer in (
        (SECOND, "deploy_slice", 0.75, "Slice deployed successfully"),
        (FIRST, "delete_slice", 0.3, "Slice deleted"),
    ):
        try:
            scene.kill_in(call, part)
        finally:
            cluster.lab.kill(ip)
            faults.boot_again(cluster.lab, ip)
        cluster.api.executor.close()
        assert cluster.ok("resume", "admin", ID) == answer
        if call == "deploy_slice":
            scene.expect(scene.up, "running", "resumed after both were back")
    scene.expect(scene.empty, "gone", "deleted after both were back")


# ── the monitor ─────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def monitor(cluster: Cluster, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `./cloud monitor` on this installation; killed at the end of the block if it still lives."""
    environment = {**os.environ, "CLOUDREPO_STATE": str(cluster.state)}
    process = subprocess.Popen(
        (sys.executable, str(ROOT / "main.py"), "monitor", *words),
        env=environment,
        cwd=cluster.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: leadership.is_wished_for(cluster.folder / ".cloudrepo"), 30, "the monitor")
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.cost(seconds=8)
def test_a_monitor_does_what_it_is_handed_and_another_one_resumes_what_it_died_at(
    clusters: Callable[..., Cluster],
) -> None:
    cluster = clusters(monitor={"interval": 0.3})
    scene = Scene(cluster)
    scene.design()
    with monitor(cluster) as dying:
        cluster.ok("hand_over", "admin", ID, "deploy")
        wait_until(lambda: cluster.host(FIRST, "ovs-vsctl", "list-ports", "br-int").split() != ["eth1"], 30, "a port")
        dying.kill()
        dying.wait()
        (found,) = cluster.ok("unfinished_operations")
        assert (found["kind"], found["is_dead"], scene.status()) == ("deploy", True, "deploying")
    with monitor(cluster, "--auto-resume") as next_one:
        wait_until(lambda: scene.status() == "running", 60, "the deploy")
        scene.expect_soon(scene.up, "resumed by the next monitor")
        cluster.ok("hand_over", "admin", ID, "delete")
        wait_until(lambda: scene.status() == "gone", 60, "the delete")
        scene.expect_soon(scene.empty, "deleted by the monitor")
        next_one.terminate()
        assert next_one.wait(20) == 0


@pytest.mark.cost(seconds=15)
def test_a_monitor_that_is_told_to_end_stops_before_its_next_step_and_leaves_it_to_the_next_one(
    clusters: Callable[..., Cluster],
) -> None:
    """Half a deploy is neither taken back nor called a failure; a person takes it back, or the next monitor goes on."""
    cluster = clusters(monitor={"interval": 0.3})
    scene = Scene(cluster)
    scene.design()

    def end_in_step() -> None:
        """Hand the deploy to a monitor, and end that while a host is slow at making a port."""
        slow = faults.broken_tool(cluster.lab, FIRST, "ovs-vsctl", "add-port br-int tap_1001", slow_s=2)
        with slow, monitor(cluster) as ending:
            cluster.ok("hand_over", "admin", ID, "deploy")
            at_it = ["pgrep", "-f", "add-port br-int tap_1001"]
            wait_until(lambda: cluster.lab.host(FIRST, at_it).returncode == 0, 30, "the port is being made")
            ending.terminate()
            assert ending.wait(25) == 0
            (found,) = cluster.ok("unfinished_operations")
            assert (found["kind"], found["is_dead"], scene.status()) == ("deploy", True, "deploying")
            assert "error" not in (cluster.api.db.get_slice(ID) or {})
            assert not any("qemu" in line for line in cluster.host(FIRST, "ps", "-eo", "args").splitlines())

    end_in_step()
    cluster.ok("rollback", "admin", ID)
    scene.expect(scene.bare, "design", "rolled back after the monitor was told to end")
    end_in_step()
    with monitor(cluster, "--auto-resume"):
        wait_until(lambda: scene.status() == "running", 60, "the deploy")
        scene.expect_soon(scene.up, "resumed by the next monitor")
    cluster.ok("delete_slice", "admin", ID)
