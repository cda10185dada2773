"""People: who there is; for administrators add, remove, role, quota, first password; everybody's own password."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from cli.screen import FAINT, GOOD
from cli.screens.context import Context
from cli.users import FIRST_PASSWORD_BYTES, show_users
from cloudrepo.permissions import ROLES, RULES, Reach
from cloudrepo.quotas import DEFAULT, KINDS

CHOICES = ("Back", "Add a user", "Remove a user", "Change a role", "Change a quota", "Give a new first password")


def users_menu(context: Context) -> None:
    """Menu entry 24."""
    ok, users = context.api.list_users(context.username)
    if not ok:
        context.screen.complain(users)
        return
    show_users(context.screen, users)
    if RULES["add_user"].reach(context.role) <= Reach.NONE:
        return
    for number, words in enumerate(CHOICES, 1):
        context.screen.line(f"  {number}. {words}")
    screens: tuple[Callable[[Context, list[Any]], None], ...] = (_add, _remove, _role, _quota, _first_password)
    chosen = context.ask.choice("What", CHOICES, suggestion=0)
    if chosen:
        screens[chosen - 1](context, users)


def password_menu(context: Context) -> None:
    """Menu entry 27."""
    new = context.ask.text("New password", secret=True)
    if context.ask.text("Again", secret=True) != new:
        context.screen.line("The two are not the same; nothing was changed.")
        return
    _say(context, context.api.set_password(context.username, new))


def _add(context: Context, users: list[Any]) -> None:
    known = [str(one["username"]) for one in users]
    name = context.ask.text("User name", check=lambda typed: f"There is a user {typed}." if typed in known else "")
    role = ROLES[context.ask.choice(_numbered(ROLES), ROLES, suggestion=ROLES.index("student"))]
    password = secrets.token_urlsafe(FIRST_PASSWORD_BYTES)
    ok, answer = context.api.add_user(context.username, name, password, role=role)
    if not ok:
        context.screen.complain(answer)
        return
    context.screen.line((f"User {name} was added as {role}. First password: {password}", GOOD))
    context.screen.line(("It is shown this once; the first login asks for another.", FAINT))


def _remove(context: Context, users: list[Any]) -> None:
    name = _ask_user(context, users)
    slices = next(one["slices"] for one in users if one["username"] == name)
    heir = ""
    if slices:
        context.screen.line(f"{name} has {len(slices)} slices; somebody must get them.")
        heir = _ask_user(context, [one for one in users if one["username"] != name], "Give them to")
    if not context.ask.yes(f"Remove the user {name}", default=False):
        context.screen.line("Nobody was removed.")
        return
    _say(context, context.api.remove_user(context.username, name, give_slices_to=heir), f"{name} was removed.")


def _role(context: Context, users: list[Any]) -> None:
    name = _ask_user(context, users)
    role = ROLES[context.ask.choice(_numbered(ROLES), ROLES)]
    _say(context, context.api.set_role(context.username, name, role), f"{name} is {role} now.")


def _quota(context: Context, users: list[Any]) -> None:
    name = _ask_user(context, users)
    quota = next(one["quota"] for one in users if one["username"] == name)
    for kind in KINDS:
        context.screen.line(f"  {kind}: ", (f"{quota[kind]['used']} of {quota[kind]['limit']}", FAINT))
    kind = KINDS[context.ask.choice(_numbered(KINDS), KINDS, suggestion=0)]
    options = [(DEFAULT, "what the settings say"), ("unlimited", "no limit")]
    amount = context.ask.text(f"New limit of {kind}", options=options)
    _say(context, context.api.set_quota(context.username, name, {kind: amount}), f"The quota of {name} was changed.")


def _first_password(context: Context, users: list[Any]) -> None:
    name = _ask_user(context, users)
    password = secrets.token_urlsafe(FIRST_PASSWORD_BYTES)
    said = f"The next login of {name} is with {password}, and asks for another."
    _say(context, context.api.reset_password(context.username, name, password), said)


def _ask_user(context: Context, users: list[Any], label: str = "User") -> str:
    names = [str(one["username"]) for one in users]
    return context.ask.text(
        label,
        options=[(str(one["username"]), str(one["role"])) for one in users],
        check=lambda typed: "" if typed in names else f"There is no user {typed}.",
    )


def _numbered(words: tuple[str, ...]) -> str:
    return ", ".join(f"{number} {word}" for number, word in enumerate(words, 1))


def _say(context: Context, answer: tuple[bool, Any], words: str = "") -> None:
    ok, payload = answer
    context.screen.line((words or str(payload), GOOD)) if ok else context.screen.complain(payload)
