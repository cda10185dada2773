"""The one-shot commands, by typer. Exit statuses: 0 done, 1 failed, 64 usage, 130 Ctrl-C."""

from __future__ import annotations

import copy
import importlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import assembly, documents, help, numbers
from cli.ask import Back, Leave, LeftRunning
from cli.documents import JSON_VARIABLE, NotDone
from cli.installation import BeforeWrite, Installation, enter_lab_if_up
from cli.options import As, DryRun, Json, SliceOrAll, Vm, Yes
from cli.screen import Screen
from cli.text import system_words
from cli.work import Work, questions, talk
from cloudrepo.errors import CloudError

EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

COMPLETE = "__complete"  # what the shells of `./cloud completion` call

#: Commands of other modules than this: their names by the module, in the order of the help.
BESIDE: dict[str, tuple[str, ...]] = {
    "cli.slice_commands": ("deploy", "delete", "start", "stop", "resume", "rollback"),
    "cli.draw": ("draw",),
    "cli.plan_commands": ("plan", "apply"),
    "cli.completion": ("completion",),
}
#: Groups: their modules by the name, in the order of the help.
GROUPS = {
    "config": "cli.config",
    "worker": "cli.worker_commands",
    "state": "cli.state",
    "slice": "cli.slices",
    "vm": "cli.vms",
    "user": "cli.users",
    "link": "cli.links",
    "image": "cli.images",
    "doctor": "cli.doctor",
    "topology": "cli.topology",
}

_HERE_IS_THE_LAB = (
    *("console", "vnc", "status", "log", "cleanup", "drift", "verify", "worker", "state", "monitor", "events"),
    *("doctor", "restart-policy", "user", "link", "image", "path", "draw", "topology", "slice", "vm"),
    *("plan", "apply", "exec", "config"),
    *BESIDE["cli.slice_commands"],
)
_PASS_ON: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app = typer.Typer(
    help="Virtual networks for class labs: slices of QEMU machines on plain SSH hosts. Bare `./cloud` opens the menu.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

AskHosts = Annotated[
    bool,
    typer.Option("--wait/--no-wait", envvar="CLOUDREPO_WAIT", help="Ask the workers first, or show what is known."),
]


def tree(words: Sequence[str] = ()) -> typer.Typer:
    """The commands of this file with those of other modules; of these only what a command line names is loaded.

    Args:
        words: the command line; where its first word is no command, all there are.
    """
    word = words[0] if words else ""
    is_one = word in (*assembly.names(app), *GROUPS, *itertools.chain(*BESIDE.values()))
    whole = copy.copy(app)
    whole.registered_groups = []
    for module, names in BESIDE.items():
        if word in names or not is_one:
            whole.add_typer(importlib.import_module(module).app)
    for name, module in GROUPS.items():
        if word == name or not is_one:
            whole.add_typer(importlib.import_module(module).app, name=name)
    return whole


def run(words: Sequence[str], before_write: BeforeWrite) -> int:
    """Run one command, and say what kept it from doing what was asked; its exit status.

    With `--json` every way out but a help text leaves one document on the standard output.

    Args:
        words: the command line without the program's name.
        before_write: called before anything writes the state file.
    """
    with assembly.Named(words):
        return _answered(words, before_write)


def _answered(words: Sequence[str], before_write: BeforeWrite) -> int:
    from typer.exceptions import TyperException

    as_json = documents.are_wanted(words)
    screen = Screen(sys.stderr)
    try:
        return _run(words, before_write)
    except TyperException as error:  # all of them are about how the command was written
        status, wrong = EXIT_USAGE, documents.error(help.say_usage(error), code="usage")
    except NotDone as error:
        (screen if as_json else Screen()).complain(error.answer)
        status, wrong = EXIT_FAILED, documents.error(error.answer)
    except CloudError as error:
        screen.complain(error)
        status, wrong = EXIT_FAILED, documents.error(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # a file that cannot be used, in the system's words
        screen.complain(system_words(error))
        status, wrong = EXIT_FAILED, documents.error(system_words(error), code="system")
    except Leave:
        text = "Not done: the input ended where a question was asked. `--yes` asks none."
        screen.line()
        screen.complain(text)
        status, wrong = EXIT_FAILED, documents.error(text, code="unanswered")
    except LeftRunning:
        text = "Left. Hosts end the step they are at; `./cloud resume --list` shows what is unfinished."
        screen.complain(text)
        status, wrong = EXIT_INTERRUPTED, documents.error(text, code="left")
    except (Back, KeyboardInterrupt, typer.Abort):  # Ctrl-C ends this process and touches no host
        screen.line()
        status, wrong = EXIT_INTERRUPTED, documents.error("Ctrl-C", code="interrupted")
    except SystemExit:  # SIGTERM: see main
        if as_json:
            documents.write_failure(words, documents.error("SIGTERM", code="terminated"))
        raise
    if as_json:
        documents.write_failure(words, wrong)
    return status


def _run(words: Sequence[str], before_write: BeforeWrite) -> int:
    if words and words[0] == COMPLETE:
        from cli.completion import complete

        return complete(tree(words[1:-1]), words[1:])
    if words and words[0] == "lab":
        from lab.cli import app as lab_app

        return _invoke(numbers.worded(typer.main.get_command(lab_app)), "cloud lab", words[1:])
    status = enter_lab_if_up(words) if _is_about_hosts(words) else None
    if status is not None:
        return status
    command, path, rest = assembly.chosen(tree(words), words)
    return _invoke(command, " ".join(["cloud", *path]), rest, obj=before_write)


def _is_about_hosts(words: Sequence[str]) -> bool:
    """Whether a command is done where hosts can be reached: in the lab, if that is up."""
    return bool(words) and words[0] in _HERE_IS_THE_LAB and list(words[:2]) != ["doctor", "access"]


def _invoke(command: Any, name: str, words: Sequence[str], **more: Any) -> int:
    """As calling the app does, but Ctrl-C and a pipe without a reader come out as they are."""
    try:
        with command.make_context(name, list(words), **more) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code


def _installation(context: typer.Context) -> Installation:
    return Work(context, "", as_json=False).installation


def _status(ok: bool) -> int:
    return 0 if ok else EXIT_FAILED


# -- the installation --------------------------------------------------------------------


@app.command()
def menu(
    context: typer.Context,
    state: Annotated[
        str, typer.Option(metavar="FILE", help="The state file; by default ~/cluster/database.yaml of this account.")
    ] = "",
) -> int:
    """Open the menu for somebody who gets no shell here; the environment counts for nothing. See docs/access.md."""
    from cli.boundary import enter

    return enter(state, context.find_root().obj)


@app.command()
def init(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is made.")],
    as_json: Json = False,
) -> int:
    """Make an installation of your own: state, settings, log and pins in one directory."""
    from cli.setup import make_installation

    return make_installation(directory, talk(context, as_json=as_json), as_json=as_json)


@app.command()
def status(context: typer.Context, wait: AskHosts = True, as_json: Json = False) -> int:
    """Show the workers and the slices, and where state and log are."""
    from cli.status import show_status

    return show_status(Work(context, "status", as_json=as_json), asks=wait)


@app.command()
def log(
    context: typer.Context,
    lines: Annotated[int, typer.Option("-n", min=0, help="How many of the last lines.")] = 40,
    follow: Annotated[bool, typer.Option("-f", help="Go on as lines come; Ctrl-C ends it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", envvar=JSON_VARIABLE, help="One JSON object a line.")] = False,
) -> int:
    """Show the end of the log."""
    from cli.setup import show_log

    return show_log(lines, talk(context, as_json=as_json), follow=follow, as_json=as_json)


@app.command()
def monitor(
    context: typer.Context,
    auto_resume: Annotated[
        bool | None, typer.Option("--auto-resume/--no-auto-resume", help="Resume what dead processes left.")
    ] = None,
    unit: Annotated[bool, typer.Option("--print-unit", help="Print a systemd unit that does this.")] = False,
) -> int:
    """Watch the hosts without a menu: restart what died, bring back what was lost, tell people. Ctrl-C ends it."""
    from cli.installation import state_path
    from cli.monitor import print_unit, run_monitor

    if unit:
        return print_unit(state_path(), Screen(sys.stderr))
    return run_monitor(_installation(context), Screen(), auto_resume=auto_resume)


@app.command()
def events(
    lines: Annotated[int, typer.Option("-n", min=0, help="How many of the last ones.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come; Ctrl-C ends it.")] = False,
    about: Annotated[str, typer.Option(metavar="X", help="Only about X: a slice, VM, worker or user.")] = "",
    as_json: Annotated[bool, typer.Option("--json", envvar=JSON_VARIABLE, help="One JSON object a line.")] = False,
) -> int:
    """Show who did what to which object, and what happened to it."""
    from cli.events import show_events
    from cli.installation import state_folder

    return show_events(state_folder(), Screen(), count=lines, follow=follow, about=about, as_json=as_json)


@app.command()
def cleanup(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(metavar="IP", help="Only on this host.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Remove everything on the hosts that carries this installation's mark, after a list and a yes."""
    from cli.cleanup import clean_up

    work = Work(context, "cleanup", as_json=as_json)
    return clean_up(work, host, questions(aside=as_json), dry_run=dry_run, assume_yes=yes)


@app.command()
def drift(
    context: typer.Context,
    slice: SliceOrAll = None,
    fix: Annotated[bool, typer.Option("--fix", help="Set right what carries our mark, after a yes.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    yes: Yes = False,
) -> int:
    """Compare every object on every host with the records; status 2 when they differ."""
    from cli.drift import fix_drift, show_drift

    screen, installation = talk(context, as_json=as_json), _installation(context)
    if fix and not dry_run:
        return fix_drift(installation, slice, screen, questions(aside=as_json), as_json=as_json, assume_yes=yes)
    return show_drift(installation, slice, screen, as_json=as_json)


@app.command(name="verify")
def verify_(
    context: typer.Context,
    slice: SliceOrAll = None,
    every: Annotated[bool, typer.Option("--all", help="All slices that run, as without a name.")] = False,
    as_json: Json = False,
) -> int:
    """Prove on the wire who hears whom, against the records; status 1 when a pair is not as it should be."""
    from cli.verify import show_verification

    if every and slice is not None:
        raise typer.BadParameter("--all and a slice are two things; leave one out", param_hint="--all")
    return show_verification(_installation(context), slice, talk(context, as_json=as_json), as_json=as_json)


@app.command()
def path(
    context: typer.Context,
    start: Annotated[str, typer.Argument(metavar="VM:IF", help="A NIC: VM by id or name, and interface.")],
    end: Annotated[str, typer.Argument(metavar="VM:IF", help="Another one, or `gateway` or `dhcp`.")],
    as_json: Json = False,
) -> int:
    """Show the way from one NIC to another, hop by hop, and where it breaks; status 1 when it does."""
    from cli.path import show_path

    return show_path(_installation(context), start, end, Screen(), as_json=as_json)


# -- guests ------------------------------------------------------------------------------


@app.command()
def console(context: typer.Context, vm: Vm, user: As = "") -> int:
    """Open the serial console of a guest; Ctrl-] leaves it."""
    from cli.console import open_console

    installation = _installation(context)
    record, found = installation.one_vm(vm, user)
    return _status(open_console(installation.api, user or str(record["owner"]), int(found["vm_id"]), talk(context)))


@app.command()
def vnc(context: typer.Context, vm: Vm, user: As = "", as_json: Json = False) -> int:
    """Open a tunnel to the screen of a guest and print its address; Ctrl-C closes it."""
    from cli.vnc import show_vnc

    return show_vnc(Work(context, "vnc", as_json=as_json), vm, user)


@app.command("exec")
def exec_(
    context: typer.Context,
    vm: Vm,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The program and its words; no shell.")],
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, max=86400, help="Longest time it may take.")] = 60.0,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="It reads what this command reads.")] = False,
    by: Annotated[
        str, typer.Option(metavar="WAY", help="agent or ssh; without it, by the agent where one answers, else by SSH.")
    ] = "",
    login: Annotated[str, typer.Option("--user", "-l", metavar="NAME", help="By SSH: the account in the guest.")] = "",
    identity: Annotated[str, typer.Option(metavar="FILE", help="By SSH: the private key; it stays here.")] = "",
    password: Annotated[
        bool, typer.Option("--password-stdin", help="By SSH: the password is the first line that this command reads.")
    ] = False,
    user: As = "",
    as_json: Json = False,
) -> int:
    """Run a program in a guest by its guest agent, or by SSH; the exit status is the program's own."""
    from cli.guest_exec import Way, run_in_guest

    way = Way(by, login, identity, reads_password=password)
    work = Work(context, "exec", as_json=as_json)
    return run_in_guest(work, vm, user, command, way, timeout_s=timeout, reads=stdin)


@app.command("restart-policy")
def restart_policy(
    context: typer.Context,
    vm: Vm,
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="never, on-failure or always; `default` is what the setting says.")
    ],
    user: As = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Say what the monitor does when a VM dies."""
    from cli.monitor import change_restart_policy

    return change_restart_policy(Work(context, "restart-policy", as_json=as_json), vm, user, policy, dry_run=dry_run)


# -- trying and testing --------------------------------------------------------------------


@app.command()
def demo(
    context: typer.Context,
    yes: Yes = False,
    inside: Annotated[bool, typer.Option("--inside", hidden=True)] = False,
) -> int:
    """Make three hosts on this machine, run a slice on them, and show what reaches what."""
    from cli import demo as show

    return show.demo_inside(context.find_root().obj) if inside else show.demo(assume_yes=yes)


@app.command(context_settings=_PASS_ON)
def test(context: typer.Context) -> int:
    """Run the tests; --quick leaves the lab's out, other words are pytest's own."""
    from cli.testing import run_tests

    return run_tests(context.args)


@app.command()
def lint() -> int:
    """Run the linters and the type checker."""
    from cli.testing import run_linters

    return run_linters()


@app.command(context_settings=_PASS_ON)
def bench(context: typer.Context) -> int:
    """Measure commands, a deploy, a look of the doctor, of the monitor and of verify, or the state file."""
    from cli.testing import run_bench

    return run_bench(context.args)


@app.command("lab")
def lab_command() -> None:
    """The lab on this machine: up, status, exec, host, kill, boot, cut, heal, down."""


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """Where `--version` is found among other words."""
    if version:
        from cloudrepo import __version__

        typer.echo(f"Cloud Repositorio {__version__}")
        raise typer.Exit
