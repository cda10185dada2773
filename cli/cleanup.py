"""The explicit clean-up: what carries our mark on the hosts, listed, agreed to, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.progress import ProgressDisplay
from cli.screen import FAINT, GOOD, STRONG
from cli.text import count

if TYPE_CHECKING:
    from cli.ask import Ask
    from cli.installation import Installation
    from cli.screen import Screen

DIFFERENCES = 2  # the exit status of a dry run that found something


def clean_up(
    installation: Installation, host: str | None, screen: Screen, ask: Ask, *, dry_run: bool, assume_yes: bool
) -> int:
    """List what would be removed, ask, remove.

    Returns:
        The exit status: 0 done or nothing to do, 1 failed or not agreed, 2 a dry run that found something.
    """
    ok, plan = installation.api.cleanup_plan(host)
    if not ok:
        screen.complain(plan)
        return 1
    total = _show(screen, plan)
    incomplete = bool(plan["unreachable"])
    if not total:
        screen.line("Nothing on the hosts that answered carries this installation's mark.")
        return 1 if incomplete else 0
    if dry_run:
        return DIFFERENCES
    if not assume_yes and not ask.yes(f"Remove {count(total, 'object')}", default=False):
        screen.line("Nothing was removed.")
        return 1
    with ProgressDisplay(screen) as display:
        ok, answer = installation.api.cleanup(host, progress=display)
    if not ok:
        screen.complain(answer)
        return 1
    removed = sum(len(words) for words in answer["hosts"].values())
    screen.line((f"Removed {count(removed, 'object')}.", GOOD))
    return 1 if answer["unreachable"] or removed < total else 0


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
