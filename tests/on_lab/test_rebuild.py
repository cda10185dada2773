"""The state file and all beside it is gone: the records come back from the hosts, but for what no host can know."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from cloudrepo.events import FILE_NAME
from on_lab.cluster import HOSTS, Cluster, Record, differences

pytestmark = pytest.mark.lab
PRIVILEGE = "sudo"  # the records are lost, and with them whose bounds the hosts have


def slices_of(cluster: Cluster) -> Record:
    cluster.api.db.refresh()
    return copy.deepcopy(dict(cluster.api.db.data["slices"]))


def without_passwords(slices: Record) -> Record:
    """As hosts know them: the password of a screen is in no file there."""
    found = copy.deepcopy(slices)
    for vm in (vm for one in found.values() for vm in one["vms"]):
        del vm["vnc_password"]
    return found


@pytest.mark.cost(seconds=20)
def test_records_are_made_anew_from_the_hosts_and_serve_on(clusters: Callable[..., Cluster]) -> None:
    """One slice runs, one is stopped, one is in design with a disk; then all files beside the settings are gone."""
    cluster = clusters(qemu={"stop_grace": 0.2, "quit_grace": 0.5})
    before = cluster.snapshot()
    with cluster.api.db.transaction() as data:
        data["users"]["ann"] = {**data["users"]["student"], "username": "ann", "quota_vms": 17}
    running = cluster.slice("web", "db", "log", internet=("web",), user="ann", flavor="blank")
    cluster.link(running, "web", "eth1", "db", "eth1", user="ann")
    stopped = cluster.slice("one", "two", flavor="blank")
    cluster.link(stopped, "one", "eth1", "two", "eth1")
    designed = cluster.slice("draft", interfaces=2)
    for made, user in ((running, "ann"), (stopped, "admin")):
        cluster.ok("deploy_slice", user, made["id"])
    cluster.ok("stop_slice", "admin", stopped["id"])
    old, number = slices_of(cluster), cluster.api.db.data["operation"]
    for path in cluster.folder.iterdir():
        if path.name != "settings.yaml" and path.is_file():
            path.unlink()

    fresh = cluster.reborn()
    assert fresh.api.db.data["slices"] == {} and fresh.api.site.installation != cluster.api.site.installation
    report = fresh.ok("state_rebuild", installation=cluster.api.site.installation)
    assert (report["slices"], report["vms"], report["installation"]) == (3, 6, cluster.api.site.installation)
    assert report["first_passwords"].keys() == {"ann"}
    said = "\n".join(report["unknown"])
    assert "passwords of screens" in said and "quotas" in said
    assert f"whether slice {stopped['id']} (test) was stopped" in said
    assert f"the links of slice {designed['id']} (test)" in said
    assert '"state_rebuild"' in (cluster.folder / FILE_NAME).read_text()
    assert "it has slices" in fresh.refused("state_rebuild")

    again = fresh.reborn()
    assert again.api.site.installation == cluster.api.site.installation
    assert slices_of(again) == without_passwords(old)
    data = again.api.db.data
    assert data["operation"] >= number, "hosts refuse numbers that they have seen"
    assert data["next_vm_id"] == max(vm["vm_id"] for one in old.values() for vm in one["vms"]) + 1
    assert again.ok("login", "ann", report["first_passwords"]["ann"])["must_change_password"]
    assert [one for one in again.ok("drift")["objects"] if one["difference"]] == []
    again.ok("start_slice", "admin", stopped["id"])
    again.ok("add_vm_to_slice", "admin", designed["id"], "more", "cirros", 1)
    for made, user in ((running, "ann"), (stopped, "admin"), (designed, "admin")):
        again.ok("delete_slice", user, made["id"])
    assert differences(before, again.snapshot()) == []


@pytest.mark.cost(seconds=4)
def test_rebuilding_refuses_what_it_cannot_do_and_writes_nothing(cluster: Cluster) -> None:
    text = cluster.state.read_text()
    assert "nothing on the hosts" in cluster.refused("state_rebuild", installation="00000bad")
    assert "10.0.10.77" in cluster.refused("state_rebuild", (HOSTS[0], "10.0.10.77"))
    assert cluster.state.read_text() == text
