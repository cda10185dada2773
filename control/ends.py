"""The ends of wires by the records, under the names that hosts know them by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cloudrepo.allocation import internet_gateway
from cloudrepo.naming import dhcp_namespace, dhcp_port, gateway_port
from cloudrepo.settings import Settings
from cloudrepo.verification.cast import Service, services_of


def services(settings: Settings, records: Iterable[Mapping[str, Any]]) -> list[Service]:
    """The services that the wires of these slices should have."""
    return services_of(
        records,
        has_gateways=settings.links.gateway,
        internet_gateway=internet_gateway(settings.internet.cidr),
        names={"gateway": gateway_port, "DHCP server": dhcp_port},
        namespace=dhcp_namespace,
    )
