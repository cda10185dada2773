"""What was heard against what should have been. Pure.

That something was *not* heard proves nothing by itself: the sender may have sent nothing, the listener been deaf. So a
negative counts only when, in the same run, the sender was heard by somebody and the listener heard something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cloudrepo.verification.matrix import Ear, Nic, Probe


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One pair that is not as it should be.

    Attributes:
        sender: who sent.
        kind: what.
        ear: where it was heard and must not be, or was not and must be.
        listener: whose that is, in words.
        was_heard: which of the two.
    """

    sender: Nic
    kind: str
    ear: Ear
    listener: str
    was_heard: bool

    def __str__(self) -> str:
        device, host = self.ear[1], self.ear[0]
        if self.was_heard:
            return f"{self.sender} reaches {self.listener} and must not ({self.kind}; seen at {device} on {host})"
        return f"{self.sender} does not reach {self.listener} ({self.kind}; nothing came out of {device} on {host})"


@dataclass(kw_only=True)
class Result:
    """What a run has shown.

    Attributes:
        violations: pairs that are not as they should be.
        positives: frames that were heard where they must be.
        negatives: frames that were not heard where they must not be, and could have been.
        unproven: what could not be shown, and why.
    """

    violations: list[Violation] = field(default_factory=list)
    positives: int = 0
    negatives: int = 0
    unproven: list[str] = field(default_factory=list)


def judge(probes: Iterable[Probe], heard: Mapping[int, set[Ear]], ears: Mapping[Ear, str]) -> Result:
    """Compare.

    Args:
        probes: what was sent.
        heard: by a probe's number, where it came out.
        ears: every place that was listened at, with the name of whose it is.
    """
    probes = list(probes)
    result = Result()
    audible = {probe.sender.ear for probe in probes if probe.hearers & heard.get(probe.number, set())}
    awake = {ear for probe in probes for ear in heard.get(probe.number, set())}
    for probe in probes:
        got = heard.get(probe.number, set()) - {probe.sender.ear}
        for ear in sorted(probe.hearers):
            if ear not in ears:
                continue
            if ear in got:
                result.positives += 1
            else:
                result.violations.append(_violation(probe, ear, ears, was_heard=False))
        for ear in sorted(got - probe.hearers):
            result.violations.append(_violation(probe, ear, ears, was_heard=True))
        if probe.sender.ear in audible:
            result.negatives += sum(1 for ear in awake - probe.hearers - got if ear != probe.sender.ear)
    silent = {str(probe.sender): probe.sender for probe in probes if probe.sender.ear not in audible}
    result.unproven += [f"{name} was heard by nobody, so what it must not reach proves nothing" for name in silent]
    deaf = [ear for ear in ears if ear not in awake]
    result.unproven += [f"nothing was heard at {ears[ear]} ({ear[1]} on {ear[0]})" for ear in deaf]
    return result


def _violation(probe: Probe, ear: Ear, ears: Mapping[Ear, str], *, was_heard: bool) -> Violation:
    return Violation(sender=probe.sender, kind=probe.kind, ear=ear, listener=ears.get(ear, ear[1]), was_heard=was_heard)
