"""The monitor on real hosts: VMs that are killed, paused, given up; hosts that lose power; who of several watches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudrepo import leadership
from cloudrepo.events import Event
from cloudrepo.naming import machine_dir
from cloudrepo.notify import Notifier
from cloudrepo.observations import DOWN, UP
from cloudrepo.watched import Notice
from control import watch
from control.watch import Watcher
from lab.cluster import Lab
from on_lab import faults
from on_lab.cluster import HOSTS, Cluster, Record, wait_until

pytestmark = pytest.mark.lab

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST, SECOND = HOSTS[:2]
QUICK = {"misses": 2, "restart_pause": 0.2, "restart_limit": 2}


class Monitored:
    """An installation whose hosts the test looks at when it likes.

    Attributes:
        told: what an administrator would have been told.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.told: list[Notice] = []
        ways = {"test": (lambda notices: self.told.extend(notices), 100)}
        context = cluster.api.context
        self.watcher = Watcher(context, "monitor", notifier=Notifier(cluster.api.settings, ways=ways))
        self.never = threading.Event()

    def look_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Look at all hosts again and again."""
        wait_until(lambda: (self.watcher.look(self.never), condition())[1], seconds, what)

    def observed(self, vm_id: int) -> str:
        return str(self.in_slice(vm_id)["observed"])

    def in_slice(self, vm_id: int) -> Record:
        """A VM as its owner is shown it."""
        for record in self.cluster.ok("list_slices", "admin"):
            for vm in record["vms"]:
                if vm["vm_id"] == vm_id:
                    return dict(vm)
        raise AssertionError(f"no VM {vm_id}")

    def worker(self, ip: str) -> Record:
        return next(row for row in self.cluster.ok("cluster_status")["workers"] if row["ip"] == ip)

    def events(self, what: str) -> list[Event]:
        return [event for event in self.cluster.api.context.events.read() if event.what == what]

    def pid(self, vm_id: int) -> int:
        """Of its QEMU on its worker, as the record says."""
        return int(self.cluster.vm(vm_id)["pid"])

    def kill_qemu(self, vm_id: int, name: str = "KILL") -> None:
        self.cluster.host(self.cluster.vm(vm_id)["worker_ip"], "kill", f"-{name}", str(self.pid(vm_id)))

    def all_run(self) -> bool:
        states = [vm["observed"] for one in self.cluster.ok("list_slices", "admin") for vm in one["vms"]]
        return set(states) == {"running"}


@pytest.fixture(scope="module")
def monitored(module_clusters: Callable[..., Cluster]) -> Iterator[Monitored]:
    cluster = module_clusters(ssh={"connect_timeout": 2}, monitor=QUICK)
    yield Monitored(cluster)


@pytest.fixture(scope="module")
def made(monitored: Monitored) -> Iterator[Record]:
    """Three VMs, one a host, in a line; the first has internet access too."""
    cluster = monitored.cluster
    made = cluster.slice("vm1", "vm2", "vm3", interfaces=2, internet=("vm1",))
    cluster.link(made, "vm1", "eth1", "vm2", "eth1")
    cluster.link(made, "vm2", "eth2", "vm3", "eth1")
    assert [cluster.vm(made[name])["worker_ip"] for name in ("vm1", "vm2", "vm3")] == list(HOSTS)
    cluster.ok("deploy_slice", "admin", made["id"])
    yield made
    monitored.watcher.close()
    cluster.ok("delete_slice", "admin", made["id"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose power failed leaves a connection that says nothing; that is given up sooner."""
    monkeypatch.setattr(watch, "PATIENCE_S", 0.5)


# ── VMs ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.cost(seconds=8)
def test_a_vm_that_is_killed_is_told_with_its_last_words_and_started_again(monitored: Monitored, made: Record) -> None:
    vm_id, before = made["vm2"], monitored.pid(made["vm2"])
    monitored.look_until(monitored.all_run, 20, "all run")
    log = f"{machine_dir(monitored.cluster.api.site.installation, vm_id)}/qemu.log"
    monitored.cluster.host(SECOND, "sh", "-c", 'echo "kvm run failed: Bad address" >> "$1"', "sh", log)
    monitored.kill_qemu(vm_id)
    monitored.look_until(lambda: bool(monitored.events("vm.died")), 10, "its death is told")
    assert monitored.observed(vm_id) == "killed"
    monitored.look_until(lambda: monitored.all_run() and monitored.pid(vm_id) != before, 20, "it runs again")
    [died] = monitored.events("vm.died")
    assert (died.who, died.about, died.details["slice"]) == ("monitor", f"vm {vm_id}", made["id"])
    assert "kvm run failed: Bad address" in died.details["last_words"]
    assert [event.about for event in monitored.events("vm.restarted")] == [f"vm {vm_id}"]
    wait_until(lambda: [notice.what for notice in monitored.told] == ["vm.died", "vm.restarted"], 60, "people are told")
    assert monitored.cluster.ok("get_slice", "admin", made["id"])["status"] == "running"


@pytest.mark.cost(seconds=2)
def test_a_vm_that_is_paused_or_stopped_by_a_signal_is_seen(monitored: Monitored, made: Record) -> None:
    cluster, vm_id = monitored.cluster, made["vm1"]
    monitored.look_until(monitored.all_run, 20, "all run")
    monitored.kill_qemu(vm_id, "STOP")
    monitored.look_until(lambda: monitored.observed(vm_id) == "paused", 10, "it is seen paused")
    assert "signal" in monitored.in_slice(vm_id)["observed_reason"]
    assert cluster.vm(vm_id)["status"] == "running"  # what should be is another thing
    monitored.kill_qemu(vm_id, "CONT")
    monitored.look_until(lambda: monitored.observed(vm_id) == "running", 10, "it is seen running")
    assert [event.about for event in monitored.events("vm.paused")] == [f"vm {vm_id}"]


@pytest.mark.cost(seconds=4)
def test_by_its_policy_or_after_too_many_restarts_a_vm_is_left_alone(monitored: Monitored, made: Record) -> None:
    """`never` for one; the other dies at once after each start, since something else has its screen's port."""
    cluster, never, broken = monitored.cluster, made["vm1"], made["vm2"]
    monitored.look_until(monitored.all_run, 20, "all run")
    assert cluster.ok("set_restart_policy", "admin", made["id"], never, "never") == "never"
    monitored.kill_qemu(never)
    monitored.look_until(lambda: cluster.vm(never)["status"] == "error", 10, "it is left alone")
    assert "restart policy is never" in monitored.in_slice(never)["error"]
    assert monitored.observed(never) in ("off", "killed")
    with faults.broken_tool(cluster.lab, SECOND, "qemu-system-x86_64", "guest=vm2"):
        monitored.kill_qemu(broken)
        monitored.look_until(lambda: cluster.vm(broken)["status"] == "error", 30, "it is given up")
    assert "restarted 2 times" in monitored.in_slice(broken)["error"]
    assert [event.about for event in monitored.events("vm.given_up")] == [f"vm {broken}"]
    assert cluster.ok("get_slice", "admin", made["id"])["status"] == "running"
    assert cluster.ok("set_restart_policy", "admin", made["id"], never, "") == ""
    for vm_id in (never, broken):
        cluster.ok("start_vm", "admin", made["id"], vm_id)
    monitored.look_until(monitored.all_run, 20, "all run")


@pytest.mark.cost(seconds=14)
def test_a_guest_that_powers_itself_off_has_not_failed(monitored: Monitored, made: Record) -> None:
    cluster, vm_id = monitored.cluster, made["vm3"]
    deaths = len(monitored.events("vm.died"))
    cluster.guest(vm_id, "sh", "-c", "(sleep 1; poweroff) >/dev/null 2>&1 &")
    monitored.look_until(lambda: cluster.vm(vm_id)["status"] == "stopped", 30, "it is stopped")
    assert [event.about for event in monitored.events("vm.powered_off")] == [f"vm {vm_id}"]
    assert len(monitored.events("vm.died")) == deaths
    cluster.ok("start_vm", "admin", made["id"], vm_id)
    monitored.look_until(monitored.all_run, 20, "all run")


# ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.cost(seconds=45)
def test_each_host_loses_its_power_under_load_and_everything_comes_back_without_a_person(
    monitored: Monitored, made: Record, lab: Lab, impatient: None
) -> None:
    """Guests flood each other meanwhile. A slice that is deleted while its host is dark is finished afterwards."""
    cluster = monitored.cluster
    monitored.look_until(monitored.all_run, 20, "all run")
    other = cluster.slice("vm9")
    assert cluster.vm(other["vm9"])["worker_ip"] == FIRST
    cluster.ok("deploy_slice", "admin", other["id"])
    peer = cluster.wait_for_address(made["vm2"], "eth1")
    cluster.wait_for_address(made["vm1"], "eth1")
    cluster.guest(made["vm1"], "sh", "-c", f"ping -s 1400 -i 0.01 {peer} >/dev/null 2>&1 &")
    for ip in HOSTS:
        lab.kill(ip)
        try:
            monitored.look_until(lambda ip=ip: monitored.worker(ip)["state"] == DOWN, 30, f"{ip} is down")  # type: ignore[misc]
            seen = {vm["worker_ip"]: vm["observed"] for vm in cluster.ok("get_slice", "admin", made["id"])["vms"]}
            assert [host for host, state in seen.items() if state == "unreachable"] == [ip]
            assert ip in cluster.api.discovery.down()
            if ip == FIRST:
                assert "not deleted yet" in cluster.refused("delete_slice", "admin", other["id"])
        finally:
            faults.boot_again(lab, ip)
        monitored.look_until(monitored.all_run, 40, f"all run again after {ip}")
        assert monitored.worker(ip)["state"] == UP
    assert str(other["id"]) not in cluster.api.db.data["slices"]
    assert len(monitored.events("worker.down")) == len(monitored.events("worker.rebooted")) == 3
    assert cluster.wait_for_address(made["vm2"], "eth1", 180) == peer
    third = cluster.wait_for_address(made["vm3"], "eth1", 180)
    cluster.wait_for_address(made["vm1"], "eth1", 180)
    cluster.wait_for_address(made["vm1"], "eth0", 180)
    assert cluster.pings(made["vm1"], peer) and cluster.pings(made["vm2"], third)
    assert cluster.pings(made["vm1"], "10.60.7.1")


@pytest.mark.cost(seconds=5)
def test_load_is_what_a_loaded_host_says_of_itself(monitored: Monitored, made: Record) -> None:
    cluster = monitored.cluster
    spin = "import time; until = time.monotonic() + 3\nwhile time.monotonic() < until: pass"
    busy = [cluster.lab.host_room(FIRST).popen(["/usr/bin/python3", "-c", spin]) for _ in range(2)]
    time.sleep(0.3)
    monitored.watcher.look(monitored.never)
    first = _ticks(cluster)
    time.sleep(2)
    second = _ticks(cluster)
    monitored.watcher.look(monitored.never)
    for process in busy:
        process.wait()
    mine = 100 * (second[0] - first[0]) / (second[1] - first[1])
    found = monitored.worker(FIRST)["load"]
    assert found["cpu_percent"] == pytest.approx(mine, rel=0.1)
    assert mine > 50
    lines = cluster.host(FIRST, "cat", "/proc/meminfo").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    assert found["ram_gb"] == pytest.approx((sizes["MemTotal"] - sizes["MemAvailable"]) / 1024**2, rel=0.1, abs=0.1)
    used = cluster.host(FIRST, "df", "-B1", "--output=size,avail", cluster.images).splitlines()[1].split()
    assert found["disk_gb"] == pytest.approx((int(used[0]) - int(used[1])) / 1024**3, rel=0.1, abs=0.1)


def _ticks(cluster: Cluster) -> tuple[int, int]:
    """Busy and all ticks, by the host's own /proc/stat."""
    ticks = [int(each) for each in cluster.host(FIRST, "head", "-1", "/proc/stat").split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


# ── who watches ─────────────────────────────────────────────────────────────────────────────────────────

MENU = """
import sys, threading
from cli.installation import Installation
from control.watch import Watcher
from health_monitor import HealthMonitor
installation = Installation.open(lambda db: None)
monitor = HealthMonitor(installation.db, interval=0.5, watch=Watcher(installation.api.context, "menu"))
monitor.start()
sys.stdin.read()
monitor.stop()
"""


@pytest.mark.cost(seconds=10)
def test_of_two_menus_and_a_monitor_one_acts_and_the_monitor_comes_first(clusters: Callable[..., Cluster]) -> None:
    """The one that watches is killed twice; a VM that is killed is restarted once, by who watches then."""
    cluster = clusters(monitor={**QUICK, "interval": 0.5, "restart_pause": 5}, vnc={"first_port": 6100})
    with cluster.api.db.transaction() as data:
        data["next_vm_id"] = 5000  # another installation is on these hosts
    made = cluster.slice("vm1")
    cluster.ok("deploy_slice", "admin", made["id"])
    folder = cluster.folder / ".cloudrepo"
    environment = cluster.lab.environment() | {
        **{"CLOUDREPO_STATE": str(cluster.state), "PYTHONPATH": str(CHECKOUT)},
        "CLOUDREPO_SSH_KNOWN_HOSTS": str(cluster.folder / "known_hosts"),
    }

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, *words),
            cwd=cluster.folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def watches(process: subprocess.Popen[str]) -> bool:
        found = leadership.holder(folder)
        return found is not None and found.pid == process.pid

    running = [start("-c", MENU)]
    try:
        wait_until(lambda: watches(running[0]), 20, "the first menu watches")
        running.append(start("-c", MENU))
        running.append(start(str(CHECKOUT / "main.py"), "monitor"))
        wait_until(lambda: watches(running[2]), 20, "the monitor watches")
        old = cluster.vm(made["vm1"])["pid"]
        wait_until(lambda: cluster.ok("get_slice", "admin", made["id"])["vms"][0]["observed"] == "running", 60, "seen")
        cluster.host(cluster.vm(made["vm1"])["worker_ip"], "kill", "-KILL", str(old))
        wait_until(lambda: cluster.vm(made["vm1"])["pid"] not in (None, old), 20, "it was started again")
        events = list(cluster.api.context.events.read())
        assert [event.what for event in events if event.about == f"vm {made['vm1']}"][-2:] == [
            "vm.died",
            "vm.restarted",
        ]
        assert sum(event.what == "vm.restarted" for event in events) == 1
        running[2].send_signal(signal.SIGKILL)
        running[2].wait()
        wait_until(lambda: watches(running[0]) or watches(running[1]), 20, "a menu watches")
        running.append(start(str(CHECKOUT / "main.py"), "monitor"))
        wait_until(lambda: watches(running[3]), 20, "the monitor watches")
        running[3].send_signal(signal.SIGTERM)
        said, _ = running[3].communicate(timeout=60)
        assert running[3].returncode == 0
        assert said.splitlines()[-1] == "Ended; the state is saved."
        assert "Watching 3 hosts every 0.5 s" in said
    finally:
        for process in running:
            process.kill()
            process.communicate()
    snapshot = json.loads((folder / "observed.json").read_text())
    assert set(snapshot["workers"]) == set(HOSTS)
    cluster.ok("delete_slice", "admin", made["id"])
