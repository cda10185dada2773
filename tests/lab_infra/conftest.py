"""One lab for these tests, in a folder of its own; it dies with the test process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.cluster import Lab
from lab.layout import Options
from lab_infra.guests import DhcpServer, Guest


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with the default size."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.up(Options(), with_parent=os.getpid())
    yield lab
    lab.down(purge=True)


@pytest.fixture
def fresh_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of a test's own, not yet up."""
    lab = Lab(tmp_path_factory.mktemp("fresh"))
    yield lab
    lab.down(purge=True)


@pytest.fixture(scope="session")
def dhcp(lab: Lab) -> Iterator[DhcpServer]:
    """A DHCP server for VLAN 700 on the network node, started by hand."""
    with DhcpServer(lab, "10.0.10.3", vlan=700) as server:
        yield server


@pytest.fixture
def guest(lab: Lab, dhcp: DhcpServer) -> Iterator[Guest]:
    """A guest with two cards on VLAN 700, on another host than its DHCP server."""
    with Guest(lab, "10.0.10.1", number=1, vlan=dhcp.vlan) as guest:
        yield guest


@pytest.fixture
def deaf_guest(lab: Lab, dhcp: DhcpServer) -> Iterator[Guest]:
    """A guest that ignores the ACPI power button."""
    with Guest(lab, "10.0.10.2", number=2, vlan=dhcp.vlan, image="lab-noacpi.img") as guest:
        yield guest
