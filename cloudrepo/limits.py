"""What one machine may use of its host, by a cgroup2 of its own: wanted, possible there, and seen. Pure.

See cgroup-v2(7) of the kernel's documentation. A host has cgroup2 alone, beside cgroup1, or not at all, and of its
controllers those count that its root hands on. What is missing is said for each worker, and machines run all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cloudrepo.late_dataclass import dataclass

if TYPE_CHECKING:
    from cloudrepo.plan import Act, StepResult

CONTROLLERS = ("cpu", "memory", "pids")
#: Files that say which controllers the root hands on: of cgroup2 alone, and beside cgroup1.
PLACES = {
    "controllers": "/sys/fs/cgroup/cgroup.subtree_control",
    "controllers beside cgroup1": "/sys/fs/cgroup/unified/cgroup.subtree_control",
}
MIB = 1 << 20
#: MiB beyond the guest's memory: QEMU itself, its cache of the disk, with emulation up to 1 GiB of translated code.
OVERHEAD_MIB = {"kvm": 512, "tcg": 1536}
PROCESSES = 256  # threads: one a processor, and those that read and write the disk
PERIOD_US = 100_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A machine's group and what holds in it.

    Attributes:
        group: below the root of cgroup2; "" when its process is in no group of its own.
        values: by file of the group, such as `("pids.max", "256")`; sorted.
    """

    group: str
    values: tuple[tuple[str, str], ...] = ()


def group_of(installation: str, vm_id: int) -> str:
    """The group of a machine: ours by its place, as its run directory is."""
    return f"cloudrepo-{installation}/vm-{vm_id}"


def wanted(
    installation: str, vm_id: int, *, cores: int, ram_mib: int, accelerator: str, controllers: Collection[str]
) -> Limits:
    """What a machine is to be held by where the host has these controllers.

    It may use one processor more than the guest has, since the disk, the network and the screen are QEMU's work.
    """
    values = {
        "cpu": ("cpu.max", f"{(cores + 1) * PERIOD_US} {PERIOD_US}"),
        "memory": ("memory.max", str((ram_mib + OVERHEAD_MIB[accelerator]) * MIB)),
        "pids": ("pids.max", str(PROCESSES)),
    }
    held = tuple(values[name] for name in CONTROLLERS if name in controllers)
    return Limits(group=group_of(installation, vm_id), values=held)


def differences(wish: Limits, found: Limits | None) -> Iterator[tuple[str, str, str]]:
    """In what a running machine is held otherwise: what, wanted, found."""
    there = found or Limits(group="")
    if there.group != wish.group:
        yield "cgroup", wish.group, there.group or "none of its own"
    values = dict(there.values)
    for name, value in wish.values:
        if values.get(name) != value:
            yield name, value, values.get(name, "none")


def seen(row: Any) -> Limits | None:
    """What the runner says of a machine's group; None when the host has no cgroup2.

    Raises:
        ValueError, TypeError, KeyError: it is no answer of the runner's.
    """
    if row is None:
        return None
    values = {str(name): str(value) for name, value in dict(row["values"]).items()}
    return Limits(group=str(row["group"]), values=tuple(sorted(values.items())))


# -- which controllers a host has ------------------------------------------------------------------------


def questions() -> dict[str, tuple[str, Act]]:
    """By name, what is asked of a host: label and act."""
    from cloudrepo.plan import ReadFile  # a menu that only shows what was found asks nobody

    return {name: (f"{name} of cgroup2", ReadFile(path=path)) for name, path in PLACES.items()}


def controllers(
    answers: Mapping[str, StepResult], parse: Callable[[str, Callable[[str], tuple[str, ...]]], Any]
) -> tuple[str, ...] | None:
    """The controllers that a host's root hands on, of those we use; None without cgroup2.

    Args:
        answers: by question.
        parse: gives what a parser makes of an answer, and judges those that are none.
    """
    found: dict[str, tuple[str, ...] | None] = {name: parse(name, read_controllers) for name in PLACES}
    there = [name for name in PLACES if name in answers and answers[name].status == 0]  # no file is an answer too
    return (found[there[0]] or ()) if there else None


def read_controllers(text: str) -> tuple[str, ...]:
    """The text of a file of controllers.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"(?:[a-z_]{1,32}(?: [a-z_]{1,32}){0,40})?\n?", text, re.ASCII):
        raise ValueError(f"not a list of controllers: {text[:80]!r}")
    return tuple(one for one in CONTROLLERS if one in text.split())


def missing(there: Collection[str] | None) -> tuple[str, ...]:
    """What keeps machines from being limited: `cgroup2`, or the controllers that are not there."""
    return ("cgroup2",) if there is None else tuple(one for one in CONTROLLERS if one not in there)


def note(lacking: Collection[str]) -> str:
    """What a person is told of a worker; "" when nothing is missing."""
    if not lacking:
        return ""
    if "cgroup2" in lacking:
        return "no cgroup2: guests' memory, processes and processor time are not limited"
    words = {"cpu": "processor time", "memory": "memory", "pids": "processes"}
    return f"cgroup2 without {', '.join(lacking)}: not limited: {', '.join(words.get(one, one) for one in lacking)}"
