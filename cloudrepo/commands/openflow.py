"""`ovs-ofctl`: the flows of the integration bridge, ours by their cookie (ovs-ofctl(8), ovs-fields(7)).

A flow is a priority, a match and actions, in the words in which `dump-flows` prints them, so that what is wanted and
what is seen compare as they are. Ports are named: a number may change when a port is made anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Flow = tuple[int, str, str]  # priority, match, actions

TIMEOUT_S = 20
#: Named, since `dump-flows` spells actions by version.
PROTOCOL = ("-O", "OpenFlow13")
_TOOL = ("ovs-ofctl", f"--timeout={TIMEOUT_S}", *PROTOCOL)
#: A cookie of nought, a priority of 32768 and a match of everything are not printed.
_LINE = re.compile(
    r"\s*(?:cookie=(?P<cookie>0x[0-9a-f]+), )?(?:table=(?P<table>\w+), )?"
    r"(?:(?!cookie=|table=)(?P<match>\S+) )?actions=(?P<actions>\S+)\Z",
    re.ASCII,
)
DEFAULT_PRIORITY = 32768
LARGEST_KBIT = 600  # a packet of 64 KiB, rounded up
_METER = re.compile(r"meter=(?P<number>\w+) (?P<flags>[a-z ]*)bands=\Z", re.ASCII)
#: What a bridge without `fail_mode=secure` has by itself.
BUILT_IN = (0, "", "NORMAL")


def flow(priority: int, match: Iterable[str], actions: str) -> Flow:
    """A flow with its match in one order, whatever the tool's."""
    return (priority, ",".join(sorted(match)), actions)


def sign(cookie: int) -> Flow:
    """One flow of each cookie that no frame meets: by it alone one sees that the others were set.

    A frame comes in without metadata (ovs-fields(7)); only a table before this one could give it some.
    """
    return (0, f"metadata=0x{cookie:x}", "drop")


def list_signs(bridge: str, first: int) -> tuple[str, ...]:
    """The signs of the 2**32 cookies from `first` on: a line for each, where `dump` has thousands."""
    return (*dump(bridge), f"metadata=0x{first:x}/0xffffffff00000000")


def change(bridge: str) -> tuple[str, ...]:
    """Change flows as `change_text` says, all or none of them."""
    return ("ovs-ofctl", f"--timeout={TIMEOUT_S}", *PROTOCOL, "--bundle", "add-flows", bridge, "-")


def change_text(*, remove: Iterable[int] = (), add: Mapping[int, Iterable[Flow]] | None = None) -> str:
    """Standard input of `change`: all flows of some cookies away, then new ones in.

    Args:
        remove: cookies.
        add: by cookie, its flows.

    Raises:
        ValueError: a word that would be read as something else.
    """
    lines = [f"delete cookie=0x{cookie:x}/-1" for cookie in remove]
    for cookie, flows in (add or {}).items():
        for priority, match, actions in flows:
            words = [f"cookie=0x{cookie:x}", f"priority={priority}", *([match] if match else []), f"actions={actions}"]
            line = "add " + ",".join(words)
            if any(letter in line[4:] for letter in " \t\n#"):
                raise ValueError(f"not a flow: {line!r}")
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def limit(rate_kbps: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flags and bands of a meter that drops what comes faster than a rate in kbit/s.

    It lets a fifth of a second through at once, and one packet of 64 KiB always: that is what a guest hands over
    where the network card cuts it into frames.
    """
    return ("burst", "kbps"), (f"type=drop rate={rate_kbps} burst_size={max(LARGEST_KBIT, rate_kbps // 5)}",)


def set_meter(bridge: str, number: int, flags: Iterable[str], bands: Iterable[str], *, is_new: bool) -> tuple[str, ...]:
    """Make a meter, or change one that flows may name. One call each: a bundle takes none."""
    words = [f"meter={number}", *flags, f"bands={','.join(','.join(band.split()) for band in bands)}"]
    return (*_TOOL, "add-meter" if is_new else "mod-meter", bridge, ",".join(words))


def delete_meter(bridge: str, number: int) -> tuple[str, ...]:
    """Remove a meter, and with it all flows that name it; none is fine."""
    return (*_TOOL, "del-meter", bridge, f"meter={number}")


def list_meters(bridge: str) -> tuple[str, ...]:
    """All meters."""
    return (*_TOOL, "dump-meters", bridge)


def parse_meters(text: str) -> dict[int, tuple[tuple[str, ...], tuple[str, ...]]]:
    """By number, flags and bands; those that have a name instead are the switch's own.

    Raises:
        ValueError: a line that is of no meter.
    """
    found: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    number = 0
    for line in filter(None, map(str.strip, text.splitlines())):
        head = _METER.match(line)
        if head is not None:
            number = int(head["number"]) if head["number"].isdecimal() else 0
            found[number] = (tuple(sorted(head["flags"].split())), ())
        elif line.startswith("type=") and number in found:
            flags, bands = found[number]
            found[number] = (flags, (*bands, line))
        elif " reply (" not in line and "_REPLY (" not in line and not line.startswith("OFPST_METER"):
            raise ValueError(f"not a meter: {line[:200]!r}")
    found.pop(0, None)
    return found


def meter_features(bridge: str) -> tuple[str, ...]:
    """What the bridge can do with meters."""
    return (*_TOOL, "meter-features", bridge)


def parse_meter_features(text: str) -> bool:
    """Whether it has meters that drop by kilobits.

    Raises:
        ValueError: it does not say.
    """
    most = re.search(r"max_meter:(\d+)", text)
    if most is None:
        raise ValueError(f"no features of meters: {text[:200]!r}")
    return int(most[1]) > 0 and re.search(r"^band_types:.*\bdrop\b", text, re.M) is not None and "kbps" in text


def dump(bridge: str) -> tuple[str, ...]:
    """All flows, with names for port numbers."""
    return ("ovs-ofctl", f"--timeout={TIMEOUT_S}", *PROTOCOL, "--names", "--no-stats", "dump-flows", bridge)


def parse_dump(text: str) -> dict[int, tuple[Flow, ...]]:
    """By cookie, the flows of table 0; those of other tables are others' and lead nowhere without one in table 0.

    Raises:
        ValueError: a line that is no flow.
    """
    found: dict[int, list[Flow]] = {}
    for line in text.splitlines():
        if not line.strip() or " reply (" in line:
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"not a flow: {line[:200]!r}")
        if match["table"] is None:
            cookie = int(match["cookie"] or "0", 16)
            found.setdefault(cookie, []).append(_flow(match["match"] or "", match["actions"]))
    return {cookie: tuple(sorted(flows)) for cookie, flows in found.items()}


def _flow(text: str, actions: str) -> Flow:
    """A flow as printed; the tool quotes names that are not plain words, and no name of a device holds a quote."""
    text, actions = text.replace('"', ""), actions.replace('"', "")
    fields = [word for word in text.split(",") if word]
    named = [word for word in fields if word.startswith("priority=")]
    priority = int(named[0].partition("=")[2]) if named else DEFAULT_PRIORITY
    return flow(priority, [word for word in fields if not word.startswith("priority=")], actions)
