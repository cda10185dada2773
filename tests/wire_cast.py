"""Two links, VLAN 400 and their hosts, for tests of `verify`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cloudrepo.naming import tap_name
from cloudrepo.verification.cast import Ear, Nic, Wire, wires_of
from cloudrepo.verification.matrix import Probe, probes
from cloudrepo.verification.outside import Outside
from cloudrepo.verification.sightings import Heard, Offer, Sighting
from cloudrepo.verification.verdicts import Place, frame_source, packet_source

RUN = b"run-0001"
W1, W2, NODE = "10.0.10.1", "10.0.10.2", "10.0.10.3"


def nic(vm: str, number: int, host: str, wire: int | None, ip: str = "", **more: Any) -> Nic:
    vm_id = 1001 + number
    return Nic(
        slice_id=more.pop("slice_id", 1000),
        vm_id=vm_id,
        vm=vm,
        interface="eth1",
        host=host,
        device=tap_name(vm_id, "eth1"),
        wire=wire,
        mac=f"52:54:00:00:00:{number:02x}",
        ip=ip,
        **more,
    )


def service(kind: Any, vlan: int, number: int, ip: str, device: str, namespace: str) -> Nic:
    return Nic(
        slice_id=0 if vlan == 400 else 1000,
        vm_id=0,
        vm=f"the {kind} of VLAN {vlan}",
        interface=device,
        host=NODE,
        device=device,
        wire=vlan,
        mac=f"02:00:00:00:00:{number:02x}",
        ip=ip,
        kind=kind,
        namespace=namespace,
    )


A, B = nic("a", 1, W1, 100, "192.168.100.10"), nic("b", 2, W2, 100, "192.168.100.11")
C, D = nic("c", 3, W1, 400, "10.60.7.101"), nic("d", 4, W1, 400, "10.60.7.102", slice_id=1010)
E = nic("e", 5, W2, 101)
GATE100 = service("gateway", 100, 1, "192.168.100.1", "gw_vlan100", "ns-dhcp-vlan100")
SERVER100 = service("DHCP server", 100, 2, "192.168.100.2", "dhcp_v100", "ns-dhcp-vlan100")
GATE = service("gateway", 400, 3, "10.60.7.1", "gw_vlan400", "")
SERVER400 = service("DHCP server", 400, 4, "10.60.7.2", "dhcp_v400", "ns-dhcp-vlan400")
NICS, SERVICES = (A, B, C, D, E), (GATE100, SERVER100, GATE, SERVER400)
UPLINK: Ear = (NODE, "eth2")
UPLINK_IP = "203.0.113.3"


def host(ip: str) -> Nic:
    number = int(ip[-1])
    return Nic(
        slice_id=0, vm_id=0, vm=f"the host {ip}", interface="eth0", host=ip, device="eth0", wire=None,
        mac=f"02:00:0a:00:00:{number:02x}", kind="host",
    )  # fmt: skip


MANAGEMENT = tuple(host(ip) for ip in (W1, W2, NODE))
NODE_NIC = replace(host(NODE), vm="the network node", device="", interface="")
AROUND = Outside(
    hosts=(W1, W2, NODE),
    management=MANAGEMENT,
    edges=frozenset({UPLINK, *(one.ear for one in MANAGEMENT)}),
    uplink=UPLINK,
    uplink_ip=UPLINK_IP,
    cidr="10.60.7.0/24",
    denied=("169.254.0.0/16", "192.168.7.9/32"),
)
STRANGER: Ear = (W2, "tap_other")
TRUNKS = tuple((ip, "eth1") for ip in (W1, W2, NODE))
PLACES: dict[Ear, Place] = {
    **{one.ear: Place(ear=one.ear, name=str(one), role="guest", slice_id=one.slice_id) for one in NICS},
    **{one.ear: Place(ear=one.ear, name=str(one), role="service", is_fed=False) for one in SERVICES},
    **{ear: Place(ear=ear, name=f"{ear[1]} of {ear[0]}", role="edge") for ear in sorted(AROUND.edges)},
    **{ear: Place(ear=ear, name=f"the uplink of {ear[0]}", role="uplink") for ear in TRUNKS},
    STRANGER: Place(ear=STRANGER, name="a port of somebody else", role="stranger"),
}


def wires(*nics: Nic, switches: frozenset[str] = frozenset(), is_served: bool = True) -> list[Wire]:
    """The wires of some of them, or of all."""
    ends = [replace(one, switches=switches) if switches else one for one in nics or NICS]
    return wires_of(ends, SERVICES if is_served else ())


def sent(*nics: Nic) -> list[Probe]:
    return probes(wires(*nics), AROUND, RUN, NODE_NIC)


def of(sender: Nic, kind: str, found: Iterable[Probe] | None = None) -> Probe:
    return next(one for one in (sent() if found is None else found) if one.sender is sender and one.kind == kind)


def sighting(probe: Probe, ear: Ear, **more: Any) -> Sighting:
    """Its frame at a place, as it comes out there."""
    facts: dict[str, Any] = {"is_sent": PLACES[ear].is_fed, "mac": frame_source(probe.frame), **more}
    return Sighting(ear=ear, number=probe.number, **facts)


def everything_right(found: Iterable[Probe]) -> Heard:
    """What hosts report where all is as it should be, and no guest says a word."""
    heard = Heard()
    for one in found:
        seen = [sighting(one, ear) for ear in sorted(one.hearers)]
        if one.shape.answer:
            (gateway,) = [each for each in SERVICES if each.ear in one.hearers]
            seen.append(sighting(one, one.sender.ear, mac=gateway.mac))
        if one.shape.leaves:
            ip = UPLINK_IP if one.shape.leaves == "translated" else packet_source(one)
            seen.append(Sighting(ear=UPLINK, number=one.number, is_sent=True, mac="02:00:0a:00:02:03", ip=ip))
        if one.shape.way == "device":
            seen += [
                Sighting(ear=each.ear, number=one.number, is_sent=each is one.sender, mac=one.sender.mac)
                for each in MANAGEMENT
            ]
        if one.shape.offer is not None:
            server = next(each for each in SERVICES if each.wire == one.sender.wire and each.kind == "DHCP server")
            heard.offers[one.number] = [
                Offer(
                    ear=one.sender.ear, number=one.number, is_sent=True, mac=server.mac, address=one.shape.offer,
                    server=server.ip,
                )
            ]  # fmt: skip
        heard.sightings[one.number] = seen
    return heard
