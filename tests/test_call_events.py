"""Every call that changes something leaves an event with user, object and outcome; a password is in none."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from control.authority import Session
from database import Database
from deployment_api import DeploymentAPI
from fakes.host import FakeExecutor
from orchestrator_api import OrchestratorAPI

LOOKS = {
    "list_users",
    "list_images",
    "list_events",
    "list_all_slices",
    "list_slices",
    "get_slice",
    "cluster_status",
    "cleanup_plan",
    "drift",
    "verify",
    "doctor",
    "path",
    "unfinished_operations",
    "plan",
    "allocate",
    "rehearse",
}


@pytest.fixture
def api(tmp_path: Path) -> OrchestratorAPI:
    return OrchestratorAPI(Database(tmp_path / "database.yaml"), DeploymentAPI(FakeExecutor()))


def test_calls_leave_events_with_user_object_and_outcome(api: OrchestratorAPI) -> None:
    assert api.create_slice("admin", "net lab") == (True, {"slice_id": 1000, "name": "net lab"})
    assert not api.add_vm_to_slice("admin", 1000, "vm1", "huge", 1)[0]
    assert not api.deploy_slice("student", slice_id=1000)[0]
    assert not api.remove_vm("admin", 1000, 77)[0]
    assert api.delete_slice("admin", 1000) == (True, "Slice deleted")
    found = [(event.who, event.what, event.about, event.outcome) for event in api.context.events.read()]
    assert found == [
        ("admin", "create_slice", "slice 1000", "done"),
        ("admin", "add_vm_to_slice", "slice 1000", "refused"),
        ("student", "deploy_slice", "slice 1000", "refused"),
        ("admin", "remove_vm", "vm 77", "refused"),
        ("admin", "delete_slice", "slice 1000", "done"),
    ]
    create, add, _deploy, remove, _delete = api.context.events.read()
    assert create.details == {"slice_name": "net lab"}
    assert add.details["reason"] == "Invalid flavor"
    assert (add.details["vm_name"], add.details["flavor_name"]) == ("vm1", "huge")
    assert remove.details["slice"] == 1000


def test_a_password_is_in_no_event(api: OrchestratorAPI) -> None:
    assert api.set_password("admin", "correct horse")[0]
    assert not api.set_password("nobody", "battery staple")[0]
    assert not api.login("admin", "blue bicycle")[0]
    assert not api.login("typed in the wrong line", "x")[0]
    assert api.add_user(None, "ann", "yellow submarine")[0]
    assert api.reset_password(None, "ann", "purple haze")[0]
    text = api.context.events.path.read_text()
    assert text.count('"set_password"') == 2
    for secret in ("correct", "battery", "blue", "typed", "yellow", "purple"):
        assert secret not in text
    assert [(event.who, event.outcome) for event in api.context.events.read() if event.what == "login"] == [
        ("admin", "refused"),
        ("nobody", "refused"),
    ]


def test_the_owner_and_the_operator_are_told_where_they_are_not_who_acts(api: OrchestratorAPI) -> None:
    api.create_slice("student", "theirs")
    api.delete_slice("admin", 1000)
    api.session = Session(operator="root")
    api.create_slice("student", "by the operator")
    api.set_quota(None, "student", {"vms": 3})
    _first, second, third, fourth = api.context.events.read()
    assert (second.who, second.what, second.details) == ("admin", "delete_slice", {"owner": "student"})
    assert (third.who, third.details) == ("student", {"slice_name": "by the operator", "operator": "root"})
    assert (fourth.who, fourth.about) == ("operator", "user student")
    assert fourth.details == {"quotas": {"vms": 3}, "operator": "root"}


def test_a_console_that_is_opened_or_refused_leaves_an_event(api: OrchestratorAPI) -> None:
    assert not api.console_target("student", 1001)[0]
    (event,) = api.context.events.read()
    assert (event.what, event.who, event.about, event.outcome) == ("console_target", "student", "vm 1001", "refused")


def test_a_failure_that_is_no_refusal_is_said_to_be_one(api: OrchestratorAPI) -> None:
    api.create_slice("admin", "one")
    with api.db.transaction() as data:
        data["workers"]["10.0.10.1"] = {"ip": "10.0.10.1", **dict.fromkeys(("max_cores", "max_ram_gb"), 4)}
        data["workers"]["10.0.10.1"] |= {"max_vms": 10, "max_disk_gb": 99, "used_cores": 0, "used_ram_gb": 0}
        data["workers_list"] = ["10.0.10.1"]
    assert not api.add_vm_to_slice("admin", 1000, "vm1", "cirros", 1)[0]
    *_, event = api.context.events.read()
    assert (event.what, event.outcome) == ("add_vm_to_slice", "failed")


def test_every_call_of_the_facade_either_looks_or_leaves_an_event() -> None:
    """One that is added later says which."""
    source = "".join(inspect.getsource(part) for part in OrchestratorAPI.__mro__ if part is not object)
    marked = {
        line.strip().removeprefix("def ").partition("(")[0]: lines[number - 1].strip()
        for lines in [source.splitlines()]
        for number, line in enumerate(lines)
        if line.startswith("    def ") and lines[number - 1].strip() in ("@_answers", "@_changes")
    }
    assert {name for name, mark in marked.items() if mark == "@_answers"} == LOOKS
    assert "deploy_slice" in marked
