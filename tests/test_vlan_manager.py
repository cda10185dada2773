from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import vlan_manager
from cloudrepo.commands.dnsmasq import Lease
from cloudrepo.errors import CloudError, HostError
from cloudrepo.naming import service_mac
from cloudrepo.resources import Address, DhcpServer, Firewall, HostFacts, Namespace, Port
from cloudrepo.settings import Settings
from worlds import NODE, OURS, lease, mark

OWN = HostFacts(
    has_bridge=True,
    uplink="up0",
    connected={
        "up0": ("203.0.113.0/24",),
        "eth0": ("10.0.10.0/24",),
        "docker0": ("172.17.0.0/16",),
        "gw_vlan400": ("10.60.7.0/24",),
    },
)
LINK = mark(1000, None, "100")
SHARED = mark("shared", None, "400")


def link(
    cidr: str = "192.168.100.0/24",
    gateway: str = "192.168.100.1",
    *,
    dhcp: bool = True,
    changed: Mapping[str, Any] | None = None,
) -> Any:
    leases = [lease(11, 100), lease(10, 100)] if cidr == "192.168.100.0/24" else []
    return vlan_manager.link_resources(LINK, 100, cidr, gateway, leases, Settings.of(changed or {}), dhcp=dhcp)


def internet(facts: HostFacts = OWN, cidr: str = "10.60.7.0/24", **settings: Any) -> Any:
    return vlan_manager.internet_resources(
        SHARED, cidr, "10.60.7.1", [lease(101, 400)], Settings.of(settings), facts, ["10.0.10.1", NODE]
    )


def config(resources: Any) -> list[str]:
    (server,) = [one for one in resources if isinstance(one, DhcpServer)]
    return str(server.config).splitlines()


# ---------------------------------------------------------------------------------------- links


def test_a_link_lives_in_its_vlans_own_namespace() -> None:
    made = link()
    assert made[0] == Namespace(namespace="ns-dhcp-vlan100", mark=LINK)
    assert [one for one in made if isinstance(one, Port)] == [
        Port(device="gw_vlan100", tag=100, is_internal=True, mac=service_mac(OURS, "gw_vlan100"), mark=LINK),
        Port(device="dhcp_v100", tag=100, is_internal=True, mac=service_mac(OURS, "dhcp_v100"), mark=LINK),
    ]
    assert [(one.device, one.namespace, one.addresses) for one in made if isinstance(one, Address)] == [
        ("gw_vlan100", "ns-dhcp-vlan100", ("192.168.100.1/24",)),
        ("dhcp_v100", "ns-dhcp-vlan100", ("192.168.100.2/24",)),
    ]
    (server,) = [one for one in made if isinstance(one, DhcpServer)]
    assert server.hosts.splitlines() == [
        "52:54:00:03:e9:0a,192.168.100.10,vm10",
        "52:54:00:03:e9:0b,192.168.100.11,vm11",
    ]
    assert not any(isinstance(one, Firewall) for one in made)


def test_a_link_offers_no_router_and_no_dns_unless_asked() -> None:
    assert {"dhcp-option=option:router", "dhcp-option=option:dns-server"} <= set(config(link()))
    documented = config(link(changed={"links.router": True, "links.dns": "8.8.8.8"}))
    assert {"dhcp-option=option:router,192.168.100.1", "dhcp-option=option:dns-server,8.8.8.8"} <= set(documented)
    assert "dhcp-option=option:router" in config(link(changed={"links.router": True, "links.gateway": False}))


def test_without_gateway_or_dhcp() -> None:
    assert not any(getattr(one, "device", "") == "gw_vlan100" for one in link(changed={"links.gateway": False}))
    quiet = link(dhcp=False)
    assert [one.device for one in quiet if isinstance(one, Port)] == ["gw_vlan100"]
    assert not any(isinstance(one, DhcpServer) for one in quiet)
    assert link(dhcp=False, changed={"links.gateway": False}) == []


@pytest.mark.parametrize(
    ("cidr", "gateway", "expected"),
    [
        ("192.168.100.0/24", "192.168.100.1", "192.168.100.100,192.168.100.250,255.255.255.0"),
        ("10.1.0.0/29", "10.1.0.1", "10.1.0.4,10.1.0.6,255.255.255.248"),
        ("10.1.0.0/20", "10.1.0.1", "10.1.8.0,10.1.15.254,255.255.240.0"),
    ],
)
def test_the_dynamic_range_by_size(cidr: str, gateway: str, expected: str) -> None:
    assert f"dhcp-range={expected},3600s" in config(link(cidr, gateway))


def test_reservations_and_the_dynamic_range_are_disjoint() -> None:
    """Ends of links are .10 and .11; a dynamic address can so never be a reserved one."""
    from cloudrepo.allocation import link_addresses

    addresses = link_addresses(100)
    reserved = {
        int(ip.rpartition(".")[2])
        for ip in (addresses.ip_config(0)["ip"], addresses.ip_config(1)["ip"], addresses.gateway)
    }
    assert max(reserved) < vlan_manager.DYNAMIC_FIRST
    assert not any(line.startswith("dhcp-range=10.60.7.1") for line in config(internet()))


@pytest.mark.parametrize(
    ("cidr", "gateway"),
    [
        ("192.168.9.0/30", "192.168.9.1"),
        ("192.168.9.0/32", "192.168.9.0"),
        ("192.168.9.0/24", "192.168.8.1"),
        ("192.168.9.5/24", "192.168.9.1"),
        ("nonsense", "192.168.9.1"),
        ("192.168.9.0/24", "--help"),
        ("fd00::/64", "fd00::1"),
    ],
)
def test_subnets_that_cannot_be_served_are_refused(cidr: str, gateway: str) -> None:
    with pytest.raises(CloudError) as error:
        vlan_manager.link_resources(LINK, 100, cidr, gateway, (), Settings.of({}))
    assert error.value.code == "cidr" and cidr in str(error.value)


def test_the_dhcp_server_gives_way_to_a_gateway_on_its_address() -> None:
    made = link("10.1.0.0/24", "10.1.0.2")
    assert [one.addresses for one in made if isinstance(one, Address)] == [("10.1.0.2/24",), ("10.1.0.3/24",)]


@pytest.mark.parametrize("hostname", ["a,ignore", "a\nb", "", "45", "x" * 64])
def test_a_lease_that_dnsmasq_would_misread_is_a_sentence(hostname: str) -> None:
    bad = Lease(mac="52:54:00:03:e9:00", ip="192.168.100.10", hostname=hostname)
    with pytest.raises(CloudError, match="VLAN 100 cannot be served"):
        vlan_manager.link_resources(LINK, 100, "192.168.100.0/24", "192.168.100.1", [bad], Settings.of({}))


# ---------------------------------------------------------------------------------------- the internet


def test_vlan_400_has_its_gateway_in_the_nodes_own_namespace_and_reservations_only() -> None:
    made = internet()
    assert [(one.device, one.namespace, one.addresses) for one in made if isinstance(one, Address)] == [
        ("gw_vlan400", "", ("10.60.7.1/24",)),
        ("dhcp_v400", "ns-dhcp-vlan400", ("10.60.7.2/24",)),
    ]
    lines = config(made)
    assert "dhcp-range=10.60.7.0,static,255.255.255.0,3600s" in lines
    assert {"dhcp-option=option:router,10.60.7.1", "dhcp-option=option:dns-server,8.8.8.8"} <= set(lines)
    (firewall,) = [one for one in made if isinstance(one, Firewall)]
    assert firewall.forwarding == ("gw_vlan400", "up0") and firewall.mark == SHARED


def test_a_subnet_the_node_already_uses_is_refused() -> None:
    with pytest.raises(HostError, match=r"overlaps 172\.17\.0\.0/16"):
        vlan_manager.internet_resources(SHARED, "172.17.5.0/24", "172.17.5.1", (), Settings.of({}), OWN, [NODE])


def test_vms_whose_address_is_in_another_subnet_are_named() -> None:
    """After `internet.cidr` was changed their leases could not be served."""
    with pytest.raises(
        CloudError, match=r"2 of the VMs with internet access have no address in 10\.60\.8\.0/24"
    ) as error:
        vlan_manager.internet_resources(
            SHARED, "10.60.8.0/24", "10.60.8.1", [lease(101, 400), lease(7, 400)], Settings.of({}), OWN, [NODE]
        )
    assert "vm101 has 10.60.7.101" in str(error.value) and "internet.cidr" in error.value.remedy
