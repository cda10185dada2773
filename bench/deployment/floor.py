"""The floor: the same work on the hosts by one script each, without an orchestrator, SSH or observation."""

from __future__ import annotations

from pathlib import Path

from bench.deployment.slice import INTERNET_VLAN, NETWORK_NODE, guests, vlans

SCRIPTS = Path(__file__).with_name("floor")
IMAGES = "/home/ubuntu/vm_images"
RUN = "/run/floor"
MARK = "floor/f100f100/2000"
STAGES = ("disks", "up", "down")


def script(stage: str, host: str, *, base: str, at_a_time: int = 1) -> str:
    """The whole script of one host: its data, then what is done with them.

    Args:
        stage: `disks`, `up` or `down`.
        host: whose share of the slice.
        base: the base image there.
        at_a_time: QEMUs that are started side by side.
    """
    return data(host, base=base, at_a_time=at_a_time) + (SCRIPTS / f"{stage}.sh").read_text()


def data(host: str, *, base: str, at_a_time: int) -> str:
    """The variables that the scripts read."""
    here = vlans() if host == NETWORK_NODE else []
    values = {
        "BASE": base,
        "IMAGES": IMAGES,
        "RUN": RUN,
        "MARK": MARK,
        "ACCOUNT": "ubuntu",
        "K": str(at_a_time),
        "GUESTS": "\n".join(_guest_lines(host)),
        "VLANS": "\n".join(f"{vlan.number} {vlan.subnet} {_offer(vlan.number, vlan.subnet)}".rstrip() for vlan in here),
        "LEASES": "\n".join(f"{vlan.number} {','.join(lease)}" for vlan in here for lease in vlan.leases),
        "QMP": (SCRIPTS / "qmp.pl").read_text(),
    }
    assert not any("'" in value for value in values.values())
    return "".join(f"{name}='{value}'\n" for name, value in values.items())


def _guest_lines(host: str) -> list[str]:
    return [
        " ".join(
            [str(guest.vm_id), guest.name, guest.uuid, str(guest.screen)]
            + [f"{nic.mac} {'-' if nic.vlan is None else nic.vlan}" for nic in guest.nics]
        )
        for guest in guests(host)
    ]


def _offer(vlan: int, subnet: str) -> str:
    """The dynamic range and the router option of a DHCP server."""
    if vlan == INTERNET_VLAN:
        return f"{subnet}.0,static ,{subnet}.1"
    return f"{subnet}.100,{subnet}.250"
