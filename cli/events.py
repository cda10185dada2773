"""`./cloud events`: who did what to which object, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cli import documents
from cli.screen import BAD, FAINT, GOOD, STRONG, Screen, require_reader
from cloudrepo.events import FILE_NAME, Event, EventLog

EXIT_INTERRUPTED = 130
STYLES = {"done": GOOD, "notice": GOOD, "refused": BAD, "failed": BAD, "warning": BAD, "error": BAD}


def show_events(
    folder: Path, screen: Screen, *, count: int, follow: bool, about: str, as_json: bool, poll_s: float = 0.25
) -> int:
    """Print the last events, and those that come when asked to.

    Args:
        folder: where the log is, beside the state file.
        screen: where lines go; JSON goes to stdout.
        count: how many of the last ones.
        follow: go on until Ctrl-C, SIGTERM, or the reader of a pipe has left.
        about: only those about this object: `slice 1000`, `1000`, `10.0.10.1`, a user's name.
        as_json: one JSON object a line, with `schema_version`.
        poll_s: pause between two looks.

    Returns:
        The exit status.
    """
    events = EventLog(folder / FILE_NAME)
    if follow:
        return _follow(events.follow(count, about=about, poll_s=poll_s, is_over=require_reader), screen, as_json)
    last = events.last(count, about=about)
    if not last and not as_json:
        screen.line((f"Nothing{f' about {about}' if about else ''} is in {events.path}.", FAINT))
    for event in last:
        print_event(event, screen, as_json=as_json)
    return 0


def _follow(events: Iterator[Event], screen: Screen, as_json: bool) -> int:
    """Print what comes; a signal is how it ends, and nothing that programs must be told."""
    try:
        for event in events:
            print_event(event, screen, as_json=as_json)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as end:  # SIGTERM: see main
        return int(end.code or 0)
    return 0


def print_event(event: Event, screen: Screen, *, as_json: bool = False) -> None:
    """One event on a line."""
    if as_json:
        documents.line(event.to_json())
        return
    words = str(event.details.get("text") or event.details.get("reason") or _told(event))
    screen.line(
        (f"{_local(event.time)}  ", FAINT),
        (f"{event.who}  ", STRONG),
        f"{event.what} {event.about}: ",
        (event.outcome, STYLES.get(event.outcome, "")),
        f"{'; ' if words else ''}{words}",
    )


def _told(event: Event) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.details.items())


def _local(when: str) -> str:
    """A time in the reader's own zone, to the second."""
    try:
        return datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return when
