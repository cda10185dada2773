"""`sudo -ll -U`: what an account may run as whom (sudo(8), sudoers(5))."""

from __future__ import annotations

import re

from cloudrepo.late_dataclass import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of sudoers that holds for an account.

    Attributes:
        run_as: accounts the commands run as; sudo's default is root.
        options: such as `!authenticate` (no password) or `setenv`.
        commands: as sudo prints them; a command without words may be given any.
    """

    run_as: tuple[str, ...]
    options: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What sudo lets an account do.

    Attributes:
        defaults: the `Defaults` that match it, each as printed, such as `env_reset` or `env_keep+="A B"`.
        entries: what it may run.
    """

    defaults: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


def rights(account: str) -> tuple[str, ...]:
    """The question. Root's to ask; the answer is in English when `LC_ALL` is `C`."""
    return ("sudo", "-ll", "-U", account)


def parse_rights(answer: str) -> Rights:
    """Read the answer; one that allows nothing has no entries."""
    head, _, rest = answer.partition("may run the following commands")
    # what holds for single commands only comes after a heading of its own, and is read with the rest
    return Rights(defaults=tuple(_defaults(head)), entries=tuple(map(_entry, rest.split("Sudoers entry:")[1:])))


def kept_variables(found: Rights) -> tuple[str, ...]:
    """Names that `env_keep` or `env_check` adds for an account."""
    names: list[str] = []
    for default in found.defaults:
        added = re.match(r'env_(?:keep|check)\s*\+?=\s*"?([^"]*)"?\Z', default)
        names += added[1].split() if added else []
    return tuple(names)


def has_flag(found: Rights, flag: str) -> bool:
    """Whether a switch is on and nothing turns it off again, for all commands or for some."""
    return flag in found.defaults and f"!{flag}" not in found.defaults


def _defaults(head: str) -> list[str]:
    """The defaults of both headings: those for an account, and those for commands or target accounts."""
    found: list[str] = []
    for line in head.splitlines():
        if not line.startswith(" "):
            continue
        words = re.sub(r"^Defaults\S*\s+", "", line.strip())
        found += [word.strip() for word in re.split(r",(?=(?:[^\"]*\"[^\"]*\")*[^\"]*\Z)", words) if word.strip()]
    return found


def _entry(text: str) -> Entry:
    fields: dict[str, tuple[str, ...]] = {}
    commands: list[str] = []
    for line in text.splitlines():
        name, colon, value = line.strip().partition(":")
        if line.startswith("\t") and line.strip():
            commands.append(line.strip())
        elif colon:
            fields[name] = tuple(word.strip() for word in value.split(",") if word.strip())
    return Entry(
        run_as=fields.get("RunAsUsers", ("root",)), options=fields.get("Options", ()), commands=tuple(commands)
    )
