"""`dnsmasq`: a DHCP server for one VLAN, by a configuration file of our own (dnsmasq(8))."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import Mark

#: A reservation with one of these as its last word means something else (dnsmasq(8), --dhcp-host).
RESERVED_NAMES = ("ignore", "infinite")

BINARY = "dnsmasq"
CONFIG = "dnsmasq.conf"
_CONF_FILE = "--conf-file="

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_HOSTNAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_WORD = re.compile(r"[A-Za-z0-9/_.:@-]+\Z")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """An address that belongs to a NIC."""

    mac: str
    ip: str
    hostname: str


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a server may hand out.

    Attributes:
        cidr: the network.
        first, last: the dynamic range, or None for reservations only.
        router: sent as option 3, or "" for none.
        dns: sent as option 6, several with commas, or "" for none.
        lease_s: length of a lease in seconds.
    """

    cidr: str
    first: str | None = None
    last: str | None = None
    router: str = ""
    dns: str = ""
    lease_s: int = 3600


def config(mark: Mark, directory: str, interface: str, offer: Range) -> str:
    """The configuration file.

    `port=0`: no DNS of its own. `no-ping`: addresses are reserved, and a ping before an offer costs the
    guest three seconds. An option without a value keeps dnsmasq from sending its default.

    Raises:
        ValueError: the network or an address is none, or a path holds what the file's syntax reads otherwise.
    """
    for word in (directory, interface):
        if not _WORD.match(word):
            raise ValueError(f"not a word for dnsmasq's configuration: {word!r}")
    for address in filter(None, (offer.first, offer.last, offer.router, *offer.dns.split(","))):
        ipaddress.IPv4Address(address)
    network = ipaddress.IPv4Network(offer.cidr)
    start = f"{offer.first},{offer.last}" if offer.first else f"{network.network_address},static"
    lines = [
        f"# {mark}",
        "port=0",
        "no-hosts",
        "no-resolv",
        "no-ping",
        "bind-interfaces",
        "except-interface=lo",
        f"interface={interface}",
        "dhcp-authoritative",
        f"dhcp-range={start},{network.netmask},{offer.lease_s}s",
        f"dhcp-option=option:router{_value(offer.router)}",
        f"dhcp-option=option:dns-server{_value(offer.dns)}",
        f"dhcp-hostsfile={directory}/hosts",
        f"dhcp-leasefile={directory}/leases",
        f"pid-file={directory}/pid",
        f"log-facility={directory}/log",
        "user=nobody",
        "group=nogroup",
    ]
    return "\n".join(lines) + "\n"


def _value(text: str) -> str:
    return f",{text}" if text else ""


def hosts(leases: Iterable[Lease]) -> str:
    """The reservations file: one `mac,ip,name` a line, in the order of the addresses.

    Raises:
        ValueError: a lease's MAC, address or host name is none.
    """
    ordered = sorted(leases, key=lambda lease: ipaddress.IPv4Address(lease.ip))
    return "".join(_reservation(lease) for lease in ordered)


def _reservation(lease: Lease) -> str:
    if not _MAC.match(lease.mac) or not _HOSTNAME.match(lease.hostname):
        raise ValueError(f"not a lease: {lease}")
    name = "" if lease.hostname in RESERVED_NAMES else f",{lease.hostname}"
    return f"{lease.mac},{lease.ip}{name}\n"


def serve(directory: str) -> tuple[str, ...]:
    """Start the server of a directory; it goes to the background by itself once it listens."""
    return (BINARY, f"{_CONF_FILE}{directory}/{CONFIG}")


def parse_serve(words: Sequence[str]) -> tuple[str, str]:
    """The directory that a server runs from, and what it was started with besides; "" where it has no directory.

    Args:
        words: its command line, from the program on.
    """
    files = [word for word in words[1:] if word.startswith(_CONF_FILE) and word.endswith(f"/{CONFIG}")]
    directory = files[0].removeprefix(_CONF_FILE).removesuffix(f"/{CONFIG}") if files else ""
    return directory, " ".join(word for word in words[1:] if word not in files[:1])
