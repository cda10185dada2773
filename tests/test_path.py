"""The way from one NIC to another, where it breaks, and what `verify` says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cloudrepo.naming import Mark, flow_cookie
from cloudrepo.verification import breaks, path, tracing
from cloudrepo.verification.breaks import Scene
from cloudrepo.verification.cast import Nic
from cloudrepo.verification.ground import Ground, Machine, Server
from cloudrepo.verification.path import Hop, Question, Way
from cloudrepo.verification.sightings import Heard, Offer
from cloudrepo.verification.tracing import Learned, Rule, Trace
from cloudrepo.verification.verdicts import Violation, judge
from wire_cast import (
    AROUND,
    GATE100,
    NODE,
    PLACES,
    SERVER100,
    STRANGER,
    W1,
    W2,
    A,
    B,
    C,
    D,
    everything_right,
    of,
    sent,
    sighting,
    wires,
)
from wire_grounds import grounds, port, seen

INSTALLATION = "cbfe46d0"
COOKIE = flow_cookie(Mark(INSTALLATION, "1000"))

# ---------------------------------------------------------------------------------------- answers of the switch

FLOODED = """Flow: in_port="tap_1001_eth1",vlan_tci=0x0000,dl_src=52:54:00:03:e9:01,dl_type=0x88b5

bridge("br-int")
----------------
 0. in_port="tap_1001_eth1",dl_src=52:54:00:03:e9:01, priority 200, cookie 0xcbfe46d0000003e8
    NORMAL
     -> learned that 52:54:00:03:e9:01 is on port tap_1001_eth1 in VLAN 100
     -> no learned MAC for destination, flooding

Final flow: unchanged
Megaflow: recirc_id=0,eth,in_port="tap_1001_eth1",dl_src=52:54:00:03:e9:01,dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x88b5
Datapath actions: push_vlan(vid=100,pcp=0),br-int,eth1,pop_vlan,tap_1002_eth1
"""
SENT_OUT = """Flow: arp,in_port="tap_1001_eth0"

bridge("br-int")
----------------
 0. arp,in_port="tap_1001_eth0",arp_tpa=10.60.7.1, priority 200, cookie 0xcbfe46d0000003e8
    push_vlan:0x8100
    set_field:4496->vlan_vid
    output:eth1

Final flow: arp
Datapath actions: push_vlan(vid=400,pcp=0),eth1
"""
DROPPED = """Flow: in_port="tap_1001_eth1"

bridge("br-int")
----------------
 0. in_port="tap_1001_eth1", priority 10, cookie 0xcbfe46d0000003e8
    drop

Final flow: unchanged
Datapath actions: drop
"""
NO_FLOW = """Flow: in_port="tap_1001_eth1"

bridge("br-int")
----------------
 0. No match.
    drop

Final flow: unchanged
Datapath actions: drop
"""
OPEN = """Flow: in_port=1

bridge("br-int")
----------------
 0. priority 0
    NORMAL

Datapath actions: 2,3
"""


def test_what_a_switch_says_is_read() -> None:
    found = tracing.read(FLOODED)
    assert found.ports == ("br-int", "eth1", "tap_1002_eth1")
    (rule,) = found.rules
    assert (rule.match, rule.priority, rule.cookie, rule.actions) == (
        "in_port=tap_1001_eth1,dl_src=52:54:00:03:e9:01",
        200,
        COOKIE,
        ("NORMAL",),
    )
    assert tracing.read(SENT_OUT).ports == ("eth1",)
    assert tracing.read(SENT_OUT).rules[0].actions == ("push_vlan:0x8100", "set_field:4496->vlan_vid", "output:eth1")
    assert tracing.read(DROPPED).ports == () and tracing.read(DROPPED).rules[0].actions == ("drop",)
    assert tracing.read(NO_FLOW) == Trace()
    assert tracing.read(OPEN).rules == (Rule(match="", priority=0, cookie=0, actions=("NORMAL",)),)
    with pytest.raises(ValueError):
        tracing.read("ovs-appctl: cannot connect")


def test_a_flow_has_an_owner() -> None:
    (rule,) = tracing.read(FLOODED).rules
    assert tracing.owner(rule, INSTALLATION) == "slice 1000"
    assert tracing.owner(rule, "00000001") == "somebody else"
    assert tracing.owner(replace(rule, cookie=0), INSTALLATION) == "nobody that is known here"


def test_a_frame_that_travels_has_its_tag_behind_the_addresses() -> None:
    assert tracing.tagged(bytes(range(12)) + b"\x88\xb5rest", 400)[12:] == b"\x81\x00\x01\x90\x88\xb5rest"


# ---------------------------------------------------------------------------------------- hops

LETS = Rule(match="in_port=x", priority=200, cookie=COOKIE, actions=("NORMAL",))
DROPS = Rule(match="in_port=x", priority=10, cookie=COOKIE, actions=("drop",))


def way(sender: Nic = A, receiver: Nic = B, found: Mapping[str, Ground] | None = None) -> Way:
    return Way(
        sender=sender,
        receiver=receiver,
        frame=b"\0" * 60,
        grounds=grounds() if found is None else found,
        installation=INSTALLATION,
    )


def right(on: Way) -> dict[Question, Trace]:
    """Every switch on the way lets the frame through."""
    first, *others = on.questions()
    out = on.receiver.device if on.is_local else "eth1"
    return {
        first: Trace(rules=(LETS,), ports=(out,)),
        **{one: Trace(rules=(LETS,), ports=(on.receiver.device,)) for one in others},
    }


def hops(on: Way, traces: Mapping[Question, Trace] | None = None) -> list[Hop]:
    return path.hops(on, right(on) if traces is None else traces)


def broken(on: Way, traces: Mapping[Question, Trace] | None = None) -> str:
    hop = path.first_broken(hops(on, traces))
    return str(hop) if hop is not None else ""


def test_a_way_between_hosts_has_all_its_hops_in_order() -> None:
    found = hops(way())
    assert [(hop.name, hop.host, hop.device) for hop in found] == [
        ("TAP", W1, A.device),
        ("port", W1, A.device),
        ("flows", W1, "br-int"),
        ("uplink", W1, "eth1"),
        ("uplink", W2, "eth1"),
        ("flows", W2, "br-int"),
        ("port", W2, B.device),
        ("TAP", W2, B.device),
    ]
    assert broken(way()) == "" and all(hop.command for hop in found)
    assert found[2].found == "priority 200, in_port=x: NORMAL (of slice 1000) → eth1"


def test_a_way_on_one_host_has_no_uplink() -> None:
    on = neighbours()
    assert [hop.name for hop in hops(on)] == ["TAP", "port", "flows", "port", "TAP"] and broken(on) == ""


def test_a_way_to_a_service_ends_in_its_namespace() -> None:
    last = hops(way(A, GATE100))[-1]
    assert (last.name, last.host, last.device) == ("device", NODE, "gw_vlan100")
    assert last.command == "sudo ip -n ns-dhcp-vlan100 -s address show gw_vlan100"


def change(host: str, *, port_of: str = "", device: str = "", **more: Any) -> dict[str, Ground]:
    """The hosts, with a port or a device of one of them changed."""
    found = grounds()
    ground = found[host]
    if port_of:
        ports = {**ground.ports, port_of: replace(ground.ports[port_of], **more)}
        found[host] = replace(ground, ports=ports)
    else:
        here = {**ground.here, device: replace(ground.here[device], **more)}
        found[host] = replace(ground, devices={**ground.devices, "": here})
    return found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change(W1, device=A.device, is_up=False), f"TAP {A.device} on {W1}: it is switched off"),
        (change(W1, device=A.device, has_carrier=False), f"TAP {A.device} on {W1}: no process holds it"),
        (change(W1, port_of=A.device, tag=999), f"port {A.device} on {W1}: its tag is 999, and should be 100"),
        (
            change(W1, port_of=A.device, tag=None),
            f"port {A.device} on {W1}: it has no tag and hears every VLAN; its tag should be 100",
        ),
        (change(W1, port_of=A.device, mode="dot1q-tunnel"), f"port {A.device} on {W1}: its mode is dot1q-tunnel"),
        (change(W1, port_of=A.device, trunks=(7, 8)), f"port {A.device} on {W1}: it carries the VLANs 7, 8 besides"),
        (
            change(W1, port_of="eth1", trunks=(101, 400)),
            f"uplink eth1 on {W1}: it does not carry VLAN 100: its trunks are 101, 400",
        ),
        (change(W2, device="eth1", mtu=1200), f"uplink eth1 on {W2}: its MTU is 1200, and a full frame needs 1500"),
        (change(W2, device="eth1", has_carrier=False), f"uplink eth1 on {W2}: its cable is out: it has no carrier"),
        (
            change(W2, port_of=B.device, number=0),
            f"port {B.device} on {W2}: the switch cannot use it: it has no number",
        ),
    ],
)
def test_the_first_hop_that_is_not_as_it_should_be_is_named(changed: dict[str, Ground], said: str) -> None:
    assert broken(way(found=changed)) == said


def test_a_port_that_takes_tags_is_right_where_the_link_allows_them() -> None:
    tunnel = change(W1, port_of=A.device, mode="dot1q-tunnel")
    assert broken(way(replace(A, switches=frozenset({"vlans"})), found=tunnel)) == ""


def test_a_machine_with_another_mac_at_its_tap_is_named() -> None:
    found = grounds()
    found[W1] = replace(found[W1], machines=(Machine(pid=7, state="S", nics={A.device: C.mac}),))
    assert "its machine has MAC 52:54:00:00:00:03 there, and a:eth1 has" in broken(way(found=found))


def test_a_host_that_does_not_answer_is_where_it_breaks() -> None:
    found = grounds()
    del found[W2]
    assert broken(way(found=found), {}).startswith(f"flows br-int on {W1}: the switch could not be asked")
    on = way(found=found)
    assert broken(on) == f"host  on {W2}: the host did not answer"


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (Trace(), "no flow is for it, so it is dropped"),
        (Trace(rules=(DROPS,)), "it is dropped by the flow priority 10, in_port=x: drop (of slice 1000)"),
        (Trace(rules=(LETS,), ports=("br-int",)), "it leaves by br-int and not by eth1"),
    ],
)
def test_a_switch_that_does_not_let_it_through_is_named(trace: Trace, said: str) -> None:
    on = way()
    assert broken(on, right(on) | {on.questions()[0]: trace}) == f"flows br-int on {W1}: {said}"


def test_a_switch_that_sends_it_astray_does_so_because_of_its_port() -> None:
    astray = Trace(rules=(LETS,), ports=("br-int",))
    on = way(found=change(W1, port_of="eth1", trunks=(7,)))
    traces = right(on) | {on.questions()[0]: astray}
    assert broken(on, traces).startswith(f"uplink eth1 on {W1}: it does not carry VLAN 100")
    on = way(found=change(W2, port_of=B.device, tag=7))
    traces = right(on) | {on.questions()[1]: astray}
    assert broken(on, traces) == f"port {B.device} on {W2}: its tag is 7, and should be 100"
    on = way(found=change(W2, port_of=B.device, tag=7))
    traces = right(on) | {on.questions()[0]: astray}
    assert broken(on, traces).startswith(f"flows br-int on {W1}"), "what is wrong on another host is not why"


FDB = """ port  VLAN  MAC                Age
LOCAL     0  02:00:00:00:00:01    1
    1   100  52:54:00:00:00:02   17
    2   400  52:54:00:00:00:03  static
"""


def test_where_a_switch_heard_which_mac_is_read() -> None:
    assert tracing.read_learned(FDB) == (
        Learned(port=65534, vlan=0, mac="02:00:00:00:00:01", age_s=1),
        Learned(port=1, vlan=100, mac="52:54:00:00:00:02", age_s=17),
        Learned(port=2, vlan=400, mac="52:54:00:00:00:03", age_s=None),
    )
    assert tracing.read_learned("ovs-appctl: no such command\n") == ()
    assert tracing.destination(bytes.fromhex("525400000002" + "00" * 54)) == "52:54:00:00:00:02"


def heard(behind: int, **more: Any) -> Learned:
    return replace(Learned(port=behind, vlan=100, mac=B.mac.lower(), age_s=17), **more)


def neighbours() -> Way:
    """Both on one host."""
    neighbour = replace(B, host=W1, device="tap_9_eth1")
    found = grounds()
    ports = {**found[W1].ports, "tap_9_eth1": port("tap_9_eth1", 9, 100)}
    here = {**found[W1].here, "tap_9_eth1": seen(is_tap=True)}
    found[W1] = replace(found[W1], ports=ports, devices={"": here})
    return way(A, neighbour, found)


BEHIND_A_TAP = Trace(rules=(LETS,), ports=(C.device,), learned=(heard(3),))
BEHIND_THE_UPLINK = Trace(rules=(LETS,), ports=("eth1",), learned=(heard(1),))
BACK_WHERE_IT_CAME_FROM = Trace(rules=(LETS,), ports=(), learned=(heard(1),))


@pytest.mark.parametrize(
    ("on", "number", "trace", "place", "behind"),
    [
        (way(), 0, BEHIND_A_TAP, W1, C.device),
        (way(), 1, BACK_WHERE_IT_CAME_FROM, W2, "eth1"),
        (neighbours(), 0, BEHIND_THE_UPLINK, W1, "eth1"),
    ],
)
def test_a_switch_that_heard_the_mac_elsewhere_is_stale_and_nothing_is_broken(
    on: Way, number: int, trace: Trace, place: str, behind: str
) -> None:
    found = hops(on, right(on) | {on.questions()[number]: trace})
    assert path.first_broken(found) is None
    hop = path.first_stale(found)
    assert hop is not None and (hop.name, hop.host, hop.command) == ("flows", place, "sudo ovs-appctl fdb/show br-int")
    assert f"the switch has {B.mac.lower()} behind {behind}, where it heard it 17 s ago" in str(hop)
    assert "at most 300 s after" in hop.stale and hop.to_json()["stale"] == hop.stale


@pytest.mark.parametrize(
    "trace",
    [
        replace(BACK_WHERE_IT_CAME_FROM, learned=(heard(1, age_s=None),)),  # somebody put it there: it stays
        replace(BACK_WHERE_IT_CAME_FROM, learned=(heard(1, vlan=400),)),  # in another VLAN
        replace(BACK_WHERE_IT_CAME_FROM, learned=(heard(1, mac=C.mac.lower()),)),  # of another machine
        replace(BACK_WHERE_IT_CAME_FROM, learned=(heard(2),)),  # it is where it should be
        replace(BACK_WHERE_IT_CAME_FROM, learned=(heard(77),)),  # at a port that is not there
        replace(BACK_WHERE_IT_CAME_FROM, rules=(DROPS,)),  # a flow drops it, whatever was heard
        replace(BEHIND_THE_UPLINK, ports=("br-int",)),  # it goes somewhere else
        Trace(learned=(heard(1),)),  # no flow is for it
    ],
)
def test_what_does_not_end_by_itself_is_broken(trace: Trace) -> None:
    on = way()
    found = hops(on, right(on) | {on.questions()[1]: trace})
    assert path.first_broken(found) is not None and path.first_stale(found) is None


def test_what_is_broken_on_the_way_comes_before_what_is_stale() -> None:
    on = way(found=change(W2, port_of=B.device, tag=7))
    traces = right(on) | {on.questions()[0]: BEHIND_A_TAP}
    assert broken(on, traces) == f"port {B.device} on {W2}: its tag is 7, and should be 100"


def test_ends_on_two_wires_are_apart() -> None:
    assert broken(way(A, C)) == f"records {A.device} on {W1}: a:eth1 is on VLAN 100, c:eth1 on VLAN 400"


# ---------------------------------------------------------------------------------------- of what verify found


class Case:
    """A run of `verify` with something wrong, and what it says of the hop."""

    def __init__(self, found: Mapping[str, Ground] | None = None) -> None:
        self.grounds = grounds() if found is None else found
        self.probes = sent()
        self.heard: Heard = everything_right(self.probes)

    def lost(self, sender: Nic, receiver: Nic) -> None:
        for one in self.probes:
            if one.sender is sender:
                kept = [each for each in self.heard.at(one.number) if each.ear != receiver.ear]
                self.heard.sightings[one.number] = kept

    def explained(self, traces: Mapping[str, Trace] | None = None) -> list[Violation]:
        """With the answers of these hosts' switches; the others let all through."""
        result = judge(self.probes, self.heard, PLACES, wires(), AROUND)
        scene = Scene(
            grounds=self.grounds,
            wires=wires(),
            places=PLACES,
            probes={one.number: one for one in self.probes},
            heard=self.heard,
            installation=INSTALLATION,
        )
        ways = breaks.ways(scene, result.violations)
        told = traces or {}
        given = {key: told.get(key.host, value) for each in ways.values() for key, value in right(each).items()}
        breaks.explain(scene, result.violations, ways, given)
        return result.violations

    def hops(self) -> set[str]:
        return {one.hop for one in self.explained()}


def test_a_pair_that_does_not_hear_each_other_is_told_the_hop_and_the_commands() -> None:
    case = Case(change(W2, port_of=B.device, tag=7))
    case.lost(A, B)
    assert case.hops() == {f"port {B.device} on {W2}: its tag is 7, and should be 100"}
    first, *others = case.explained()[0].commands
    assert first.endswith(f"list Port {B.device}") and len(others) == 7


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([], f"in the switch of {W1}: it did not leave by an uplink"),
        ([(W1, True)], f"between {W1} and {W2}: it left the one and did not come to the other"),
        ([(W1, True), (W2, False)], f"in the switch of {W2}: it came in by an uplink"),
    ],
)
def test_where_nothing_is_seen_to_be_wrong_the_wire_says_how_far_it_came(
    places: list[tuple[str, bool]], said: str
) -> None:
    case = Case()
    case.lost(A, B)
    for one in case.probes:
        if one.sender is A:
            more = [sighting(one, (host, "eth1"), is_sent=is_sent) for host, is_sent in places]
            case.heard.sightings[one.number] = [*case.heard.at(one.number), *more]
    assert case.hops() == {said}


def test_a_stale_switch_is_told_of_where_a_frame_is_lost() -> None:
    case = Case()
    case.lost(A, B)
    (one, *_) = case.explained({W2: BACK_WHERE_IT_CAME_FROM})
    assert "heard it 17 s ago" in one.hop and one.commands[0] == "sudo ovs-appctl fdb/show br-int"


def leaking(case: Case, sender: Nic, place: tuple[str, str]) -> None:
    probe = of(sender, "broadcast", case.probes)
    case.heard.sightings[probe.number].append(sighting(probe, place))


def test_a_leak_is_told_the_port_that_is_not_as_recorded() -> None:
    case = Case(change(W2, port_of=B.device, tag=400))
    leaking(case, C, B.ear)
    assert case.hops() == {f"port {B.device} on {W2}: its tag is 400, and should be 100"}


def test_a_leak_by_a_flow_is_told_the_flow_and_whose_it_is() -> None:
    found = grounds()
    ports = {**found[W1].ports, D.device: port(D.device, 5, 400)}
    here = {**found[W1].here, D.device: seen(is_tap=True)}
    case = Case({**found, W1: replace(found[W1], ports=ports, devices={"": here})})
    leaking(case, C, D.ear)
    (one,) = case.explained()
    assert one.hop == f"flows on {W1}: priority 200, in_port=x: NORMAL (of slice 1000) lets it through"


def test_a_strangers_port_is_where_it_leaks() -> None:
    case = Case()
    leaking(case, A, STRANGER)
    assert case.hops() == {f"port tap_other on {W2}: it is no slice's and hears VLAN 100"}


def test_the_way_to_a_hosts_own_device_is_its_forwarding() -> None:
    case = Case()
    leaking(case, C, (NODE, "eth0"))
    assert case.hops() == {f"forwarding of {NODE}: by its routes and its rules"}


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ((), f"no dnsmasq runs in ns-dhcp-vlan100 on {NODE}"),
        (("T",), f"dnsmasq in ns-dhcp-vlan100 on {NODE}, process 7, is stopped"),
        (("S",), f"dnsmasq in ns-dhcp-vlan100 on {NODE}: it runs and does not answer"),
    ],
)
def test_a_silent_server_is_told_why(servers: tuple[str, ...], said: str) -> None:
    found = grounds()
    running = tuple(Server(pid=7, state=state, namespace="ns-dhcp-vlan100") for state in servers)
    found[NODE] = replace(found[NODE], servers=running)
    case = Case(found)
    case.heard.offers[of(A, "DHCP question", case.probes).number] = []
    assert case.hops() == {said}


def test_a_second_server_is_told_its_device() -> None:
    found = grounds()
    found[W2] = replace(found[W2], devices={**found[W2].devices, "rogue": {"rogue0": seen("02:00:00:00:00:66")}})
    case = Case(found)
    number = of(A, "DHCP question", case.probes).number
    case.heard.offers[number].append(
        Offer(ear=A.ear, number=number, is_sent=True, mac="02:00:00:00:00:66", address="192.168.100.9", server="")
    )
    assert case.hops() == {f"rogue0 on {W2}, in namespace rogue"}
    assert SERVER100.mac not in str(case.explained()[0])
