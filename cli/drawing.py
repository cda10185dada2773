"""A slice as a picture: a column for each VM, a bar for each link. Any topology fits, loops too. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.text import clean
from cloudrepo.link_switches import said
from cloudrepo.naming import INTERNET_VLAN

Record = Mapping[str, Any]

MIN_GAP = 9  # room for `── 4094 ─` between two columns
MAX_NAME = 14


def draw(record: Record, width: int = 100) -> list[str]:
    """The lines of the picture; a VM's column is the middle of its name.

    Args:
        record: the slice's record.
        width: columns there are; names are cut so that the picture fits, down to four letters.
    """
    vms = list(record["vms"])
    if not vms:
        return []
    step = max(MIN_GAP + 1, min(MAX_NAME + 2, (width - 20) // len(vms)))
    columns = {int(vm["vm_id"]): step // 2 + step * place for place, vm in enumerate(vms)}
    names = [clean(vm["name"])[: step - 2].center(step) for vm in vms]
    hosts = [clean(vm["worker_ip"])[: step - 1].center(step) for vm in vms]
    lines = ["".join(names).rstrip(), "".join(hosts).rstrip(), _bars(columns)]
    for label, vlan, ends in _wires(record):
        lines += [f"{_wire(columns, ends, vlan)}  {label}", _bars(columns)]
    return lines


def _wires(record: Record) -> list[tuple[str, int, tuple[int, ...]]]:
    """Label, VLAN and ends of each network, the internet first."""
    online = tuple(
        int(vm["vm_id"])
        for vm in record["vms"]
        if any(item.get("vlan_id") == INTERNET_VLAN for item in vm["interfaces"])
    )
    wires = [("internet", INTERNET_VLAN, online)] if online else []
    for link in record["links"]:
        ends = (int(link["vm1_id"]), int(link["vm2_id"]))
        unusual = f" ({words})" if (words := said(link)) else ""
        wires.append((f"link {link['link_id']}{unusual}", int(link["vlan_id"]), ends))
    return wires


def _bars(columns: Mapping[int, int]) -> str:
    line = [" "] * (max(columns.values()) + 1)
    for column in columns.values():
        line[column] = "│"
    return "".join(line)


def _wire(columns: Mapping[int, int], ends: tuple[int, ...], vlan: int) -> str:
    line = list(_bars(columns))
    at = sorted(columns[end] for end in ends if end in columns)
    for place in range(at[0], at[-1] + 1):
        line[place] = "┼" if line[place] == "│" else "─"
    for place in at:
        line[place] = "●"
    if at[-1] > at[0]:  # the VLAN's number in the first gap, where nothing crosses
        text = f" {vlan} "
        start = at[0] + 2
        line[start : start + len(text)] = text
    return "".join(line)
