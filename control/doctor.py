"""What `./cloud doctor` looks at on this machine. It reads; judging is `cloudrepo/doctor/`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cloudrepo.commands import sshd, sudo
from cloudrepo.doctor.access import AccountFact, Facts, PathFact, judge, named_but_unknown
from cloudrepo.doctor.findings import Finding
from cloudrepo.setting_values import ports_of
from cloudrepo.settings import Settings

CHECKOUT = Path(__file__).resolve().parent.parent
PEOPLE = range(1000, 65534)  # uids of accounts that people log in with (login.defs(5))
NO_SHELLS = ("nologin", "false", "sync")
PACKAGES = ("cli", "cloudrepo", "control")
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
DEADLINE_S = 30
NOT_CODE = frozenset({".git", ".lab", ".lab-cache", ".pytest_cache", ".ruff_cache", ".mypy_cache"})


def access(
    state: Path, *, accounts: Sequence[str] = (), address: str = "192.0.2.1", port: int = 22, sshd_config: str = ""
) -> tuple[str, list[Finding]]:
    """Look whether people who get only the menu get only the menu.

    Args:
        state: the state file.
        accounts: those that should get the menu only, whatever is found of them.
        address: where people log in from.
        port: of sshd.
        sshd_config: another configuration than sshd's own.

    Returns:
        The account that owns the installation, and the findings.

    Raises:
        OSError: there is no such state file.
        SettingsError: the settings beside it cannot be read.
    """
    state = Path(os.path.realpath(state))
    owner = _account(state.stat().st_uid)
    known = {entry.pw_name for entry in pwd.getpwall()}
    names = _people() | {owner.pw_name} | (set(accounts) & known)
    where = {"address": address, "port": port, "config": sshd_config}
    asked, unread = _ask(sorted(names), frozenset(accounts), where)
    settings = Settings.load(state, {})
    facts = Facts(
        owner=owner.pw_name,
        owner_uid=owner.pw_uid,
        menu=(str(CHECKOUT / "cloud"), "menu", "--state", str(state)),
        paths=tuple(_paths(state, Path(owner.pw_dir), settings)),
        accounts=tuple(asked),
        unread=tuple(unread),
        tunnels=ports_of(settings.vnc.tunnels),
        uncompiled=sum(not _is_kept(path, owner.pw_uid) for path in _modules()),
        compiling=(sys.executable, "-m", "compileall", "-q", *map(str, _parts())),
    )
    return owner.pw_name, [*named_but_unknown(sorted(set(accounts) - known)), *judge(facts)]


def _account(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:  # an account that was removed
        return pwd.struct_passwd((str(uid), "x", uid, uid, "", "/", ""))


def _people() -> set[str]:
    """Accounts that a person may log in with."""
    found = pwd.getpwall()
    return {one.pw_name for one in found if one.pw_uid in PEOPLE and Path(one.pw_shell).name not in NO_SHELLS}


# -- accounts ----------------------------------------------------------------------------


def _ask(names: Sequence[str], named: frozenset[str], where: Mapping[str, Any]) -> tuple[list[AccountFact], list[str]]:
    """What sshd and sudo say of each account; and what they would not say."""
    if os.geteuid() != 0:
        return [], ["what sshd and sudo let accounts do is root's to read"]
    path = os.pathsep.join((os.environ.get("PATH", ""), *SBIN))
    daemon, found, unread = shutil.which("sshd", path=path), [], []
    for name in names:
        login: sshd.Settings | None = {}
        if daemon is not None:  # without one nobody logs in by it
            answer, trouble = _run(sshd.effective(name, binary=daemon, **where))
            login = sshd.parse_effective(answer) if not trouble else None
            unread += [f"sshd does not say what holds for {name}: {trouble}"] if trouble else []
        rights: sudo.Rights | None = sudo.Rights()
        if shutil.which("sudo", path=path) is not None:
            answer, trouble = _run(sudo.rights(name))
            rights = sudo.parse_rights(answer) if not trouble else None
            unread += [f"sudo does not say what {name} may run: {trouble}"] if trouble else []
        found.append(AccountFact(name=name, groups=_groups(name), is_named=name in named, sshd=login, sudo=rights))
    return found, list(dict.fromkeys(unread))


def _run(words: Sequence[str]) -> tuple[str, str]:
    """The answer of a program, and why there is none."""
    try:
        done = subprocess.run(
            words,
            env={"PATH": os.pathsep.join((*SBIN, "/usr/local/bin", "/usr/bin", "/bin")), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return done.stdout, (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _groups(name: str) -> tuple[str, ...]:
    import grp

    found = []
    for number in os.getgrouplist(name, pwd.getpwnam(name).pw_gid):
        try:
            found.append(grp.getgrgid(number).gr_name)
        except KeyError:  # a group that was removed
            found.append(str(number))
    return tuple(found)


# -- files -------------------------------------------------------------------------------


def _paths(state: Path, home: Path, settings: Settings) -> Iterator[PathFact]:
    """The installation, its key, the program, and the folders above them, each once."""
    seen: set[str] = set()
    keys = [Path(settings.ssh.key)] if settings.ssh.key else sorted((home / ".ssh").glob("id_*[!.pub]"))
    pins = [Path(settings.ssh.known_hosts)] if settings.ssh.known_hosts else []
    python = Path(os.path.realpath(sys.executable))
    for path in (state.parent, *keys):
        yield from _fact(path, "secret", seen)
    for path in (*sorted(state.parent.iterdir()), *pins, home / ".ssh", home / ".ssh" / "config", python):
        yield from _fact(path, "trusted", seen)
    yield from _program(seen)
    for path in (state.parent, *keys, *pins, home / ".ssh", CHECKOUT, Path(sys.prefix), python):
        for folder in Path(os.path.realpath(path)).parents:
            yield from _fact(folder, "way", seen)


def _program(seen: set[str]) -> Iterator[PathFact]:
    """Every file that the menu may run: the checkout, and the Python environment."""
    for top in (CHECKOUT, Path(os.path.realpath(sys.prefix))):
        yield from _fact(top, "trusted", seen)
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if name not in NOT_CODE]
            for name in (*folders, *files):
                yield from _fact(f"{folder}/{name}", "trusted", seen, is_real=True)


def _parts() -> list[Path]:
    """The modules and packages of the checkout that a menu may load."""
    return [*sorted(CHECKOUT.glob("*.py")), *(CHECKOUT / name for name in PACKAGES)]


def _modules() -> Iterator[Path]:
    for part in _parts():
        if part.is_dir():
            yield from sorted(part.rglob("*.py"))
        elif part.name != "main.py":  # what is started is never kept
            yield part


def _is_kept(path: Path, uid: int) -> bool:
    """Whether Python has a module compiled as it is now (PEP 552), or an account may have it kept."""
    kept = Path(importlib.util.cache_from_source(str(path)))
    try:
        status = path.stat()
    except OSError:  # it has just gone, or an editor's link to nowhere
        return True
    try:
        head = kept.read_bytes()[:16]
    except OSError:
        head = b""
    now = struct.pack("<4sIII", importlib.util.MAGIC_NUMBER, 0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size)
    folder = kept.parent if kept.parent.exists() else path.parent
    return head == now or folder.stat().st_uid == uid


def _fact(
    path: str | Path, kind: Literal["secret", "trusted", "way"], seen: set[str], *, is_real: bool = False
) -> Iterator[PathFact]:
    """What a path is, links followed; nothing for one that is not there or was told before.

    `is_real`: the folders above it are no links, which saves asking for each of them.
    """
    real = str(path) if is_real and not os.path.islink(path) else os.path.realpath(path)
    if real in seen:
        return
    try:
        status = os.stat(real)
    except OSError:
        return
    seen.add(real)
    yield PathFact(path=real, kind=kind, uid=status.st_uid, mode=stat.S_IMODE(status.st_mode))
