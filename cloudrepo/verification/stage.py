"""Who takes part in a run and where is listened, from records and what hosts said of themselves. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification.cast import INTERNET_VLAN, Ear, Nic, Service, Wire, wires_of
from cloudrepo.verification.ground import Ground, Port
from cloudrepo.verification.outside import Outside
from cloudrepo.verification.verdicts import Place


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run before it begins.

    Attributes:
        wires: with all ends that are there.
        around: what lies outside.
        places: where is listened, by host and device.
        node: the network node as a sender; None = it did not answer, or has no part.
    """

    wires: Sequence[Wire] = ()
    around: Outside = field(default_factory=Outside)
    places: Mapping[Ear, Place] = field(default_factory=dict)
    node: Nic | None = None


def build(
    nics: Sequence[Nic],
    services: Sequence[Service],
    grounds: Mapping[str, Ground],
    *,
    node: str,
    hosts: Sequence[str],
    uplink: str,
    cidr: str,
    denied: Sequence[str] = (),
) -> Stage:
    """Set the stage.

    Args:
        nics: of machines that run.
        services: that their wires should have.
        grounds: by address, the hosts that answered.
        node: address of the network node.
        hosts: addresses of all hosts of the cluster.
        uplink: the node's device to the internet, by the settings; "" = that of its default route.
        cidr: the subnet of VLAN 400.
        denied: networks that the settings keep from guests.
    """
    present = [nic for nic in nics if nic.host in grounds and _number(grounds[nic.host], nic.device)]
    serving = list(_serving(services, node, grounds[node])) if node in grounds else []
    management = [_host(ip, ground) for ip, ground in grounds.items() if _own_device(ip, ground)]
    is_online = any(nic.wire == INTERNET_VLAN for nic in (*present, *serving))
    way_out = (uplink or grounds[node].way_out) if node in grounds and is_online else ""
    at_uplink = grounds[node].here.get(way_out) if way_out else None
    edges = frozenset((ip, name) for ip, ground in grounds.items() for name in _edges(ground, serving))
    around = Outside(
        hosts=tuple(hosts),
        management=tuple(management),
        edges=edges,
        uplink=(node, way_out) if at_uplink is not None else None,
        uplink_ip=at_uplink.address if at_uplink is not None else "",
        cidr=cidr,
        denied=tuple(denied),
    )
    places = {place.ear: place for place in _places(present, serving, grounds, edges)}
    return Stage(
        wires=wires_of(present, serving, is_known=node in grounds),
        around=around,
        places=places,
        node=_named(node, "the network node") if node in grounds else None,
    )


def _number(ground: Ground, device: str) -> int:
    port = ground.ports.get(device)
    return port.number if port is not None else 0


def _serving(services: Sequence[Service], node: str, ground: Ground) -> Iterator[Nic]:
    for service in services:
        device = ground.devices.get(service.namespace, {}).get(service.device)
        if device is not None and _number(ground, service.device):
            yield service.at(node, device.mac, device.address)


def _own_device(ip: str, ground: Ground) -> str:
    return next((name for name, device in ground.here.items() if device.address == ip), "")


def _host(ip: str, ground: Ground) -> Nic:
    name = _own_device(ip, ground)
    return _named(ip, f"the host {ip}", name, ground.here[name].mac)


def _named(host: str, name: str, device: str = "", mac: str = "") -> Nic:
    return Nic(
        slice_id=0, vm_id=0, vm=name, interface=device, host=host, device=device, wire=None, mac=mac, kind="host"
    )


def _edges(ground: Ground, serving: Sequence[Nic]) -> Iterator[str]:
    """Devices by which a host itself speaks to others: with an address, and no port of the bridge."""
    ours = {nic.device for nic in serving}
    for name, device in ground.here.items():
        is_loopback = device.address.startswith("127.")
        if device.address and not is_loopback and name not in ours and name not in ground.ports:
            yield name


def _places(
    nics: Sequence[Nic], serving: Sequence[Nic], grounds: Mapping[str, Ground], edges: frozenset[Ear]
) -> Iterator[Place]:
    known = {nic.ear for nic in (*nics, *serving)}
    for host, ground in grounds.items():
        for port in ground.ports.values():
            if (host, port.name) in known or port.name == ground.bridge:
                continue
            if ground.is_uplink(port):
                yield Place(ear=(host, port.name), name=f"the uplink {port.name} of {host}", role="uplink")
            else:
                yield from _stranger(host, ground, port)
    for host, device in sorted(edges):
        yield Place(ear=(host, device), name=f"{device} of {host}", role="edge")
    for nic in serving:
        yield Place(
            ear=nic.ear,
            name=str(nic),
            role="service",
            is_fed=False,
            namespace=nic.namespace,
            slice_id=nic.slice_id,
        )
    for nic in nics:
        yield Place(ear=nic.ear, name=str(nic), role="guest", slice_id=nic.slice_id)


def _stranger(host: str, ground: Ground, port: Port) -> Iterator[Place]:
    """Somebody else's port, wherever its device is; one without a name cannot be listened at."""
    space = ground.place_of(port.name)
    if space is not None:
        yield Place(
            ear=(host, port.name),
            name=f"the port {port.name} of {host}, which is no slice's",
            role="stranger",
            is_fed=port.type == "",
            namespace=space,
        )
