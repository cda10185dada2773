"""`./cloud config show`: every setting and every shared option, its value, and who said so."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from cli import documents
from cli.documents import NotDone
from cli.installation import state_folder, state_path
from cli.options import Json
from cli.screen import FAINT, STRONG
from cli.work import is_quiet, talk

app = typer.Typer(help="What this installation is set to.", no_args_is_help=True)

#: The sources of an option's value, by typer's names.
_ORIGINS = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment"}


@app.callback()
def config() -> None:
    """What this installation is set to."""


@app.command()
def show(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="KEY", help="Only this key, or group of keys.")] = "",
    origin: Annotated[bool, typer.Option("--origin", help="Say of each where its value comes from.")] = False,
    as_json: Json = False,
) -> int:
    """Show each setting and its value; with `--origin` also whether flag, variable, file or default gave it."""
    state_folder()
    path, screen = state_path(), talk(context, as_json=as_json)
    settings = [
        one for one in _settings() if one["key"] == prefix or one["key"].startswith(f"{prefix}." if prefix else "")
    ]
    if not settings:
        raise NotDone(f"There is no setting {prefix}. docs/settings.md lists all.", code="settings.unknown")
    options = [] if prefix else _options(context)
    if as_json:
        documents.write({"command": "config", "state": str(path), "settings": settings, "options": options})
        return 0
    for one in (*options, *settings):
        if is_quiet(context):
            print(one["key"])
            continue
        where = f"  ({one['where'] or one['origin']})" if origin else ""
        screen.line((f"{one['key']}: ", STRONG), _shown(one["value"]), (where, FAINT))
    return 0


def _settings() -> list[dict[str, Any]]:
    from cloudrepo.settings import Settings

    return [
        {"key": key, "value": value, "origin": origin, "where": where}
        for key, (value, origin, where) in Settings.told(state_path(), os.environ).items()
    ]


def _options(context: typer.Context) -> list[dict[str, Any]]:
    """The options that all commands have, as they are for this one."""
    found = []
    for option in context.command.params:
        if option.param_type_name != "option" or option.name not in ("state", "quiet", "as_json"):
            continue
        source = context.get_parameter_source(str(option.name))
        said = _ORIGINS.get(source.name if source is not None else "", "default")
        word = option.opts[0]
        where = {"flag": word, "environment": str(option.envvar)}.get(said, "")
        value = str(state_path()) if option.name == "state" else bool(context.params.get(str(option.name)))
        if option.name == "quiet":
            value = is_quiet(context)
        found.append({"key": word, "value": value, "origin": said, "where": where})
    return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "(empty)"
    if isinstance(value, dict):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value) or "(empty)"
