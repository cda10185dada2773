"""In what two objects of one name differ: what should be, what was found, in a person's words. Pure.

An object needs no change when nothing is found here. A drift report says what this finds.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloudrepo import limits
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import UNFINISHED
from cloudrepo.remembrance import SET_WITHOUT_A_HOST
from cloudrepo.resources import (
    Address,
    Closure,
    DhcpServer,
    Disk,
    Firewall,
    Flows,
    Machine,
    Meter,
    Namespace,
    Port,
    Process,
    Resource,
    Tap,
    Wiring,
)

NOTHING = "none"
#: What QMP calls a machine that needs no help: one that did not answer is not judged, and one may suspend itself.
RUNNING = ("", "running", "suspended")
_LONGEST = 160  # characters of a value that are shown


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One thing in which what was found is not what is wanted.

    Attributes:
        what: such as `tag`.
        wanted, found: the two values, as text.
    """

    what: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.what} {self.found}, wanted {self.wanted}"


def is_same(wanted: Resource, found: Resource) -> bool:
    """Whether `found` needs no change."""
    return next(_aspects(wanted, found), None) is None


def aspects(wanted: Resource, found: Resource) -> tuple[Aspect, ...]:
    """All in which two objects of one key differ."""
    return tuple(_aspects(wanted, found))


def _aspects(wanted: Resource, found: Resource) -> Iterator[Aspect]:
    yield from _OF_KIND[type(wanted)](wanted, found)


def _differ(what: str, wanted: object, found: object) -> Iterator[Aspect]:
    if wanted != found:
        yield Aspect(what=what, wanted=_text(wanted), found=_text(found))


def _state(what: str, wanted: object, found: object, said: str, instead: str) -> Iterator[Aspect]:
    """A truth value, in words."""
    if wanted != found:
        words = {wanted: said, found: instead}
        yield Aspect(what=what, wanted=words[wanted], found=words[found])


def _text(value: object) -> str:
    if value is None or value == () or value == "":
        return NOTHING
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    if isinstance(value, Process):
        return str(value.pid)
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _mark(wanted: Resource, found: Resource) -> Iterator[Aspect]:
    """Its mark. One that other evidence stands in for is none of its own."""
    has_own = getattr(found, "is_marked", True) and found.mark is not None and found.mark.scope != UNFINISHED
    if wanted.mark != found.mark or not has_own:
        yield Aspect(what="mark", wanted=_text(wanted.mark), found=_text(found.mark) if has_own else NOTHING)


def _tap(wanted: Tap, found: Tap) -> Iterator[Aspect]:
    yield from _mark(wanted, found)
    yield from _differ("owner", wanted.user, found.user)
    yield from _state("state", wanted.is_up, found.is_up, "up", "down")
    yield from _state("the host", wanted.is_silent, found.is_silent, "silent on it", "answers on it")
    yield from _state("the host's IPv6", wanted.has_ipv6, found.has_ipv6, "off on it", "on")


def _port(wanted: Port, found: Port) -> Iterator[Aspect]:
    yield from _mark(wanted, found)
    yield from _differ("bridge", wanted.bridge or "the integration bridge", found.bridge or "the integration bridge")
    yield from _differ("type", _port_type(wanted), _port_type(found))
    yield from _differ("tag", wanted.tag, found.tag)
    yield from _differ("trunks", wanted.trunks, found.trunks)
    if (found.vlan_mode or "access") != (wanted.vlan_mode or "access"):
        yield Aspect(what="VLAN mode", wanted=wanted.vlan_mode or "access", found=found.vlan_mode or "access")
    yield from _differ("outer tag", wanted.outer, found.outer)
    yield from _differ("inner tags", wanted.cvlans, found.cvlans)
    yield from _differ("MAC", wanted.mac, found.mac)
    yield from _state("device", wanted.has_device, found.has_device, "there", "gone")


def _port_type(port: Port) -> str:
    return port.odd_type or ("internal" if port.is_internal else "system")


def _closure(wanted: Closure, found: Closure) -> Iterator[Aspect]:
    yield from _mark(wanted, found)
    yield from _state("fail_mode", wanted.is_closed, found.is_closed, "secure", "standalone")


def _flows(wanted: Flows, found: Flows) -> Iterator[Aspect]:
    for flow in wanted.flows:
        if flow not in found.flows:
            yield Aspect(what="flow", wanted=_flow(flow), found=NOTHING)
    for flow in found.flows:
        if flow not in wanted.flows:
            yield Aspect(what="flow", wanted=NOTHING, found=_flow(flow))


def _meter(wanted: Meter, found: Meter) -> Iterator[Aspect]:
    yield from _mark(wanted, found)
    yield from _differ("flags", wanted.flags, found.flags)
    yield from _differ("bands", wanted.bands, found.bands)


def _flow(flow: tuple[int, str, str]) -> str:
    priority, match, actions = flow
    return f"priority={priority}{',' if match else ''}{match} actions={actions}"


def _namespace(wanted: Namespace, found: Namespace) -> Iterator[Aspect]:
    yield from _mark(wanted, found)


def _address(wanted: Address, found: Address) -> Iterator[Aspect]:
    yield from _mark(wanted, found)
    yield from _differ("namespace", wanted.namespace or "the node's own", found.namespace or "the node's own")
    yield from _differ("addresses", tuple(sorted(wanted.addresses)), tuple(sorted(found.addresses)))
    yield from _state("state", wanted.is_up, found.is_up, "up", "down")
    if not wanted.namespace:
        yield from _state("IPv6", wanted.has_ipv6, found.has_ipv6, "closed", "open")


def _server(wanted: DhcpServer, found: DhcpServer) -> Iterator[Aspect]:
    yield from _mark(wanted, found)
    yield from _state("process", wanted.is_running, found.is_running, "running", "none")
    if found.is_running:
        yield from _differ("further arguments", wanted.arguments, found.arguments)
        yield from _state("namespace", wanted.is_in_place, found.is_in_place, wanted.namespace, "one without a name")
    yield from _differ("further processes", wanted.strays, found.strays)
    yield from _lines("configuration", wanted.config, found.config)
    yield from _lines("reservations", wanted.hosts, found.hosts)


def _lines(what: str, wanted: str, found: str) -> Iterator[Aspect]:
    """The lines that differ, each side by itself."""
    if wanted == found:
        return
    gone, extra = [], []
    for line in difflib.ndiff(found.splitlines(), wanted.splitlines()):
        if line.startswith("- "):
            extra.append(line[2:])
        elif line.startswith("+ "):
            gone.append(line[2:])
    yield Aspect(what=what, wanted=_text(" | ".join(gone)), found=_text(" | ".join(extra)))


def _firewall(wanted: Firewall, found: Firewall) -> Iterator[Aspect]:
    """Rules in order within their chain; the order of chains, and of jumps from others' chains, means nothing."""
    missing = [rule for rule in wanted.rules if rule not in found.rules]
    extra = [rule for rule in found.rules if rule not in wanted.rules]
    for rule in missing:
        yield Aspect(what="rule", wanted=_rule(rule), found=NOTHING)
    for rule in extra:
        yield Aspect(what="rule", wanted=NOTHING, found=_rule(rule))
    there = _by_chain(found)
    for chain, rules in _by_chain(wanted).items():
        yield from _order(chain[0], rules, there.get(chain, []))
    yield from _state("jumps", wanted.is_first, found.is_first, "first", "behind rules of others")
    for device in wanted.forwarding:
        if device not in found.forwarding:
            yield Aspect(what=f"forwarding by {device}", wanted="on", found="off")


def _order(table: str, wanted: list[tuple[str, ...]], found: list[tuple[str, ...]]) -> Iterator[Aspect]:
    """Of a chain that has the right rules and no others: the first that is not in its place, or is there twice."""
    if set(wanted) != set(found) or wanted == found:
        return
    places = itertools.zip_longest(wanted, found, fillvalue=())
    right, wrong = next((right, wrong) for right, wrong in places if right != wrong)
    words = [_rule((table, rule)) if rule else NOTHING for rule in (right, wrong)]
    yield Aspect(what="order", wanted=words[0], found=words[1])


def _rule(rule: tuple[str, tuple[str, ...]]) -> str:
    return f"{rule[0]} {' '.join(rule[1])}"


def _by_chain(firewall: Firewall) -> dict[tuple[str, str], list[tuple[str, ...]]]:
    chains: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for table, words in firewall.rules:
        chains.setdefault((table, words[1]), []).append(words)
    return chains


def _machine(wanted: Machine, found: Machine) -> Iterator[Aspect]:
    yield from _mark(wanted, found)
    yield from _differ("UUID", wanted.uuid, found.uuid)
    yield from _state("process", wanted.is_running, found.is_running, "running", "none")
    yield from _differ("further processes", wanted.strays, found.strays)
    if not found.is_running:
        return
    yield from _state("pid file", wanted.is_recorded, found.is_recorded, "names its process", "does not name it")
    if found.status not in RUNNING:
        yield Aspect(what="process", wanted="running", found=found.status)
    yield from _differ("TAPs it does not hold", wanted.lost, found.lost)
    for what, wish, there in limits.differences(wanted.limits, found.limits) if wanted.limits is not None else ():
        yield Aspect(what=what, wanted=wish, found=there)
    if wanted.spec is not None and found.wiring is not None:
        yield from _wiring(wanted.spec.wiring, found.wiring)
    if wanted.spec is not None:
        yield from _differ("plugged NICs", wanted.spec.plugged, found.plugged)


def _wiring(wanted: Wiring, found: Wiring) -> Iterator[Aspect]:
    yield from _differ("disk", wanted.disk, found.disk)
    yield from _differ("cores", wanted.cores, found.cores)
    yield from _differ("RAM in MiB", wanted.ram_mib, found.ram_mib)
    yield from _differ("VNC port", wanted.vnc_port, found.vnc_port)
    yield from _differ("NICs", wanted.nics, found.nics)
    yield from _differ("seed", wanted.seed, found.seed)


def _disk(wanted: Disk, found: Disk) -> Iterator[Aspect]:
    if wanted.is_marked and not found.is_marked:
        yield Aspect(what="mark", wanted=str(wanted.mark), found=NOTHING)
        return
    yield from _differ("mark", wanted.mark, found.mark)
    yield from _differ("path", wanted.path, found.path)
    yield from _differ("file", wanted.file, found.file)
    yield from _state("base image", wanted.has_base, found.has_base, "there", "gone")
    yield from _differ("kept copy", *("there" if one.is_kept else NOTHING for one in (wanted, found)))
    if found.file == "there":
        yield from _differ("owner", wanted.owner, found.owner)
        yield from _differ("mode", *(NOTHING if one.mode is None else f"{one.mode:04o}" for one in (wanted, found)))
    for key in sorted({**wanted.record, **found.record}):
        if key not in SET_WITHOUT_A_HOST and wanted.record.get(key) != found.record.get(key):
            yield Aspect(
                what=f"{key} in its mark file", wanted=_value(wanted.record, key), found=_value(found.record, key)
            )


def _value(record: Mapping[str, Any], key: str) -> str:
    return _text(json.dumps(record[key], sort_keys=True)) if key in record else NOTHING


_OF_KIND: dict[type[Resource], Callable[[Any, Any], Iterator[Aspect]]] = {
    Tap: _tap,
    Port: _port,
    Closure: _closure,
    Flows: _flows,
    Meter: _meter,
    Namespace: _namespace,
    Address: _address,
    DhcpServer: _server,
    Firewall: _firewall,
    Machine: _machine,
    Disk: _disk,
}
