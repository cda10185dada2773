"""What `verify` makes of what was heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cloudrepo.verification.cast import Nic
from cloudrepo.verification.matrix import Probe
from cloudrepo.verification.sightings import Claim, Heard, Offer
from cloudrepo.verification.verdicts import Result, judge, missed
from wire_cast import (
    AROUND,
    GATE,
    GATE100,
    NODE,
    NODE_NIC,
    PLACES,
    SERVER100,
    STRANGER,
    UPLINK,
    W1,
    A,
    B,
    C,
    D,
    E,
    everything_right,
    of,
    sent,
    sighting,
    wires,
)


class Story:
    """A run in which all was right, until it is changed."""

    def __init__(self, *nics: Nic) -> None:
        self.wires = wires(*nics)
        self.probes = sent(*nics)
        self.heard = everything_right(self.probes)

    def of(self, sender: Nic, kind: str) -> Probe:
        return of(sender, kind, self.probes)

    def judged(self, slice_id: int | None = None) -> Result:
        return judge(self.probes, self.heard, PLACES, self.wires, AROUND, slice_id)

    def texts(self) -> list[str]:
        return [str(one) for one in self.judged().violations]


def test_what_is_as_it_should_be_has_no_violation_and_counts() -> None:
    story = Story()
    result = story.judged()
    assert result.violations == []
    assert result.unproven == ["nothing was heard at e:eth1 (tap_1006_eth1 on 10.0.10.2)"]  # it is alone
    answered = sum(1 for one in story.probes if one.shape.answer)
    left = sum(1 for one in story.probes if one.shape.leaves)
    offered = sum(1 for one in story.probes if one.shape.offer)
    assert result.positives == sum(len(one.hearers) for one in story.probes) + answered + left + offered
    assert result.negatives > 1000 and result.guests == {}


def test_a_frame_that_does_not_arrive_names_the_pair() -> None:
    story = Story()
    number = story.of(A, "ARP").number
    story.heard.sightings[number] = [one for one in story.heard.at(number) if one.ear != B.ear]
    assert story.texts() == ["a:eth1 does not reach b:eth1 (ARP; nothing came out of tap_1003_eth1 on 10.0.10.2)"]


def test_a_frame_that_arrives_elsewhere_names_the_pair() -> None:
    story = Story()
    probe = story.of(C, "broadcast")
    story.heard.sightings[probe.number].append(sighting(probe, D.ear))
    assert story.texts() == ["c:eth1 reaches d:eth1 and must not (broadcast; seen at tap_1005_eth1 on 10.0.10.1)"]


def test_what_a_port_received_is_not_what_its_guest_hears() -> None:
    story = Story()
    probe = story.of(C, "broadcast")
    story.heard.sightings[probe.number].append(sighting(probe, D.ear, is_sent=False))
    assert story.texts() == []


@pytest.mark.parametrize("place", [STRANGER, (W1, "eth0"), (NODE, "eth0"), UPLINK])
@pytest.mark.parametrize("is_sent", [False, True])
def test_a_tenants_frame_at_a_hosts_own_device_or_a_strangers_port_is_a_violation(
    place: tuple[str, str], is_sent: bool
) -> None:
    story = Story()
    probe = story.of(C, f"IPv4 to the host {NODE}")
    story.heard.sightings[probe.number].append(sighting(probe, place, is_sent=is_sent))
    (text,) = story.texts() if place != STRANGER or is_sent else ["c:eth1 reaches"]
    assert text.startswith("c:eth1 reaches")


def test_frames_that_pass_an_uplink_of_the_bridge_are_on_their_way() -> None:
    story = Story()
    probe = story.of(C, "broadcast")
    story.heard.sightings[probe.number].append(sighting(probe, (W1, "eth1")))
    assert story.texts() == []


def test_silence_proves_nothing_of_who_was_never_heard() -> None:
    story = Story()
    before = story.judged().negatives
    for one in story.probes:
        if one.sender is A:
            story.heard.sightings[one.number] = []
    result = story.judged()
    assert "a:eth1 was heard by nobody, so what it must not reach proves nothing" in result.unproven
    assert result.negatives < before


def test_silence_proves_nothing_at_a_deaf_place() -> None:
    story = Story()
    before = story.judged().negatives
    for seen in story.heard.sightings.values():
        seen[:] = [one for one in seen if one.ear != B.ear]
    result = story.judged()
    assert any(text.startswith("nothing was heard at b:eth1") for text in result.unproven)
    assert result.negatives < before


def test_of_one_slice_only_what_concerns_it_is_told() -> None:
    story = Story()
    probe = story.of(C, "broadcast")
    story.heard.sightings[probe.number].append(sighting(probe, D.ear))
    assert [len(story.judged(number).violations) for number in (1000, 1010, 1020)] == [1, 1, 0]
    assert story.judged(1010).positives < story.judged().positives
    assert story.judged(1010).unproven == []


def test_what_was_missed_is_sent_once_more_with_what_makes_the_gateway_answer() -> None:
    story = Story()
    assert missed(story.judged(), story.probes) == frozenset()
    ping, arp = story.of(A, "ping").number, story.of(A, "ARP for the gateway").number
    story.heard.sightings[ping] = []
    probe = story.of(C, "broadcast")
    story.heard.sightings[probe.number].append(sighting(probe, D.ear))
    assert missed(story.judged(), story.probes) == {ping, arp}, "what was heard was heard"


# ---------------------------------------------------------------------------------------- gateways, the way out


def test_a_gateway_that_hears_and_does_not_answer_is_named() -> None:
    story = Story()
    number = story.of(A, "ping").number
    story.heard.sightings[number] = [one for one in story.heard.at(number) if one.ear != A.ear]
    assert story.texts() == ["the gateway of VLAN 100 does not answer a:eth1 (ping)"]


def test_a_gateway_that_does_not_hear_is_told_of_once() -> None:
    story = Story()
    story.heard.sightings[story.of(A, "ping").number] = []
    assert len(story.texts()) == 1 and "does not reach the gateway of VLAN 100" in story.texts()[0]


def test_a_host_that_answers_a_guest_is_a_violation_and_a_refusal_is_no_answer() -> None:
    story = Story()
    probe = story.of(C, f"IPv4 to the host {NODE}")
    back = sighting(probe, C.ear, mac=GATE.mac)
    story.heard.sightings[probe.number].append(replace(back, is_refusal=True))
    assert story.texts() == []
    story.heard.sightings[probe.number].append(back)
    assert story.texts() == [f"c:eth1 is answered and must not be (IPv4 to the host {NODE})"]


def test_that_nobody_answers_counts_only_if_the_sender_was_answered_at_all() -> None:
    story = Story()
    before = story.judged().negatives
    for kind in ("ping", "ping of full size"):
        number = story.of(C, kind).number
        story.heard.sightings[number] = [one for one in story.heard.at(number) if one.ear != C.ear]
    silent = sum(1 for one in story.probes if one.sender is C and one.shape.answer is False)
    assert silent == 6 and story.judged().negatives == before - silent


def leaving(story: Story, sender: Nic, kind: str, ip: str) -> None:
    probe = story.of(sender, kind)
    kept = [one for one in story.heard.at(probe.number) if one.ear != UPLINK]
    story.heard.sightings[probe.number] = [*kept, sighting(probe, UPLINK, is_sent=True, ip=ip)]


def test_what_leaves_with_its_own_address_is_a_violation() -> None:
    story = Story()
    leaving(story, C, "IPv4 to the internet", C.ip)
    assert story.texts() == ["c:eth1 leaves eth2 on 10.0.10.3 as 10.60.7.101, not as 203.0.113.3"]


def test_what_does_not_leave_is_a_violation() -> None:
    story = Story()
    number = story.of(C, "IPv4 to the internet").number
    story.heard.sightings[number] = [one for one in story.heard.at(number) if one.ear != UPLINK]
    (text,) = story.texts()
    assert text.startswith("c:eth1 does not reach eth2 of 10.0.10.3 (IPv4 to the internet")


def test_a_translation_of_what_is_not_vlan_400s_is_a_violation() -> None:
    story = Story()
    leaving(story, NODE_NIC, "IPv4 of 10.60.8.0", "203.0.113.3")
    assert story.texts() == ["NAT is wider than VLAN 400: what 10.60.8.0 sends leaves eth2 on 10.0.10.3 as 203.0.113.3"]


# ---------------------------------------------------------------------------------------- DHCP, ARP, guests


def offered(story: Story, sender: Nic, *offers: tuple[str, str]) -> None:
    number = story.of(sender, "DHCP question").number
    story.heard.offers[number] = [
        Offer(ear=sender.ear, number=number, is_sent=True, mac=mac, address=address, server="192.168.100.66")
        for mac, address in offers
    ]


def test_no_offer_is_a_violation() -> None:
    story = Story()
    offered(story, A)
    assert story.texts() == ["the DHCP server of VLAN 100 offers a:eth1 no address"]


def test_another_address_than_the_recorded_one_is_a_violation() -> None:
    story = Story()
    offered(story, A, (SERVER100.mac, "192.168.100.77"))
    (text,) = story.texts()
    assert text == "the DHCP server of VLAN 100 offers a:eth1 192.168.100.77, and its address is 192.168.100.10"


def test_a_second_server_is_named_and_whose_mac_it_has() -> None:
    story = Story()
    offered(story, A, (SERVER100.mac, A.ip), (B.mac, "192.168.100.99"))
    (text,) = story.texts()
    assert text == (
        "a second DHCP server (192.168.100.66, MAC 52:54:00:00:00:02) offers a:eth1 192.168.100.99 on VLAN 100; "
        "the MAC is that of b:eth1"
    )


def test_on_a_wire_without_a_server_any_offer_is_a_violation() -> None:
    story = Story()
    offered(story, E, ("02:00:00:00:00:66", "192.168.101.9"))
    (text,) = story.texts()
    assert text.startswith("a DHCP server (192.168.100.66, MAC 02:00:00:00:00:66) offers e:eth1")


def test_a_guest_may_serve_on_a_plain_wire_and_where_it_may_be_taken_for_another() -> None:
    story = Story()
    offered(story, E, (E.mac, "192.168.101.9"))
    assert story.texts() == []
    offered(story, A, (SERVER100.mac, A.ip), (B.mac, "192.168.100.99"))
    assert len(story.texts()) == 1
    story.wires = wires(switches=frozenset({"spoofing"}))
    assert story.texts() == []


def test_whose_a_server_is_is_not_judged_while_the_network_node_is_silent() -> None:
    story = Story()
    offered(story, A, ("02:00:00:00:00:66", "192.168.100.9"))
    assert len(story.texts()) == 2
    story.wires = [replace(wire, is_known=False) for wire in story.wires]
    assert story.texts() == []


def claimed(story: Story, ear: tuple[str, str], ip: str, mac: str) -> None:
    story.heard.claims.append(Claim(ear=ear, is_sent=PLACES[ear].is_fed, mac=mac, ip=ip))


def test_who_answers_arp_for_anothers_address_is_named() -> None:
    story = Story()
    claimed(story, GATE100.ear, A.ip, B.mac)
    (text,) = story.texts()
    assert text == (
        "52:54:00:00:00:02 answers ARP for 192.168.100.10, the address of a:eth1 (52:54:00:00:00:01); seen at "
        "the gateway of VLAN 100; the MAC is that of b:eth1"
    )


@pytest.mark.parametrize("where", [GATE.ear, (W1, "eth1")])
def test_an_address_of_another_wire_is_nobodys_business(where: tuple[str, str]) -> None:
    story = Story()
    claimed(story, where, A.ip, B.mac)
    assert story.texts() == []


def test_guests_that_answer_are_told_of() -> None:
    story = Story()
    claimed(story, GATE100.ear, A.ip, A.mac)
    probe = story.of(GATE100, "ping to a:eth1")
    story.heard.sightings[probe.number].append(sighting(probe, GATE100.ear, mac=A.mac))
    result = story.judged()
    assert result.violations == [] and result.guests == {"a:eth1": ["ARP", "ping"]}


@pytest.mark.parametrize("spoil", [lambda heard: heard.sightings.clear(), lambda heard: heard.offers.clear()])
def test_a_run_in_which_nothing_works_proves_nothing_and_says_so(spoil: Callable[[Heard], None]) -> None:
    story = Story()
    spoil(story.heard)
    result = story.judged()
    assert result.violations
    assert result.negatives == 0 or story.heard.sightings
