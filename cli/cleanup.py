"""The explicit clean-up: what carries our mark on the hosts, listed, agreed to, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli import documents
from cli.documents import NotDone
from cli.progress import ProgressDisplay
from cli.screen import FAINT, GOOD, STRONG
from cli.text import count

if TYPE_CHECKING:
    from cli.ask import Ask
    from cli.screen import Screen
    from cli.work import Work

DIFFERENCES = 2  # the exit status of a dry run that found something


def clean_up(work: Work, host: str | None, ask: Ask, *, dry_run: bool, assume_yes: bool) -> int:
    """List what would be removed, ask, remove.

    Returns:
        The exit status: 0 done or nothing to do, 1 a host did not answer, 2 a dry run that found something.

    Raises:
        NotDone: it was refused, or not agreed to.
    """
    plan = work.done(work.api.cleanup_plan(host))
    total = _show(work.screen, plan)
    if not total:
        work.screen.line("Nothing on the hosts that answered carries this installation's mark.")
        return _end(work, plan, removed=False, is_whole=True)
    if dry_run:
        return _end(work, plan, removed=False, is_whole=True) or DIFFERENCES
    if not assume_yes and not ask.yes(f"Remove {count(total, 'object')}", default=False):
        raise NotDone("Nothing was removed.", code="unanswered")
    with ProgressDisplay(work.screen) as display:
        answer = work.done(work.api.cleanup(host, progress=display))
    removed = sum(len(words) for words in answer["hosts"].values())
    work.screen.line((f"Removed {count(removed, 'object')}.", GOOD))
    return _end(work, answer, removed=True, is_whole=removed >= total)


def _end(work: Work, answer: dict[str, Any], *, removed: bool, is_whole: bool) -> int:
    """Write the document; the exit status."""
    wrong = None
    if answer["unreachable"]:
        ip, reason = next(iter(answer["unreachable"].items()))
        wrong = documents.error(reason or f"{ip} cannot be reached", code="host.unreachable")
    elif not is_whole:
        wrong = documents.error("Not all that was listed was removed.", code="cleanup.incomplete")
    if work.as_json:
        found = {key: answer[key] for key in ("hosts", "unreachable")}
        documents.write({"command": work.name, "removed": removed, **found}, wrong=wrong)
    return 1 if wrong is not None else 0


def _show(screen: Screen, plan: dict[str, Any]) -> int:
    for ip, labels in plan["hosts"].items():
        if labels:
            screen.line((ip, STRONG))
        for label in labels:
            screen.line(f"  {label}")
    for ip, reason in plan["unreachable"].items():
        screen.complain(reason or f"{ip} cannot be reached")
        screen.line(("  what is there stays until it answers", FAINT))
    return sum(len(labels) for labels in plan["hosts"].values())
