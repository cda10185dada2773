"""What a chain of iptables rules says of one packet: the matches that our rules use (iptables-extensions(8))."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Rule = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One packet where the filter sees it.

    Attributes:
        comes_by, goes_by: devices.
        port: the destination's.
        state: what conntrack calls it.
        is_translated: whether its connection has another source address outside.
        is_confirmed: whether a packet of its connection was let through before.
    """

    source: str
    target: str
    comes_by: str = ""
    goes_by: str = ""
    protocol: str = "tcp"
    port: int = 80
    state: str = "NEW"
    is_translated: bool = False
    is_confirmed: bool = False

    @property
    def states(self) -> set[str]:
        """As `--ctstate` sees it: the virtual state too."""
        return {self.state, *(["SNAT"] if self.is_translated else [])}


def accepts(rules: Sequence[Rule], hook: str, packet: Packet) -> bool:
    """Whether a built-in chain of `filter` lets a packet through; what no rule speaks of is accepted."""
    return _verdict(rules, hook, packet) != "DROP"


def _verdict(rules: Sequence[Rule], chain: str, packet: Packet) -> str:
    for table, words in rules:
        if table != "filter" or words[1] != chain:
            continue
        target = words[words.index("-j") + 1]
        if all(holds for holds in _matches(words[2:], packet)):
            verdict = target if target in ("ACCEPT", "DROP") else _verdict(rules, target, packet)
            if verdict:
                return verdict
    return ""


def _matches(words: Sequence[str], packet: Packet) -> Iterator[bool]:
    rest = list(words)
    while rest:
        is_negated = rest[0] == "!"
        name, value, *rest = rest[1:] if is_negated else rest
        if name in ("-m", "-j", "--comment"):
            continue
        yield _match(name, value, packet) is not is_negated


def _match(name: str, value: str, packet: Packet) -> bool:
    match name:
        case "-s" | "-d":
            address = packet.source if name == "-s" else packet.target
            return ipaddress.IPv4Address(address) in ipaddress.IPv4Network(value)
        case "-i":
            return packet.comes_by == value
        case "-o":
            return packet.goes_by == value
        case "-p":
            return packet.protocol == value
        case "--dport":
            return packet.port == int(value)
        case "--ctstate":
            return bool(packet.states & set(value.split(",")))
        case "--ctstatus":
            return value == "CONFIRMED" and packet.is_confirmed
    raise ValueError(f"no match of ours: {name}")
