"""Keeps a session that is meant for the lab inside the lab.

With `CLOUDREPO_LAB_ONLY=1` no host is contacted unless this process is in one of the lab's network namespaces,
which are known by the alias on their loopback device. Without the variable nothing is asked.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import threading

from cloudrepo.errors import HostError

VARIABLE = "CLOUDREPO_LAB_ONLY"
ALIAS = "cloudrepo-lab "

_asking = threading.Lock()
_no_labs: set[int] = set()  # by their numbers; a lab's is asked again, since numbers are given anew


def check_lab(host: str, address: str) -> None:
    """Refuse to contact `address` from outside a lab when only the lab is allowed.

    Args:
        host: the name the caller used, for the error.
        address: what would be connected to; empty when a proxy command decides that.

    Raises:
        HostError: it is not allowed; no packet was sent.
    """
    if os.environ.get(VARIABLE) != "1" or is_loopback(address) or is_in_lab():
        return
    raise HostError(
        host,
        "not contacted: only the lab is allowed here",
        evidence=f"{VARIABLE}=1 is set and this process is in no namespace of the lab",
        remedy=f"run it inside with `./cloud lab exec -- …`, or unset {VARIABLE} to reach real hosts",
        code="host.lab_only",
    )


def is_loopback(address: str) -> bool:
    """Whether an address is this machine itself."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def is_in_lab() -> bool:
    """Whether this thread is in a network namespace of a lab. Of one that is none that is asked once."""
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    with _asking:
        if namespace in _no_labs:
            return False
        alias = loopback_alias()
        if alias == "":
            _no_labs.add(namespace)
        return alias is not None and alias.startswith(ALIAS)


def loopback_alias() -> str | None:
    """The alias of `lo` in this thread's network namespace; empty when it has none, None when that is not known.

    Asked by netlink (`ip`), since /sys shows the namespace it was mounted in, which may be another one.
    """
    try:
        answer = subprocess.run(
            ("ip", "-j", "link", "show", "lo"), capture_output=True, text=True, timeout=5, check=True
        ).stdout
        return str(json.loads(answer)[0].get("ifalias", ""))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, AttributeError):
        return None
