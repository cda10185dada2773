"""Whether people who get only the menu get only the menu: files, sshd's settings, sudo's rules. Pure.

One account owns the installation; whoever has a shell of it is an operator. Others enter by `cloud menu --state FILE`,
as the `ForceCommand` of an account or by a rule of sudo; docs/access.md has both, and why each line is there.
"""

from __future__ import annotations

import fnmatch
import posixpath
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from typing import Literal

from cloudrepo.commands import sshd, sudo
from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.late_dataclass import dataclass

#: Variables that a client may send: they change how a terminal draws, and nothing else.
HARMLESS = ("LANG", "LANGUAGE", "LC_*", "COLORTERM", "NO_COLOR", "TERM", "TZ")
#: Groups whose members are root in one step, or read what root reads.
MIGHTY_GROUPS = ("disk", "docker", "incus", "incus-admin", "kmem", "libvirt", "lxd", "podman", "root", "shadow")
CLASS = 30  # menus that are opened at once
SHOWN = 3  # findings of one kind about files; the rest is counted
STICKY = 0o1000
OTHERS_WRITE = 0o022


@dataclass(frozen=True, kw_only=True)
class PathFact:
    """A file or folder.

    Attributes:
        path: its absolute path, symbolic links followed.
        kind: `secret` must be the owner's alone; `trusted` nobody else may change; `way` is a folder above one of them.
        uid: its owner.
        mode: permission bits, with the sticky bit.
    """

    path: str
    kind: Literal["secret", "trusted", "way"]
    uid: int
    mode: int


@dataclass(frozen=True, kw_only=True)
class AccountFact:
    """An account of this machine.

    Attributes:
        name: its name.
        groups: those it is in.
        is_named: whether the operator named it as one that should get the menu only.
        sshd: what holds when it logs in; None = not known.
        sudo: what it may run; None = not known.
    """

    name: str
    groups: tuple[str, ...] = ()
    is_named: bool = False
    sshd: sshd.Settings | None = None
    sudo: sudo.Rights | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found on this machine.

    Attributes:
        owner: the account that owns the installation.
        owner_uid: its number.
        menu: the words that open the menu.
        paths: files and folders of the installation and of the program.
        accounts: those that people log in with.
        unread: what could not be looked at, and why.
        tunnels: the ports that tunnels to screens begin at (`vnc.tunnels`); empty = any, so that sshd can open none.
        uncompiled: how many modules of the program each menu compiles anew, since its account may not keep them.
        compiling: the words that have Python keep them compiled.
    """

    owner: str
    owner_uid: int
    menu: tuple[str, ...]
    paths: tuple[PathFact, ...] = ()
    accounts: tuple[AccountFact, ...] = ()
    unread: tuple[str, ...] = field(default=())
    tunnels: range = range(0)
    uncompiled: int = 0
    compiling: tuple[str, ...] = ()

    @property
    def screens(self) -> tuple[str, ...]:
        """Where tunnels to screens begin, as sshd names it."""
        return tuple(f"127.0.0.1:{port}" for port in self.tunnels)

    @property
    def command(self) -> str:
        """The words that open the menu, as a shell or sudoers reads them."""
        return shlex.join(self.menu)


def judge(facts: Facts) -> list[Finding]:
    """Everything that is wrong or could not be seen, and a word for each part where nothing is."""
    return [*_files(facts), *_speed(facts), *_entrances(facts), *_unread(facts)]


def lines_for_sshd(facts: Facts) -> str:
    """What sshd is to be told: the account opens the menu only, and screens where tunnels to them have ports."""
    forwarding = ["DisableForwarding yes"]
    if facts.tunnels:
        closed = ("AllowStreamLocalForwarding", "AllowAgentForwarding", "X11Forwarding", "PermitTunnel", "GatewayPorts")
        forwarding = ["AllowTcpForwarding local", f"PermitOpen {' '.join(facts.screens)}"]
        forwarding += [f"{keyword} no" for keyword in closed]
    return (
        f"MaxStartups {2 * CLASS}:30:{4 * CLASS}\n"
        f"Match User {facts.owner}\n"
        f"    ForceCommand {facts.command}\n"
        + "".join(f"    {line}\n" for line in forwarding)
        + "    PermitUserRC no\n"
        "    AcceptEnv LANG LC_*\n"
    )


def lines_for_sudo(facts: Facts, who: str = "%students") -> str:
    """What sudo is to be told: accounts, by default those of a group, run the menu as the installation's account."""
    return f"{who} ALL=({facts.owner}) NOPASSWD: {facts.command}\n"


# -- files -------------------------------------------------------------------------------


def _files(facts: Facts) -> Iterator[Finding]:
    wrong: dict[str, list[tuple[PathFact, Finding]]] = {}
    for path in facts.paths:
        for finding in _path(path, facts):
            wrong.setdefault(finding.code, []).append((path, finding))
    for found in wrong.values():
        yield from (finding for _path, finding in found[:SHOWN])
        if len(found) > SHOWN:
            yield _more([path.path for path, _finding in found[SHOWN:]], found[0][1])
    if facts.owner_uid == 0:
        yield Finding(
            code="access.owner",
            level=Level.WARNING,
            text="the installation is root's: a way out of the menu would be a way to root",
            remedy="Give it an account of its own: useradd --create-home cloud; chown -R cloud FOLDER",
        )
    if facts.paths and not wrong:
        text = f"state, key and program are {facts.owner}'s, and nobody else changes them or reads what is secret"
        yield Finding(code="access.files", level=Level.OK, text=text)


def _more(paths: Sequence[str], like: Finding) -> Finding:
    """One finding for many paths: a whole folder was made so."""
    common = shlex.quote(posixpath.commonpath(paths))
    words = like.remedy.rpartition(" ")[0].replace("chmod", "chmod -R").replace("chown", "chown -R")
    text = f"so it is with {len(paths)} more under {common}"
    return Finding(code=like.code, level=like.level, text=text, remedy=f"{words} {common}")


def _path(fact: PathFact, facts: Facts) -> Iterator[Finding]:
    """At most one finding: whose it is, else who may do what to it."""
    quoted, mode = shlex.quote(fact.path), f"mode {fact.mode:04o}"
    if fact.uid not in (facts.owner_uid, 0) or (fact.kind == "secret" and fact.uid != facts.owner_uid):
        text = f"{fact.path} does not belong to {facts.owner}"
        remedy = f"chown {shlex.quote(facts.owner)} {quoted}"
        yield Finding(
            code="access.files.owner", level=Level.WRONG, text=text, evidence=f"owner {fact.uid}", remedy=remedy
        )
    elif fact.kind == "secret" and fact.mode & 0o077:
        text = f"others can reach {fact.path}, which is {facts.owner}'s alone"
        yield Finding(
            code="access.files.secret", level=Level.WRONG, text=text, evidence=mode, remedy=f"chmod go= {quoted}"
        )
    elif fact.kind == "way" and fact.uid != facts.owner_uid and not fact.mode & 0o011:
        text = f"{facts.owner} cannot get through {fact.path}, where the program, its Python or the state is"
        remedy = f"Install what is there elsewhere, such as in /opt, or chmod o+x {quoted}"
        yield Finding(code="access.files.way", level=Level.WRONG, text=text, evidence=mode, remedy=remedy)
    elif fact.mode & OTHERS_WRITE and not (fact.kind == "way" and fact.mode & STICKY):
        what = "replace what is in" if fact.kind == "way" else "change"
        text = f"others can {what} {fact.path}, which decides what {facts.owner} runs"
        yield Finding(
            code="access.files.writable", level=Level.WRONG, text=text, evidence=mode, remedy=f"chmod go-w {quoted}"
        )


def _speed(facts: Facts) -> Iterator[Finding]:
    if facts.uncompiled:
        yield Finding(
            code="access.program.compiled",
            level=Level.WARNING,
            text=f"each menu compiles {facts.uncompiled} of the program's files, since {facts.owner} may not keep them "
            "compiled: a login takes up to twice as long",
            remedy=f"After each update, as who owns the program: {shlex.join(facts.compiling)}",
        )


# -- the ways in -------------------------------------------------------------------------


def _entrances(facts: Facts) -> Iterator[Finding]:
    """Each account that enters by the menu, or should; nothing is asked of operators."""
    entering = 0
    for account in facts.accounts:
        forced, by_sudo = _is_forced(account), _has_rule(account, facts)
        if not forced and not by_sudo:
            if account.is_named and account.sshd is not None and account.sudo is not None:
                yield _no_entrance(account, facts)
            continue
        entering += 1
        login = _sshd(account.name, account.sshd, facts) if forced and account.sshd is not None else ()
        found = [*login, *_sudo(account, facts), *_groups(account)]
        yield from found
        if not any(finding.level is Level.WRONG for finding in found):
            way = "sshd opens the menu" if forced else "sudo opens the menu"
            text = f"{account.name}: {way}, and nothing else"
            yield Finding(code="access.account", level=Level.OK, text=text)
    if not entering and facts.owner_uid != 0 and any(account.sshd is not None for account in facts.accounts):
        lines = f"sshd_config:\n{lines_for_sshd(facts)}sudoers:\n{lines_for_sudo(facts)}"
        text = "no account gets the menu only; people with a shell of another account cannot use this installation"
        yield Finding(code="access.none", level=Level.WARNING, text=text, remedy=f"One of these\n{lines}")


def _no_entrance(account: AccountFact, facts: Facts) -> Finding:
    lines = lines_for_sshd(facts) if account.name == facts.owner else lines_for_sudo(facts, account.name)
    text = f"{account.name} does not get the menu only: neither sshd nor sudo opens it"
    return Finding(code="access.account.open", level=Level.WRONG, text=text, remedy=f"Write\n{lines}")


def _is_forced(account: AccountFact) -> bool:
    """Whether sshd runs something that is meant to be the menu, be it written wrongly."""
    words = _words(sshd.value(account.sshd, "forcecommand")) if account.sshd is not None else []
    return any(word == "cloud" or word.endswith("/cloud") for word in words)


def _has_rule(account: AccountFact, facts: Facts) -> bool:
    """Whether sudo names the program; an account that may run anything is an operator's."""
    return account.sudo is not None and any(
        _words(command)[:1] == list(facts.menu[:1]) for entry in account.sudo.entries for command in entry.commands
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an open quote: no command of ours
        return []


def _sshd(name: str, settings: sshd.Settings, facts: Facts) -> Iterator[Finding]:
    yield from _forced_command(name, settings, facts)
    for keyword, right, why, line in _switches(settings, facts):
        if sshd.value(settings, keyword) != right:
            yield Finding(
                code=f"access.sshd.{keyword}",
                level=Level.WRONG,
                text=f"sshd lets {name} {why}",
                evidence=f"{keyword} {sshd.value(settings, keyword)}",
                remedy=f"Write `{line}` in its Match block",
            )
    sent = [word for line in settings.get("acceptenv", ()) for word in line.split() if word not in HARMLESS]
    if sent:
        text = f"sshd takes variables from {name}: programs of {facts.owner} would go by them before the menu begins"
        yield Finding(
            code="access.sshd.acceptenv",
            level=Level.WRONG,
            text=text,
            evidence=f"acceptenv {' '.join(sent)}",
            remedy="Write `AcceptEnv LANG LC_*` in its Match block",
        )
    yield from _crowd(settings)


#: Ways past the menu that one switch closes.
_FORWARDING = {
    "allowtcpforwarding": "connect through this machine to hosts and ports",
    "allowstreamlocalforwarding": "connect to sockets of this machine",
    "allowagentforwarding": "leave an agent here",
    "x11forwarding": "open windows through this machine",
    "permittunnel": "make a network through this machine",
}
_SWITCHES = (
    ("permituserenvironment", "no", "set variables by a file of his", "PermitUserEnvironment no"),
    ("permituserrc", "no", "run a file of his before the menu", "PermitUserRC no"),
    ("permittty", "yes", "have no terminal, which the menu needs", "PermitTTY yes"),
)


def _switches(settings: sshd.Settings, facts: Facts) -> Iterator[tuple[str, str, str, str]]:
    """Keyword, the value that is right, what another one lets somebody do, and the line that sets it right."""
    if sshd.value(settings, "disableforwarding", "no") != "yes":
        opens = sshd.value(settings, "permitopen").split()
        is_for_screens = sshd.value(settings, "allowtcpforwarding") == "local" and set(opens) <= set(facts.screens)
        for keyword, why in _FORWARDING.items():
            if keyword != "allowtcpforwarding" or not is_for_screens:
                yield keyword, "no", why, "DisableForwarding yes"
    yield from _SWITCHES


def _forced_command(name: str, settings: sshd.Settings, facts: Facts) -> Iterator[Finding]:
    """Exactly the menu; by sudo for an account other than the owner's."""
    written, menu = sshd.value(settings, "forcecommand"), list(facts.menu)
    if name == facts.owner:
        right = [menu, ["exec", *menu]]
    else:
        right = [
            [program, *quiet, "-u", facts.owner, *end, *menu]
            for program in ("sudo", "/usr/bin/sudo")
            for quiet in (["-n"], [])
            for end in ([], ["--"])
        ]
    if _words(written) not in right:
        yield Finding(
            code="access.sshd.forcecommand",
            level=Level.WRONG,
            text=f"what sshd runs for {name} is not exactly the menu of this installation",
            evidence=f"forcecommand {written}",
            remedy=f"Write `ForceCommand {shlex.join(right[0])}`",
        )


def _crowd(settings: sshd.Settings) -> Iterator[Finding]:
    """A class logs in at once; sshd drops those beyond its first figure."""
    figures = sshd.value(settings, "maxstartups").partition(":")[0]
    if figures.isdecimal() and int(figures) < CLASS:
        yield Finding(
            code="access.sshd.maxstartups",
            level=Level.WARNING,
            text=f"of {CLASS} people who log in at once sshd turns some away",
            evidence=f"maxstartups {sshd.value(settings, 'maxstartups')}",
            remedy=f"Write `MaxStartups {2 * CLASS}:30:{4 * CLASS}` before the first Match block",
        )


def _sudo(account: AccountFact, facts: Facts) -> Iterator[Finding]:
    """Nothing but the menu, as nobody but the owner, with an environment that sudo made."""
    rights = account.sudo or sudo.Rights()
    line = f"Write `{lines_for_sudo(facts, account.name).strip()}`, and take the other rule away"
    for entry in rights.entries:
        as_whom = ", ".join(entry.run_as)
        for command in entry.commands:
            if _words(command) != list(facts.menu) or entry.run_as != (facts.owner,):
                text = f"sudo lets {account.name} run more than the menu"
                evidence = f"{command} as {as_whom}"
                yield Finding(code="access.sudo.command", level=Level.WRONG, text=text, evidence=evidence, remedy=line)
        if "setenv" in entry.options:
            text = f"sudo lets {account.name} hand over variables, such as LD_PRELOAD"
            remedy = "Take `SETENV:` out of the rule"
            yield Finding(code="access.sudo.setenv", level=Level.WRONG, text=text, evidence="SETENV", remedy=remedy)
    if rights.entries:
        yield from _sudo_defaults(account, rights)


def _sudo_defaults(account: AccountFact, rights: sudo.Rights) -> Iterator[Finding]:
    for flag, why in (
        ("env_reset", f"sudo keeps the environment of {account.name}"),
        ("use_pty", f"the menu runs on the very terminal of {account.name}, who can stop it while it holds a lock"),
    ):
        if not sudo.has_flag(rights, flag):
            remedy = f"Write `Defaults {flag}` in sudoers, and take away what turns it off"
            yield Finding(code=f"access.sudo.{flag}", level=Level.WRONG, text=why, evidence=f"no {flag}", remedy=remedy)
    kept = [name for name in sudo.kept_variables(rights) if not _is_harmless(name)]
    if kept:
        text = f"sudo keeps variables of {account.name}; the menu ignores them"
        yield Finding(
            code="access.sudo.env_keep",
            level=Level.WARNING,
            text=text,
            evidence=f"env_keep {' '.join(kept)}",
            remedy="Take them out of `env_keep` for these accounts",
        )


def _is_harmless(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in HARMLESS)


def _groups(account: AccountFact) -> Iterator[Finding]:
    mighty = sorted(set(account.groups) & set(MIGHTY_GROUPS))
    if mighty:
        yield Finding(
            code="access.groups",
            level=Level.WRONG,
            text=f"{account.name} is as good as root",
            evidence=f"groups {', '.join(mighty)}",
            remedy=f"gpasswd -d {shlex.quote(account.name)} {mighty[0]}",
        )


def _unread(facts: Facts) -> Iterator[Finding]:
    for why in facts.unread:
        yield Finding(
            code="access.unread",
            level=Level.UNKNOWN,
            text=why,
            remedy=f"As root: {_doctor(facts.menu)}",
        )


def _doctor(menu: Sequence[str]) -> str:
    return shlex.join((menu[0], "doctor", "access", *menu[2:]))


def named_but_unknown(names: Iterable[str]) -> list[Finding]:
    """Findings for names that the operator gave and that no account has."""
    return [
        Finding(
            code="access.account.unknown",
            level=Level.WRONG,
            text=f"there is no account {name} on this machine",
            remedy="Name one that people log in with",
        )
        for name in names
    ]
