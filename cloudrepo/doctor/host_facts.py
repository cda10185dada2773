"""What a host is asked before a class, and what it answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from cloudrepo import worker_facts
from cloudrepo.commands import sshd
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import Plan, Run, Stage, Step, StepResult
from cloudrepo.verification import ground
from cloudrepo.verification.ground import Ground
from cloudrepo.worker_facts import Question, WorkerFacts

_GROUND = "ground."


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A host's clock beside ours, in seconds: how far ahead it is, and how far off that may be."""

    ahead_s: float
    within_s: float


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What one host answered.

    Attributes:
        ip: its address.
        question: what it was asked about.
        worker: what discovery asks too.
        ground: bridge and devices; None = it did not say, or there is no bridge.
        clock: None = it did not say.
        sshd: what holds when we log in; None = it did not say.
        sshd_error: why not.
    """

    ip: str
    question: Question
    worker: WorkerFacts
    ground: Ground | None = None
    clock: Clock | None = None
    sshd: sshd.Settings | None = None
    sshd_error: str = ""


def questions(question: Question, *, account: str, address: str, port: int) -> Plan:
    """One read-only message.

    Args:
        question: about what.
        account: which we log in with.
        address: ours, as the host sees it.
        port: of its sshd.
    """
    asked = worker_facts.probe(question)
    below = tuple(replace(step, name=_GROUND + step.name) for step in ground.questions(question.installation).observe)
    login = Step(
        name="sshd", label="ask for sshd's limits", act=Run(words=sshd.effective(account, address=address, port=port))
    )
    return replace(asked, observe=(*asked.observe, *below, login))


def read(ip: str, question: Question, answers: Mapping[str, StepResult], clock: Clock | None = None) -> HostFacts:
    """What a host answered; what it did not say, or what makes no sense, is None."""
    login = answers.get("sshd")
    below = {name.removeprefix(_GROUND): step for name, step in answers.items() if name.startswith(_GROUND)}
    try:
        found = ground.read(question.bridge, below)
    except (ValueError, KeyError):
        found = None
    return HostFacts(
        ip=ip,
        question=question,
        worker=worker_facts.read(question, answers),
        ground=found,
        clock=clock,
        sshd=sshd.parse_effective(login.out) if login is not None and login.accepted else None,
        sshd_error=_last_line(login.err) if login is not None else "no answer",
    )


def clock_question(installation: str) -> Plan:
    """What time it is there; alone, so that the answer is known to be from within a short while."""
    step = Step(name="clock", label="ask for the time", act=Run(words=("date", "+%s.%N")))
    return Plan(installation=installation, stages=(Stage(name="clock", steps=(step,)),))


def read_clock(answer: StepResult | None, asked: float, answered: float) -> Clock | None:
    """A host's clock beside ours.

    Args:
        answer: to `clock_question`.
        asked: our time when it was sent, in seconds.
        answered: our time when it was there.
    """
    if answer is None or not answer.accepted or not re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,9}\n?", answer.out):
        return None
    return Clock(ahead_s=float(answer.out) - (asked + answered) / 2, within_s=(answered - asked) / 2)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""
