"""What stands on the hosts against the records, shown; and set right after a yes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cli import documents
from cli.documents import NotDone
from cli.progress import ProgressDisplay
from cli.screen import BAD, FAINT, GOOD, STRONG, Screen
from cli.text import count

if TYPE_CHECKING:
    from cli.ask import Ask
    from cli.installation import Installation

DIFFERENCES = 2  # the exit status when hosts and records disagree
_STATES = ("missing", "changed", "orphan", "manual", "foreign")
_STYLE = {"missing": BAD, "changed": BAD, "orphan": BAD, "manual": FAINT, "foreign": FAINT}


def show_drift(installation: Installation, words: str | None, screen: Screen, *, as_json: bool) -> int:
    """Look, and show; of one slice by its id or name, or of all for None.

    Returns:
        The exit status: 0 no differences, 2 differences, 1 a host did not answer.

    Raises:
        NotDone: nothing could be looked at.
    """
    ok, report = installation.api.drift(installation.slice_id(words))
    if not ok:
        raise NotDone(report)
    if as_json:
        documents.write(report, wrong=_wrong(report))
    else:
        show_report(screen, report)
    return _status(report)


def fix_drift(
    installation: Installation, words: str | None, screen: Screen, ask: Ask, *, as_json: bool, assume_yes: bool
) -> int:
    """Look, show, ask, set right, look again.

    With `as_json` one document goes to standard output, with `before`, `fixed`, `left`, `failed` and `after`, and all
    else to `screen`.

    Returns:
        The exit status: 0 no differences any more, 2 some are left, 1 something failed.

    Raises:
        NotDone: nothing could be looked at, or it was not agreed to.
    """
    slice_id = installation.slice_id(words)
    ok, before = installation.api.drift(slice_id)
    if not ok:
        raise NotDone(before)
    show_report(screen, before)
    warn_of_disks(screen, before)
    if before["differences"] and not assume_yes and not _agreed(ask, before["differences"]):
        raise NotDone("Nothing was changed. `--yes` sets it right without a question.", code="drift.refused")
    with ProgressDisplay(screen) as display:
        ok, answer = installation.api.drift_fix(slice_id, progress=display)
    if not ok:
        raise NotDone(answer)
    show_outcome(screen, answer)
    if as_json:
        failed = [documents.error(f"{one['about']}: {one['error']}") for one in answer["failed"]]
        documents.write({"before": before, **answer}, wrong=next(iter(failed), _wrong(answer["after"])))
    return 1 if answer["failed"] else _status(answer["after"])


def warn_of_disks(screen: Screen, report: dict[str, Any]) -> None:
    """An older state file put back knows nothing of the slices made since: their disks are orphans."""
    lost = sum((one["kind"], one["state"]) == ("disk", "orphan") for one in report["objects"])
    if lost:
        screen.line((f"{count(lost, 'disk')} in no record will be removed, with all that is on them.", BAD))
        screen.line(
            "If the state file is an older one, `./cloud state rebuild --force` takes them into the records instead."
        )


def _agreed(ask: Ask, differences: int) -> bool:
    return sys.stdin.isatty() and ask.yes(f"Set {count(differences, 'object')} right", default=False)


def show_report(screen: Screen, report: dict[str, Any]) -> None:
    """All that is not as it should be, by host; what is, as a number."""
    for ip in dict.fromkeys(one["host"] for one in report["objects"]):
        shown = [one for one in report["objects"] if one["host"] == ip and one["state"] != "ok"]
        if shown:
            screen.line((ip, STRONG))
        for state in _STATES:
            for one in shown:
                if one["state"] == state:
                    _show_object(screen, one)
    for one in report["unsettled"]:
        screen.line("unsettled  ", (one["why"], FAINT))
    for ip, said in report["problems"].items():
        for text in said:
            screen.complain(f"{ip}: {text}" if not text.startswith(ip) else text)
    for ip, reason in report["unreachable"].items():
        screen.complain(reason or f"{ip} cannot be reached")
        screen.line(("  nothing is said of it", FAINT))
    counts = ", ".join(f"{number} {state}" for state, number in report["counts"].items() if number)
    found = f"{count(report['differences'], 'difference')}: "
    screen.line((found, STRONG if report["differences"] else GOOD), counts or "nothing was seen")


def _show_object(screen: Screen, one: dict[str, Any]) -> None:
    whose = f" of installation {one['installation']}" if one["state"] == "foreign" and one["installation"] else ""
    about = f" (slice {one['scope']})" if one["scope"].isdigit() else f" ({one['scope']})" if one["scope"] else ""
    style = BAD if one["difference"] else _STYLE[one["state"]]
    screen.line("  ", (f"{one['state']:<9}", style), f"{one['kind']} {one['name']}{whose}{about}")
    for differs in one["differs"]:
        screen.line(f"             {differs['what']} {differs['found']}, wanted {differs['wanted']}")
    if one["note"]:
        screen.line((f"             {one['note']}", FAINT))


def show_outcome(screen: Screen, answer: dict[str, Any]) -> None:
    """What became of setting right, and what is left."""
    fixed = sum(len(words) for one in answer["fixed"] for words in one["hosts"].values())
    screen.line((f"Set {count(fixed, 'object')} right.", GOOD))
    for one in answer["failed"]:
        screen.complain(f"{one['about']}: {one['error']}")
    for one in answer["left"]:
        screen.line("left alone  ", (one["why"], FAINT))
    after = answer["after"]
    if after["differences"]:
        screen.heading("What is left")
        show_report(screen, after)
    elif after["unreachable"] or after["problems"]:
        screen.line("A second look finds no other difference on the hosts that could be looked at.")
    else:
        screen.line(("A second look finds no difference.", GOOD))


def _wrong(report: dict[str, Any]) -> dict[str, Any] | None:
    """What kept a look from being whole, as documents have it."""
    silent = [reason or f"{ip} cannot be reached" for ip, reason in report["unreachable"].items()]
    untold = [sentence for said in report["problems"].values() for sentence in said]
    return documents.error((silent + untold)[0], code="drift.incomplete") if silent or untold else None


def _status(report: dict[str, Any]) -> int:
    if report["unreachable"] or report["problems"]:
        return 1
    return DIFFERENCES if report["differences"] else 0
