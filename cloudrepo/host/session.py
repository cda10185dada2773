"""One plan on its way to one host: sends the message, beats, follows the events, opens the gates."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from cloudrepo.errors import HostError, HostUnreachable, MessageRefused
from cloudrepo.gate import Gate
from cloudrepo.host import events
from cloudrepo.host.idle import IdleRunners
from cloudrepo.host.message import diagnose, encode, encode_next
from cloudrepo.plan import Plan, PlanResult, StepEvent, StepResult
from cloudrepo.transports import Stream, Transport

OnEvent = Callable[[StepEvent], None]
STOP_LOOK_S = 0.1  # how often a wish to stop is looked at
NOISE_LIMIT = 4000


class PlanSession:
    """Follows one plan until its last line.

    Args:
        transport: reaches the host.
        host: its address.
        plan: what is done there.
        on_event: called for each event, in the thread that runs the plan.
        gates: by name; every gate of the plan must be among them.
        stop: when set, no further step is begun.
        runners: where a waiting runner comes from and goes to; None = one for this plan alone.
    """

    def __init__(
        self,
        transport: Transport,
        host: str,
        plan: Plan,
        *,
        on_event: OnEvent | None = None,
        gates: Mapping[str, Gate] | None = None,
        stop: threading.Event | None = None,
        runners: IdleRunners | None = None,
    ) -> None:
        self.host = host
        self.plan = plan
        self._transport = transport
        self._on_event = on_event or (lambda event: None)
        self._gates = gates or {}
        self._stop = stop
        self._stop_sent = False
        self._runners = runners
        self._is_over = False
        self._sending = threading.Lock()
        self._reader = events.Reader(plan)
        self._noise = ""
        self._words = ""
        self._rest: list[bytes] = []  # pieces of a line that has not ended: a line may have many megabytes
        self._rest_size = self._size = 0
        self._steps: dict[str, StepResult] = {}
        self._observed: dict[str, StepResult] = {}
        self._done: dict[str, Any] | None = None
        missing = {stage.gate for stage in plan.stages if stage.gate} - set(self._gates)
        if missing:
            raise ValueError(f"the plan waits at gates that nobody opens: {', '.join(sorted(missing))}")

    def run(self) -> PlanResult:
        """Run the plan to its end.

        Raises:
            HostUnreachable: no connection, or it was lost; `details["ended"]` then names the steps that ended.
            MessageRefused: the host did not take the message; nothing was changed.
            HostError: the host cannot run messages at all: no python3, no sudo, a broken runner.
        """
        stream = self._begin()
        try:
            done = self._follow(stream)
        except BaseException:
            self._leave(stream, keep=False)
            raise
        self._leave(stream, keep=True)
        failed = done["failed"]
        return PlanResult(
            host=self.host,
            steps=self._steps,
            observed=self._observed,
            failed=self._steps[failed] if failed else None,
            aborted=done["aborted"],
        )

    def _begin(self) -> Stream:
        """Send the plan to a runner that waits, else with a runner of its own."""
        argument = {**self.plan.to_json(), "environment": self._transport.environment(self.host)}
        waiting = self._runners.take(self.host) if self._runners else None
        if waiting is not None:
            try:
                waiting.send(encode_next(argument))
                return waiting
            except OSError:
                waiting.close()  # a message that was cut does nothing
        return self._transport.open_message(
            self.host, encode("runner", argument, has_helper=self._transport.has_helper)
        )

    def _leave(self, stream: Stream, *, keep: bool) -> None:
        """Say nothing more on the stream: the next thing that its runner reads is another plan's."""
        with self._sending:
            self._is_over = True
        if keep and self._runners is not None:
            self._runners.give(self.host, stream)
        else:
            stream.close()

    def _follow(self, stream: Stream) -> dict[str, Any]:
        """Until the last event, which is returned."""
        beat_s = min(5.0, self.plan.lease_s / 3)
        next_beat = time.monotonic() + beat_s
        while self._done is None:
            wait_s = max(0.0, next_beat - time.monotonic())
            parts = stream.receive(min(wait_s, STOP_LOOK_S) if self._stop and not self._stop_sent else wait_s)
            if parts is None:
                self._fail(stream)
            self._words = (self._words + parts[1].decode("utf-8", "replace"))[-NOISE_LIMIT:]
            self._read(parts[0], stream)
            if self._stop and self._stop.is_set() and not self._stop_sent:
                self._stop_sent = True
                self._say(stream, "stop")
            if time.monotonic() >= next_beat:
                self._say(stream, "beat")
                next_beat = time.monotonic() + beat_s
        return self._done

    def _read(self, data: bytes, stream: Stream) -> None:
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
            self._rest_size = 0
        if rest:
            self._rest.append(rest)
        self._rest_size += len(rest)
        self._size += len(data)
        if self._rest_size > events.LINE_LIMIT or self._size > events.LIMIT:
            raise events.flood(self.host, f"a line of {self._rest_size} bytes, {self._size} bytes in all")
        for line in lines:
            event = self._event(line)
            if event is not None:
                self._take(event, stream)

    def _event(self, line: bytes) -> dict[str, Any] | None:
        """The event in a line; a login shell's greeting is no event and is kept for an error's evidence."""
        if line.startswith(events.PREFIX):
            try:
                return self._reader.read(line)
            except events.NoEvent as error:
                raise events.nonsense(self.host, line, str(error)) from error
        self._noise = (self._noise + line.decode("utf-8", "replace") + "\n")[-NOISE_LIMIT:]
        return None

    def _take(self, event: dict[str, Any], stream: Stream) -> None:
        kind = event["event"]
        if kind == "begin":
            step = event["step"]
            self._on_event(StepEvent(host=self.host, kind="begin", name=step.name, label=step.label))
        elif kind == "end":
            self._take_end(event)
        elif kind == "gate":
            name = event["name"]
            self._on_event(StepEvent(host=self.host, kind="gate", name=name))
            self._gates[name].when_decided(lambda gate: self._pass(stream, name, gate))
        elif kind == "done":
            self._done = event
        elif kind == "refused":
            raise MessageRefused(
                self.host,
                "the host did not take the message; nothing was changed there",
                evidence=event["text"],
                remedy=_REMEDIES.get(event["code"], "look at the host and try again").format(host=self.host),
                code=f"host.refused.{event['code']}",
                details={key: event[key] for key in ("holder", "seen") if key in event},
            )
        elif kind == "crashed":
            raise HostError(
                self.host,
                "the runner failed on the host",
                evidence=event["text"],
                code="host.runner",
                details={"ended": sorted(self._steps)},
            )

    def _take_end(self, event: dict[str, Any]) -> None:
        result: StepResult = event["result"]
        if event["observe"]:
            self._observed[result.name] = result
            return
        self._steps[result.name] = result
        self._on_event(
            StepEvent(
                host=self.host,
                kind="end",
                name=result.name,
                label=result.label,
                status=result.status,
                accepted=result.accepted,
                seconds=result.seconds,
            )
        )

    def _pass(self, stream: Stream, name: str, gate: Gate) -> None:
        self._say(stream, f"open {name}" if gate.is_open else f"close {name} {' '.join(gate.reason.split())}")

    def _say(self, stream: Stream, line: str) -> None:
        with self._sending:
            if self._is_over:
                return
            try:
                stream.send(line.encode() + b"\n")
            except OSError:
                pass  # the end of the stream, met next, tells what happened

    def _fail(self, stream: Stream) -> NoReturn:
        if not self._steps and not self._observed:
            noise = self._noise + b"".join(self._rest).decode("utf-8", "replace")
            raise diagnose(self.host, stream.status(2.0), self._words, noise)
        raise HostUnreachable(
            self.host,
            "the connection was lost while the plan ran",
            evidence=self._words.strip()[-500:],
            remedy="look at the host again: the runner there stops before its next step",
            code="host.lost",
            details={"ended": [name for name in self._steps]},
        )


_REMEDIES = {
    "lock": "wait until the other operation has ended, then try again",
    "operation": "a newer operation was here: look at the state again",
    "changed": "look at the host again",
    "fence": "remove the damaged file on the host after a look at it",
    "version": "run `./cloud worker harden {host}` again, which installs the orchestrator's",
    "unprepared": "run `./cloud worker harden {host}`, which prepares the host for this installation",
    "grammar": "if a setting has changed since (network.bridge, network.uplink, images.base_dir, qemu.user, vlan, "
    "internet.cidr), run `./cloud worker harden {host}` again; else this is a fault of ours: please report it",
    "plan": "the orchestrator is newer than the message it sent: start it again",
}
