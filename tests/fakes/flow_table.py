"""The flows of one bridge, as `ovs-ofctl` changes and prints them: by port number inside, by name outside.

A flow keeps the number of a port that goes. It refuses words it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

FIELDS = frozenset(
    [
        "in_port",
        "dl_src",
        "dl_dst",
        "dl_vlan",
        "vlan_tci",
        "arp_sha",
        "arp_spa",
        "arp_tpa",
        "nw_src",
        "nw_dst",
        "tp_src",
        "tp_dst",
        "icmp_type",
        "ipv6_src",
        "nd_target",
        "nd_sll",
        "nd_tll",
        "metadata",
    ]
)
PROTOCOLS = frozenset(["arp", "ip", "ipv6", "udp", "icmp", "icmp6"])
ACTIONS = re.compile(
    r"drop|NORMAL|meter:\d+|pop_vlan|push_vlan:0x8100|set_field:\d+->vlan_vid|load:0x[0-9a-f]+->NXM_OF_ETH_DST\[4\.\.47\]|output:\S+",
    re.ASCII,
)
NEEDS = {
    **{name: ("arp",) for name in ("arp_sha", "arp_spa", "arp_tpa")},
    **{name: ("ip", "udp", "icmp") for name in ("nw_src", "nw_dst")},
    **{name: ("udp",) for name in ("tp_src", "tp_dst")},
    **{name: ("icmp6",) for name in ("icmp_type", "nd_target", "nd_sll", "nd_tll")},
    "ipv6_src": ("ipv6", "icmp6"),
}
METER = re.compile(
    r"meter=(\d+),((?:burst,|kbps,|pktps,|stats,)+)bands=((?:type=drop|rate=\d+|burst_size=\d+|,)+)", re.ASCII
)
METER_FEATURES = """OFPST_METER_FEATURES reply (OF1.3) (xid=0x2):
max_meter:{most} max_bands:8 max_color:0
band_types: drop
capabilities: kbps pktps burst stats
"""
BUILT_IN = "priority=0 actions=NORMAL"


class BadFlow(Exception):
    """What `ovs-ofctl` says of a text; nothing was changed."""


@dataclass
class FlowTable:
    """Flows by priority and match.

    Attributes:
        flows: (priority, match) → cookie and actions; ports in them are numbers.
        numbers: of the ports that are there.
        has_built_in: the flow of a bridge that is not closed.
        meters: by number, as they are printed.
    """

    flows: dict[tuple[int, str], tuple[int, str]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    last: int = 0
    has_built_in: bool = True
    meters: dict[int, str] = field(default_factory=dict)

    def set_ports(self, names: Iterable[str]) -> None:
        """Which ports there are now; one that is new gets a number that nobody had."""
        present = list(names)
        self.numbers = {name: number for name, number in self.numbers.items() if name in present}
        for name in present:
            if name not in self.numbers:
                self.last += 1
                self.numbers[name] = self.last

    def flush(self, *, has_built_in: bool) -> None:
        """What becomes of the flows when the bridge is closed or opened, or its switch starts."""
        self.flows, self.meters, self.has_built_in = {}, {}, has_built_in

    def change(self, text: str) -> None:
        """`ovs-ofctl --bundle add-flows`: all lines or none.

        Raises:
            BadFlow: a line is none.
        """
        flows = dict(self.flows)
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                self._line(flows, line)
            except BadFlow as error:
                raise BadFlow(f"ovs-ofctl: -:{number}: {error}") from None
        self.flows = flows

    def _line(self, flows: dict[tuple[int, str], tuple[int, str]], line: str) -> None:
        verb, _, rest = line.partition(" ")
        if verb == "delete":
            cookie = int(rest.removeprefix("cookie=").removesuffix("/-1"), 16)
            for key in [key for key, (owner, _) in flows.items() if owner == cookie]:
                del flows[key]
            return
        matched = re.fullmatch(r"cookie=(0x[0-9a-f]+),priority=(\d+),(?:(.*),)?actions=(\S+)", rest)
        if verb != "add" or matched is None:
            raise BadFlow(f"unknown keyword {rest.partition('=')[0]}")
        fields = [self._field(word) for word in (matched[3] or "").split(",") if word]
        self._require_protocols(fields)
        acted = ",".join(self._action(word) for word in matched[4].split(","))
        flows[(int(matched[2]), ",".join(fields))] = (int(matched[1], 16), acted)

    def _field(self, word: str) -> str:
        name, _, value = word.partition("=")
        if name == "in_port":
            if value not in self.numbers:
                raise BadFlow(f"{value}: invalid or unknown port for in_port")
            return f"in_port={self.numbers[value]}"
        if name not in FIELDS and word not in PROTOCOLS:
            raise BadFlow(f"unknown keyword {name}")
        return word

    def _require_protocols(self, fields: list[str]) -> None:
        """A field without its protocol is dropped by the real one without a word; here it is refused."""
        for word in fields:
            needed = NEEDS.get(word.partition("=")[0])
            if needed and not set(needed) & set(fields):
                raise BadFlow(f"{word} without {needed[0]}")

    def _action(self, word: str) -> str:
        if not ACTIONS.fullmatch(word):
            raise BadFlow(f"unknown action {word}")
        verb, _, port = word.partition(":")
        if verb == "meter" and int(port) not in self.meters:
            raise BadFlow("Error OFPMMFC_INVALID_METER")
        if verb != "output":
            return word
        if port not in self.numbers:
            raise BadFlow(f"{port}: output to unknown port")
        return f"output:{self.numbers[port]}"

    def set_meter(self, text: str, *, is_new: bool) -> None:
        """`add-meter`, `mod-meter`.

        Raises:
            BadFlow: it is there already, or not; or the text is none of a meter.
        """
        matched = re.fullmatch(
            r"meter=(\d+),((?:burst,|kbps,|pktps,|stats,)+)bands=((?:type=drop|rate=\d+|burst_size=\d+|,)+)", text
        )
        if matched is None:
            raise BadFlow(f"ovs-ofctl: not a meter: {text}")
        number = int(matched[1])
        if (number in self.meters) is is_new:
            raise BadFlow(
                f"OFPT_ERROR (OF1.3) (xid=0x2): {'OFPMMFC_METER_EXISTS' if is_new else 'OFPMMFC_UNKNOWN_METER'}"
            )
        flags = [word for word in ("kbps", "pktps", "burst", "stats") if f"{word}," in matched[2]]
        band = " ".join(matched[3].split(","))
        self.meters[number] = f"meter={number} {' '.join(flags)} bands=\n{band} \n"

    def delete_meter(self, number: int) -> None:
        """`del-meter`: flows that name it go as well."""
        self.meters.pop(number, None)
        gone = [key for key, (_, actions) in self.flows.items() if f"meter:{number}" in actions.split(",")]
        for key in gone:
            del self.flows[key]

    def dump_meters(self) -> str:
        """`dump-meters`, the last made first."""
        return "OFPST_METER_CONFIG reply (OF1.3) (xid=0x2):\n" + "\n".join(reversed(self.meters.values()))

    def dump(self, metadata: str = "") -> str:
        """`ovs-ofctl --names --no-stats dump-flows`, of those that meet `metadata=VALUE/MASK` alone if it is given."""
        if metadata:
            value, mask = (int(one, 16) for one in metadata.removeprefix("metadata=").split("/"))
            return "".join(f"{line}\n" for line in self._lines() if _metadata(line) & mask == value)
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> list[str]:
        names = {str(number): _quoted(name) for name, number in self.numbers.items()}
        lines = [BUILT_IN] if self.has_built_in else []
        for (priority, match), (cookie, actions) in self.flows.items():
            fields = [_named(word, "in_port=", names) for word in match.split(",") if word]
            acts = [_named(word, "output:", names) for word in actions.split(",")]
            lines.append(f"cookie=0x{cookie:x}, {','.join([f'priority={priority}', *fields])} actions={','.join(acts)}")
        return [f" {line}" for line in lines]


def _metadata(line: str) -> int:
    matched = re.search(r"metadata=(0x[0-9a-f]+)", line)
    return int(matched[1], 16) if matched else -1 << 64


def _named(word: str, prefix: str, names: dict[str, str]) -> str:
    if not word.startswith(prefix):
        return word
    number = word.removeprefix(prefix)
    return prefix + names.get(number, number)


def _quoted(name: str) -> str:
    """As `ofputil_port_to_string` has it: what is not plain letters and digits stands in quotes."""
    return name if name.isalnum() else f'"{name}"'
