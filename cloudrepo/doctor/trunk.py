"""What it means where a tagged frame was not heard, or was answered by a stranger. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import permutations

from cloudrepo.doctor import vlans
from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.doctor.trial import CARRIED, FULL_SIZE, Heard, Kind, Sent, Trial

Pair = tuple[str, str]  # who sends, who should hear
Devices = Mapping[str, str]  # by MAC, in words where it is


def judge(
    trial: Trial, heard: Heard, tried: str, own: Collection[str] = (), devices: Devices | None = None
) -> list[Finding]:
    """What is wrong between the hosts.

    Args:
        trial: what was sent.
        heard: where it came out.
        tried: which VLANs, in words.
        own: MACs of our own DHCP servers.
        devices: by MAC, the devices of the hosts in words.
    """
    found = [*_vlans(trial, heard), *_middle(trial, heard)]
    found += _servers(trial, heard, own, devices or {})
    if not found:
        text = f"tagged frames pass between all {len(trial.hosts)} hosts, whole ones and control frames too: {tried}"
        found.append(Finding(code="hosts.vlan", level=Level.OK, text=text))
    return found


# -- VLANs -------------------------------------------------------------------------------


def _vlans(trial: Trial, heard: Heard) -> Iterator[Finding]:
    """One finding for each set of VLANs that is lost between the same hosts."""
    lost: dict[frozenset[Pair], list[int]] = {}
    for vlan in trial.vlans:
        pairs = _lost(trial, heard, vlan)
        if pairs:
            lost.setdefault(pairs, []).append(vlan)
    for pairs, numbers in lost.items():
        is_all = len(numbers) == len(trial.vlans)
        named = "any VLAN" if is_all else _named(numbers)
        for where, hosts in _where(trial.hosts, pairs):
            yield Finding(
                code="hosts.vlan",
                level=Level.WRONG,
                text=f"frames in {named} are lost {where}",
                evidence=_changed(heard, pairs, numbers),
                remedy=_carry(numbers, hosts, is_all=is_all),
                hosts=hosts,
            )


def _lost(trial: Trial, heard: Heard, vlan: int) -> frozenset[Pair]:
    pairs = permutations(trial.hosts, 2)
    return frozenset((a, b) for a, b in pairs if (Sent(Kind.SMALL, a, vlan), b) not in heard.tagged)


def _named(numbers: Sequence[int]) -> str:
    return f"VLAN{'s' if len(numbers) > 1 else ''} {vlans.text(numbers)}"


def _where(hosts: Sequence[str], lost: frozenset[Pair]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Between which hosts, in as few words as say it all, and whose doing it is."""
    if lost and len(lost) == len(hosts) * (len(hosts) - 1):
        yield "between all hosts" if len(hosts) > 2 else f"between {hosts[0]} and {hosts[1]}", tuple(hosts)
        return
    left = set(lost)
    for host in hosts:
        others = [other for other in hosts if other != host]
        is_mute = all((host, other) in lost for other in others)
        is_deaf = all((other, host) in lost for other in others)
        if is_mute and is_deaf:
            yield f"between {host} and all others", (host,)
        elif is_mute or is_deaf:
            yield f"{'from' if is_mute else 'to'} {host}", (host,)
        left -= {pair for pair in left if (is_mute and pair[0] == host) or (is_deaf and pair[1] == host)}
    for a, b in sorted(left):
        if (b, a) not in left:
            yield f"from {a} to {b}", (a, b)
        elif a < b:
            yield f"between {a} and {b}", (a, b)


def _changed(heard: Heard, pairs: Collection[Pair], numbers: Collection[int]) -> str:
    came = any((Sent(Kind.SMALL, a, vlan), b) in heard.changed for a, b in pairs for vlan in numbers)
    return "they come without their tag, or in another VLAN: a port there is an access port" if came else ""


def _carry(numbers: Sequence[int], hosts: Sequence[str], *, is_all: bool) -> str:
    where = "the switch ports of the hosts" if len(hosts) != 1 else f"the switch port of {hosts[0]}"
    if is_all:
        return f"Join the uplinks by one switch, and make {where} trunks (IEEE 802.1Q) that carry all VLANs of labs"
    carried = vlans.text(numbers)
    return (
        f"Let {where}, and trunks between switches, carry {carried}. "
        f"Cisco: `switchport trunk allowed vlan add {carried}`; "
        f"Linux bridge: `bridge vlan add dev PORT vid {carried.partition(',')[0]}`. "
        "Or leave them out: vlan.first, vlan.last and vlan.reserved in settings.yaml"
    )


# -- whole frames and control frames ----------------------------------------------------

_SWITCH_MTU = (
    f"Let the switch ports between them take frames of {FULL_SIZE + 22} bytes: {FULL_SIZE} and their headers with a "
    f"tag. Cisco: `system mtu {FULL_SIZE + 4}`; Linux: `ip link set dev PORT mtu {FULL_SIZE}`"
)
_SWITCH_MULTICAST = (
    "Let the switch forward multicast that nobody asked for in the VLANs of labs: links that allow bridging need it. "
    "Cisco: `no ip igmp snooping vlan VLAN`, and no `switchport block multicast`; Linux bridge: "
    "`ip link set dev BRIDGE type bridge mcast_snooping 0`, and `bridge link set dev PORT mcast_flood on`"
)


def _middle(trial: Trial, heard: Heard) -> Iterator[Finding]:
    """What is lost in every VLAN in which short frames pass."""
    whole = [host for host in trial.hosts if trial.takes_whole(host)]
    for kind, hosts, what, remedy in (
        (Kind.FULL, whole, f"frames of {FULL_SIZE} bytes", _SWITCH_MTU),
        (Kind.CONTROL, trial.hosts, f"bridges' own frames (sent to {CARRIED})", _SWITCH_MULTICAST),
    ):
        lost = frozenset(pair for pair in permutations(hosts, 2) if _is_lost(trial, heard, kind, pair))
        is_full = kind is Kind.FULL
        for where, about in _where(hosts, lost):
            yield Finding(
                code="hosts.mtu" if is_full else "hosts.control",
                level=Level.WRONG if is_full else Level.WARNING,
                text=f"{what} are lost {where}, shorter ones pass" if is_full else f"{what} are lost {where}",
                remedy=remedy,
                hosts=about,
            )


def _is_lost(trial: Trial, heard: Heard, kind: Kind, pair: Pair) -> bool:
    """Whether short frames pass and these do not, in any VLAN that both were tried in."""
    a, b = pair
    passing = [vlan for vlan in trial.middle if (Sent(Kind.SMALL, a, vlan), b) in heard.tagged]
    return bool(passing) and not any((Sent(kind, a, vlan), b) in heard.tagged for vlan in passing)


# -- DHCP servers ------------------------------------------------------------------------


def _servers(trial: Trial, heard: Heard, own: Collection[str], devices: Devices) -> Iterator[Finding]:
    """Who answered although only our own servers should."""
    strangers: dict[str, dict[int, str]] = {}
    for vlan, offers in heard.offers.items():
        for offer in offers:
            if offer.mac not in own:
                strangers.setdefault(offer.mac, {})[vlan] = offer.server or offer.address
    for mac, answers in sorted(strangers.items()):
        named = _named(sorted(answers))
        where = devices.get(mac, "")
        yield Finding(
            code="hosts.dhcp",
            level=Level.WRONG,
            text=f"a DHCP server that is not ours answers on {named}",
            evidence=f"{', '.join(sorted(set(answers.values())))} at {mac}" + (f", {where}" if where else ""),
            remedy=(f"Stop it: it is {where}" if where else _trace(mac))
            + f"; or take {named} from the trunk, if it serves others",
            hosts=(where.partition(" ")[0],) if where else (),
        )


def _trace(mac: str) -> str:
    dotted = mac.replace(":", "")
    cisco = ".".join(dotted[at : at + 4] for at in (0, 4, 8))
    return (
        f"Find its switch port and stop it there. Cisco: `show mac address-table address {cisco}`; "
        f"Linux bridge: `bridge fdb show | grep {mac}`"
    )


def by_mac(found: Iterable[tuple[str, str, str, str]]) -> dict[str, str]:
    """Devices in words, from host, namespace ("" = the host's own), device and MAC."""
    return {mac: f"{host} {device}" + (f" in namespace {space}" if space else "") for host, space, device, mac in found}
