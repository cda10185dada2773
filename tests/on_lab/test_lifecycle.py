"""Stop and start: how each kind of guest is stopped, and that its disk is as it was left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cloudrepo.naming import tap_name
from cloudrepo.settings import DEFAULT_FLAVORS
from lab.cluster import Lab
from lab.layout import IMAGE_NAMES
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, wait_until

pytestmark = pytest.mark.lab

GIB = 1024**3
WORKER = HOSTS[0]
STOP_GRACE_S, QUIT_GRACE_S = 6.0, 0.5
SECTOR = 200 * 1024  # 100 MiB from the start: far behind the guest's own partition, within the flavor's 1 GiB


@dataclass
class Stopper:
    """A deployed slice of four VMs on one worker, and what the runner said of each stop.

    `vm1` and `vm10` obey the power button, `deaf` ignores it, `frozen` will be stopped by SIGSTOP.
    """

    cluster: Cluster
    made: Record
    stages: dict[int, str] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note by which stage each process ended, as the runner on the host reports it."""
        genuine = self.cluster.api.executor.run_plan

        def run_plan(host: str, plan: Any, **options: Any) -> Any:
            result = genuine(host, plan, **options)
            for name, step in result.steps.items():
                if name.startswith("vm") and name.endswith(":stop"):
                    vm_id = int(name[2:-5])
                    self.stages[vm_id], self.seconds[vm_id] = step.out, step.seconds
            return result

        monkeypatch.setattr(self.cluster.api.executor, "run_plan", run_plan)


@pytest.fixture(scope="module")
def running(module_clusters: Callable[..., Cluster]) -> Iterator[Stopper]:
    cluster = module_clusters(qemu={"stop_grace": STOP_GRACE_S, "quit_grace": QUIT_GRACE_S})
    with cluster.api.db.transaction() as data:
        data["workers_list"] = [WORKER]
    made = cluster.slice("vm1", "vm10")
    for name, flavor in (("deaf", "deaf"), ("frozen", "cirros")):
        made[name] = cluster.ok("add_vm_to_slice", "admin", made["id"], name, flavor, 0)["vm_id"]
    cluster.link(made, "vm1", "eth1", "vm10", "eth1")
    cluster.ok("deploy_slice", "admin", made["id"])
    yield Stopper(cluster, made)
    cluster.ok("delete_slice", "admin", made["id"])


@pytest.fixture
def stopper(running: Stopper, monkeypatch: pytest.MonkeyPatch) -> Stopper:
    running.stages.clear()
    running.listen(monkeypatch)
    return running


def _write_at_power_off(cluster: Cluster, vm_id: int, text: str) -> None:
    """Have a guest write to its disk when, and only when, its power button is pressed."""
    write = f'echo "{text}" | dd of=/dev/vda bs=512 seek={SECTOR} conv=notrunc 2>/dev/null'
    script = f"#!/bin/sh\n{write}\nexec /sbin/shutdown\n"
    done = cluster.guest(vm_id, "sh", "-c", 'printf "%s" "$1" > /etc/acpi/PWRF/00000080', "sh", script)
    assert done.status == 0, done.err


def _on_disk(cluster: Cluster, vm_id: int) -> str:
    done = cluster.guest(vm_id, "dd", "if=/dev/vda", "bs=512", "count=1", f"skip={SECTOR}")
    assert done.status == 0, done.err
    return done.out.strip("\0").strip()


def _processes(cluster: Cluster, worker: str = WORKER) -> list[str]:
    return cluster.host(worker, "ps", "-e", "-o", "args=").splitlines()


@pytest.mark.cost(seconds=25)
def test_stopping_vm1_leaves_vm10_and_its_disk_is_kept(stopper: Stopper) -> None:
    cluster, made = stopper.cluster, stopper.made
    ten = cluster.vm(made["vm10"])
    _write_at_power_off(cluster, made["vm1"], "written by vm1")
    assert _on_disk(cluster, made["vm1"]) == ""

    assert cluster.ok("stop_vm", "admin", made["id"], made["vm1"]) == "VM stopped"
    assert stopper.stages == {made["vm1"]: "powerdown"}
    one = cluster.vm(made["vm1"])
    assert (one["status"], one["pid"]) == ("stopped", None)
    machines = [line for line in _processes(cluster) if line.startswith("qemu-system")]
    assert [line.split(" -name guest=")[1].split(",")[0] for line in machines] == ["vm10", "deaf", "frozen"]
    assert tap_name(made["vm1"], "eth1") not in cluster.host(WORKER, "ls", "/sys/class/net").split()
    assert cluster.vm(made["vm10"])["pid"] == ten["pid"]
    assert cluster.guest(made["vm10"], "cat", "/proc/uptime").status == 0

    assert cluster.ok("start_vm", "admin", made["id"], made["vm1"]) == "VM started"
    assert _on_disk(cluster, made["vm1"]) == "written by vm1"
    assert cluster.vm(made["vm10"])["pid"] == ten["pid"]
    cluster.wait_for_address(made["vm1"], "eth1")
    assert cluster.pings(made["vm1"], "192.168.100.11")


@pytest.mark.cost(seconds=30)
def test_a_slice_stops_in_three_stages_and_starts_as_it_was(stopper: Stopper) -> None:
    cluster, made = stopper.cluster, stopper.made
    before = cluster.ok("get_slice", "admin", made["id"])
    _write_at_power_off(cluster, made["vm10"], "written by vm10")
    assert cluster.guest(made["deaf"], "true").status == 0  # it has booted: it could hear the button
    frozen = cluster.vm(made["frozen"])
    cluster.host(WORKER, "kill", "-STOP", str(frozen["pid"]))

    began = time.monotonic()
    assert cluster.ok("stop_slice", "admin", made["id"]) == "Slice stopped"
    took = time.monotonic() - began
    expected = {"vm1": "powerdown", "vm10": "powerdown", "deaf": "quit", "frozen": "kill"}
    assert stopper.stages == {made[name]: stage for name, stage in expected.items()}
    assert stopper.seconds[made["vm1"]] < STOP_GRACE_S
    assert stopper.seconds[made["deaf"]] >= STOP_GRACE_S
    assert QUIT_GRACE_S <= stopper.seconds[made["frozen"]] < 2.0
    assert took < 2 * STOP_GRACE_S + 5  # they are waited for together
    assert not any(line.startswith("qemu-system") for line in _processes(cluster))
    assert not any(
        "dnsmasq" in line and str(cluster.api.site.installation) in line for line in _processes(cluster, NETWORK_NODE)
    )
    stopped = cluster.ok("get_slice", "admin", made["id"])
    assert {vm["status"] for vm in stopped["vms"]} == {stopped["status"]} == {"stopped"}

    assert cluster.ok("start_slice", "admin", made["id"]) == "Slice started"
    after = cluster.ok("get_slice", "admin", made["id"])
    for vm in (*before["vms"], *after["vms"]):
        assert vm.pop("pid") > 1
    assert after == before
    assert _on_disk(cluster, made["vm10"]) == "written by vm10"
    assert cluster.wait_for_address(made["vm10"], "eth1") == "192.168.100.11"


@pytest.mark.cost(seconds=8)
def test_a_guest_that_continues_is_asked_again(stopper: Stopper) -> None:
    """One that was stopped by SIGSTOP when it was looked at, and goes on in time, may power off by itself."""
    cluster, made = stopper.cluster, stopper.made
    pid = str(cluster.vm(made["frozen"])["pid"])
    assert cluster.guest(made["frozen"], "true").status == 0
    cluster.host(WORKER, "sh", "-c", f"kill -STOP {pid}; (sleep 0.2; kill -CONT {pid}) >/dev/null 2>&1 &")
    assert cluster.ok("stop_vm", "admin", made["id"], made["frozen"]) == "VM stopped"
    assert stopper.stages == {made["frozen"]: "powerdown"}
    cluster.ok("start_vm", "admin", made["id"], made["frozen"])
    wait_until(lambda: cluster.guest(made["frozen"], "true").status == 0, 60, "it runs again")


@pytest.mark.cost(seconds=4)
def test_flavors_come_from_settings_and_disks_have_their_size(lab: Lab, clusters: Callable[..., Cluster]) -> None:
    image = str(lab.folder.images / IMAGE_NAMES[0])
    flavors = {
        "documented": {**DEFAULT_FLAVORS["ubuntu"], "image": image},
        "tiny": {"cores": 1, "ram_gb": 0.125, "disk_gb": 0.01, "image": image},
    }
    cluster = clusters(flavors=flavors)
    slice_id = cluster.ok("create_slice", "admin", "sizes")["slice_id"]
    sizes = {}
    for name, flavor in (("a", "documented"), ("b", "tiny"), ("c", "cirros")):
        vm = cluster.ok("add_vm_to_slice", "admin", slice_id, name, flavor, 1)
        path = cluster.place(vm["qcow_image"])
        said = cluster.host(vm["worker_ip"], "qemu-img", "info", "-U", path)
        sizes[flavor] = int(said.split("virtual size: ")[1].split("(")[1].split()[0])
        assert (vm["flavor"], vm["cores"], vm["ram_gb"]) == (flavor, 1, 0.5 if flavor == "documented" else 0.125)
    base = lab.exec(["qemu-img", "info", image]).stdout
    base_size = int(base.split("virtual size: ")[1].split("(")[1].split()[0])
    assert sizes == {"documented": pytest.approx(2.2 * GIB, abs=1024**2), "tiny": base_size, "cirros": GIB}
    assert cluster.refused("add_vm_to_slice", "admin", slice_id, "d", "ubuntu-22", 1) == "Invalid flavor"
