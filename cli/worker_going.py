"""`./cloud worker drain` and `remove`: a worker that goes, for a while or for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli import documents
from cli.ask import Ask
from cli.documents import NotDone
from cli.screen import FAINT, GOOD, Screen
from cli.text import count

if TYPE_CHECKING:
    from cli.installation import Installation


def drain_worker(installation: Installation, ip: str, screen: Screen, *, undo: bool, as_json: bool) -> int:
    """Place no new VMs there, or some again.

    Raises:
        NotDone: it is no worker.
    """
    ok, answer = installation.api.drain_worker(ip, undo=undo)
    if not ok:
        raise NotDone(answer)
    if as_json:
        documents.write({"command": "worker drain", **answer})
        return 0
    already = "" if answer["changed"] else " already"
    words = f"{ip} gets new VMs{already or ' again'}." if undo else f"{ip} is drained{already}: it gets no new VMs."
    screen.line((words, GOOD))
    if answer["vms"] and not undo:
        screen.line((f"{count(len(answer['vms']), 'VM')} there, which {_go(len(answer['vms']))} on.", FAINT))
    return 0


def _go(number: int) -> str:
    return "goes" if number == 1 else "go"


def remove_worker(
    installation: Installation, ip: str, screen: Screen, ask: Ask, *, force: bool, as_json: bool, assume_yes: bool
) -> int:
    """Take it out of the installation.

    Raises:
        NotDone: it is no worker, has VMs, or does not answer.
    """
    if not assume_yes:
        screen.line(f"{ip} gets no VMs any more, and what is ours there is removed; base images stay.")
        if not ask.yes("Go on", default=False):
            raise NotDone("Nothing was changed.", code="unanswered")
    ok, answer = installation.api.remove_worker(ip, force=force)
    if not ok:
        raise NotDone(answer)
    if as_json:
        documents.write({"command": "worker remove", **answer})
        return 0
    for line in answer["removed"]:
        screen.line(f"{ip}: removed {line}")
    screen.line((f"{ip} is no worker any more. Its pinned key stays in known_hosts.", GOOD))
    if answer["left"]:
        screen.line((f"Something of ours stays on it: {answer['left']}", FAINT))
    return 0
