"""The hosts are machines of their own: reachable, sized as stated, and mortal."""

from __future__ import annotations

import subprocess

import pytest

from lab.cluster import Lab
from lab.layout import Options
from lab_infra.waiting import wait_for

pytestmark = pytest.mark.lab
_ALL = ["10.0.10.1", "10.0.10.2", "10.0.10.3"]


def ssh(lab: Lab, ip: str, command: str) -> subprocess.CompletedProcess[str]:
    key, known = str(lab.folder.private_key), str(lab.folder.path / "test_known_hosts")
    words = ["ssh", "-F", "/dev/null", "-i", key, "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}"]
    words += ["-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=3", f"ubuntu@{ip}", command]
    return lab.exec(words, timeout=20)


def boot_id(lab: Lab, ip: str) -> str:
    return lab.host(ip, ["cat", "/proc/sys/kernel/random/boot_id"], check=True).stdout.strip()


def listens(lab: Lab, ip: str) -> bool:
    """Whether somebody listens on a host's port 22."""
    return lab.host(ip, ["ss", "-Hltn", "sport = :22"], check=True).stdout != ""


@pytest.mark.cost(seconds=2)
@pytest.mark.parametrize("ip", _ALL)
def test_ssh_with_the_labs_key_and_sudo_without_a_password(lab: Lab, ip: str) -> None:
    done = ssh(lab, ip, "id -un; sudo -n id -u; hostname; sudo -n ovs-vsctl br-exists br-int && echo bridge")
    assert done.stdout.split() == ["ubuntu", "0", f"worker{ip[-1]}", "bridge"], done.stderr


@pytest.mark.cost(seconds=1)
def test_a_host_states_its_size(lab: Lab) -> None:
    probe = "import os; print(os.cpu_count()); print(open('/proc/meminfo').readline().split()[1])"
    cores, kib = lab.host("10.0.10.1", ["/usr/bin/python3", "-c", probe], check=True).stdout.split()
    assert (int(cores), int(kib)) == (Options().cores, Options().ram_gb * 1024 * 1024)
    assert lab.host("10.0.10.1", ["nproc"]).stdout.strip() == str(Options().cores)
    done = lab.host("10.0.10.1", ["df", "-B1", "--output=size,avail", "/nowhere", "/home"])
    assert done.returncode == 1  # one path is missing; the other is told
    size, free = done.stdout.split()[2:]
    assert int(free) <= int(size) <= Options().disk_gb * 1024**3


@pytest.mark.cost(seconds=1)
def test_a_host_cannot_write_to_the_machine(lab: Lab) -> None:
    for place in ("/usr", "/usr/bin", "/"):
        done = lab.host("10.0.10.1", ["touch", f"{place}/lab-was-here"])
        assert "Read-only" in done.stderr


@pytest.mark.cost(seconds=1)
def test_a_user_can_be_added_to_a_host(lab: Lab) -> None:
    done = lab.host("10.0.10.2", ["useradd", "--system", "--create-home", "machines"])
    assert done.returncode == 0, done.stderr
    assert lab.host("10.0.10.1", ["id", "machines"]).returncode != 0


@pytest.mark.cost(seconds=1)
def test_the_first_process_reaps(lab: Lab) -> None:
    lab.host("10.0.10.1", ["sh", "-c", "setsid --fork sleep 0.1"], check=True)
    ended = ["pgrep", "--runstates", "Z", "."]
    wait_for(lambda: lab.host("10.0.10.1", ended).returncode == 1, 5, "no zombie is left")


@pytest.mark.cost(seconds=4)
def test_a_power_failure_and_a_boot(lab: Lab) -> None:
    ip = "10.0.10.2"
    before = boot_id(lab, ip)
    lab.host(ip, ["ovs-vsctl", "add-port", "br-int", "kept", "--", "set", "Interface", "kept", "type=internal"])
    lab.host(ip, ["touch", "/home/ubuntu/disk", "/run/memory"], check=True)
    assert lab.kill(ip)
    assert not lab.kill(ip)
    assert [host.state for host in lab.status().hosts] == ["up", "down", "up"]
    assert ssh(lab, ip, "true").returncode == 255
    assert lab.boot(ip)
    assert listens(lab, ip), "who boots a host may use it at once"
    assert not lab.boot(ip)
    assert boot_id(lab, ip) != before
    assert ssh(lab, ip, "test -e /home/ubuntu/disk && test ! -e /run/memory").returncode == 0
    assert "kept" in lab.host(ip, ["ovs-vsctl", "list-ports", "br-int"]).stdout
    lab.host(ip, ["ovs-vsctl", "del-port", "br-int", "kept"], check=True)


@pytest.mark.cost(seconds=4)
def test_the_internet_is_there_again_after_the_network_node_lost_its_power(lab: Lab) -> None:
    ip = "10.0.10.3"
    lab.kill(ip)
    assert lab.boot(ip)
    probe = "import urllib.request as u; print(u.urlopen('http://203.0.113.1/', timeout=2).read().decode(), end='')"
    assert lab.host(ip, ["/usr/bin/python3", "-c", probe]).stdout == "hello from the internet\n"


@pytest.mark.cost(seconds=5)
def test_a_cut_cable_and_a_healed_one(lab: Lab) -> None:
    ip = "10.0.10.1"
    before = boot_id(lab, ip)
    lab.cut(ip)
    assert [host.state for host in lab.status().hosts] == ["cut", "up", "up"]
    assert ssh(lab, ip, "true").returncode == 255
    lab.heal(ip)
    assert [host.state for host in lab.status().hosts] == ["up", "up", "up"]
    assert ssh(lab, ip, "true").returncode == 0
    assert boot_id(lab, ip) == before


@pytest.mark.cost(seconds=4)
def test_a_tagged_frame_crosses_the_trunk_and_stays_in_its_vlan(lab: Lab) -> None:
    ends = (("10.0.10.1", 701), ("10.0.10.2", 701), ("10.0.10.3", 702))
    for ip, tag in ends:
        port = ["ovs-vsctl", "add-port", "br-int", "end", f"tag={tag}", "--", "set", "Interface", "end"]
        address = ["ip", "address", "add", f"192.168.71.{ip[-1]}/24", "dev", "end"]
        for step in ([*port, "type=internal"], address, ["ip", "link", "set", "end", "up"]):
            lab.host(ip, step, check=True)
    ping = ["ping", "-c", "1", "-W", "1"]
    wait_for(lambda: lab.host("10.0.10.1", [*ping, "192.168.71.2"]).returncode == 0, 5, "the same VLAN answers")
    assert lab.host("10.0.10.1", [*ping, "192.168.71.3"]).returncode != 0
    for ip, _tag in ends:
        lab.host(ip, ["ovs-vsctl", "del-port", "br-int", "end"], check=True)
