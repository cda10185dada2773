"""Proof on the wire: every host listens, every host injects, and what came out where is compared with the records."""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudrepo.allocation import internet_gateway
from cloudrepo.errors import CloudError, HostError, RefusedError
from cloudrepo.gate import Gate
from cloudrepo.naming import INTERNET_VLAN, gateway_port, tap_name
from cloudrepo.plan import Heard, Inject, Listen, Plan, PlanResult, ReadFile, Run, Stage, Step
from cloudrepo.state import find_slice
from cloudrepo.verification import verdicts
from cloudrepo.verification.matrix import Ear, Nic, Probe, nics_of, probes
from cloudrepo.verification.verdicts import Result, Violation
from control.context import Context, Record

LISTENING, SENT = "listening", "sent"  # gates
RUN_BYTES = 8


@dataclass(kw_only=True)
class Verification:
    """What a run has shown.

    Attributes:
        result: the verdicts; of one slice, those on what its own NICs send.
        nics: how many NICs took part.
        frames: how many frames were sent.
        unreachable: hosts that did not answer, and why.
        seconds: how long it took.
    """

    result: Result
    nics: int = 0
    frames: int = 0
    unreachable: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def violations(self) -> list[Violation]:
        """Pairs that are not as they should be."""
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
    nics = [nic for nic in nics_of(records, tap_name) if nic.is_held]
    run = _Run(context, nics)
    heard = run.hear()
    sent = [probe for probe in run.sent if slice_id in (None, probe.sender.slice_id)]
    result = verdicts.judge(sent, heard, run.ears)
    return Verification(
        result=result,
        nics=len(nics),
        frames=len(sent),
        unreachable=run.unreachable,
        seconds=time.monotonic() - began,
    )


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


class _Run:
    """One run over all hosts."""

    def __init__(self, context: Context, nics: Sequence[Nic]) -> None:
        self.context = context
        self.nics = nics
        self.token = os.urandom(RUN_BYTES)
        self.unreachable: dict[str, str] = {}
        self.sent: list[Probe] = []
        self.ears: dict[Ear, str] = {}
        self._gates = {name: _Meeting() for name in (LISTENING, SENT)}

    def hear(self) -> dict[int, set[Ear]]:
        """Send everything; by a probe's number, where it came out."""
        hosts = dict.fromkeys(nic.host for nic in self.nics)
        node = self.context.settings.network.node
        is_online = any(nic.wire == INTERNET_VLAN for nic in self.nics)
        places = list(hosts) + ([node] if is_online and node not in hosts else [])
        numbers = self._ask(places)
        gateway = self._gateway(node) if is_online and node in numbers else None
        present = [nic for nic in self.nics if nic.host in numbers and nic.device in numbers[nic.host]]
        self.ears = {nic.ear: str(nic) for nic in present}
        if gateway is not None:
            self.ears[gateway.ear] = str(gateway)
        self.sent = probes(present, gateway, self.token)
        for gate in self._gates.values():
            gate.expect(numbers)
        work = {ip: functools.partial(self._send, ip, numbers[ip]) for ip in numbers}
        heard: dict[int, set[Ear]] = {}
        for ip, answer in self.context.site.executor.gather(work).items():
            if isinstance(answer, CloudError):
                self.unreachable[ip] = str(answer)
                continue
            for device, number in answer:
                heard.setdefault(number, set()).add((ip, device))
        return heard

    def _ask(self, places: Sequence[str]) -> dict[str, dict[str, int]]:
        """By host that answers, the numbers of its bridge's ports."""
        words = ("ovs-vsctl", "--timeout=10", "-f", "json", "--columns=name,ofport", "list", "Interface")
        plan = Plan(
            installation=self.context.site.installation,
            observe=(Step(name="ports", label="look at ports", act=Run(words=words)),),
        )
        executor = self.context.site.executor
        found = executor.gather({ip: functools.partial(executor.run_plan, ip, plan) for ip in places})
        numbers: dict[str, dict[str, int]] = {}
        for ip, answer in found.items():
            if isinstance(answer, CloudError):
                self.unreachable[ip] = str(answer)
            else:
                numbers[ip] = _ports(ip, answer)
        return numbers

    def _gateway(self, node: str) -> Nic | None:
        device = gateway_port(INTERNET_VLAN)
        path = f"/sys/class/net/{device}/address"
        plan = Plan(
            installation=self.context.site.installation,
            observe=(Step(name="mac", label="look at the gateway", act=ReadFile(path=path)),),
        )
        mac = self.context.site.executor.run_plan(node, plan).observed["mac"].out.strip()
        ip = internet_gateway(self.context.settings.internet.cidr)
        if not mac:
            return None
        return Nic(
            slice_id=0,
            vm_id=0,
            vm=f"the gateway of VLAN {INTERNET_VLAN}",
            interface=device,
            host=node,
            device=device,
            wire=INTERNET_VLAN,
            mac=mac,
            ip=ip,
            is_guest=False,
        )

    def _send(self, ip: str, numbers: Mapping[str, int]) -> list[tuple[str, int]]:
        frames = tuple(
            (numbers[probe.sender.device], probe.frame.hex()) for probe in self.sent if probe.sender.host == ip
        )
        here = [device for host, device in self.ears if host == ip]
        gateway = gateway_port(INTERNET_VLAN)
        listen = Listen(
            outgoing=tuple(one for one in here if one != gateway),
            incoming=tuple(one for one in here if one == gateway),
            run=self.token.hex(),
        )
        inject = Inject(bridge=self.context.settings.network.bridge, frames=frames)
        plan = Plan(
            installation=self.context.site.installation,
            stages=(
                Stage(name="listen", steps=(Step(name="listen", label="listen", act=listen),)),
                Stage(name="inject", steps=(Step(name="inject", label="send", act=inject),), gate=LISTENING),
                Stage(name="heard", steps=(Step(name="heard", label="collect", act=Heard()),), gate=SENT),
            ),
        )
        gates = {name: meeting.gate for name, meeting in self._gates.items()}
        try:
            result = self.context.site.executor.run_plan(ip, plan, on_event=self._arrived, gates=gates)
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
        return [(str(device), int(number)) for device, number in json.loads(result.steps["heard"].out)]

    def _arrived(self, event: Any) -> None:
        if event.kind == "gate":
            self._gates[event.name].arrive(event.host)

    def _give_up(self, ip: str) -> None:
        """A host that fails holds up no other: they meet without it."""
        for meeting in self._gates.values():
            meeting.arrive(ip)


class _Meeting:
    """A gate that opens when everybody stands at it."""

    def __init__(self) -> None:
        self.gate = Gate()
        self._missing: set[str] = set()
        self._lock = threading.Lock()

    def expect(self, hosts: Iterable[str]) -> None:
        """These will come."""
        self._missing = set(hosts)

    def arrive(self, host: str) -> None:
        """One has come, or never will."""
        with self._lock:
            self._missing.discard(host)
            if not self._missing:
                self.gate.open()


def _ports(ip: str, answer: PlanResult) -> dict[str, int]:
    step = answer.observed["ports"]
    if not step.accepted:
        raise HostError(ip, "could not look at the bridge's ports", evidence=step.err, code="verify.host")
    rows: list[list[Any]] = json.loads(step.out)["data"]
    return {str(name): number for name, number in rows if isinstance(number, int) and number > 0}


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
                "text": str(one),
            }
            for one in found.violations
        ],
        "unproven": found.result.unproven,
        "unreachable": found.unreachable,
        "seconds": round(found.seconds, 3),
    }
