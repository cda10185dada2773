"""Attacks of a guest's root on everybody: first where nothing holds them, then where the rules are."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.layout import PROVIDER_IP, UPLINK_IP
from on_lab import attacks
from on_lab.attacks import Attack
from on_lab.battlefield import Battlefield, battlefield, listening
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record

pytestmark = pytest.mark.lab

PAGE = Path(__file__).resolve().parents[2] / "docs" / "isolation.md"
MACS = 3000
#: Where services are wont to listen, beside all that do on the hosts.
WELL_KNOWN = (21, 22, 23, 25, 53, 67, 80, 111, 443, 2379, 3306, 5432, 5666, 5900, 5901, 6633, 6640, 6653, 8080, 16509)
DOOR = 7777  # open by IPv6 on hosts and the orchestrator while it is asked for
ADDRESSES6 = (attacks.GATEWAY_IP6, attacks.NODE_IP6, attacks.WORKER_IP6, attacks.ORCHESTRATOR_IP6)
TARGETS6 = [(ip, port) for ip in ADDRESSES6 for port in (*WELL_KNOWN, DOOR)]
Places = dict[str, frozenset[str]]
Doors = set[tuple[str, int]]


@dataclass
class Campaign:
    """What came of everything.

    Attributes:
        rows: the attacks.
        without, protected, trunks: by attack, where it was heard: without protection, with it, and with it where the
            attacker's ports had lost their tags.
        left: what the product had not put right in between.
        believed: MACs that the neighbour had for the gateway, without protection and with it.
        learnt: by card, how many made-up MACs the switches learnt, without and with.
        doors: where somebody could connect to, by who asked.
    """

    battle: Battlefield
    rows: list[Attack]
    without: Places = field(default_factory=dict)
    protected: Places = field(default_factory=dict)
    trunks: Places = field(default_factory=dict)
    left: list[Record] = field(default_factory=list)
    believed: list[str] = field(default_factory=list)
    learnt: dict[str, tuple[dict[str, int], dict[str, int]]] = field(default_factory=dict)
    doors: dict[str, Doors] = field(default_factory=dict)


@pytest.fixture(scope="module")
def campaign(module_clusters: Callable[..., Cluster]) -> Iterator[Campaign]:
    """All attacks, fought once; the tests look at what came of them."""
    with battlefield(module_clusters()) as ground:
        fought = Campaign(ground, attacks.attacks(ground.ground()))
        _fight(fought)
        yield fought


def _fight(fought: Campaign) -> None:
    ground = fought.battle
    plain = [row for row in fought.rows if not row.is_tagged]
    tagged = [row for row in fought.rows if row.is_tagged]
    targets = _targets(ground)
    _ask_gateway(ground)
    ground.open()
    fought.without = ground.tried(plain)
    with ground.trunks():
        fought.without |= ground.tried(tagged)
    fought.believed.append(_gateway_of(ground))
    fought.doors["without"] = ground.scan("a1", targets)
    for name, number in (("a1", 66), ("b1", 67)):
        ground.speak_ipv6(name, number)
    with listening(ground.cluster, DOOR):
        fought.doors["without, IPv6"] = ground.scan("a1", TARGETS6)
    floods = {card: ground.flood(card, MACS) for card in ("eth0", "eth2")}
    fought.left = ground.close()
    _ask_gateway(ground)
    fought.protected = ground.tried(plain + tagged)
    with ground.trunks():
        fought.trunks = ground.tried(tagged)
    fought.believed.append(_gateway_of(ground))
    fought.learnt = {card: (found, ground.flood(card, MACS)) for card, found in floods.items()}
    fought.doors |= {name: ground.scan(name, targets) for name in ("a1", "b1")}
    with listening(ground.cluster, DOOR):
        fought.doors |= {f"{name}, IPv6": ground.scan(name, TARGETS6) for name in ("a1", "b1")}


def _ask_gateway(ground: Battlefield) -> None:
    assert ground.cluster.pings(ground.vms["a2"], "10.60.7.1")


def _gateway_of(ground: Battlefield) -> str:
    """The MAC that the attacker's neighbour has for its gateway."""
    rows = [line.split() for line in ground.run("a2", "cat", "/proc/net/arp").out.splitlines()]
    return next((row[3] for row in rows if row[0] == "10.60.7.1"), "")


def _targets(ground: Battlefield) -> list[tuple[str, int]]:
    listening = {port for ip in HOSTS for _, port in listeners(ground.cluster, ip, "-Hltn")}
    networks = [f"192.168.{vlan % 256}" for vlan in ground.vlans]
    addresses = [
        *("10.60.7.1", "10.60.7.2", *HOSTS, attacks.ORCHESTRATOR_IP, UPLINK_IP, PROVIDER_IP),
        *(f"{network}.{number}" for network in networks for number in (1, 2)),
    ]
    ports = sorted({*listening, *WELL_KNOWN})
    return [(attacks.WEB, 80), *((address, port) for address in addresses for port in ports)]


def listeners(cluster: Cluster, ip: str, options: str) -> Doors:
    """Addresses and ports that somebody listens at on a host."""
    lines = cluster.host(ip, "ss", options).splitlines()
    places = [line.split()[3].rpartition(":") for line in lines]
    return {(address.partition("%")[0].strip("[]"), int(port)) for address, _, port in places}


# ---------------------------------------------------------------------------------------- frames


@pytest.mark.cost(seconds=80)
def test_without_protection_every_attack_arrives(campaign: Campaign) -> None:
    """Else that it does not with protection would prove nothing."""
    missed = {
        f"{row.wire}: {row.name}": set(row.reaches) - campaign.without[f"{row.wire}: {row.name}"]
        for row in campaign.rows
        if not set(row.reaches) <= campaign.without[f"{row.wire}: {row.name}"]
    }
    assert missed == {}


@pytest.mark.cost(seconds=1)
def test_with_protection_nothing_arrives_but_what_is_allowed(campaign: Campaign) -> None:
    assert campaign.left == [], "what was opened is closed again"
    expected = {f"{row.wire}: {row.name}": frozenset(row.stays) for row in campaign.rows}
    assert {name: heard for name, heard in campaign.protected.items() if heard != expected[name]} == {}
    assert campaign.protected.keys() == expected.keys()


@pytest.mark.cost(seconds=1)
def test_tags_pass_nowhere_also_by_a_port_that_lost_its_own(campaign: Campaign) -> None:
    assert campaign.trunks and set(campaign.trunks.values()) == {frozenset()}


# ---------------------------------------------------------------------------------------- what they are for


@pytest.mark.cost(seconds=1)
def test_a_neighbour_that_was_lied_to_believes_it_and_is_not_lied_to(campaign: Campaign) -> None:
    ground = campaign.battle.ground()
    assert campaign.believed == [ground.own.mac, ground.gateway.mac]


@pytest.mark.cost(seconds=1)
def test_switches_learn_no_made_up_macs(campaign: Campaign) -> None:
    for without, protected in campaign.learnt.values():
        assert min(without[ip] for ip in HOSTS[:2]) > MACS // 3
        assert protected == dict.fromkeys(HOSTS, 0)


@pytest.mark.cost(seconds=1)
def test_from_a_guest_and_from_another_tenants_no_host_has_an_open_port(campaign: Campaign) -> None:
    assert {("10.60.7.1", 22), (NETWORK_NODE, 22), (UPLINK_IP, 22)} <= campaign.doors["without"]
    assert campaign.doors["a1"] == campaign.doors["b1"] == {(attacks.WEB, 80)}


@pytest.mark.cost(seconds=1)
def test_by_ipv6_no_host_and_not_the_orchestrator_has_an_open_port(campaign: Campaign) -> None:
    assert {(ip, DOOR) for ip in ADDRESSES6} <= campaign.doors["without, IPv6"]
    assert campaign.doors["a1, IPv6"] == campaign.doors["b1, IPv6"] == set()


@pytest.mark.cost(seconds=10)
def test_from_the_orchestrators_side_workers_show_sshd_alone(campaign: Campaign) -> None:
    """Every TCP port of a worker with guests is asked; what listens on the others is looked at there."""
    cluster = campaign.battle.cluster
    for ip in HOSTS:
        tcp, udp = listeners(cluster, ip, "-Hltn"), listeners(cluster, ip, "-Hlun")
        assert {port for address, port in tcp if not address.startswith("127.") and address != "::1"} == {22}, ip
        assert {one for one in udp if not one[0].startswith("127.")} == set(), ip
        assert any(5900 <= port < 6000 for _, port in tcp), "its guests' screens are there, and not to be reached"
    assert open_ports(HOSTS[0], range(1, 65536)) == [22]


def open_ports(ip: str, ports: range) -> list[int]:
    """Ports at which somebody takes a connection."""
    found = []
    for first in range(0, len(ports), 500):
        asked = {socket.socket(): port for port in ports[first : first + 500]}
        waits = select.poll()
        by_number = {one.fileno(): one for one in asked}
        for one, port in asked.items():
            one.setblocking(False)
            assert one.connect_ex((ip, port)) in (errno.EINPROGRESS, 0, errno.ECONNREFUSED)
            waits.register(one, select.POLLOUT)
        left = set(by_number)
        while left and (ready := waits.poll(3000)):
            for number, _ in ready:
                waits.unregister(number)
                left.discard(number)
                if by_number[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(asked[by_number[number]])
        for one in asked:
            one.close()
    return found


# ---------------------------------------------------------------------------------------- for people


def table(rows: list[Attack]) -> str:
    """What the attacks are, and where each arrives: without protection, and with it."""
    merged: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for row in rows:
        name = row.name if row.name.startswith("allowed") else row.name.partition(":")[0]
        without, protected = merged.setdefault((row.wire, name), ([], []))
        without += [place for place in row.reaches if place not in without]
        protected += [place for place in row.stays if place not in protected]
    lines = ["| on | sent | arrives without protection at | with it |", "|---|---|---|---|"]
    for (wire, name), (without, protected) in merged.items():
        lines.append(f"| {wire} | {name} | {', '.join(without)} | {', '.join(protected) or '—'} |")
    return "\n".join(lines)


@pytest.mark.cost(seconds=1)
def test_the_page_for_people_has_the_table_of_what_was_tried(campaign: Campaign) -> None:
    assert table(campaign.rows) in PAGE.read_text(encoding="utf-8")
