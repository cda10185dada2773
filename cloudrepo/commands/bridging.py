"""`ovs-vsctl` and `ip` for what a host's administrator makes: the bridge and its uplink (ovs-vsctl(8), ip-link(8))."""

from __future__ import annotations

from cloudrepo.commands.ovs import TIMEOUT_S
from cloudrepo.naming import require_device

DATAPATHS = ("system", "netdev")


def make_bridge(bridge: str, datapath: str) -> tuple[str, ...]:
    """Make the bridge, with a datapath in the kernel (`system`) or in a process (`netdev`).

    Raises:
        ValueError: no such datapath, or a name that no device can have.
    """
    if datapath not in DATAPATHS:
        raise ValueError(f"a datapath is one of {', '.join(DATAPATHS)}, not {datapath!r}")
    making = ("--may-exist", "add-br", require_device(bridge))
    setting = ("set", "Bridge", bridge, f"datapath_type={datapath}")
    return ("ovs-vsctl", f"--timeout={TIMEOUT_S}", "--", *making, "--", *setting)


def join(bridge: str, device: str) -> tuple[str, ...]:
    """Make a device a port of the bridge: a trunk for all VLANs.

    Raises:
        ValueError: a name that no device can have.
    """
    return ("ovs-vsctl", f"--timeout={TIMEOUT_S}", "--", "--may-exist", "add-port", bridge, require_device(device))


def up(device: str) -> str:
    """A line for `ip -batch`: switch a device on."""
    return f"link set dev {require_device(device)} up\n"


def mtu(device: str, size: int) -> str:
    """A line for `ip -batch`: the largest packet that a device takes, in bytes."""
    return f"link set dev {require_device(device)} mtu {size}\n"
