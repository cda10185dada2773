"""`./cloud doctor --fix`: sets right what is ours to set right and can be undone; the rest keeps its remedy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

from cloudrepo.commands import bridging
from cloudrepo.doctor.findings import Finding
from cloudrepo.doctor.host_facts import HostFacts
from cloudrepo.doctor.trial import FULL_SIZE
from cloudrepo.errors import CloudError, StepFailed
from cloudrepo.hosts import run_fenced
from cloudrepo.naming import SHARED
from cloudrepo.plan import Plan, Run, Stage, Step
from control import host_doctor, host_proofs
from control.context import Context

ROUNDS = 3  # a bridge, then its uplink, then what the uplink lacks

Fix = tuple[str, Callable[[], None]]  # what is said when it is done, and doing it


def mend(context: Context, only: Collection[str] = (), wanted: Collection[int] = ()) -> dict[str, Any]:
    """Look, set right, and look again until nothing more can be set right.

    Returns:
        The last look as `doctor` answers it, and `changed` and `failed`: lists of `host` and `text`.
    """
    changed: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    report = host_doctor.look(context, only, wanted)
    for _ in range(ROUNDS):
        work = {ip: functools.partial(_mend_host, context, ip, report) for ip in report.facts}
        done = context.site.executor.gather(work)
        for ip, answer in done.items():
            texts, trouble = answer if not isinstance(answer, CloudError) else ([], [str(answer)])
            changed += [{"host": ip, "text": text} for text in texts]
            failed += [{"host": ip, "text": text} for text in trouble]
        if not any(answer[0] for answer in done.values() if not isinstance(answer, CloudError)):
            break
        report = host_doctor.look(context, only, wanted)
    return {**report.to_dict(), "changed": changed, "failed": failed}


def _mend_host(context: Context, ip: str, report: host_doctor.Report) -> tuple[list[str], list[str]]:
    """What was set right on a host, and what could not be."""
    texts, trouble = [], []
    for finding in report.findings:
        if finding.hosts != (ip,):
            continue
        for text, do in _fixes(context, ip, report.facts[ip], finding):
            try:
                do()
            except CloudError as error:
                trouble.append(str(error))
                break
            texts.append(text)
    return texts, trouble


def _fixes(context: Context, ip: str, facts: HostFacts, finding: Finding) -> Iterator[Fix]:
    """What may be done about a finding; nothing where it is somebody else's."""
    known, bridge = context.db.data["workers"].get(ip) or {}, facts.question.bridge
    uplinks = [str(name) for name in known.get("uplinks") or ()]
    if finding.code == "hosts.bridge":
        datapath = str(known.get("datapath") or _usual_datapath(context))
        yield f"made {bridge} ({datapath} datapath)", _run(context, ip, bridging.make_bridge(bridge, datapath))
        yield from _joined(context, ip, bridge, uplinks)
    elif finding.code == "hosts.uplink":
        yield from _joined(context, ip, bridge, uplinks)
    elif finding.code == "hosts.uplink.down":
        for name in _own_devices(facts, lambda device: not device.is_up):
            yield f"switched {name} on, until its next boot", _run(context, ip, _BATCH, bridging.up(name))
    elif finding.code == "hosts.mtu":
        for name in _own_devices(facts, lambda device: device.mtu < FULL_SIZE):
            text = f"set the MTU of {name} to {FULL_SIZE}, until its next boot"
            yield text, _run(context, ip, _BATCH, bridging.mtu(name, FULL_SIZE))
    elif finding.code == "hosts.image.missing":
        for path in host_proofs.wanted_images(context):
            if finding.evidence == host_proofs.place_on_host(context, facts, path)[1]:
                yield f"copied {path}", functools.partial(_bring, context, ip, path)


_BATCH = ("ip", "-batch", "-")


def _joined(context: Context, ip: str, bridge: str, uplinks: list[str]) -> Iterator[Fix]:
    """The uplinks that a host had when it was last seen with one."""
    for name in uplinks:
        yield f"added {name} to {bridge}", _run(context, ip, bridging.join(bridge, name))


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


def _bring(context: Context, ip: str, path: str) -> None:
    bases = context.deployment.qcow_manager.bases
    bases.forget(ip)  # what it was known to have, it has not
    bases.ensure(ip, path, context.settings.images.base_dir)
