"""`./cloud worker`: hosts come, are looked at, and go."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.installation import Installation
from cli.options import DryRun, Json, Yes
from cli.work import Work, questions, talk

app = typer.Typer(help="The hosts that machines run on.", no_args_is_help=True)

Address = Annotated[str, typer.Argument(metavar="IP", help="Its management address.")]


def _installation(context: typer.Context) -> Installation:
    return Work(context, "", as_json=False).installation


def _rehearse(context: typer.Context, verb: str, wish: dict[str, Any], *, as_json: bool) -> int:
    from cli.plans import show_rehearsal

    return show_rehearsal(Work(context, f"worker {verb}", as_json=as_json), f"{verb}_worker", wish)


@app.command("add")
def worker_add(
    context: typer.Context,
    ip: Address,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Install and set up what a worker needs, and say what was changed.")
    ] = False,
    uplink: Annotated[str, typer.Option(metavar="IF", help="With --bootstrap: the device to the other hosts.")] = "",
    admin: Annotated[str, typer.Option(metavar="USER", help="With --bootstrap: an account that is root there.")] = "",
    datapath: Annotated[
        str, typer.Option(metavar="KIND", help="With --bootstrap: `system` or `netdev`, of a bridge that is made.")
    ] = "",
    as_json: Json = False,
) -> int:
    """Enrol a host: contact it, pin its key, learn what it is; with --bootstrap make it a worker first."""
    from cli.workers import add_worker

    if (uplink or admin or datapath) and not bootstrap:
        raise typer.BadParameter("it belongs to --bootstrap", param_hint="--uplink, --admin, --datapath")
    if datapath not in ("", "system", "netdev"):
        raise typer.BadParameter("system or netdev is wanted", param_hint="--datapath")
    wishes = {"uplink": uplink, "admin": admin, "datapath": datapath} if bootstrap else None
    return add_worker(_installation(context), ip, talk(context, as_json=as_json), wishes, as_json=as_json)


@app.command("drain")
def worker_drain(
    context: typer.Context,
    ip: Address,
    undo: Annotated[bool, typer.Option("--undo", help="Place VMs there again.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Place no new VMs on a worker; what runs there goes on."""
    if dry_run:
        return _rehearse(context, "drain", {"ip": ip, "undo": undo}, as_json=as_json)
    from cli.worker_going import drain_worker

    screen = talk(context, as_json=as_json)
    return drain_worker(_installation(context), ip, screen, undo=undo, as_json=as_json)


@app.command("remove")
def worker_remove(
    context: typer.Context,
    ip: Address,
    force: Annotated[
        bool, typer.Option("--force", help="Also with VMs there, which stay in the records, or when it is gone.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    yes: Yes = False,
) -> int:
    """Take a worker out of the installation, and what is ours from the host, after a yes."""
    if dry_run:
        return _rehearse(context, "remove", {"ip": ip, "force": force}, as_json=as_json)
    from cli.worker_going import remove_worker

    screen, ask = talk(context, as_json=as_json), questions(aside=as_json)
    return remove_worker(_installation(context), ip, screen, ask, force=force, as_json=as_json, assume_yes=yes)


@app.command("list")
def worker_list(context: typer.Context, as_json: Json = False) -> int:
    """Ask all workers what they are, and show them."""
    from cli.workers import list_workers

    return list_workers(Work(context, "worker", as_json=as_json))


@app.command("trust")
def worker_trust(
    context: typer.Context, ip: Address, dry_run: DryRun = False, yes: Yes = False, as_json: Json = False
) -> int:
    """Show the key of a host that is new or was installed anew, and pin it after a yes."""
    from cli.workers import trust_worker

    screen, ask = talk(context, as_json=as_json), questions(aside=as_json)
    installation = _installation(context)
    return trust_worker(installation, ip, screen, ask, assume_yes=yes, dry_run=dry_run, as_json=as_json)


@app.command("harden")
def worker_harden(
    context: typer.Context,
    ip: Address,
    admin: Annotated[str, typer.Option(metavar="USER", help="Log in as this account, which is root there.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print a script for root to run there instead.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Install the helper on a host: its SSH account may then run that as root, and nothing else."""
    from cli.workers import harden_worker, print_hardening

    installation = _installation(context)
    if show:
        return print_hardening(installation, ip, undo=undo, as_json=as_json)
    screen, ask = talk(context, as_json=as_json), questions(aside=as_json)
    return harden_worker(installation, ip, screen, ask, admin=admin, undo=undo, assume_yes=yes, as_json=as_json)
