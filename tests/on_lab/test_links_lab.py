"""What a link's switches do on the wire, on one host and between two: on, and off again, while its machines run."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cloudrepo.naming import dhcp_namespace, meter_number
from cloudrepo.notify import Notifier
from control.watch import Watcher
from lab.cluster import Lab
from lab.guestless import guestless
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, wait_until
from on_lab.frames import End

pytestmark = pytest.mark.lab

BROADCAST, BPDU, LLDP = "ff:ff:ff:ff:ff:ff", "01:80:c2:00:00:00", "01:80:c2:00:00:0e"
STRANGER, NEVER = "02:00:5e:00:53:07", "198.51.100.9"
EXPERIMENTAL, IPV4, ARP = 0x88B5, 0x0800, 0x0806
USUAL = {"spoofing": "forbidden", "bridging": "forbidden", "vlans": "forbidden", "dhcp": True}
RATE_MBPS, FLOOD_S = 8.0, 7.0
_numbers = itertools.count(1)


def ethernet(to: str, by: str, kind: int, payload: bytes = b"", tags: tuple[int, ...] = ()) -> bytes:
    """A frame with a number of its own in it."""
    head = bytes.fromhex((to + by).replace(":", "")) + b"".join(struct.pack("!HH", 0x8100, tag) for tag in tags)
    return (head + struct.pack("!H", kind) + payload + b"links" + struct.pack("!I", next(_numbers))).ljust(64, b"\0")


def ip(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def arp(by: str, sender: str, target: str) -> bytes:
    payload = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + bytes.fromhex(by.replace(":", "")) + ip(sender)
    return ethernet(BROADCAST, by, ARP, payload + bytes(6) + ip(target))


def udp(by: str, source: str, ports: tuple[int, int]) -> bytes:
    """IPv4 without checksums, which no switch looks at."""
    head = struct.pack("!BBHIBBH", 0x45, 0, 20 + 8 + 9, 0, 64, 17, 0) + ip(source) + ip("255.255.255.255")
    return ethernet(BROADCAST, by, IPV4, head + struct.pack("!HHHH", *ports, 8 + 9, 0))


@dataclass
class Wire:
    """A link that runs. `one` sends, `other` hears."""

    made: Record
    number: int
    one: End
    other: End

    def frames(self) -> dict[str, dict[str, bytes]]:
        """By the switch that opens it, and by what it is; under "" what every link carries."""
        me, its = self.one.mac, self.other.mac
        mine, its_ip = "172.16.0.1", (self.other.record["ip_config"] or {"ip": NEVER})["ip"]
        return {
            "": {
                "broadcast": ethernet(BROADCAST, me, EXPERIMENTAL),
                "to the other": ethernet(its, me, EXPERIMENTAL),
                "ARP of one more address": arp(me, mine, NEVER),
                "IPv4": udp(me, mine, (9, 9)),
            },
            "spoofing": {
                "ARP in the other's name": arp(me, its_ip, NEVER),
                "IPv4 from the other's address": udp(me, its_ip, (9, 9)),
                "DHCP answer": udp(me, mine, (67, 68)),
            },
            "bridging": {
                "from a stranger's MAC": ethernet(BROADCAST, STRANGER, EXPERIMENTAL),
                "BPDU": ethernet(BPDU, me, 0x26, b"\x42\x42\x03"),
                "BPDU from a stranger's MAC": ethernet(BPDU, STRANGER, 0x26, b"\x42\x42\x03"),
                "LLDP": ethernet(LLDP, me, 0x88CC),
            },
            "vlans": {
                "tag 7": ethernet(BROADCAST, me, EXPERIMENTAL, tags=(7,)),
                "tag 4094, to the other": ethernet(its, me, EXPERIMENTAL, tags=(4094,)),
                "tag with a priority": ethernet(BROADCAST, me, EXPERIMENTAL, tags=(5 << 13 | 100,)),
                "two tags": ethernet(BROADCAST, me, EXPERIMENTAL, tags=(9, 7)),
            },
        }

    def heard_until(self, last: bytes) -> list[bytes]:
        """What the other end hears, up to a frame and a little more."""
        heard: list[bytes] = []

        def has_ended() -> bool:
            heard.extend(self.other.hear())
            return last in heard

        wait_until(has_ended, 30, "the last frame comes out")
        return heard + self.other.hear()

    def crossing(self) -> set[str]:
        """By which switches' frames come out at the other end, all of a switch or none, each as it was sent."""
        sets, last = self.frames(), ethernet(BROADCAST, self.one.mac, EXPERIMENTAL)
        self.other.hear()
        self.one.send(*(frame for frames in sets.values() for frame in frames.values()), last)
        heard = self.heard_until(last)
        whole = {switch for switch, frames in sets.items() if set(frames.values()) <= set(heard)}
        some = {name: switch for switch, frames in sets.items() for name, frame in frames.items() if frame in heard}
        assert set(some.values()) == whole, f"only some of a kind: {some}"
        return whole


@dataclass
class Links:
    """Two links of one slice: on one host, and between two."""

    cluster: Cluster
    made: Record
    wires: dict[str, Wire]

    def set(self, wire: Wire, **switches: object) -> None:
        shown = self.cluster.ok("set_link", "admin", self.made["id"], wire.number, **switches)
        assert {name: shown[name] for name in switches} == switches


@pytest.fixture(scope="module")
def links(lab: Lab, module_clusters: Callable[..., Cluster]) -> Iterator[Links]:
    cluster = module_clusters(network={"rate_mbps": RATE_MBPS})
    with guestless(lab, HOSTS):
        names = ("n1", "n2", "n3", "n4")
        made = cluster.slice(*names, interfaces=2)
        places = {name: cluster.vm(made[name])["worker_ip"] for name in names}
        near = next(pair for pair in itertools.combinations(names, 2) if places[pair[0]] == places[pair[1]])
        far = (near[0], next(name for name in names if places[name] not in (places[near[0]], NETWORK_NODE)))
        wires = {}
        for number, (where, (one, other), interface) in enumerate(
            (("one host", near, "eth1"), ("two hosts", far, "eth2")), start=1
        ):
            cluster.link(made, one, interface, other, interface)
            ends = [End(cluster, made[name], interface) for name in (one, other)]
            wires[where] = Wire(made, number, *ends)
        cluster.ok("deploy_slice", "admin", made["id"])
        yield Links(cluster, made, wires)
        cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.parametrize("where", ["one host", "two hosts"])
@pytest.mark.cost(seconds=20)
def test_each_switch_opens_what_it_says_at_once_and_closes_it_again(links: Links, where: str) -> None:
    wire, neighbour = links.wires[where], next(one for name, one in links.wires.items() if name != where)
    assert (wire.one.host == wire.other.host) is (where == "one host")
    assert wire.crossing() == {""}
    for switch in ("spoofing", "bridging", "vlans"):
        links.set(wire, **{**USUAL, switch: "allowed"})
        assert wire.crossing() == {"", switch}
    assert neighbour.crossing() == {""}, "a switch is one link's"
    assert [one for one in links.cluster.ok("drift")["objects"] if one["difference"]] == []
    links.set(wire, **{**USUAL, "bridging": "allowed", "vlans": "allowed"})
    assert wire.crossing() == {"", "bridging", "vlans"}
    links.set(wire, **USUAL)
    assert wire.crossing() == {""}
    assert [one for one in links.cluster.ok("drift")["objects"] if one["difference"]] == []


def rate_mbps(wire: Wire) -> float:
    """What of a flood of thrice the rate comes out, once what may pass at once has passed."""
    frame = ethernet(wire.other.mac, wire.one.mac, EXPERIMENTAL, bytes(1400))
    flooding = threading.Thread(target=wire.one.flood, args=(frame, FLOOD_S, 3 * RATE_MBPS * 1000))
    flooding.start()
    time.sleep(2)
    first, began = wire.other.count()
    time.sleep(3)
    last, ended = wire.other.count()
    flooding.join()
    return (last - first) * 8 / (ended - began) / 1e6


@pytest.mark.cost(seconds=25)
def test_a_nic_sends_as_much_as_the_settings_say_and_drift_and_the_monitor_mend_its_meter(links: Links) -> None:
    cluster, wire = links.cluster, links.wires["two hosts"]
    assert rate_mbps(wire) == pytest.approx(RATE_MBPS, rel=0.15)
    number = str(meter_number(wire.one.vm_id, wire.one.interface))
    text = f"meter={number},kbps,burst,bands=type=drop,rate=80000,burst_size=16000"
    cluster.host(wire.one.host, "ovs-ofctl", "-O", "OpenFlow13", "mod-meter", "br-int", text)
    assert rate_mbps(wire) > 2 * RATE_MBPS, "the meter is what held it"
    (changed,) = [one for one in cluster.ok("drift")["objects"] if one["difference"]]
    assert (changed["kind"], changed["name"], changed["state"]) == ("meter", number, "changed")
    cluster.ok("drift_fix")
    assert [one for one in cluster.ok("drift")["objects"] if one["difference"]] == []
    cluster.host(wire.one.host, "ovs-ofctl", "-O", "OpenFlow13", "del-meter", "br-int", f"meter={number}")
    missing = {one["kind"]: one["state"] for one in cluster.ok("drift")["objects"] if one["difference"]}
    assert missing == {"meter": "missing", "flows": "changed"}
    watcher = Watcher(cluster.api.context, "monitor", notifier=Notifier(cluster.api.settings, ways={}))

    def is_back() -> bool:
        watcher.look(threading.Event())
        report = cluster.ok("drift")
        return bool(report["differences"] == 0 and report["unsettled"] == [])

    wait_until(is_back, 60, "the monitor has brought the meter back, and the flows that name it")
    watcher.close()
    assert rate_mbps(wire) == pytest.approx(RATE_MBPS, rel=0.15)


@pytest.mark.cost(seconds=8)
def test_a_plain_wire_has_nothing_of_ours_on_it_and_a_guest_may_serve_dhcp(links: Links) -> None:
    wire, cluster = links.wires["one host"], links.cluster
    space = dhcp_namespace(int(wire.one.record["vlan_id"]))
    answer = udp(wire.one.mac, "172.16.0.1", (67, 68))

    def is_answered() -> bool:
        last = ethernet(BROADCAST, wire.one.mac, EXPERIMENTAL)
        wire.one.send(answer, last)
        return answer in wire.heard_until(last)

    def spaces() -> list[str]:
        return cluster.host(NETWORK_NODE, "ip", "netns", "list").split()

    assert space in spaces() and not is_answered()
    links.set(wire, dhcp=False)
    assert space not in spaces() and wire.one.record["ip_config"] is None and is_answered()
    assert [one for one in cluster.ok("drift")["objects"] if one["difference"]] == []
    links.set(wire, dhcp=True)
    assert space in spaces() and not is_answered()
