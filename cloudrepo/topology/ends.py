"""The ends of a link as they are written: `a:eth1 -- b:eth1`, `[a, b:eth2]`, `["h[1-4]"]`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence as AnySequence

from cloudrepo.topology import keys, patterns
from cloudrepo.topology.mistakes import Mistakes, Place, meant
from cloudrepo.topology.model import End
from cloudrepo.topology.tree import Scalar, Sequence, Tree, described
from cloudrepo.validation import MAX_DATA_INTERFACES, shown

Groups = Mapping[str, AnySequence[str]]

_JOINED = re.compile(r"\s+--\s+")
_ODDLY_JOINED = re.compile(r"\s+(?:<?-{1,2}>?|[\u2013\u2014])\s+|\s*(?:--|<->|->|[\u2013\u2014])\s*")
_HOW = "Write `a:eth1 -- b:eth1`, or a list such as [a, b]"


def read(tree: Tree, names: AnySequence[str], groups: Groups, mistakes: Mistakes) -> tuple[End, ...]:
    """The ends of one link; none where one of them is wrong.

    Args:
        tree: what stands there.
        names: the machines of the file.
        groups: keys of `nodes` that make several machines: as an end, one stands for all of them.
        mistakes: gets what is wrong.
    """
    words = _words(tree, mistakes)
    found: list[End] = []
    is_whole = bool(words)
    for word, place in words:
        made = _ends(word, place, names, groups, mistakes)
        is_whole = is_whole and bool(made)
        found += made
    if not is_whole:
        return ()
    if len(found) < 2:
        mistakes.add(tree.place, f"a link has two ends or more, and this has {len(found)}", _HOW)
        return ()
    return tuple(found)


def _words(tree: Tree, mistakes: Mistakes) -> list[tuple[str, Place]]:
    """The ends as words with their places."""
    if isinstance(tree, Sequence):
        if not tree.items:
            mistakes.add(tree.place, "a link without ends", _HOW)
        found = []
        for item in tree:
            if isinstance(item, Scalar) and isinstance(item.value, str):
                found.append((item.value.strip(), item.place))
            else:
                mistakes.add(item.place, f"an end of a link is a text such as r1:eth1, and not {described(item)}")
        return found if len(found) == len(tree.items) else []
    if not isinstance(tree, Scalar) or not isinstance(tree.value, str):
        mistakes.add(tree.place, f"a link is two ends, a list of ends, or a mapping, and not {described(tree)}", _HOW)
        return []
    parts = _JOINED.split(tree.value.strip())
    if len(parts) == 2:
        return [(part, tree.place) for part in parts]
    if len(parts) > 2:
        listed = ", ".join(parts)
        mistakes.add(
            tree.place,
            f"{shown(tree.value)} has {len(parts)} ends",
            f"One network of all is [{listed}]; for a chain write a link for each two",
        )
        return []
    odd = _ODDLY_JOINED.split(tree.value.strip())
    hint = f"Is it {odd[0]} -- {odd[1]}?" if len(odd) == 2 and all(odd) else _HOW
    mistakes.add(tree.place, f"{shown(tree.value)} is no link: two ends are joined by ` -- `", hint)
    return []


def _ends(word: str, place: Place, names: AnySequence[str], groups: Groups, mistakes: Mistakes) -> list[End]:
    name, colon, interface = word.partition(":")
    name = name.strip()
    if colon and not _is_interface(interface, place, mistakes):
        return []
    members = groups.get(name) if name in groups and name not in names else None
    if members is None:
        try:
            members = patterns.expanded(name)
        except ValueError as error:
            mistakes.add(place, str(error))
            return []
    known = {*names, *(group for group in groups if not patterns.is_pattern(group))}
    for member in members:
        if member not in names:
            mistakes.add(place, f"there is no node {shown(member)}", meant(member, sorted(known)))
            return []
    return [End(member, interface) for member in members]


def _is_interface(interface: str, place: Place, mistakes: Mistakes) -> bool:
    if interface == "eth0":
        mistakes.add(place, "eth0 is a machine's way to the internet and cannot be linked", "Use eth1, eth2 …")
        return False
    number = int(interface.removeprefix("eth")) if re.fullmatch(keys.INTERFACE, interface) else 0
    if not 1 <= number <= MAX_DATA_INTERFACES:
        last = f"eth{MAX_DATA_INTERFACES}"
        mistakes.add(place, f"there is no interface {shown(interface)}", f"Data interfaces are eth1 to {last}")
        return False
    return True
