"""One run on the wire: every host listens, every host sends, and what came out where is brought together."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cloudrepo.errors import CloudError, HostError
from cloudrepo.gate import Gate
from cloudrepo.plan import Plan, Stage as Steps, Step
from cloudrepo.site import Site
from cloudrepo.verification import ground, sightings
from cloudrepo.verification.ground import Ground
from cloudrepo.verification.matrix import Probe, probes
from cloudrepo.verification.sightings import Heard
from cloudrepo.verification.stage import Stage
from cloudrepo.wire_acts import Emit, Heard as CollectHeard, Inject, Listen

LISTENING, SENT = "listening", "sent"  # gates
RUN_BYTES = 8
SETTLE_S, PATIENT_S = 0.3, 1.0


def survey(site: Site, hosts: Iterable[str]) -> dict[str, Ground | CloudError]:
    """What each host has, or why it does not say."""

    def ask(ip: str) -> Ground:
        answer = site.executor.run_plan(ip, ground.questions(site.installation))
        try:
            return ground.read(site.settings.network.bridge, answer.observed)
        except ValueError as error:
            raise HostError(ip, "could not be looked at", evidence=str(error), code="verify.host") from error

    found: dict[str, Ground | CloudError] = site.executor.gather({ip: functools.partial(ask, ip) for ip in hosts})
    return found


class Round:
    """All hosts listen, all hosts send, all hosts tell: one message each, with two meetings on the way.

    Attributes:
        failed: hosts that did not do their part, and why.
        settle_s: how long a host listens after the last frame.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.settle_s = SETTLE_S
        self.failed: dict[str, CloudError] = {}
        self._gates: dict[str, _Meeting] = {}

    def go(self, hosts: Sequence[str]) -> None:
        """Have these hosts do it; whoever failed before is left out."""
        hosts = [ip for ip in hosts if ip not in self.failed]
        self._gates = {name: _Meeting(hosts) for name in (LISTENING, SENT)}
        work = {ip: functools.partial(self._part, ip) for ip in hosts}
        for ip, answer in self.site.executor.gather(work).items():
            if isinstance(answer, CloudError):
                self.failed[ip] = answer
                continue
            try:
                self.take(ip, answer)
            except ValueError as error:
                self.failed[ip] = HostError(
                    ip, "said what cannot be understood", evidence=str(error), code="verify.host"
                )

    def take(self, ip: str, told: str) -> None:
        """Take in what a host heard.

        Raises:
            ValueError: it cannot be understood.
        """
        raise NotImplementedError

    def listen(self, ip: str) -> Listen:
        """Where and for what a host listens."""
        raise NotImplementedError

    def sending(self, ip: str) -> tuple[Step, ...]:
        """What a host sends."""
        raise NotImplementedError

    def plan(self, ip: str) -> Plan:
        """The message to a host."""
        listening = Step(name="listen", label="listen", act=self.listen(ip))
        collecting = Step(name="heard", label="collect", act=CollectHeard(settle_s=self.settle_s))
        return Plan(
            installation=self.site.installation,
            stages=(
                Steps(name="listen", steps=(listening,)),
                Steps(name="inject", steps=self.sending(ip), gate=LISTENING),
                Steps(name="heard", steps=(collecting,), gate=SENT),
            ),
        )

    def _part(self, ip: str) -> str:
        """What one host does, and its report."""
        gates = {name: meeting.gate for name, meeting in self._gates.items()}
        try:
            result = self.site.executor.run_plan(ip, self.plan(ip), on_event=self._arrived, gates=gates)
        except BaseException:
            self._give_up(ip)
            raise
        if result.failed is not None or result.aborted:
            self._give_up(ip)
            raise HostError(
                ip,
                f"could not {result.failed.label}" if result.failed else "the host stopped before the proof was done",
                evidence=result.failed.err if result.failed else result.aborted,
                code="verify.host",
            )
        return str(result.steps["heard"].out)

    def _arrived(self, event: Any) -> None:
        if event.kind == "gate":
            self._gates[event.name].arrive(event.host)

    def _give_up(self, ip: str) -> None:
        """A host that fails holds up no other: they meet without it."""
        for meeting in self._gates.values():
            meeting.arrive(ip)


class Run(Round):
    """Frames sent at a stage that was set.

    Attributes:
        probes: what was sent.
        heard: where it came out.
    """

    def __init__(self, site: Site, stage: Stage, grounds: Mapping[str, Ground]) -> None:
        super().__init__(site)
        self.stage = stage
        self.grounds = grounds
        self.token = os.urandom(RUN_BYTES)
        self.probes: Sequence[Probe] = probes(stage.wires, stage.around, self.token, stage.node)
        self.heard = Heard()
        self._only: Collection[int] | None = None

    def play(self, only: Collection[int] | None = None) -> None:
        """Send all of it, or once more those of these numbers; what is heard comes to what was heard before."""
        self._only = only
        self.settle_s = SETTLE_S if only is None else PATIENT_S  # who is asked once more is given more time
        self.go(list(self.grounds))

    def take(self, ip: str, told: str) -> None:
        """What a host heard comes to what was heard before."""
        sightings.read(ip, told, self.heard)

    def listen(self, ip: str) -> Listen:
        """At all places of a host."""
        places: dict[str, list[str]] = {"": []}
        for place in self.stage.places.values():
            if place.ear[0] == ip:
                places.setdefault(place.namespace, []).append(place.ear[1])
        return Listen(
            places={space: tuple(names) for space, names in places.items()},
            run=self.token.hex(),
            questions={one.transaction.hex(): one.number for one in self._mine(ip) if one.transaction},
        )

    def sending(self, ip: str) -> tuple[Step, ...]:
        """What the switch takes, and what the host sends itself."""
        mine, ports = self._mine(ip), self.grounds[ip].ports
        inject = Inject(
            bridge=self.site.settings.network.bridge,
            frames=tuple(
                (ports[one.sender.device].number, one.frame.hex()) for one in mine if one.shape.way == "switch"
            ),
        )
        emit = Emit(
            frames=tuple(
                (one.sender.namespace, one.sender.device, one.frame.hex()) for one in mine if one.shape.way == "device"
            ),
            packets=tuple((one.shape.target, one.frame.hex()) for one in mine if one.shape.way == "stack"),
        )
        return (
            Step(name="inject", label="send by the switch", act=inject),
            Step(name="emit", label="send by the host", act=emit),
        )

    def _mine(self, ip: str) -> list[Probe]:
        return [
            one for one in self.probes if one.sender.host == ip and (self._only is None or one.number in self._only)
        ]


class _Meeting:
    """A gate that opens when everybody stands at it."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self.gate = Gate()
        self._missing = set(hosts)
        self._lock = threading.Lock()

    def arrive(self, host: str) -> None:
        """One has come, or never will."""
        with self._lock:
            self._missing.discard(host)
            if not self._missing:
                self.gate.open()
