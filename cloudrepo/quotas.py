"""How much a user may have in all slices together, and how much there is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.setting_values import UNLIMITED
from cloudrepo.settings import Settings
from cloudrepo.state import all_slices

#: What is limited, in the order it is told. A user's record has it as `quota_…`; what is not there, the settings say.
KINDS = ("vms", "cores", "ram_gb", "disk_gb")
DEFAULT = "default"
_WHOLE = ("vms", "cores")
_MOST = 1e9
_DIGITS = 3  # sums of decimals are compared as they are shown


@dataclass(frozen=True)
class Amount:
    """So much of everything that is limited: VMs, virtual CPUs, GiB of memory, GiB of disk."""

    vms: float = 0
    cores: float = 0
    ram_gb: float = 0
    disk_gb: float = 0

    def of(self, kind: str) -> float:
        """How much of one kind."""
        return float(getattr(self, kind))


def used(data: Mapping[str, Any], username: str) -> Amount:
    """What a user's slices have."""
    vms = [vm for record in all_slices(data) if record["owner"] == username for vm in record["vms"]]
    sums = {kind: math.fsum(vm[kind] for vm in vms) for kind in KINDS if kind != "vms"}
    return Amount(vms=len(vms), **sums)


def limits(user: Mapping[str, Any], settings: Settings) -> Amount:
    """What a user may have; infinite where nothing limits it."""
    return Amount(**{kind: _limit(user, settings, kind) for kind in KINDS})


def _limit(user: Mapping[str, Any], settings: Settings, kind: str) -> float:
    value = user.get(f"quota_{kind}")
    if value is None:
        value = settings.get(f"quota.{kind}")
    return math.inf if value == UNLIMITED else float(value)


def check(data: Mapping[str, Any], username: str, asked: Amount, settings: Settings) -> None:
    """Refuse what a user may not have beside what there is; inside the transaction that adds it.

    Raises:
        RefusedError: `Quota exceeded`; `details["exceeded"]` says of each kind `what`, `used`, `limit` and `asked`,
            and the hint says the same in words.
    """
    limit, present = limits(data["users"][username], settings), used(data, username)
    exceeded = [
        {
            "what": kind,
            "used": number(present.of(kind)),
            "limit": number(limit.of(kind)),
            "asked": number(asked.of(kind)),
        }
        for kind in KINDS
        if asked.of(kind) and round(present.of(kind) + asked.of(kind), _DIGITS) > limit.of(kind)
    ]
    if exceeded:
        words = [f"{one['what']}: {one['used']} used of {one['limit']}, {one['asked']} asked for" for one in exceeded]
        error = RefusedError("Quota exceeded", code="quota", details={"user": username, "exceeded": exceeded})
        error.hint = "; ".join(words)
        raise error


def wished(kind: str, word: Any) -> Any:
    """A limit as a record has it: a number, `unlimited`, or None for what the settings say.

    Raises:
        RefusedError: it is none.
    """
    text = str(word).strip().lower()
    if text == DEFAULT:
        return None
    if text == UNLIMITED and kind != "vms":
        return UNLIMITED
    try:
        value = float(text) if not isinstance(word, bool) else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MOST or (kind in _WHOLE and value != int(value)):
        wanted = "a whole number" if kind in _WHOLE else "a number"
        others = f"`{DEFAULT}`" if kind == "vms" else f"`{UNLIMITED}` or `{DEFAULT}`"
        raise RefusedError(
            f"a quota of {kind} cannot be {word!r}",
            remedy=f"Give {wanted} from 0 on, or {others}",
            code="quota.value",
        )
    return number(value)


def number(value: float) -> int | float | str:
    """A figure as programs and people are told it; what has no end is `unlimited`."""
    if math.isinf(value):
        return UNLIMITED
    value = round(value, _DIGITS)
    return int(value) if value == int(value) else value
