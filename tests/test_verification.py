"""What `verify` sends, and who must hear it."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest

from cloudrepo.naming import dhcp_namespace, dhcp_port, gateway_port, tap_name
from cloudrepo.verification import frames, shapes
from cloudrepo.verification.cast import INTERNET_VLAN, link_local, nics_of, services_of
from cloudrepo.verification.matrix import Probe, note, probes
from cloudrepo.verification.sightings import Heard, read
from wire_cast import AROUND, GATE, GATE100, NODE_NIC, RUN, SERVER100, SERVER400, UPLINK, A, B, C, D, E, of, sent, wires

# ---------------------------------------------------------------------------------------- frames


def test_the_internet_checksum_is_that_of_the_rfc() -> None:
    assert frames.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2  # RFC 1071, 3
    assert frames.checksum(b"\x01") == 0xFFFF - 0x0100


def test_an_ipv4_header_sums_to_nothing_and_says_its_length() -> None:
    frame = frames.udp(B.mac, A.mac, "192.0.2.7", "192.0.2.8", (9, 10), b"x" * 100, hops=2)
    header = frame[14:34]
    assert frames.checksum(header) == 0 and header[8] == 2
    assert struct.unpack("!H", header[2:4])[0] == len(frame) - 14
    assert struct.unpack("!HHH", frame[34:40]) == (9, 10, 108)


def test_a_ping_sums_to_nothing_and_holds_its_payload() -> None:
    frame = frames.ping(B.mac, A.mac, A.ip, B.ip, b"payload!")
    assert frames.checksum(frame[14:34]) == 0 and frames.checksum(frame[34:50]) == 0
    assert frame[34:36] == b"\x08\x00" and frame[42:50] == b"payload!"


def test_a_neighbour_advertisement_sums_to_nothing_with_its_pseudo_header() -> None:
    frame = frames.neighbour_advertisement(A.mac, link_local(A.mac), link_local(B.mac), A.mac, note(RUN, 3))
    packet = frame[14:]
    length = struct.unpack("!H", packet[4:6])[0]
    message = packet[40 : 40 + length]
    assert length == len(message) and length % 8 == 0 and packet[7] == 255
    assert frames.checksum(packet[8:40] + struct.pack("!II", length, 58) + message) == 0
    assert note(RUN, 3) in frame


def test_an_arp_request_reads_as_one() -> None:
    frame = frames.arp_request(A.mac, A.mac, A.ip, B.ip, note(RUN, 1))
    assert frame[:14].hex() == "ffffffffffff" + A.mac.replace(":", "") + "0806"
    assert frame[14:22].hex() == "0001080006040001" and frame[28:32] == bytes([192, 168, 100, 10])
    assert frame[38:42] == bytes([192, 168, 100, 11]) and len(frame) == frames.SHORTEST


def test_a_dhcp_question_reads_as_one() -> None:
    message = frames.dhcp_question(A.mac, b"\1\2\3\4", note(RUN, 1))[42:]
    assert message[:8] == b"\1\1\6\0\1\2\3\4" and message[28:34].hex(":") == A.mac
    assert message[236:243] == bytes.fromhex("63825363") + b"\x35\1\1" and len(message) >= 300
    assert message[message.index(b"\xff") + 1 :].startswith(note(RUN, 1))


def test_a_tag_stands_before_the_type() -> None:
    assert frames.ethernet(B.mac, A.mac, 0x88B5, b"", tag=400)[12:18].hex() == "8100019088b5"


# ---------------------------------------------------------------------------------------- the matrix


def test_each_frame_carries_the_number_of_its_probe() -> None:
    found = sent()
    assert [one.number for one in found] == list(range(len(found)))
    assert all(one.frame.count(note(RUN, one.number)) == 1 for one in found)
    assert max(len(one.frame) for one in found) == 14 + 1500


def test_a_broadcast_is_for_the_link_with_its_services_and_nobody_else() -> None:
    assert of(A, "broadcast").hearers == {B.ear, GATE100.ear, SERVER100.ear}
    assert of(GATE100, "broadcast").hearers == {A.ear, B.ear, SERVER100.ear}
    assert of(E, "broadcast").hearers == frozenset()  # alone on its wire, and that has no services


def test_on_vlan_400_only_the_services_hear_and_only_the_gateway_is_heard() -> None:
    from_guests = [one for one in sent() if one.sender in (C, D)]
    assert {ear for one in from_guests for ear in one.hearers} == {GATE.ear, SERVER400.ear}
    assert {one.hearers for one in sent() if one.sender is GATE} == {frozenset({C.ear}), frozenset({D.ear})}
    assert of(C, "IPv4 to d:eth1").hearers == of(C, "ARP for d:eth1").hearers == frozenset()


def test_only_what_goes_to_the_internet_may_leave_and_it_dies_at_the_next_hop() -> None:
    leaving = [one for one in sent() if one.shape.leaves]
    guests = [one for one in leaving if one.sender in (C, D)]
    assert {one.kind for one in guests} == {"IPv4 to the internet", "IPv4 of full size to the internet"}
    assert {one.shape.leaves for one in guests} == {"translated"}
    assert all(one.frame[14 + 8] == 2 for one in guests)
    by_node = [one for one in leaving if one.sender is NODE_NIC]
    assert [one.kind for one in by_node] == ["IPv4 of 10.60.6.255", "IPv4 of 10.60.8.0", "IPv4 of 198.51.100.1"]
    assert {one.shape.leaves for one in by_node} == {"as it is"} and {one.frame[8] for one in by_node} == {1}
    assert leaving == [*guests, *by_node]


def test_hosts_and_the_gateway_itself_must_not_answer_guests() -> None:
    silent = {one.kind for one in sent() if one.sender is C and one.shape.answer is False}
    assert silent == {
        *(f"IPv4 to the host {ip}" for ip in AROUND.hosts),
        "UDP to the gateway itself",
        "IPv4 to 169.254.0.1 in 169.254.0.0/16, which is denied",
        "IPv4 to 192.168.7.9 in 192.168.7.9/32, which is denied",
    }
    assert {one.kind for one in sent() if one.sender is A and one.shape.answer} == {"ping", "ping of full size"}


def test_of_each_denied_network_an_address_is_tried_that_nothing_else_tries() -> None:
    around = replace(AROUND, denied=("10.0.10.0/30", "192.0.2.0/29", "10.0.10.1/32", "10.9.0.0/16", "10.9.0.0/16"))
    assert list(around.closed()) == [("192.0.2.2", "192.0.2.0/29"), ("10.9.0.1", "10.9.0.0/16")]
    denied = [one for one in sent() if "denied" in one.kind]
    assert {one.sender for one in denied} == {C, D} and all(one.frame[14 + 8] == 2 for one in denied)


def test_each_nic_asks_for_its_address_by_a_number_of_its_own() -> None:
    asking = [one for one in sent() if one.shape.is_question]
    assert [(one.sender.vm, one.shape.offer) for one in asking] == [
        *(("a", A.ip), ("b", B.ip), ("e", None), ("c", C.ip), ("d", D.ip)),
    ]
    assert len({one.transaction for one in asking}) == len(asking)
    assert all(one.transaction in one.frame for one in asking)


@pytest.mark.parametrize(
    ("switch", "kinds"),
    [
        ("vlans", {"tagged frame"}),
        ("bridging", {"frame from a stranger's MAC", "frame from b:eth1's MAC", "bridge's own frame"}),
        (
            "spoofing",
            {
                "frame from b:eth1's MAC",
                "neighbour advertisement of b:eth1's address",
                "ARP that claims b:eth1's address",
                "IPv4 from b:eth1's address",
            },
        ),
    ],
)
def test_what_a_link_allows_is_not_tried_as_forbidden(switch: str, kinds: set[str]) -> None:
    def forbidden(*switches: str) -> set[str]:
        found = probes(wires(A, B, switches=frozenset(switches), is_served=False), AROUND, RUN)
        return {one.kind for one in found if one.sender.vm == "a" and not one.hearers}

    assert forbidden() - forbidden(switch) == kinds


@pytest.mark.parametrize(
    ("switch", "kind"),
    [("vlans", "tagged frame"), ("bridging", "frame from a stranger's MAC"), ("bridging", "bridge's own frame")],
)
def test_what_a_link_allows_must_come_through(switch: str, kind: str) -> None:
    found = probes(wires(A, B, switches=frozenset({switch})), AROUND, RUN)
    (one,) = [one for one in found if one.sender.vm == "a" and one.kind == kind]
    assert one.hearers == {B.ear} and one.shape.may == {B.ear, GATE100.ear, SERVER100.ear}


RECORD = {
    "slice_id": 1000,
    "status": "running",
    "links": [
        {"vlan_id": 100, "gateway_ip": "192.168.100.1", "spoofing": "allowed"},
        {"vlan_id": 101, "gateway_ip": "192.168.101.1", "dhcp": False},
    ],
    "vms": [
        {
            "vm_id": 1001,
            "name": "web",
            "worker_ip": "10.0.10.1",
            "status": "stopped",
            "interfaces": [
                {"name": "eth0", "mac": "52:54:00:03:e9:00", "vlan_id": 100, "ip_config": None},
                {"name": "eth1", "mac": "52:54:00:03:e9:01", "vlan_id": 400, "ip_config": {"ip": "10.60.7.101"}},
            ],
        }
    ],
}


def test_nics_come_from_records_alone() -> None:
    found, other = nics_of([RECORD], tap_name)
    assert (found.device, found.wire, found.ip, found.is_held) == ("tap_1001_eth0", 100, "", False)
    assert found.switches == {"spoofing"} and str(found) == "web:eth0"
    assert (other.wire, other.ip) == (INTERNET_VLAN, "10.60.7.101")


def services(*, has_gateways: bool = True) -> list[str]:
    found = services_of(
        [RECORD],
        has_gateways=has_gateways,
        internet_gateway="10.60.7.1",
        names={"gateway": gateway_port, "DHCP server": dhcp_port},
        namespace=dhcp_namespace,
    )
    return [f"{one.device} {one.namespace} {one.ip}".strip() for one in found]


def test_services_come_from_records_alone() -> None:
    assert services() == [
        "gw_vlan100 ns-dhcp-vlan100 192.168.100.1",
        "dhcp_v100 ns-dhcp-vlan100",
        "gw_vlan400  10.60.7.1",
        "dhcp_v400 ns-dhcp-vlan400",
    ]
    assert "gw_vlan100 ns-dhcp-vlan100 192.168.100.1" not in services(has_gateways=False)


# ---------------------------------------------------------------------------------------- what hosts report


def heard(
    frame: bytes, *, device: str = "tap_1002_eth1", number: int = 0, is_sent: int = 1, where: str = "heard"
) -> Heard:
    found = Heard()
    lists: dict[str, list[object]] = {"heard": [], "answers": []} | {where: [[device, number, is_sent, frame.hex()]]}
    read("10.0.10.1", json.dumps(lists), found)
    return found


def test_a_sighting_says_from_whom_also_behind_a_tag() -> None:
    for tag in (None, 400):
        (seen,) = heard(frames.udp(B.mac, A.mac, A.ip, B.ip, (9, 9), b"", tag=tag)).at(0)
        assert (seen.ear, seen.mac, seen.ip, seen.is_sent) == (A.ear, A.mac, A.ip, True)
    (seen,) = heard(frames.ethernet(B.mac, A.mac, frames.EXPERIMENTAL, b"")).at(0)
    assert (seen.mac, seen.ip) == (A.mac, "")


@pytest.mark.parametrize(
    ("kind", "code", "is_refusal"),
    [(0, 0, False), (3, 3, False), (3, 2, False), (3, 13, True), (3, 1, True), (11, 0, True)],
)
def test_only_an_error_from_the_end_is_an_answer(kind: int, code: int, is_refusal: bool) -> None:
    frame = bytearray(frames.ping(A.mac, GATE.mac, GATE.ip, A.ip, b""))
    frame[34:36] = bytes([kind, code])
    (seen,) = heard(bytes(frame)).at(0)
    assert seen.is_refusal is is_refusal


def test_an_arp_reply_is_a_claim() -> None:
    frame = bytearray(frames.arp_request(B.mac, B.mac, B.ip, A.ip, b""))
    frame[21] = 2
    (claim,) = heard(bytes(frame), number=-1, where="answers").claims
    assert (claim.mac, claim.ip, claim.ear) == (B.mac, B.ip, A.ear)


def offer(kind: int) -> bytes:
    message = bytearray(frames.dhcp_question(A.mac, b"\1\2\3\4", b"")[42:])
    message[16:20] = bytes([192, 168, 100, 10])
    options = bytes([53, 1, kind, 0, 54, 4, 192, 168, 100, 2, 255])
    message[240 : 240 + len(options)] = options
    return frames.udp(A.mac, SERVER100.mac, "192.168.100.2", A.ip, (67, 68), bytes(message))


def test_an_offer_says_what_and_by_whom() -> None:
    (found,) = heard(offer(2), number=7, where="answers").offers[7]
    assert (found.address, found.server, found.mac) == ("192.168.100.10", "192.168.100.2", SERVER100.mac)
    assert heard(offer(5), number=7, where="answers").offers[7] == [], "an acknowledgement answers no question of ours"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"heard": [[1]], "answers": []}', '{"heard": [["a", 1, 1, "zz"]], "answers": []}']
)
def test_a_report_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read("10.0.10.1", text, Heard())


def test_a_transaction_is_of_the_run_and_the_probe() -> None:
    assert shapes.transaction(note(b"\xff\xff\xff\xff----", 1)) == b"\0\0\0\0"
    assert shapes.transaction(note(RUN, 1)) != shapes.transaction(note(RUN, 2))


def test_no_two_runs_have_a_conversation_in_common() -> None:
    """A kernel asks its rules at the first packet only: what it remembers of an earlier run would prove nothing."""

    def ports(run: bytes) -> set[bytes]:
        found = probes(wires(), AROUND, run, NODE_NIC)
        return {one.frame[20 if one.shape.way == "stack" else 34 :][:2] for one in found if one.shape.leaves}

    assert len(ports(RUN)) == 1 and not ports(RUN) & ports(b"run-0002")


def test_the_uplink_is_no_place_of_a_tenant() -> None:
    found: list[Probe] = sent()
    assert not any(UPLINK in one.hearers for one in found)
