"""Work that is long and in no hurry, beside threads that are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_USUAL_S = sys.getswitchinterval()
_SHORT_S = 0.0003


@contextmanager
def short_turns() -> Iterator[None]:
    """A block whose thread gives way to others within a third of a millisecond, not five.

    A commit lets go of the interpreter at each of its ten calls of the kernel; with the usual turns it may wait ten
    times five milliseconds for a thread that renders.
    """
    sys.setswitchinterval(_SHORT_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_S)
