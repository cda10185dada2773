"""What a crash left: listed after the login, and ended as the person says."""

from __future__ import annotations

from cli.operation import run_operation
from cli.screen import FAINT
from cli.screens.context import Context, Record

CHOICES = ("resume", "rollback", "leave")


def offer_recovery(context: Context) -> None:
    """After the login: what ended without a word, with the choice for each slice; silent when there is nothing."""
    found = [one for one in _unfinished(context) if one["is_dead"]]
    if found:
        context.screen.line("Not finished when their process ended, or waiting for a host:")
        _end(context, found)


def recovery_menu(context: Context) -> None:
    """Menu entry 13: all that is under way, and what can be ended."""
    found = _unfinished(context)
    if not found:
        context.screen.line("Nothing is unfinished.")
        return
    for one in found:
        if not one["is_dead"] and not one["is_handed"]:
            _say(context, one)
    _end(context, [one for one in found if one["is_dead"] or one["is_handed"]])


def list_under_way(context: Context) -> None:
    """What somebody is at, here or elsewhere."""
    for one in _unfinished(context):
        if not one["is_dead"]:
            _say(context, one)


def _say(context: Context, one: Record) -> None:
    """What it is, and under it who is at it: in one line both would not fit on a terminal of 80 columns."""
    what, _, who = str(one["text"]).rpartition("; ")
    context.screen.line(f"  {what}")
    context.screen.line((f"    {who}", FAINT))


def _unfinished(context: Context) -> list[Record]:
    ok, answer = context.api.unfinished_operations(context.username)
    if not ok:
        context.screen.complain(answer)
        return []
    found: list[Record] = answer
    return found


def _end(context: Context, found: list[Record]) -> None:
    """List them by slice, and ask what is to become of each."""
    for slice_id in dict.fromkeys(int(one["slice_id"]) for one in found):
        those = [one for one in found if one["slice_id"] == slice_id]
        for one in those:
            _say(context, one)
        if all(one["is_waiting"] for one in those):
            context.screen.line(("    It ends by itself when the host is back.", FAINT))
            continue
        verb = CHOICES[context.ask.choice("1 resume, 2 rollback, 3 leave", CHOICES)]
        if verb != "leave":
            run_operation(context, verb, slice_id)
