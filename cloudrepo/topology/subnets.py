"""The subnet of a link, where a person chooses it. Pure."""

from __future__ import annotations

import ipaddress

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


def _loose(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text, strict=False)) if "/" in text else ""
    except ValueError:
        return ""
