"""People: accounts, roles and quotas. Who may do it was asked at the façade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo import accounts, permissions, quotas, validation
from cloudrepo.errors import RefusedError
from cloudrepo.state import all_slices
from control.context import Context, Record, user_record

RESERVED = ("operator", "monitor")  # names of those who act without being users


def add(context: Context, name: Any, role: Any, password: str, wishes: Mapping[str, Any]) -> Record:
    """A new user, whose first login asks for a password of his own.

    Args:
        context: the installation.
        name: the login name.
        role: one of `permissions.ROLES`.
        password: the first one.
        wishes: limits by kind; what is not there, the settings say.

    Returns:
        As `listed`.

    Raises:
        RefusedError: the name is taken or none, no such role, a rule for passwords, a limit that is none.
    """
    name = validation.username(name)
    if name.casefold() in RESERVED:
        raise RefusedError(
            f"a user cannot be named {name}", evidence="the event log knows another one", code="name.user"
        )
    role = permissions.role_named(role)
    limits = {kind: quotas.wished(kind, word) for kind, word in wishes.items()}
    _known_kinds(wishes)
    secret = accounts.first_password(name, password)  # before the transaction: bcrypt takes its time
    with context.db.transaction() as data:
        taken = next((other for other in data["users"] if other.casefold() == name.casefold()), None)
        if taken is not None:
            raise RefusedError(f"there is a user {taken} already", code="user.taken")
        record = {"username": name, "role": role, "quota_vms": context.settings.quota.vms, **secret}
        _limit(record, limits, context)
        data["users"][name] = record
    return one(context, name)


def remove(context: Context, name: str, give_slices_to: str) -> str:
    """Remove a user. One who has slices goes only when these are given to somebody else.

    Raises:
        RefusedError: no such user, the last administrator, there are slices, or they exceed the other one's quota.
    """
    with context.db.transaction() as data:
        user = user_record(data, name)
        _keep_an_admin(data, user)
        owned = sorted(record["slice_id"] for record in all_slices(data) if record["owner"] == name)
        if give_slices_to:
            _give(context, data, name, give_slices_to, owned)
        elif owned:
            ids = ", ".join(map(str, owned))
            raise RefusedError(
                f"{name} has slices and is not removed",
                evidence=f"slices {ids}",
                remedy="Delete them first, or give them away: --give-slices-to USER",
                code="user.slices",
                details={"slices": owned},
            )
        del data["users"][name]
    given = f"; {len(owned)} of {name}'s slices are {give_slices_to}'s now" if owned else ""
    return f"User {name} removed{given}"


def _give(context: Context, data: Record, name: str, to: str, owned: list[int]) -> None:
    """Give slices to another user; nobody may be at work on them."""
    user_record(data, to)
    if to == name:
        raise RefusedError(f"{name} cannot be given his own slices", remedy="Name another user", code="user.same")
    quotas.check(data, to, quotas.used(data, name), context.settings)
    for slice_id in owned:
        record = data["slices"][str(slice_id)]
        if record.get("operation") or any(vm.get("operation") for vm in record["vms"]):
            raise RefusedError(
                f"slice {slice_id} is not given away now",
                evidence="an operation on it has not ended",
                remedy=f"Wait for it, or `./cloud resume {slice_id}`",
                code="slice.busy",
            )
        record["owner"] = to
        for vm in record["vms"]:
            vm["owner"] = to


def reset_password(context: Context, name: str, password: str) -> str:
    """Give a user a password that the next login asks to change.

    Raises:
        RefusedError: no such user, or a rule for passwords.
    """
    secret = accounts.first_password(name, password)
    with context.db.transaction() as data:
        user_record(data, name).update(secret)
    return f"{name} has a new first password, which the next login asks to change"


def set_role(context: Context, name: str, role: Any) -> str:
    """Change what a user may do.

    Raises:
        RefusedError: no such user or role, or there would be no administrator.
    """
    wanted = permissions.role_named(role)
    with context.db.transaction() as data:
        user = user_record(data, name)
        if wanted != "admin":
            _keep_an_admin(data, user)
        user["role"] = wanted
    return wanted


def set_quota(context: Context, name: str, wishes: Mapping[str, Any]) -> Record:
    """Change limits; what a user has beyond them stays, and nothing can be added.

    Args:
        context: the installation.
        name: the user.
        wishes: by kind a number, `unlimited`, or `default` for what the settings say.

    Returns:
        As `listed`.

    Raises:
        RefusedError: no such user, or a limit that is none.
    """
    _known_kinds(wishes)
    limits = {kind: quotas.wished(kind, word) for kind, word in wishes.items()}
    with context.db.transaction() as data:
        _limit(user_record(data, name), limits, context)
    return one(context, name)


def _known_kinds(wishes: Mapping[str, Any]) -> None:
    for kind in wishes:
        if kind not in quotas.KINDS:
            raise RefusedError(
                f"there is no quota of {validation.shown(kind)}",
                evidence=f"there are {', '.join(quotas.KINDS)}",
                code="quota.kind",
            )


def _limit(record: Record, limits: Mapping[str, Any], context: Context) -> None:
    for kind, limit in limits.items():
        record.pop(f"quota_{kind}", None)
        if limit is not None:
            record[f"quota_{kind}"] = limit
    record.setdefault("quota_vms", context.settings.quota.vms)  # documented: always in the record


def _keep_an_admin(data: Mapping[str, Any], user: Mapping[str, Any]) -> None:
    admins = [name for name, other in data["users"].items() if permissions.is_admin(other)]
    if admins == [user["username"]]:
        raise RefusedError(
            f"{user['username']} is the only administrator, and stays one",
            remedy="Make somebody else an administrator first: ./cloud user role USER admin",
            code="user.last_admin",
        )


def listed(context: Context) -> list[Record]:
    """Everybody, by name.

    Returns:
        Each with `username`, `role`, `must_change_password`, `slices` (ids), and by kind in `quota` what is `used`
        and the `limit`, a number or `unlimited`. Never a hash.
    """
    context.db.refresh()
    with context.db.lock:
        return [_view(context, context.db.data["users"][name]) for name in sorted(context.db.data["users"])]


def one(context: Context, name: str) -> Record:
    """One user, as in `listed`."""
    with context.db.lock:
        return _view(context, user_record(context.db.data, name))


def _view(context: Context, user: Mapping[str, Any]) -> Record:
    limit, used = quotas.limits(user, context.settings), quotas.used(context.db.data, str(user["username"]))
    return {
        "username": user["username"],
        "role": permissions.role_of(user),
        "must_change_password": accounts.must_change(user),
        "slices": list(user.get("slices", ())),  # of a new one they are written with the transaction
        "quota": {
            kind: {"used": quotas.number(used.of(kind)), "limit": quotas.number(limit.of(kind))}
            for kind in quotas.KINDS
        },
    }
