"""Calls that must be refused: one sentence or its documented string, and not a byte of the state file changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import StateFileError
from cloudrepo.settings import Settings
from cloudrepo.transports.local import LocalTransport
from database import Database
from deployment_api import DeploymentAPI, MadeDisk
from orchestrator_api import OrchestratorAPI
from remote_executor import RemoteExecutor

LONG = "n" * 200


@dataclass
class Room:
    """An installation without hosts, and what is in it: two slices of two users."""

    api: OrchestratorAPI
    mine: int = 0
    theirs: int = 0
    running: int = 0
    empty: int = 0
    deleted: int = 0
    vm1: int = 0
    vm2: int = 0
    their_vm: int = 0

    def ok(self, call: str, *args: Any) -> Any:
        done, payload = getattr(self.api, call)(*args)
        assert done, payload
        return payload

    def becomes(self, slice_id: int, state: str) -> None:
        with self.api.db.transaction() as data:
            data["slices"][str(slice_id)]["status"] = state

    def refused(self, call: str, *args: Any) -> str:
        """The message of a refusal that changed nothing."""
        before = self.api.db.path.read_bytes()
        done, message = getattr(self.api, call)(*args)
        assert done is False, f"{call}{args} succeeded: {message}"
        assert self.api.db.path.read_bytes() == before
        assert "\n" not in message and "Traceback" not in message and "unexpectedly" not in message, message
        assert len(message) < 500, message
        return str(message)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Room]:
    """Makes installations whose disks are made at once, by nobody."""

    disk = MadeDisk(path="~/vm_images/vm_img.qcow2", image_source="manager")

    def make(**settings: Any) -> Room:
        executor = RemoteExecutor("ubuntu", known_hosts=tmp_path / "known_hosts", transport=LocalTransport({}))
        deployment = DeploymentAPI(executor)
        api = OrchestratorAPI(Database(tmp_path / "database.yaml"), deployment, settings=Settings.of(settings))
        monkeypatch.setattr(deployment, "make_disk", lambda *args, **options: disk)
        monkeypatch.setattr(api.discovery, "ensure_known", lambda *ips: None)
        monkeypatch.setattr(api.discovery, "ensure_asked", lambda: None)
        return Room(api)

    return make


@pytest.fixture
def room(bare: Callable[..., Room]) -> Room:
    room = bare()
    for field, owner in (("mine", "admin"), ("theirs", "student"), ("running", "admin"), ("empty", "admin")):
        setattr(room, field, room.ok("create_slice", owner, f"slice {field}")["slice_id"])
    room.vm1 = room.ok("add_vm_to_slice", "admin", room.mine, "vm1", "cirros", 2, True)["vm_id"]
    room.vm2 = room.ok("add_vm_to_slice", "admin", room.mine, "vm2", "cirros", 2, False)["vm_id"]
    room.ok("add_vm_to_slice", "admin", room.running, "vm1", "cirros", 1, False)
    room.their_vm = room.ok("add_vm_to_slice", "student", room.theirs, "vm1", "cirros", 1, False)["vm_id"]
    room.ok("create_link", "admin", room.mine, room.vm1, "eth1", room.vm2, "eth1")
    gone = room.ok("create_slice", "admin", "gone")["slice_id"]
    with room.api.db.transaction() as data:
        data["users"]["admin"]["role"] = "student"  # as documented: nobody reaches slices of others
        data["slices"][str(room.running)]["status"] = "running"
        data["slices"].pop(str(gone))
    room.deleted = gone
    return room


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "it's", 'say "hi"', "$(reboot)", "`id`", "../etc", "a/b", "-rf", "1vm", "ñandú", "vm\n2", "x;y",
     LONG, "vm\u202e1", None, 7, ["vm"], {"a": 1}, True],
)  # fmt: skip
def test_names_of_vms(room: Room, name: Any) -> None:
    message = room.refused("add_vm_to_slice", "admin", room.mine, name, "cirros", 1)
    assert "a VM cannot be named" in message
    assert "31" in message or "30" in message  # the rule is said


@pytest.mark.parametrize("name", ["vm1", "VM1", "Vm1"])
def test_a_name_twice_in_a_slice(room: Room, name: str) -> None:
    assert "already has " in room.refused("add_vm_to_slice", "admin", room.mine, name, "cirros", 1)


@pytest.mark.parametrize("name", ["", "   ", "\t", "12", "a\nb", "a\x00b", "a\x1b[31mred", LONG, None, 5, ["a"]])
def test_names_of_slices(room: Room, name: Any) -> None:
    assert "a slice cannot be named" in room.refused("create_slice", "admin", name)


@pytest.mark.parametrize("name", ["it's $(mine)", "práctica de redes", '"quoted"', "../up", "x" * 64])
def test_a_label_is_only_a_label(room: Room, name: str) -> None:
    slice_id = room.ok("create_slice", "admin", name)["slice_id"]
    assert room.ok("get_slice", "admin", slice_id)["name"] == name


@pytest.mark.parametrize("topology", ["", "a b", "$(x)", LONG, None, 3])
def test_topologies(room: Room, topology: Any) -> None:
    assert "a topology type cannot be" in room.refused("create_slice", "admin", "good", topology)


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [-1, 16, 10**9, 10**40, 1.5, float("nan"), "2", None, True, [1]])
def test_counts_of_interfaces(room: Room, count: Any) -> None:
    message = room.refused("add_vm_to_slice", "admin", room.mine, "vm3", "cirros", count)
    assert "data interfaces" in message and "0 to 15" in message


@pytest.mark.parametrize("internet", ["yes", 1, 0, None, "false", []])
def test_internet_is_true_or_false(room: Room, internet: Any) -> None:
    assert "internet" in room.refused("add_vm_to_slice", "admin", room.mine, "vm3", "cirros", 1, internet)


@pytest.mark.parametrize("flavor", ["", "huge", "CIRROS", None, 3, ["cirros"], "../cirros"])
def test_flavors(room: Room, flavor: Any) -> None:
    assert room.refused("add_vm_to_slice", "admin", room.mine, "vm3", flavor, 1) == "Invalid flavor"


# ── who and which ───────────────────────────────────────────────────────────────────────────────────────

SLICE_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("add_vm_to_slice", ("vm3", "cirros", 1)),
    ("create_link", (1001, "eth1", 1002, "eth1")),
    ("deploy_slice", ()),
    ("delete_slice", ()),
    ("stop_slice", ()),
    ("start_slice", ()),
    ("get_slice", ()),
    ("remove_vm", (1001,)),
    ("remove_link", (1,)),
    ("start_vm", (1001,)),
    ("stop_vm", (1001,)),
]


@pytest.mark.parametrize(("call", "rest"), SLICE_CALLS)
def test_unknown_users_and_slices_and_those_of_others(room: Room, call: str, rest: tuple[Any, ...]) -> None:
    for user in ("nobody", "", None, 7, "admin ", ["admin"], {"a": 1}):
        assert room.refused(call, user, room.mine, *rest) == "User not found"
    odd: list[Any] = [-1, 0, None, "x", "../1000", 1000.5, True, [1000], {}, 10**40, float("inf")]
    for slice_id in [room.deleted, 999999, *odd]:
        assert room.refused(call, "admin", slice_id, *rest) == "Slice not found", slice_id
    assert room.refused(call, "admin", room.theirs, *rest) == "Not authorized"
    assert room.refused(call, "student", room.mine, *rest) == "Not authorized"


@pytest.mark.parametrize("user", ["nobody", "", None, 7, ["admin"], {"a": 1}])
def test_calls_without_a_slice_need_a_user(room: Room, user: Any) -> None:
    assert room.refused("create_slice", user, "name") == "User not found"
    assert room.refused("list_slices", user) == "User not found"


# ── links ───────────────────────────────────────────────────────────────────────────────────────────────


def test_ends_of_a_link(room: Room) -> None:
    def link(*ends: Any) -> str:
        return room.refused("create_link", "admin", room.mine, *ends)

    assert "needs two interfaces" in link(room.vm1, "eth2", room.vm1, "eth2")
    assert "needs two VMs" in link(room.vm2, "eth0", room.vm2, "eth2")
    assert "already an end of link 1" in link(room.vm1, "eth1", room.vm2, "eth2")
    assert "already an end of link 1" in link(room.vm1, "eth2", room.vm2, "eth1")
    assert "way to the internet" in link(room.vm1, "eth0", room.vm2, "eth2")
    for name in ("eth3", "", "ETH2", "eth02", "$(x)", None, 2, ["eth2"], LONG):
        assert "has no interface" in link(room.vm1, name, room.vm2, "eth2"), name
    for vm_id in (999999, -1, None, "1001", 1.5, True, [1], room.their_vm, room.running):
        assert "there is no VM" in link(vm_id, "eth2", room.vm2, "eth2"), vm_id
        assert "there is no VM" in link(room.vm1, "eth2", vm_id, "eth2"), vm_id


def test_removing_what_is_not_there(room: Room) -> None:
    for vm_id in (999999, None, "1001", room.their_vm):
        assert "there is no VM" in room.refused("remove_vm", "admin", room.mine, vm_id)
    for link_id in (0, 2, -1, None, "1", 1.5, True):
        assert "there is no link" in room.refused("remove_link", "admin", room.mine, link_id), link_id


# ── states ──────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_that_a_state_does_not_allow(room: Room) -> None:
    vm = room.ok("get_slice", "admin", room.running)["vms"][0]["vm_id"]
    for call in ("deploy_slice", "start_slice"):
        assert "it is running" in room.refused(call, "admin", room.running), call
    room.becomes(room.running, "deleting")
    for call, *rest in (
        ("add_vm_to_slice", "vm3", "cirros", 1),
        ("create_link", vm, "eth0", vm, "eth1"),
        ("deploy_slice",),
        ("start_slice",),
        ("remove_vm", vm),
        ("remove_link", 1),
    ):
        assert "it is deleting" in room.refused(call, "admin", room.running, *rest), call
    for call, *rest in (("stop_slice",), ("start_slice",), ("start_vm", room.vm1), ("stop_vm", room.vm1)):
        assert "it is design" in room.refused(call, "admin", room.mine, *rest), call


def test_an_empty_slice_is_not_deployed(room: Room) -> None:
    message = room.refused("deploy_slice", "admin", room.empty)
    assert "has no VMs" in message and "Add one first" in message


# ── quota and room ──────────────────────────────────────────────────────────────────────────────────────


def test_quotas(room: Room) -> None:
    with room.api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 3  # as many as admin has
        data["users"]["student"]["quota_vms"] = 0
    assert room.refused("add_vm_to_slice", "admin", room.mine, "vm3", "cirros", 1) == "Quota exceeded"
    assert room.refused("add_vm_to_slice", "student", room.theirs, "vm2", "cirros", 1) == "Quota exceeded"


def test_no_workers(room: Room) -> None:
    with room.api.db.transaction() as data:
        data["workers_list"] = []
    message = room.refused("add_vm_to_slice", "admin", room.mine, "vm3", "cirros", 1)
    assert "there is no worker" in message and "worker add" in message


def test_the_order_of_checks(room: Room) -> None:
    """User, slice, owner, state, flavor, name, numbers, quota, room: each is told before all later ones."""
    with room.api.db.transaction() as data:
        data["workers_list"] = []
        for user in data["users"].values():
            user["quota_vms"] = 0
    room.becomes(room.running, "deleting")
    good = ("admin", room.mine, "vm3", "cirros", 1)
    bad = ("nobody", 999999, "$(x)", "huge", -1)
    expected = (
        (bad, "User not found"),
        (("admin", *bad[1:]), "Slice not found"),
        (("admin", room.theirs, *bad[2:]), "Not authorized"),
        (("admin", room.running, *bad[2:]), "it is deleting"),
        (("admin", room.mine, *bad[2:]), "Invalid flavor"),
        (("admin", room.mine, "$(x)", "cirros", -1), "a VM cannot be named"),
        (("admin", room.mine, "vm1", "cirros", -1), "already has a VM named vm1"),
        (("admin", room.mine, "vm3", "cirros", -1), "data interfaces"),
        (good, "Quota exceeded"),
    )
    for args, words in expected:
        assert words in room.refused("add_vm_to_slice", *args), args
    with room.api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 10
    assert "there is no worker" in room.refused("add_vm_to_slice", *good)


# ── a worker that fails ─────────────────────────────────────────────────────────────────────────────────


def test_a_disk_that_cannot_be_made_leaves_the_records_as_they_were(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudrepo.errors import HostError

    def fail(*args: Any, **more: Any) -> str:
        raise HostError("10.0.10.2", "the disk is full", remedy="Make room there")

    monkeypatch.setattr(room.api.deployment_api, "make_disk", fail)
    before = (str(room.api.db.data["slices"]), room.api.db.data["next_vm_id"], str(room.api.db.data["users"]))
    done, message = room.api.add_vm_to_slice("admin", room.mine, "vm3", "cirros", 1)
    assert (done, str(message)) == (False, "10.0.10.2: the disk is full. Make room there")
    room.api.db.refresh()
    assert before == (str(room.api.db.data["slices"]), room.api.db.data["next_vm_id"], str(room.api.db.data["users"]))


def test_a_slice_whose_host_is_away_is_not_deployed_and_stays_in_design(room: Room) -> None:
    done, message = room.api.deploy_slice("admin", room.mine)
    assert not done and "10.0.10." in message and "no connection" in message
    assert room.ok("get_slice", "admin", room.mine)["status"] == "design"


# ── state files ─────────────────────────────────────────────────────────────────────────────────────────

ALIEN = {
    "empty": b"",
    "only comments": b"# nothing\n",
    "text": b"just words\n",
    "a list": b"- 1\n- 2\n",
    "another program's": b"services:\n  web:\n    image: nginx\n",
    "not YAML": b"users: [unclosed\n",
    "binary": bytes(range(256)),
    "an object": b"!!python/object/apply:os.system ['touch /tmp/owned']\n",
    "wrong shape": b"users: 7\nslices: {}\n",
}


@pytest.mark.parametrize("kind", ALIEN)
def test_files_that_are_no_state_are_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "database.yaml"
    path.write_bytes(ALIEN[kind])
    with pytest.raises(StateFileError) as caught:
        Database(path)
    assert path.read_bytes() == ALIEN[kind]
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("/tmp/owned").exists()


def test_a_state_file_cut_anywhere_is_refused_or_still_whole(room: Room, tmp_path: Path) -> None:
    whole = room.api.db.path.read_bytes()
    path = tmp_path / "cut.yaml"
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        try:
            Database(path)
        except StateFileError as error:
            refused += 1
            assert str(path) in str(error)
        assert path.read_bytes() == whole[:length], "a file that was only read has changed"
    assert refused > 10


def test_a_state_file_that_is_a_folder_or_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match="database"):
        Database(_folder(tmp_path / "database"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
