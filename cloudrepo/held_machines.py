"""The steps that hold a machine within its limits, and that forget them. Pure."""

from __future__ import annotations

from cloudrepo import limits
from cloudrepo.limit_acts import Confine, Release
from cloudrepo.naming import machine_dir
from cloudrepo.plan import Step
from cloudrepo.resources import Machine


def hold(installation: str, machine: Machine) -> list[Step]:
    """What holds a machine that has just been started, or that is held otherwise."""
    if machine.limits is None:
        return []
    act = Confine(
        pid_file=f"{machine_dir(installation, machine.vm_id)}/pid",
        token=machine.uuid,
        group=machine.limits.group,
        limits=machine.limits.values,
    )
    label = f"limit what VM {machine.vm_id} uses"
    return [Step(name=f"vm{machine.vm_id}:limit", label=label, act=act, vm_id=machine.vm_id)]


def hold_again(installation: str, machine: Machine, seen: Machine) -> list[Step]:
    """The same for one that runs, where what holds it is not what should."""
    is_otherwise = machine.limits is not None and any(limits.differences(machine.limits, seen.limits))
    return hold(installation, machine) if is_otherwise else []


def release(installation: str, machine: Machine) -> Step:
    """What is done about the limits of a machine that has ended."""
    act = Release(group=limits.group_of(installation, machine.vm_id))
    return Step(name=f"vm{machine.vm_id}:release", label=f"forget the limits of VM {machine.vm_id}", act=act)
