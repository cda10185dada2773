"""`sshd -T`: what sshd would do with an account that logs in (sshd(8), sshd_config(5))."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Settings: TypeAlias = Mapping[str, tuple[str, ...]]
"""Keyword, in lower case, to the values it was given; a keyword that may be repeated has several."""


def effective(account: str, *, address: str, port: int = 22, config: str = "", binary: str = "sshd") -> tuple[str, ...]:
    """The question: the settings that hold for an account from an address. Root's to ask.

    Args:
        account: who logs in.
        address: where from, for `Match Address`; also taken as the host's name.
        port: of sshd, for `Match LocalPort`.
        config: another file than sshd's own.
        binary: the program.
    """
    where = ("-f", config) if config else ()
    there = f"user={account},host={address},addr={address},laddr=127.0.0.1,lport={port}"
    return (binary, "-T", *where, "-C", there)


def parse_effective(answer: str) -> Settings:
    """Read the answer: a keyword and its value on each line."""
    found: dict[str, tuple[str, ...]] = {}
    for line in answer.splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            found[keyword.lower()] = (*found.get(keyword.lower(), ()), value.strip())
    return found


def value(settings: Settings, keyword: str, default: str = "") -> str:
    """The value of a keyword that has one."""
    return settings.get(keyword, (default,))[0]
