"""Guests on VLAN 400 beside one another: they never meet, also while the switch is killed and started again."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from cloudrepo.notify import Notifier
from control.watch import Watcher
from on_lab.cluster import HOSTS, Cluster, Record, wait_until

pytestmark = pytest.mark.lab

#: The end is that of the host's own start script; ovs-vsctl waits until the switch is as the database says.
KILL = """
pid=$(cat /run/openvswitch/ovs-vswitchd.pid); kill -9 $pid
while [ -e /proc/$pid/exe ]; do sleep 0.1; done
ovs-vswitchd --pidfile --detach --log-file -vconsole:off
ovs-vsctl --timeout=20 set Open_vSwitch . external_ids:lab-ready=yes
"""


@dataclass
class Neighbours:
    """Machines on VLAN 400, two of them on one host; the first and the third are linked as well.

    Attributes:
        names: of the first, of its neighbour on the same host, and of one on another.
    """

    cluster: Cluster
    made: Record
    names: tuple[str, str, str]
    never: threading.Event = field(default_factory=threading.Event)

    def id(self, number: int) -> int:
        return int(self.made[self.names[number]])

    def end(self, number: int, interface: str = "eth0") -> Record:
        return next(dict(one) for one in self.cluster.vm(self.id(number))["interfaces"] if one["name"] == interface)

    def pairs(self) -> Iterator[tuple[int, int]]:
        return itertools.permutations(range(3), 2)

    def know_each_other(self) -> None:
        """No question has to be heard for a frame to be sent: each has the others' MACs."""
        for one, other in self.pairs():
            end = self.end(other)
            words = ("ip", "neigh", "replace", end["ip_config"]["ip"], "lladdr", end["mac"], "dev", "eth0")
            self.cluster.guest(self.id(one), *words)

    def received(self, one: int, other: int, count: int) -> int:
        """How many of so many pings, one a second, are answered."""
        address = self.end(other)["ip_config"]["ip"]
        said = self.cluster.guest(self.id(one), "ping", "-c", str(count), "-W", "1", address, timeout_s=90).out
        return int(re.findall(r"(\d+) packets received", said)[0])

    def is_linked(self) -> bool:
        return self.cluster.pings(self.id(0), self.end(2, "eth1")["ip_config"]["ip"], count=2)


@pytest.fixture
def neighbours(clusters: Callable[..., Cluster]) -> Iterator[Neighbours]:
    cluster = clusters(monitor={"misses": 2, "restart_pause": 0.2})
    names = ("n1", "n2", "n3", "n4")
    made = cluster.slice(*names, interfaces=2, internet=names)
    places = {name: cluster.vm(made[name])["worker_ip"] for name in names}
    first, second = next(
        (one, other) for one, other in itertools.combinations(names, 2) if places[one] == places[other]
    )
    third = next(name for name in names if places[name] != places[first])
    spare = next(name for name in names if name not in (first, second, third))
    cluster.ok("remove_vm", "admin", made["id"], made[spare])
    cluster.link(made, first, "eth1", third, "eth1")
    cluster.ok("deploy_slice", "admin", made["id"])
    found = Neighbours(cluster, made, (first, second, third))
    for number in range(3):
        assert cluster.wait_for_address(found.id(number), "eth0", 180) == found.end(number)["ip_config"]["ip"]
    found.know_each_other()
    yield found
    cluster.ok("delete_slice", "admin", made["id"])


def open_bridges(cluster: Cluster) -> None:
    for ip in HOSTS:
        cluster.host(ip, "ovs-vsctl", "--timeout=20", "clear", "bridge", "br-int", "fail_mode")


@pytest.mark.cost(seconds=60)
def test_a_switch_that_is_killed_lets_nothing_through_and_the_monitor_brings_links_back(
    neighbours: Neighbours,
) -> None:
    cluster = neighbours.cluster
    watcher = Watcher(cluster.api.context, "monitor", notifier=Notifier(cluster.api.settings, ways={}))
    wait_until(neighbours.is_linked, 60, "the link carries")
    assert cluster.pings(neighbours.id(0), "10.60.7.1")
    received: dict[tuple[int, int], int] = {}

    def ping(pair: tuple[int, int]) -> None:
        received[pair] = neighbours.received(*pair, count=25)

    # one ping a guest at a time: its agent does one thing after another
    pinging = [threading.Thread(target=ping, args=(pair,)) for pair in ((0, 1), (1, 2), (2, 0))]
    for thread in pinging:
        thread.start()
    for ip in HOSTS:
        cluster.host(ip, "sh", "-ec", KILL)
    for ip in HOSTS:
        flows = cluster.host(ip, "ovs-ofctl", "-O", "OpenFlow13", "dump-flows", "br-int")
        assert flows == "" or "actions" not in flows, "a switch that was started anew has no flows"
    for thread in pinging:
        thread.join()
    assert received == {(0, 1): 0, (1, 2): 0, (2, 0): 0}

    def is_back() -> bool:
        watcher.look(neighbours.never)
        return neighbours.is_linked() and cluster.pings(neighbours.id(0), "10.60.7.1", count=1)

    assert not neighbours.is_linked()
    wait_until(is_back, 60, "the monitor has brought the link and VLAN 400 back")
    assert [event.what for event in cluster.api.context.events.read()].count("slice.lost") == 1
    assert {pair: neighbours.received(*pair, count=2) for pair in neighbours.pairs()} == dict.fromkeys(
        neighbours.pairs(), 0
    )
    report = cluster.ok("drift")
    assert [one for one in report["objects"] if one["difference"]] == []

    # what the rules are good for: without them all of these pings are answered
    open_bridges(cluster)
    assert all(neighbours.received(*pair, count=3) for pair in neighbours.pairs())

    def is_closed() -> bool:
        watcher.look(neighbours.never)
        return not any(neighbours.received(*pair, count=2) for pair in ((0, 1), (2, 0)))

    wait_until(is_closed, 60, "the monitor has closed the bridges again")
    watcher.close()
