"""Names on hosts, and the marks that say whose they are.

Everything we make on a host carries a `Mark`. Only what carries a mark of this installation is ever
changed or removed; everything else is foreign.
"""

from __future__ import annotations

import hashlib
import re
import uuid

from cloudrepo.late_dataclass import dataclass

INTERNET_VLAN = 400
HIGHEST_METER = 0xFFFF0000  # OFPM_MAX, OpenFlow 1.3.5, A.3.4.4
_GATEWAY_PORT = re.compile(r"gw_vlan[0-9]{1,4}\Z", re.ASCII)
_INTERFACE = re.compile(r"eth(0|[1-9][0-9]{0,2})\Z", re.ASCII)
MAX_LINK_NAME = 15  # IFNAMSIZ - 1, linux/if.h
MARK_KEY = "cloudrepo"  # the key in OVS external_ids

SHARED = "shared"  # scope of what all slices share: VLAN 400
MANUAL = "manual"  # scope of what the managers made when called alone
DRAFT = "disk.qcow2"  # an overlay's first name, in its VM's own directory
UNFINISHED = "unfinished"  # scope, when seen, of a directory of ours whose mark was not written yet

_MARK = re.compile(
    r"cloudrepo/(?P<installation>[0-9a-f]{8})/(?P<scope>\w+)/(?P<vm>\d+|-)/(?P<detail>[\w.:-]*)\Z", re.ASCII
)

_DEVICE = re.compile(r"(?![.]{1,2}\Z)[!-,.0-~][!-.0-~]{0,14}\Z")  # printable ASCII without blanks and `/`


@dataclass(frozen=True, order=True)
class Mark:
    """Whose a thing is.

    Attributes:
        installation: eight hex digits, made once for each state file.
        scope: a slice id in decimal, `shared` or `manual`.
        vm_id: the VM it belongs to, or None.
        detail: what else must be known to rebuild the records: an interface name, a VLAN.
    """

    installation: str
    scope: str
    vm_id: int | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        """Refuse a mark that could not be read back: it would make a stranger of what carries it.

        Raises:
            ValueError: a part holds a character marks do not have.
        """
        if not _MARK.match(str(self)):
            raise ValueError(f"not a mark: {str(self)!r}")

    def __str__(self) -> str:
        vm = "-" if self.vm_id is None else str(self.vm_id)
        return f"cloudrepo/{self.installation}/{self.scope}/{vm}/{self.detail}"


def parse_mark(text: str | None) -> Mark | None:
    """The mark in `text`, or None when there is none: the thing is foreign."""
    match = _MARK.match(text or "")
    if match is None:
        return None
    vm = None if match["vm"] == "-" else int(match["vm"])
    return Mark(match["installation"], match["scope"], vm, match["detail"])


TAP_PREFIX = "tap_"


def tap_name(vm_id: int, interface: str) -> str:
    """`tap_{vm}_{if}` where Linux takes it (15 characters), else a short name made of a digest.

    The digest (SHA-256, 8 hex digits) is of the documented name, so it is the same at every call.
    """
    name = f"{TAP_PREFIX}{vm_id}_{interface}"
    if len(name) <= MAX_LINK_NAME:
        return name
    return f"{TAP_PREFIX}h" + hashlib.sha256(name.encode()).hexdigest()[:8]


def meter_number(vm_id: int, interface: str) -> int | None:
    """The OpenFlow meter of a NIC: unique on a host as its TAP's name is, also among installations.

    None for what is no NIC of ours, and for a VM whose id is beyond what a meter's number can hold.
    """
    matched = _INTERFACE.match(interface)
    number = (vm_id << 8) + int(matched[1]) if matched is not None else 0
    return number if matched is not None and int(matched[1]) < 256 and number <= HIGHEST_METER else None


def require_device(name: str) -> str:
    """The name, if a network device can have it (dev_valid_name, net/core/dev.c) and no tool reads it as an option.

    Raises:
        ValueError: it cannot, or would be.
    """
    if not _DEVICE.match(name):
        raise ValueError(f"not the name of a network device: {name!r}")
    return name


def gateway_port(vlan_id: int) -> str:
    """The documented name of a VLAN's gateway port."""
    return f"gw_vlan{vlan_id}"


def is_gateway_port(device: str) -> bool:
    """Whether a device has the documented name of a VLAN's gateway port."""
    return _GATEWAY_PORT.match(device) is not None


def dhcp_port(vlan_id: int) -> str:
    """The documented name of a VLAN's DHCP port."""
    return f"dhcp_v{vlan_id}"


def dhcp_namespace(vlan_id: int) -> str:
    """The documented name of a VLAN's namespace."""
    return f"ns-dhcp-vlan{vlan_id}"


def machine_uuid(installation: str, vm_id: int) -> str:
    """The QEMU `-uuid` of a VM: a name-based UUID (RFC 4122, version 5) of installation and id."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cloudrepo:{installation}:vm:{vm_id}"))


def service_mac(installation: str, device: str) -> str:
    """The MAC of a gateway's or DHCP server's port: locally administered (IEEE 802, 8.2), the same at every call.

    Workers know it without asking the network node, so that nobody else is taken for it.
    """
    digest = hashlib.sha256(f"{installation}:{device}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def flow_cookie(mark: Mark) -> int:
    """The 64 bits by which flows are ours: 32 of the installation, 32 of the slice, or of what was made by hand."""
    if mark.scope == SHARED:
        owner = _OF_ALL
    elif mark.scope == MANUAL:
        owner = _BY_HAND | (mark.vm_id if mark.vm_id is not None else _WIRE | int(mark.detail))
    else:
        owner = int(mark.scope)
    return first_cookie(mark.installation) | owner


def first_cookie(installation: str) -> int:
    """The lowest of an installation's 2**32 cookies."""
    return int(installation, 16) << 32


def flow_owner(mark: Mark) -> str:
    """Whose flows of this mark are, in a person's words: `slice 1000`."""
    if mark.scope == SHARED:
        return f"VLAN {INTERNET_VLAN}"
    if mark.scope == MANUAL:
        return f"VM {mark.vm_id}" if mark.vm_id is not None else f"VLAN {mark.detail}"
    return f"slice {mark.scope}"


def parse_cookie(cookie: int) -> Mark | None:
    """Whose flows with this cookie would be, if they are any installation's; None = nobody's, as of a flow without."""
    installation, owner = f"{cookie >> 32:08x}", cookie & 0xFFFFFFFF
    if not owner:
        return None
    if owner == _OF_ALL:
        return Mark(installation, SHARED)
    if not owner & _BY_HAND:
        return Mark(installation, str(owner))
    number = owner & ~_BY_HAND
    if number & _WIRE:
        return Mark(installation, MANUAL, None, str(number & ~_WIRE))
    return Mark(installation, MANUAL, number)


_BY_HAND, _WIRE, _OF_ALL = 0x80000000, 0x40000000, 0x7FFFFFFF


def run_root(installation: str) -> str:
    """The directory on a host that holds what lives until the next boot: sockets, pid files, logs."""
    return f"/run/cloudrepo-{installation}"


def machine_dir(installation: str, vm_id: int) -> str:
    """Where a running VM's pid file, sockets and log are."""
    return f"{run_root(installation)}/vm-{vm_id}"


def server_dir(installation: str, vlan_id: int) -> str:
    """Where a VLAN's DHCP server keeps its configuration, leases and pid file."""
    return f"{run_root(installation)}/dhcp-{vlan_id}"
