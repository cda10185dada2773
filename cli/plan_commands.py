"""`./cloud plan` and `./cloud apply`: look first, keep it, and do exactly that or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import As, DryRun, Json, Slice, named
from cli.plans import load, show_plan
from cli.slice_commands import Job
from cli.work import SliceWork

app = typer.Typer()


@app.command()
def plan(
    context: typer.Context,
    slice: Slice,
    action: Annotated[
        str, typer.Option(metavar="WORD", help="deploy, start, stop or delete; without it, what brings it up.")
    ] = "",
    file: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Keep it there for `apply`.")] = "",
    user: As = "",
    as_json: Json = False,
) -> int:
    """Show what an operation on a slice would do on each host; status 2 when that is something."""
    work = SliceWork(context, "plan", slice, user, as_json=as_json)
    kind = action or ("start" if work.view()["status"] == "stopped" else "deploy")
    return show_plan(work, work.acting, kind, work.slice_id, file=file)


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `plan -o` kept.", callback=named)],
    user: As = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Do what a plan says, as whom it was made for, or nothing: it is refused when records or hosts moved since."""
    job = Job(context, "apply", user, as_json)
    saved = load(Path(file))
    job.user = user or str(saved.get("user") or "")
    words = str(saved["slice_id"])
    return job.rehearse(words, plan=saved) if dry_run else job.run(words, plan=saved)
