"""Which VLANs the doctor tries, and how a person writes many of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cloudrepo.late_dataclass import dataclass

NEXT = 64  # that slices get next, one by one
SPREAD = 64  # of all others, evenly: switches are told of ranges
LOWEST, HIGHEST = 1, 4094  # IEEE 802.1Q, 9.6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The VLANs that are tried.

    Attributes:
        vlans: in order.
        of: how many slices may use.
        others: those of them that stand for all that are neither in use nor next.
    """

    vlans: tuple[int, ...]
    of: int
    others: frozenset[int] = frozenset()

    @property
    def words(self) -> str:
        """What was tried, for a person."""
        named = text(vlan for vlan in self.vlans if vlan not in self.others)
        more = f" and {len(self.others)} others" if self.others else ""
        return f"VLANs {named}{more}, {len(self.vlans)} of {self.of}"


def choose(pool: Collection[int], *, in_use: Iterable[int], upcoming: int, wanted: Collection[int] = ()) -> Choice:
    """Those in use, those that come next, and some of the rest, its ends among them.

    Args:
        pool: those that slices may use.
        in_use: by links and by the internet.
        upcoming: the one that is given next.
        wanted: exactly these instead.
    """
    usable = sorted(set(pool))
    of = len({*usable, *in_use})
    if wanted:
        return Choice(vlans=tuple(sorted(set(wanted))), of=of)
    after = [vlan for vlan in usable if vlan >= upcoming][:NEXT] or usable[:NEXT]
    rest = [vlan for vlan in usable if vlan not in after]
    spread = {rest[at * (len(rest) - 1) // (SPREAD - 1)] for at in range(SPREAD)} if rest else set()
    chosen = {*in_use, *after}
    return Choice(vlans=tuple(sorted(chosen | spread)), of=of, others=frozenset(spread - chosen))


def text(vlans: Iterable[int]) -> str:
    """As switches write them: `100-104,400`."""
    runs: list[list[int]] = []
    for vlan in sorted(set(vlans)):
        if runs and vlan == runs[-1][1] + 1:
            runs[-1][1] = vlan
        else:
            runs.append([vlan, vlan])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)


def parse(words: str) -> tuple[int, ...]:
    """The inverse of `text`.

    Raises:
        ValueError: it is no list of VLANs; says which part.
    """
    found: set[int] = set()
    for part in words.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"{part.strip()!r} is no VLAN and no range of them, such as 100-199")
        numbers = range(int(low), int(high if dash else low) + 1)
        if not numbers or numbers[0] < LOWEST or numbers[-1] > HIGHEST:
            raise ValueError(f"{part.strip()!r} is no range of VLANs: they go from {LOWEST} to {HIGHEST}")
        found.update(numbers)
    return tuple(sorted(found))
