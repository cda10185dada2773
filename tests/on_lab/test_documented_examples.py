"""The worked examples of the documents, as written, with nothing but the documented defaults around them.

The examples run in processes of their own where the orchestrator runs: no settings file, no variable but
HOME and PATH, the person's own key, the shipped state file, the image at its documented place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Lab
from on_lab.cluster import HOSTS, NETWORK_NODE, differences, snapshot

pytestmark = pytest.mark.lab

CHECKOUT = Path(__file__).resolve().parents[2]
Run = Callable[[str], Any]

WIRING = """
from database import Database
from remote_executor import RemoteExecutor
from deployment_api import DeploymentAPI
from orchestrator_api import OrchestratorAPI

db = Database()
executor = RemoteExecutor()
deployment = DeploymentAPI(executor)
orchestrator = OrchestratorAPI(db, deployment)
"""

DESIGN = """
success, result = orchestrator.create_slice("admin", "my-slice")
found = {"slice": [success, result]}
success, vm = orchestrator.add_vm_to_slice(
    "admin",
    slice_id=1000,
    vm_name="vm1",
    flavor_name="cirros",
    data_interfaces_count=1,
    internet_enabled=True,
)
found["vm1"] = [success, vm]
found["vm2"] = orchestrator.add_vm_to_slice("admin", 1000, "vm2", "cirros", 1)
success, link = orchestrator.create_link(
    "admin",
    slice_id=1000,
    vm1_id=1001, vm1_interface="eth1",
    vm2_id=1002, vm2_interface="eth1",
)
found["link"] = [success, link]
"""

DEPLOY = """
success, msg = orchestrator.deploy_slice("admin", 1000)
found = {"deploy": [success, msg], "pids": [vm["pid"] for vm in db.data["slices"]["1000"]["vms"]]}
"""

PING = """
from cloudrepo.guest_agent import GuestAgent
success, target = orchestrator.console_target("admin", "vm1")
with executor.open_serial(target["worker_ip"], target["agent_socket"]) as channel:
    agent = GuestAgent(channel)
    agent.wait(240)
    script = 'for n in $(seq 60); do ping -q -c 1 -W 1 "$1" && exec fetch "$2"; sleep 1; done; exit 9'
    words = ("sh", "-c", script, "sh", "192.168.100.11", "http://203.0.113.1/")
    found = {"both": agent.run(words, timeout_s=90).status}
"""

DELETE = """
success, msg = orchestrator.delete_slice("admin", 1000)
found = {"delete": [success, msg], "left": db.data["slices"], "used": db.data["users"]["admin"]["used_vms"]}
"""

WORKERS = """
# With workers ["10.0.10.1", "10.0.10.2", "10.0.10.3"]
found = [
    orchestrator.get_next_worker(),  # "10.0.10.1"
    orchestrator.get_next_worker(),  # "10.0.10.2"
    orchestrator.get_next_worker(),  # "10.0.10.3"
    orchestrator.get_next_worker(),  # "10.0.10.1"  (wraps around)
]
"""

DEPLOYMENT = """
from models import Flavor
macs = deployment.generate_unique_macs(1001)
first = deployment.vnc_port_counter
success, vm = deployment.create_vm_with_qcow(
    1000, 1001, "vm1", "admin", "10.0.10.1", Flavor.get("cirros"), 2, internet_enabled=True
)
vm_dict = vm.to_dict()
manager = deployment.qcow_manager
made = manager.create_backing_image("10.0.10.1", "web", "/tmp/vm_images/cirros-0.6.2-x86_64-disk.img", [100])
found = {
    "macs": macs, "first": first, "success": success, "vm": vm_dict, "counter": deployment.vnc_port_counter,
    "made": made, "deleted": [deployment.delete_vm_dict(vm_dict), manager.delete_image("10.0.10.1", made[1])],
    "nothing": deployment.delete_vm_dict({"qcow_image": None, "worker_ip": "10.0.10.1"}),
}
"""


@pytest.fixture
def home(lab: Lab, tmp_path: Path) -> Path:
    """A person's home: a key, a directory with the shipped state file, and no more."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    shutil.copy(lab.folder.private_key, tmp_path / ".ssh/id_ed25519")
    (tmp_path / "work").mkdir()
    shutil.copy(CHECKOUT / "database.yaml", tmp_path / "work/database.yaml")
    return tmp_path


@pytest.fixture
def run(lab: Lab, home: Path) -> Iterator[Run]:
    """Runs the wiring and one example in a process of its own; what it found."""

    def run(example: str) -> Any:
        program = (
            f"import json, sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n{WIRING}\n{example}\nprint(json.dumps(found))\n"
        )
        environment = ["env", "-i", f"HOME={home}", f"PATH={os.environ['PATH']}"]
        done: subprocess.CompletedProcess[str] = lab.exec(
            [*environment, sys.executable, "-"], input=program, cwd=str(home / "work"), timeout=180
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    yield run
    if "slices: {}" not in (home / "work/database.yaml").read_text():  # a test failed half-way
        run("found = orchestrator.cleanup()[0]")


def _host(lab: Lab, ip: str, *words: str) -> list[str]:
    done = lab.host(ip, list(words), timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.cost(seconds=35)
def test_the_first_example_runs_as_written_from_slice_to_teardown(lab: Lab, home: Path, run: Run) -> None:
    before = snapshot(lab)
    found = run(DESIGN)
    assert found["slice"] == [True, {"slice_id": 1000, "name": "my-slice"}]
    for name, vm_id, port, worker in (("vm1", 1001, 5901, HOSTS[0]), ("vm2", 1002, 5902, HOSTS[1])):
        success, vm = found[name]
        assert success is True
        assert (vm["vm_id"], vm["vnc_port"], vm["worker_ip"], vm["status"]) == (vm_id, port, worker, "design")
        assert vm["qcow_image"] == f"~/vm_images/{name}_img.qcow2"
        macs = [one["mac"] for one in vm["interfaces"]]
        assert macs == [f"52:54:00:03:{vm_id & 0xFF:02x}:{index:02x}" for index in (0, 1)]
    interfaces = found["vm1"][1]["interfaces"]
    assert [(one["name"], one["vlan_id"]) for one in interfaces] == [("eth0", 400), ("eth1", None)]
    assert interfaces[0]["ip_config"] == {"ip": "10.60.7.101", "netmask": "255.255.255.0", "gateway": "10.60.7.1"}
    assert found["vm2"][1]["interfaces"][0]["vlan_id"] is None
    link = {
        "link_id": 1,
        "vlan_id": 100,
        "vm1_id": 1001,
        "vm1_interface": "eth1",
        "vm2_id": 1002,
        "vm2_interface": "eth1",
    }
    assert found["link"] == [True, link]

    found = run(DEPLOY)
    assert found["deploy"] == [True, "Slice deployed successfully"]
    assert all(isinstance(pid, int) and pid > 1 for pid in found["pids"])
    ports = _host(lab, NETWORK_NODE, "ovs-vsctl", "list-ports", "br-int")
    assert {"gw_vlan100", "dhcp_v100", "gw_vlan400", "dhcp_v400"} <= set(ports)
    assert {"ns-dhcp-vlan100", "ns-dhcp-vlan400"} <= set(_host(lab, NETWORK_NODE, "ip", "netns", "list"))
    assert {"tap_1001_eth0", "tap_1001_eth1"} <= set(_host(lab, HOSTS[0], "ls", "/sys/class/net"))
    assert _host(lab, HOSTS[0], "ovs-vsctl", "get", "Port", "tap_1001_eth1", "tag") == ["100"]
    assert _host(lab, HOSTS[1], "ovs-vsctl", "get", "Port", "tap_1002_eth1", "tag") == ["100"]

    assert run(PING) == {"both": 0}
    assert run(DELETE) == {"delete": [True, "Slice deleted"], "left": {}, "used": 0}
    assert differences(before, snapshot(lab)) == []
    assert not (home / "work/settings.yaml").exists()


@pytest.mark.cost(seconds=3)
def test_the_four_documented_calls_of_the_round_robin(run: Run) -> None:
    assert run(WORKERS) == [HOSTS[0], HOSTS[1], HOSTS[2], HOSTS[0]]


@pytest.mark.cost(seconds=5)
def test_the_deployment_example_runs_as_written(lab: Lab, run: Run) -> None:
    before = snapshot(lab)
    found = run(DEPLOYMENT)
    assert found["macs"] == ["52:54:00:03:e9:00", "52:54:00:03:e9:01", "52:54:00:03:e9:02"]
    assert (found["first"], found["success"], found["counter"]) == (5900, True, 5901)
    vm = found["vm"]
    assert (vm["status"], vm["qcow_image"], vm["vnc_port"]) == ("design", "~/vm_images/vm1_img.qcow2", 5901)
    expected = [("eth0", 400, "10.60.7.101"), ("eth1", None, None), ("eth2", None, None)]
    assert [(one["name"], one["vlan_id"], (one["ip_config"] or {}).get("ip")) for one in vm["interfaces"]] == expected
    assert [one["link_id"] for one in vm["interfaces"]] == [None, None, None]
    assert found["made"] == [True, "~/vm_images/web_img.qcow2"]
    assert found["deleted"] == [True, True]
    assert found["nothing"] is True
    assert differences(before, snapshot(lab)) == []
    assert set(_host(lab, HOSTS[0], "ls", "/home/ubuntu/vm_images")) == {"base"}


@pytest.mark.cost(seconds=4)
def test_the_session_guard_keeps_a_lab_session_inside_and_nobody_else(lab: Lab, home: Path) -> None:
    """Without CLOUDREPO_LAB_ONLY every host may be reached, and so with it inside the lab."""
    program = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\nfrom remote_executor import RemoteExecutor\n"
    program += "print(RemoteExecutor().execute_direct('10.0.10.1', 'hostname').stdout)"
    for guard in ([], ["CLOUDREPO_LAB_ONLY=1"]):
        words = ["env", "-i", f"HOME={home}", f"PATH={os.environ['PATH']}", *guard, sys.executable, "-c", program]
        assert lab.exec(words, cwd=str(home), timeout=60).stdout.strip() == "worker1"
