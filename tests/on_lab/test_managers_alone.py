"""The documented managers, used without a database: they do their work on the hosts at once, marked `manual`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cloudrepo.guest_agent import GuestAgent, GuestResult
from cloudrepo.naming import machine_dir, tap_name
from deployment_api import DeploymentAPI, QCOWManager
from lab.cluster import Lab
from lab.layout import INTERNET_IP, ORCHESTRATOR_IP
from models import Flavor
from on_lab.cluster import HOSTS, NETWORK_NODE, differences, network_of, snapshot, wait_until
from remote_executor import RemoteExecutor
from vlan_manager import VLANManager
from vm_launcher import VMLauncher

pytestmark = pytest.mark.lab

WORKER = HOSTS[0]
NO_HOST = ORCHESTRATOR_IP  # an address in the cluster where nobody listens
NOBODY = "00000000"  # the installation in the marks of managers that belong to none
INSIDE_777 = ("ip", "netns", "exec", "ns-dhcp-vlan777")


@pytest.fixture
def executor(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RemoteExecutor]:
    """An executor of one's own where the orchestrator runs; afterwards the hosts are as they were."""
    monkeypatch.setenv("CLOUDREPO_SSH_KEY", lab.environment()["CLOUDREPO_SSH_KEY"])
    known_hosts = tmp_path_factory.mktemp("pins") / "known_hosts"
    before = snapshot(lab)
    with network_of(lab.orchestrator_room().pid()), RemoteExecutor(known_hosts=known_hosts) as executor:
        yield executor
    assert differences(before, snapshot(lab)) == []


def _host(lab: Lab, ip: str, *words: str) -> str:
    done = lab.host(ip, list(words), timeout=30)
    assert done.returncode == 0, f"{words} on {ip}: {done.stderr}"
    return done.stdout


def _guest(executor: RemoteExecutor, vm_id: int, *words: str) -> GuestResult:
    with executor.open_serial(WORKER, f"{machine_dir(NOBODY, vm_id)}/agent.sock") as channel:
        agent = GuestAgent(channel)
        agent.wait(240)
        return agent.run(words)


@pytest.mark.cost(seconds=4)
def test_a_vlan_is_made_twice_and_deleted_twice(lab: Lab, executor: RemoteExecutor) -> None:
    """Port, tag, gateway, DHCP server: True says that all of them are there."""
    before = snapshot(lab)
    manager = VLANManager(executor)
    assert manager.create_vlan_with_gateway(777, "192.168.77.0/24", "192.168.77.1") is True
    for port, address in (("gw_vlan777", "192.168.77.1"), ("dhcp_v777", "192.168.77.2")):
        assert _host(lab, NETWORK_NODE, "ovs-vsctl", "get", "Port", port, "tag").strip() == "777"
        ids = _host(lab, NETWORK_NODE, "ovs-vsctl", "get", "Port", port, "external_ids")
        assert f"cloudrepo/{NOBODY}/manual/-/777" in ids
        row = json.loads(_host(lab, NETWORK_NODE, *INSIDE_777, "ip", "-j", "-4", "addr", "show", "dev", port))[0]
        assert [(one["local"], one["prefixlen"]) for one in row["addr_info"]] == [(address, 24)]
        assert "UP" in row["flags"]
    servers = [line for line in _host(lab, NETWORK_NODE, "ps", "-eo", "args=").splitlines() if "dnsmasq" in line]
    assert servers == [f"dnsmasq --conf-file=/run/cloudrepo-{NOBODY}/dhcp-777/dnsmasq.conf"]
    assert ":67" in _host(lab, NETWORK_NODE, *INSIDE_777, "ss", "-Hlun", "sport = :67")

    made = snapshot(lab)
    assert manager.create_vlan_with_gateway(777, "192.168.77.0/24", "192.168.77.1") is True
    assert differences(made, snapshot(lab)) == []
    assert VLANManager(executor).delete_vlan(777) is True  # another process may do it
    assert differences(before, snapshot(lab)) == []
    assert manager.delete_vlan(777) is True


@pytest.mark.cost(seconds=3)
def test_a_vlan_may_have_no_dhcp_and_a_wish_that_cannot_be_is_false(lab: Lab, executor: RemoteExecutor) -> None:
    manager = VLANManager(executor)
    assert manager.create_vlan_with_gateway(777, "192.168.77.0/24", "192.168.77.1", dhcp_enabled=False) is True
    assert _host(lab, NETWORK_NODE, "ovs-vsctl", "list-ports", "br-int").split().count("dhcp_v777") == 0
    assert manager.delete_vlan(777) is True
    for cidr, gateway in (("192.168.77.0/24", "192.168.78.1"), ("192.168.77.0/30", "192.168.77.1"), ("x", "y")):
        assert manager.create_vlan_with_gateway(777, cidr, gateway) is False
    assert VLANManager(executor, NO_HOST).delete_vlan(777) is False  # nobody there
    assert manager.enable_internet_for_vlan(777, "192.168.77.0/24") is False  # only 400 has a gateway in the node


@pytest.mark.cost(seconds=20)
def test_a_vm_in_no_database_is_launched_reached_and_stopped(lab: Lab, executor: RemoteExecutor) -> None:
    """Disk, VLANs and machine by hand: an address by DHCP, the gateway, a page from the internet."""
    vlans, launcher, deployment = VLANManager(executor), VMLauncher(executor), DeploymentAPI(executor)
    flavor = {**(Flavor.get("cirros") or {}), "ram_gb": 0.125}
    flavor["image"] = str(lab.folder.images / "cirros-0.6.2-x86_64-disk.img")
    done, vm = deployment.create_vm_with_qcow(4000, 4001, "hand", "admin", WORKER, flavor, 2, internet_enabled=True)
    assert done
    assert vm is not None
    record = vm.to_dict()
    assert (record["status"], record["qcow_image"]) == ("design", "~/vm_images/hand_img.qcow2")
    assert record["interfaces"][0]["ip_config"]["ip"] == "10.60.7.101"  # 100 + 4001 % 100
    record["interfaces"][2]["vlan_id"] = 777
    assert vlans.create_vlan_with_gateway(777, "192.168.77.0/24", "192.168.77.1")
    assert vlans.create_vlan_with_gateway(400, "10.60.7.0/24", "10.60.7.1")
    assert vlans.enable_internet_for_vlan(400, "10.60.7.0/24")
    assert vlans.enable_internet_for_vlan(400, "10.60.7.0/24")
    rules = _host(lab, NETWORK_NODE, "iptables-save", "-t", "nat").splitlines()
    assert sum("MASQUERADE" in rule for rule in rules) == 1

    done, pid = launcher.launch_vm(WORKER, record)
    assert done
    assert isinstance(pid, str)
    assert "hand,debug-threads" in _host(lab, WORKER, "cat", f"/proc/{pid}/cmdline")
    assert launcher.launch_vm(WORKER, record) == (True, pid)
    taps = _host(lab, WORKER, "ls", "/sys/class/net").split()
    assert {tap_name(4001, name) for name in ("eth0", "eth1", "eth2")} <= set(taps)
    assert _host(lab, WORKER, "ovs-vsctl", "get", "Port", "tap_4001_eth2", "tag").strip() == "777"

    wait_until(lambda: "192.168.77." in _guest(executor, 4001, "ip", "-4", "addr", "show", "eth2").out, 120, "a lease")
    assert _guest(executor, 4001, "ping", "-c", "2", "-W", "2", "192.168.77.1").status == 0
    # Nobody is known to VLAN 400's server, so it gives no address: the guest takes the one it was designed with.
    setup = "ip addr add 10.60.7.101/24 dev eth0 && ip route add default via 10.60.7.1"
    assert _guest(executor, 4001, "sh", "-c", setup).status == 0
    assert _guest(executor, 4001, "fetch", f"http://{INTERNET_IP}/").status == 0

    assert launcher.stop_vm(WORKER, record) is True
    assert launcher.stop_vm(WORKER, record) is True
    assert not any("qemu-system" in line for line in _host(lab, WORKER, "ps", "-eo", "args=").splitlines())
    assert not any(tap.startswith("tap_4001") for tap in _host(lab, WORKER, "ls", "/sys/class/net").split())
    assert "hand_img.qcow2" in _host(lab, WORKER, "ls", "/home/ubuntu/vm_images").split()  # its disk stays
    assert launcher.launch_vm(WORKER, record)[0]
    assert _guest(executor, 4001, "true").status == 0  # it has booted, so that it hears its power button
    assert launcher.stop_vm(WORKER, record) is True

    assert vlans.delete_vlan(777) is vlans.delete_vlan(400) is True
    assert deployment.delete_vm_dict(record) is True
    assert "hand_img.qcow2" not in _host(lab, WORKER, "ls", "/home/ubuntu/vm_images").split()
    assert deployment.delete_vm_dict(record) is True


@pytest.mark.cost(seconds=4)
def test_a_vlan_and_a_vm_of_one_number_do_not_meet(lab: Lab, executor: RemoteExecutor) -> None:
    vlans, disks = VLANManager(executor), DeploymentAPI(executor)
    flavor = {**(Flavor.get("cirros") or {}), "image": str(lab.folder.images / "cirros-0.6.2-x86_64-disk.img")}
    done, vm = disks.create_vm_with_qcow(4000, 1001, "same", "admin", NETWORK_NODE, flavor, 1)
    assert done
    assert vm is not None
    assert vlans.create_vlan_with_gateway(1001, "192.168.77.0/24", "192.168.77.1")
    assert vlans.delete_vlan(1001)
    assert "same_img.qcow2" in _host(lab, NETWORK_NODE, "ls", "/home/ubuntu/vm_images").split()
    assert disks.delete_vm_dict(vm.to_dict())


@pytest.mark.cost(seconds=3)
def test_a_disk_alone_and_what_cannot_be(lab: Lab, executor: RemoteExecutor) -> None:
    image = str(lab.folder.images / "cirros-0.6.2-x86_64-disk.img")
    disks, deployment = QCOWManager(executor), DeploymentAPI(executor)
    assert disks.create_backing_image(WORKER, "vm1", image, [100]) == (True, "~/vm_images/vm1_img.qcow2")
    again = disks.create_backing_image(WORKER, "vm1", image, [])
    assert again == (True, "~/vm_images/manual_vm1_img.qcow2")  # never over a disk that is there
    info = json.loads(_host(lab, WORKER, "qemu-img", "info", "--output=json", "/home/ubuntu/vm_images/vm1_img.qcow2"))
    assert info["full-backing-filename"].startswith("/home/ubuntu/vm_images/base/")
    for path in ("~/vm_images/vm1_img.qcow2", "~/vm_images/manual_vm1_img.qcow2", "~/vm_images/never_img.qcow2"):
        assert disks.delete_image(WORKER, path) is True
    assert disks.delete_image(WORKER, "~/.ssh/authorized_keys") is False  # not a disk of ours
    assert _host(lab, WORKER, "cat", "/home/ubuntu/.ssh/authorized_keys")
    assert disks.create_backing_image(NO_HOST, "vm1", image, []) == (False, None)
    assert disks.create_backing_image(WORKER, "vm1", "/nowhere/none.img", []) == (False, None)
    assert deployment.delete_vm_dict({"qcow_image": None, "worker_ip": WORKER}) is True
    assert deployment.delete_vm_dict({"worker_ip": WORKER}) is True
    assert deployment.delete_vm_dict({"qcow_image": "~/vm_images/x_img.qcow2", "worker_ip": NO_HOST}) is False
    assert VMLauncher(executor).launch_vm(NO_HOST, {"vm_id": 1, "qcow_image": "~/x"}) == (False, None)
