"""The password of a VM's screen: made with the VM, kept in its record, told to QEMU by QMP and to its owner.

A worker's loopback, and the end of a tunnel on the orchestrator, are open to every account there: the address alone
must not open a screen.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

KEY = "vnc_password"  # of a VM's record
LENGTH = 8  # a viewer sends no more (RFC 6143, 7.2.2)
LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none reads as another


def make() -> str:
    """A password that nobody guesses: 46 bits."""
    return "".join(secrets.choice(LETTERS) for _ in range(LENGTH))


def of(record: Mapping[str, Any]) -> str:
    """A VM's password; empty where its record was made before there were any, or anew from the hosts."""
    return str(record.get(KEY) or "")


def give(records: Iterable[dict[str, Any]]) -> None:
    """Have each of these VMs, which do not run, a password."""
    for record in records:
        if not of(record):
            record[KEY] = make()


def is_wanted(password: str, bind: str) -> bool:
    """Whether a screen asks for one. On an address that others reach it always does: without one nobody gets in."""
    return bool(password) or not ipaddress.ip_address(bind).is_loopback
