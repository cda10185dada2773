"""What `verify` reads of a host before it sends, and whom it lets take part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cloudrepo.plan import StepResult
from cloudrepo.verification import presence, stage
from cloudrepo.verification.cast import Service
from cloudrepo.verification.ground import Ground, Machine, read
from wire_cast import GATE100, NODE, SERVER100, SERVER400, W1, W2, A, B, C
from wire_grounds import grounds, network_node, port, seen

UP = 0x1 | 0x40
PORT_NAMES = ("_uuid", "name", "tag", "trunks", "vlan_mode")
SIDE_NAMES = ("name", "ofport", "type", "error", "statistics")


def table(names: tuple[str, ...], *rows: tuple[Any, ...]) -> str:
    return json.dumps({"headings": names, "data": [list(row) for row in rows]})


def uuid(number: int) -> list[str]:
    return ["uuid", f"0000-{number}"]


def none() -> list[Any]:
    return ["set", []]


def port_tables() -> str:
    counters = ["map", [["rx_packets", 7], ["tx_dropped", 1]]]
    return "\n".join(
        (
            table(("name", "ports", "fail_mode"), ("br-int", ["set", [uuid(1), uuid(2), uuid(3)]], "secure")),
            table(
                PORT_NAMES,
                (uuid(1), "tap_1002_eth1", 100, none(), none()),
                (uuid(2), "eth1", none(), ["set", [100, 101]], "trunk"),
                (uuid(3), "gone0", 5, 7, none()),
                (uuid(4), "elsewhere", 5, none(), none()),
            ),
            table(
                SIDE_NAMES,
                ("tap_1002_eth1", 3, "", none(), counters),
                ("eth1", 1, "", none(), ["map", []]),
                ("gone0", -1, "internal", "could not open", ["map", []]),
                ("elsewhere", 9, "", none(), ["map", []]),
            ),
        )
    )


def step(out: str, status: int = 0) -> StepResult:
    return StepResult(name="x", label="look", status=status, out=out, err="", seconds=0.0, accepted=status == 0)


def device(mac: str = "02:00:00:00:00:99", **more: Any) -> dict[str, Any]:
    return {"mac": mac, "mtu": 1500, "flags": UP, "address": "", "mask": "", "is_tap": False, **more}


QEMU = ["/usr/bin/qemu-system-x86_64", "-uuid", "u", "-netdev", "tap,id=eth1,ifname=tap_1002_eth1,script=no"]
QEMU += ["-device", "virtio-net-pci,netdev=eth1,mac=52:54:00:00:00:01"]
ROUTES = (
    "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    "eth0 000A0A0A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    "eth9 00000000 0100000A 0003 0 0 100 00000000 0 0 0\n"
    "eth2 00000000 017100CB 0003 0 0 20 00000000 0 0 0\n"
)


def answers(**more: StepResult) -> Mapping[str, StepResult]:
    processes = [
        {"pid": 7, "start": 1, "state": "S", "words": QEMU, "namespace": ""},
        {"pid": 8, "start": 1, "state": "T", "words": ["dnsmasq", "--conf-file=x"], "namespace": "ns-dhcp-vlan100"},
    ]
    devices = {"": {"eth1": device(), "tap_1002_eth1": device(flags=1, is_tap=True)}, "ns-dhcp-vlan100": {}}
    found = {
        "ports": step(port_tables()),
        "devices": step(json.dumps(devices)),
        "processes": step(json.dumps(processes)),
        "routes": step(ROUTES),
    }
    return found | more


def test_a_host_is_read() -> None:
    found = read("br-int", answers())
    assert found.is_closed and found.way_out == "eth2" and set(found.ports) == {"tap_1002_eth1", "eth1", "gone0"}
    tap, trunk, gone = (found.ports[name] for name in ("tap_1002_eth1", "eth1", "gone0"))
    assert (tap.number, tap.tag, tap.trunks, tap.counters) == (3, 100, (), {"rx_packets": 7, "tx_dropped": 1})
    assert (trunk.tag, trunk.trunks, trunk.mode) == (None, (100, 101), "trunk")
    assert (gone.number, gone.trunks, gone.error) == (0, (7,), "could not open")
    assert found.machines == (Machine(pid=7, state="S", nics={"tap_1002_eth1": "52:54:00:00:00:01"}),)
    assert [(one.state, one.namespace) for one in found.servers] == [("T", "ns-dhcp-vlan100")]
    assert found.here["tap_1002_eth1"].is_up and not found.here["tap_1002_eth1"].has_carrier
    assert [port.name for port in found.uplinks] == ["eth1"]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("ports", ("", "{}", "null", "[[]]")),
        ("devices", ("", "[]", "null", '{"": {"eth0": {}}}')),
        ("processes", ("", "null", "[{}]", '[{"words": []}]')),
        ("routes", ("heading\nx 00000000 0 0 0 0 many 00000000",)),
    ],
)
def test_an_answer_that_is_none_is_refused(name: str, texts: tuple[str, ...]) -> None:
    for answer in (*map(step, texts), step("", 1)):
        with pytest.raises(ValueError):
            read("br-int", answers(**{name: answer}))


def test_a_bridge_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no bridge br-other"):
        read("br-other", answers())


# ---------------------------------------------------------------------------------------- who takes part


def service(kind: Any, vlan: int, device: str, namespace: str, ip: str = "") -> Service:
    return Service(slice_id=1000, vlan=vlan, kind=kind, device=device, namespace=namespace, ip=ip)


SERVICES = (
    service("gateway", 100, "gw_vlan100", "ns-dhcp-vlan100", "192.168.100.1"),
    service("DHCP server", 100, "dhcp_v100", "ns-dhcp-vlan100"),
    service("gateway", 400, "gw_vlan400", "", "10.60.7.1"),
    service("DHCP server", 400, "dhcp_v400", "ns-dhcp-vlan400"),
)


def built(found: Mapping[str, Ground], **more: Any) -> stage.Stage:
    arguments: dict[str, Any] = {"node": NODE, "hosts": (W1, W2, NODE), "uplink": "", "cidr": "10.60.7.0/24", **more}
    return stage.build((A, B, C), SERVICES, found, **arguments)


def test_everybody_is_listened_at() -> None:
    found = built(grounds())
    roles = {place.ear: place.role for place in found.places.values()}
    assert roles == {
        A.ear: "guest", B.ear: "guest", C.ear: "guest",
        GATE100.ear: "service", SERVER100.ear: "service", (NODE, "gw_vlan400"): "service", SERVER400.ear: "service",
        (W1, "eth1"): "uplink", (W2, "eth1"): "uplink", (NODE, "eth1"): "uplink",
        (W1, "eth0"): "edge", (W2, "eth0"): "edge", (NODE, "eth0"): "edge", (NODE, "eth2"): "edge",
        (W2, "tap_other"): "stranger",
    }  # fmt: skip
    assert found.places[W2, "tap_other"].is_fed and not found.places[GATE100.ear].is_fed
    assert found.around.uplink == (NODE, "eth2") and found.around.uplink_ip == "203.0.113.3"
    assert [wire.vlan for wire in found.wires] == [100, 400]
    assert found.wires[0].server is not None and found.wires[0].server.ip == SERVER100.ip  # as its device has it


def test_a_port_without_a_tag_is_an_uplink_only_with_a_device_of_the_system_behind_it() -> None:
    found = grounds()
    untagged = replace(found[W2], ports={**found[W2].ports, "tap_other": port("tap_other", 7)})
    assert built({**found, W2: untagged}).places[W2, "tap_other"].role == "stranger"


def test_who_is_not_there_takes_no_part() -> None:
    found = grounds()
    del found[W2]
    without = built(found)
    assert [nic.vm for wire in without.wires for nic in wire.nics] == ["a", "c"]
    assert {host for host, _ in without.places} == {W1, NODE}
    del found[NODE]
    alone = built(found)
    assert alone.node is None and alone.around.uplink is None and alone.wires[0].services == []


def test_the_uplink_of_the_settings_comes_before_the_default_route() -> None:
    assert built(grounds(), uplink="eth0").around.uplink == (NODE, "eth0")
    assert built(grounds(), uplink="none0").around.uplink is None


# ---------------------------------------------------------------------------------------- what needs no frame


def test_what_is_there_and_alone_is_no_violation() -> None:
    found = grounds()
    assert list(presence.missing_nics((A, B, C), found)) == []
    assert list(presence.missing_services(SERVICES, NODE, found[NODE])) == []
    assert list(presence.wrong_machines((A, B, C), found)) == list(presence.doubles((A, B, C), found)) == []


def test_a_nic_without_a_port_is_named() -> None:
    found = grounds()
    ports = {name: one for name, one in found[W1].ports.items() if name != A.device}
    broken = {**found, W1: replace(found[W1], ports=ports)}
    (one,) = presence.missing_nics((A, B, C), broken)
    assert str(one) == "a:eth1 has no wire: tap_1002_eth1 on 10.0.10.1 is broken: it is no port of br-int"
    unusable = {**found, W1: replace(found[W1], ports={**ports, A.device: port(A.device, 0, error="busy")})}
    (one,) = presence.missing_nics((A, B, C), unusable)
    assert str(one).endswith("the switch cannot use it: busy")


def test_a_service_that_is_not_there_is_named() -> None:
    node = network_node()
    without = replace(node, devices={**node.devices, "ns-dhcp-vlan100": {}})
    texts = [str(one) for one in presence.missing_services(SERVICES, NODE, without)]
    assert texts[1] == (
        "the DHCP server of VLAN 100 is not there: no device dhcp_v100 in namespace ns-dhcp-vlan100 on 10.0.10.3 "
        "is a port of br-int"
    )
    assert len(texts) == 2


def test_nics_that_a_machine_has_the_other_way_round_are_named() -> None:
    swapped = Machine(pid=7, state="S", nics={A.device: C.mac, C.device: A.mac})
    found = grounds()
    found[W1] = replace(found[W1], machines=(swapped,))
    texts = [str(one) for one in presence.wrong_machines((A, B, C), found)]
    assert texts[0] == (
        f"the machine at {A.device} on {W1} has MAC {C.mac} there, which is that of c:eth1, and a:eth1 has {A.mac}"
    )
    assert len(texts) == 2 and list(presence.doubles((A, B, C), found)) == []


def test_whoever_else_has_the_mac_of_a_nic_is_named() -> None:
    found = grounds()
    found[W2] = replace(found[W2], devices={**found[W2].devices, "other": {"double0": seen(A.mac)}})
    (one,) = presence.doubles((A, B, C), found)
    assert str(one) == f"double0 on {W2} has the MAC {A.mac} of a:eth1"
    (one,) = presence.doubles((A, replace(B, mac=A.mac)), grounds())
    assert "have the same MAC" in str(one)
