"""``cloud lab``: the lab's command line."""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lab import packages
from lab.cluster import Lab
from lab.errors import LabError
from lab.layout import Options, Privilege, Uplink
from lab.machine import require_root
from lab.status import Status

app = typer.Typer(
    help="A real cluster on this machine: hosts, cables, an internet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_WITH_COMMAND = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_STATE_STYLE = {"up": "green", "cut": "yellow", "down": "red"}
Address = Annotated[str, typer.Argument(metavar="IP", help="Address of a host, like 10.0.10.2.")]
Json = Annotated[bool, typer.Option("--json", envvar="CLOUDREPO_JSON", help="One JSON document on stdout.")]
Words = Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The command.")]


@contextmanager
def _plain_errors(*, as_json: bool = False) -> Iterator[None]:
    """Turn the lab's refusals into a sentence and exit status 1; for programs into a document as well."""
    try:
        yield
    except LabError as error:
        typer.echo(str(error), err=True)
        if as_json:
            wrong = {"message": error.message, "code": "lab", "details": {}, "hint": error.remedy}
            typer.echo(json.dumps({"schema_version": 1, "ok": False, "command": "lab", "error": wrong}))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def up(
    workers: Annotated[int, typer.Option(help="Number of hosts, 1 to 8.")] = 3,
    cores: Annotated[int, typer.Option(help="Stated cores of each host.")] = 4,
    ram_gb: Annotated[int, typer.Option(help="Stated memory of each host.")] = 8,
    disk_gb: Annotated[int, typer.Option(help="Stated disk of each host.")] = 100,
    uplink: Annotated[str, typer.Option(help="'own' cable to the internet, or by the 'mgmt' network.")] = "own",
    privilege: Annotated[
        str, typer.Option(help="'sudo': who logs in is root on the hosts; 'helper': not before `worker harden`.")
    ] = "sudo",
    router: Annotated[
        bool, typer.Option("--router/--no-router", help="Offer the flavor `router`: Debian with FRR and cloud-init.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Install missing packages.")] = False,
    with_parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    as_json: Json = False,
) -> None:
    """Bring the lab up."""
    with _plain_errors(as_json=as_json):
        chosen: Uplink = "mgmt" if uplink == "mgmt" else "own"
        if uplink != chosen:
            raise LabError(f"The uplink is 'own' or 'mgmt', not {uplink!r}.")
        allowed: Privilege = "helper" if privilege == "helper" else "sudo"
        if privilege != allowed:
            raise LabError(f"The privilege is 'sudo' or 'helper', not {privilege!r}.")
        sizes = {"workers": workers, "cores": cores, "ram_gb": ram_gb, "disk_gb": disk_gb}
        options = Options(**sizes, uplink=chosen, privilege=allowed, router=router)
        require_root("lab up")
        talk = _talk(as_json=as_json)
        packages.ensure(assume_yes=yes, say=talk)
        lab = Lab()
        made = lab.up(options, with_parent=with_parent, say=talk)
        talk("The lab is up." if made else "The lab is up already.")
        found = lab.status()
        if as_json:
            _write("lab up", changed=made, **asdict(found))
        else:
            _show(found)


@app.command()
def down(
    purge: Annotated[bool, typer.Option(help="Also remove its folder: state, keys and disks.")] = False,
    as_json: Json = False,
) -> None:
    """Take the lab down, whatever state it is in."""
    with _plain_errors(as_json=as_json):
        was_up = Lab().down(purge=purge)
        _say("lab down", "The lab is down." if was_up else "The lab was not up.", as_json, changed=was_up)


@app.command()
def status(as_json: Json = False) -> None:
    """Show the hosts and how they are."""
    with _plain_errors(as_json=as_json):
        found = Lab().status()
        if as_json:
            _write("lab status", **asdict(found))
        else:
            _show(found)


@app.command(name="exec", context_settings=_WITH_COMMAND)
def exec_(command: Words) -> None:
    """Run a command where the orchestrator runs."""
    with _plain_errors():
        raise typer.Exit(Lab().exec_foreground(command))


@app.command(context_settings=_WITH_COMMAND)
def host(ip: Address, command: Words) -> None:
    """Run a command as root inside a host."""
    with _plain_errors():
        words = command[1:] if command[0] == "--" else command
        raise typer.Exit(Lab().host_foreground(ip, words))


@app.command()
def kill(ip: Address, as_json: Json = False) -> None:
    """Let a host's power fail."""
    with _plain_errors(as_json=as_json):
        was_up = Lab().kill(ip)
        text = f"{ip} is down." if was_up else f"{ip} was down already."
        _say("lab kill", text, as_json, host=ip, changed=was_up)


@app.command()
def boot(ip: Address, as_json: Json = False) -> None:
    """Boot a host that is down."""
    with _plain_errors(as_json=as_json):
        booted = Lab().boot(ip)
        text = f"{ip} is up." if booted else f"{ip} was up already."
        _say("lab boot", text, as_json, host=ip, changed=booted)


@app.command()
def cut(ip: Address, as_json: Json = False) -> None:
    """Pull a host's management cable."""
    with _plain_errors(as_json=as_json):
        Lab().cut(ip)
        _say("lab cut", f"The management cable of {ip} is out.", as_json, host=ip)


@app.command()
def heal(ip: Address, as_json: Json = False) -> None:
    """Put a host's management cable back."""
    with _plain_errors(as_json=as_json):
        Lab().heal(ip)
        _say("lab heal", f"The management cable of {ip} is in.", as_json, host=ip)


def _talk(*, as_json: bool) -> Callable[[str], None]:
    """Where a command says what it does: beside a document, that is stderr."""
    return functools.partial(typer.echo, err=as_json)


def _say(command: str, text: str, as_json: bool, **about: object) -> None:
    """What was done: as a sentence, or in a document."""
    if as_json:
        _write(command, **about, message=text)
    else:
        typer.echo(text)


def _write(command: str, **about: object) -> None:
    typer.echo(json.dumps({"schema_version": 1, "ok": True, "command": command, **about}, indent=1))


def _show(found: Status) -> None:
    if not found.up:
        typer.echo(f"The lab in {found.folder} is not up. Bring it up with: sudo ./cloud lab up")
        return
    table = Table("Host", "Address", "Role", "Size", "State")
    for line in found.hosts:
        size = f"{line.cores} cores, {line.ram_gb} GB"
        style = _STATE_STYLE[line.state]
        table.add_row(line.host, line.address, line.role, size, f"[{style}]{line.state}[/{style}]")
    Console().print(table)
