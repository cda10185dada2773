"""What leaves the uplink untranslated: nothing of a guest's, by the real kernel, in namespaces of its own.

Each trick is tried with our rules, and without those that are against it: there it must work.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from cloudrepo.commands import iptables
from cloudrepo.commands.iptables import Rule
from cloudrepo.firewall import internet_firewall
from cloudrepo.naming import Mark
from cloudrepo.resources import HostFacts
from cloudrepo.settings import Settings
from on_lab import packets
from on_lab.cluster import network_of, wait_until

pytestmark = pytest.mark.lab

GUEST, GATEWAY, NODE, WEB = "10.60.7.101", "10.60.7.1", "198.51.100.3", "203.0.113.1"
MARK = Mark("ab12cd34", "shared", None, "400")
FACTS = HostFacts(uplink="up0", connected={"up0": ("198.51.100.0/24",)})
NODE_SETUP = f"""
link set lo up
link add gw_vlan400 type veth peer name g0 netns GUEST
link add up0 type veth peer name o0 netns OUTSIDE
address add {GATEWAY}/24 dev gw_vlan400
address add {NODE}/24 dev up0
link set gw_vlan400 up
link set up0 up
route add default via 198.51.100.1
"""
GUEST_SETUP = "link set g0 up"
OUTSIDE_SETUP = f"""
link set lo up
address add {WEB}/32 dev lo
address add 198.51.100.1/24 dev o0
link set o0 up
"""
FORWARD_ON = ("sysctl", "-qw", "net.ipv4.conf.gw_vlan400.forwarding=1", "net.ipv4.conf.up0.forwarding=1")


def network(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


@dataclass
class Way:
    """A guest, the network node with these rules, and what is outside of its uplink."""

    rules: Sequence[Rule]
    stack: ExitStack
    pids: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Lay the cables, and set the rules."""
        for name in ("NODE", "GUEST", "OUTSIDE"):
            holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
            self.stack.callback(holder.wait)
            self.stack.callback(holder.kill)
            self.pids[name] = holder.pid
        # a holder has its namespace a moment after it began
        wait_until(lambda: len({network(pid) for pid in (os.getpid(), *self.pids.values())}) == 4, 30, "namespaces")
        for name, setup in (("NODE", NODE_SETUP), ("GUEST", GUEST_SETUP), ("OUTSIDE", OUTSIDE_SETUP)):
            text = setup.replace("GUEST", str(self.pids["GUEST"])).replace("OUTSIDE", str(self.pids["OUTSIDE"]))
            self.run(name, "ip", "-batch", "-", text=text)
        self.run("NODE", *FORWARD_ON)
        self.run("NODE", *iptables.restore(), text=iptables.restore_text(add=self.rules))
        self.guest = self._socket("GUEST", "g0")
        self.outside = self._socket("OUTSIDE", "o0")
        self.mac = self._mac("GUEST", "g0")
        self.gateway = self._mac("NODE", "gw_vlan400")
        answer = f"ip neigh replace {GUEST} lladdr {self.mac} dev gw_vlan400"
        self.run("NODE", "sh", "-c", answer)

    def run(self, where: str, *words: str, text: str = "") -> None:
        done = subprocess.run(
            ["nsenter", "-t", str(self.pids[where]), "-n", *words], input=text, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def _socket(self, where: str, device: str) -> socket.socket:
        with network_of(self.pids[where]):
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            opened.bind((device, 0))
        opened.settimeout(0.3)
        return self.stack.enter_context(opened)

    def _mac(self, where: str, device: str) -> str:
        with network_of(self.pids[where]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as asked:
            asked.bind((device, 0))
            return str(asked.getsockname()[4].hex(":"))

    def sends(self, packet: bytes) -> None:
        """The guest sends a packet to its gateway."""
        self.guest.send(packets.ethernet(self.gateway, self.mac, packets.IPV4, packet))

    def left(self) -> list[str]:
        """The source addresses of what arrived outside since the last time, the node's own neighbours aside."""
        found: list[str] = []
        until = time.monotonic() + 5
        while time.monotonic() < until:
            try:
                frame, (_, _, kind, *_) = self.outside.recvfrom(2048)
            except TimeoutError:
                break
            if kind != socket.PACKET_OUTGOING and frame[12:14] == struct.pack("!H", packets.IPV4):
                found.append(socket.inet_ntoa(frame[26:30]))
        return found

    def node_talks(self) -> None:
        """The node has a connection of its own to somebody outside."""
        with network_of(self.pids["NODE"]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind((NODE, 5000))
            own.sendto(b"hello", (WEB, 7))
        assert self.left() == [NODE]

    def without_nat(self) -> None:
        self.run("NODE", "iptables", "-t", "nat", "-F", iptables.chain(MARK.installation, "POSTROUTING"))

    def with_nat(self) -> None:
        self.run("NODE", *iptables.restore(), text=iptables.restore_text(remove=self.rules, add=self.rules))


def rules(*but: str) -> list[Rule]:
    """Our rules, without those with these words."""
    found = internet_firewall(MARK, "10.60.7.0/24", GATEWAY, Settings.of({}), FACTS, ()).rules
    left = [rule for rule in found if not any(words in " ".join(rule[1]) for words in but)]
    assert len(left) == len(found) - len(but)
    return left


# Each trick gives what left after its last packet.


def a_connection(way: Way) -> list[str]:
    way.sends(packets.udp(GUEST, WEB, 6000, 7))
    assert way.left() == [NODE], "the first packet is translated"
    way.sends(packets.udp(GUEST, WEB, 6000, 7))
    return way.left()


def an_error_about_a_connection_of_the_node(way: Way) -> list[str]:
    way.node_talks()
    way.sends(packets.icmp(GUEST, WEB, 3, 3, packets.udp(WEB, NODE, 7, 5000)))
    return way.left()


def an_error_about_a_connection_of_its_own(way: Way) -> list[str]:
    way.sends(packets.udp(GUEST, WEB, 6000, 7))
    assert way.left() == [NODE]
    way.sends(packets.icmp(GUEST, WEB, 3, 3, packets.udp(WEB, GUEST, 7, 6000)))
    return way.left()


def a_reset_of_no_connection(way: Way) -> list[str]:
    way.sends(packets.tcp(GUEST, WEB, 6000, 80, flags=packets.RST))
    return way.left()


def what_is_not_tracked(way: Way) -> list[str]:
    way.run("NODE", "iptables", "-t", "raw", "-A", "PREROUTING", "-i", "gw_vlan400", "-j", "NOTRACK")
    way.sends(packets.udp(GUEST, WEB, 6000, 7))
    return way.left()


def a_connection_begun_without_nat(way: Way) -> list[str]:
    way.without_nat()
    way.sends(packets.udp(GUEST, WEB, 6000, 7))
    assert way.left() == [GUEST], "no filter can know that nobody will translate it"
    way.with_nat()
    way.sends(packets.udp(GUEST, WEB, 6000, 7))
    return way.left()


STATE, CONFIRMED = "! --ctstate NEW,SNAT", "--ctstatus CONFIRMED"
#: By trick: what leaves with our rules, and the rules without which the guest's own address leaves.
TRICKS: dict[Callable[[Way], list[str]], tuple[list[str], tuple[str, ...]]] = {
    a_connection: ([NODE], ()),
    an_error_about_a_connection_of_its_own: ([NODE], ()),
    an_error_about_a_connection_of_the_node: ([], (STATE, CONFIRMED)),
    a_reset_of_no_connection: ([], (STATE, CONFIRMED)),
    what_is_not_tracked: ([], (STATE, CONFIRMED)),
    a_connection_begun_without_nat: ([], (CONFIRMED,)),
}


@pytest.fixture
def way_of() -> Iterator[Callable[[Sequence[Rule]], Way]]:
    with ExitStack() as stack:

        def made(rules: Sequence[Rule]) -> Way:
            way = Way(rules, stack)
            way.begin()
            return way

        yield made


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
@pytest.mark.cost(seconds=2)
def test_nothing_of_a_guest_leaves_untranslated(
    trick: Callable[[Way], list[str]], way_of: Callable[[Sequence[Rule]], Way]
) -> None:
    expected, against = TRICKS[trick]
    assert trick(way_of(rules())) == expected
    if against:
        assert trick(way_of(rules(*against))) == [GUEST], "without these rules it works"
