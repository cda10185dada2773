"""What hosts saw of a run's frames, read from bytes: where, which way, from whom. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import field

from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification import frames
from cloudrepo.verification.cast import Ear

ERRORS = (3, 5, 11, 12)  # ICMP types that quote a packet (RFC 792)
AT_THE_END = ((3, 2), (3, 3))  # no such protocol, or port: said by whom the packet was for
OFFER = 2
SERVER, ROUTER, TYPE = 54, 3, 53  # options (RFC 2132)
OPTIONS = 240  # where they begin in a DHCP message


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A frame that was seen at a device.

    Attributes:
        ear: host and device.
        number: of the probe.
        is_sent: whether the device sent it; else it received it.
        mac: its source.
        ip: the source address of its IPv4 packet, "" = it holds none.
        is_refusal: it is an ICMP error of somebody on the way, who quotes it: no answer of whom it was for.
    """

    ear: Ear
    number: int
    is_sent: bool
    mac: str
    ip: str = ""
    is_refusal: bool = False


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A DHCPOFFER.

    Attributes:
        ear, number, is_sent, mac: as of a sighting.
        address: what is offered.
        server: the server's address, by its own word.
    """

    ear: Ear
    number: int
    is_sent: bool
    mac: str
    address: str
    server: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An ARP reply: `ip` is at `mac`."""

    ear: Ear
    is_sent: bool
    mac: str
    ip: str


@dataclass(kw_only=True)
class Heard:
    """All that was seen in a run.

    Attributes:
        sightings: by a probe's number.
        offers: by the number of the probe that asked.
        claims: ARP replies, whoever asked.
    """

    sightings: dict[int, list[Sighting]] = field(default_factory=dict)
    offers: dict[int, list[Offer]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    def at(self, number: int) -> list[Sighting]:
        """Where a frame was seen."""
        return self.sightings.get(number, [])


def read(host: str, text: str, into: Heard) -> None:
    """Add what a host reports, as `wire_acts.Heard` says.

    Raises:
        ValueError: the report cannot be understood.
    """
    try:
        report = json_text.loads(text)
        for device, number, is_sent, head in report["heard"]:
            seen = _sighting((host, str(device)), int(number), bool(is_sent), bytes.fromhex(head))
            into.sightings.setdefault(seen.number, []).append(seen)
        for device, number, is_sent, data in report["answers"]:
            ear, frame = (host, str(device)), bytes.fromhex(data)
            if int(number) < 0:
                into.claims += _claims(ear, bool(is_sent), frame)
            else:
                offers = _offers(ear, int(number), bool(is_sent), frame)
                into.offers.setdefault(int(number), []).extend(offers)
    except json_text.NOT_UNDERSTOOD as error:
        raise ValueError(f"not a report: {error!r}") from error


def _sighting(ear: Ear, number: int, is_sent: bool, head: bytes) -> Sighting:
    kind, packet = _payload(head)
    is_ipv4 = kind == frames.IPV4 and len(packet) >= 22
    is_error = is_ipv4 and packet[9] == frames.ICMP and packet[20] in ERRORS
    return Sighting(
        ear=ear,
        number=number,
        is_sent=is_sent,
        mac=mac_text(head[6:12]),
        ip=str(ipaddress.IPv4Address(packet[12:16])) if is_ipv4 else "",
        is_refusal=is_error and (packet[20], packet[21]) not in AT_THE_END,
    )


def _payload(frame: bytes) -> tuple[int, bytes]:
    """The EtherType and what follows it, a tag passed over."""
    start = 16 if int.from_bytes(frame[12:14], "big") == frames.VLAN else 12
    return int.from_bytes(frame[start : start + 2], "big"), frame[start + 2 :]


def _claims(ear: Ear, is_sent: bool, frame: bytes) -> Iterator[Claim]:
    _, packet = _payload(frame)
    if len(packet) >= 18:
        yield Claim(ear=ear, is_sent=is_sent, mac=mac_text(packet[8:14]), ip=str(ipaddress.IPv4Address(packet[14:18])))


def _offers(ear: Ear, number: int, is_sent: bool, frame: bytes) -> Iterator[Offer]:
    _, packet = _payload(frame)
    message = packet[28:]
    options = dict(_options(message[OPTIONS:]))
    if options.get(TYPE) != bytes([OFFER]):
        return
    server = options.get(SERVER, b"")
    yield Offer(
        ear=ear,
        number=number,
        is_sent=is_sent,
        mac=mac_text(frame[6:12]),
        address=str(ipaddress.IPv4Address(message[16:20])),
        server=str(ipaddress.IPv4Address(server)) if len(server) == 4 else "",
    )


def _options(data: bytes) -> Iterable[tuple[int, bytes]]:
    place = 0
    while place + 1 < len(data) and data[place] != 255:
        if data[place] == 0:
            place += 1
            continue
        length = data[place + 1]
        yield data[place], data[place + 2 : place + 2 + length]
        place += 2 + length


def mac_text(data: bytes) -> str:
    """Six bytes as a person writes them."""
    return ":".join(f"{byte:02x}" for byte in data)
