"""Whether guests reach what they should and nothing else: what is to be tried, and trying it in the guests.

`plan()` is pure: from a slice's record and its guests' real addresses to checks. `run()` tries them. The
scripts that need a pipe run in the guest's own shell; addresses reach them as arguments.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from cloudrepo.errors import CloudError
from cloudrepo.guest_agent import GuestAgent, GuestResult
from cloudrepo.late_dataclass import dataclass
from cloudrepo.link_ends import ends_of, vms_of
from cloudrepo.naming import INTERNET_VLAN

Record = Mapping[str, Any]
Addresses = Mapping[int, Mapping[str, str]]
"""vm_id → interface → IPv4 address."""

Subject = Literal["link", "apart", "internet", "management"]

TCP_BYTES = 3 * 1024 * 1024
FIRST_PORT = 6000
AT_ONCE = 4

_SEND = """
head -c "$3" /dev/urandom > "/tmp/tcp-$2" && md5sum < "/tmp/tcp-$2"
for attempt in $(seq 20); do nc -w 20 "$1" "$2" < "/tmp/tcp-$2" && break; sleep 1; done
rm -f "/tmp/tcp-$2"
"""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that is tried from inside a guest.

    Attributes:
        subject: what it is about, for grouping.
        title: what is tried, in a person's words.
        guest: the VM that tries.
        words: the program in the guest; its exit status says whether it got through.
        reaches: whether it should get through.
        receiver: for TCP, the VM that listens and answers with a checksum, which must be the sender's own.
        port: for TCP, where it listens.
    """

    subject: Subject
    title: str
    guest: int
    words: tuple[str, ...]
    reaches: bool
    receiver: int | None = None
    port: int = 0


@dataclass(frozen=True)
class Verdict:
    """What came of a check: whether it went as it should, and what was found."""

    check: Check
    passed: bool
    found: str


def read_addresses(text: str) -> dict[str, str]:
    """Interface → IPv4 address, from `ip -4 -o addr show`; loopback is left out."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[2] == "inet" and words[1] != "lo":
            found[words[1]] = words[3].partition("/")[0]
    return found


def expected_interfaces(record: Record) -> dict[int, set[str]]:
    """By VM, the interfaces that should get an address: those on a VLAN."""
    return {
        int(vm["vm_id"]): {str(item["name"]) for item in vm["interfaces"] if item.get("vlan_id")}
        for vm in record["vms"]
    }


def plan(record: Record, addresses: Addresses, *, url: str, hosts: Sequence[str]) -> tuple[Check, ...]:
    """What there is to try on a slice.

    Args:
        record: the slice's record.
        addresses: what its guests really have.
        url: a page on the internet.
        hosts: management addresses that no guest may reach.
    """
    return (
        *_links(record, addresses),
        *_apart(record, addresses),
        *_internet(record, url),
        *_management(record, addresses, hosts),
    )


def _links(record: Record, addresses: Addresses) -> Iterator[Check]:
    names = _names(record)
    for link in record["links"]:
        (first, near), (second, far), *more = ends_of(link)
        for other, interface in more:
            yield Check(
                subject="link", title=f"link {link['link_id']}: {names[first]} to {names[other]}, ping", guest=first,
                reaches=True, words=("ping", "-c", "2", "-W", "3", "-I", near, addresses[other][interface]),
            )  # fmt: skip
        address = addresses[second][far]
        ends = f"link {link['link_id']}: {names[first]} to {names[second]}"
        yield Check(
            subject="link", title=f"{ends}, ping", guest=first, reaches=True,
            words=("ping", "-c", "2", "-W", "3", "-I", near, address),
        )  # fmt: skip
        port = FIRST_PORT + int(link["link_id"])
        yield Check(
            subject="link", title=f"{ends}, 3 MB over TCP", guest=first, reaches=True, receiver=second, port=port,
            words=("sh", "-c", _SEND, "send", address, str(port), str(TCP_BYTES)),
        )  # fmt: skip


def _apart(record: Record, addresses: Addresses) -> Iterator[Check]:
    """Pairs without a link: nobody answers ARP from any linked interface, nor ping by any route.

    ARP is the sharper question: Linux answers it on every card for every address it has.
    """
    names = _names(record)
    linked = {frozenset(pair) for link in record["links"] for pair in itertools.combinations(vms_of(link), 2)}
    ends = {
        int(vm["vm_id"]): [str(item["name"]) for item in vm["interfaces"] if item.get("link_id") is not None]
        for vm in record["vms"]
    }
    for first, second in itertools.combinations(sorted(ends), 2):
        if frozenset((first, second)) in linked:
            continue
        pair = f"{names[first]} and {names[second]} are not linked"
        for far in ends[second]:
            address = addresses[second][far]
            for near in ends[first]:
                yield Check(
                    subject="apart", title=f"{pair}: ARP {near} to {far}", guest=first, reaches=False,
                    words=("arping", "-c", "2", "-w", "2", "-I", near, address),
                )  # fmt: skip
            yield Check(
                subject="apart", title=f"{pair}: ping {far}", guest=first, reaches=False,
                words=("ping", "-c", "1", "-W", "2", address),
            )  # fmt: skip


def _internet(record: Record, url: str) -> Iterator[Check]:
    for vm in record["vms"]:
        enabled = _has_internet(vm)
        title = f"{vm['name']} {'fetches a page' if enabled else 'has no internet: no page'}"
        words = ("fetch", url, "6") if not enabled else ("fetch", url, "15")
        yield Check(subject="internet", title=title, guest=int(vm["vm_id"]), words=words, reaches=enabled)


def _management(record: Record, addresses: Addresses, hosts: Sequence[str]) -> Iterator[Check]:
    for vm in record["vms"]:
        own = addresses[int(vm["vm_id"])]
        # the first address of each subnet is the network node's, as a gateway
        gateways = sorted({f"{address.rpartition('.')[0]}.1" for address in own.values()})
        for address in (*hosts, *gateways):
            what = "the network node by its gateway" if address in gateways else "management"
            yield Check(
                subject="management", title=f"{vm['name']} to {what} {address}, TCP port 22",
                guest=int(vm["vm_id"]), words=("nc", "-w", "2", address, "22"), reaches=False,
            )  # fmt: skip


def _names(record: Record) -> dict[int, str]:
    return {int(vm["vm_id"]): str(vm["name"]) for vm in record["vms"]}


def _has_internet(vm: Record) -> bool:
    return any(item.get("vlan_id") == INTERNET_VLAN for item in vm["interfaces"])


def run(
    checks: Sequence[Check], guests: Mapping[int, GuestAgent], on_verdict: Callable[[Verdict], None] | None = None
) -> list[Verdict]:
    """Try everything, a few at a time; the verdicts in the order of the checks.

    Args:
        checks: what is tried.
        guests: by vm_id, agents that answer.
        on_verdict: told of each as it is known, from several threads.
    """

    def one(check: Check) -> Verdict:
        verdict = _try(check, guests)
        if on_verdict is not None:
            on_verdict(verdict)
        return verdict

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="check") as pool:
        return list(pool.map(one, checks))


def _try(check: Check, guests: Mapping[int, GuestAgent]) -> Verdict:
    """A guest that cannot try is a failed check, also where nothing should get through."""
    try:
        if check.receiver is not None:
            return _transfer(check, guests[check.guest], guests[check.receiver])
        result = guests[check.guest].run(check.words)
    except CloudError as error:
        return Verdict(check, False, str(error))
    return Verdict(check, (result.status == 0) == check.reaches, _found(result))


def _transfer(check: Check, sender: GuestAgent, receiver: GuestAgent) -> Verdict:
    """Send random bytes; they have arrived when the sender reads its own checksum from the other side."""
    with ThreadPoolExecutor(1) as pool:
        # The receiver answers with the checksum of what came, once the sender has ended its side.
        listen = ("nc", "-l", "-p", str(check.port), "-w", "30", "-e", "md5sum")
        listening = pool.submit(receiver.run, listen, timeout_s=60)
        sums = [line.split()[0] for line in sender.run(check.words, timeout_s=60).out.splitlines() if line.split()]
        listening.result()
    same = len(sums) == 2 and sums[0] == sums[1]
    return Verdict(check, same == check.reaches, "same checksum" if same else "other bytes, or none, arrived")


def _found(result: GuestResult) -> str:
    if result.status == 0:
        return "got through"
    words = (result.err or result.out).strip().splitlines()
    return f"did not get through{f' ({words[-1]})' if words else ''}"
