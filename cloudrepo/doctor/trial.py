"""Tagged frames between all hosts: which are sent, and which were heard. Pure.

They leave by the uplinks of the hosts' bridges and are heard at the uplinks of the others, so what lies between is
tried and nothing else. A guest that hears one hears a broadcast of an EtherType that nobody listens to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from enum import IntEnum

from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification import frames, sightings
from cloudrepo.verification.sightings import Offer

FULL_SIZE = 1500  # bytes that a guest's frame may carry
#: As bridges' own frames cross the switches: see `isolation.CARRIED`. What switches keep for themselves is not sent.
CARRIED = "03:43:52:00:00:00"
MIDDLE = 3  # VLANs that whole frames and control frames are tried in
TAG = frames.VLAN.to_bytes(2, "big")


class Kind(IntEnum):
    """What is sent in a VLAN."""

    SMALL = 1
    FULL = 2
    CONTROL = 3
    DHCP = 4


@dataclass(frozen=True, kw_only=True)
class Uplink:
    """A device of a host that leads to the others."""

    host: str
    device: str
    mac: str
    mtu: int


@dataclass(frozen=True, order=True)
class Sent:
    """A frame: what, by which host, in which VLAN."""

    kind: Kind
    host: str
    vlan: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is sent.

    Attributes:
        run: eight bytes that no other run has.
        uplinks: of all hosts that take part.
        vlans: those tried.
        quiet: those of them in which guests are, or may be: no other than small frames go there.
        asked: those of them in which DHCP servers are asked for.
    """

    run: bytes
    uplinks: tuple[Uplink, ...]
    vlans: tuple[int, ...]
    quiet: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Who takes part."""
        return tuple(dict.fromkeys(uplink.host for uplink in self.uplinks))

    @property
    def middle(self) -> tuple[int, ...]:
        """VLANs that whole frames and control frames are tried in: far apart, so that not all of them are dropped."""
        free = [vlan for vlan in self.vlans if vlan not in self.quiet] or list(self.vlans)
        return tuple(dict.fromkeys(free[at * (len(free) - 1) // max(1, MIDDLE - 1)] for at in range(MIDDLE)))

    def devices(self, host: str) -> tuple[str, ...]:
        """The uplinks of a host."""
        return tuple(uplink.device for uplink in self.uplinks if uplink.host == host)

    def takes_whole(self, host: str) -> bool:
        """Whether a host's own devices let frames of full size through."""
        return all(uplink.mtu >= FULL_SIZE for uplink in self.uplinks if uplink.host == host)

    def sent(self, host: str) -> Iterator[Sent]:
        """What a host sends. Two of them ask for DHCP servers, so that one behind either's own bridge is found."""
        yield from (Sent(Kind.SMALL, host, vlan) for vlan in self.vlans)
        for vlan in self.middle:
            yield Sent(Kind.CONTROL, host, vlan)
            if self.takes_whole(host):
                yield Sent(Kind.FULL, host, vlan)
        if host in self.hosts[:2]:
            yield from (Sent(Kind.DHCP, host, vlan) for vlan in self.vlans if vlan in self.asked)

    def number(self, sent: Sent) -> int:
        """By which a frame is known: four bytes."""
        return sent.kind << 24 | self.hosts.index(sent.host) << 12 | sent.vlan

    def what(self, number: int) -> Sent | None:
        """The inverse of `number`; None for what is none of ours."""
        at, kind = number >> 12 & 0xFFF, number >> 24
        return Sent(Kind(kind), self.hosts[at], number & 0xFFF) if kind in list(Kind) and at < len(self.hosts) else None

    def frames(self, host: str, only: Iterable[Sent] | None = None) -> Iterator[tuple[str, bytes]]:
        """Device and frame, of all that a host sends or of some of it."""
        chosen = list(self.sent(host)) if only is None else [one for one in only if one.host == host]
        for uplink in self.uplinks:
            if uplink.host == host:
                yield from ((uplink.device, self._frame(uplink.mac, one)) for one in chosen)

    def transaction(self, sent: Sent) -> bytes:
        """Of a DHCP question: four bytes by which its answers are known."""
        number = self.number(sent) ^ int.from_bytes(self.run[:4], "big")
        return number.to_bytes(4, "big")

    def questions(self) -> dict[str, int]:
        """The DHCP questions that are on their way, by transaction; every host hears the answers to all."""
        return {
            self.transaction(one).hex(): self.number(one)
            for asking in self.hosts
            for one in self.sent(asking)
            if one.kind is Kind.DHCP
        }

    def _frame(self, mac: str, sent: Sent) -> bytes:
        mark = self.run + self.number(sent).to_bytes(4, "big")
        if sent.kind is Kind.DHCP:
            return frames.dhcp_question(mac, self.transaction(sent), mark, tag=sent.vlan)
        to = CARRIED if sent.kind is Kind.CONTROL else frames.BROADCAST
        payload = mark.ljust(FULL_SIZE, b"\0") if sent.kind is Kind.FULL else mark
        return frames.ethernet(to, mac, frames.EXPERIMENTAL, payload, tag=sent.vlan)


@dataclass(kw_only=True)
class Heard:
    """What came out where.

    Attributes:
        tagged: frames that a host heard as they were sent.
        changed: frames that a host heard in another VLAN, or in none.
        offers: by VLAN, answers of DHCP servers.
    """

    tagged: set[tuple[Sent, str]] = field(default_factory=set)
    changed: set[tuple[Sent, str]] = field(default_factory=set)
    offers: dict[int, list[Offer]] = field(default_factory=dict)


def read(trial: Trial, host: str, told: str, heard: Heard) -> None:
    """Take in what a host says that it heard (`wire_acts.Heard`).

    Raises:
        ValueError: it cannot be understood.
    """
    try:
        found: Mapping[str, list[list[object]]] = json_text.loads(told)
        for _device, number, is_sent, text in found["heard"]:
            sent = trial.what(int(str(number)))
            if sent is None or sent.host == host or is_sent:
                continue
            frame = bytes.fromhex(str(text))
            is_same = frame[12:14] == TAG and int.from_bytes(frame[14:16], "big") & 0xFFF == sent.vlan
            (heard.tagged if is_same else heard.changed).add((sent, host))
    except json_text.NOT_UNDERSTOOD as error:
        raise ValueError(f"what it heard is no list of frames: {error!r}") from error
    seen = sightings.Heard()
    sightings.read(host, told, seen)
    for number, offers in seen.offers.items():
        sent = trial.what(number)
        if sent is not None and sent.kind is Kind.DHCP:
            heard.offers.setdefault(sent.vlan, []).extend(one for one in offers if not one.is_sent)


def missed(trial: Trial, heard: Heard) -> list[tuple[Sent, str]]:
    """What a host should have heard and did not; DHCP questions have nobody who must hear them."""
    return [
        (sent, host)
        for sender in trial.hosts
        for sent in trial.sent(sender)
        if sent.kind is not Kind.DHCP
        for host in trial.hosts
        if host != sender
        and (sent, host) not in heard.tagged
        and (sent.kind is not Kind.FULL or trial.takes_whole(host))
    ]
