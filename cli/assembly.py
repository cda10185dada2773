"""From the registered commands to the one that a command line means, with what all of them have.

Only that one is built: to build all takes longer than most commands. Each gets `--state` and `--quiet`, a variable for
each of its options, and its examples before its help.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import typer

from cli import help, numbers
from cli.installation import STATE_VARIABLE
from cli.options import QUIET_KEY, Quiet, State

PREFIX = "CLOUDREPO_CMD_"  # of a variable for an option that is one command's; no group of settings is called so


def _shared(state: State = "", quiet: Quiet = False) -> None:
    """What every command has."""


def chosen(app: typer.Typer, words: Sequence[str]) -> tuple[Any, list[str], list[str]]:
    """The command that a command line means.

    Args:
        app: all commands.
        words: the command line.

    Returns:
        The command, the words that name it, and those that it is given. Where they name none, all commands, which
        answer with help or with what there is instead.
    """
    found, path, rest = place(app, words)
    if isinstance(found, typer.Typer):
        leads_on = rest[:1] not in ([], ["--help"]) and rest[0].startswith("-")  # such as `--state FILE slice list`
        return _equipped_tree(found if leads_on else _shallow(found), path), path, rest
    return leaf(found, path), path, rest


def place(app: typer.Typer, words: Sequence[str]) -> tuple[Any, list[str], list[str]]:
    """What a command line means, not built yet: a group as an app or a command as typer keeps it; as `chosen`."""
    path: list[str] = []
    found: Any = app
    while isinstance(found, typer.Typer) and len(path) < len(words):
        below = dict(_below(found))
        if words[len(path)] not in below:
            break
        found = below[words[len(path)]]
        path.append(words[len(path)])
    return found, path, list(words[len(path) :])


def leaf(found: Any, path: Sequence[str]) -> Any:
    """Build one command as typer keeps it, with what all have."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.registered_commands = [found]
    return equipped(typer.main.get_command(alone), path)


def names(app: typer.Typer) -> list[str]:
    """What an app holds that is not hidden."""
    return [name for name, one in _below(app) if not getattr(one, "hidden", False)]


def _below(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """What an app holds, by name: groups as apps, commands as typer keeps them."""
    for group in app.registered_groups:
        if group.typer_instance is None:
            continue
        if group.name:
            yield str(group.name), group.typer_instance
        else:
            yield from _below(group.typer_instance)
    for command in app.registered_commands:
        callback: Callable[..., Any] | None = command.callback
        name = command.name or (callback.__name__.replace("_", "-") if callback is not None else "")
        yield name, command


def _shallow(app: typer.Typer) -> typer.Typer:
    """An app with its groups, but nothing in them: a help text names a group and no more of it."""
    top = copy.copy(app)
    top.registered_groups = []
    for group in app.registered_groups:
        below = group.typer_instance
        if group.name and below is not None:
            below = copy.copy(below)
            below.registered_commands, below.registered_groups = [], []
        top.add_typer(below or typer.Typer(), name=group.name)
    return top


def whole(app: typer.Typer) -> Any:
    """All commands, as a tree."""
    return _equipped_tree(app, [])


def _equipped_tree(app: typer.Typer, path: Sequence[str]) -> Any:
    def walk(command: Any, at: Sequence[str]) -> Any:
        for name, below in getattr(command, "commands", {}).items():
            walk(below, [*at, name])
        return equipped(command, at)

    tree = typer.main.get_command(app)
    # typer offers its own completion to a group that is built alone; ours is `./cloud completion`
    tree.params = [one for one in tree.params if one.name not in ("install_completion", "show_completion")]
    return walk(tree, path)


def equipped(command: Any, path: Sequence[str]) -> Any:
    """A command with what all have.

    Args:
        command: typer's; changed.
        path: the words that name it.
    """
    numbers.worded(command)
    settings = command.context_settings
    if settings.get("ignore_unknown_options"):  # its words are another program's
        return command
    if getattr(command, "invoke_without_command", True):  # a group that does something by itself has them, too
        known = {word for one in command.params for word in one.opts}
        command.params += [one for one in _shared_options() if not known & set(one.opts)]
        for one in command.params:
            if one.param_type_name == "option" and one.envvar is None and not one.hidden:
                one.envvar = variable(path, str(one.name))
    help.give(command, path)
    return command


def variable(path: Sequence[str], option: str) -> str:
    """The variable that gives an option of one command its value."""
    return PREFIX + "_".join([*path, option]).replace("-", "_").upper()


@cache
def _shared_options() -> list[Any]:
    holder = typer.Typer(add_completion=False)
    holder.command()(_shared)
    options = [one for one in typer.main.get_command(holder).params if one.name in ("state", "quiet")]
    for one in options:
        one.expose_value = False
        if one.name == "quiet":
            one.callback = _note_quiet
    return options


def _note_quiet(context: Any, option: Any, value: Any) -> Any:
    if value:
        context.find_root().meta[QUIET_KEY] = True
    return value


def named_state(words: Sequence[str]) -> str | None:
    """The state file that `--state` names on a command line, or None; the last one counts, as for all options."""
    own = words[: words.index("--")] if "--" in words else words
    named = None
    for place, word in enumerate(own):
        if word == "--state" and place + 1 < len(own):
            named = own[place + 1]
        elif word.startswith("--state="):
            named = word.partition("=")[2]
    return named


class Named:
    """While it lasts, the state file that a command line names is the one of this process, and of those it begins.

    Args:
        words: the command line.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.named = named_state(words)
        self.before = os.environ.get(STATE_VARIABLE)

    def __enter__(self) -> None:
        if self.named:
            os.environ[STATE_VARIABLE] = self.named

    def __exit__(self, *_error: object) -> None:
        if not self.named:
            return
        if self.before is None:
            os.environ.pop(STATE_VARIABLE, None)
        else:
            os.environ[STATE_VARIABLE] = self.before
