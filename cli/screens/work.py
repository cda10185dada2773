"""What was left running: come back to it."""

from __future__ import annotations

from cli.ask import LeftRunning
from cli.background import LeftBehind, Work
from cli.operation import watch
from cli.screen import FAINT
from cli.screens.context import Context

ENDS = ("wait for it", "leave", "stay")


def work_menu(context: Context) -> None:
    """Menu entry 26: what is under way, with how far it is; one of this session can be looked at again."""
    from cli.screens.recovery import list_under_way

    list_under_way(context)
    if not context.work:
        context.screen.line(("Nothing was left running here.", FAINT))
        return
    for number, work in enumerate(context.work, 1):
        context.screen.line(f"  {number}. {work.title} ", (f"({work.display.summary})", FAINT))
    titles = [work.title for work in context.work]
    come_back(context, context.work[context.ask.choice("Come back to", titles, suggestion=0)])


def come_back(context: Context, work: Work) -> None:
    """Look at work until it ends, and say what became of it."""
    try:
        result = watch(context, work)
    except LeftBehind:
        return
    work.tell(context, result)


def tell_of_ended(context: Context) -> None:
    """Say what became of what has ended since it was left."""
    for work in [one for one in context.work if one.is_over]:
        context.screen.line()
        context.screen.line(f"{work.title}:")
        come_back(context, work)


def may_leave(context: Context) -> bool:
    """Ask what becomes of work that is under way, before the menu is left; whether it may be left.

    Raises:
        LeftRunning: it is left, and hosts end the steps they are at.
    """
    while any(not work.is_over for work in context.work):
        for work in context.work:
            context.screen.line(f"Under way: {work.title} ", (f"({work.display.summary})", FAINT))
        label = "1 wait for it, 2 leave and let the next start show the rest, 3 stay"
        chosen = context.ask.choice(label, ENDS, suggestion=0)
        if chosen == 1:
            raise LeftRunning
        if chosen == 2:
            return False
        for work in list(context.work):
            come_back(context, work)
    tell_of_ended(context)
    return True
