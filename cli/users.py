"""`./cloud user`: people, their roles and quotas, for an operator at the shell of the account that owns the state."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer

from cli.documents import NotDone
from cli.options import DryRun, Json
from cli.screen import FAINT, GOOD, Screen
from cli.work import Work, questions

FIRST_PASSWORD_BYTES = 9  # twelve characters

app = typer.Typer(help="People: accounts, roles, quotas.", no_args_is_help=True)


def _named(word: str) -> str:
    """Refuse an empty word: a script whose variable is empty means nobody."""
    if word == "":
        raise typer.BadParameter("an empty word names no user")
    return word


Name = Annotated[str, typer.Argument(metavar="NAME", help="The login name.", callback=_named)]
Generate = Annotated[bool, typer.Option("--generate", help="Print a random first password; else it is asked.")]
Vms = Annotated[str | None, typer.Option("--vms", metavar="N", help="VMs.")]
Cores = Annotated[str | None, typer.Option("--cores", metavar="N", help="Virtual CPUs; a number or `unlimited`.")]
Ram = Annotated[str | None, typer.Option("--ram", metavar="GB", help="Memory in GiB; a number or `unlimited`.")]
Disk = Annotated[str | None, typer.Option("--disk", metavar="GB", help="Disks in GiB; a number or `unlimited`.")]


@app.command()
def add(
    context: typer.Context,
    name: Name,
    role: Annotated[str, typer.Option(metavar="ROLE", help="admin, instructor or student.")] = "student",
    generate: Generate = False,
    vms: Vms = None,
    cores: Cores = None,
    ram: Ram = None,
    disk: Disk = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Make a user, with a first password that the first login asks to change."""
    work = _Work(context, as_json)
    if dry_run:
        return work.rehearse("add_user", user=name, role=role, quotas=_quotas(vms, cores, ram, disk))
    password = work.first_password(generate)
    made = work.done(work.api.add_user(None, name, password, role=role, quotas=_quotas(vms, cores, ram, disk)))
    shown = {"first_password": password} if generate else {}
    work.screen.line((f"User {name} was made: {made['role']}.", GOOD), *_printed(shown))
    return work.end({"user": made, **shown})


@app.command()
def remove(
    context: typer.Context,
    name: Name,
    give_slices_to: Annotated[str, typer.Option(metavar="USER", help="Who gets the slices, if there are any.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Remove a user; one with slices only when these are given to somebody."""
    work = _Work(context, as_json)
    if dry_run:
        return work.rehearse("remove_user", user=name, give_slices_to=give_slices_to)
    text = work.done(work.api.remove_user(None, name, give_slices_to=give_slices_to))
    work.screen.line((f"{text}.", GOOD))
    return work.end({"user": name, "message": text})


@app.command()
def passwd(
    context: typer.Context, name: Name, generate: Generate = False, dry_run: DryRun = False, as_json: Json = False
) -> int:
    """Give a user a new first password, which the next login asks to change."""
    work = _Work(context, as_json)
    if dry_run:
        return work.rehearse("reset_password", user=name)
    password = work.first_password(generate)
    text = work.done(work.api.reset_password(None, name, password))
    shown = {"first_password": password} if generate else {}
    work.screen.line((f"{text}.", GOOD), *_printed(shown))
    return work.end({"user": name, **shown})


@app.command()
def quota(
    context: typer.Context,
    name: Name,
    vms: Vms = None,
    cores: Cores = None,
    ram: Ram = None,
    disk: Disk = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Show what a user may have, or change it; `default` is what the settings say."""
    work = _Work(context, as_json)
    wishes = _quotas(vms, cores, ram, disk)
    if wishes and dry_run:
        return work.rehearse("set_quota", user=name, quotas=wishes)
    if wishes:
        user = work.done(work.api.set_quota(None, name, wishes))
    else:
        users = work.done(work.api.list_users(None))
        user = next((one for one in users if one["username"] == name), None)
        if user is None:
            raise NotDone("User not found", code="user.unknown")
    show_users(work.screen, [user])
    return work.end({"user": user})


@app.command()
def role(
    context: typer.Context,
    name: Name,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="admin, instructor or student.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Change what a user may do."""
    work = _Work(context, as_json)
    if dry_run:
        return work.rehearse("set_role", user=name, role=role)
    given = work.done(work.api.set_role(None, name, role))
    work.screen.line((f"{name} is {given} now.", GOOD))
    return work.end({"user": name, "role": given})


@app.command("list")
def list_users(context: typer.Context, as_json: Json = False) -> int:
    """Show everybody: role, slices, and what is used of each quota."""
    work = _Work(context, as_json)
    users = work.done(work.api.list_users(None))
    work.ids(*(user["username"] for user in users))
    if not as_json:
        show_users(work.screen, users)
    return work.end({"users": users})


class _Work(Work):
    """A command about people."""

    def __init__(self, context: typer.Context, as_json: bool) -> None:
        super().__init__(context, "user", as_json=as_json)

    def rehearse(self, call: str, **wish: Any) -> int:
        """Show what a call would change. No password is asked for."""
        from cli.plans import show_rehearsal

        return show_rehearsal(self, call, wish)

    def first_password(self, generate: bool) -> str:
        """A random one, or what is typed twice."""
        if generate:
            return secrets.token_urlsafe(FIRST_PASSWORD_BYTES)
        ask = questions(aside=self.as_json)
        first, again = ask.text("First password", secret=True), ask.text("Again", secret=True)
        if first != again:
            raise NotDone("The two are not the same; nothing was changed.", code="password.again")
        return first


def _quotas(vms: str | None, cores: str | None, ram: str | None, disk: str | None) -> dict[str, str]:
    given = {"vms": vms, "cores": cores, "ram_gb": ram, "disk_gb": disk}
    return {kind: word for kind, word in given.items() if word is not None}


def _printed(shown: dict[str, str]) -> list[str]:
    return [f" First password: {password}" for password in shown.values()]


def show_users(screen: Screen, users: list[dict[str, Any]]) -> None:
    """Everybody with role and quotas, as a table."""
    headings = ("User", "Role", "Slices", "VMs", "Cores", "RAM GiB", "Disk GiB", "")
    screen.table(headings, [_row(user) for user in users])


def _row(user: dict[str, Any]) -> list[Any]:
    amounts = [_amount(**one) for one in user["quota"].values()]
    first = "first password" if user["must_change_password"] else ""
    return [user["username"], user["role"], str(len(user["slices"])), *amounts, (first, FAINT)]


def _amount(used: object, limit: object) -> str:
    return str(used) if limit == "unlimited" else f"{used} of {limit}"
