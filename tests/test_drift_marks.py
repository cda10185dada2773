"""Drift of marks: an object of one slice that carries another slice's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudrepo.naming import MANUAL, SHARED
from drift_scene import VLAN, Scene, scene
from fakes.host import Device
from worlds import NODE, WORKER, mark

__all__ = ["scene"]  # the fixture


def carry(scene: Scene, scope: str, what: str) -> None:
    """Give an object of slice 1000 a mark that names another one."""

    def text(vm_id: int | None, detail: str) -> str:
        return str(mark(scope, vm_id, detail, installation=scene.installation))

    worker, node = scene.hosts[WORKER], scene.hosts[NODE]
    run = f"/run/cloudrepo-{scene.installation}"
    changes: dict[str, Callable[[], Any]] = {
        "TAP tap_1001_eth1": lambda: setattr(worker.devices["tap_1001_eth1"], "alias", text(1001, "eth1")),
        "port tap_1001_eth1": lambda: worker.ports["tap_1001_eth1"]["ids"].update(cloudrepo=text(1001, "eth1")),
        f"namespace ns-dhcp-vlan{VLAN}": lambda: node.namespaces.update({f"ns-dhcp-vlan{VLAN}": text(None, "100")}),
        f"address gw_vlan{VLAN} in ns-dhcp-vlan{VLAN}": lambda: setattr(
            node.devices[f"gw_vlan{VLAN}"], "alias", text(None, "100")
        ),
        f"DHCP server ns-dhcp-vlan{VLAN}": lambda: node.files.update(
            {f"{run}/dhcp-{VLAN}/mark": text(None, "100") + "\n"}
        ),
        "VM 1001": lambda: worker.files.update({f"{run}/vm-1001/mark": text(1001, "vm1") + "\n"}),
    }
    changes[what]()


BARE = (
    *("TAP tap_1001_eth1", "port tap_1001_eth1", f"namespace ns-dhcp-vlan{VLAN}"),
    *(f"address gw_vlan{VLAN} in ns-dhcp-vlan{VLAN}", f"DHCP server ns-dhcp-vlan{VLAN}"),
)


@pytest.mark.parametrize("scope", ["977", "1003", SHARED])  # in no record; a slice that has no such object; VLAN 400
@pytest.mark.parametrize("what", BARE)
def test_another_slices_mark_on_what_only_our_records_have_is_set_right(scene: Scene, what: str, scope: str) -> None:
    scene.ok("create_slice", "admin", "other")
    assert "1003" in scene.api.db.data["slices"]
    before = {host: one.picture() for host, one in scene.hosts.items()}
    guests = {host: set(one.processes) for host, one in scene.hosts.items() if host != NODE}
    carry(scene, scope, what)
    assert scene.differences()[what].startswith(f"changed mark=cloudrepo/{scene.installation}/{scope}/")
    answer = scene.mended()
    assert answer["left"] == []
    for host, picture in before.items():
        after = scene.hosts[host].picture()
        for part in ("ports", "devices", "namespaces", "rules", "directories", "processes"):
            assert after[part] == picture[part], (host, part)
    for host, running in guests.items():
        assert set(scene.hosts[host].processes) == running, "no guest was started anew"


def test_it_is_set_right_before_the_slice_whose_mark_it_is_takes_it_away(scene: Scene) -> None:
    """What carries the mark of a slice that is gone is an orphan of it, but for what our records have."""
    worker = scene.hosts[WORKER]
    orphan = str(mark(977, 978, "eth0", installation=scene.installation))
    worker.devices = {"tap_978_eth0": Device("tap", user="ubuntu", alias=orphan), **worker.devices}
    carry(scene, "977", "TAP tap_1001_eth1")
    running = set(worker.processes)
    scene.mended()
    assert set(worker.processes) == running and "tap_978_eth0" not in worker.devices
    locks = [plan.scopes for ip, plan in scene.api.executor.plans if ip == WORKER]
    assert ("1000", "977") in locks, "whoever is at that slice is not met at the object"


def test_another_slices_mark_is_left_where_records_are_in_doubt_or_a_guest_may_be_lost(scene: Scene) -> None:
    scene.ok("create_slice", "admin", "other")
    vm = scene.ok("add_vm_to_slice", "admin", 1003, "vm3", "cirros", 1)
    with scene.api.db.transaction() as data:  # what no history makes: two slices with one number
        (record,) = [one for one in data["slices"]["1003"]["vms"] if one["vm_id"] == vm["vm_id"]]
        record["vm_id"] = 1001
        record["operation"] = {"kind": "add_vm", "process": "", "number": 1}  # it comes or goes: nothing is said of it
    for scope, what in (("1003", "TAP tap_1001_eth1"), (MANUAL, "port tap_1001_eth1"), ("977", "VM 1001")):
        carry(scene, scope, what)
    found = {name: said for name, said in scene.differences().items() if name in (*BARE, "VM 1001")}
    assert set(found) == {"TAP tap_1001_eth1", "port tap_1001_eth1", "VM 1001"}
    answer = scene.ok("drift_fix")
    left = " ".join(one["why"] for one in answer["left"])
    assert all(name in left for name in found) and "mark of another slice of ours and is not touched" in left
    assert scene.hosts[WORKER].devices["tap_1001_eth1"].alias.split("/")[2] == "1003"


def test_a_deploy_does_not_take_what_another_slice_has_left(scene: Scene) -> None:
    """Numbers are used again after an older state was put back: what stands there may be a slice that runs."""
    scene.ok("stop_slice", "admin", 1000)
    ours = str(mark(977, 1001, "eth1", installation=scene.installation))
    scene.hosts[WORKER].devices["tap_1001_eth1"] = Device("tap", user="ubuntu", alias=ours)
    done, message = scene.api.start_slice("admin", 1000)
    assert not done and "tap_1001_eth1 is there and is not ours" in message
    assert scene.hosts[WORKER].devices["tap_1001_eth1"].alias == ours
