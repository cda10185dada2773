"""Whether each end of a wire is there at all, is the one that is recorded, and alone has its MAC. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cloudrepo.verification.cast import Nic, Service
from cloudrepo.verification.ground import Ground
from cloudrepo.verification.verdicts import Violation


def missing_nics(nics: Iterable[Nic], grounds: Mapping[str, Ground]) -> Iterator[Violation]:
    """NICs of machines that run which have no port to send by, on hosts that answered."""
    for nic in nics:
        ground = grounds.get(nic.host)
        if ground is None or nic.wire is None:
            continue
        port = ground.ports.get(nic.device)
        if port is None or not port.number:
            why = f"it is no port of {ground.bridge}" if port is None else f"the switch cannot use it: {port.error}"
            yield _about(nic, "no port", f"{nic} has no wire: {nic.device} on {nic.host} is broken: {why}")


def missing_services(services: Iterable[Service], node: str, ground: Ground) -> Iterator[Violation]:
    """Services that are not where the records have them."""
    for service in services:
        if service.device in ground.devices.get(service.namespace, {}) and service.device in ground.ports:
            continue
        where = f"namespace {service.namespace} on {node}" if service.namespace else node
        text = f"{service} is not there: no device {service.device} in {where} is a port of {ground.bridge}"
        yield _about(service.at(node, ""), "no service", text)


def wrong_machines(nics: Iterable[Nic], grounds: Mapping[str, Ground]) -> Iterator[Violation]:
    """NICs whose machine was started with another MAC at their TAP: then two were swapped, or one is a stranger's."""
    nics = [nic for nic in nics if nic.host in grounds]
    owners = {nic.mac: nic for nic in nics}
    for nic in nics:
        for machine in grounds[nic.host].machines:
            mac = machine.nics.get(nic.device)
            if mac is not None and mac != nic.mac.lower():
                other = owners.get(mac)
                whose = f", which is that of {other}" if other is not None else ""
                text = f"the machine at {nic.device} on {nic.host} has MAC {mac} there{whose}, and {nic} has {nic.mac}"
                yield _about(nic, "swapped NIC", text)


def doubles(nics: Iterable[Nic], grounds: Mapping[str, Ground]) -> Iterator[Violation]:
    """Devices and machines that have the MAC of a NIC."""
    nics = list(nics)
    owners: dict[str, Nic] = {}
    for nic in nics:
        first = owners.setdefault(nic.mac.lower(), nic)
        if first is not nic:
            yield _about(nic, "duplicate MAC", f"{nic} and {first} have the same MAC {nic.mac} in the records")
    taps = {(nic.host, nic.device) for nic in nics}
    for host, ground in grounds.items():
        for name, mac in _macs(ground):
            owner = owners.get(mac)
            if owner is not None and (host, name) not in taps:
                yield _about(owner, "duplicate MAC", f"{name} on {host} has the MAC {mac} of {owner}")


def _macs(ground: Ground) -> Iterator[tuple[str, str]]:
    for held in ground.devices.values():
        yield from ((name, device.mac) for name, device in held.items())
    for machine in ground.machines:
        yield from machine.nics.items()


def _about(nic: Nic, kind: str, text: str) -> Violation:
    return Violation(
        sender=nic, kind=kind, ear=nic.ear, listener=str(nic), was_heard=False, text=text, listener_slice=nic.slice_id
    )
