"""What is wrong between the parts of a topology file: names, interfaces, numbers of networks. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from cloudrepo.allocation import link_addresses
from cloudrepo.errors import RefusedError
from cloudrepo.link_switches import DHCP
from cloudrepo.topology import keys, shapes
from cloudrepo.topology.mistakes import Mistakes, Place
from cloudrepo.topology.model import Link, Node
from cloudrepo.validation import MAX_DATA_INTERFACES, host_name, vm_name


def name_problem(name: str, lines: Mapping[str, int]) -> tuple[str, str]:
    """Why a machine cannot have this name, and what to do; two empty texts when it can.

    Args:
        name: the name.
        lines: the machines before it, with the lines in which they stand.
    """
    try:
        vm_name(name)
    except RefusedError as error:
        return error.brief, error.remedy
    other = next((one for one in lines if host_name(one) == host_name(name)), "")
    if other == name:
        return f"{name} is the name of two nodes", f"The first is in line {lines[other]}"
    if other:
        what = f"{name} and {other} (line {lines[other]}) would have the same host name"
        return what, "Choose names that differ in more than case, - and _"
    return "", ""


def check(nodes: Sequence[Node], links: Sequence[Link], mistakes: Mistakes) -> None:
    """Note what is wrong between machines and networks."""
    if len(nodes) > keys.MOST_NODES:
        place = nodes[keys.MOST_NODES].place
        mistakes.add(place, f"there are {len(nodes)} nodes; {keys.MOST_NODES} are possible")
    if len(links) > shapes.MOST_LINKS:
        place = links[shapes.MOST_LINKS].place
        rule = f"A slice has at most {shapes.MOST_LINKS}; a network of more than two ends is one"
        mistakes.add(place, f"there are {len(links)} links", rule)
    _interfaces(nodes, links, mistakes)
    for link in links:
        _ends(link, mistakes)
        _subnet(link, mistakes)
    _overlaps(links, mistakes)


def _interfaces(nodes: Sequence[Node], links: Sequence[Link], mistakes: Mistakes) -> None:
    used: dict[tuple[str, str], Place] = {}
    for link in links:
        for end in link.ends:
            key = (end.node, end.interface)
            if end.interface and key in used and used[key] != link.place:
                mistakes.add(link.place, f"{end} is an end of two links", f"The other is in line {used[key].line}")
            used.setdefault(key, link.place)
    for node in nodes:
        ends = [(end, link) for link in links for end in link.ends if end.node == node.name]
        numbers = [int(end.interface.removeprefix("eth")) for end, _ in ends if end.interface]
        needed = max([len(ends), *numbers])
        if needed > MAX_DATA_INTERFACES:
            mistakes.add(
                ends[-1][1].place,
                f"{node.name} is an end of {len(ends)} links; it can be one of {MAX_DATA_INTERFACES}",
                "A network of more than two ends takes one interface of each",
            )
        elif node.interfaces is not None and needed > node.interfaces:
            what = f"{node.name} has {node.interfaces} data interfaces, and its links need {needed}"
            mistakes.add(node.place, what, f"Write `interfaces: {needed}`, or leave it out")


def _ends(link: Link, mistakes: Mistakes) -> None:
    nodes = [end.node for end in link.ends]
    for name in dict.fromkeys(nodes):
        if nodes.count(name) > 1:
            mistakes.add(link.place, f"{name} is twice an end of this link", "A link joins different machines")


def _subnet(link: Link, mistakes: Mistakes) -> None:
    room = link_addresses(0, link.subnet).room
    if len(link.ends) > room and (link.subnet or link.switches[DHCP]):
        subnet = link.subnet or "the usual subnet of a link"
        what = f"{subnet} has addresses for {room} machines, and this link has {len(link.ends)}"
        mistakes.add(link.place, what, "Choose a larger subnet" if link.subnet else "Give it a `subnet`")


def _overlaps(links: Sequence[Link], mistakes: Mistakes) -> None:
    """A machine on two networks whose subnets overlap would not know which way to send."""
    chosen = [(link, ipaddress.IPv4Network(link.subnet)) for link in links if link.subnet]
    for number, (link, network) in enumerate(chosen):
        for other, its in chosen[:number]:
            both = {end.node for end in link.ends} & {end.node for end in other.ends}
            if both and network.overlaps(its):
                line = other.place.line
                what = f"the subnet {network} overlaps {its} of line {line}"
                mistakes.add(link.place, f"{what}, and {min(both)} is on both", "Choose another subnet")
