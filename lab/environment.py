"""The environments of commands in the lab."""

import os
import sys
from pathlib import Path

from lab.layout import Folder

HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def orchestrator_environment(folder: Folder) -> dict[str, str]:
    """Return the environment of commands where the orchestrator runs.

    The caller's own, with this lab's state and key, and this Python first.
    """
    path = os.environ.get("PATH", HOST_PATH).split(":")
    path += [place for place in ("/usr/sbin", "/sbin") if place not in path]
    return dict(os.environ) | {
        "PATH": ":".join([str(Path(sys.executable).parent), *path]),
        "CLOUDREPO_STATE": str(folder.state / "database.yaml"),
        "CLOUDREPO_SSH_KEY": str(folder.private_key),
        "CLOUDREPO_SSH_KNOWN_HOSTS": str(folder.state / "known_hosts"),
        "CLOUDREPO_LAB_ONLY": "1",
        "CLOUDREPO_LAB_DIR": str(folder.path),
        "CLOUDREPO_LAB_CACHE": str(folder.cache()),
    }


def host_environment() -> dict[str, str]:
    """Return the environment of commands that run as root inside a host."""
    return {
        "PATH": HOST_PATH,
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
    }
