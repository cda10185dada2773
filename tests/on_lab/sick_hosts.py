"""What may be wrong with hosts before a class, each put wrong on the lab and taken back. No guests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from lab.cluster import Lab
from lab.namespaces import Room
from lab.record import LAB, Record
from on_lab.cluster import HOSTS, Cluster

FIRST, SECOND, THIRD = HOSTS
VLAN_105 = ("-p", "802_1Q", "--vlan-id", "105")
UPLINK = ("ip", "link", "set", "dev", "eth1")


@dataclass(frozen=True, kw_only=True)
class Sickness:
    """A fault.

    Attributes:
        caught: seeds it, and takes it back.
        code: of the one finding that is expected.
        says: in its text or evidence.
        remedy: in its remedy.
        hosts: it is about these.
    """

    caught: Callable[[Cluster], AbstractContextManager[None]]
    code: str
    says: str
    remedy: str
    hosts: tuple[str, ...] = ()


def switch(lab: Lab) -> Room:
    """The room with the switches between the hosts."""
    record = Record.load(lab.folder.record)
    room = record.room(LAB) if record is not None else None
    assert room is not None
    return room


def _by(wrong: tuple[str, ...], right: tuple[str, ...], ip: str) -> Callable[[Cluster], AbstractContextManager[None]]:
    """A fault of one host: a command, and one that takes it back."""

    @contextmanager
    def caught(cluster: Cluster) -> Iterator[None]:
        cluster.host(ip, *wrong)
        try:
            yield
        finally:
            cluster.host(ip, *right)

    return caught


@contextmanager
def dropped(cluster: Cluster, *what: str) -> Iterator[None]:
    """The switch drops some of the frames that it should forward, by words for `ebtables`."""
    room, rule = switch(cluster.lab), ("FORWARD", *what, "-j", "DROP")
    room.run(["ebtables", "-A", *rule], net_only=True, check=True)
    try:
        yield
    finally:
        room.run(["ebtables", "-D", *rule], net_only=True, check=True)


@contextmanager
def narrow_switch(cluster: Cluster) -> Iterator[None]:
    """A port of the switch has a smaller MTU than the hosts."""
    port = ["ip", "link", "set", "dev", "trunk3", "mtu"]
    switch(cluster.lab).run([*port, "1400"], net_only=True, check=True)
    try:
        yield
    finally:
        switch(cluster.lab).run([*port, "1500"], net_only=True, check=True)


SICKNESSES: dict[str, Sickness] = {
    "VLAN 105 is dropped on the trunk": Sickness(
        caught=lambda cluster: dropped(cluster, *VLAN_105),
        code="hosts.vlan",
        says="frames in VLAN 105 are lost between all hosts",
        remedy="switchport trunk allowed vlan add 105",
        hosts=HOSTS,
    ),
    "VLAN 105 is dropped at one port": Sickness(
        caught=lambda cluster: dropped(cluster, "-i", "trunk2", *VLAN_105),
        code="hosts.vlan",
        says=f"frames in VLAN 105 are lost from {SECOND}",
        remedy=f"the switch port of {SECOND}",
        hosts=(SECOND,),
    ),
    "VLAN 105 is dropped between two hosts": Sickness(
        caught=lambda cluster: dropped(cluster, "-i", "trunk2", "-o", "trunk3", *VLAN_105),
        code="hosts.vlan",
        says=f"frames in VLAN 105 are lost from {SECOND} to {THIRD}",
        remedy="the switch ports of the hosts",
        hosts=(SECOND, THIRD),
    ),
    "bridges' own frames are dropped": Sickness(
        caught=lambda cluster: dropped(cluster, "-o", "trunk1", "-d", "03:43:52:00:00:00"),
        code="hosts.control",
        says=f"are lost to {FIRST}",
        remedy="forward multicast that nobody asked for",
        hosts=(FIRST,),
    ),
    "the switch has a smaller MTU": Sickness(
        caught=narrow_switch,
        code="hosts.mtu",
        says=f"frames of 1500 bytes are lost between {THIRD} and all others, shorter ones pass",
        remedy="1522 bytes",
        hosts=(THIRD,),
    ),
    "MTU 1400 on a host": Sickness(
        caught=_by(
            ("ip", "link", "set", "dev", "eth1", "mtu", "1400"),
            ("ip", "link", "set", "dev", "eth1", "mtu", "1500"),
            SECOND,
        ),
        code="hosts.mtu",
        says="MTU 1400",
        remedy="sudo ip link set dev eth1 mtu 1500",
        hosts=(SECOND,),
    ),
    "the uplink is switched off": Sickness(
        caught=_by((*UPLINK, "down"), (*UPLINK, "up"), FIRST),
        code="hosts.uplink.down",
        says="the uplink eth1 of br-int is switched off",
        remedy="sudo ip link set dev eth1 up",
        hosts=(FIRST,),
    ),
    "the uplink is no port of the bridge": Sickness(
        caught=_by(("ovs-vsctl", "del-port", "br-int", "eth1"), ("ovs-vsctl", "add-port", "br-int", "eth1"), THIRD),
        code="hosts.uplink",
        says="br-int has no uplink",
        remedy="sudo ovs-vsctl add-port br-int DEVICE",
        hosts=(THIRD,),
    ),
}
