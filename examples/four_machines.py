"""A slice of four machines in a line, two of them with internet, written against the documented calls.

::

    web ── app ── db ── log

Run it where an orchestrator runs, for example on the lab::

    ./cloud lab exec -- python examples/four_machines.py

It designs the slice and prints its id; `./cloud` then shows it, and deploys it when asked to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout, wherever this is started

if TYPE_CHECKING:
    from orchestrator_api import OrchestratorAPI

NAME = "Four machines"
MACHINES = (
    # name, data interfaces, internet
    ("web", 1, True),
    ("app", 2, False),
    ("db", 2, False),
    ("log", 1, True),
)
LINKS = (
    ("web", "eth1", "app", "eth1"),
    ("app", "eth2", "db", "eth1"),
    ("db", "eth2", "log", "eth1"),
)


def design(api: OrchestratorAPI, username: str) -> int:
    """Design the slice for a user.

    Returns:
        Its id.

    Raises:
        SystemExit: with the façade's own sentence, when it refuses a step.
    """
    slice_id = int(done(api.create_slice(username, NAME, "linear"))["slice_id"])
    ids: dict[str, int] = {}
    for name, interfaces, internet in MACHINES:
        vm = done(api.add_vm_to_slice(username, slice_id, name, "cirros", interfaces, internet_enabled=internet))
        ids[name] = vm["vm_id"]
    for one, one_interface, other, other_interface in LINKS:
        done(api.create_link(username, slice_id, ids[one], one_interface, ids[other], other_interface))
    return slice_id


def done(answer: tuple[bool, Any]) -> Any:
    """The payload of a call that succeeded."""
    ok, payload = answer
    if not ok:
        raise SystemExit(str(payload))
    return payload


if __name__ == "__main__":
    from orchestrator_api import build

    state = os.environ.get("CLOUDREPO_STATE", "database.yaml")
    print(f"Slice {design(build(state), 'admin')} is designed.")
