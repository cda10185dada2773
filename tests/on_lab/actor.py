"""An orchestrator process of its own, as a test starts it: `actor.py STATE [DIE_AT]`.

It reads calls of the façade, one JSON line each (`["deploy_slice", ["admin", 1000], {}]`), and answers each with
a line `[done, payload]`. After so many progress events as `DIE_AT` says it kills itself, as by a power failure.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

from orchestrator_api import build


def main(state: str, die_at: int = 0) -> None:
    """Serve calls until the end of stdin."""
    api = build(state)
    told, counting = 0, threading.Lock()

    def progress(event: Any) -> None:
        nonlocal told
        print(f"{event.host} {event.label} {'done' if event.done else '…'}", file=sys.stderr, flush=True)
        with counting:  # hosts tell from threads of their own
            told += 1
            if told == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    for line in sys.stdin:
        name, args, kwargs = json.loads(line)
        more = {"progress": progress} if name in ("deploy_slice", "delete_slice", "stop_slice") else {}
        done, payload = getattr(api, name)(*args, **kwargs, **more)
        print(json.dumps([done, payload]), flush=True)
    api.executor.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
