"""What a switch would do with a frame, asked of it and read: `ofproto/trace` of ovs-vswitchd(8). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import flow_owner, parse_cookie

Words = tuple[str, ...]
TIMEOUT_S = 10

_RULE = re.compile(r"\s*\d+\. (?P<match>.*?),? ?priority (?P<priority>\d+)(?:, cookie (?P<cookie>0x[0-9a-f]+))?\Z")
_END = "Datapath actions:"
_MAC = "(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"
_LEARNED = re.compile(rf"\s*(?P<port>\d+|LOCAL)\s+(?P<vlan>\d+)\s+(?P<mac>{_MAC})\s+(?P<age>\d+|static)\Z")
_LOCAL = 65534  # the bridge's own port in OpenFlow, OFPP_LOCAL without its upper bits
_NAME = re.compile(r"[A-Za-z_][\w.-]*\Z")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A flow that a frame met: its match, priority, cookie and actions, as the switch says them."""

    match: str
    priority: int
    cookie: int
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"priority {self.priority}, {self.match or 'any frame'}: {', '.join(self.actions) or 'drop'}"


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Behind which port a switch heard a MAC.

    Attributes:
        port: its number in OpenFlow.
        vlan: in which VLAN.
        mac: which one, in small letters.
        age_s: seconds since it heard it there last; None = somebody put it there, and it stays.
    """

    port: int
    vlan: int
    mac: str
    age_s: int | None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What becomes of a frame in one switch.

    Attributes:
        rules: the flows it meets, in order; none = no flow is for it.
        ports: the ports by which it leaves.
        learned: where the switch heard the MAC that the frame is addressed to, by VLAN.
    """

    rules: Sequence[Rule] = ()
    ports: tuple[str, ...] = ()
    learned: tuple[Learned, ...] = ()


def ask(bridge: str, port: str, frame: bytes) -> Words:
    """Have the switch say what it would do with these bytes; nothing is sent."""
    return (*_ask(bridge), f"in_port={port}", frame.hex())


def ask_learned(bridge: str) -> Words:
    """Have the switch say behind which port it heard which MAC."""
    return ("ovs-appctl", f"--timeout={TIMEOUT_S}", "fdb/show", bridge)


def ask_learned_by_hand(bridge: str) -> str:
    """The same as a person would type it."""
    return f"sudo ovs-appctl fdb/show {bridge}"


def read_learned(text: str) -> tuple[Learned, ...]:
    """Read the answer to `ask_learned`; lines that are none of its rows are passed over."""
    rows = [row for row in map(_LEARNED.match, text.splitlines()) if row is not None]
    return tuple(
        Learned(
            port=_LOCAL if row["port"] == "LOCAL" else int(row["port"]),
            vlan=int(row["vlan"]),
            mac=row["mac"],
            age_s=None if row["age"] == "static" else int(row["age"]),
        )
        for row in rows
    )


def destination(frame: bytes) -> str:
    """The MAC that a frame is addressed to."""
    return frame[:6].hex(":")


def ask_by_hand(bridge: str, port: str, source: str, destination: str, vlan: int | None = None) -> str:
    """Nearly the same as a person would type it."""
    tag = f",dl_vlan={vlan}" if vlan is not None else ""
    flow = f"in_port={port},dl_src={source},dl_dst={destination}{tag}"
    return f"sudo ovs-appctl ofproto/trace --names {bridge} {flow}"


def _ask(bridge: str) -> Words:
    return ("ovs-appctl", f"--timeout={TIMEOUT_S}", "ofproto/trace", "--names", bridge)


def tagged(frame: bytes, vlan: int) -> bytes:
    """A frame as it travels between hosts."""
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]


def read(text: str) -> Trace:
    """Read an answer.

    Raises:
        ValueError: it is none.
    """
    rules: list[Rule] = []
    actions: list[str] = []
    ports: tuple[str, ...] | None = None
    for line in text.splitlines():
        found = _RULE.match(line)
        if line.startswith(_END):
            ports = _ports(line.removeprefix(_END))
        elif found is not None:
            actions = []
            rules.append(
                Rule(
                    match=found["match"].replace('"', ""),
                    priority=int(found["priority"]),
                    cookie=int(found["cookie"] or "0", 16),
                    actions=(),
                )
            )
        elif rules and ports is None and line.startswith("    ") and not line.strip().startswith("->"):
            actions.append(line.strip().replace('"', ""))
            last = rules[-1]
            rules[-1] = Rule(match=last.match, priority=last.priority, cookie=last.cookie, actions=tuple(actions))
    if ports is None:
        raise ValueError(f"no answer of ofproto/trace: {text[:200]!r}")
    return Trace(rules=tuple(rules), ports=ports)


def _ports(text: str) -> tuple[str, ...]:
    """Names among the actions of a datapath; what has brackets is something else, and so is `drop`."""
    bare = re.sub(r"\w+\([^()]*(?:\([^()]*\)[^()]*)*\)", "", text)
    words = [word.strip().strip('"') for word in bare.split(",")]
    return tuple(word for word in words if _NAME.match(word) and word not in ("drop", "pop_vlan", "push_vlan"))


def owner(rule: Rule, installation: str) -> str:
    """Whose a flow is, in words."""
    mark = parse_cookie(rule.cookie)
    if mark is None:
        return "nobody that is known here"
    return flow_owner(mark) if mark.installation == installation else "somebody else"
