"""The switches of a link: what it allows beyond the rule, and whether it has services of ours. Pure.

A link's record holds a switch only where it is not as links usually are::

    {link_id: 1, vlan_id: 100, …, spoofing: allowed, dhcp: false}

What a guest may then send is in `cloudrepo/isolation.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudrepo.errors import RefusedError

ALLOWED, FORBIDDEN = "allowed", "forbidden"
#: What guests may do. Each is `allowed` or `forbidden`.
POLICY = ("spoofing", "bridging", "vlans")
DHCP = "dhcp"  # True, or False for a plain wire
NAMES = (*POLICY, DHCP)
USUAL: Mapping[str, Any] = {**dict.fromkeys(POLICY, FORBIDDEN), DHCP: True}

Link = Mapping[str, Any]


def switches_of(link: Link) -> dict[str, Any]:
    """All switches of a link: three of `allowed` or `forbidden`, and `dhcp`."""
    return {name: link.get(name, usual) for name, usual in USUAL.items()}


def is_served(link: Link) -> bool:
    """Whether a link has a DHCP server and a gateway of ours, and recorded addresses."""
    return bool(link.get(DHCP, True))


def is_allowed(link: Link, name: str) -> bool:
    """Whether a link allows `spoofing`, `bridging` or `vlans`."""
    return bool(link.get(name) == ALLOWED)


def checked(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """What a person wants of switches; those that are None are left as they are.

    Raises:
        RefusedError: a value that a switch does not have.
    """
    wanted = {name: value for name, value in wishes.items() if value is not None}
    for name, problem in wrong(wanted):
        raise RefusedError(problem, evidence=f"found {wanted[name]!r}", code="link.switch", details={"switch": name})
    return wanted


def wrong(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The switches whose value is none, each with what is wanted."""
    for name in POLICY:
        if values.get(name, FORBIDDEN) not in (ALLOWED, FORBIDDEN):
            yield name, f"{name} is {ALLOWED} or {FORBIDDEN}"
    if type(values.get(DHCP, True)) is not bool:
        yield DHCP, f"{DHCP} is true or false"


def opened(link: Link, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """The switches that a wish turns away from what links usually are, and that are not so yet."""
    before = switches_of(link)
    return tuple(name for name, value in wanted.items() if value not in (before[name], USUAL[name]))


def require_permitted(names: tuple[str, ...], permitted: tuple[str, ...]) -> None:
    """Refuse what a student asks for and the settings do not leave to students.

    Args:
        names: the switches he opens.
        permitted: those the settings name.

    Raises:
        RefusedError: one of them is an instructor's.
    """
    for name in names:
        if name not in permitted:
            said = f"they may set {', '.join(permitted)}" if permitted else "they may set none"
            raise RefusedError(
                f"students may not set {name} of a link",
                evidence=f"by `links.student_switches` {said}",
                remedy="Ask an instructor: he may set it on a student's link",
                code="link.forbidden",
                details={"switch": name, "permitted": list(permitted)},
            )


def write(link: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    """Write switches into a link's record, which keeps only those that are not as usual."""
    for name, value in wanted.items():
        link.pop(name, None)
        if value != USUAL[name]:
            link[name] = value


def said(link: Link) -> str:
    """What is unusual about a link, in a few words; empty when nothing is."""
    words = [f"{name} allowed" for name in POLICY if is_allowed(link, name)]
    return ", ".join([*words, *([] if is_served(link) else ["no DHCP"])])
