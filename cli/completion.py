"""Completion: `./cloud completion SHELL` prints what a shell needs, which then asks `./cloud __complete WORDS`.

An answer must be there before a person wonders: of all commands only the one at hand is built, and no host is asked.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.installation import state_path

if TYPE_CHECKING:
    from cloudrepo.state import Record

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*\Z")  # needs no quotes in any shell

BASH = """\
# bash: eval "$(./cloud completion bash)"
_cloud_complete() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \\t\\n'
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local cur=${words[-1]}
    IFS=$'\\n'
    COMPREPLY=($("${words[0]}" __complete "${words[@]:1}" 2>/dev/null))
    [[ $cur == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%:*}:"}")
    return 0
}
complete -o default -F _cloud_complete cloud
"""
ZSH = """\
#compdef cloud
# zsh: eval "$(./cloud completion zsh)", after compinit
_cloud_complete() {
    local -a found
    found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n ${found[1]} ]]; then compadd -a found; else _files; fi
}
compdef _cloud_complete cloud
"""
FISH = """\
# fish: ./cloud completion fish | source
function __cloud_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
complete --command cloud --arguments '(__cloud_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

app = typer.Typer()


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> int:
    """Print what makes a shell complete commands, options, and names of slices and VMs."""
    if shell not in SCRIPTS:
        raise typer.BadParameter(f"there are {', '.join(SCRIPTS)}; found {shell!r}", param_hint="SHELL")
    sys.stdout.write(SCRIPTS[shell])
    return 0


def complete(commands: typer.Typer, words: Sequence[str]) -> int:
    """Print what the last word can become, one a line.

    Args:
        commands: all of them.
        words: of the command line up to the cursor, without the program; the last one is to be completed.
    """
    for word in candidates(commands, words):
        print(word)
    return 0


def candidates(commands: typer.Typer, words: Sequence[str]) -> list[str]:
    """What the last word can become, in order."""
    from cli import assembly

    *before, last = words or [""]
    if "--" in before:
        return []  # another program's words
    found, path, rest = assembly.place(commands, before)
    if isinstance(found, typer.Typer):
        known: Iterable[str] = assembly.names(found) if not rest else ()
        return _beginning(last, known)
    command = assembly.leaf(found, path)
    waiting = _option(command, rest[-1]) if rest else None
    if waiting is not None and not waiting.is_flag:
        return _beginning(last, _values(waiting.metavar, rest))
    if last.startswith("-"):
        shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        return _beginning(last, (word for one in shown for word in (*one.opts, *one.secondary_opts)))
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    given = _positional(command, rest)
    if len(given) < len(arguments):
        return _beginning(last, _values(arguments[len(given)].metavar, given))
    return []


def _beginning(last: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(last) and (_PLAIN.match(word) or word.startswith("-"))})


def _option(command: Any, word: str) -> Any:
    return next((one for one in command.params if one.param_type_name == "option" and word in one.opts), None)


def _positional(command: Any, rest: Sequence[str]) -> list[str]:
    given: list[str] = []
    is_value = False
    for word in rest:
        option = _option(command, word) if word.startswith("-") else None
        if not is_value and not word.startswith("-"):
            given.append(word)
        is_value = option is not None and not option.is_flag
    return given


# ---------------------------------------------------------------------------------------- names


def _values(metavar: str | None, given: Sequence[str]) -> Iterable[str]:
    """What an argument or an option's value can be, by what help calls it; nothing where nobody knows."""
    fixed = {"POLICY": ("never", "on-failure", "always", "default"), "ROLE": ("admin", "instructor", "student")}
    fixed |= {"SHELL": tuple(SCRIPTS), "yaml|journal": ("yaml", "journal")}
    name = str(metavar or "")
    if name in fixed:
        return fixed[name]
    source = _SOURCES.get(name)
    return source(_records(), given) if source is not None else ()


def _records() -> Record:
    """The state as it is, or an empty one: a completion makes no file and no complaint."""
    from cloudrepo.errors import CloudError
    from database import Database

    path = state_path()
    if not path.is_file():
        return {"slices": {}, "users": {}, "workers_list": []}
    try:
        return Database(path).data
    except (CloudError, OSError):
        return {"slices": {}, "users": {}, "workers_list": []}


def _slices(data: Record, given: Sequence[str]) -> Iterable[str]:
    """Names; the id of one whose name is no plain word, or is not its alone."""
    records = list(data["slices"].values())
    names = [str(record["name"]) for record in records]
    for record, name in zip(records, names, strict=True):
        yield name if names.count(name) == 1 and _PLAIN.match(name) else str(record["slice_id"])


def _vms(data: Record, given: Sequence[str]) -> Iterable[str]:
    """Names; SLICE/NAME, or the id, of one whose name is not its alone."""
    pairs = [(record, vm) for record in data["slices"].values() for vm in record["vms"]]
    seen: dict[str, int] = {}
    for _, vm in pairs:
        seen[vm["name"]] = seen.get(vm["name"], 0) + 1
    for record, vm in pairs:
        if seen[vm["name"]] == 1:
            yield str(vm["name"])
        else:
            longer = f"{record['name']}/{vm['name']}"
            yield longer if _PLAIN.match(longer) else str(vm["vm_id"])


def _nics(data: Record, given: Sequence[str]) -> Iterable[str]:
    """VM:INTERFACE; of one slice where that is named before."""
    records = [
        record
        for record in data["slices"].values()
        if not given or ":" in given[0] or given[0] in (record["name"], str(record["slice_id"]))
    ]
    return (f"{vm['name']}:{nic['name']}" for record in records for vm in record["vms"] for nic in vm["interfaces"])


def _links(data: Record, given: Sequence[str]) -> Iterable[str]:
    records = [one for one in data["slices"].values() if given and given[0] in (one["name"], str(one["slice_id"]))]
    return (str(link["link_id"]) for record in records for link in record["links"])


def _flavors(data: Record, given: Sequence[str]) -> Iterable[str]:
    from cloudrepo.settings import Settings

    return Settings.load(state_path()).flavors


_SOURCES: dict[str, Callable[[Record, Sequence[str]], Iterable[str]]] = {
    "SLICE": _slices,
    "VM": _vms,
    "VM:INTERFACE": _nics,
    "VM:IF": _nics,
    "LINK": _links,
    "FLAVOR": _flavors,
    "USER": lambda data, given: data["users"],
    "IP": lambda data, given: map(str, data["workers_list"]),
}
