"""Accounts: the number of one, its groups, and how a child becomes it."""

from __future__ import annotations

import os
import stat
import sys

from cloudrepo.host.runner.base import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloudrepo.host.runner.base import Json


def ids_of(user: str) -> tuple[int, int]:
    """The number of an account and of its group; a number alone is both, and need be no account's."""
    if user.isdigit():
        return int(user), int(user)
    import pwd

    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def groups_of(user: str, gid: int) -> list[int]:
    """The groups of an account. Who is a number alone may use KVM where a group may, and is in no other."""
    if not user.isdigit():
        return os.getgrouplist(user, gid)
    try:
        facts = os.stat("/dev/kvm")
    except OSError:
        return []
    is_for_group = facts.st_gid and stat.S_ISCHR(facts.st_mode) and facts.st_mode & 0o060 == 0o060
    return [facts.st_gid] if is_for_group else []


def account(user: str) -> Json:
    """Arguments of `Popen` that make the child run as this account or number, and its home."""
    uid, gid = ids_of(user)
    home = "/"
    if not user.isdigit():
        import pwd

        home = pwd.getpwnam(user).pw_dir
    known: Json = {"env": dict(environment, HOME=home, USER=user, LOGNAME=user)}
    if uid == os.geteuid():
        return known
    groups = groups_of(user, gid)

    def become() -> None:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)

    if sys.version_info < (3, 9):  # noqa: UP036  hosts may be older than the orchestrator
        return dict(known, preexec_fn=become)
    return dict(known, user=uid, group=gid, extra_groups=groups)


def give(number: int, user: str) -> None:
    """Make an open file the account's own."""
    if user:
        uid, gid = ids_of(user)
        if os.fstat(number).st_uid != uid:
            os.fchown(number, uid, gid)


def account_name(uid: int) -> str:
    """The name of an account, or its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
