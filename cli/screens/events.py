"""What happened: to one's own, or for those who look after others to everything."""

from __future__ import annotations

from cli.screen import FAINT
from cli.screens.context import Context

USUAL, MOST = 15, 200


def events_menu(context: Context) -> None:
    """Menu entry 25."""
    from cli.events import print_event
    from cloudrepo.events import Event

    number = context.ask.number("How many", default=USUAL, least=1, most=MOST)
    ok, answer = context.api.list_events(context.username, count=number)
    if not ok:
        context.screen.complain(answer)
        return
    for one in answer:
        told = {key: value for key, value in one.items() if key != "schema_version"}
        print_event(Event(**told), context.screen)
    if not answer:
        context.screen.line(("Nothing has happened yet.", FAINT))
