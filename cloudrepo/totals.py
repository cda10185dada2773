"""What follows from the slices: each user's `slices` and `used_vms`, each worker's `used_*`.

Kept by slice, so that a change of one slice costs that slice, however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo.late_dataclass import dataclass

_MILLI = 1000  # sums are of whole thousandths: they do not depend on the order of what is added
_SIZES = ("cores", "ram_gb", "disk_gb")


@dataclass(frozen=True)
class _Part:
    """What one slice adds."""

    owner: str
    slice_id: int
    vms: int
    used: dict[str, tuple[int, int, int]]


class Totals:
    """The sums over all slices.

    Args:
        data: the state they are counted from.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._parts: dict[str, _Part] = {}
        self._owned: dict[str, dict[int, int]] = {}
        self._used: dict[str, list[int]] = {}
        for key, record in dict.items(data["slices"]):
            self.put(str(key), record)

    def put(self, key: str, record: Mapping[str, Any] | None) -> tuple[set[str], set[str]]:
        """Count a slice as it is now; None = it is gone.

        Returns:
            Users and workers whose sums may be others now.
        """
        new = None if record is None else _part(record)  # first: it raises when the record has gaps
        old = self._parts.pop(key, None)
        for part, sign in ((old, -1), (new, 1)):
            if part is not None:
                self._add(part, sign)
        if new is not None:
            self._parts[key] = new
        changed = [part for part in (old, new) if part is not None]
        return {part.owner for part in changed}, {ip for part in changed for ip in part.used}

    def _add(self, part: _Part, sign: int) -> None:
        owned = self._owned.setdefault(part.owner, {})
        if sign > 0:
            owned[part.slice_id] = part.vms
        else:
            owned.pop(part.slice_id, None)
        for ip, sizes in part.used.items():
            sums = self._used.setdefault(ip, [0, 0, 0])
            for index, size in enumerate(sizes):
                sums[index] += sign * size

    def user(self, name: str) -> dict[str, Any]:
        """The derived part of a user's record."""
        owned = self._owned.get(name, {})
        return {"used_vms": sum(owned.values()), "slices": sorted(owned)}

    def worker(self, ip: str) -> dict[str, Any]:
        """The derived part of a worker's record."""
        sums = self._used.get(ip, (0, 0, 0))
        return {f"used_{size}": _number(total) for size, total in zip(_SIZES, sums, strict=True)}

    def fill(self, data: Mapping[str, Any]) -> None:
        """Write all sums into the records of users and workers."""
        for name, user in data["users"].items():
            user.update(self.user(name))
        for ip, worker in data["workers"].items():
            worker.update(self.worker(ip))


def _part(record: Mapping[str, Any]) -> _Part:
    used: dict[str, tuple[int, int, int]] = {}
    for vm in record["vms"]:
        cores, ram, disk = used.get(vm["worker_ip"], (0, 0, 0))
        wanted = [round(vm[size] * _MILLI) for size in _SIZES]
        used[vm["worker_ip"]] = (cores + wanted[0], ram + wanted[1], disk + wanted[2])
    return _Part(record["owner"], record["slice_id"], len(record["vms"]), used)


def _number(thousandths: int) -> int | float:
    return thousandths // _MILLI if thousandths % _MILLI == 0 else thousandths / _MILLI
