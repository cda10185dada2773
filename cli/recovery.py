"""The word about operations that a crash cut short, for one-shot commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cli.text import count

if TYPE_CHECKING:
    from cli.installation import Installation


def remind(installation: Installation) -> None:
    """Say on stderr, in one line, that something is left of processes that ended; nothing when nothing is."""
    from control.unfinished import in_records

    left = [one for one in in_records(installation.db.data, installation.db.path) if one.is_dead and not one.is_waiting]
    if left:
        slices = ", ".join(dict.fromkeys(str(one.slice_id) for one in left))
        words = f"{count(len(left), 'operation')} not finished when the process ended (slice {slices})"
        print(f"{words}: `./cloud resume` goes on, `./cloud rollback SLICE` takes back.", file=sys.stderr)
