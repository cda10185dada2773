"""The lines of a runner, which may be anything: a host is not trusted with more than its own answers.

A line that is no event of the plan that was sent is an error of that host. What a person reads of a step, its name
and its label, is what was sent, never what came back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from cloudrepo.errors import HostError
from cloudrepo.host.json_text import loads
from cloudrepo.host.message import diagnose
from cloudrepo.plan import Plan, Step, StepResult
from cloudrepo.transports import Stream

Event = dict[str, Any]

PREFIX = b'{"event":'
LINE_LIMIT = 64 * 1024**2  # bytes
LIMIT = 512 * 1024**2  # bytes of all lines of a plan
HEAD_LIMIT = 64 * 1024  # bytes of the first line of a relay
AHEAD = 2**40  # by which an operation number that a host has seen may be ahead of ours
_SHOWN = 200


class NoEvent(ValueError):
    """A line that is no event of this plan."""


def flood(host: str, what: str) -> HostError:
    """The error for a host that says too much."""
    return HostError(
        host,
        "the host says too much",
        evidence=what,
        remedy="Look at the host: no answer of ours is so long. Nothing more is read from it",
        code="host.flood",
    )


def first_line(host: str, stream: Stream, within_s: float = 15.0) -> bytes:
    """What a relay says first, to the end of the line, and what came with it.

    Raises:
        HostError: it says nothing in time, or too much.
    """
    head, words, until = b"", b"", time.monotonic() + within_s
    while b"\n" not in head:
        parts = stream.receive(1.0)
        if parts is None or time.monotonic() > until:
            raise diagnose(host, stream.status(2.0), words.decode("utf-8", "replace"))
        head, words = head + parts[0], (words + parts[1])[-HEAD_LIMIT:]
        if len(head) > HEAD_LIMIT and b"\n" not in head[:HEAD_LIMIT]:
            raise flood(host, f"a first line of more than {HEAD_LIMIT} bytes from the relay")
    return head


def nonsense(host: str, line: bytes, problem: str) -> HostError:
    """The error for a host whose runner says what none of ours does."""
    return HostError(
        host,
        "the host does not answer as our runner does",
        evidence=f"{problem}: {line[:_SHOWN].decode('utf-8', 'replace')}",
        remedy="Look at the host: something stands between, or it is not what it was",
        code="host.nonsense",
    )


class Reader:
    """Reads the lines of the runner that was sent a plan.

    Args:
        plan: what was sent.
    """

    def __init__(self, plan: Plan) -> None:
        self._operation = plan.operation
        self._steps = {step.name: step for step in plan.steps}
        self._questions = {step.name: step for step in plan.observe}
        self._gates = {stage.gate for stage in plan.stages if stage.gate}
        self._answered: set[str] = set()
        self._ended: set[str] = set()
        self._readers: Mapping[Any, Callable[[Event], Event]] = {
            "begin": self._begin,
            "end": self._end,
            "gate": self._gate,
            "done": self._done,
            "refused": self._refused,
            "crashed": lambda event: {"text": _text(event, "text")},
        }

    def read(self, line: bytes) -> Event | None:
        """The event in a line, with all keys that its kind has and no others; None for a kind that means nothing here.

        Returns:
            `begin`: `step`. `end`: `observe`, `result`. `gate`: `name`. `done`: `failed`, `aborted`.
            `refused`: `text`, `code`, and `holder`, `seen` where they were said. `crashed`: `text`.

        Raises:
            NoEvent: it is none of this plan.
        """
        try:
            event = loads(line)
        except ValueError as error:
            raise NoEvent(str(error)[:_SHOWN]) from error
        if not isinstance(event, dict):
            raise NoEvent("it is no object")
        kind = event.get("event")
        reader = self._readers.get(kind) if isinstance(kind, str) else None
        return {"event": kind, **reader(event)} if reader is not None else None

    def _begin(self, event: Event) -> Event:
        return {"step": _named(self._steps, event)}

    def _end(self, event: Event) -> Event:
        is_observed = _typed(event, "observe", bool)
        step = _named(self._questions if is_observed else self._steps, event)
        (self._answered if is_observed else self._ended).add(step.name)
        result = StepResult(
            name=step.name,
            label=step.label,
            status=_number(event, "status", -(2**31), 2**31),
            out=_text(event, "out"),
            err=_text(event, "err"),
            accepted=_typed(event, "accepted", bool),
            seconds=_seconds(event),
        )
        return {"observe": is_observed, "result": result}

    def _gate(self, event: Event) -> Event:
        name = _text(event, "name")
        if name not in self._gates:
            raise NoEvent("there is no such gate")
        return {"name": name}

    def _done(self, event: Event) -> Event:
        missing = self._questions.keys() - self._answered
        if missing:
            raise NoEvent(f"nothing was said about {sorted(missing)[0]}")
        failed = event.get("failed")
        if failed is not None and failed not in (self._ended if isinstance(failed, str) else ()):
            raise NoEvent("no such step has ended")
        return {"failed": failed, "aborted": _text(event, "aborted")}

    def _refused(self, event: Event) -> Event:
        found: Event = {"text": _text(event, "text"), "code": _text(event, "code")}
        if not found["code"].isidentifier() or not found["code"].isascii():
            raise NoEvent("it refuses for no reason")
        if "holder" in event:
            found["holder"] = event["holder"]
        if "seen" in event:
            found["seen"] = _number(event, "seen", 0, self._operation + AHEAD)
        return found


def _typed(event: Event, key: str, kind: type) -> Any:
    value = event.get(key)
    if type(value) is not kind:
        raise NoEvent(f"its {key} is none")
    return value


def _text(event: Event, key: str) -> str:
    text: str = _typed(event, key, str)
    return text


def _number(event: Event, key: str, least: int, most: int) -> int:
    number: int = _typed(event, key, int)
    if not least <= number < most:
        raise NoEvent(f"its {key} is out of bounds")
    return number


def _seconds(event: Event) -> float:
    value = event.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9 or math.isnan(value):
        raise NoEvent("its seconds are none")
    return float(value)


def _named(steps: Mapping[str, Step], event: Event) -> Step:
    step = steps.get(_text(event, "name"))
    if step is None:
        raise NoEvent("the plan has no such step")
    return step
