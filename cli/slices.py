"""`./cloud slice`: make slices, list them, look at them, remove them. An operator acts as the owner."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.options import As, DryRun, Json, Slice, Wait, Yes
from cli.screen import FAINT, GOOD, Piece
from cli.work import SliceWork, Work

app = typer.Typer(help="Slices: virtual networks with their machines.", no_args_is_help=True)

NAME = "slice"
NEW_OWNER = "admin"  # who gets a new slice where nobody is named: the documented administrator


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    topology: Annotated[str, typer.Option(metavar="WORD", help="What its shape is called.")] = "custom",
    user: As = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Make an empty slice; `--as` says whose it is, else it is the administrator's."""
    work, owner = Work(context, NAME, as_json=as_json), user or NEW_OWNER
    if dry_run:
        from cli.plans import show_allocation

        return show_allocation(work, owner, "create_slice", {"slice_name": name, "topology_type": topology})
    made = work.done(work.api.create_slice(owner, name, topology))
    view = work.done(work.api.get_slice(owner, made["slice_id"]))
    work.ids(made["slice_id"])
    work.screen.line((f"Slice {made['slice_id']} “{made['name']}” was made for {owner}.", GOOD))
    return work.end({"slice_id": made["slice_id"], "slice": view})


@app.command("list")
def list_slices(context: typer.Context, user: As = "", as_json: Json = False) -> int:
    """List all slices, or those of one user."""
    work = Work(context, NAME, as_json=as_json)
    slices = work.done(work.api.list_slices(user) if user else work.api.list_all_slices(None))
    headings = ("Slice", "Name", "Owner", "State", "VMs", "Links", "Workers", "")
    work.table(headings, [row(one) for one in slices], [one["slice_id"] for one in slices], none="There are no slices.")
    return work.end({"slices": slices})


def row(view: dict[str, Any]) -> list[Piece]:
    """A slice as a row of a table."""
    workers = sorted({str(vm["worker_ip"]) for vm in view["vms"]})
    notes = [view["error"]] if view["error"] else [f"waits for {ip}" for ip in view["pending"]]
    return [
        *(str(view["slice_id"]), view["name"], view["owner"], view["status"]),
        *(str(len(view["vms"])), str(len(view["links"])), ", ".join(workers)),
        ("; ".join(notes), FAINT),
    ]


@app.command()
def show(context: typer.Context, slice: Slice, user: As = "", as_json: Json = False) -> int:
    """Show a slice: its VMs, their NICs and links, addresses, state, and the reason of an error."""
    from cli.screens.slices import show_slice

    work = SliceWork(context, NAME, slice, user, as_json=as_json)
    view = work.view()
    work.ids(work.slice_id)
    if not as_json:
        show_slice(work.screen, view)
    return work.end({"slice": view})


@app.command()
def remove(
    context: typer.Context,
    slice: Slice,
    user: As = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Take a slice down, its disks too, and forget it; as `./cloud delete`."""
    from cli.slice_commands import delete

    return delete(context, slice, user, wait, dry_run, yes, as_json)
