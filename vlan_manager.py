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
from cloudrepo.commands import dnsmasq, iptables
from cloudrepo.commands.dnsmasq import Lease, Range
from cloudrepo.errors import CloudError, HostError
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
from cloudrepo.resources import Address, DhcpServer, Firewall, HostFacts, HostState, Namespace, Port, Resource
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
        guarded: addresses of the cluster's hosts; the network they lie in is never forwarded to.

    Raises:
        CloudError: the subnet is too small, or the node has no uplink.
    """
    network = _network(cidr, gateway_ip)
    _refuse_overlap(network, settings, facts)
    resources = _gateway_and_server(mark, network, gateway_ip, leases, settings)
    return [*resources, nat(mark, cidr, gateway_ip, settings, facts, guarded)]


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


def nat(
    mark: Mark, cidr: str, gateway_ip: str, settings: Settings, facts: HostFacts, guarded: Sequence[str]
) -> Firewall:
    """The rules for VLAN 400, as `iptables-save` spells them.

    Out: from the subnet through the gateway port to the uplink only, never to another network the node is
    connected to, and never what conntrack calls invalid (it would leave un-NATed). Where the uplink's own
    network holds hosts of the cluster, only its next hop is reached. In: ICMP to the gateway and DHCP.

    Raises:
        HostError: the node has no uplink.
    """
    uplink = settings.network.uplink or facts.uplink
    if not uplink:
        raise HostError(
            settings.network.node,
            "the network node has no default route, so there is no way to the internet",
            remedy="Give it one, or name the interface in the setting `network.uplink`",
            code="network.uplink",
        )
    port, forward = gateway_port(INTERNET_VLAN), iptables.chain(mark.installation, "FORWARD")
    inward, out = iptables.chain(mark.installation, "INPUT"), iptables.chain(mark.installation, "POSTROUTING")
    drop, accept = ("-j", "DROP"), ("-j", "ACCEPT")
    rules: list[iptables.Rule] = [
        iptables.jump("filter", "FORWARD", mark.installation, mark),
        iptables.jump("filter", "INPUT", mark.installation, mark),
        iptables.jump("nat", "POSTROUTING", mark.installation, mark),
        ("filter", ("-A", forward, "-i", port, "-m", "conntrack", "--ctstate", "INVALID", *drop)),
        ("filter", ("-A", forward, "!", "-s", cidr, "-i", port, *drop)),
    ]
    closed = _closed_networks(uplink, facts, guarded, port)
    if closed and facts.next_hop and any(_holds(net, facts.next_hop) for net in closed):
        rules.append(("filter", ("-A", forward, "-d", f"{facts.next_hop}/32", "-i", port, "-o", uplink, *accept)))
    rules += [("filter", ("-A", forward, "-d", network, "-i", port, *drop)) for network in closed]
    rules += [
        ("filter", ("-A", forward, "-s", cidr, "-i", port, "-o", uplink, *accept)),
        ("filter", ("-A", forward, "-i", port, *drop)),
        (
            "filter",
            ("-A", forward, "-i", uplink, "-o", port, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", *accept),
        ),
        ("filter", ("-A", forward, "-o", port, *drop)),
        ("filter", ("-A", inward, "-d", f"{gateway_ip}/32", "-i", port, "-p", "icmp", *accept)),
        ("filter", ("-A", inward, "-i", port, *drop)),
        ("nat", ("-A", out, "-s", cidr, "-o", uplink, "-j", "MASQUERADE")),
    ]
    return Firewall(vlan_id=INTERNET_VLAN, rules=tuple(rules), forwarding=(port, uplink), mark=mark)


def _closed_networks(uplink: str, facts: HostFacts, guarded: Sequence[str], port: str) -> list[str]:
    """Connected networks a guest must not reach: all but the uplink's, and that too if hosts of ours are in it."""
    closed = []
    for device, networks in facts.connected.items():
        for network in networks:
            is_open = device == uplink and not any(_holds(network, address) for address in guarded)
            if device != port and not is_open:
                closed.append(network if "/" in network else f"{network}/32")
    return sorted(set(closed))


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


def _holds(network: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


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
            resources.append(nat(mark, wish["cidr"], wish["gateway_ip"], settings, seen.facts, guarded))
        return resources
