"""Proof on the wire of who hears whom, whom DHCP serves, and what leaves: what was seen against the records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import tap_name
from cloudrepo.state import find_slice
from cloudrepo.verification import breaks, presence, stage, verdicts
from cloudrepo.verification.cast import nics_of
from cloudrepo.verification.ground import Ground
from cloudrepo.verification.stage import Stage
from cloudrepo.verification.verdicts import Result, Violation
from control import ends, evidence, path, wire
from control.context import Context, Record

RETRIES = 3  # of what was missed: a host that is busy drops a frame, or answers late


@dataclass(kw_only=True)
class Verification:
    """What a run has shown.

    Attributes:
        result: the verdicts; of one slice, those that concern it.
        nics: how many NICs took part.
        frames: how many frames were sent.
        unreachable: hosts that did not answer, and why.
        seconds: how long it took.
        evidence: the file that holds all of it; "" = none was written.
    """

    result: Result = field(default_factory=Result)
    nics: int = 0
    frames: int = 0
    unreachable: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    evidence: str = ""

    @property
    def violations(self) -> list[Violation]:
        """What is not as it should be."""
        return self.result.violations


def verify(context: Context, slice_id: int | None = None) -> Verification:
    """Prove who hears whom, for all slices that run or for one of them among the others.

    Raises:
        RefusedError: `Slice not found`, or it does not run.
    """
    began = time.monotonic()
    context.db.refresh()
    records = [record for record in context.db.data["slices"].values() if record["status"] == "running"]
    _require_running(context, slice_id)
    proof = _Proof(context, records)
    found = proof.found(slice_id)
    found.seconds = time.monotonic() - began
    proof.keep(found)
    return found


def _require_running(context: Context, slice_id: int | None) -> None:
    if slice_id is None:
        return
    record = find_slice(context.db.data, slice_id)
    if record is None:
        raise RefusedError("Slice not found", code="slice.unknown")
    if record["status"] != "running":
        raise RefusedError(
            f"slice {slice_id} cannot be verified",
            evidence=f"it is {record['status']}, and must be running",
            remedy="Deploy it first",
            code="slice.state",
        )


class _Proof:
    """All that is looked at and tried for some records."""

    def __init__(self, context: Context, records: Sequence[Mapping[str, Any]]) -> None:
        settings = context.settings
        self.context = context
        self.node = settings.network.node
        self.nics = [nic for nic in nics_of(records, tap_name) if nic.is_held and nic.wire is not None]
        self.services = ends.services(settings, records)
        self.unreachable: dict[str, str] = {}
        self.run: wire.Run | None = None  # the last one

    def found(self, slice_id: int | None) -> Verification:
        """Look, send, judge; what went wrong is tried once more."""
        grounds = self._survey() if self.nics else {}
        setting = self._stage(grounds)
        if not grounds:
            return Verification(nics=len(self.nics), unreachable=self.unreachable)
        run = wire.Run(self.context.site, setting, grounds)
        run.play()
        result = self._judged(run, slice_id)
        for _ in range(RETRIES):
            missed = verdicts.missed(result, run.probes)
            if not missed:
                break
            run.play(missed)
            result = self._judged(run, slice_id)
            if verdicts.missed(result, run.probes) == missed:
                break
        static = self._static(grounds)
        result.violations[:0] = [one for one in static if slice_id is None or one.concerns(slice_id)]
        if result.violations:
            self._explain(result, run)
        self.run = run
        sent = sum(1 for one in run.probes if slice_id in (None, one.sender.slice_id))
        return Verification(result=result, nics=len(self.nics), frames=sent, unreachable=self.unreachable)

    def keep(self, found: Verification) -> None:
        """Write the evidence; that it cannot be written is said, and no reason to keep the verdict back."""
        if self.run is None:
            return
        run = self.run
        try:
            document = evidence.document(to_dict(found), run.stage, run.grounds, run.probes, run.heard)
            found.evidence = str(evidence.write(self.context, document))
        except CloudError as error:
            found.result.unproven.append(f"no evidence was kept: {error}")

    def _survey(self) -> dict[str, Ground]:
        """The hosts that have a part and answer."""
        hosts = dict.fromkeys(nic.host for nic in self.nics)
        places = [*hosts, *([self.node] if self.node not in hosts and self.services else [])]
        grounds = {}
        for ip, answer in wire.survey(self.context.site, places).items():
            if isinstance(answer, CloudError):
                self.unreachable[ip] = str(answer)
            else:
                grounds[ip] = answer
        return grounds

    def _stage(self, grounds: Mapping[str, Ground]) -> Stage:
        settings = self.context.settings
        return stage.build(
            self.nics,
            self.services,
            grounds,
            node=self.node,
            hosts=sorted({*self.context.db.data["workers_list"], self.node}),
            uplink=settings.network.uplink,
            cidr=settings.internet.cidr,
            denied=settings.network.deny,
        )

    def _judged(self, run: wire.Run, slice_id: int | None) -> Result:
        """What was seen so far; a host that failed meanwhile is as one that never answered."""
        for ip, error in run.failed.items():
            self.unreachable[ip] = str(error)
        sent = [probe for probe in run.probes if probe.sender.host not in run.failed]
        places = {ear: place for ear, place in run.stage.places.items() if ear[0] not in run.failed}
        return verdicts.judge(sent, run.heard, places, run.stage.wires, run.stage.around, slice_id)

    def _explain(self, result: Result, run: wire.Run) -> None:
        """Say of each violation at which hop it breaks."""
        scene = breaks.Scene(
            grounds=run.grounds,
            wires=run.stage.wires,
            places=run.stage.places,
            probes={one.number: one for one in run.probes},
            heard=run.heard,
            installation=self.context.site.installation,
        )
        ways = breaks.ways(scene, result.violations)
        questions = [question for way in ways.values() for question in way.questions()]
        breaks.explain(scene, result.violations, ways, path.ask(self.context.site, questions))

    def _static(self, grounds: Mapping[str, Ground]) -> list[Violation]:
        """What needs no frame to be seen."""
        node = grounds.get(self.node)
        return [
            *presence.missing_nics(self.nics, grounds),
            *(presence.missing_services(self.services, self.node, node) if node is not None else ()),
            *presence.wrong_machines(self.nics, grounds),
            *presence.doubles(self.nics, grounds),
        ]


def to_dict(found: Verification) -> Record:
    """As JSON has it."""
    return {
        "schema_version": 1,
        "nics": found.nics,
        "frames": found.frames,
        "heard": found.result.positives,
        "not_heard": found.result.negatives,
        "violations": [
            {
                "sender": str(one.sender),
                "slice_id": one.sender.slice_id,
                "kind": one.kind,
                "listener": one.listener,
                "host": one.ear[0],
                "device": one.ear[1],
                "heard": one.was_heard,
                "reach": one.is_reach,
                "hop": one.hop,
                "commands": list(one.commands),
                "text": str(one),
            }
            for one in found.violations
        ],
        "unproven": found.result.unproven,
        "guests": found.result.guests,
        "unreachable": found.unreachable,
        "seconds": round(found.seconds, 3),
        "evidence": found.evidence,
    }
