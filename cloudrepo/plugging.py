"""NICs of a machine that runs are plugged in and pulled out, and which are is noted in its mark file. Pure.

No answer of QEMU's says whether a NIC is plugged in; so what it was told is noted beside it, after it was told.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudrepo.commands import qemu
from cloudrepo.naming import machine_dir
from cloudrepo.plan import Qmp, Step, WriteFile
from cloudrepo.resources import Machine, MachineSpec

PLUGGED = "plugged"  # begins the third line of a machine's mark file


def parse_plugged(line: str) -> tuple[str, ...] | None:
    """The interfaces that a line of a mark file says are plugged in; None = it does not say."""
    word, *interfaces = line.split() or [""]
    return tuple(interfaces) if word == PLUGGED else None


def announcement(machine: Machine, seen: object) -> str:
    """The mark file before anything is done to a machine: of one that runs nothing new is noted yet."""
    if isinstance(seen, Machine) and seen.is_running:
        return mark_text(machine, seen.plugged)
    return mark_text(machine, machine.spec.plugged if machine.spec is not None else None)


def mark_text(machine: Machine, plugged: Sequence[str] | None) -> str:
    """The mark file of a machine: its mark, its UUID, and if it is known which of its NICs are plugged in."""
    line = "" if plugged is None else " ".join([PLUGGED, *plugged]) + "\n"
    return f"{machine.mark}\n{machine.uuid}\n{line}"


def plug(installation: str, machine: Machine, spec: MachineSpec, before: tuple[str, ...] | None) -> list[Step]:
    """Plug NICs in or pull them out, then note it: what a crash leaves between is done again.

    Args:
        installation: ours.
        machine: what is wanted.
        spec: of it.
        before: the interfaces that were plugged in; None = nobody knows, so all are told.
    """
    if before == spec.plugged:
        return []
    directory, lane = machine_dir(installation, machine.vm_id), f"vm{machine.vm_id}"
    changed = [nic for nic in spec.nics if before is None or nic.has_carrier != (nic.interface in before)]
    commands = tuple(qemu.set_link(nic.interface, is_up=nic.has_carrier) for nic in changed)
    told = Qmp(socket=f"{directory}/qmp.sock", commands=commands, expect_uuid=machine.uuid)
    note = WriteFile(path=f"{directory}/mark", text=mark_text(machine, spec.plugged))
    name = f"NICs of VM {machine.vm_id}"
    return [
        Step(name=f"{lane}:plug", label=f"plug {name}", act=told, vm_id=machine.vm_id),
        Step(name=f"{lane}:plugged", label=f"note {name}", act=note, vm_id=machine.vm_id),
    ]
