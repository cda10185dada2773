"""Hosts of the lab as `worker harden` leaves them for an installation of the tests."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cloudrepo.host.hardening import BOUNDS
from cloudrepo.host.message import HELPERS_HOME
from control import hardening
from lab.cluster import Lab
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
    """Prepare all hosts for an installation, as root there who was given what `worker harden --print` prints."""
    _have_root_run(lab, api, undo=False)


def forget(lab: Lab, api: OrchestratorAPI) -> None:
    """Take away what the hosts have for an installation; with the last one, sudo is as it was."""
    _have_root_run(lab, api, undo=True)


def _have_root_run(lab: Lab, api: OrchestratorAPI, *, undo: bool) -> None:
    def on(ip: str) -> None:
        text = hardening.script(api.context, ip, undo=undo)
        done = lab.host(ip, ["/usr/bin/python3", "-I", "-"], input=text, timeout=60)
        answer = json.loads(done.stdout)
        assert done.returncode == 0 and "refused" not in answer, f"{ip}: {done.stderr}{answer}"

    here = [host.address for host in lab.status().hosts if host.state == "up"]
    if undo:
        here = [ip for ip in here if on_disk(lab, ip, bounds_file(api)).exists()]
    with ThreadPoolExecutor(max(1, len(here))) as pool:
        list(pool.map(on, here))


def bounds_file(api: Any) -> str:
    """Where a host keeps what an installation may name there."""
    return f"{BOUNDS}/{api.site.installation}.json"
