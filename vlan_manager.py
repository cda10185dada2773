"""What the network node should have: gateways, DHCP servers in their namespaces, NAT.

The functions at the top are pure: records in, resources out. `VLANManager` is the documented class; called
alone it does its work on the node at once, and what it makes is marked `manual`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudrepo import rules
from cloudrepo.allocation import dhcp_address
from cloudrepo.commands import dnsmasq
from cloudrepo.commands.dnsmasq import Lease, Range
from cloudrepo.errors import CloudError, HostError
from cloudrepo.firewall import internet_firewall
from cloudrepo.naming import (
    INTERNET_VLAN,
    MANUAL,
    Mark,
    dhcp_namespace,
    dhcp_port,
    gateway_port,
    server_dir,
    service_mac,
)
from cloudrepo.reconcile import Target
from cloudrepo.resources import Address, DhcpServer, HostFacts, HostState, Namespace, Port, Resource
from cloudrepo.settings import Settings
from cloudrepo.site import Site

log = logging.getLogger(__name__)

DYNAMIC_FIRST, DYNAMIC_LAST = 100, 250  # host numbers of a link's dynamic range; reservations lie below


def link_resources(
    mark: Mark,
    vlan_id: int,
    cidr: str,
    gateway_ip: str,
    leases: Iterable[Lease],
    settings: Settings,
    *,
    dhcp: bool = True,
) -> list[Resource]:
    """What one link has on the network node: everything inside the VLAN's own namespace.

    Args:
        mark: whose it is.
        vlan_id: the link's VLAN.
        cidr: its subnet. Equal subnets of other VLANs never meet.
        gateway_ip: the gateway's address in it.
        leases: a reservation for each NIC.
        settings: the `links` group.
        dhcp: whether a DHCP server is wanted.

    Raises:
        CloudError: the subnet is too small, or does not hold the gateway.
    """
    network = _network(cidr, gateway_ip)
    space = dhcp_namespace(vlan_id)
    ports = ([gateway_port(vlan_id)] if settings.links.gateway else []) + ([dhcp_port(vlan_id)] if dhcp else [])
    if not ports:
        return []
    addresses = {gateway_port(vlan_id): gateway_ip, dhcp_port(vlan_id): dhcp_address(network, gateway_ip)}
    resources: list[Resource] = [Namespace(namespace=space, mark=mark)]
    for port in ports:
        resources += _port(mark, vlan_id, port, f"{addresses[port]}/{network.prefixlen}", space)
    if dhcp:
        first, last = _dynamic_range(network)
        offer = Range(
            cidr=cidr,
            first=first,
            last=last,
            router=gateway_ip if settings.links.router and settings.links.gateway else "",
            dns=settings.links.dns,
            lease_s=settings.links.lease,
        )
        resources.append(_server(mark, vlan_id, offer, leases))
    return resources


def internet_resources(
    mark: Mark,
    cidr: str,
    gateway_ip: str,
    leases: Iterable[Lease],
    settings: Settings,
    facts: HostFacts,
    guarded: Sequence[str],
) -> list[Resource]:
    """What VLAN 400 has: the gateway in the node's own namespace, DHCP in its namespace, NAT to the uplink.

    Args:
        mark: whose it is; VLAN 400 is shared by all slices.
        cidr: its subnet.
        gateway_ip: the gateway's address in it.
        leases: one for each VM with internet access; nobody else gets an address.
        settings: the `internet` and `network` groups.
        facts: of the network node.
        guarded: addresses of the cluster's hosts, which guests never reach.

    Raises:
        CloudError: the subnet is too small or does not hold a VM's address, or the node has no uplink.
    """
    network, leases = _network(cidr, gateway_ip), list(leases)
    _refuse_overlap(network, settings, facts)
    _refuse_strays(network, leases)
    resources = _gateway_and_server(mark, network, gateway_ip, leases, settings)
    return [*resources, internet_firewall(mark, cidr, gateway_ip, settings, facts, guarded)]


def _gateway_and_server(
    mark: Mark, network: ipaddress.IPv4Network, gateway_ip: str, leases: Iterable[Lease], settings: Settings
) -> list[Resource]:
    vlan, prefix = INTERNET_VLAN, network.prefixlen
    space = dhcp_namespace(vlan)
    offer = Range(cidr=str(network), router=gateway_ip, dns=settings.internet.dns, lease_s=settings.links.lease)
    return [
        Namespace(namespace=space, mark=mark),
        *_port(mark, vlan, gateway_port(vlan), f"{gateway_ip}/{prefix}", ""),
        *_port(mark, vlan, dhcp_port(vlan), f"{dhcp_address(network, gateway_ip)}/{prefix}", space),
        _server(mark, vlan, offer, leases),
    ]


def _refuse_overlap(network: ipaddress.IPv4Network, settings: Settings, facts: HostFacts) -> None:
    """The gateway lies in the node's own namespace, so its subnet must not be one the node already uses."""
    for device, connected in facts.connected.items():
        for taken in connected:
            if device != gateway_port(INTERNET_VLAN) and network.overlaps(ipaddress.IPv4Network(taken, strict=False)):
                raise HostError(
                    settings.network.node,
                    f"the internet subnet {network} overlaps {taken}, which the node reaches by {device}",
                    remedy="Set internet.cidr to a subnet that is free there",
                    code="network.overlap",
                )


def _refuse_strays(network: ipaddress.IPv4Network, leases: Iterable[Lease]) -> None:
    """A VM keeps the address it was given, also when `internet.cidr` is another one afterwards."""
    strays = [lease for lease in leases if ipaddress.IPv4Address(lease.ip) not in network]
    if strays:
        raise CloudError(
            f"{len(strays)} of the VMs with internet access have no address in {network}",
            evidence=", ".join(f"{lease.hostname} has {lease.ip}" for lease in strays[:5]),
            remedy="Set internet.cidr to what it was, or remove these VMs from their slices and add them again",
            code="internet.range",
        )


def _port(mark: Mark, vlan_id: int, device: str, cidr: str, namespace: str) -> list[Resource]:
    return [
        Port(device=device, tag=vlan_id, is_internal=True, mac=service_mac(mark.installation, device), mark=mark),
        Address(device=device, namespace=namespace, addresses=(cidr,), mark=mark),
    ]


def _server(mark: Mark, vlan_id: int, offer: Range, leases: Iterable[Lease]) -> DhcpServer:
    directory = server_dir(mark.installation, vlan_id)
    try:
        config, hosts = dnsmasq.config(mark, directory, dhcp_port(vlan_id), offer), dnsmasq.hosts(leases)
    except ValueError as error:  # from a record or a setting that was written by hand
        raise CloudError(f"VLAN {vlan_id} cannot be served", evidence=str(error), code="dhcp") from error
    return DhcpServer(vlan_id=vlan_id, namespace=dhcp_namespace(vlan_id), config=config, hosts=hosts, mark=mark)


def _network(cidr: str, gateway_ip: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(cidr)
        gateway = ipaddress.IPv4Address(gateway_ip)
    except ValueError as error:
        raise CloudError(
            f"{cidr} with gateway {gateway_ip} is not a subnet", evidence=str(error), code="cidr"
        ) from error
    if network.num_addresses < 8 or gateway not in network:
        raise CloudError(
            f"{cidr} with gateway {gateway_ip} cannot be served",
            evidence="it needs at least 8 addresses and must hold its gateway",
            code="cidr",
        )
    return network


def _dynamic_range(network: ipaddress.IPv4Network) -> tuple[str, str]:
    """.100 to .250 of a /24; the upper half of any other size."""
    if network.prefixlen == 24:
        return str(network[DYNAMIC_FIRST]), str(network[DYNAMIC_LAST])
    return str(network[network.num_addresses // 2]), str(network[-2])


class VLANManager:
    """The documented class. `deploy_slice` uses the functions above; this does one VLAN at a time, by hand.

    Args:
        remote_executor: who talks to the node.
        network_node_ip: the network node.
        site: the installation it belongs to; without one its marks name none.
    """

    def __init__(self, remote_executor: Any, network_node_ip: str = "10.0.10.3", *, site: Site | None = None) -> None:
        self.executor = remote_executor
        self.network_node_ip = network_node_ip
        self.site = site or Site(executor=remote_executor, settings=Settings.of({"network.node": network_node_ip}))
        self._wanted: dict[int, dict[str, Any]] = {}

    def create_vlan_with_gateway(self, vlan_id: int, cidr: str, gateway_ip: str, dhcp_enabled: bool = True) -> bool:
        """Make a VLAN's gateway and, if asked, its DHCP server.

        Returns:
            True only when both were seen to be there.
        """
        return self._done(vlan_id, {"cidr": cidr, "gateway_ip": gateway_ip, "dhcp": dhcp_enabled, "nat": False})

    def enable_internet_for_vlan(self, vlan_id: int, cidr: str) -> bool:
        """Forward and masquerade a VLAN's subnet out of the uplink. Only VLAN 400 has a way out.

        Returns:
            True when the rules were seen to be there.
        """
        if vlan_id != INTERNET_VLAN:
            log.error(
                "VLAN %s cannot have internet access: only VLAN %s has a gateway in the node", vlan_id, INTERNET_VLAN
            )
            return False
        known = self._wanted.get(vlan_id) or {"gateway_ip": str(ipaddress.IPv4Network(cidr)[1]), "dhcp": True}
        return self._done(vlan_id, known | {"cidr": cidr, "nat": True})

    def delete_vlan(self, vlan_id: int) -> bool:
        """Take one VLAN down: server, namespace, ports and, for VLAN 400, the NAT rules.

        Returns:
            True when nothing of it is left.
        """
        return self._done(vlan_id, None)

    def _done(self, vlan_id: int, wish: Mapping[str, Any] | None) -> bool:
        mark = self.site.mark(MANUAL, detail=str(vlan_id))
        try:
            target = Target(
                host=self.site.host(self.network_node_ip),
                wanted=lambda seen: self._resources(mark, vlan_id, wish, seen),
            )
            outcome = self.site.apply_manual(target, mark)
        except CloudError as error:
            log.error("VLAN %s: %s", vlan_id, error)
            return False
        for problem in outcome.errors.values():
            log.error("VLAN %s: %s", vlan_id, problem)
        if outcome.ok and wish is not None:
            self._wanted[vlan_id] = dict(wish)
        elif outcome.ok:
            self._wanted.pop(vlan_id, None)
        return outcome.ok

    def _resources(self, mark: Mark, vlan_id: int, wish: Mapping[str, Any] | None, seen: HostState) -> list[Resource]:
        if wish is None:
            return []
        found = self._objects(mark, vlan_id, wish, seen)
        ports = [one.device for one in found if isinstance(one, Port)]
        host = self.site.host(self.network_node_ip)
        return [*found, *rules.vlan_flows(host, seen.facts, self.site.settings, vlan_id, ports)]

    def _objects(self, mark: Mark, vlan_id: int, wish: Mapping[str, Any], seen: HostState) -> list[Resource]:
        settings = self.site.settings
        if vlan_id != INTERNET_VLAN:
            return link_resources(mark, vlan_id, wish["cidr"], wish["gateway_ip"], (), settings, dhcp=wish["dhcp"])
        network = _network(wish["cidr"], wish["gateway_ip"])
        resources = _gateway_and_server(mark, network, wish["gateway_ip"], (), settings)
        if wish["nat"]:
            guarded = (self.network_node_ip,)
            resources.append(internet_firewall(mark, wish["cidr"], wish["gateway_ip"], settings, seen.facts, guarded))
        return resources
