"""People: made, removed, given roles; first passwords, and rules for those they choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudrepo.invariants import violations
from fakes.orchestrator import orchestrator
from orchestrator_api import OrchestratorAPI

FIRST, OWN = "correct horse", "battery staple"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OrchestratorAPI:
    api = orchestrator(tmp_path)
    monkeypatch.setattr(api._gate, "_sleep", lambda seconds: None)
    return api


def refused(answer: tuple[bool, Any], code: str) -> str:
    done, message = answer
    assert not done and message.code == code, answer
    return str(message)


def test_a_new_user_chooses_a_password_at_the_first_login_and_the_first_one_is_never_taken_again(
    api: OrchestratorAPI,
) -> None:
    made = api.add_user("admin", "ann", FIRST, role="instructor", quotas={"vms": 3, "ram_gb": "2.5"})[1]
    assert made == {
        "username": "ann",
        "role": "instructor",
        "must_change_password": True,
        "slices": [],
        "quota": {
            "vms": {"used": 0, "limit": 3},
            "cores": {"used": 0, "limit": "unlimited"},
            "ram_gb": {"used": 0, "limit": 2.5},
            "disk_gb": {"used": 0, "limit": "unlimited"},
        },
    }
    assert api.login("ann", FIRST)[1]["must_change_password"] is True
    assert "old one" in refused(api.set_password("ann", FIRST), "password.same")
    assert api.set_password("ann", OWN) == (True, "Password changed")
    assert not api.login("ann", FIRST)[0]
    account = api.login("ann", OWN)[1]
    assert (account["role"], account["must_change_password"]) == ("instructor", False)
    refused(api.set_password("ann", OWN), "password.same")
    assert api.set_password("ann", "third password")[0]
    refused(api.set_password("ann", FIRST), "password.same")  # still
    assert api.set_password("ann", OWN)[0]  # neither the present nor the first one


def test_a_password_that_is_reset_is_a_first_one_again(api: OrchestratorAPI) -> None:
    api.add_user(None, "ann", FIRST)
    api.set_password("ann", OWN)
    assert api.reset_password("admin", "ann", "given anew")[0]
    assert not api.login("ann", OWN)[0]
    assert api.login("ann", "given anew")[1]["must_change_password"] is True
    refused(api.set_password("ann", "given anew"), "password.same")
    assert api.set_password("ann", OWN)[0]
    assert api.login("ann", OWN)[1]["must_change_password"] is False


@pytest.mark.parametrize(
    ("password", "code", "words"),
    [
        ("1234567", "password.short", "8 characters"),
        ("", "password.short", "8 characters"),
        ("x" * 80, "password.long", "80 bytes, and bcrypt looks at 72"),
        ("ñ" * 37, "password.long", "74 bytes"),
        ("Annabell", "password.name", "must not be the user name"),
        ("a\ud800bcdefgh", "password.text", "not text"),
    ],
)
def test_passwords_that_break_a_rule_are_refused_and_change_nothing(
    api: OrchestratorAPI, password: str, code: str, words: str
) -> None:
    refused(api.add_user(None, "annabell", password), code)
    assert api.db.get_user("annabell") is None
    api.add_user(None, "annabell", FIRST)
    before = api.db.get_user("annabell")
    assert words in refused(api.set_password("annabell", password), code)
    assert words in refused(api.reset_password(None, "annabell", password), code)
    assert api.db.get_user("annabell") == before


def test_a_password_of_72_bytes_counts_to_its_last(api: OrchestratorAPI) -> None:
    assert api.add_user(None, "ann", "x" * 72)[0]
    assert not api.login("ann", "x" * 71 + "y")[0] and not api.login("ann", "x" * 73)[0]
    assert api.login("ann", "x" * 72)[0]


@pytest.mark.parametrize("name", ["", "1a", "a b", "$(x)", "a" * 40, "ñandú", "Operator", "monitor", None, 7, ["a"]])
def test_names_that_are_none(api: OrchestratorAPI, name: Any) -> None:
    assert "cannot be named" in refused(api.add_user(None, name, FIRST), "name.user")


def test_a_user_twice_and_a_role_that_is_none(api: OrchestratorAPI) -> None:
    assert "a user student already" in refused(api.add_user(None, "Student", FIRST), "user.taken")
    assert "admin, instructor, student" in refused(api.add_user(None, "ann", FIRST, role="root"), "user.role")
    assert "admin, instructor, student" in refused(api.set_role(None, "student", "root"), "user.role")
    assert api.set_role(None, "student", "user") == (True, "student")  # as earlier files call it
    assert refused(api.set_role(None, "nobody", "admin"), "user.unknown") == "User not found"
    refused(api.add_user(None, "ann", FIRST, quotas={"gpus": 1}), "quota.kind")
    assert api.db.get_user("ann") is None


def test_the_only_administrator_is_neither_removed_nor_demoted(api: OrchestratorAPI) -> None:
    for answer in (
        api.remove_user("admin", "admin"),
        api.remove_user(None, "admin", give_slices_to="student"),
        api.set_role("admin", "admin", "student"),
        api.set_role(None, "admin", "instructor"),
    ):
        assert "only administrator" in refused(answer, "user.last_admin")
    assert api.set_role(None, "admin", "admin")[0]
    assert api.set_role("admin", "student", "admin")[0]
    assert api.remove_user("student", "admin")[0]
    refused(api.set_role("student", "student", "student"), "user.last_admin")


def test_a_user_with_slices_is_refused_by_name_or_gives_them_away(api: OrchestratorAPI) -> None:
    api.create_slice("student", "one")
    api.create_slice("student", "two")
    vm = api.add_vm_to_slice("student", 1000, "vm1", "cirros", 1)[1]
    message = refused(api.remove_user("admin", "student"), "user.slices")
    assert "slices 1000, 1001" in message and "--give-slices-to USER" in message
    refused(api.remove_user("admin", "student", give_slices_to="nobody"), "user.unknown")
    refused(api.remove_user("admin", "student", give_slices_to="student"), "user.same")
    api.set_quota(None, "admin", {"vms": 0})
    assert refused(api.remove_user("admin", "student", give_slices_to="admin"), "quota") == "Quota exceeded"
    assert api.db.get_user("student") is not None
    api.set_quota(None, "admin", {"vms": 1})
    with api.db.transaction() as data:
        data["slices"]["1001"]["operation"] = {"kind": "deploy"}
    assert "slice 1001" in refused(api.remove_user("admin", "student", give_slices_to="admin"), "slice.busy")
    assert api.get_slice("student", 1000)[1]["vms"][0]["owner"] == "student"  # nor is half of it given
    with api.db.transaction() as data:
        data["slices"]["1001"].pop("operation")
    done, text = api.remove_user("admin", "student", give_slices_to="admin")
    assert done and "2 of student's slices are admin's now" in text
    assert api.db.get_user("student") is None
    assert [record["owner"] for record in api.list_slices("admin")[1]] == ["admin", "admin"]
    assert api.get_slice("admin", 1000)[1]["vms"][0] == api.get_slice("admin", 1000)[1]["vms"][0] | {
        "vm_id": vm["vm_id"],
        "owner": "admin",
    }
    assert violations(api.db.data) == []
    assert api.db.data["users"]["admin"]["used_vms"] == 1
    assert not api.login("student", "student")[0]


def test_who_is_removed_while_logged_in_can_do_nothing_more(api: OrchestratorAPI) -> None:
    assert api.remove_user(None, "student")[0]
    assert api.list_slices("student") == (False, "User not found")


def test_a_role_that_is_taken_counts_at_the_next_call(api: OrchestratorAPI) -> None:
    api.create_slice("admin", "mine")
    api.set_role(None, "student", "admin")
    assert api.get_slice("student", 1000)[0]
    api.set_role(None, "student", "student")
    assert api.get_slice("student", 1000) == (False, "Not authorized")


def test_nobody_is_shown_a_hash(api: OrchestratorAPI) -> None:
    api.add_user(None, "ann", FIRST)
    api.set_password("ann", OWN)
    shown = repr([api.list_users("admin"), api.login("ann", OWN), api.set_quota(None, "ann", {"vms": 1})])
    assert "$2b$" not in shown and "hash" not in shown
