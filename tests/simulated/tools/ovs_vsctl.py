"""`ovs-vsctl`: ports of one bridge, `br-int`, in transactions (ovs-vsctl(8))."""

from __future__ import annotations

import copy
import json
import uuid
from typing import Any

from simulated.state import Answer, Bridge, Call, Device, HostState, Port, Refusal

BRIDGE = "br-int"
VERSION = "ovs-vsctl (Open vSwitch) 3.1.0\nDB Schema 8.3.1\n"
TAGS = range(4096)
MODES = ("access", "dot1q-tunnel", "native-tagged", "native-untagged", "trunk")
NONE = ["set", []]


def answer(call: Call) -> Answer:
    """One call: global options, then commands that are all done or none."""
    groups: list[list[str]] = [[]]
    for word in call.words[1:]:
        if word == "--":
            groups.append([])
        else:
            groups[-1].append(word)
    if groups == [["--version"]]:
        return Answer(out=VERSION)
    is_json = _options(groups[0])
    commands = [group for group in groups[1:] if group]
    if any("list" in command for command in commands):
        if not is_json:
            raise Refusal("ovs-vsctl: this stand-in lists as JSON only")
        return Answer(out="".join(json.dumps(_table(call.host, command)) + "\n" for command in commands))
    return Answer(err=_transaction(call.host, commands))


def _options(words: list[str]) -> bool:
    """Refuse what is no global option we use; whether JSON is asked for."""
    rest = [word for word in words if not word.startswith("--timeout=")]
    if rest not in ([], ["-f", "json"]):
        raise Refusal(f"ovs-vsctl: unknown command '{rest[0]}'; use --help for help")
    return bool(rest)


def _transaction(host: HostState, commands: list[list[str]]) -> str:
    """Do all, or nothing; what the switch then could not set up is said and is no failure."""
    ports, bridge = copy.deepcopy(host.ports), copy.deepcopy(host.bridge)
    for command in commands:
        _command(host, ports, bridge, command)
    errors = ""
    if bridge.fail_mode != host.bridge.fail_mode:  # either way all flows are gone
        host.flows.flush(has_built_in=bridge.fail_mode != "secure")
    host.bridge = bridge
    for name in [name for name in host.ports if name not in ports]:
        _take_device(host, name)
    for name, port in ports.items():
        before = host.ports.get(name)
        if port.kind == "internal" and (before is None or before.kind != "internal"):
            host.add_device("", name, Device("internal"))
            port.is_broken = False
        elif port.kind == "" and before is None and name not in host.spaces[""].devices:
            errors += (
                f"ovs-vsctl: Error detected while setting up '{name}': could not open network device {name} "
                "(No such device).  See ovs-vswitchd log for details.\n"
            )
    host.ports = ports
    host.flows.set_ports(ports)
    return errors


def _take_device(host: HostState, name: str) -> None:
    found = host.find_device(name)
    if found is not None and host.ports[name].kind == "internal":
        del host.spaces[found[0]].devices[name]


def _command(host: HostState, ports: dict[str, Port], switch: Bridge, words: list[str]) -> None:
    match words:
        case ["set", "Bridge", bridge, "fail_mode=secure", column] if column.startswith("external_ids:"):
            _require_row(host, bridge)
            key, _, value = column.removeprefix("external_ids:").partition("=")
            switch.fail_mode = "secure"
            switch.ids[key] = value.strip('"')
        case ["remove", "Bridge", bridge, "external_ids", key]:
            _require_row(host, bridge)
            switch.ids.pop(key, None)
        case ["clear", "Bridge", bridge, "fail_mode"]:
            _require_row(host, bridge)
            switch.fail_mode = ""
        case ["--if-exists", "del-port", bridge, name]:
            _require_bridge(host, bridge)
            ports.pop(name, None)
        case ["--if-exists", "del-port", name]:
            ports.pop(name, None)
        case ["clear", "Port", name, "trunks", "vlan_mode", "cvlans"]:
            if name not in ports:
                raise Refusal(f'ovs-vsctl: no row "{name}" in table Port')
            ports[name].trunks, ports[name].vlan_mode, ports[name].cvlans = [], "", []
        case ["remove", "Port", name, "other_config", key]:
            if name not in ports:
                raise Refusal(f'ovs-vsctl: no row "{name}" in table Port')
            ports[name].config.pop(key, None)
        case ["del-port", bridge, name]:
            _require_bridge(host, bridge)
            if ports.pop(name, None) is None:
                raise Refusal(f"ovs-vsctl: no port named {name}")
        case ["--may-exist", "add-port", bridge, name]:
            _require_bridge(host, bridge)
            ports.setdefault(name, Port())
        case ["add-port", bridge, name]:
            _require_bridge(host, bridge)
            if name in ports:
                raise Refusal(
                    f"ovs-vsctl: cannot create a port named {name} because a port named {name} already exists on "
                    f"bridge {bridge}"
                )
            ports[name] = Port()
        case ["set", "Port" | "Interface" as table, name, *columns]:
            if name not in ports:
                raise Refusal(f'ovs-vsctl: no row "{name}" in table {table}')
            for column in columns:
                _set(ports[name], table, column)
        case _:
            word = next((word for word in words if not word.startswith("-")), "")
            raise Refusal(f"ovs-vsctl: unknown command '{word}'; use --help for help")


def _require_row(host: HostState, name: str) -> None:
    if name != BRIDGE or not host.datapath:
        raise Refusal(f'ovs-vsctl: no row "{name}" in table Bridge')


def _require_bridge(host: HostState, name: str) -> None:
    if name != BRIDGE or not host.datapath:
        raise Refusal(f"ovs-vsctl: no bridge named {name}")


def _set(port: Port, table: str, column: str) -> None:
    key, _, value = column.partition("=")
    if table == "Port" and key == "tag":
        if not value.isdigit():
            raise Refusal(f'ovs-vsctl: "{value}" is not a valid integer')
        if int(value) not in TAGS:
            raise Refusal(f"ovs-vsctl: constraint violation: {value} is not in the valid range 0 to 4095 (inclusive)")
        port.tag = int(value)
    elif table == "Port" and key.startswith("external_ids:"):
        port.ids[key.removeprefix("external_ids:")] = value.strip('"')
    elif table == "Port" and key == "trunks":
        port.trunks = [int(number) for number in value.split(",")]
    elif table == "Port" and key == "vlan_mode":
        if value not in MODES:
            raise Refusal(f"ovs-vsctl: constraint violation: {value} is not one of the allowed values ({MODES})")
        port.vlan_mode = value
    elif table == "Port" and key == "cvlans":
        port.cvlans = [int(number) for number in value.split(",")]
    elif table == "Port" and key.startswith("other_config:"):
        port.config[key.removeprefix("other_config:")] = value
    elif table == "Interface" and key == "type" and value == "internal":
        port.kind = value
    elif table == "Interface" and key == "mac":
        port.mac = value.strip('"')
    else:
        raise Refusal(f'ovs-vsctl: {table} does not contain a column whose name matches "{key}"')


def _table(host: HostState, words: list[str]) -> dict[str, Any]:
    names = {BRIDGE: Port(kind="internal"), **host.ports} if host.datapath else {}
    match words:
        case ["--columns=name,ports,datapath_type,fail_mode,external_ids", "list", "Bridge"]:
            ids = ["map", list(host.bridge.ids.items())]
            row = [BRIDGE, _set_of([_uuid(name) for name in names]), host.datapath, host.bridge.fail_mode or NONE, ids]
            rows = [row] if names else []
        case ["--columns=_uuid,name,tag,trunks,vlan_mode,cvlans,other_config,external_ids", "list", "Port"]:
            rows = [
                [
                    *(_uuid(name), name, _set_of([]) if port.tag is None else port.tag, _set_of(port.trunks)),
                    *(port.vlan_mode or _set_of([]), _set_of(port.cvlans)),
                    *(["map", list(port.config.items())], ["map", list(port.ids.items())]),
                ]
                for name, port in names.items()
            ]
        case ["--columns=name,type,error,mac", "list", "Interface"]:
            rows = [[name, port.kind, _error(host, name, port), port.mac or NONE] for name, port in names.items()]
        case _:
            raise Refusal(f"ovs-vsctl: this stand-in does not list {' '.join(words)}")
    return {"data": rows, "headings": words[0].removeprefix("--columns=").split(",")}


def _error(host: HostState, name: str, port: Port) -> Any:
    is_there = host.find_device(name) is not None
    return _set_of([]) if is_there else f"could not open network device {name} (No such device)"


def _uuid(name: str) -> list[str]:
    return ["uuid", str(uuid.uuid5(uuid.NAMESPACE_OID, name))]


def _set_of(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else ["set", values]
