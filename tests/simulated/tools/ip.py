"""`ip`: links, namespaces, addresses and routes (ip(8), iproute2 6)."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from simulated.state import Answer, Call, Device, HostState, Refusal, Space

VERSION = "ip utility, iproute2-6.1.0, libbpf 1.1.0\n"
USAGE = 255  # also for a namespace that is not there
NO_DEVICE = 'Cannot find device "{}"'
LONGEST_NAME = 15


def answer(call: Call) -> Answer:
    """One call of `ip`."""
    words, space = list(call.words[1:]), call.space
    if words == ["-V"]:
        return Answer(out=VERSION)
    if words[:1] == ["-n"] and len(words) > 1:
        space, words = words[1], words[2:]
        if space not in call.host.spaces:
            raise Refusal(f'Cannot open network namespace "{space}": No such file or directory', USAGE)
    match words:
        case ["-batch", "-"]:
            return _batch(call.host, call.stdin, space)
        case ["-j", "-d", "address", "show"]:
            return Answer(out=json.dumps(_rows(call.host, call.host.space(space))) + "\n")
        case ["-j", "-4", "route", "show"]:
            return Answer(out=json.dumps(_routes(call.host, call.host.space(space))) + "\n")
    _change(call.host, tuple(words), space)
    return Answer()


def _batch(host: HostState, text: str, space: str) -> Answer:
    """Line by line; the first that fails ends it, and those before it stay done."""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            _change(host, tuple(line.split()), space)
        except Refusal as refusal:
            if refusal.status == USAGE:  # it leaves at once, without a word about the line
                raise
            raise Refusal(f"{refusal}\nCommand failed -:{number}", 1) from None
    return Answer()


def _change(host: HostState, words: tuple[str, ...], space: str) -> None:
    match words:
        case ("netns", "add", name):
            _add_namespace(host, name)
        case ("netns", "delete", name):
            _delete_namespace(host, name)
        case ("tuntap", "add", "dev", name, "mode", "tap", "user", user):
            _add_tap(host, space, name, user)
        case ("link", "delete", "dev", name):
            _delete_link(host, space, name)
        case ("link", "delete", "group", group):
            _delete_group(host, space, group)
        case ("link", "set", "dev", name, "netns", target):
            _move(host, space, name, target)
        case ("link", "set", "dev", name, word, *rest):
            _set_link(_device(host, space, name), (word, *rest))
        case ("address", verb, cidr, "dev", name) if verb in ("add", "delete", "replace"):
            _change_address(_device(host, space, name), verb, cidr)
        case (first, *_) if first not in ("netns", "tuntap", "link", "address"):
            raise Refusal(f'Object "{first}" is unknown, try "ip help".', 1)
        case _:
            raise Refusal(
                f'Command "{words[1] if len(words) > 1 else ""}" is unknown, try "ip {words[0]} help".', USAGE
            )


def _device(host: HostState, space: str, name: str) -> Device:
    devices = host.space(space).devices
    if len(name) > LONGEST_NAME:
        raise Refusal(f'Error: argument "{name}" is wrong: "dev" not a valid ifname', USAGE)
    if name not in devices:
        raise Refusal(NO_DEVICE.format(name))
    return devices[name]


def _add_namespace(host: HostState, name: str) -> None:
    if name in host.spaces:
        raise Refusal(f'Cannot create namespace file "/run/netns/{name}": File exists')
    host.spaces[name] = Space()
    path = host.real(f"/run/netns/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _delete_namespace(host: HostState, name: str) -> None:
    """The name goes at once; what is in it goes with its last process."""
    if not name or name not in host.spaces:
        raise Refusal(f'Cannot remove namespace file "/run/netns/{name}": No such file or directory')
    host.real(f"/run/netns/{name}").unlink()
    gone = host.spaces.pop(name)
    for device in gone.devices:
        if device in host.ports:
            host.ports[device].is_broken = True


def _add_tap(host: HostState, space: str, name: str, user: str) -> None:
    if len(name) > LONGEST_NAME:
        raise Refusal(f'Error: argument "{name}" is wrong: "dev" not a valid ifname', USAGE)
    if name in host.space(space).devices:
        raise Refusal("ioctl(TUNSETIFF): Device or resource busy")
    host.add_device(space, name, Device("tap", user=user))


def _delete_link(host: HostState, space: str, name: str) -> None:
    device = _device(host, space, name)
    if device.kind == "loopback":
        raise Refusal("RTNETLINK answers: Operation not supported", 2)
    del host.spaces[space].devices[name]


def _delete_group(host: HostState, space: str, group: str) -> None:
    devices = host.space(space).devices
    gone = [name for name, device in devices.items() if device.group == group]
    if not gone:
        raise Refusal("RTNETLINK answers: No such device", 2)
    for name in gone:
        del devices[name]


def _move(host: HostState, space: str, name: str, target: str) -> None:
    """It arrives down and without addresses; its alias comes along."""
    if target not in host.spaces or not target:
        raise Refusal(f'Error: argument "{target}" is wrong: Invalid "netns" value', USAGE)
    device = _device(host, space, name)
    if name in host.spaces[target].devices:
        raise Refusal("RTNETLINK answers: File exists", 2)
    del host.spaces[space].devices[name]
    device.is_up, device.addresses = False, []
    host.add_device(target, name, device)


def _set_link(device: Device, words: tuple[str, ...]) -> None:
    match words:
        case ("alias", alias):
            device.alias = alias
        case ("up",):
            device.is_up = True
        case ("down",):
            device.is_up = False
        case ("group", number):
            device.group = "default" if number == "0" else number
        case ("addrgenmode", "none" | "eui64" as mode):
            device.addrgenmode = mode
        case ("arp", "on" | "off" as state):
            device.arp = state == "on"
        case _:
            raise Refusal(f'Error: either "dev" is duplicate, or "{words[0]}" is a garbage.', USAGE)


def _change_address(device: Device, verb: str, cidr: str) -> None:
    try:
        ipaddress.IPv4Interface(cidr)
    except ValueError:
        raise Refusal(f'Error: any valid prefix is expected rather than "{cidr}".') from None
    if verb == "delete":
        if cidr not in device.addresses:
            raise Refusal("RTNETLINK answers: Cannot assign requested address", 2)
        device.addresses.remove(cidr)
    elif cidr not in device.addresses:
        device.addresses.append(cidr)
    elif verb == "add":
        raise Refusal("RTNETLINK answers: File exists", 2)


def _rows(host: HostState, space: Space) -> list[dict[str, Any]]:
    held = {tap for program in host.programs.values() for tap in program.taps}
    return [
        _row(number, name, device, host.datapath, is_held=device.kind != "tap" or name in held)
        for number, (name, device) in enumerate(space.devices.items(), start=1)
    ]


def _row(number: int, name: str, device: Device, datapath: str, *, is_held: bool) -> dict[str, Any]:
    loops = device.kind == "loopback"
    flags = ["LOOPBACK"] if loops else ["BROADCAST", "MULTICAST"]
    flags += ([] if device.arp else ["NOARP"]) + (["UP"] if device.is_up else [])
    flags += ["LOWER_UP"] if device.is_up and is_held else []  # a TAP that nobody holds has no carrier
    row: dict[str, Any] = {
        "ifindex": number,
        "ifname": name,
        "flags": flags,
        "mtu": 65536 if loops else 1500,
        "operstate": "UNKNOWN" if device.is_up else "DOWN",
        "group": device.group,
        "link_type": "loopback" if loops else "ether",
    }
    if device.kind == "tap" or (device.kind == "internal" and datapath == "netdev"):
        row["linkinfo"] = {"info_kind": "tun", "info_data": {"type": "tap", "persist": True}}
        row["linkinfo"]["info_data"] |= {"user": device.user} if device.user else {}
    if device.alias:
        row["ifalias"] = device.alias
    row["addr_info"] = [
        {"family": "inet", "local": cidr.split("/")[0], "prefixlen": int(cidr.split("/")[1]), "scope": "global"}
        for cidr in device.addresses
    ]
    return row


def _routes(host: HostState, space: Space) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if host.next_hop and "up0" in space.devices:
        rows.append({"dst": "default", "gateway": host.next_hop, "dev": "up0", "flags": []})
    for name, device in space.devices.items():
        for cidr in device.addresses if device.is_up and device.kind != "loopback" else ():
            network = str(ipaddress.IPv4Interface(cidr).network)
            rows.append({"dst": network, "dev": name, "protocol": "kernel", "scope": "link", "flags": []})
    return rows
