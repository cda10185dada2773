"""What was heard against what should have been. Pure.

That something was *not* heard proves nothing by itself: the sender may have sent nothing, the listener been deaf. So a
negative counts only when, in the same run, the sender was heard by somebody and the listener heard something. That
nobody answered counts only when the sender was answered by somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Literal

from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification.cast import Ear, Nic, Wire
from cloudrepo.verification.matrix import Probe
from cloudrepo.verification.outside import Outside
from cloudrepo.verification.shapes import INTRODUCTION
from cloudrepo.verification.sightings import Claim, Heard, Offer

Role = Literal["guest", "service", "stranger", "edge", "uplink"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where is listened.

    Attributes:
        ear: host and device.
        name: whose it is, in words.
        role: what it is: a guest's port, one of our services', somebody else's, a host's own way out, or an uplink of
            the bridge, by which frames only pass.
        is_fed: the switch has the device send what the listener gets; else the device receives it.
        namespace: the one that the device is in.
        slice_id: of the guest's slice, 0 = none.
    """

    ear: Ear
    name: str
    role: Role
    is_fed: bool = True
    namespace: str = ""
    slice_id: int = 0


@dataclass(kw_only=True)
class Violation:
    """One thing that is not as it should be.

    Attributes:
        sender: who sent, or whom it is about.
        kind: what.
        ear: where it was heard and must not be, or was not and must be.
        listener: whose that is, in words.
        was_heard: which of the two.
        text: what it is, for a person.
        listener_slice: the slice of the listener, 0 = none.
        number: of the probe; -1 = it is about none.
        is_reach: it is about who hears a frame, and not about what became of it.
        hop: where it breaks, once that was looked for.
        commands: what a person could type to see it.
    """

    sender: Nic
    kind: str
    ear: Ear
    listener: str
    was_heard: bool
    text: str
    listener_slice: int = 0
    number: int = -1
    is_reach: bool = False
    hop: str = ""
    commands: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def concerns(self, slice_id: int) -> bool:
        """Whether a slice is its sender's or its listener's."""
        return slice_id in (self.sender.slice_id, self.listener_slice)


@dataclass(kw_only=True)
class Result:
    """What a run has shown.

    Attributes:
        violations: what is not as it should be.
        positives: frames that were heard where they must be, answers and offers that came.
        negatives: frames that were not heard where they must not be, and could have been.
        unproven: what could not be shown, and why.
        guests: by NIC, which of `ARP` and `ping` its guest answered.
    """

    violations: list[Violation] = field(default_factory=list)
    positives: int = 0
    negatives: int = 0
    unproven: list[str] = field(default_factory=list)
    guests: dict[str, list[str]] = field(default_factory=dict)


def judge(
    probes: Sequence[Probe],
    heard: Heard,
    places: Mapping[Ear, Place],
    wires: Sequence[Wire],
    around: Outside,
    slice_id: int | None = None,
) -> Result:
    """Compare.

    Args:
        probes: what was sent.
        heard: where it came out.
        places: every place that was listened at.
        wires: who is where.
        around: what lies outside.
        slice_id: say only what concerns this slice, as sender or as listener; None = everything.
    """
    court = _Court(probes, heard, places, wires, around)
    for probe in probes:
        court.reach(probe)
        if slice_id is not None and probe.sender.slice_id != slice_id:
            continue
        court.count(probe)
        court.answer(probe)
        court.leave(probe)
        court.offer(probe)
    court.claims()
    court.silence(slice_id)
    if slice_id is not None:
        court.result.violations = [one for one in court.result.violations if one.concerns(slice_id)]
    return court.result


def missed(result: Result, probes: Sequence[Probe]) -> frozenset[int]:
    """The numbers of probes that did not come where they must, with what makes a gateway know who asks."""
    numbers = {one.number for one in result.violations if not one.was_heard and one.number >= 0}
    senders = {one.sender.ear for one in probes if one.number in numbers}
    introductions = {one.number for one in probes if one.sender.ear in senders and one.kind == INTRODUCTION}
    return frozenset(numbers | introductions) if numbers else frozenset()


class _Court:
    def __init__(
        self,
        probes: Sequence[Probe],
        heard: Heard,
        places: Mapping[Ear, Place],
        wires: Sequence[Wire],
        around: Outside,
    ) -> None:
        self.probes = probes
        self.heard = heard
        self.places = places
        self.wires = {wire.vlan: wire for wire in wires}
        self.around = around
        self.result = Result()
        self.arrived = {probe.number: self._arrived(probe) for probe in probes}
        self.audible = {one.sender.ear for one in probes if one.hearers & self.arrived[one.number]}
        self.ears_that_hear = frozenset(ear for ears in self.arrived.values() for ear in ears)
        self.answered = {one.sender.ear for one in probes if one.shape.answer and self._is_answered(one)}

    def _arrived(self, probe: Probe) -> frozenset[Ear]:
        """Where a frame came out. What a host sends by itself shows that it hears there too."""
        found = set()
        for seen in self.heard.at(probe.number):
            place = self.places.get(seen.ear)
            if place is not None and place.role != "uplink" and (place.role == "edge" or seen.is_sent == place.is_fed):
                found.add(seen.ear)
        if probe.shape.way == "switch":
            found.discard(probe.sender.ear)
        return frozenset(found)

    def _is_answered(self, probe: Probe) -> bool:
        """Whether somebody sent its note back."""
        place = self.places.get(probe.sender.ear)
        own = frame_source(probe.frame)
        return place is not None and any(
            seen.ear == probe.sender.ear and seen.is_sent == place.is_fed and seen.mac != own and not seen.is_refusal
            for seen in self.heard.at(probe.number)
        )

    # -- one probe ---------------------------------------------------------------------------------------

    def reach(self, probe: Probe) -> None:
        """Who hears it."""
        got = self.arrived[probe.number]
        for ear in sorted(probe.hearers - got):
            if ear in self.places:
                self._add(probe, ear, was_heard=False)
        for ear in sorted(got - self._welcome(probe)):
            self._add(probe, ear, was_heard=True)

    def _welcome(self, probe: Probe) -> frozenset[Ear]:
        """Where it may be heard."""
        uplink = self.around.uplink
        out = frozenset([uplink]) if probe.shape.leaves and uplink is not None else frozenset()
        return probe.hearers | probe.shape.may | out

    def count(self, probe: Probe) -> None:
        """What it has shown."""
        got = self.arrived[probe.number]
        self.result.positives += len(probe.hearers & got)
        if probe.sender.ear in self.audible or probe.shape.way != "switch":
            silent = self.ears_that_hear - self._welcome(probe) - got - {probe.sender.ear}
            self.result.negatives += len(silent)

    def answer(self, probe: Probe) -> None:
        """Whether it is answered."""
        wanted, is_answered = probe.shape.answer, self._is_answered(probe)
        if (wanted and is_answered) or (wanted is False and not is_answered and probe.sender.ear in self.answered):
            self.result.positives += bool(wanted)
            self.result.negatives += not wanted
        elif wanted and probe.hearers <= self.arrived[probe.number]:
            who = self._names(probe.hearers)
            self._say(probe, probe.kind, f"{who} does not answer {probe.sender} ({probe.kind})")
        elif wanted is False and is_answered:
            self._say(probe, probe.kind, f"{probe.sender} is answered and must not be ({probe.kind})", was_heard=True)

    def leave(self, probe: Probe) -> None:
        """How it is seen at the uplink."""
        uplink, wanted = self.around.uplink, probe.shape.leaves
        if uplink is None or not wanted or uplink not in self.places:
            return
        sources = {seen.ip for seen in self.heard.at(probe.number) if seen.ear == uplink and seen.is_sent}
        own = packet_source(probe)
        right = self.around.uplink_ip if wanted == "translated" else own
        if not sources:
            if probe.hearers <= self.arrived[probe.number]:
                self._add(probe, uplink, was_heard=False)
            return
        for source in sorted(sources):
            if source == right:
                self.result.positives += 1
            elif wanted == "translated":
                text = f"{probe.sender} leaves {uplink[1]} on {uplink[0]} as {source}, not as {right}"
                self._say(probe, "address is not translated", text, ear=uplink, was_heard=True)
            else:
                text = f"NAT is wider than VLAN 400: what {own} sends leaves {uplink[1]} on {uplink[0]} as {source}"
                self._say(probe, "NAT too wide", text, ear=uplink, was_heard=True)

    def offer(self, probe: Probe) -> None:
        """Which DHCP servers answer, and with what."""
        if not probe.shape.is_question or probe.sender.wire not in self.wires:
            return
        wire = self.wires[probe.sender.wire]
        server = wire.server
        if not wire.is_known or (server is not None and server.ear not in self.places):
            return  # the network node did not answer: nobody knows which server is ours
        offers = [one for one in self.heard.offers.get(probe.number, []) if self._is_for(one, probe)]
        ours = [one for one in offers if server is not None and one.mac == server.mac]
        for one in {each.mac: each for each in offers if each not in ours}.values():
            if not _may_serve(wire, one.mac):
                self._say(probe, "second DHCP server", self._rogue(probe, one, server), was_heard=True)
        wanted = probe.shape.offer
        if wanted is None or server is None:
            return
        if not ours:
            text = f"{server} offers {probe.sender} no address"
            self._say(probe, "no DHCP offer", text, ear=server.ear)
        for one in ours:
            if wanted in ("", one.address):
                self.result.positives += 1
                continue
            text = f"{server} offers {probe.sender} {one.address}, and its address is {wanted}"
            self._say(probe, "wrong DHCP offer", text, was_heard=True)

    def _is_for(self, offer: Offer, probe: Probe) -> bool:
        return offer.ear == probe.sender.ear and offer.is_sent

    def _rogue(self, probe: Probe, offer: Offer, server: Nic | None) -> str:
        which = "a second DHCP server" if server is not None else "a DHCP server"
        who = f"{offer.server or 'without a name'}, MAC {offer.mac}"
        return (
            f"{which} ({who}) offers {probe.sender} {offer.address} on VLAN {probe.sender.wire}{self._whose(offer.mac)}"
        )

    def _whose(self, mac: str) -> str:
        for wire in self.wires.values():
            for nic in (*wire.nics, *wire.services):
                if nic.mac == mac:
                    return f"; the MAC is that of {nic}"
        return ""

    # -- all of a run ------------------------------------------------------------------------------------

    def claims(self) -> None:
        """Whether each recorded address is answered for by its own MAC, and which guests answer at all."""
        owners = {
            (nic.wire, nic.ip): nic for wire in self.wires.values() for nic in (*wire.nics, *wire.services) if nic.ip
        }
        wires = {nic.ear: nic.wire for wire in self.wires.values() for nic in (*wire.nics, *wire.services)}
        told = set()
        for claim in sorted(self.heard.claims, key=lambda one: (one.ear, one.mac)):
            owner = owners.get((wires.get(claim.ear), claim.ip))
            place = self.places.get(claim.ear)
            if owner is None or place is None or claim.is_sent != place.is_fed:
                continue
            if claim.mac == owner.mac:
                self._answers(owner, "ARP")
            elif "spoofing" not in owner.switches and (owner.ear, claim.mac) not in told:
                told.add((owner.ear, claim.mac))
                self.result.violations.append(self._usurper(owner, claim, place))
        for probe in self.probes:
            if probe.kind.startswith("ping to ") and self._is_answered(probe):
                (guest,) = [nic for nic in self.wires[probe.sender.wire or 0].nics if nic.ear in probe.hearers]
                self._answers(guest, "ping")

    def _answers(self, nic: Nic, how: str) -> None:
        if nic.is_guest and how not in self.result.guests.setdefault(str(nic), []):
            self.result.guests[str(nic)].append(how)

    def _usurper(self, owner: Nic, claim: Claim, place: Place) -> Violation:
        text = f"{claim.mac} answers ARP for {owner.ip}, the address of {owner} ({owner.mac}); seen at {place.name}"
        return Violation(
            sender=owner,
            kind="address is claimed",
            ear=claim.ear,
            listener=place.name,
            was_heard=True,
            text=text + self._whose(claim.mac),
            listener_slice=place.slice_id,
        )

    def silence(self, slice_id: int | None) -> None:
        """What could not be shown."""
        senders = {one.sender.ear: one.sender for one in self.probes if one.hearers}
        for ear, nic in senders.items():
            if ear not in self.audible and slice_id in (None, nic.slice_id):
                self.result.unproven.append(f"{nic} was heard by nobody, so what it must not reach proves nothing")
        for ear, place in self.places.items():
            is_ours = place.role in ("guest", "service") and slice_id in (None, place.slice_id)
            if is_ours and ear not in self.ears_that_hear:
                self.result.unproven.append(f"nothing was heard at {place.name} ({ear[1]} on {ear[0]})")

    # -- words -------------------------------------------------------------------------------------------

    def _names(self, ears: Iterable[Ear]) -> str:
        return " and ".join(self.places[ear].name for ear in sorted(ears) if ear in self.places)

    def _add(self, probe: Probe, ear: Ear, *, was_heard: bool) -> None:
        place = self.places[ear]
        host, device = ear
        if was_heard:
            text = f"{probe.sender} reaches {place.name} and must not ({probe.kind}; seen at {device} on {host})"
        else:
            text = f"{probe.sender} does not reach {place.name} ({probe.kind}; nothing came out of {device} on {host})"
        self._say(probe, probe.kind, text, ear=ear, was_heard=was_heard, is_reach=True)

    def _say(
        self,
        probe: Probe,
        kind: str,
        text: str,
        *,
        ear: Ear | None = None,
        was_heard: bool = False,
        is_reach: bool = False,
    ) -> None:
        where = ear if ear is not None else probe.sender.ear
        place = self.places.get(where)
        self.result.violations.append(
            Violation(
                sender=probe.sender,
                kind=kind,
                ear=where,
                listener=place.name if place is not None else where[1],
                was_heard=was_heard,
                text=text,
                listener_slice=place.slice_id if place is not None else 0,
                number=probe.number,
                is_reach=is_reach,
            )
        )


def _may_serve(wire: Wire, mac: str) -> bool:
    """Whether a guest of this wire may serve DHCP: on a plain wire, and where a link allows to be taken for another."""
    guest = next((nic for nic in wire.nics if nic.mac == mac), None)
    return guest is not None and (wire.server is None or "spoofing" in guest.switches)


def frame_source(frame: bytes) -> str:
    """The MAC that a frame comes from."""
    return ":".join(f"{byte:02x}" for byte in frame[6:12])


def packet_source(probe: Probe) -> str:
    """The IPv4 address that a probe's packet comes from."""
    packet = probe.frame if probe.shape.way == "stack" else probe.frame[14:]
    return ".".join(str(byte) for byte in packet[12:16])
