"""Hosts of the lab as `worker harden` leaves them for an installation of the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloudrepo.host.hardening import BOUNDS
from cloudrepo.host.message import HELPER, HELPERS_HOME
from control import hardening
from lab.cluster import Lab
from lab.layout import ADMIN_USER, WORKER_USER
from orchestrator_api import OrchestratorAPI

HOME = HELPERS_HOME  # what `~` is in the place of images
IMAGES = f"{HOME}/vm_images"


def disk_of(lab: Lab, ip: str) -> Path:
    """What a host can write, as a folder of this machine."""
    return lab.folder.path / "hosts" / ip / "disk"


def on_disk(lab: Lab, ip: str, path: str) -> Path:
    """A file of a host."""
    return disk_of(lab, ip) / path.removeprefix("/").replace("usr/local/", "usr-local/", 1)


def prepare(lab: Lab, api: OrchestratorAPI) -> None:
    """Prepare all hosts for an installation: the first time as a person does it, then by its one file."""
    for host in lab.status().hosts:
        if host.state != "up":
            continue
        if not on_disk(lab, host.address, HELPER).exists():
            done, answer = api.harden_worker(host.address, admin=ADMIN_USER)
            assert done, answer
            continue
        bounds = {**hardening.bounds(api.context, host.address), "home": f"/home/{WORKER_USER}"}
        on_disk(lab, host.address, bounds_file(api)).write_text(json.dumps(bounds))


def forget(lab: Lab, api: OrchestratorAPI) -> None:
    """Take away what the hosts have for an installation."""
    for host in lab.status().hosts:
        if on_disk(lab, host.address, bounds_file(api)).exists():
            done, answer = api.harden_worker(host.address, admin=ADMIN_USER, undo=True)
            assert done, answer


def bounds_file(api: Any) -> str:
    """Where a host keeps what an installation may name there."""
    return f"{BOUNDS}/{api.site.installation}.json"
