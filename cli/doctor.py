"""`./cloud doctor`: looks at the hosts, or at this machine, and says what is wrong and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import documents
from cli.installation import Installation, state_folder, state_path
from cli.options import DryRun, Json, Yes
from cli.screen import Screen
from cli.work import questions, talk
from cloudrepo.errors import StateFileError

app = typer.Typer(help="Prove the hosts before a class; `doctor access` looks at this machine instead.")


@app.callback(invoke_without_command=True)
def doctor(
    context: typer.Context,
    host: Annotated[
        list[str] | None, typer.Option(metavar="IP", help="Only what concerns this host; may be repeated.")
    ] = None,
    vlan: Annotated[
        str, typer.Option("--vlans", metavar="LIST", help="Try these, such as 100-199,400; else some of each kind.")
    ] = "",
    fix: Annotated[
        bool, typer.Option("--fix", help="Set right what is this installation's to set right, after a list and a yes.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Prove every host before a class: what is wrong, and what to do about it. See docs/doctor.md."""
    if context.invoked_subcommand is not None:
        return 0
    from cli.host_doctor import Look

    api = Installation.open(context.find_root().obj).api
    look = Look(api, talk(context, as_json=as_json), host or (), vlan, as_json=as_json)
    if fix:
        return look.fix(questions(aside=as_json), assume_yes=yes, dry_run=dry_run)
    return look.show()


@app.command()
def access(
    state: Annotated[str, typer.Option(metavar="FILE", help="The state file; by default as for all commands.")] = "",
    account: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One that must get the menu only; may be repeated.")
    ] = None,
    address: Annotated[str, typer.Option("--from", metavar="IP", help="Where people log in from.")] = "192.0.2.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of sshd.")] = 22,
    sshd_config: Annotated[str, typer.Option(metavar="FILE", help="Another configuration than sshd's own.")] = "",
    as_json: Json = False,
) -> int:
    """Whether people who should get only the menu get no more: files, sshd, sudo. As root it sees all."""
    from cli.findings import first_wrong, show_findings, status_of
    from control import doctor as looks

    path = Path(state) if state else state_path()
    if not state:
        state_folder()
    if not path.is_file():
        raise StateFileError(f"there is no state file {path}", remedy="Name it: --state FILE")
    owner, findings = looks.access(path, accounts=account or (), address=address, port=port, sshd_config=sshd_config)
    found = [one.to_dict() for one in findings]
    if as_json:
        documents.write({"command": "doctor access", "owner": owner, "findings": found}, wrong=first_wrong(found))
    else:
        show_findings(Screen(), found)
    return status_of(found)
