"""The subnet of a link, where a person chooses it. Pure."""

from __future__ import annotations

import ipaddress

from cloudrepo.allocation import link_addresses
from cloudrepo.errors import RefusedError

LONGEST = 29  # prefix: a gateway, a DHCP server and two ends at least


def checked(text: str) -> ipaddress.IPv4Network:
    """A subnet of a person's choice.

    Raises:
        RefusedError: it is none, has host bits, or is too small or not for hosts.
    """
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        loose = _loose(text)
        raise RefusedError(
            f"{text[:40]} is no subnet",
            remedy=f"{loose} is the subnet of that address" if loose else "Such as 10.1.2.0/24",
            code="link.subnet",
        ) from error
    if "/" not in text or not 8 <= network.prefixlen <= LONGEST:
        raise RefusedError(
            f"a link cannot have the subnet {text}", remedy=f"From /8 to /{LONGEST} are possible", code="link.subnet"
        )
    if network.is_multicast or network.is_loopback or network.is_link_local or network.is_reserved or (
        network.network_address.packed[0] == 0
    ):  # fmt: skip
        raise RefusedError(f"{text} is no subnet for hosts", remedy="Such as 10.1.2.0/24", code="link.subnet")
    return network


def for_link(text: str, internet: str, ends: int) -> str:
    """The subnet of a new link, in one spelling; "" = the usual one.

    Args:
        text: as a person chose it; "" = not at all.
        internet: the subnet of VLAN 400: a VM on both would not know which way to send.
        ends: how many ends need an address.

    Raises:
        RefusedError: it is none, is too small, or overlaps that of the internet.
    """
    if not text:
        require_room("", ends)
        return ""
    network = checked(text)
    if network.overlaps(ipaddress.IPv4Network(internet)):
        raise RefusedError(
            f"a link cannot have the subnet {network}",
            evidence=f"it overlaps {internet}, by which machines reach the internet",
            remedy="Choose another one",
            code="link.subnet",
        )
    require_room(str(network), ends)
    return str(network)


def require_room(subnet: str, ends: int) -> None:
    """Refuse more ends than a subnet has addresses for.

    Raises:
        RefusedError: there are more.
    """
    addresses = link_addresses(0, subnet)
    if ends > addresses.room:
        raise RefusedError(
            f"a link with {ends} ends does not fit its subnet",
            evidence=f"{addresses.cidr if subnet else 'the usual one'} has addresses for {addresses.room}",
            remedy="Choose a larger subnet",
            code="link.subnet",
        )


def _loose(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text, strict=False)) if "/" in text else ""
    except ValueError:
        return ""
