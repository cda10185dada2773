"""The way from one NIC to another, looked at on the hosts: `./cloud path`, and for what `verify` finds broken."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.naming import tap_name
from cloudrepo.plan import Plan, Run, Step, StepResult
from cloudrepo.site import Site
from cloudrepo.validation import shown
from cloudrepo.verification import path, shapes, tracing
from cloudrepo.verification.cast import INTERNET_VLAN, Nic, nics_of
from cloudrepo.verification.ground import Ground
from cloudrepo.verification.path import Question, Way
from cloudrepo.verification.tracing import Trace
from control import views, wire
from control.context import Context, Record
from control.ends import services

SERVICES = {"gateway": "gateway", "dhcp": "DHCP server"}
MARK = bytes(shapes.NOTE_BYTES)


def look(context: Context, slices: Sequence[Record], username: str, start: str, end: str) -> Record:
    """The hops from one NIC to another, or to the `gateway` or `dhcp` server of its wire.

    Args:
        context: the installation.
        slices: those that may be looked at.
        username: who asks.
        start: `VM:IF`, the VM by name or id.
        end: the same, or `gateway` or `dhcp`.

    Raises:
        RefusedError: there is no such NIC, or it is on no wire.
        HostError: the first host does not answer.
    """
    sender = _nic(slices, username, start)
    receiver = _service(context, sender, end) if end in SERVICES else _nic(slices, username, end)
    grounds = _grounds(context.site, sender, receiver)
    receiver = _with_mac(receiver, grounds)
    way = Way(
        sender=sender,
        receiver=receiver,
        frame=_frame(sender, receiver),
        grounds=grounds,
        installation=context.site.installation,
    )
    hops = path.hops(way, ask(context.site, way.questions()))
    broken = path.first_broken(hops)
    stale = path.first_stale(hops) if broken is None else None
    return {
        "schema_version": 1,
        "from": str(sender),
        "to": str(receiver),
        "must_reach": _must_reach(sender, receiver),
        "hops": [hop.to_json() for hop in hops],
        "broken": broken.to_json() if broken is not None else None,
        "stale": stale.to_json() if stale is not None else None,
    }


def _must_reach(sender: Nic, receiver: Nic) -> bool:
    """Whether the records want the two to hear each other; on VLAN 400 guests hear the services alone."""
    is_open = sender.wire != INTERNET_VLAN or not receiver.is_guest
    return sender.wire is not None and sender.wire == receiver.wire and is_open


def _nic(slices: Sequence[Record], username: str, words: str) -> Nic:
    vm, _, interface = words.rpartition(":")
    if not vm:
        raise RefusedError(
            f"{shown(words)} is no NIC", remedy="Name it as VM:INTERFACE, such as web:eth1", code="path.words"
        )
    record = views.running_vm(slices, username, vm)
    of_slice = next(one for one in slices if any(each["vm_id"] == record["vm_id"] for each in one["vms"]))
    found = [nic for nic in nics_of([of_slice], tap_name) if nic.vm_id == record["vm_id"]]
    for nic in found:
        if nic.interface == interface:
            return nic
    known = ", ".join(nic.interface for nic in found)
    raise RefusedError(f"{vm} has no interface {interface}", evidence=f"it has {known}", code="path.interface")


def _service(context: Context, sender: Nic, word: str) -> Nic:
    """A service of the sender's wire."""
    with context.db.lock:
        records = [one for one in context.db.data["slices"].values() if one["status"] == "running"]
        found = services(context.settings, records)
    for service in found:
        if service.vlan == sender.wire and service.kind == SERVICES[word]:
            return service.at(context.settings.network.node, "")
    raise RefusedError(
        f"{sender} has no {SERVICES[word]}",
        evidence="it is on no wire" if sender.wire is None else f"VLAN {sender.wire} has none",
        code="path.service",
    )


def _grounds(site: Site, *ends: Nic) -> dict[str, Ground]:
    answers = wire.survey(site, dict.fromkeys(end.host for end in ends))
    first = answers[ends[0].host]
    if isinstance(first, CloudError):
        raise first
    return {ip: answer for ip, answer in answers.items() if not isinstance(answer, CloudError)}


def _with_mac(nic: Nic, grounds: Mapping[str, Ground]) -> Nic:
    if nic.is_guest or nic.host not in grounds:
        return nic
    device = grounds[nic.host].devices.get(nic.namespace, {}).get(nic.device)
    return replace(nic, mac=device.mac, ip=nic.ip or device.address) if device is not None else nic


def _frame(sender: Nic, receiver: Nic) -> bytes:
    """Something that the policy lets pass, where it lets anything pass: a frame on a link, a ping on VLAN 400."""
    target = receiver if receiver.mac else sender
    if sender.wire != INTERNET_VLAN:
        return shapes.unicast(sender, target)(MARK)
    if receiver.kind == "DHCP server":
        return shapes.question(sender)(MARK)
    return shapes.ping(sender, target)(MARK) if sender.ip and target.ip else shapes.unicast(sender, target)(MARK)


def ask(site: Site, questions: Iterable[Question]) -> dict[Question, Trace]:
    """What the switches would do with frames; what one cannot say is left out."""
    by_host: dict[str, list[Question]] = {}
    for one in dict.fromkeys(questions):
        by_host.setdefault(one.host, []).append(one)
    work = {ip: functools.partial(_ask_host, site, ip, asked) for ip, asked in by_host.items()}
    found: dict[Question, Trace] = {}
    for answer in site.executor.gather(work).values():
        if not isinstance(answer, CloudError):
            found |= answer
    return found


def _ask_host(site: Site, ip: str, asked: Sequence[Question]) -> dict[Question, Trace]:
    bridge = site.settings.network.bridge
    steps = [
        Step(name=str(number), label=f"trace {one.port}", act=Run(words=tracing.ask(bridge, one.port, one.frame)))
        for number, one in enumerate(asked)
    ]
    steps.append(Step(name="learned", label="ask where MACs are", act=Run(words=tracing.ask_learned(bridge))))
    answer: Any = site.executor.run_plan(ip, Plan(installation=site.installation, observe=tuple(steps)))
    learned = tracing.read_learned(_told(answer.observed.get("learned")))
    found = {}
    for number, one in enumerate(asked):
        try:
            trace = tracing.read(_told(answer.observed.get(str(number))))
        except ValueError:
            continue  # this switch speaks otherwise
        mac = tracing.destination(one.frame)
        found[one] = replace(trace, learned=tuple(each for each in learned if each.mac == mac))
    return found


def _told(answer: StepResult | None) -> str:
    return answer.out if answer is not None and answer.accepted else ""
