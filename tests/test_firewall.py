"""What the network node lets guests of VLAN 400 reach: the rules, and what they let through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cloudrepo.errors import HostError
from cloudrepo.firewall import internet_firewall
from cloudrepo.resources import HostFacts
from cloudrepo.settings import Settings
from fakes.packet_filter import Packet, accepts
from worlds import NODE, OURS, mark

SHARED = mark("shared", None, "400")
FORWARD, INPUT, OUT = (f"CR-{OURS}-{hook}" for hook in ("FORWARD", "INPUT", "POSTROUTING"))
GW = "gw_vlan400"
GUEST, NEIGHBOUR, GATEWAY, WEB = "10.60.7.101", "10.60.7.102", "10.60.7.1", "198.51.100.7"
OWN = HostFacts(
    has_bridge=True,
    uplink="up0",
    connected={
        "up0": ("203.0.113.0/24",),
        "eth0": ("10.0.10.0/24",),
        "docker0": ("172.17.0.0/16",),
        "wg0": ("10.9.8.7",),
        GW: ("10.60.7.0/24",),
    },
)
#: The uplink is the management network, and the orchestrator is the next hop.
ONE_NIC = replace(OWN, uplink="eth0", connected={"eth0": ("10.0.10.0/24",), GW: ("10.60.7.0/24",)})
VARIANTS = {"own uplink": OWN, "uplink is management": ONE_NIC}


def rules(facts: HostFacts = OWN, guarded: Sequence[str] = ("10.0.10.1", NODE), **settings: Any) -> Any:
    chosen = Settings.of({key.replace("__", "."): value for key, value in settings.items()})
    return internet_firewall(SHARED, "10.60.7.0/24", GATEWAY, chosen, facts, guarded).rules


def chain(name: str, facts: HostFacts = OWN, **settings: Any) -> list[str]:
    return [" ".join(words[2:]) for _, words in rules(facts, **settings) if words[1] == name]


def goes_out(to: str, facts: HostFacts = OWN, *, by: str = "", **more: Any) -> bool:
    """Whether a guest's first packet to an address is forwarded by a device, the uplink by default."""
    settings = more.pop("settings", {})
    packet = Packet(**{"source": GUEST, "target": to, "comes_by": GW, "goes_by": by or facts.uplink, **more})
    return accepts(rules(facts, **settings), "FORWARD", packet)


def comes_in(to: str, facts: HostFacts = OWN, **more: Any) -> bool:
    """Whether the node itself takes a guest's packet to an address of its own."""
    settings = more.pop("settings", {})
    return accepts(rules(facts, **settings), "INPUT", Packet(source=GUEST, target=to, comes_by=GW, **more))


# ---------------------------------------------------------------------------------------- as they stand


def test_refusals_come_first() -> None:
    assert chain(FORWARD) == [
        "-i gw_vlan400 -m conntrack ! --ctstate NEW,SNAT -j DROP",
        "-i gw_vlan400 -m conntrack ! --ctstate SNAT --ctstatus CONFIRMED -j DROP",
        "-d 10.0.10.0/24 -i gw_vlan400 -j DROP",
        "-d 10.9.8.7/32 -i gw_vlan400 -j DROP",
        "-d 10.60.7.0/24 -i gw_vlan400 -j DROP",
        "-d 169.254.0.0/16 -i gw_vlan400 -j DROP",
        "-d 172.17.0.0/16 -i gw_vlan400 -j DROP",
        "-d 203.0.113.0/24 -i gw_vlan400 -j DROP",
        "-s 10.60.7.0/24 -i gw_vlan400 -o up0 -j ACCEPT",
        "-i gw_vlan400 -j DROP",
        "-i up0 -o gw_vlan400 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-o gw_vlan400 -j DROP",
        "-i up0 -j DROP",
    ]
    assert chain(INPUT) == [
        "-d 10.60.7.1/32 -i gw_vlan400 -p icmp -j ACCEPT",
        "-i gw_vlan400 -j DROP",
    ]
    assert chain(OUT) == ["-s 10.60.7.0/24 -o up0 -j MASQUERADE"]


def test_all_jumps_are_marked_and_lead_to_our_chains() -> None:
    jumps = [words for _, words in rules() if not words[1].startswith("CR-")]
    assert [words[1] for words in jumps] == ["FORWARD", "INPUT", "POSTROUTING"]
    assert all(words[words.index("--comment") + 1] == str(SHARED) for words in jumps)
    assert all(words[-1] == f"CR-{OURS}-{words[1]}" for words in jumps)


def test_the_uplink_may_be_set() -> None:
    assert chain(OUT, network__uplink="wan7") == ["-s 10.60.7.0/24 -o wan7 -j MASQUERADE"]
    assert goes_out(WEB, by="wan7", settings={"network__uplink": "wan7"})
    assert not goes_out(WEB, by="up0", settings={"network__uplink": "wan7"})


def test_no_way_out_is_said() -> None:
    with pytest.raises(HostError, match="no default route") as error:
        rules(replace(OWN, uplink=""))
    assert error.value.host == NODE and "network.uplink" in error.value.remedy


# ---------------------------------------------------------------------------------------- what they let through


@pytest.mark.parametrize("facts", VARIANTS.values(), ids=VARIANTS)
def test_the_internet_is_reached_by_the_uplink_and_answers(facts: HostFacts) -> None:
    assert goes_out(WEB, facts)
    assert goes_out(WEB, facts, state="ESTABLISHED", is_translated=True, is_confirmed=True)
    answer = Packet(source=WEB, target=GUEST, comes_by=facts.uplink, goes_by=GW, state="ESTABLISHED")
    assert accepts(rules(facts), "FORWARD", answer)
    assert accepts(rules(facts), "FORWARD", replace(answer, state="RELATED"))


@pytest.mark.parametrize("facts", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(
    "to",
    [
        *("10.0.10.1", "10.0.10.3", "10.0.10.254", "10.0.10.253", "10.0.10.255"),  # workers, orchestrator, next hop
        *(NEIGHBOUR, GATEWAY, "10.60.7.2", "10.60.7.255", "169.254.169.254"),
    ],
)
def test_no_host_of_the_cluster_no_neighbour_and_no_metadata_service(to: str, facts: HostFacts) -> None:
    for device in {"eth0", GW, facts.uplink, "docker0"}:
        assert not goes_out(to, facts, by=device), device
        translated = {"state": "ESTABLISHED", "is_translated": True, "is_confirmed": True}
        assert not goes_out(to, facts, by=device, **translated), device


def test_no_network_that_the_node_is_connected_to() -> None:
    for to in ("172.17.0.2", "203.0.113.1", "203.0.113.77", "10.9.8.7"):
        assert not goes_out(to, by="docker0") and not goes_out(to, by="up0"), to


def test_a_links_gateway_in_the_nodes_namespace_changes_no_rule_and_is_no_way() -> None:
    """It is put back into its own, and rules that named its network would have to change once more."""
    strayed = replace(OWN, connected={**OWN.connected, "gw_vlan388": ("192.168.132.0/24",)})
    assert rules(strayed) == rules()
    assert not goes_out("192.168.132.101", strayed, by="gw_vlan388")
    assert not comes_in("192.168.132.1", strayed)
    for device in ("gw_vlan388x", "gw_vlan", "my_gw_vlan388"):  # others' networks are closed
        assert rules(replace(OWN, connected={**OWN.connected, device: ("192.168.132.0/24",)})) != rules(), device


def test_a_worker_on_a_network_that_is_routed_is_closed_by_its_address() -> None:
    assert "-d 10.77.0.9/32 -i gw_vlan400 -j DROP" in chain(FORWARD, guarded=("10.77.0.9",))
    assert not accepts(
        rules(ONE_NIC, ("10.77.0.9",)),
        "FORWARD",
        Packet(source=GUEST, target="10.77.0.9", comes_by=GW, goes_by="eth0"),
    )


def test_what_a_person_denies_is_denied_and_listed_once() -> None:
    denied: dict[str, Any] = {"network__deny": ["10.0.0.0/8", "198.51.100.0/24", "10.9.0.0/16"]}
    assert not goes_out(WEB, settings=denied) and not goes_out("10.200.1.1", settings=denied)
    assert goes_out("192.0.2.1", settings=denied)
    closed = [rule.split()[1] for rule in chain(FORWARD, **denied) if rule.startswith("-d")]
    assert closed == ["10.0.0.0/8", "172.17.0.0/16", "198.51.100.0/24", "203.0.113.0/24"]


@pytest.mark.parametrize(
    "packet",
    [
        {"state": "INVALID"},
        {"state": "UNTRACKED"},
        {"state": "RELATED", "is_confirmed": True},  # an ICMP error about a connection of somebody else
        {"state": "ESTABLISHED", "is_confirmed": True},  # begun while the NAT rule was missing, and answered
        {"state": "NEW", "is_confirmed": True},  # and not answered
        {"state": "NEW", "source": "10.60.8.9"},
        {"state": "NEW", "source": "203.0.113.3"},
    ],
    ids=lambda packet: "-".join(map(str, packet.values())),
)
@pytest.mark.parametrize("facts", VARIANTS.values(), ids=VARIANTS)
def test_what_would_not_be_translated_does_not_leave(facts: HostFacts, packet: dict[str, Any]) -> None:
    plain = Packet(source=GUEST, target=WEB, comes_by=GW, goes_by=facts.uplink)
    assert not accepts(rules(facts), "FORWARD", replace(plain, **packet))
    assert accepts(rules(facts), "FORWARD", plain), "the control"


def test_from_outside_nobody_begins() -> None:
    for state in ("NEW", "INVALID", "UNTRACKED"):
        assert not accepts(
            rules(), "FORWARD", Packet(source=WEB, target=GUEST, comes_by="up0", goes_by=GW, state=state)
        )
    assert not accepts(
        rules(), "FORWARD", Packet(source="10.0.10.9", target=GUEST, comes_by="eth0", goes_by=GW, state="ESTABLISHED")
    )


def test_a_node_that_forwarded_nothing_is_no_way_from_the_uplink_to_its_other_networks() -> None:
    packet = Packet(source=WEB, target="10.0.10.1", comes_by="up0", goes_by="eth0")
    assert not accepts(rules(), "FORWARD", packet)
    forwards = replace(OWN, forwards=True)
    assert accepts(rules(forwards), "FORWARD", packet), "one that did before us still does"
    assert not accepts(rules(forwards), "FORWARD", replace(packet, target=GUEST, goes_by=GW))


@pytest.mark.parametrize("facts", VARIANTS.values(), ids=VARIANTS)
def test_of_the_node_icmp_to_the_gateway_is_all_that_is_reached(facts: HostFacts) -> None:
    assert comes_in(GATEWAY, facts, protocol="icmp")
    for to in (GATEWAY, NODE, "203.0.113.3", "255.255.255.255", "224.0.0.1"):
        for protocol, port in (("tcp", 22), ("udp", 67), ("udp", 53), ("tcp", 53)):
            assert not comes_in(to, facts, protocol=protocol, port=port), (to, protocol, port)
        assert to == GATEWAY or not comes_in(to, facts, protocol="icmp")
    other = Packet(source=WEB, target=NODE, comes_by="eth0")
    assert accepts(rules(facts), "INPUT", other), "that is not ours to judge"


@pytest.mark.parametrize(("dns", "facts"), [(GATEWAY, OWN), (NODE, OWN), ("10.0.10.254", ONE_NIC)])
def test_a_name_server_that_would_be_closed_is_reached_at_port_53_and_no_other(dns: str, facts: HostFacts) -> None:
    settings = {"internet__dns": dns}
    for protocol in ("udp", "tcp"):
        assert comes_in(dns, facts, protocol=protocol, port=53, settings=settings)
        assert not comes_in(dns, facts, protocol=protocol, port=22, settings=settings)
        assert not comes_in(NODE if dns != NODE else GATEWAY, facts, protocol=protocol, port=53, settings=settings)
        assert goes_out(dns, facts, protocol=protocol, port=53, settings=settings)
        assert not goes_out(dns, facts, protocol=protocol, port=22, settings=settings)
        assert not goes_out(dns, facts, protocol=protocol, port=53, settings=settings, state="INVALID")
        assert not goes_out(dns, facts, protocol=protocol, port=53, settings=settings, source="10.60.8.9")


def test_a_name_server_in_the_internet_needs_no_rule() -> None:
    assert not any("53" in rule for rule in chain(FORWARD) + chain(INPUT))
