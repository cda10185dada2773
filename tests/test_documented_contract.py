"""The documented system, held to its documents: names, signatures, strings, formulas, shapes, examples."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudrepo import allocation
from cloudrepo.errors import CloudError
from cloudrepo.settings import Settings
from database import Database
from deployment_api import DeploymentAPI, MadeDisk
from fakes.host import FakeExecutor, ModelHost
from fakes.orchestrator import FakeDisks, orchestrator
from health_monitor import HealthMonitor
from models import VM, Flavor, Interface, Link, Slice, User
from orchestrator_api import OrchestratorAPI
from vlan_manager import VLANManager
from vm_launcher import VMLauncher
from worlds import give_disk, vm

WORKERS = ["10.0.10.1", "10.0.10.2", "10.0.10.3"]

# ---------------------------------------------------------------------------------------- names and signatures

CLASSES = {
    "orchestrator_api": ["OrchestratorAPI"],
    "deployment_api": ["DeploymentAPI", "QCOWManager"],
    "vlan_manager": ["VLANManager"],
    "vm_launcher": ["VMLauncher"],
    "remote_executor": ["RemoteExecutor"],
    "worker_discovery": ["WorkerDiscovery"],
    "health_monitor": ["HealthMonitor"],
    "database": ["Database"],
    "models": ["User", "Flavor", "Interface", "Link", "VM", "Slice"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in CLASSES.items() for name in names])
def test_each_documented_class_is_defined_in_its_module(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert inspect.isclass(found) and found.__module__ == module


REQUIRED = inspect.Parameter.empty
ORCHESTRATOR = ("orchestrator_api", "OrchestratorAPI")
SIGNATURES: list[tuple[str, str, str, list[tuple[str, Any]]]] = [
    (*ORCHESTRATOR, "__init__", [("db", REQUIRED), ("deployment_api", REQUIRED)]),
    (
        *ORCHESTRATOR,
        "create_slice",
        [("username", REQUIRED), ("slice_name", REQUIRED), ("topology_type", "custom")],
    ),
    (
        *ORCHESTRATOR,
        "add_vm_to_slice",
        [
            *((name, REQUIRED) for name in ("username", "slice_id", "vm_name", "flavor_name")),
            ("data_interfaces_count", REQUIRED),
            ("internet_enabled", False),
        ],
    ),
    (
        *ORCHESTRATOR,
        "create_link",
        [(name, REQUIRED) for name in ("username", "slice_id", "vm1_id", "vm1_interface", "vm2_id", "vm2_interface")],
    ),
    (*ORCHESTRATOR, "deploy_slice", [("username", REQUIRED), ("slice_id", REQUIRED)]),
    (*ORCHESTRATOR, "delete_slice", [("username", REQUIRED), ("slice_id", REQUIRED)]),
    (*ORCHESTRATOR, "get_next_worker", []),
    (*ORCHESTRATOR, "list_slices", [("username", REQUIRED)]),
    (*ORCHESTRATOR, "get_slice", [("username", REQUIRED), ("slice_id", REQUIRED)]),
    (*ORCHESTRATOR, "remove_vm", [("username", REQUIRED), ("slice_id", REQUIRED), ("vm_id", REQUIRED)]),
    (*ORCHESTRATOR, "remove_link", [("username", REQUIRED), ("slice_id", REQUIRED), ("link_id", REQUIRED)]),
    (*ORCHESTRATOR, "start_slice", [("username", REQUIRED), ("slice_id", REQUIRED)]),
    (*ORCHESTRATOR, "stop_slice", [("username", REQUIRED), ("slice_id", REQUIRED)]),
    (*ORCHESTRATOR, "start_vm", [("username", REQUIRED), ("slice_id", REQUIRED), ("vm_id", REQUIRED)]),
    (*ORCHESTRATOR, "stop_vm", [("username", REQUIRED), ("slice_id", REQUIRED), ("vm_id", REQUIRED)]),
    ("deployment_api", "DeploymentAPI", "__init__", [("remote_executor", REQUIRED), ("base_image_path", None)]),
    ("deployment_api", "DeploymentAPI", "generate_unique_macs", [("vm_id", REQUIRED), ("count", 3)]),
    (
        *("deployment_api", "DeploymentAPI", "create_vm_with_qcow"),
        [
            *((name, REQUIRED) for name in ("slice_id", "vm_id", "vm_name", "owner", "worker_ip", "flavor")),
            ("data_interfaces_count", REQUIRED),
            ("internet_enabled", False),
        ],
    ),
    ("deployment_api", "DeploymentAPI", "delete_vm_dict", [("vm_dict", REQUIRED)]),
    ("deployment_api", "QCOWManager", "__init__", [("remote_executor", REQUIRED), ("base_dir", "~/vm_images")]),
    (
        *("deployment_api", "QCOWManager", "create_backing_image"),
        [(name, REQUIRED) for name in ("worker_ip", "vm_name", "base_image_path", "vlan_ids")],
    ),
    ("deployment_api", "QCOWManager", "delete_image", [("worker_ip", REQUIRED), ("image_path", REQUIRED)]),
    (
        *("vlan_manager", "VLANManager", "__init__"),
        [("remote_executor", REQUIRED), ("network_node_ip", "10.0.10.3")],
    ),
    (
        *("vlan_manager", "VLANManager", "create_vlan_with_gateway"),
        [("vlan_id", REQUIRED), ("cidr", REQUIRED), ("gateway_ip", REQUIRED), ("dhcp_enabled", True)],
    ),
    ("vlan_manager", "VLANManager", "enable_internet_for_vlan", [("vlan_id", REQUIRED), ("cidr", REQUIRED)]),
    ("vlan_manager", "VLANManager", "delete_vlan", [("vlan_id", REQUIRED)]),
    ("vm_launcher", "VMLauncher", "__init__", [("remote_executor", REQUIRED)]),
    ("vm_launcher", "VMLauncher", "launch_vm", [("worker_ip", REQUIRED), ("vm_dict", REQUIRED)]),
    ("vm_launcher", "VMLauncher", "stop_vm", [("worker_ip", REQUIRED), ("vm_dict", REQUIRED)]),
    ("remote_executor", "RemoteExecutor", "__init__", [("remote_user", "ubuntu")]),
    (
        *("remote_executor", "RemoteExecutor", "execute_direct"),
        [("remote_ip", REQUIRED), ("command", REQUIRED), ("timeout", 30)],
    ),
    ("worker_discovery", "WorkerDiscovery", "discover_all", []),
    ("health_monitor", "HealthMonitor", "__init__", [("db", REQUIRED), ("interval", 15)]),
    ("health_monitor", "HealthMonitor", "start", []),
    ("health_monitor", "HealthMonitor", "stop", []),
    ("database", "Database", "__init__", [("filepath", "database.yaml")]),
    ("database", "Database", "save", []),
    ("database", "Database", "update_slice", [("slice_id", REQUIRED), ("slice_data", REQUIRED)]),
    ("models", "User", "__init__", [("username", REQUIRED), ("password_hash", REQUIRED), ("quota_vms", 10)]),
    ("models", "User", "can_create_vms", [("count", REQUIRED)]),
    ("models", "Flavor", "get", [("flavor_name", REQUIRED)]),
    ("models", "Slice", "get_next_vlan", []),
]


@pytest.mark.parametrize(("module", "name", "method", "documented"), SIGNATURES)
def test_documented_parameters_come_first_in_order_with_their_defaults(
    module: str, name: str, method: str, documented: list[tuple[str, Any]]
) -> None:
    """Beyond them only keyword-only ones, or (for records) ones with a default, may follow."""
    call = getattr(getattr(importlib.import_module(module), name), method)
    parameters = [one for one in inspect.signature(call).parameters.values() if one.name != "self"]
    named = [(one.name, one.default) for one in parameters[: len(documented)]]
    assert named == documented
    assert all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters[: len(documented)])
    for more in parameters[len(documented) :]:
        assert more.default is not REQUIRED
        assert more.kind is more.KEYWORD_ONLY or module == "models"


def test_every_record_gives_plain_types() -> None:
    link = Link(1, 100, 1001, "eth1", 1002, "eth1")
    whole = Slice(1000, "admin", vms=[VM(1001, "vm1", "admin", "10.0.10.1", interfaces=[Interface("eth0", "m")])])
    assert link.to_dict() == {
        "link_id": 1, "vlan_id": 100, "vm1_id": 1001, "vm1_interface": "eth1", "vm2_id": 1002, "vm2_interface": "eth1",
    }  # fmt: skip
    assert set(whole.to_dict()["vms"][0]) == {
        "vm_id", "name", "owner", "worker_ip", "flavor", "cores", "ram_gb", "disk_gb", "vnc_port", "interfaces",
        "qcow_image", "status", "pid",
    }  # fmt: skip
    assert set(whole.to_dict()["vms"][0]["interfaces"][0]) == {"name", "mac", "vlan_id", "ip_config", "link_id"}
    assert set(User("ann", "x").to_dict()) == {"username", "password_hash", "quota_vms", "used_vms", "slices"}


# ---------------------------------------------------------------------------------------- formulas


def test_macs() -> None:
    api = DeploymentAPI(FakeExecutor())
    assert api.generate_unique_macs(1001) == ["52:54:00:03:e9:00", "52:54:00:03:e9:01", "52:54:00:03:e9:02"]
    assert api.generate_unique_macs(1001, 1) == ["52:54:00:03:e9:00"]
    assert api.vnc_port_counter == 5900


@pytest.mark.parametrize(("slice_id", "start"), [(1000, 100), (1001, 120), (1099, 2080), (1015, 400), (1100, 100)])
def test_vlan_pool(slice_id: int, start: int) -> None:
    record = Slice(slice_id, "admin")
    assert (record.vlan_pool_start, record.vlan_pool_end) == (start, start + 19)
    assert record.get_next_vlan() == (401 if start == 400 else start)


@pytest.mark.parametrize(("vlan", "base"), [(100, "192.168.100"), (356, "192.168.100"), (101, "192.168.101")])
def test_subnet_of_a_link(vlan: int, base: str) -> None:
    addresses = allocation.link_addresses(vlan)
    assert (addresses.cidr, addresses.gateway, addresses.dhcp) == (f"{base}.0/24", f"{base}.1", f"{base}.2")


@pytest.mark.parametrize(("vm_id", "ip"), [(1001, "10.60.7.101"), (1100, "10.60.7.100"), (1099, "10.60.7.199")])
def test_address_on_the_internet_vlan(vm_id: int, ip: str) -> None:
    chosen = allocation.choose_internet_address({"slices": {}}, vm_id, Settings.of({}).internet.cidr)
    assert chosen == {"ip": ip, "netmask": "255.255.255.0", "gateway": "10.60.7.1"}


def test_flavors() -> None:
    Flavor.use(Settings.of({}).flavors)
    assert Flavor.get("cirros") == {
        "cores": 1, "ram_gb": 0.5, "disk_gb": 1, "image": "/tmp/vm_images/cirros-0.6.2-x86_64-disk.img",
    }  # fmt: skip
    assert Flavor.get("ubuntu") == {
        "cores": 1, "ram_gb": 0.5, "disk_gb": 2.2, "image": "/tmp/vm_images/focal-server-cloudimg-amd64.img",
    }  # fmt: skip
    assert Flavor.get("debian") is None


@pytest.mark.parametrize(("used", "count", "may"), [(9, 1, True), (10, 1, False), (0, 10, True), (0, 11, False)])
def test_quota(used: int, count: int, may: bool) -> None:
    assert User("ann", "x", used_vms=used).can_create_vms(count) is may


def test_a_fresh_state_file_has_the_documented_content(tmp_path: Path) -> None:
    data = Database(tmp_path / "database.yaml").data
    assert {name: user["quota_vms"] for name, user in data["users"].items()} == {"admin": 10, "student": 6}
    assert (data["workers"], data["workers_list"], data["slices"]) == ({}, WORKERS, {})
    assert (data["next_vm_id"], data["next_vlan_id"]) == (1000, 100)
    assert (tmp_path / "database.yaml").exists()


def test_the_monitor_saves_every_fifteen_seconds() -> None:
    monitor = HealthMonitor(SimpleNamespace(save=lambda: None))
    assert (monitor.interval, monitor.running, monitor.thread) == (15, False, None)


# ---------------------------------------------------------------------------------------- the façade


@pytest.fixture
def api(tmp_path: Path) -> OrchestratorAPI:
    """The façade over three hosts in memory, each known and with room."""
    return orchestrator(tmp_path)


def designed(api: OrchestratorAPI) -> None:
    """The worked example: slice 1000 with VMs 1001 and 1002 and a link."""
    assert api.create_slice("admin", "my-slice") == (True, {"slice_id": 1000, "name": "my-slice"})
    api.add_vm_to_slice(
        "admin", slice_id=1000, vm_name="vm1", flavor_name="cirros", data_interfaces_count=1, internet_enabled=True
    )
    api.add_vm_to_slice("admin", 1000, "vm2", "cirros", 1)
    api.create_link("admin", slice_id=1000, vm1_id=1001, vm1_interface="eth1", vm2_id=1002, vm2_interface="eth1")


def test_the_worked_example_of_add_vm(api: OrchestratorAPI) -> None:
    api.create_slice("admin", "my-slice")
    done, made = api.add_vm_to_slice("admin", 1000, "vm1", "cirros", 1, True)
    assert done is True
    assert made == {
        "vm_id": 1001,
        "name": "vm1",
        "owner": "admin",
        "worker_ip": "10.0.10.1",
        "flavor": "cirros",
        "cores": 1,
        "ram_gb": 0.5,
        "disk_gb": 1,
        "vnc_port": 5901,
        "interfaces": [
            {
                "name": "eth0",
                "mac": "52:54:00:03:e9:00",
                "vlan_id": 400,
                "ip_config": {"ip": "10.60.7.101", "netmask": "255.255.255.0", "gateway": "10.60.7.1"},
                "link_id": None,
            },
            {"name": "eth1", "mac": "52:54:00:03:e9:01", "vlan_id": None, "ip_config": None, "link_id": None},
        ],
        "qcow_image": "~/vm_images/vm1_img.qcow2",
        "status": "design",
        "pid": None,
    }
    assert api.db.data["users"]["admin"]["used_vms"] == 1


def test_the_worked_example_of_create_link(api: OrchestratorAPI) -> None:
    api.create_slice("admin", "my-slice")
    for name in ("vm1", "vm2"):
        api.add_vm_to_slice("admin", 1000, name, "cirros", 1)
    answer = api.create_link("admin", 1000, 1001, "eth1", 1002, "eth1")
    assert answer == (
        True,
        {
            "link_id": 1, "vlan_id": 100, "vm1_id": 1001, "vm1_interface": "eth1", "vm2_id": 1002,
            "vm2_interface": "eth1",
        },
    )  # fmt: skip
    _, record = api.get_slice("admin", 1000)
    ends = [one["interfaces"][1] for one in record["vms"]]
    assert [(end["vlan_id"], end["link_id"]) for end in ends] == [(100, 1), (100, 1)]


def test_deploy_and_delete_say_the_documented_words_and_do_the_work(api: OrchestratorAPI) -> None:
    designed(api)
    hosts = api.executor.hosts
    before = {ip: host.picture()["devices"] for ip, host in hosts.items()}
    assert api.deploy_slice("admin", 1000) == (True, "Slice deployed successfully")
    _, record = api.get_slice("admin", 1000)
    assert record["status"] == "running" and [one["status"] for one in record["vms"]] == ["running", "running"]
    assert all(isinstance(one["pid"], int) for one in record["vms"])
    assert {"tap_1001_eth0", "tap_1001_eth1"} <= set(hosts["10.0.10.1"].devices)
    node = hosts["10.0.10.3"]
    assert {"gw_vlan400", "dhcp_v400", "gw_vlan100", "dhcp_v100"} <= set(node.ports)
    assert set(node.namespaces) == {"ns-dhcp-vlan400", "ns-dhcp-vlan100"}
    done, error = api.deploy_slice("admin", 1000)
    assert done is False and "running" in error
    assert api.delete_slice("admin", 1000) == (True, "Slice deleted")
    assert {ip: host.picture()["devices"] for ip, host in hosts.items()} == before
    assert all(not host.processes for host in hosts.values())
    assert api.db.data["users"]["admin"]["used_vms"] == 0 and api.db.data["users"]["admin"]["slices"] == []
    assert api.get_slice("admin", 1000) == (False, "Slice not found")


def test_the_documented_refusals_word_for_word(api: OrchestratorAPI) -> None:
    assert api.create_slice("nobody", "x") == (False, "User not found")
    api.create_slice("admin", "x")
    assert api.add_vm_to_slice("nobody", 1000, "vm1", "cirros", 1) == (False, "User not found")
    assert api.add_vm_to_slice("admin", 9, "vm1", "cirros", 1) == (False, "Slice not found")
    assert api.add_vm_to_slice("student", 1000, "vm1", "cirros", 1) == (False, "Not authorized")
    assert api.add_vm_to_slice("admin", 1000, "vm1", "huge", 1) == (False, "Invalid flavor")
    for call in (api.deploy_slice, api.delete_slice, api.stop_slice, api.start_slice, api.get_slice):
        assert call("admin", 9) == (False, "Slice not found")
        assert call("student", 1000) == (False, "Not authorized")
        assert call("nobody", 1000) == (False, "User not found")
    assert api.create_link("student", 1000, 1, "eth1", 2, "eth1") == (False, "Not authorized")


def test_quota_exceeded(api: OrchestratorAPI) -> None:
    api.create_slice("student", "x")
    for number in range(6):
        assert api.add_vm_to_slice("student", 1000, f"vm{number}", "cirros", 0)[0]
    assert api.add_vm_to_slice("student", 1000, "vm6", "cirros", 0) == (False, "Quota exceeded")
    assert api.db.data["users"]["student"]["used_vms"] == 6


def test_checks_come_in_their_documented_order(api: OrchestratorAPI) -> None:
    """User, slice, owner, state, flavor, name, numbers, quota."""
    api.create_slice("admin", "x")
    with api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 0
    wrong: list[Any] = ["nobody", 9, "a b", "huge", -1]
    right: list[Any] = ["admin", 1000, "vm1", "cirros", 1]
    answers = []
    for known in (set(), {0}, {0, 1}, {0, 1, 3}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}):
        values = [right[place] if place in known else wrong[place] for place in range(5)]
        answers.append(str(api.add_vm_to_slice(*values)[1]))
    assert answers[0] == "User not found" and answers[1] == "Slice not found" and answers[2] == "Invalid flavor"
    assert "cannot be named 'a b'" in answers[3] and "-1 data interfaces" in answers[4]
    assert answers[5] == "Quota exceeded"


def test_vlan_pool_exhausted(api: OrchestratorAPI) -> None:
    with api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 100
    api.create_slice("admin", "x")
    for name in ("a", "b", "c", "d"):
        assert api.add_vm_to_slice("admin", 1000, name, "cirros", 14)[0]
    vms = [one["vm_id"] for one in api.get_slice("admin", 1000)[1]["vms"]]
    for number in range(20):
        pair = vms[:2] if number < 10 else vms[2:]
        end = f"eth{number % 10 + 1}"
        assert api.create_link("admin", 1000, pair[0], end, pair[1], end)[1]["vlan_id"] == 100 + number
    assert api.create_link("admin", 1000, vms[0], "eth14", vms[1], "eth14") == (False, "VLAN pool exhausted")


def test_the_round_robin_gives_one_two_three_one(api: OrchestratorAPI) -> None:
    assert api.workers == WORKERS
    assert [api.get_next_worker() for _ in range(4)] == [*WORKERS, WORKERS[0]]
    assert api.round_robin_idx == 4


def test_the_slices_of_a_user(api: OrchestratorAPI) -> None:
    assert api.list_slices("student") == (True, [])
    designed(api)
    done, (record,) = api.list_slices("admin")
    assert done and record == api.get_slice("admin", 1000)[1]
    assert (record["vlan_pool_start"], record["vlan_pool_end"], record["status"]) == (100, 119, "design")


# ---------------------------------------------------------------------------------------- the managers alone


def test_a_vlan_by_hand() -> None:
    node = ModelHost("10.0.10.3")
    before = node.picture()
    manager = VLANManager(FakeExecutor(node))
    assert manager.create_vlan_with_gateway(777, "192.168.9.0/24", "192.168.9.1") is True
    assert node.ports["gw_vlan777"]["tag"] == 777 and node.ports["dhcp_v777"]["tag"] == 777
    assert node.ports["gw_vlan777"]["ids"]["cloudrepo"] == "cloudrepo/00000000/manual/-/777"
    assert node.devices["gw_vlan777"].addresses == ["192.168.9.1/24"]
    assert manager.create_vlan_with_gateway(777, "192.168.9.0/24", "192.168.9.1") is True
    assert manager.create_vlan_with_gateway(778, "10.1.0.0/24", "10.1.0.1", dhcp_enabled=False) is True
    assert "dhcp_v778" not in node.ports
    assert manager.enable_internet_for_vlan(777, "192.168.9.0/24") is False
    assert manager.delete_vlan(777) is True and manager.delete_vlan(778) is True
    assert manager.delete_vlan(777) is True
    assert node.picture() == before


def test_the_internet_vlan_by_hand() -> None:
    node = ModelHost("10.0.10.3")
    before = node.picture()
    manager = VLANManager(FakeExecutor(node))
    assert manager.create_vlan_with_gateway(400, "10.60.7.0/24", "10.60.7.1") is True
    assert node.picture()["rules"] == before["rules"]
    assert manager.enable_internet_for_vlan(400, "10.60.7.0/24") is True
    assert any("MASQUERADE" in rule for chain in node.rules["nat"].values() for rule in chain)
    assert manager.delete_vlan(400) is True
    assert node.picture() == before


def test_a_vlan_that_cannot_be_made_is_false_and_leaves_nothing() -> None:
    node = ModelHost("10.0.10.3")
    before = node.picture()
    manager = VLANManager(FakeExecutor(node))
    assert manager.create_vlan_with_gateway(777, "192.168.9.0/30", "192.168.9.1") is False
    assert manager.create_vlan_with_gateway(777, "nonsense", "192.168.9.1") is False
    assert manager.create_vlan_with_gateway(777, "192.168.9.0/24", "10.0.0.1") is False
    node.is_up = False
    assert manager.create_vlan_with_gateway(777, "192.168.9.0/24", "192.168.9.1") is False
    assert manager.delete_vlan(777) is False
    assert node.picture() == before


def test_a_vm_by_hand() -> None:
    worker = ModelHost("10.0.10.1")
    give_disk(worker, 1001, "manual", installation="00000000")
    worker.files["/home/ubuntu/vm_images/vm1_img.qcow2"] = "qcow2"
    before = worker.picture()
    launcher = VMLauncher(FakeExecutor(worker))
    record = vm(1001, (400, 100, None))
    done, pid = launcher.launch_vm("10.0.10.1", record)
    assert done is True and isinstance(pid, str) and int(pid) in worker.processes
    assert launcher.launch_vm("10.0.10.1", record) == (True, pid), "a machine that runs is not started twice"
    assert launcher.stop_vm("10.0.10.1", record) is True
    assert launcher.stop_vm("10.0.10.1", record) is True
    assert worker.picture() == before, "its disk above all"


def test_a_vlan_and_a_vm_of_one_number_are_two_things() -> None:
    host = ModelHost("10.0.10.3")
    give_disk(host, 1001, "manual", installation="00000000")
    host.files["/home/ubuntu/vm_images/vm1_img.qcow2"] = "qcow2"
    executor = FakeExecutor(host)
    assert VMLauncher(executor).launch_vm("10.0.10.3", vm(1001))[0]
    before = host.picture()
    manager = VLANManager(executor)
    assert manager.create_vlan_with_gateway(1001, "192.168.9.0/24", "192.168.9.1") is True
    assert manager.delete_vlan(1001) is True
    assert host.picture() == before


@pytest.mark.parametrize("name", ["a b", "a,b", "$(reboot)", "../x", "--help", "x" * 200, "ñu", "12", "a\nb", ""])
def test_a_vm_with_a_hostile_name_is_not_launched(name: str) -> None:
    worker = ModelHost("10.0.10.1")
    before = worker.picture()
    assert VMLauncher(FakeExecutor(worker)).launch_vm("10.0.10.1", vm() | {"name": name}) == (False, None)
    assert worker.picture() == before


def test_a_launch_that_fails_leaves_nothing_and_stops_nobody_else() -> None:
    worker = ModelHost("10.0.10.1")
    for number in (1001, 1010):
        give_disk(worker, number, "manual", installation="00000000")
        worker.files[f"/home/ubuntu/vm_images/vm{number - 1000}_img.qcow2"] = "qcow2"
    launcher = VMLauncher(FakeExecutor(worker))
    assert launcher.launch_vm("10.0.10.1", vm(1010))[0]
    before = worker.picture()
    worker.fail_at = {"vm1001:run"}
    assert launcher.launch_vm("10.0.10.1", vm(1001)) == (False, None)
    worker.fail_at = set()
    assert worker.picture() == before
    assert launcher.launch_vm("10.0.10.9", vm(1001)) == (False, None)


def test_vms_made_by_hand_get_the_documented_ports_and_a_failure_leaves_no_hole() -> None:
    executor = FakeExecutor(ModelHost("10.0.10.1"))
    made_by_hand = DeploymentAPI(executor)
    made_by_hand.qcow_manager = FakeDisks(executor, "00000000")  # type: ignore[assignment]
    Flavor.use(Settings.of({}).flavors)
    flavor = Flavor.get("cirros")
    assert flavor is not None
    done, first = made_by_hand.create_vm_with_qcow(1000, 1001, "vm1", "admin", "10.0.10.1", flavor, 1, True)
    assert done is True and first is not None and first.status == "design"
    assert (first.vnc_port, made_by_hand.vnc_port_counter) == (5901, 5901)
    assert [(one.name, one.vlan_id) for one in first.interfaces] == [("eth0", 400), ("eth1", None)]
    assert first.interfaces[0].ip_config is not None and first.interfaces[0].ip_config["ip"] == "10.60.7.101"
    assert first.qcow_image == "~/vm_images/vm1_img.qcow2" and first.flavor == "cirros"

    def broken(*args: Any, **options: Any) -> MadeDisk:
        raise CloudError("no room")

    made_by_hand.qcow_manager.create = broken  # type: ignore[method-assign]
    answer = made_by_hand.create_vm_with_qcow(1000, 1002, "vm2", "admin", "10.0.10.1", flavor, 0)
    assert answer == (False, None) and made_by_hand.vnc_port_counter == 5901


def test_a_slice_is_kept_under_its_number_as_text(tmp_path: Path) -> None:
    db = Database(tmp_path / "database.yaml")
    db.update_slice(1000, Slice(1000, "admin", name="x").to_dict())
    assert list(db.data["slices"]) == ["1000"]
    db.update_slice("1000", Slice(1000, "admin", name="y").to_dict())
    assert list(db.data["slices"]) == ["1000"] and db.data["slices"]["1000"]["name"] == "y"
    assert list(Database(tmp_path / "database.yaml").data["slices"]) == ["1000"]


def test_a_disk_that_is_not_there_is_nothing_to_delete() -> None:
    api = DeploymentAPI(FakeExecutor())
    assert api.delete_vm_dict({"worker_ip": "10.0.10.1"}) is True
    assert api.delete_vm_dict({"worker_ip": "10.0.10.1", "qcow_image": None}) is True
    assert api.delete_vm_dict({"worker_ip": "10.0.10.1", "qcow_image": "~/vm_images/x.qcow2"}) is False
