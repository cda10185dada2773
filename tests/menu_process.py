"""The menu on hosts in memory, as a process of its own for a terminal. Arguments: folder, user, role.

The folder has the state file, and `gate` while steps on hosts may end: work takes as long as a test wants. Where it
has `design`, the user has a slice with two linked VMs; where it has `furnished`, that slice runs, and there is
something for each entry. `down` names workers that do not answer. The user's password is `orange-seven`. Other
processes may change the state file meanwhile, as another menu would. `ended` gets the exit status at the end.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import bcrypt

import main
from cli import keyboard, status_bar
from cli.installation import Installation as Opened
from cli.menu import CLI
from cloudrepo import logs
from crashing import Installation, Life
from fakes.orchestrator import give_image
from models import User
from worker_discovery import WorkerDiscovery

PASSWORD = "orange-seven"
PATIENCE_S = 120.0


class Gated(Life):
    """A life in which no step on a host ends until the gate is open."""

    def __init__(self, gate: Path) -> None:
        super().__init__()
        self._gate = gate

    def moment(self, what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while " end " in what and "fences" not in what and not self._gate.exists() and time.monotonic() < until:
            time.sleep(0.02)
        super().moment(what)


def design(made: Installation, owner: str) -> None:
    """Slice 1000 with two linked VMs that have a free interface each."""
    made.ok("create_slice", owner, "lab")
    for name in ("vm1", "vm2"):
        made.ok("add_vm_to_slice", owner, 1000, name, "cirros", 2)
    made.ok("create_link", owner, 1000, 1001, "eth1", 1002, "eth1")


def furnish(made: Installation, owner: str) -> None:
    """Something for every question: a slice that runs and differs from its records, one cut short, others, an image."""
    design(made, owner)
    made.ok("deploy_slice", owner, 1000)
    made.hosts["10.0.10.1"].devices.pop("tap_1001_eth1")
    give_image(made.api, "extra", owner)
    with made.api.db.transaction() as data:
        data["users"]["zoe"] = User("zoe", "no hash", 10).to_dict()
    made.ok("create_slice", "zoe", "hers")
    cut = made.ok("create_slice", owner, "cut short")["slice_id"]
    with made.api.db.transaction() as data:
        dead = {"number": 90, "kind": "deploy", "who": owner, "began": "2026-01-01T00:00:00Z", "process": ""}
        data["slices"][str(cut)] |= {"status": "deploying", "operation": dead | {"back": "design"}}


def answer_for_the_wire(api: Any) -> None:
    """Hosts in memory have no wire: what one would show is said as if all were well, of what was asked for."""

    def path(username: str, start: str, end: str) -> tuple[bool, Any]:
        hop = {
            "name": "port",
            "device": "tap",
            "host": "10.0.10.1",
            "found": "there",
            "broken": "",
            "stale": "",
            "command": "ip link",
        }
        return True, {"from": start, "to": end, "hops": [hop], "broken": None, "stale": None, "must_reach": True}

    def verify(slice_id: int | None = None, *, username: str) -> tuple[bool, Any]:
        found = {"nics": 2, "frames": 40, "heard": 60, "not_heard": 400, "seconds": 0.5}
        nothing: Any = {"violations": [], "unproven": [], "guests": {}, "unreachable": {}}
        return True, found | nothing | {"evidence": f"of {slice_id or 'all'} for {username}"}

    api.path, api.verify = path, verify


def installation(folder: Path, user: str, role: str) -> Opened:
    """What the menu is opened on; made anew where there is no state file yet."""
    is_new = not (folder / "database.yaml").exists()
    if (folder / "furnished").exists():
        (folder / "inbox").mkdir(exist_ok=True)
        for name in ("one.img", "two.img"):
            (folder / "inbox" / name).write_bytes(bytes(512))
        (folder / "settings.yaml").write_text(f"images:\n  inbox: {folder}/inbox\n")
    made = Installation(folder)
    made.api = made.orchestrator(Gated(folder / "gate"))
    if is_new:
        printed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()  # cheap: the hash is not the subject
        with made.api.db.transaction() as data:
            data["users"][user] = User(user, printed, 10).to_dict() | {"role": role}
        if (folder / "design").exists():
            design(made, user)
        if (folder / "furnished").exists():
            furnish(made, user)
    answer_for_the_wire(made.api)
    logs.configure(made.state, "INFO")
    return Opened(made.state, made.api.db, made.api.settings, made.api)


def down(folder: Path) -> dict[str, str]:
    """Workers that do not answer, and why."""
    named = folder / "down"
    return dict.fromkeys(named.read_text().split(), "it did not answer") if named.exists() else {}


def run(folder: Path, user: str, role: str) -> int:
    """Serve one person."""
    opened = installation(folder, user, role)
    CLI._begin_discovery = lambda self: self._begun.set()  # type: ignore[method-assign] # there is nobody to ask
    CLI._watch = lambda self, stop: None  # type: ignore[method-assign]
    WorkerDiscovery.down_reasons = lambda self: down(folder)  # type: ignore[method-assign]
    status_bar.LOOK_S = keyboard.REFRESH_S = 0.5
    main._make_streams_safe()
    return CLI(opened).run()


if __name__ == "__main__":
    status = run(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    sys.stdout.flush()
    Path(sys.argv[1], "ended").write_text(str(status))
    os._exit(status)
