"""What `./cloud doctor` does on the hosts: asks each, sends tagged frames between all, and has it judged."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

from cloudrepo import link_switches
from cloudrepo.doctor import host_facts, hosts, proofs, trial, trunk, vlans
from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.doctor.host_facts import HostFacts
from cloudrepo.doctor.trial import Heard, Sent, Trial, Uplink
from cloudrepo.doctor.vlans import Choice
from cloudrepo.errors import CloudError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import INTERNET_VLAN, dhcp_port
from cloudrepo.plan import Step
from cloudrepo.ssh_config import resolve as resolve_target
from cloudrepo.state import all_slices
from cloudrepo.wire_acts import Emit, Listen
from cloudrepo.worker_facts import Question
from control import host_images, host_proofs, wire
from control.context import Context
from control.host_images import WantedImage

RETRIES = 2  # of what was missed: a host that is busy drops a frame

__all__ = ["Report", "look"]


@dataclass(kw_only=True)
class Report:
    """What was found.

    Attributes:
        findings: of all hosts.
        hosts: those that were looked at.
        tried: which VLANs frames were sent in, as switches write them; "" = none.
        seconds: how long it took.
        facts: what hosts said.
        images: what was looked for on them.
    """

    findings: list[Finding] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    tried: str = ""
    seconds: float = 0.0
    facts: Mapping[str, HostFacts] = field(default_factory=dict)
    images: Sequence[WantedImage] = ()

    def to_dict(self) -> dict[str, Any]:
        """As the façade answers it."""
        found = [one.to_dict() for one in self.findings]
        return {"findings": found, "hosts": self.hosts, "vlans": self.tried, "seconds": round(self.seconds, 2)}


def look(
    context: Context, only: Collection[str] = (), wanted: Collection[int] = (), *, are_joined: bool = True
) -> Report:
    """Look at all hosts.

    Args:
        context: the installation.
        only: what concerns these hosts; empty = all.
        wanted: VLANs that frames are sent in; empty = a choice.
        are_joined: look also at what is between the hosts; else only at each of them.
    """
    began = time.monotonic()
    context.db.refresh()
    ips = list(dict.fromkeys([*context.db.data["workers_list"], context.settings.network.node]))
    choice = _choice(context, wanted)
    facts, findings = _ask_all(context, ips)
    findings += [one for each in facts.values() for one in hosts.judge(each, choice.vlans, is_alone=len(ips) == 1)]
    findings += hosts.clocks(list(facts.values()))
    images, wrong_here = host_images.wanted(context)
    findings += [*wrong_here, *_proved(context, facts, images)]
    between = _between(context, facts, choice) if are_joined else []
    kept = [one for one in [*findings, *between] if not only or not one.hosts or set(one.hosts) & set(only)]
    return Report(
        findings=kept,
        hosts=[ip for ip in ips if not only or ip in only],
        tried=vlans.text(choice.vlans) if between else "",
        seconds=time.monotonic() - began,
        facts=facts,
        images=images,
    )


# -- asking ------------------------------------------------------------------------------


def _ask_all(context: Context, ips: Sequence[str]) -> tuple[dict[str, HostFacts], list[Finding]]:
    """What each host says, or why it does not."""
    work = {ip: functools.partial(_ask, context, ip) for ip in ips}
    facts, findings = {}, []
    for ip, answer in context.site.executor.gather(work).items():
        if isinstance(answer, CloudError):
            findings.append(hosts.unasked(ip, answer, context.site.executor.options.user))
        else:
            facts[ip] = answer
    return facts, findings


def _ask(context: Context, ip: str) -> HostFacts:
    executor, options = context.site.executor, context.site.executor.options
    target = resolve_target(ip, options)
    question = Question(
        installation=context.site.installation,
        base_dir=context.site.resolve(ip, context.settings.images.base_dir),
        bridge=context.settings.network.bridge,
        user=context.site.user,
        is_network_node=ip == context.settings.network.node,
    )
    plan = host_facts.questions(
        question, account=target.user, address=_our_address(target.address, target.port), port=target.port
    )
    answers = executor.run_plan(ip, plan).observed
    asked = _now()
    answer = executor.run_plan(ip, host_facts.clock_question(question.installation)).steps.get("clock")
    clock = host_facts.read_clock(answer, asked, _now())
    return host_facts.read(ip, question, answers, clock)


def _now() -> float:
    """The wall clock, in seconds: what is asked is how others differ from it."""
    return datetime.now(UTC).timestamp()


def _our_address(host: str, port: int) -> str:
    """The address that a host sees us by; nothing is sent to find it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((host, port))
            return str(asking.getsockname()[0])
    except OSError:
        return "192.0.2.1"


# -- doing -------------------------------------------------------------------------------


def _proved(context: Context, facts: Mapping[str, HostFacts], images: Sequence[WantedImage]) -> list[Finding]:
    """What the hosts show by doing it."""
    found: list[Finding] = []
    work = {ip: functools.partial(host_proofs.prove, context, ip, one, images) for ip, one in facts.items()}
    for ip, answer in context.site.executor.gather(work).items():
        if isinstance(answer, CloudError):
            found.append(hosts.unasked(ip, answer, context.site.executor.options.user))
        else:
            found += proofs.judge(answer)
    return found


# -- between the hosts -------------------------------------------------------------------


def _choice(context: Context, wanted: Collection[int]) -> Choice:
    data, settings = context.db.data, context.settings.vlan
    links = [link["vlan_id"] for record in all_slices(data) for link in record["links"]]
    pool = [vlan for vlan in range(settings.first, settings.last + 1) if vlan not in settings.reserved]
    in_use = {INTERNET_VLAN, *(int(vlan) for vlan in links if vlan is not None)}
    return vlans.choose(pool, in_use=in_use, upcoming=int(data.get("next_vlan_id") or settings.first), wanted=wanted)


def _between(context: Context, facts: Mapping[str, HostFacts], choice: Choice) -> list[Finding]:
    """Send frames between all hosts that have a way to each other."""
    uplinks = tuple(
        Uplink(host=ip, device=name, mac=one.ground.here[name].mac, mtu=one.ground.here[name].mtu)
        for ip, one in facts.items()
        if one.ground is not None
        for name in hosts.working_uplinks(one)
    )
    if len({uplink.host for uplink in uplinks}) < 2:
        return []
    round_ = Frames(context, _trial(context, uplinks, choice))
    round_.play()
    findings = [_unproven(ip, error) for ip, error in round_.failed.items()]
    if not round_.failed:
        own, devices = _own_servers(facts), _devices(facts)
        findings += trunk.judge(round_.trial, round_.heard, choice.words, own, devices)
    return findings


def _trial(context: Context, uplinks: tuple[Uplink, ...], choice: Choice) -> Trial:
    links = [link for record in all_slices(context.db.data) for link in record["links"]]
    plain = {link["vlan_id"] for link in links if not link_switches.is_served(link)}  # a guest may be the server there
    reserved = set(context.settings.vlan.reserved) - {INTERNET_VLAN}
    return Trial(
        run=os.urandom(wire.RUN_BYTES),
        uplinks=uplinks,
        vlans=choice.vlans,
        quiet=frozenset({INTERNET_VLAN, *(link["vlan_id"] for link in links)}),
        asked=frozenset(set(choice.vlans) - plain - reserved),
    )


def _unproven(ip: str, error: CloudError) -> Finding:
    return Finding(
        code="hosts.vlan",
        level=Level.UNKNOWN,
        text=f"{ip}: frames between hosts could not be tried",
        evidence=str(error),
        remedy="Look at what it says, and run it again",
        hosts=(ip,),
    )


def _own_servers(facts: Mapping[str, HostFacts]) -> frozenset[str]:
    """MACs of our own DHCP servers."""
    return frozenset(
        device.mac
        for one in facts.values()
        if one.ground is not None
        for space, held in one.ground.devices.items()
        for name, device in held.items()
        if space and space.startswith("ns-dhcp-vlan") and name == dhcp_port(int(space.removeprefix("ns-dhcp-vlan")))
    )


def _devices(facts: Mapping[str, HostFacts]) -> dict[str, str]:
    return trunk.by_mac(
        (ip, space, name, device.mac)
        for ip, one in facts.items()
        if one.ground is not None
        for space, held in one.ground.devices.items()
        for name, device in held.items()
    )


class Frames(wire.Round):
    """The frames of one trial."""

    def __init__(self, context: Context, sent: Trial) -> None:
        super().__init__(context.site)
        self.trial = sent
        self.heard = Heard()
        self._only: list[Sent] | None = None

    def play(self) -> None:
        """Send all, then once more what was missed."""
        self.go(self.trial.hosts)
        for _ in range(RETRIES):
            missed = trial.missed(self.trial, self.heard)
            if not missed or self.failed:
                return
            self._only, self.settle_s = list(dict.fromkeys(sent for sent, _host in missed)), wire.PATIENT_S
            self.go(self.trial.hosts)
            if trial.missed(self.trial, self.heard) == missed:
                return

    def take(self, ip: str, told: str) -> None:
        """What a host heard comes to what was heard before."""
        trial.read(self.trial, ip, told, self.heard)

    def listen(self, ip: str) -> Listen:
        """At the uplinks of a host's bridge."""
        places = {"": self.trial.devices(ip)}
        return Listen(places=places, run=self.trial.run.hex(), questions=self.trial.questions(), tags=True)

    def sending(self, ip: str) -> tuple[Step, ...]:
        """By the uplinks themselves: what a guest sends is none of this."""
        sent = tuple(("", device, frame.hex()) for device, frame in self.trial.frames(ip, self._only))
        return (Step(name="emit", label="send tagged frames", act=Emit(frames=sent)),)
