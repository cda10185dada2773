"""What a deploy says beside that it succeeded."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashing import SLICE, Installation
from fakes.host import Device, ModelHost


def give_second_uplink(host: ModelHost) -> None:
    host.devices["bond1"] = Device("other", is_up=True)
    host.ports["bond1"] = {"tag": None, "type": "", "ids": {}}
    host.flows.set_ports(host.ports)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path)
    made.designed()
    return made


def test_a_bridge_that_cannot_be_closed_is_named_with_the_reason_and_what_it_means(installation: Installation) -> None:
    ip = next(vm["worker_ip"] for vm in installation.record()["vms"])
    give_second_uplink(installation.hosts[ip])
    done, answer = installation.api.deploy_slice("admin", SLICE)
    assert done, answer
    assert answer.details["open"] == {ip: "it has more than one uplink (trunk0, bond1)"}
    assert f"The bridge of {ip} is not closed, since it has more than one uplink" in answer.hint
    assert "until the monitor's next look" in answer.hint
    fail_modes = {address: host.bridge["fail_mode"] for address, host in installation.hosts.items()}
    assert fail_modes == {address: "" if address == ip else "secure" for address in installation.hosts}


def test_nothing_is_said_of_bridges_that_are_closed(installation: Installation) -> None:
    done, answer = installation.api.deploy_slice("admin", SLICE)
    assert done and answer.details["open"] == {} and "bridge" not in answer.hint


def test_nothing_is_said_of_bridges_that_a_slice_does_not_use(installation: Installation) -> None:
    slice_id = installation.ok("create_slice", "admin", "alone")["slice_id"]
    vm = installation.ok("add_vm_to_slice", "admin", slice_id, "vm1", "cirros", 1)
    give_second_uplink(installation.hosts[vm["worker_ip"]])
    done, answer = installation.api.deploy_slice("admin", slice_id)
    assert done and answer.details["open"] == {}
