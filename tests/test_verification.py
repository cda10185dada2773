"""What `verify` sends, who must hear it, and what it makes of what was heard."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from cloudrepo.naming import tap_name
from cloudrepo.verification import frames
from cloudrepo.verification.matrix import Ear, Nic, Probe, link_local, nics_of, note, probes
from cloudrepo.verification.verdicts import judge

RUN = b"run-0001"
W1, W2, NODE = "10.0.10.1", "10.0.10.2", "10.0.10.3"


def nic(vm: str, number: int, host: str, wire: int | None, ip: str = "", **more: Any) -> Nic:
    vm_id = 1001 + number
    return Nic(
        slice_id=1000,
        vm_id=vm_id,
        vm=vm,
        interface="eth1",
        host=host,
        device=tap_name(vm_id, "eth1"),
        wire=wire,
        mac=f"52:54:00:00:00:{number:02x}",
        ip=ip,
        **more,
    )


A, B = nic("a", 1, W1, 100, "192.168.100.10"), nic("b", 2, W2, 100, "192.168.100.11")
C, D = nic("c", 3, W1, 400, "10.60.7.101"), nic("d", 4, W1, 400, "10.60.7.102")
E = nic("e", 5, W2, 101)
GATE = replace(nic("the gateway", 9, NODE, 400, "10.60.7.1"), device="gw_vlan400", is_guest=False)
EVERYBODY = (A, B, C, D, E)
EARS: dict[Ear, str] = {one.ear: str(one) for one in (*EVERYBODY, GATE)}


def sent(*nics: Nic, gateway: Nic | None = GATE) -> list[Probe]:
    return probes(nics or EVERYBODY, gateway, RUN)


def of(sender: Nic, kind: str, found: list[Probe] | None = None) -> Probe:
    return next(one for one in found or sent() if one.sender is sender and one.kind == kind)


# ---------------------------------------------------------------------------------------- frames


def test_the_internet_checksum_is_that_of_the_rfc() -> None:
    assert frames.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2  # RFC 1071, 3
    assert frames.checksum(b"\x01") == 0xFFFF - 0x0100


def test_an_ipv4_header_sums_to_nothing_and_says_its_length() -> None:
    frame = frames.udp(B.mac, A.mac, "192.0.2.7", "192.0.2.8", (9, 10), b"x" * 100)
    header = frame[14:34]
    assert frames.checksum(header) == 0
    assert struct.unpack("!H", header[2:4])[0] == len(frame) - 14
    assert struct.unpack("!HHH", frame[34:40]) == (9, 10, 108)


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


def test_a_tag_stands_before_the_type() -> None:
    assert frames.ethernet(B.mac, A.mac, 0x88B5, b"", tag=400)[12:18].hex() == "8100019088b5"


# ---------------------------------------------------------------------------------------- the matrix


def test_each_frame_carries_the_number_of_its_probe() -> None:
    found = sent()
    assert [one.number for one in found] == list(range(len(found)))
    assert all(one.frame.count(note(RUN, one.number)) == 1 for one in found)
    assert max(len(one.frame) for one in found) == 14 + 1500


def test_a_broadcast_is_for_the_link_and_nobody_else() -> None:
    assert of(A, "broadcast").hearers == {B.ear}
    assert of(B, "broadcast").hearers == {A.ear}
    assert of(E, "broadcast").hearers == frozenset()  # alone on its wire


def test_on_vlan_400_only_the_gateway_hears_and_only_it_is_heard() -> None:
    from_guests = [one for one in sent() if one.sender in (C, D)]
    assert {ear for one in from_guests for ear in one.hearers} == {GATE.ear}
    assert {one.hearers for one in sent() if one.sender is GATE} == {frozenset({C.ear}), frozenset({D.ear})}
    assert of(C, "IPv4 to d:eth1").hearers == of(C, "ARP for d:eth1").hearers == frozenset()


def test_nothing_is_sent_from_a_machine_that_does_not_run() -> None:
    assert [one for one in sent(replace(A, is_held=False), B) if one.sender.vm == "a"] == []


@pytest.mark.parametrize(
    ("switch", "kinds"),
    [
        ("vlans", {"tagged frame"}),
        ("bridging", {"frame from a stranger's MAC", "frame from b:eth1's MAC"}),
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
    strict = {one.kind for one in sent(A, B) if one.sender.vm == "a" and not one.hearers}
    open_ = replace(A, switches=frozenset({switch}))
    assert strict - {one.kind for one in sent(open_, B) if one.sender.vm == "a"} == kinds


def test_nics_come_from_records_alone() -> None:
    record = {
        "slice_id": 1000,
        "status": "running",
        "links": [{"vlan_id": 100, "spoofing": "allowed"}],
        "vms": [
            {
                "vm_id": 1001,
                "name": "web",
                "worker_ip": W1,
                "status": "stopped",
                "interfaces": [{"name": "eth0", "mac": "52:54:00:03:e9:00", "vlan_id": 100, "ip_config": None}],
            }
        ],
    }
    (found,) = nics_of([record], tap_name)
    assert (found.device, found.wire, found.ip, found.is_held) == ("tap_1001_eth0", 100, "", False)
    assert found.switches == {"spoofing"} and str(found) == "web:eth0"


# ---------------------------------------------------------------------------------------- verdicts


def everything_right(found: list[Probe]) -> dict[int, set[Ear]]:
    return {one.number: set(one.hearers) for one in found}


def test_what_is_as_it_should_be_has_no_violation_and_counts() -> None:
    found = sent(A, B, C, D)
    result = judge(found, everything_right(found), {ear: EARS[ear] for ear in EARS if ear != E.ear})
    assert result.violations == [] and result.unproven == []
    assert result.positives == sum(len(one.hearers) for one in found)
    # each frame at each other place that was listened at, where it must not be
    assert result.negatives == sum(5 - len(one.hearers) - 1 for one in found)


def test_a_frame_that_does_not_arrive_names_the_pair() -> None:
    found = sent(A, B)
    heard = everything_right(found)
    heard[of(A, "ARP", found).number] = set()
    (one,) = judge(found, heard, EARS).violations
    assert str(one) == ("a:eth1 does not reach b:eth1 (ARP; nothing came out of tap_1003_eth1 on 10.0.10.2)")


def test_a_frame_that_arrives_elsewhere_names_the_pair() -> None:
    found = sent()
    heard = everything_right(found)
    heard[of(C, "broadcast", found).number].add(D.ear)
    (one,) = judge(found, heard, EARS).violations
    assert str(one) == "c:eth1 reaches d:eth1 and must not (broadcast; seen at tap_1005_eth1 on 10.0.10.1)"


def test_silence_proves_nothing_of_who_was_never_heard() -> None:
    found = sent(A, B, C)
    heard = everything_right(found)
    for one in found:
        if one.sender is A:
            heard[one.number] = set()
    result = judge(found, heard, EARS)
    assert any(text.startswith("a:eth1 was heard by nobody") for text in result.unproven)
    counted = judge([one for one in found if one.sender is A], heard, EARS)
    assert counted.negatives == 0


def test_silence_proves_nothing_at_a_deaf_place() -> None:
    found = sent(A, B, E)
    result = judge(found, everything_right(found), EARS)
    assert any(text.startswith("nothing was heard at e:eth1") for text in result.unproven)
