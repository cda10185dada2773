"""From records to flows: what the ports of a slice, and of VLAN 400, may send and hear on one host. Pure.

The policy itself is `cloudrepo/isolation.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudrepo import isolation
from cloudrepo.allocation import dhcp_address, internet_gateway
from cloudrepo.commands import openflow
from cloudrepo.commands.openflow import Flow, sign
from cloudrepo.errors import HostError
from cloudrepo.isolation import Nic, Peer, Services, Switches
from cloudrepo.link_switches import POLICY, is_allowed, is_served
from cloudrepo.naming import (
    INTERNET_VLAN,
    MANUAL,
    SHARED,
    Mark,
    dhcp_port,
    flow_cookie,
    flow_owner,
    gateway_port,
    meter_number,
    service_mac,
    tap_name,
)
from cloudrepo.probe import Host
from cloudrepo.resources import Closure, Flows, HostFacts, Meter, Resource
from cloudrepo.settings import Settings


def slice_flows(
    host: Host, facts: HostFacts, settings: Settings, record: Mapping[str, Any], machines: Iterable[int]
) -> list[Resource]:
    """The flows of a slice on one host; none where none of its ports are.

    Args:
        host: the host.
        facts: of it.
        settings: the `links` and `internet` groups.
        record: the slice's.
        machines: its VMs that run.
    """
    here = [vm for vm in record["vms"] if vm["vm_id"] in machines and vm["worker_ip"] == host.ip]
    flows: list[Flow] = []
    for link in record["links"]:
        flows += _link(host, facts, settings, record, link, here)
    way = services(host, facts, settings)
    for vm in here:
        for one in vm["interfaces"]:
            if one.get("vlan_id") == INTERNET_VLAN:
                flows += isolation.internet_nic(_nic(vm, one), way)
    meters = _meters(host, facts, settings, str(record["slice_id"]), here)
    return [*meters, *_as_resources(Mark(host.installation, str(record["slice_id"])), _limited(flows, meters))]


def vm_flows(host: Host, facts: HostFacts, settings: Settings, vm: Mapping[str, Any]) -> list[Resource]:
    """The flows of one VM that was started by hand: nothing is known of others on its wires."""
    way, flows = services(host, facts, settings), list[Flow]()
    for one in vm["interfaces"]:
        if one.get("vlan_id") == INTERNET_VLAN:
            flows += isolation.internet_nic(_nic(vm, one), way)
        elif one.get("vlan_id") is not None:
            flows += isolation.link_nic(_nic(vm, one), (), Switches(), serves_dhcp=True)
            for priority, match, actions in isolation.wire(one["vlan_id"], uplinks=facts.uplinks):
                # of two owners of one flow one would take it from the other: each has its own priority
                flows.append((priority - 1 - int(vm["vm_id"]) % 90, match, actions))
    meters = _meters(host, facts, settings, MANUAL, [vm])
    return [*meters, *_as_resources(Mark(host.installation, MANUAL, int(vm["vm_id"])), _limited(flows, meters))]


def vlan_flows(host: Host, facts: HostFacts, settings: Settings, vlan: int, ports: Iterable[str]) -> list[Resource]:
    """The flows of one VLAN that was made by hand on the network node."""
    flows = (
        isolation.internet_host(services(host, facts, settings))
        if vlan == INTERNET_VLAN
        else isolation.wire(vlan, uplinks=facts.uplinks, services=ports)
    )
    return _as_resources(Mark(host.installation, MANUAL, None, str(vlan)), flows)


def shared_flows(
    host: Host, facts: HostFacts, settings: Settings, records: Sequence[Mapping[str, Any]]
) -> list[Resource]:
    """What VLAN 400 needs on a host once, and that its bridge is closed.

    Args:
        host: the host.
        facts: of it.
        settings: the `internet` group.
        records: all slices whose networks stand.
    """
    if not any(_is_on(host, record) for record in records):
        return []
    found: list[Resource] = []
    mark = Mark(host.installation, SHARED)
    if can_be_closed(facts):
        detail = Closure.WAS_CLOSED if facts.was_closed else ""
        found.append(Closure(bridge=host.bridge, mark=Mark(host.installation, SHARED, None, detail)))
    if any(has_internet(_concerned(host, record)) for record in records):
        found += _as_resources(mark, isolation.internet_host(services(host, facts, settings)))
    return found


def can_be_closed(facts: HostFacts) -> bool:
    """Whether nobody else's traffic would end with a bridge that forwards nothing but by a flow."""
    return not why_open(facts)


def why_open(facts: HostFacts) -> str:
    """Why a host's bridge cannot be closed, as the rest of a sentence about it; "" where it can.

    One port is the way to the other hosts. By a second one, others' frames may pass through this host.
    """
    if facts.is_closed:
        return ""
    if len(facts.uplinks) > 1:
        return f"it has more than one uplink ({', '.join(facts.uplinks)})"
    return "others use it too, by flows, ports or an address of its own" if facts.is_shared else ""


def services(host: Host, facts: HostFacts, settings: Settings) -> Services:
    """Gateway and DHCP server of VLAN 400, as this host sees them."""
    network = ipaddress.IPv4Network(settings.internet.cidr)
    first = internet_gateway(settings.internet.cidr)
    return isolation.services(
        host.installation,
        first,
        dhcp_address(network, first),
        is_here=host.is_network_node,
        uplinks=facts.uplinks,
    )


def _link(
    host: Host,
    facts: HostFacts,
    settings: Settings,
    record: Mapping[str, Any],
    link: Mapping[str, Any],
    here: Sequence[Mapping[str, Any]],
) -> list[Flow]:
    vlan = link["vlan_id"]
    ends = [(vm, one) for vm in record["vms"] for one in vm["interfaces"] if one.get("vlan_id") == vlan]
    local = [(vm, one) for vm, one in ends if any(vm is each for each in here)]
    ports = _services_of(settings, link)
    if not local and not (host.is_network_node and ports):
        return []
    switches = Switches(**{name: is_allowed(link, name) for name in POLICY})
    served = [Peer(mac=service_mac(host.installation, device), ip=ip) for device, ip in ports.items()]
    flows = isolation.wire(vlan, uplinks=facts.uplinks, services=ports if host.is_network_node else ())
    if switches.bridging and local:
        flows += isolation.bridged(vlan, [_nic(vm, one).device for vm, one in local], facts.uplinks)
    for vm, one in local:
        others = [Peer(mac=each["mac"], ip=_address(each)) for _, each in ends if each is not one]
        flows += isolation.link_nic(_nic(vm, one), [*others, *served], switches, serves_dhcp=dhcp_port(vlan) in ports)
    return flows


def _meters(
    host: Host, facts: HostFacts, settings: Settings, scope: str, vms: Iterable[Mapping[str, Any]]
) -> list[Meter]:
    """A meter for each NIC that is on a wire, where the settings limit what guests send.

    Raises:
        HostError: they do, and the bridge has no meters.
    """
    rate_kbps = round(settings.network.rate_mbps * 1000)
    if not rate_kbps:
        return []
    ends = [(int(vm["vm_id"]), one["name"]) for vm in vms for one in vm["interfaces"] if one.get("vlan_id") is not None]
    if ends and facts.can_limit is False:
        raise HostError(
            host.ip,
            f"the bridge {host.bridge} cannot limit what guests send",
            evidence="its Open vSwitch has no meters, and `network.rate_mbps` is set",
            remedy="Use a kernel from 4.18 on, or set `network.rate_mbps` to 0",
            code="host.meters",
        )
    flags, bands = openflow.limit(rate_kbps)
    found = []
    for vm_id, interface in ends:
        number = meter_number(vm_id, interface)
        if number is None:
            raise HostError(host.ip, f"what {interface} of VM {vm_id} sends cannot be limited", code="host.meters")
        mark = Mark(host.installation, scope, vm_id, interface)
        found.append(Meter(number=number, flags=flags, bands=bands, mark=mark))
    return found


def _limited(flows: Iterable[Flow], meters: Iterable[Meter]) -> list[Flow]:
    marks = {one.number: one.mark for one in meters}
    devices = {tap_name(mark.vm_id, mark.detail): number for number, mark in marks.items() if mark and mark.vm_id}
    return isolation.metered(flows, devices)


def _services_of(settings: Settings, link: Mapping[str, Any]) -> dict[str, str]:
    """The ports of ours on a link's network node, each with its address; a plain wire has none."""
    if not is_served(link):
        return {}
    vlan, gateway_ip = link["vlan_id"], link["gateway_ip"]
    network = ipaddress.IPv4Network(link["cidr"])
    found = {dhcp_port(vlan): dhcp_address(network, gateway_ip)}
    return {gateway_port(vlan): gateway_ip, **found} if settings.links.gateway else found


def _nic(vm: Mapping[str, Any], one: Mapping[str, Any]) -> Nic:
    return Nic(device=tap_name(vm["vm_id"], one["name"]), mac=one["mac"], ip=_address(one))


def _address(interface: Mapping[str, Any]) -> str:
    return str((interface.get("ip_config") or {}).get("ip") or "")


def _is_on(host: Host, record: Mapping[str, Any]) -> bool:
    """Whether a slice has a port on the bridge of this host."""
    return any(one.get("vlan_id") is not None for vm in _concerned(host, record) for one in vm["interfaces"])


def _concerned(host: Host, record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The VMs of a slice that this host serves: its own, or as the network node all."""
    return [vm for vm in record["vms"] if host.is_network_node or vm["worker_ip"] == host.ip]


def has_internet(vms: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of these VMs has a NIC on VLAN 400."""
    return any(one.get("vlan_id") == INTERNET_VLAN for vm in vms for one in vm["interfaces"])


def _as_resources(mark: Mark, flows: Iterable[Flow]) -> list[Resource]:
    found = set(flows)
    if not found:
        return []
    return [Flows(owner=flow_owner(mark), flows=tuple(sorted({*found, sign(flow_cookie(mark))})), mark=mark)]
