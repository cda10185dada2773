"""Three hosts as they say they are, for tests of `verify` and `path`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudrepo.verification.ground import Device, Ground, Port
from wire_cast import GATE100, NODE, SERVER100, SERVER400, W1, W2, A, B, C


def seen(mac: str = "02:00:00:00:00:99", **more: Any) -> Device:
    return Device(mac=mac, mtu=1500, is_up=True, has_carrier=True, **more)


def port(name: str, number: int = 1, tag: int | None = None, **more: Any) -> Port:
    return Port(name=name, number=number, tag=tag, **more)


def worker(ip: str, *ports: Port, **devices: Device) -> Ground:
    here = {
        "lo": seen(address="127.0.0.1"),
        "eth0": seen(f"02:00:0a:00:00:0{ip[-1]}", address=ip),
        "eth1": seen(),
        **{one.name: seen(is_tap=True) for one in ports if one.name.startswith("tap_")},
        **devices,
    }
    all_ports = (port("br-int", 9, type="internal"), port("eth1"), *ports)
    return Ground(bridge="br-int", ports={one.name: one for one in all_ports}, devices={"": here})


def network_node() -> Ground:
    ports = [port(one.device, 4, one.wire, type="internal") for one in (GATE100, SERVER100, SERVER400)]
    ground = worker(NODE, *ports, port("gw_vlan400", 8, 400, type="internal"))
    spaces = {
        "ns-dhcp-vlan100": {one.device: seen(one.mac, address=one.ip) for one in (GATE100, SERVER100)},
        "ns-dhcp-vlan400": {SERVER400.device: seen(SERVER400.mac)},
    }
    here = {
        **ground.here,
        "gw_vlan400": seen("02:00:00:00:00:03", address="10.60.7.1"),
        "eth2": seen(address="203.0.113.3"),
    }
    return replace(ground, devices={"": here, **spaces}, way_out="eth2")


def grounds() -> dict[str, Ground]:
    return {
        W1: worker(W1, port(A.device, 2, 100), port(C.device, 3, 400)),
        W2: worker(W2, port(B.device, 2, 100), port("tap_other", 7, 55), port("hidden0", 8, 55, type="internal")),
        NODE: network_node(),
    }
