"""`./cloud doctor --fix`: sets right what is ours to set right and can be undone; the rest keeps its remedy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cloudrepo.commands import bridging
from cloudrepo.doctor.findings import Finding
from cloudrepo.doctor.host_facts import HostFacts
from cloudrepo.doctor.trial import FULL_SIZE
from cloudrepo.errors import CloudError, StepFailed
from cloudrepo.hosts import run_fenced
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import SHARED
from cloudrepo.plan import Plan, Run, Stage, Step
from control import host_doctor, host_proofs
from control.context import Context
from control.host_images import WantedImage

ROUNDS = 3  # a bridge, then its uplink, then what the uplink lacks

Agreed = Collection[Mapping[str, str]]  # as `fixes` lists them: `host` and `text`


@dataclass(frozen=True, kw_only=True)
class Fix:
    """One thing that would be set right.

    Attributes:
        host: where.
        text: what is to be done, such as `switch eth1 on`.
        said: the same when it is done.
        about: what it mends: where one part of that fails, the rest is not tried.
        do: does it; a `CloudError` when it could not be done.
    """

    host: str
    text: str
    said: str
    about: Finding
    do: Callable[[], object]

    def to_dict(self) -> dict[str, str]:
        """As the façade lists it."""
        return {"host": self.host, "text": self.text}


def look(context: Context, only: Collection[str] = (), wanted: Collection[int] = ()) -> dict[str, Any]:
    """Look, and say what `mend` would do about it: the report as the façade answers it, and `fixes`."""
    return _answer(context, host_doctor.look(context, only, wanted))


def mend(
    context: Context, only: Collection[str] = (), wanted: Collection[int] = (), agreed: Agreed | None = None
) -> dict[str, Any]:
    """Look, set right, and look again until nothing more can be set right.

    Args:
        context: the installation.
        only: what concerns these hosts; empty = all.
        wanted: VLANs that frames are sent in at the end; empty = a choice.
        agreed: nothing but these of the `fixes` of an earlier look; None = whatever is found.

    Returns:
        A last look as `look` answers it, and `changed` and `failed`: lists of `host` and `text`.
    """
    work = _Mending(context, agreed)
    for _ in range(ROUNDS):
        if not work.run(host_doctor.look(context, only, are_joined=False)):
            break
    return {**look(context, only, wanted), "changed": work.changed, "failed": work.failed}


def _answer(context: Context, report: host_doctor.Report) -> dict[str, Any]:
    return {**report.to_dict(), "fixes": [fix.to_dict() for ip in report.facts for fix in _fixes(context, ip, report)]}


class _Mending:
    """What was done so far: nothing is tried twice."""

    def __init__(self, context: Context, agreed: Agreed | None) -> None:
        self.context = context
        self.agreed = None if agreed is None else {(one["host"], one["text"]) for one in agreed}
        self.changed: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []
        self._tried: set[tuple[str, str]] = set()

    def run(self, report: host_doctor.Report) -> bool:
        """Set right what a look found, on all hosts at once; whether anything was."""
        before = len(self.changed)
        work = {ip: functools.partial(self._host, ip, report) for ip in report.facts}
        for ip, answer in self.context.site.executor.gather(work).items():
            said, trouble = answer if not isinstance(answer, CloudError) else ([], [str(answer)])
            self.changed += [{"host": ip, "text": text} for text in said]
            self.failed += [{"host": ip, "text": text} for text in trouble]
        return len(self.changed) > before

    def _host(self, ip: str, report: host_doctor.Report) -> tuple[list[str], list[str]]:
        """What was set right on a host, and what could not be."""
        said: list[str] = []
        trouble: dict[Finding, str] = {}
        for fix in _fixes(self.context, ip, report):
            known = (fix.host, fix.text)
            is_agreed = self.agreed is None or known in self.agreed
            if not is_agreed or known in self._tried or fix.about in trouble:
                continue
            self._tried.add(known)
            try:
                fix.do()
            except CloudError as error:
                trouble[fix.about] = str(error)
            else:
                said.append(fix.said)
        return said, list(trouble.values())


def _fixes(context: Context, ip: str, report: host_doctor.Report) -> Iterator[Fix]:
    """What may be done about the findings of one host, in this order."""
    for finding in report.findings:
        if finding.hosts == (ip,):
            for text, said, do in _about(context, ip, report, finding):
                yield Fix(host=ip, text=text, said=said, about=finding, do=do)


_Doing = tuple[str, str, Callable[[], object]]


def _about(context: Context, ip: str, report: host_doctor.Report, finding: Finding) -> Iterator[_Doing]:
    """What may be done about a finding; nothing where it is somebody else's."""
    facts, known = report.facts[ip], context.db.data["workers"].get(ip) or {}
    bridge = facts.question.bridge
    uplinks = [str(name) for name in known.get("uplinks") or ()]
    if finding.code == "hosts.bridge":
        datapath = str(known.get("datapath") or _usual_datapath(context))
        what = f"{bridge} ({datapath} datapath)"
        yield f"make {what}", f"made {what}", _run(context, ip, bridging.make_bridge(bridge, datapath))
        yield from _joined(context, ip, bridge, uplinks)
    elif finding.code == "hosts.uplink":
        yield from _joined(context, ip, bridge, uplinks)
    elif finding.code == "hosts.uplink.down":
        for name in _own_devices(facts, lambda device: not device.is_up):
            what = f"{name} on, until its next boot"
            yield f"switch {what}", f"switched {what}", _run(context, ip, _BATCH, bridging.up(name))
    elif finding.code == "hosts.mtu":
        for name in _own_devices(facts, lambda device: device.mtu < FULL_SIZE):
            what = f"set the MTU of {name} to {FULL_SIZE}, until its next boot"
            yield what, what, _run(context, ip, _BATCH, bridging.mtu(name, FULL_SIZE))
    elif finding.code in (*_MISSING, "hosts.image.damaged"):
        yield from _brought(context, ip, report, finding)


_MISSING = ("hosts.image.missing", "hosts.image.missing.used")


def _brought(context: Context, ip: str, report: host_doctor.Report, finding: Finding) -> Iterator[_Doing]:
    """The image of a finding, brought."""
    for image in report.images:
        if not image.is_here or finding.evidence != host_proofs.place_on_host(context, report.facts[ip], image):
            continue
        if finding.code in _MISSING:
            yield f"copy {image.path}", f"copied {image.path}", functools.partial(_bring, context, ip, image)
        else:
            again = f"{image.path} again, in place of the damaged copy"
            yield f"copy {again}", f"copied {again}", functools.partial(_bring_again, context, ip, image)


_BATCH = ("ip", "-batch", "-")


def _joined(context: Context, ip: str, bridge: str, uplinks: list[str]) -> Iterator[_Doing]:
    """The uplinks that a host had when it was last seen with one."""
    for name in uplinks:
        yield f"add {name} to {bridge}", f"added {name} to {bridge}", _run(context, ip, bridging.join(bridge, name))


def _own_devices(facts: HostFacts, is_wrong: Callable[[Any], bool]) -> list[str]:
    """Uplinks of the bridge that the host itself does not use, of which something is wrong."""
    if facts.ground is None:
        return []
    here = facts.ground.here
    return [port.name for port in facts.ground.uplinks if not here[port.name].address and is_wrong(here[port.name])]


def _usual_datapath(context: Context) -> str:
    """As the other hosts have it."""
    found = [str(one.get("datapath") or "") for one in context.db.data["workers"].values()]
    return next((datapath for datapath in found if datapath in bridging.DATAPATHS), "system")


def _run(context: Context, ip: str, words: tuple[str, ...], stdin: str = "") -> Callable[[], None]:
    """Run a command on a host in its turn."""

    def do() -> None:
        label = " ".join(words) + (f" < {'; '.join(stdin.splitlines())}" if stdin else "")
        step = Step(name="fix", label=label, act=Run(words=words, stdin=stdin))
        root = context.site.host(ip).disks_root

        def plan(operation: int) -> Plan:
            return Plan(
                installation=context.site.installation,
                operation=operation,
                scopes=(SHARED,),
                fence_dir=root,
                stages=(Stage(name="fix", steps=(step,)),),
            )

        result = run_fenced(context.site.executor, ip, plan, context.site.next_operation)
        if not result.ok:
            words_of = result.failed.err.strip()[-300:] if result.failed else result.aborted
            raise StepFailed(ip, f"could not run `{step.label}`", evidence=words_of)

    return do


def _bring(context: Context, ip: str, image: WantedImage) -> None:
    bases = context.deployment.qcow_manager.bases
    bases.forget(ip)  # what it was known to have, it has not
    bases.ensure(ip, image.path, context.settings.images.base_dir, known=image.known)


def _bring_again(context: Context, ip: str, image: WantedImage) -> None:
    bases = context.deployment.qcow_manager.bases
    bases.replace(ip, image.path, context.settings.images.base_dir, known=image.known)
