"""The ends of a link. Pure.

A link is a network of two ends or more. Its record names the first two by the documented keys, and those of a larger
network besides::

    {link_id: 1, vlan_id: 100, vm1_id: 1001, vm1_interface: eth1, vm2_id: 1002, vm2_interface: eth1,
     more_ends: [{vm_id: 1003, interface: eth1}], …}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MORE = "more_ends"

End = tuple[int, str]  # a VM's id, and its interface


def ends_of(link: Mapping[str, Any]) -> list[End]:
    """All ends of a link, in order."""
    first = [(int(link[f"vm{number}_id"]), str(link[f"vm{number}_interface"])) for number in (1, 2)]
    return [*first, *((int(one["vm_id"]), str(one["interface"])) for one in link.get(MORE, ()))]


def vms_of(link: Mapping[str, Any]) -> set[int]:
    """The VMs that a link joins."""
    return {vm_id for vm_id, _ in ends_of(link)}


def write(link: dict[str, Any], ends: Sequence[End]) -> None:
    """Write the ends of a link, two or more, into its record."""
    for number, (vm_id, interface) in enumerate(ends[:2], 1):
        link[f"vm{number}_id"], link[f"vm{number}_interface"] = vm_id, interface
    link.pop(MORE, None)
    if len(ends) > 2:
        link[MORE] = [{"vm_id": vm_id, "interface": interface} for vm_id, interface in ends[2:]]


def wrong(link: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the further ends in a link's record: the key, and what is wanted."""
    more = link.get(MORE, [])
    if not isinstance(more, list) or not all(map(_is_end, more)):
        yield MORE, "a list of ends is wanted, each with `vm_id` and `interface`"


def _is_end(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and one.keys() == {"vm_id", "interface"}
        and type(one["vm_id"]) is int
        and one["vm_id"] >= 0
        and isinstance(one["interface"], str)
    )
