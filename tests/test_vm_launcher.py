from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudrepo.errors import HostError, RefusedError
from cloudrepo.naming import machine_uuid
from cloudrepo.resources import HostFacts, Machine, Port, Resource, Tap
from cloudrepo.settings import Settings
from vm_launcher import vm_resources
from worlds import OURS, WORKER, host, mark, vm

FACTS = HostFacts(datapath="system", has_bridge=True, uplinks=("trunk0",))


def resources(record: dict[str, Any], facts: HostFacts = FACTS, accelerator: str = "tcg", **settings: Any) -> Any:
    chosen = Settings.of(settings)
    made: list[Resource] = vm_resources(
        "1000", record, host(WORKER), facts, chosen, disk="/d/vm1.qcow2", accelerator=accelerator
    )
    return made


def spec(record: dict[str, Any], **options: Any) -> Any:
    return next(one for one in resources(record, **options) if isinstance(one, Machine)).spec


def test_every_nic_is_there_in_the_designers_order_and_only_linked_ones_have_a_port() -> None:
    made = resources(vm(1001, (400, None, 100)))
    assert [one.device for one in made if isinstance(one, Tap)] == ["tap_1001_eth0", "tap_1001_eth1", "tap_1001_eth2"]
    assert [(one.device, one.tag, one.is_internal) for one in made if isinstance(one, Port)] == [
        ("tap_1001_eth0", 400, False),
        ("tap_1001_eth2", 100, False),
    ]
    nics = spec(vm(1001, (400, None, 100))).nics
    assert [(nic.interface, nic.mac, nic.has_carrier) for nic in nics] == [
        ("eth0", "52:54:00:03:e9:00", True),
        ("eth1", "52:54:00:03:e9:01", False),
        ("eth2", "52:54:00:03:e9:02", True),
    ]


def test_marks_name_the_slice_the_vm_and_the_nic() -> None:
    tap, port, machine = resources(vm(1001, (100,)))
    assert tap.mark == port.mark == mark(1000, 1001, "eth0")
    (*_, machine) = resources(vm(1001, (100, None)))
    assert machine.mark == mark(1000, 1001, "eth0.eth1"), "its directory announces its TAPs"
    assert machine.uuid == machine_uuid(OURS, 1001) and tap.user == "ubuntu"


def test_the_machine_has_what_the_record_says() -> None:
    made = spec(vm(1001) | {"cores": 2, "ram_gb": 0.5})
    assert (made.vm_name, made.cores, made.ram_mib, made.disk) == ("vm1", 2, 512, "/d/vm1.qcow2")
    assert (made.vnc_bind, made.vnc_port, made.accelerator, made.user, made.detach) == (
        *("127.0.0.1", 5901, "tcg", "ubuntu", "setsid"),
    )
    assert spec(vm(), accelerator="kvm").accelerator == "kvm"
    documented = spec(vm(), **{"vnc.bind": "0.0.0.0", "qemu.detach": "daemonize"})
    assert (documented.vnc_bind, documented.detach) == ("0.0.0.0", "daemonize")


@pytest.mark.parametrize(("ram_gb", "mib"), [(0.5, 512), (1, 1024), (0.1, 102), (2.2, 2253)])
def test_memory_in_mib(ram_gb: float, mib: int) -> None:
    assert spec(vm() | {"ram_gb": ram_gb}).ram_mib == mib


def test_guests_leave_no_checksums_to_the_userspace_datapath() -> None:
    assert spec(vm()).vnet_hdr is True
    assert spec(vm(), facts=replace(FACTS, datapath="netdev")).vnet_hdr is False


def test_a_worker_without_the_bridge_is_said_with_the_remedy() -> None:
    with pytest.raises(HostError, match="no Open vSwitch bridge br-int") as error:
        resources(vm(), facts=HostFacts())
    assert "ovs-vsctl add-br br-int" in error.value.remedy and error.value.code == "host.bridge"


@pytest.mark.parametrize(
    "change",
    [
        *({"name": name} for name in ("a b", "a,b", "$(x)", "../x", "--help", "-x", "x" * 200, "ñu", "12", "a\n", "")),
        {"vm_id": -1},
        {"vm_id": "1001; reboot"},
    ],
)
def test_a_record_with_a_hostile_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        resources(vm() | change)


@pytest.mark.parametrize(
    "change",
    [
        *({"name": name} for name in ("eth 0", "--help", "eth0,script=x", "../eth0", "eth0\n", "eth" + "1" * 200, "e")),
        *({"mac": mac} for mac in ("x,romfile=/etc/shadow", "", "52:54:00:03:e9", "52:54:00:*:*:*", None)),
    ],
)
def test_a_nic_with_a_hostile_value_is_refused(change: dict[str, Any]) -> None:
    record = vm(1001, (100,))
    record["interfaces"][0] |= change
    with pytest.raises(RefusedError):
        resources(record)


def test_long_ids_get_a_short_tap_and_keep_their_marks() -> None:
    tap, *_ = resources(vm(1000000, (100,)) | {"name": "vm1"})
    assert tap.device.startswith("tap_h") and tap.mark == mark(1000, 1000000, "eth0")
