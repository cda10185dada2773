"""Two slices side by side on the same workers: what each guest reaches, by which address, and what it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cloudrepo.allocation import link_addresses
from cloudrepo.naming import dhcp_namespace, dhcp_port, gateway_port, server_dir
from lab.layout import INTERNET_IP, UPLINK_IP
from on_lab.cluster import NETWORK_NODE, Cluster, Record, wait_until

pytestmark = pytest.mark.lab

TCP_BYTES = 3 * 1024 * 1024
LEASE_S = 120


@dataclass
class Pair:
    """Two deployed slices with the same VM names on the same two workers.

    The first has VLANs 100 and 101, the second VLAN 356, which has the subnet of 100; `vm1` of the first
    and `vm2` of the second have internet access.
    """

    cluster: Cluster
    one: Record
    two: Record

    @property
    def vms(self) -> list[int]:
        return [made[name] for made in (self.one, self.two) for name in ("vm1", "vm2")]


@pytest.fixture(scope="module")
def pair(module_clusters: Callable[..., Cluster]) -> Iterator[Pair]:
    cluster = module_clusters(links={"lease": LEASE_S})
    with cluster.api.db.transaction() as data:
        data["workers_list"].remove(NETWORK_NODE)  # so that both slices have their VMs on the same two
    one = cluster.slice("vm1", "vm2", interfaces=3, internet=("vm1",))
    two = cluster.slice("vm1", "vm2", internet=("vm2",))
    cluster.link(one, "vm1", "eth1", "vm2", "eth1")
    cluster.link(one, "vm1", "eth3", "vm2", "eth2")
    cluster.link(two, "vm1", "eth1", "vm2", "eth1")
    _move_link(cluster, two["id"], 356)
    for made in (one, two):
        cluster.ok("deploy_slice", "admin", made["id"])
    found = Pair(cluster, one, two)
    for vm_id in found.vms:
        for interface in cluster.vm(vm_id)["interfaces"]:
            if interface["vlan_id"] is not None:
                cluster.wait_for_address(vm_id, interface["name"])
    yield found
    for made in (one, two):
        cluster.ok("delete_slice", "admin", made["id"])


def _move_link(cluster: Cluster, slice_id: int, vlan_id: int) -> None:
    """Give a slice's only link another VLAN: the formula reaches 356 only with the 17th link of slice 1012."""
    addresses = link_addresses(vlan_id)
    with cluster.api.db.transaction() as data:
        record = data["slices"][str(slice_id)]
        record["links"][0] |= {"vlan_id": vlan_id, "cidr": addresses.cidr, "gateway_ip": addresses.gateway}
        ends = [one for vm in record["vms"] for one in vm["interfaces"] if one["link_id"] is not None]
        for number, interface in enumerate(ends):
            interface |= {"vlan_id": vlan_id, "ip_config": addresses.ip_config(number)}


def _mac(cluster: Cluster, vm_id: int, interface: str) -> str:
    return str(next(one["mac"] for one in cluster.vm(vm_id)["interfaces"] if one["name"] == interface))


def _repliers(cluster: Cluster, vm_id: int, interface: str, address: str) -> set[str]:
    """Hardware addresses that answer a guest's question who has an address; it is asked twice."""
    said = cluster.guest(vm_id, "arping", "-c", "2", "-w", "3", "-I", interface, address).out
    return {mac.lower() for mac in re.findall(r"\[([0-9a-fA-F:]{17})\]", said)}


def _shell(cluster: Cluster, vm_id: int, script: str, *arguments: str) -> tuple[int, str]:
    done = cluster.guest(vm_id, "sh", "-c", script, "sh", *arguments, timeout_s=60)
    return done.status, done.out.strip()


def _connects(cluster: Cluster, vm_id: int, address: str, port: int) -> bool:
    return _shell(cluster, vm_id, 'nc -w 2 "$1" "$2" </dev/null >/dev/null 2>&1', address, str(port))[0] == 0


# ---------------------------------------------------------------------------------------- names, addresses, NICs


@pytest.mark.cost(seconds=25)
def test_equal_names_on_one_worker_are_two_machines_with_disks_of_their_own(pair: Pair) -> None:
    cluster = pair.cluster
    for name in ("vm1", "vm2"):
        one, two = cluster.vm(pair.one[name]), cluster.vm(pair.two[name])
        assert one["worker_ip"] == two["worker_ip"]
        assert one["qcow_image"] == f"~/vm_images/{name}_img.qcow2"
        assert two["qcow_image"] == f"~/vm_images/{pair.two['id']}_{name}_img.qcow2"
        assert one["vnc_port"] != two["vnc_port"]
        for vm in (one, two):
            line = cluster.host(vm["worker_ip"], "cat", f"/proc/{vm['pid']}/cmdline")
            assert f"file={cluster.place(vm['qcow_image'])}," in line


@pytest.mark.cost(seconds=5)
def test_every_guest_has_exactly_the_recorded_addresses(pair: Pair) -> None:
    for vm_id in pair.vms:
        found = {}
        for line in pair.cluster.guest(vm_id, "ip", "-4", "-o", "addr", "show").out.splitlines():
            words = line.split()
            found[words[1]] = words[3].partition("/")[0]
        del found["lo"]
        interfaces = pair.cluster.vm(vm_id)["interfaces"]
        assert found == {one["name"]: one["ip_config"]["ip"] for one in interfaces if one["ip_config"]}
        assert found  # each of the four is on a link at least


@pytest.mark.cost(seconds=2)
def test_an_unlinked_nic_in_the_middle_shifts_nothing_and_has_no_carrier(pair: Pair) -> None:
    vm_id = pair.one["vm1"]
    interfaces = pair.cluster.vm(vm_id)["interfaces"]
    assert [one["vlan_id"] for one in interfaces] == [400, 100, None, 101]
    script = 'cd /sys/class/net; for card in eth*; do echo "$card $(cat $card/address) $(cat $card/carrier)"; done'
    status, said = _shell(pair.cluster, vm_id, script)
    assert status == 0
    expected = [f"{one['name']} {one['mac']} {0 if one['vlan_id'] is None else 1}" for one in interfaces]
    assert said.splitlines() == expected


# ---------------------------------------------------------------------------------------- links


@pytest.mark.cost(seconds=10)
def test_vlans_100_and_356_share_a_subnet_and_never_meet(pair: Pair) -> None:
    cluster = pair.cluster
    for made in (pair.one, pair.two):
        assert cluster.vm(made["vm1"])["interfaces"][1]["ip_config"]["ip"] == "192.168.100.10"
        assert cluster.pings(made["vm1"], "192.168.100.11")
        assert _repliers(cluster, made["vm1"], "eth1", "192.168.100.11") == {_mac(cluster, made["vm2"], "eth1")}
    names = set(cluster.host(NETWORK_NODE, "ip", "netns", "list").split())
    assert {"ns-dhcp-vlan100", "ns-dhcp-vlan101", "ns-dhcp-vlan356", "ns-dhcp-vlan400"} <= names
    for vlan in (100, 356):
        leases = cluster.host(NETWORK_NODE, "cat", f"{server_dir(cluster.api.site.installation, vlan)}/leases")
        assert {line.split()[2] for line in leases.splitlines()} == {"192.168.100.10", "192.168.100.11"}
        made = pair.one if vlan == 100 else pair.two
        expected = {_mac(cluster, made[name], "eth1") for name in ("vm1", "vm2")}
        assert {line.split()[1] for line in leases.splitlines()} == expected


@pytest.mark.cost(seconds=12)
def test_gateway_and_dhcp_server_each_answer_arp_once_and_for_themselves(pair: Pair) -> None:
    cluster = pair.cluster
    for interface, vlan, subnet in (("eth1", 100, "192.168.100"), ("eth0", 400, "10.60.7")):
        inside = ["ip", "netns", "exec", dhcp_namespace(vlan)]
        gateway_place = [] if vlan == 400 else inside
        for number, port, place in ((1, gateway_port(vlan), gateway_place), (2, dhcp_port(vlan), inside)):
            device = json.loads(cluster.host(NETWORK_NODE, *place, "ip", "-j", "link", "show", "dev", port))[0]
            answers = _repliers(cluster, pair.one["vm1"], interface, f"{subnet}.{number}")
            assert answers == {device["address"]}, f"{subnet}.{number}"


@pytest.mark.cost(seconds=10)
def test_three_megabytes_cross_hosts_unharmed(pair: Pair) -> None:
    cluster = pair.cluster
    sender, receiver = pair.one["vm1"], pair.one["vm2"]
    assert cluster.vm(sender)["worker_ip"] != cluster.vm(receiver)["worker_ip"]
    listen = "nc -l -p 6000 -w 30 -e md5sum </dev/null >/dev/null 2>&1 &"  # it answers with what it counted
    assert _shell(cluster, receiver, listen)[0] == 0
    send = 'head -c "$2" /dev/urandom > /tmp/data; md5sum < /tmp/data; nc -w 20 "$1" 6000 < /tmp/data; rm /tmp/data'
    status, said = _shell(cluster, sender, send, "192.168.100.11", str(TCP_BYTES))
    sent, received = (line.split()[0] for line in said.splitlines())
    assert (status, received) == (0, sent)
    assert len(sent) == 32


# ---------------------------------------------------------------------------------------- what is not reached


@pytest.mark.cost(seconds=15)
def test_guests_without_a_common_link_do_not_reach_each_other(pair: Pair) -> None:
    cluster = pair.cluster
    assert cluster.pings(pair.one["vm1"], "192.168.101.11", count=1)
    internet = cluster.vm(pair.one["vm1"])["interfaces"][0]["ip_config"]["ip"]
    for vm_id, address in (
        (pair.two["vm1"], "192.168.101.10"),  # another slice's link, no route
        (pair.two["vm2"], "192.168.101.11"),  # the same by the default route of VLAN 400
        (pair.two["vm1"], internet),  # no internet access
        (pair.one["vm2"], internet),
    ):
        assert not cluster.pings(vm_id, address, count=1), f"{vm_id} reaches {address}"
    assert _repliers(cluster, pair.two["vm1"], "eth1", "192.168.101.11") == set()


@pytest.mark.cost(seconds=8)
def test_the_internet_is_reached_by_those_who_may(pair: Pair) -> None:
    cluster = pair.cluster
    for made, name in ((pair.one, "vm1"), (pair.two, "vm2")):
        page = cluster.guest(made[name], "fetch", f"http://{INTERNET_IP}/")
        assert (page.status, page.out != "") == (0, True)
    for made, name in ((pair.one, "vm2"), (pair.two, "vm1")):
        assert cluster.guest(made[name], "fetch", f"http://{INTERNET_IP}/", "3").status != 0


@pytest.mark.cost(seconds=25)
def test_hosts_and_their_network_are_out_of_reach(pair: Pair) -> None:
    cluster = pair.cluster
    inside, linked = pair.one["vm1"], pair.one["vm2"]
    assert cluster.pings(inside, "10.60.7.1", count=1)  # the gateway is there …
    assert _connects(cluster, inside, INTERNET_IP, 80)
    for address in ("10.60.7.1", UPLINK_IP, *("10.0.10.1", "10.0.10.3", "10.0.10.254")):
        assert not _connects(cluster, inside, address, 22), f"sshd of {address}"  # … and no more than that
    assert not cluster.pings(inside, "10.0.10.3", count=1)
    for address in ("192.168.100.1", "192.168.100.2"):
        assert not _connects(cluster, linked, address, 22), f"sshd of {address}"


# ---------------------------------------------------------------------------------------- in the end: time has gone by


@pytest.mark.cost(seconds=30)
def test_short_leases_are_renewed_by_unicast_on_a_link_and_on_400(pair: Pair) -> None:
    """Half a lease after the first one, a guest asks the server it knows; nobody has to be looked for again."""
    cluster, vm_id = pair.cluster, pair.one["vm1"]
    for interface, vlan, server in (("eth1", 100, "192.168.100.2"), ("eth0", 400, "10.60.7.2")):
        directory, mac = server_dir(cluster.api.site.installation, vlan), _mac(cluster, vm_id, interface)

        def said(directory: str = directory, mac: str = mac) -> list[str]:
            lines = cluster.host(NETWORK_NODE, "cat", f"{directory}/log").splitlines()
            return [line.split(": ", 1)[1].split("(")[0] for line in lines if mac in line]

        first = ["DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"]
        wait_until(lambda: len(said()) >= 6, LEASE_S, f"the lease of {interface} is renewed")
        assert said()[:6] == [*first, "DHCPREQUEST", "DHCPACK"]
        lease = cluster.host(NETWORK_NODE, "cat", f"{directory}/leases").splitlines()
        expiry = int(next(line.split()[0] for line in lease if line.split()[1] == mac))
        assert 0 < expiry - int(cluster.host(NETWORK_NODE, "date", "+%s")) <= LEASE_S

        def is_renewed(server: str = server) -> bool:
            lines = _shell(cluster, vm_id, "cat /run/udhcpc.log")[1].splitlines()
            asked = [n for n, line in enumerate(lines) if line.endswith(f"sending renew to server {server}")]
            known = f"obtained from {server}, lease time {LEASE_S}"
            return bool(asked) and any(known in line for line in lines[asked[0] :])

        wait_until(is_renewed, 60, f"the guest knows that {interface} is renewed")  # the server wrote it down first
    words = _shell(cluster, vm_id, "cat /run/udhcpc.log")[1].splitlines()
    assert not any("broadcasting renew" in line for line in words)
