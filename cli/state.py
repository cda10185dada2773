"""`./cloud state`: the state file as a file. It works when that is damaged, and asks before anything is replaced."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import documents
from cli.documents import NotDone
from cli.installation import state_folder, state_path
from cli.options import DryRun, Json, Yes
from cli.screen import BAD, FAINT, GOOD, Screen
from cli.text import count, listing
from cli.work import Work, questions, talk

if TYPE_CHECKING:
    from cli.ask import Ask
    from cloudrepo.errors import StateFileError

EXIT_FAILED = 1
#: Errors at the start that a person may decide on.
DECIDABLE = ("state.older", "state.other", "state.conflict", "state.foreign", "state.journal")

app = typer.Typer(help="The state file: check it, its history, the way back.", no_args_is_help=True)


@app.command()
def check(as_json: Json = False) -> int:
    """Look whether file and journal are whole, belong together, and hold nothing impossible; status 1 if not."""
    from control import state_files

    found = state_files.check(state_path())
    if as_json:
        wrong = [documents.error(one["text"], code=one["code"]) for one in found["problems"]]
        documents.write(found, wrong=next(iter(wrong), None))
    else:
        _show_check(found, Screen())
    return 0 if found["ok"] else EXIT_FAILED


def _show_check(found: dict[str, Any], screen: Screen) -> None:
    counts = found["counts"]
    if counts:
        words = [count(counts[what], what.removesuffix("s")) for what in ("users", "workers", "slices", "links")]
        words.append(f"{counts['vms']} VM" + "s" * (counts["vms"] != 1))
        screen.line(f"{found['state']}: revision {found['revision']}, {listing(words)}.")
    else:
        screen.line(f"{found['state']}:")
    if found["journal"] is not None:
        records, relation = found["journal"]["records"], found["journal"]["relation"]
        screen.line((f"Its journal holds {count(records, 'change')} ({relation}).", FAINT))
    for problem in found["problems"]:
        screen.line((problem["text"], BAD))
    for warning in found["warnings"]:
        screen.line(warning)
    if found["ok"]:
        screen.line(("Nothing is wrong.", GOOD))


@app.command()
def history(as_json: Json = False) -> int:
    """List the generations that are kept; `restore` puts one back."""
    from control import state_files

    state_folder()
    found = state_files.history(state_path())
    if as_json:
        documents.write({"generations": found})
        return 0
    screen = Screen()
    if not found:
        screen.line("No generation is kept yet; one is made at each start and orderly end.")
        return 0
    headings = ("Generation", "Made (UTC)", "Revision", "Slices", "VMs", "Bytes", "")
    screen.table(headings, [_row(generation) for generation in found])
    return 0


def _row(generation: dict[str, Any]) -> list[Any]:
    counts = generation["counts"]
    return [
        str(generation["generation"]),
        generation["made"].partition("+")[0].replace("T", " "),
        str(generation["revision"] or ""),
        str(counts.get("slices", "")),
        str(counts.get("vms", "")),
        str(generation["bytes"]),
        "" if generation["good"] else ("damaged", BAD),
    ]


@app.command()
def restore(
    context: typer.Context,
    generation: Annotated[str, typer.Argument(metavar="GEN", help="Its number, or `backup`.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Put a generation in the place of the state file; what is there now is kept."""
    from control import state_files

    question = f"Replace {state_path()} by generation {generation}; what is there is kept"
    change = _Change(context, "state restore", yes, as_json)
    if dry_run:
        return change.shown(state_files.plan_restore(state_path(), generation))
    return change.done(question, lambda: state_files.restore(state_path(), generation), generation=generation)


@app.command()
def use(
    context: typer.Context,
    which: Annotated[str, typer.Argument(metavar="yaml|journal", help="The file alone, or with its journal.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Decide between a state file and a journal that does not simply continue it; the journal is put aside."""
    from control import state_files

    if which not in ("yaml", "journal"):
        raise typer.BadParameter(f"{which} is neither `yaml` nor `journal`", param_hint="yaml|journal")
    chosen: Literal["yaml", "journal"] = "yaml" if which == "yaml" else "journal"
    question = "Go on with the file alone" if which == "yaml" else "Lay what the journal holds over the file"
    change = _Change(context, "state use", yes, as_json)
    if dry_run:
        return change.shown(state_files.plan_use(state_path(), chosen))
    return change.done(question, lambda: state_files.use(state_path(), chosen), which=chosen)


@app.command()
def export(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where to; else the standard output.")] = None,
    as_json: Json = False,
) -> int:
    """Write the whole state, journal included, as one state file. It holds the users' password hashes."""
    from control import state_files

    content = state_files.export(state_path(), file)
    if file is not None:
        talk(context, as_json=as_json).line((f"The state was written to {file}.", GOOD))
    if as_json:
        told = {"file": str(file) if file else None, "bytes": len(content)}
        text = None if file else content.decode()
        documents.write({"command": "state export", "state": str(state_path()), **told, "text": text})
    elif file is None:
        sys.stdout.write(content.decode())
    return 0


@app.command()
def rebuild(
    context: typer.Context,
    host: Annotated[list[str] | None, typer.Option(metavar="IP", help="Look only there; may be repeated.")] = None,
    installation: Annotated[str | None, typer.Option(metavar="HEX", help="Whose marks, if several are there.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Though the state file has slices; it is put aside.")] = False,
    as_json: Json = False,
) -> int:
    """Make the records anew from the marks on the hosts, when the state file is gone."""
    from cli.state_rebuild import rebuild_state

    screen, here = talk(context, as_json=as_json), Work(context, "", as_json=False).installation
    return rebuild_state(here, host or [], installation, screen, force=force, as_json=as_json)


class _Change:
    """Something that is put in the place of the state file, after a yes.

    Args:
        context: typer's.
        name: what the document says as `command`.
        yes: ask nothing.
        as_json: whether a document is wanted.
    """

    def __init__(self, context: typer.Context, name: str, yes: bool, as_json: bool) -> None:
        self.name = name
        self.yes = yes
        self.as_json = as_json
        self.screen = talk(context, as_json=as_json)

    def shown(self, found: dict[str, Any]) -> int:
        """Show what would be done; the exit status."""
        from cli.plans import end_rehearsal

        return end_rehearsal(self.screen, self.name, found, as_json=self.as_json)

    def done(self, question: str, work: Callable[[], list[str]], **about: str) -> int:
        """Ask, do it, and say what was done; the exit status.

        Raises:
            NotDone: it was not agreed to.
            CloudError: it was refused.
        """
        if not self.yes and not questions(aside=self.as_json).yes(question, default=False):
            raise NotDone("Nothing was changed.", code="unanswered")
        done = work()
        for sentence in done:
            self.screen.line(f"{sentence}.")
        if self.as_json:
            documents.write({"command": self.name, "state": str(state_path()), **about, "done": done})
        return 0


def decide(error: StateFileError, screen: Screen, ask: Ask) -> bool:
    """Ask an administrator who opens the menu what the commands above decide.

    Returns:
        Whether something was decided, so that it can be tried again.
    """
    from control import state_files

    if error.code not in DECIDABLE:
        return False
    screen.complain(f"{error.brief}: {error.evidence}")
    screen.line("An administrator can decide how to go on; Ctrl-D leaves everything as it is.")
    if not state_files.is_administrator(state_path(), ask.text("Username"), ask.text("Password", secret=True)):
        screen.complain("No administrator of this state file has that name and password.")
        return False
    for key in list(error.details.get("changed", []))[:20]:
        screen.line((f"  {key}", FAINT))
    choices = ["the file alone", "the file with what the journal holds", "leave"]
    if error.code == "state.foreign":
        del choices[1]
    screen.line("The journal is put aside in either case, never removed.")
    for number, words in enumerate(choices, 1):
        screen.line(f"{number}. {words}")
    chosen = choices[ask.choice("Go on with", choices)]
    if chosen == "leave":
        return False
    for sentence in state_files.use(state_path(), "yaml" if chosen == "the file alone" else "journal"):
        screen.line(f"{sentence}.")
    return True
