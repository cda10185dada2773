"""The state file made anew from the hosts, and what it could not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli import documents
from cli.documents import NotDone
from cli.screen import FAINT, GOOD
from cli.text import count

if TYPE_CHECKING:
    from cli.installation import Installation
    from cli.screen import Screen


def rebuild_state(
    installation: Installation, hosts: Sequence[str], name: str | None, screen: Screen, *, force: bool, as_json: bool
) -> int:
    """Rebuild, and say what is known again and what is not.

    Returns:
        The exit status, 0.

    Raises:
        NotDone: it was refused, and nothing was written.
    """
    ok, answer = installation.api.state_rebuild(hosts, installation=name, force=force)
    if not ok:
        raise NotDone(answer)
    if as_json:
        documents.write(answer)
        return 0
    made = f"{count(answer['slices'], 'slice')} with {count(answer['vms'], 'VM')}"
    screen.line((f"Rebuilt {made} of installation {answer['installation']} in {installation.path}.", GOOD))
    if answer["set_aside"]:
        screen.line(f"What the file held before is in {answer['set_aside']}.")
    for user, password in answer["first_passwords"].items():
        screen.line(f"First password of {user}, shown only now: {password}")
    screen.heading("What could not be known")
    for sentence in answer["unknown"]:
        screen.line(f"  {sentence}")
    screen.line(("`./cloud drift` compares the new records with the hosts.", FAINT))
    return 0
