"""Where hosts contradict each other about an installation whose records are lost. Pure.

A VM's mark file says whose its slice is, and which MACs its NICs have. When two hosts say different things of one
slice's owner, or both have a NIC of one MAC, a person says which is believed: the first one asked is not better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudrepo.late_dataclass import dataclass
from cloudrepo.mark_records import Kept, kept
from cloudrepo.resources import Disk, HostState


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two hosts that cannot both be right.

    Attributes:
        text: what each says, both hosts named.
        hosts: the two addresses.
    """

    text: str
    hosts: tuple[str, str]


def contradictions(states: Mapping[str, HostState]) -> Iterator[Contradiction]:
    """Each owner and each MAC of which two hosts say different things, once for each further host.

    Args:
        states: by address, what was seen of each host for this installation.
    """
    owners: dict[str, tuple[str, str, int]] = {}
    macs: dict[str, tuple[str, int]] = {}
    for ip, state in states.items():
        for disk in state.of(Disk):
            said = _said(disk)
            if said is None or disk.mark is None:
                continue
            yield from _owner(owners, disk.mark.scope, str(said.head.get("owner") or ""), ip, disk.vm_id)
            for nic in said.vm.get("interfaces", ()):
                yield from _mac(macs, str(nic["mac"]).lower(), ip, disk.vm_id)


def _said(disk: Disk) -> Kept | None:
    """What the mark file of a disk says; None when it is not to be understood, which is told elsewhere."""
    if disk.mark is None or not disk.mark.scope.isdecimal():
        return None
    try:
        return kept(disk.record, int(disk.mark.scope), disk.vm_id)
    except ValueError:
        return None


def _owner(
    owners: dict[str, tuple[str, str, int]], scope: str, owner: str, ip: str, vm_id: int
) -> Iterator[Contradiction]:
    if not owner:
        return
    first, where, of = owners.setdefault(scope, (owner, ip, vm_id))
    if first != owner and where != ip:
        text = f"slice {scope} is {first}'s by VM {of} on {where}, and {owner}'s by VM {vm_id} on {ip}"
        yield Contradiction(text=text, hosts=(where, ip))


def _mac(macs: dict[str, tuple[str, int]], mac: str, ip: str, vm_id: int) -> Iterator[Contradiction]:
    where, of = macs.setdefault(mac, (ip, vm_id))
    if where != ip:
        text = f"the MAC {mac} is that of VM {of} on {where} and of VM {vm_id} on {ip}"
        yield Contradiction(text=text, hosts=(where, ip))
