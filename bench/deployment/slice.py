"""The slice that all three bring up: twelve VMs in a line over three hosts, internet on each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

HOSTS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")
NETWORK_NODE = HOSTS[2]
INTERNET_VLAN = 400
FIRST_VLAN = 100
FIRST_VM_ID = 1001
FIRST_SCREEN = 1
GUESTS = 12
DATA_INTERFACES = 2
LEFT, RIGHT = 1, 2  # the interfaces towards the guest before and after in the line
NO_VLAN = None
FLAVOR = "cirros"


@dataclass(frozen=True)
class Nic:
    """One interface of a guest; `vlan` None has no link."""

    name: str
    mac: str
    vlan: int | None


@dataclass(frozen=True)
class Guest:
    """One VM, as the floor and the documented sequence make it."""

    number: int

    @property
    def name(self) -> str:
        """`vm1` to `vm12`."""
        return f"vm{self.number}"

    @property
    def vm_id(self) -> int:
        """A number that names its devices."""
        return FIRST_VM_ID + self.number - 1

    @property
    def host(self) -> str:
        """The host it runs on: round robin."""
        return HOSTS[(self.number - 1) % len(HOSTS)]

    @property
    def screen(self) -> int:
        """Its VNC display."""
        return FIRST_SCREEN + self.number - 1

    @property
    def uuid(self) -> str:
        """The machine's UUID."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"bench {self.vm_id}"))

    @property
    def address(self) -> str:
        """Its address on the internet VLAN."""
        return f"10.60.7.{100 + self.vm_id % 100}"

    @property
    def nics(self) -> tuple[Nic, ...]:
        """eth0 to the internet, eth1 to the guest before, eth2 to the guest after."""
        vlans = (
            INTERNET_VLAN,
            FIRST_VLAN + self.number - 2 if self.number > 1 else NO_VLAN,
            FIRST_VLAN + self.number - 1 if self.number < GUESTS else NO_VLAN,
        )
        prefix = f"52:54:00:{self.vm_id >> 8 & 255:02x}:{self.vm_id & 255:02x}"
        return tuple(Nic(f"eth{index}", f"{prefix}:{index:02x}", vlan) for index, vlan in enumerate(vlans))


@dataclass(frozen=True)
class Vlan:
    """One network: a link's, or the internet's."""

    number: int

    @property
    def subnet(self) -> str:
        """The first three bytes of its addresses."""
        return "10.60.7" if self.number == INTERNET_VLAN else f"192.168.{self.number}"

    @property
    def leases(self) -> Iterator[tuple[str, str, str]]:
        """MAC, address and name of each of its NICs."""
        place = 10
        for guest in guests():
            for nic in guest.nics:
                if nic.vlan == self.number:
                    is_internet = self.number == INTERNET_VLAN
                    yield nic.mac, guest.address if is_internet else f"{self.subnet}.{place}", guest.name
                    place += 1


def guests(host: str | None = None) -> list[Guest]:
    """All guests, or those of a host."""
    return [guest for number in range(1, GUESTS + 1) if (guest := Guest(number)).host == host or host is None]


def vlans() -> list[Vlan]:
    """The links' VLANs, then the internet's."""
    return [Vlan(FIRST_VLAN + number) for number in range(GUESTS - 1)] + [Vlan(INTERNET_VLAN)]
