"""The options and arguments that many commands share: one definition each, and the variable that says the same.

A command takes one as a parameter, such as `as_json: Json = False`. `--state` and `--quiet` are given to every command
by `cli/assembly.py`, which also names the variables of all other options. docs/commands.md lists them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cli.documents import JSON_VARIABLE
from cli.installation import STATE_VARIABLE

QUIET_KEY = "cloudrepo.quiet"  # of the context's `meta`


def named(word: str | None) -> str | None:
    """Refuse an empty word: a script whose variable is empty does not mean all, or the first.

    Raises:
        typer.BadParameter: it is empty.
    """
    if word == "":
        raise typer.BadParameter("an empty word names nothing")
    return word


def _named_user(context: typer.Context, option: typer.CallbackParam, word: str) -> str:
    source = context.get_parameter_source(str(option.name))
    if word == "" and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("an empty word names no user")
    return word


def _named_slice(word: str | None) -> str | None:
    if word == "":
        raise typer.BadParameter("an empty word names no slice")
    return word


Json = Annotated[
    bool,
    typer.Option(
        "--json", envvar=JSON_VARIABLE, help="One JSON document on stdout; whatever is said besides goes to stderr."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar="CLOUDREPO_YES", help="Ask nothing.")]
As = Annotated[
    str,
    typer.Option(
        "--as", metavar="USER", envvar="CLOUDREPO_AS", help="Act as this user instead of the owner.",
        callback=_named_user, show_default=False,
    ),
]  # fmt: skip
Wait = Annotated[
    bool,
    typer.Option("--wait/--no-wait", envvar="CLOUDREPO_WAIT", help="Wait for the end, or leave it to the monitor."),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", envvar="CLOUDREPO_DRY_RUN", help="Show what would be done, and do nothing; status 2 if something."
    ),
]
State = Annotated[
    str,
    typer.Option("--state", metavar="FILE", envvar=STATE_VARIABLE, help="The state file.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="CLOUDREPO_QUIET", help="Say nothing but ids and errors.")]

Slice = Annotated[str, typer.Argument(metavar="SLICE", help="Its id or name.", callback=_named_slice)]
SliceOrAll = Annotated[
    str | None, typer.Argument(metavar="SLICE", help="Its id or name; without it, all.", callback=_named_slice)
]
Vm = Annotated[str, typer.Argument(metavar="VM", help="Its id or name, or SLICE/NAME.", callback=named)]
