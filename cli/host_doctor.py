"""`./cloud doctor` without a word: the hosts, shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from cli import documents
from cli.documents import NotDone
from cli.findings import first_wrong, show_findings, status_of
from cli.screen import FAINT, GOOD, Screen
from cloudrepo.doctor import vlans

if TYPE_CHECKING:
    from cli.installation import Installation


def show_hosts(
    installation: Installation, hosts: Sequence[str], wanted: str, screen: Screen, *, fix: bool, as_json: bool
) -> int:
    """Look at the hosts, set right what can be if `fix`, and show what was found.

    Returns:
        The exit status: 0 nothing is wrong, 1 something is, 3 a warning, or something could not be seen.

    Raises:
        NotDone: nothing could be looked at.
    """
    try:
        numbers = vlans.parse(wanted) if wanted else ()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--vlans") from error
    api = installation.api
    ok, found = api.doctor_fix(hosts, numbers) if fix else api.doctor(hosts, numbers)
    if not ok:
        raise NotDone(found)
    if as_json:
        documents.write({"command": "doctor", **found}, wrong=first_wrong(found["findings"]))
        return status_of(found["findings"])
    for one in found.get("changed", ()):
        screen.line((f"{one['host']}: {one['text']}", GOOD))
    for one in found.get("failed", ()):
        screen.complain(one["text"])
    show_findings(screen, found["findings"])
    screen.line((f"{len(found['hosts'])} hosts, {found['seconds']:.1f} s", FAINT))
    return status_of(found["findings"])
