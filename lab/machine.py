"""What the lab asks of the machine it runs on."""

import os
import subprocess
from pathlib import Path

from lab.errors import LabError


def require_root(what: str) -> None:
    """Refuse without root.

    Args:
        what: The words of the command, for the remedy.

    Raises:
        LabError: With the remedy.
    """
    if os.geteuid() != 0:
        raise LabError(
            "The lab makes namespaces and network cables, which needs root.",
            remedy=f"Run it as: sudo ./cloud {what}",
        )


def datapath_type() -> str:
    """Return ``system`` where the kernel switches for Open vSwitch, else ``netdev``.

    The module is loaded if the machine has it; it stays loaded, as after any use.
    """
    loaded = Path("/sys/module/openvswitch").exists()
    if not loaded:
        words = ["modprobe", "-q", "openvswitch"]
        loaded = subprocess.run(words, check=False, capture_output=True).returncode == 0
    return "system" if loaded else "netdev"
