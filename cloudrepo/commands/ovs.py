"""`ovs-vsctl`: ports of the integration bridge, many in one transaction (ovs-vsctl(8))."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import MARK_KEY, TAP_PREFIX, Mark, parse_mark, require_device
from cloudrepo.resources import Closure, Port

TIMEOUT_S = 20
OUTER_KEY = "qinq-ethtype"


def transaction(
    bridge: str,
    *,
    add: Iterable[Port] = (),
    remove: Iterable[str] = (),
    astray: Iterable[str] = (),
    untrunk: Iterable[str] = (),
    close: Closure | None = None,
    open_: Closure | None = None,
) -> tuple[str, ...]:
    """One all-or-nothing transaction: ports away, ports in, each with tag, type and mark.

    `--may-exist add-port` does not retag a port that is there, so the tag is set as well.

    Args:
        bridge: the integration bridge.
        add: ports to make or to set right.
        remove: names of ports to take away; absent ones are accepted.
        astray: names of ports to take away from whatever other bridge they are on.
        untrunk: names of ports that are there and carry more than their tag, or others in it; before `add`.
        close: have the bridge forward nothing but by a flow. Where it did not, that flushes its flows.
        open_: take our mark from the closed bridge; it is opened unless it stays closed for others.

    Raises:
        ValueError: a name that no network device can have, or that reads as an option.
    """
    words: list[str] = ["ovs-vsctl", f"--timeout={TIMEOUT_S}"]
    if close is not None:
        words += ["--", "set", "Bridge", bridge, "fail_mode=secure", _closure_column(close.mark)]
    for name in remove:
        words += ["--", "--if-exists", "del-port", bridge, require_device(name)]
    for name in astray:
        words += ["--", "--if-exists", "del-port", require_device(name)]
    for name in untrunk:
        words += ["--", "clear", "Port", require_device(name), "trunks", "vlan_mode", "cvlans"]
        words += ["--", "remove", "Port", name, "other_config", OUTER_KEY]
    for port in add:
        words += ["--", "--may-exist", "add-port", bridge, require_device(port.device)]
        words += ["--", "set", "Port", port.device, f"tag={port.tag}", *_tunnel(port), _mark_column(port.mark)]
        if port.is_internal:
            mac = [f'mac="{port.mac}"'] if port.mac else []
            words += ["--", "set", "Interface", port.device, "type=internal", *mac]
    if open_ is not None:
        words += ["--", "remove", "Bridge", bridge, "external_ids", _closure_key(open_.mark)]
        words += [] if open_.stays else ["--", "clear", "Bridge", bridge, "fail_mode"]
    return tuple(words)


def _tunnel(port: Port) -> list[str]:
    return [f"vlan_mode={port.vlan_mode}", f"other_config:{OUTER_KEY}={port.outer}"] if port.vlan_mode else []


def _closure_key(mark: Mark | None) -> str:
    return f"{MARK_KEY}-{mark.installation if mark is not None else ''}"


def _closure_column(mark: Mark | None) -> str:
    return f'external_ids:{_closure_key(mark)}="{mark}"'


def _mark_column(mark: Mark | None) -> str:
    return f'external_ids:{MARK_KEY}="{mark}"'


def list_ports() -> tuple[str, ...]:
    """Bridges, ports and interfaces as three JSON tables, in this order."""
    return (
        *("ovs-vsctl", f"--timeout={TIMEOUT_S}", "-f", "json"),
        *("--", "--columns=name,ports,datapath_type,fail_mode,external_ids", "list", "Bridge"),
        *("--", "--columns=_uuid,name,tag,trunks,vlan_mode,cvlans,other_config,external_ids", "list", "Port"),
        *("--", "--columns=name,type,error,mac", "list", "Interface"),
    )


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A bridge as seen. `ports` are those that are on it, `elsewhere` those of other bridges.

    `closed_by` are the marks of those who want it closed.
    """

    name: str
    datapath: str
    ports: tuple[Port, ...]
    errors: dict[str, str]
    elsewhere: tuple[Port, ...] = ()
    is_closed: bool = False
    closed_by: tuple[Mark, ...] = ()

    @property
    def uplinks(self) -> tuple[str, ...]:
        """Ports that take tagged frames to other hosts: nobody's, not internal, a trunk, and with a device behind."""
        return tuple(port.device for port in self._unmarked if self._is_uplink(port) and port.device not in self.errors)

    @property
    def others(self) -> tuple[str, ...]:
        """Ports of somebody else that are no uplinks; not the bridge's own port, which has the bridge's name."""
        names = [port.device for port in self._unmarked if not self._is_uplink(port)]
        return tuple(name for name in names if name != self.name)

    @property
    def _unmarked(self) -> list[Port]:
        """A TAP that lost its mark is still no way out."""
        return [port for port in self.ports if port.mark is None and not port.device.startswith(TAP_PREFIX)]

    @staticmethod
    def _is_uplink(port: Port) -> bool:
        return not port.is_internal and port.tag is None


def parse_ports(text: str, bridge: str) -> Bridge | None:
    """Read the answer of `list_ports`; None when there is no such bridge.

    Raises:
        ValueError: the text is not three JSON tables.
    """
    bridges, ports, interfaces = (list(_rows(table)) for table in _tables(text))
    found = next((row for row in bridges if row["name"] == bridge), None)
    if found is None:
        return None
    types = {row["name"]: row["type"] for row in interfaces}
    macs = {row["name"]: row["mac"] for row in interfaces if isinstance(row["mac"], str)}
    ids = dict(found["external_ids"][1])
    marks = [parse_mark(text) for key, text in sorted(ids.items()) if key.startswith(f"{MARK_KEY}-")]
    errors = {row["name"]: row["error"] for row in interfaces if isinstance(row["error"], str) and row["error"]}
    places = {uuid: "" if row is found else str(row["name"]) for row in bridges for uuid in _uuids(row["ports"])}
    seen = [
        _port(row, str(types.get(row["name"], "")), macs.get(row["name"], ""), places[row["_uuid"][1]])
        for row in ports
        if row["_uuid"][1] in places
    ]
    return Bridge(
        name=bridge,
        datapath=found["datapath_type"] or "system",
        ports=tuple(port for port in seen if not port.bridge),
        errors=errors,
        elsewhere=tuple(port for port in seen if port.bridge),
        is_closed=found["fail_mode"] == "secure",
        closed_by=tuple(mark for mark in marks if mark is not None),
    )


def _port(row: dict[str, Any], interface_type: str, mac: str, bridge: str) -> Port:
    return Port(
        device=row["name"],
        tag=row["tag"] if isinstance(row["tag"], int) else None,
        trunks=tuple(sorted(_numbers(row["trunks"]))),
        vlan_mode=row["vlan_mode"] if isinstance(row["vlan_mode"], str) else "",
        outer=str(dict(row.get("other_config", ("map", []))[1]).get(OUTER_KEY, "")),
        cvlans=tuple(sorted(_numbers(row.get("cvlans", ("set", []))))),
        is_internal=interface_type == "internal",
        odd_type=interface_type if interface_type not in ("", "system", "internal") else "",
        bridge=bridge,
        mac=mac if interface_type == "internal" else "",
        mark=parse_mark(dict(row["external_ids"][1]).get(MARK_KEY)),
    )


def _numbers(value: Any) -> list[int]:
    """The numbers in an OVSDB value (RFC 7047, 5.1): one, or a set of them."""
    return [value] if isinstance(value, int) else [int(each) for each in value[1]]


def _tables(text: str) -> list[dict[str, Any]]:
    tables = [json_text.loads(line) for line in text.splitlines() if line.strip()]
    if len(tables) != 3:
        raise ValueError(f"expected three tables of ovs-vsctl, found {len(tables)}")
    return tables


def _rows(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for row in table["data"]:
        fields = dict(zip(table["headings"], row, strict=True))
        if not isinstance(fields["name"], str):
            raise ValueError("a row without a name")
        yield fields


def _uuids(value: list[Any]) -> list[str]:
    """The uuids in an OVSDB value (RFC 7047, 5.1): one `["uuid", x]`, or a set of them."""
    if value[0] == "uuid":
        return [value[1]]
    return [item[1] for item in value[1]]
