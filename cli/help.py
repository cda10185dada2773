"""Help texts: examples, usage, options; of all commands, by what they are about.

They are typer's plain ones. Its framed ones load a reader of Markdown and a painter of source text, which takes as long
as everything else of `./cloud --help`, and show half as much on a screen.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cli import examples
from cli.screen import plain

#: The commands that stand at the top, by what they are about; in the order of the help.
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "Designing": ("slice", "vm", "link", "topology", "draw"),
    "Running": (
        *("deploy", "start", "stop", "delete", "plan", "apply", "resume", "rollback"),
        *("console", "vnc", "exec", "restart-policy"),
    ),
    "Looking and proving": ("status", "events", "log", "verify", "path", "drift", "doctor", "monitor"),
    "This installation": ("init", "config", "worker", "image", "user", "state", "cleanup", "menu", "completion"),
    "Trying it": ("demo", "lab", "test", "lint", "bench"),
}


def give(command: Any, path: Sequence[str]) -> None:
    """Have a command answer `--help` with these texts.

    Args:
        command: typer's; changed.
        path: the words that name it; none for all commands.
    """
    command.rich_markup_mode = None
    genuine = command.format_help

    def format_help(context: Any, formatter: Any) -> None:
        _write_examples(path, formatter)
        genuine(context, formatter)

    command.format_help = format_help
    if hasattr(command, "commands"):
        command.format_commands = lambda context, formatter: _write_commands(command, formatter, by_subject=not path)


def say_usage(error: Any) -> str:
    """Say on stderr how a command is to be written; what was wrong, in a sentence.

    Where no words were given, the help is the answer, and nothing was wrong.
    """
    from typer._click.exceptions import NoArgsIsHelpError  # typer has it nowhere else

    message = str(error.format_message())
    if isinstance(error, NoArgsIsHelpError):
        for line in message.splitlines():
            plain(line)
        return ""
    error.show(file=sys.stderr)
    return message


def _write_examples(path: Sequence[str], formatter: Any) -> None:
    lines = examples.of(path)
    if lines:
        formatter.write("".join(["Examples:\n", *(f"  ./cloud {words}\n" for words in lines), "\n"]))


def _write_commands(group: Any, formatter: Any, *, by_subject: bool) -> None:
    """Each command with the first sentence of its help."""
    shown = {name: _sentence(one) for name, one in group.commands.items() if not one.hidden}
    sections = SUBJECTS if by_subject else {"Commands": tuple(shown)}
    widest = max(map(len, shown), default=0)
    for title, names in sections.items():
        with formatter.section(title):
            formatter.write_dl([(name.ljust(widest), shown[name]) for name in names if name in shown])


def _sentence(command: Any) -> str:
    text = " ".join((command.help or "").split())
    first, point, _ = text.partition(". ")
    return first + point.strip()
