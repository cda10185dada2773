"""Slices as a class might design them, by chance: the same for the same seed."""

from __future__ import annotations

import itertools
import random
from typing import Any

IN_A_LINE = 15  # VMs of a slice, which has 20 links at most
MOST_VMS, MOST_NICS = 4, 4
ONLINE, LINKED = 0.4, 0.8  # how likely a VM has internet access, and a free pair of NICs a link
SWITCHES = {
    "spoofing": 0.15,
    "bridging": 0.1,
    "vlans": 0.1,
    "dhcp": 0.1,
}  # how likely it is not as usual
OTHER = {"spoofing": "allowed", "bridging": "allowed", "vlans": "allowed", "dhcp": False}


def make(api: Any, chance: random.Random, user: str = "admin") -> int:
    """Design a slice; its id. Every NIC is on a wire or on none, and every slice has a NIC on one."""
    slice_id: int = _ok(api.create_slice(user, f"random {chance.randrange(10**6)}"))["slice_id"]
    count = chance.randint(1, MOST_VMS)
    free: list[tuple[int, str]] = []
    for number in range(count):
        is_online = chance.random() < ONLINE or count == 1
        nics = chance.randint(1, MOST_NICS)
        vm = _ok(api.add_vm_to_slice(user, slice_id, f"vm{number}", "cirros", nics, is_online))
        free += [(vm["vm_id"], one["name"]) for one in vm["interfaces"] if one.get("vlan_id") is None]
    chance.shuffle(free)
    while len(free) >= 2:
        (one, a), (other, b) = free.pop(), free.pop()
        if one != other and chance.random() < LINKED:
            link = _ok(api.create_link(user, slice_id, one, a, other, b))
            wishes = {name: OTHER[name] for name, likely in SWITCHES.items() if chance.random() < likely}
            if wishes:
                _ok(api.set_link(user, slice_id, link["link_id"], **wishes))
    return slice_id


def lines(api: Any, count: int, user: str = "admin") -> list[int]:
    """Design so many VMs in slices of up to fifteen, each a line; the slices' ids."""
    return [_line(api, min(IN_A_LINE, count - first), user) for first in range(0, count, IN_A_LINE)]


def _line(api: Any, count: int, user: str) -> int:
    """Design VMs in a line, each linked with the next and with internet access; the slice's id."""
    slice_id: int = _ok(api.create_slice(user, f"line of {count}"))["slice_id"]
    vms = [_ok(api.add_vm_to_slice(user, slice_id, f"vm{number}", "cirros", 2, True)) for number in range(count)]
    for one, other in itertools.pairwise(vms):
        _ok(api.create_link(user, slice_id, one["vm_id"], "eth1", other["vm_id"], "eth2"))
    return slice_id


def _ok(answer: tuple[bool, Any]) -> Any:
    done, payload = answer
    assert done, payload
    return payload
