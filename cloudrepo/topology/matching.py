"""Which links of a file are which of a slice. Pure.

A link has no name: it is known by its ends. What a file leaves open (`a -- b`) is what the slice has there already, so
that a file that is applied twice changes nothing; only for new links free interfaces are chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cloudrepo.late_dataclass import dataclass
from cloudrepo.topology.model import End, Link


@dataclass(frozen=True)
class Present:
    """A link that a slice has."""

    link_id: int
    link: Link


@dataclass(frozen=True, kw_only=True)
class Links:
    """What became of the links.

    Attributes:
        added: new ones, every interface chosen.
        removed: those that are to go.
        moved: those that are to join other interfaces: number, ends.
        kept: those that stay: number, as the file has it, as it was.
    """

    added: tuple[Link, ...]
    removed: tuple[Present, ...]
    moved: tuple[tuple[int, tuple[End, ...]], ...]
    kept: tuple[tuple[int, Link, Link], ...]


def without(links: Sequence[Link], ids: Sequence[int], leaving: Collection[str]) -> list[Present]:
    """The links of a slice as they are once some machines are gone: a network keeps the others, if two are left."""
    found = []
    for link_id, link in zip(ids, links, strict=True):
        rest = tuple(end for end in link.ends if end.node not in leaving)
        if len(rest) > 1:
            found.append(Present(link_id, replace(link, ends=rest)))
    return found


def match(wanted: Sequence[Link], have: Sequence[Present]) -> Links:
    """Find for each link of a file the one of the slice that it is."""
    claimed = {(end.node, end.interface): number for number, link in enumerate(wanted) for end in link.ends}
    pairs: dict[int, Present] = {}
    left = list(have)
    for is_alike in (_is_same, _overlaps):
        for number in sorted(range(len(wanted)), key=lambda one: -_explicit(wanted[one])):
            if number in pairs:
                continue
            found = next((one for one in left if is_alike(wanted[number], one.link, number, claimed)), None)
            if found is not None:
                pairs[number] = found
                left.remove(found)
    return _settled(wanted, pairs, left)


def _explicit(link: Link) -> int:
    return sum(bool(end.interface) for end in link.ends)


def _meets(end: End, other: End, number: int, claimed: dict[tuple[str, str], int]) -> bool:
    """Whether an end of a file's link can be this one of a slice's; not where the file gives that to another link."""
    if end.node != other.node:
        return False
    if end.interface:
        return end.interface == other.interface
    return claimed.get((other.node, other.interface), number) == number


def _common(link: Link, other: Link, number: int, claimed: dict[tuple[str, str], int]) -> int:
    return sum(any(_meets(end, its, number, claimed) for its in other.ends) for end in link.ends)


def _is_same(link: Link, other: Link, number: int, claimed: dict[tuple[str, str], int]) -> bool:
    is_whole = len(link.ends) == len(other.ends) == _common(link, other, number, claimed)
    return is_whole and _has_subnet(link, other)


def _overlaps(link: Link, other: Link, number: int, claimed: dict[tuple[str, str], int]) -> bool:
    is_network = max(len(link.ends), len(other.ends)) > 2
    return is_network and _common(link, other, number, claimed) > 1 and _has_subnet(link, other)


def _has_subnet(link: Link, other: Link) -> bool:
    """A plain wire's subnet is nobody's concern."""
    return link.subnet == other.subnet or not (link.switches["dhcp"] and other.switches["dhcp"])


def _settled(wanted: Sequence[Link], pairs: dict[int, Present], left: list[Present]) -> Links:
    """Choose the interfaces that are open, and see whether a network can grow by what is free."""
    chosen = {number: _known_ends(wanted[number], found.link) for number, found in pairs.items()}
    held = {end for found in pairs.values() for end in found.link.ends}
    used = {end for ends in chosen.values() for end in ends if end.interface} | {
        end for link in wanted for end in link.ends if end.interface
    }
    for number, link in enumerate(wanted):
        chosen[number] = tuple(_free(end, used) for end in chosen.get(number, link.ends))
    kept, moved, added = [], [], []
    for number, link in enumerate(wanted):
        ends, found = chosen[number], pairs.get(number)
        gained = set(ends) - set(found.link.ends) if found is not None else set()
        if found is not None and gained & held:  # another link would have to let go of it first
            left.append(found)
            found = None
        if found is None:
            added.append(replace(link, ends=ends))
            continue
        if set(ends) != set(found.link.ends):
            moved.append((found.link_id, ends))
        kept.append((found.link_id, link, found.link))
    removed = tuple(sorted(left, key=lambda one: one.link_id))
    return Links(added=tuple(added), removed=removed, moved=tuple(moved), kept=tuple(kept))


def _known_ends(link: Link, other: Link) -> tuple[End, ...]:
    """The ends of a file's link, with the interfaces that the slice's has."""
    there = {end.node: end for end in other.ends}
    return tuple(end if end.interface else there.get(end.node, end) for end in link.ends)


def _free(end: End, used: set[End]) -> End:
    if end.interface:
        return end
    number = 1
    while End(end.node, f"eth{number}") in used:
        number += 1
    found = End(end.node, f"eth{number}")
    used.add(found)
    return found
