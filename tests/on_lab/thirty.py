"""Run where the orchestrator runs: so many processes at once, each adding one VM of its own to a slice.

Arguments: state file, slice, number of processes. Prints one line for each refusal; the processes share
nothing but the state file, since each is made before anything of an installation exists.
"""

from __future__ import annotations

import os
import sys

from orchestrator_api import build


def add(state: str, slice_id: int, number: int) -> int:
    """What one process does; 0 when the VM was added."""
    api = build(state)
    done, answer = api.add_vm_to_slice("admin", slice_id, f"vm{number}", "cirros", 1)
    if not done:
        print(f"vm{number}: {answer}", flush=True)
    api.executor.close()
    return 0 if done else 1


def main(state: str, slice_id: str, count: str) -> int:
    """Start them all, and wait for all; how many failed."""
    import remote_executor  # noqa: F401 - once here instead of in every process

    pids = []
    for number in range(int(count)):
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                code = add(state, int(slice_id), number)
            finally:
                os._exit(code)
        pids.append(pid)
    return sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in pids)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
