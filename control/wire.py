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
PATIENT_S = 1.0


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


class Run:
    """Frames sent at a stage that was set.

    Attributes:
        probes: what was sent.
        heard: where it came out.
        failed: hosts that did not do their part, and why.
    """

    def __init__(self, site: Site, stage: Stage, grounds: Mapping[str, Ground]) -> None:
        self.site = site
        self.stage = stage
        self.grounds = grounds
        self.token = os.urandom(RUN_BYTES)
        self.probes: Sequence[Probe] = probes(stage.wires, stage.around, self.token, stage.node)
        self.heard = Heard()
        self.failed: dict[str, CloudError] = {}
        self._gates: dict[str, _Meeting] = {}
        self._only: Collection[int] | None = None

    def play(self, only: Collection[int] | None = None) -> None:
        """Send all of it, or once more those of these numbers; what is heard comes to what was heard before."""
        hosts = [ip for ip in self.grounds if ip not in self.failed]
        self._only = only
        self._gates = {name: _Meeting(hosts) for name in (LISTENING, SENT)}
        work = {ip: functools.partial(self._part, ip) for ip in hosts}
        for ip, answer in self.site.executor.gather(work).items():
            if isinstance(answer, CloudError):
                self.failed[ip] = answer
                continue
            try:
                sightings.read(ip, answer, self.heard)
            except ValueError as error:
                self.failed[ip] = HostError(
                    ip, "said what cannot be understood", evidence=str(error), code="verify.host"
                )

    def _part(self, ip: str) -> str:
        """What one host does, and its report."""
        gates = {name: meeting.gate for name, meeting in self._gates.items()}
        try:
            result = self.site.executor.run_plan(ip, self._plan(ip), on_event=self._arrived, gates=gates)
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

    def _plan(self, ip: str) -> Plan:
        only = self._only
        mine = [one for one in self.probes if one.sender.host == ip and (only is None or one.number in only)]
        places: dict[str, list[str]] = {"": []}
        for place in self.stage.places.values():
            if place.ear[0] == ip:
                places.setdefault(place.namespace, []).append(place.ear[1])
        listen = Listen(
            places={space: tuple(names) for space, names in places.items()},
            run=self.token.hex(),
            questions={one.transaction.hex(): one.number for one in self.probes if one.transaction},
        )
        ports = self.grounds[ip].ports
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
        sending = (
            Step(name="inject", label="send by the switch", act=inject),
            Step(name="emit", label="send by the host", act=emit),
        )
        return Plan(
            installation=self.site.installation,
            stages=(
                Steps(name="listen", steps=(Step(name="listen", label="listen", act=listen),)),
                Steps(name="inject", steps=sending, gate=LISTENING),
                Steps(name="heard", steps=(Step(name="heard", label="collect", act=self._collect()),), gate=SENT),
            ),
        )

    def _collect(self) -> CollectHeard:
        """Who is asked once more is given more time."""
        return CollectHeard() if self._only is None else CollectHeard(settle_s=PATIENT_S)

    def _arrived(self, event: Any) -> None:
        if event.kind == "gate":
            self._gates[event.name].arrive(event.host)

    def _give_up(self, ip: str) -> None:
        """A host that fails holds up no other: they meet without it."""
        for meeting in self._gates.values():
            meeting.arrive(ip)


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
