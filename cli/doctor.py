"""`./cloud doctor`: looks at this machine and says what is wrong, and what to do about it. It changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import documents
from cli.installation import state_folder, state_path
from cli.screen import BAD, FAINT, GOOD, Piece, Screen
from cloudrepo.doctor.findings import Finding, Level, worst
from cloudrepo.errors import StateFileError

WRONG, INCOMPLETE = 1, 3  # exit statuses: something is wrong; a warning, or something could not be seen

app = typer.Typer(help="Look at this machine: what is wrong, and what to do.", no_args_is_help=True)

_LOOKS: dict[Level, Piece] = {
    Level.OK: ("ok       ", GOOD),
    Level.UNKNOWN: ("unseen   ", FAINT),
    Level.WARNING: ("warning  ", BAD),
    Level.WRONG: ("wrong    ", BAD),
}


@app.callback()
def doctor() -> None:
    """Each part is a command of its own."""


@app.command()
def access(
    state: Annotated[str, typer.Option(metavar="FILE", help="The state file; by default as for all commands.")] = "",
    account: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One that must get the menu only; may be repeated.")
    ] = None,
    address: Annotated[str, typer.Option("--from", metavar="IP", help="Where people log in from.")] = "192.0.2.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of sshd.")] = 22,
    sshd_config: Annotated[str, typer.Option(metavar="FILE", help="Another configuration than sshd's own.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on the standard output.")] = False,
) -> int:
    """Whether people who should get only the menu get no more: files, sshd, sudo. As root it sees all."""
    from control import doctor as looks

    path = Path(state) if state else state_path()
    if not state:
        state_folder()
    if not path.is_file():
        raise StateFileError(f"there is no state file {path}", remedy="Name it: --state FILE")
    owner, findings = looks.access(path, accounts=account or (), address=address, port=port, sshd_config=sshd_config)
    if as_json:
        wrong = [documents.error(one.text, code=one.code) for one in findings if one.level is Level.WRONG]
        found = {"owner": owner, "findings": [one.to_dict() for one in findings]}
        documents.write({"command": "doctor access", **found}, wrong=next(iter(wrong), None))
    else:
        _show(Screen(), findings)
    return {Level.OK: 0, Level.WRONG: WRONG}.get(worst(findings), INCOMPLETE)


def _show(screen: Screen, findings: list[Finding]) -> None:
    """The worst last, where a person's eyes are."""
    for finding in sorted(findings, key=lambda one: one.level):
        evidence: list[Piece] = [(f"  ({finding.evidence})", FAINT)] if finding.evidence else []
        screen.line(_LOOKS[finding.level], finding.text, *evidence)
        for line in finding.remedy.splitlines():
            screen.line(f"           {line}")
