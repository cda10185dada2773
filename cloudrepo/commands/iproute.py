"""`ip`: TAPs, namespaces and addresses, many in one `-batch` (ip(8))."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from cloudrepo.host import json_text
from cloudrepo.naming import Mark, parse_mark
from cloudrepo.resources import Address, Namespace, Tap

Line = tuple[str, ...]

NAMESPACES = "/run/netns"
GROUPS = 1 << 30  # our groups of devices have numbers from here on; a person's are small


def batch(*, namespace: str = "") -> tuple[str, ...]:
    """`ip -batch` reading its lines from stdin, in a namespace if one is named."""
    return ("ip", *(("-n", namespace) if namespace else ()), "-batch", "-")


def batch_text(lines: Iterable[Line]) -> str:
    """Lines for `ip -batch`. It splits at white space and honours quotes; no word of ours has either.

    Raises:
        ValueError: a word holds white space, a quote, a backslash or `#`.
    """
    text = []
    for line in lines:
        for word in line:
            if not word or any(letter in word for letter in " \t\n\r'\"\\#"):
                raise ValueError(f"not a word for ip -batch: {word!r}")
        text.append(" ".join(line))
    return "\n".join(text) + "\n"


def add_tap(tap: Tap) -> list[Line]:
    """A TAP of the account QEMU runs as, marked, and down until `set_up`.

    The host itself stays silent on it: no IPv6 address of its own, and no answer to a guest's ARP (with
    the userspace datapath the kernel hears every frame a guest sends). A guest that is a router could still
    give it an address; so IPv6 is switched off there as well, before it is up.
    """
    device = ("dev", tap.device)
    return [
        ("tuntap", "add", *device, "mode", "tap", "user", tap.user),
        ("link", "set", *device, "alias", str(tap.mark)),
        ("link", "set", *device, "addrgenmode", "none"),
        ("link", "set", *device, "arp", "off"),
    ]


def set_up(device: str) -> Line:
    """From now on a device takes frames."""
    return ("link", "set", "dev", device, "up")


def delete_link(device: str) -> Line:
    """Remove a device; a TAP and its queue go together."""
    return ("link", "delete", "dev", device)


def delete_links(devices: Sequence[str], *, taken: Collection[str] = ()) -> list[Line]:
    """Remove devices. Many go as a group: the kernel waits for its readers once for all, not once for each.

    Args:
        devices: what is removed.
        taken: groups that devices of the host are in; never used, since all in a group go with it.

    The group's number is made of the names, so that two messages at once do not take the same one.
    """
    if len(devices) < 2:
        return [delete_link(device) for device in devices]
    first = zlib.crc32(" ".join(devices).encode())
    group = next(number for step in itertools.count() if (number := str(GROUPS + (first + step) % GROUPS)) not in taken)
    return [*(("link", "set", "dev", device, "group", group) for device in devices), ("link", "delete", "group", group)]


def add_namespace(namespace: str) -> Line:
    """A new network namespace, kept by a mount in /run/netns."""
    return ("netns", "add", namespace)


def delete_namespace(namespace: str) -> Line:
    """Unmount it; the kernel ends it with its last process."""
    return ("netns", "delete", namespace)


def move_link(device: str, namespace: str) -> Line:
    """Put a device of this namespace into another."""
    return ("link", "set", "dev", device, "netns", namespace)


def mark_namespace(mark: Mark | None) -> list[Line]:
    """Inside a namespace: the mark is the alias of its `lo`."""
    return [("link", "set", "dev", "lo", "alias", str(mark)), ("link", "set", "dev", "lo", "up")]


def set_address(address: Address, *, stale: Iterable[str] = ()) -> list[Line]:
    """Inside the device's namespace: its addresses, its alias, and up.

    Args:
        address: what should be.
        stale: addresses that are there and should not be.
    """
    device = ("dev", address.device)
    return [
        *(("address", "delete", cidr, *device) for cidr in stale),
        *(("address", "replace", cidr, *device) for cidr in address.addresses),
        ("link", "set", *device, "alias", str(address.mark)),
        ("link", "set", *device, "up"),
    ]


def list_addresses(*, namespace: str = "") -> tuple[str, ...]:
    """Devices with details, aliases and addresses as JSON."""
    return ("ip", *(("-n", namespace) if namespace else ()), "-j", "-d", "address", "show")


def parse_taps(text: str) -> list[Tap]:
    """The TAPs in an answer of `list_addresses`."""
    return [
        Tap(
            device=row["ifname"],
            user=str(row["linkinfo"]["info_data"].get("user", "")),
            is_up="UP" in row["flags"],
            is_silent="NOARP" in row["flags"] and not row["addr_info"],
            is_held="LOWER_UP" in row["flags"] or "UP" not in row["flags"],  # one that is down does not say
            mark=parse_mark(row.get("ifalias")),
        )
        for row in _devices(text)
        if row.get("linkinfo", {}).get("info_kind") == "tun"
        and row["linkinfo"].get("info_data", {}).get("type") == "tap"
    ]


def parse_aliases(text: str) -> dict[str, Mark]:
    """The devices in an answer of `list_addresses` that carry a mark, whatever they are."""
    marks = {str(row["ifname"]): parse_mark(row.get("ifalias")) for row in _devices(text)}
    return {device: mark for device, mark in marks.items() if mark is not None}


def parse_groups(text: str) -> tuple[str, ...]:
    """The groups that the devices in an answer of `list_addresses` are in, but for the one all are born in."""
    return tuple(sorted({str(row["group"]) for row in _rows(text) if row.get("group", "default") != "default"}))


def parse_addresses(text: str, *, namespace: str = "") -> list[Address]:
    """The devices in an answer of `list_addresses`, `lo` left out; of IPv6 only whether it is spoken.

    A device that does has an address: a link-local one comes by itself and is nobody's wish.
    """
    return [
        Address(
            device=row["ifname"],
            namespace=namespace,
            addresses=tuple(
                f"{entry['local']}/{entry['prefixlen']}" for entry in row["addr_info"] if entry["family"] == "inet"
            ),
            is_up="UP" in row["flags"],
            has_ipv6=any(entry["family"] == "inet6" for entry in row["addr_info"]),
            mark=parse_mark(row.get("ifalias")),
        )
        for row in _devices(text)
        if row["ifname"] != "lo"
    ]


def parse_namespace(text: str, namespace: str) -> Namespace:
    """A namespace with the mark of its `lo`."""
    alias = next((row.get("ifalias") for row in _devices(text) if row["ifname"] == "lo"), None)
    return Namespace(namespace=namespace, mark=parse_mark(alias))


def list_routes() -> tuple[str, ...]:
    """The IPv4 routes of the main table as JSON."""
    return ("ip", "-j", "-4", "route", "show")


def parse_default_device(text: str) -> str:
    """The device of the default route with the lowest metric; an empty text without one."""
    routes = [row for row in _rows(text) if row.get("dst") == "default" and row.get("dev")]
    return str(min(routes, key=lambda row: int(row.get("metric", 0)))["dev"]) if routes else ""


def parse_connected(text: str) -> dict[str, tuple[str, ...]]:
    """Networks reached without a next hop, by device."""
    networks: dict[str, tuple[str, ...]] = {}
    for row in _rows(text):
        if row.get("dst") not in (None, "default") and "gateway" not in row and row.get("dev"):
            networks[row["dev"]] = (*networks.get(row["dev"], ()), str(row["dst"]))
    return networks


def in_namespace(namespace: str, words: Iterable[str]) -> tuple[str, ...]:
    """The words, run inside a namespace (nsenter(1)). `ip netns exec` also mounts /sys anew, which takes longer."""
    return ("nsenter", f"--net={NAMESPACES}/{namespace}", "--", *words)


def _rows(text: str) -> list[dict[str, Any]]:
    """The objects of an `ip -j` answer, which has `{}` for what it hides.

    Raises:
        ValueError: it is no list of objects.
    """
    rows = json_text.loads(text)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("ifname", ""), str) for row in rows
    ):
        raise ValueError(f"not an answer of ip -j: {text[:200]!r}")
    return [row for row in rows if row]


def _devices(text: str) -> list[dict[str, Any]]:
    """The devices of an `ip -j -d address show`; there is always one, `lo`.

    Raises:
        ValueError: there is none.
    """
    rows = _rows(text)
    if not rows:
        raise ValueError("not even lo is among the devices")
    return rows
