"""Who may do what: each role, each call of the façade, each kind of owner, against the policy in words."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import permissions
from cloudrepo.errors import RefusedError
from control import rehearsal
from control.authority import Session
from control.calls import answers
from fakes.orchestrator import HOSTS, give_image, orchestrator
from orchestrator_api import OrchestratorAPI
from worlds import vm

#: Whose objects a student, an instructor and an administrator may use. Written a second time, so that a slip in the
#: table of the program is one here, too.
POLICY = {
    "login": "own own own",
    "set_password": "own own own",
    "create_slice": "own own own",
    "add_vm_to_slice": "own own all",
    "create_link": "own own all",
    "set_ends": "own own all",
    "remove_vm": "own own all",
    "remove_link": "own own all",
    "set_link": "own students all",
    "set_restart_policy": "own own all",
    "deploy_slice": "own own all",
    "delete_slice": "own students all",
    "start_slice": "own students all",
    "stop_slice": "own students all",
    "start_vm": "own students all",
    "stop_vm": "own students all",
    "hand_over": "own own all",
    "plan": "own own all",
    "allocate": "own own all",
    "apply_plan": "own own all",
    "rehearse": "none none all",
    "resume": "own students all",
    "rollback": "own students all",
    "list_slices": "own own own",
    "list_events": "own own own",
    "list_all_slices": "none all all",
    "get_slice": "own all all",
    "unfinished_operations": "own own own",
    "console_target": "own students all",
    "vnc_target": "own students all",
    "exec_in_vm": "own students all",
    "cluster_status": "all all all",
    "drift": "none all all",
    "verify": "none all all",
    "doctor": "none all all",
    "path": "own all all",
    "add_image": "own own own",
    "list_images": "all all all",
    "remove_image": "own students all",
    "doctor_fix": "none none all",
    "drift_fix": "none none all",
    "state_rebuild": "none none all",
    "harden_worker": "none none all",
    "bootstrap_worker": "none none all",
    "drain_worker": "none none all",
    "remove_worker": "none none all",
    "cleanup_plan": "none none all",
    "cleanup": "none none all",
    "list_users": "none all all",
    "add_user": "none none all",
    "remove_user": "none none all",
    "reset_password": "none none all",
    "set_role": "none none all",
    "set_quota": "none none all",
}
#: Of the façade, and no calls of a person: the documented round robin, which gives nothing away and changes nobody's.
NO_CALLS = {"get_next_worker", "round_robin_idx", "workers"}
#: What acts on hosts, made when it is first needed; for programs, which have no session.
PARTS = {"deployment_api", "discovery", "executor", "site", "vlan_manager", "vm_launcher"}

ROLES = ("student", "instructor", "admin")
OWNERS = {"own": "me", "student's": "sam", "instructor's": "ines", "admin's": "adam"}
REACHES = {
    "none": set(),
    "own": {"own"},
    "students": {"own", "student's"},
    "all": set(OWNERS),
}
PASSWORD = "correct horse"


def arguments(slice_id: int, owner: str) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What each call is given beside who acts, to mean an object of this owner; `me` acts."""
    vm_id = slice_id + 1
    by_slice: dict[str, tuple[Any, ...]] = {
        "add_vm_to_slice": (slice_id, "another", "cirros", 1),
        "create_link": (slice_id, vm_id, "eth1", vm_id, "eth1"),
        "set_ends": (slice_id, 1, [(vm_id, "eth1")]),
        "remove_vm": (slice_id, vm_id),
        "remove_link": (slice_id, 1),
        "set_link": (slice_id, 1),
        "set_restart_policy": (slice_id, vm_id, "never"),
        "start_vm": (slice_id, vm_id),
        "stop_vm": (slice_id, vm_id),
        "hand_over": (slice_id, "deploy"),
        "plan": (slice_id, "deploy"),
        "apply_plan": (slice_id, {"kind": "deploy", "user": "me"}),
        "exec_in_vm": (vm_id, ["true"]),
        "console_target": (vm_id,),
        "vnc_target": (vm_id,),
        "path": (f"{vm_id}:eth0", "gateway"),
    }
    by_user: dict[str, tuple[Any, ...]] = {
        "remove_user": (owner,),
        "reset_password": (owner, PASSWORD),
        "set_role": (owner, "student"),
        "set_quota": (owner, {"vms": 7}),
        "add_user": (f"new-{owner}", PASSWORD),
        "set_password": (PASSWORD,),
        "create_slice": ("a slice",),
        "add_image": (f"new-{owner}", "/nowhere"),
        "remove_image": (f"of-{owner}",),
    }
    alone = ("list_slices", "list_events", "list_all_slices", "list_users", "list_images", "unfinished_operations")
    named = (
        "cluster_status",
        "doctor",
        "doctor_fix",
        "drift",
        "verify",
        "drift_fix",
        "state_rebuild",
        "cleanup_plan",
        "cleanup",
    )
    by_worker = ("harden_worker", "bootstrap_worker", "drain_worker", "remove_worker")
    slices = {name for name, rule in permissions.RULES.items() if rule.about == "slice"} - set(by_slice)
    return {
        **{name: (("me", *words), {}) for name, words in (by_slice | by_user).items()},
        **{name: (("me", slice_id), {}) for name in slices},
        **{name: (("me",), {}) for name in alone},
        **{name: ((), {"username": "me"}) for name in named},
        "allocate": (("me", "add_vm", {}), {"slice_id": slice_id}),
        "rehearse": (("me", "remove_worker", {"ip": "10.0.10.1"}), {}),
        **{name: (("10.0.10.1",), {"username": "me"}) for name in by_worker},
        "login": (("me", PASSWORD), {}),
    }


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[OrchestratorAPI, dict[str, int]]]:
    """Makes a façade where `me` has a role, and a slice with a running VM for each kind of owner."""

    def make(role: str) -> tuple[OrchestratorAPI, dict[str, int]]:
        api = orchestrator(tmp_path)
        slices = {}
        for owner in OWNERS.values():
            give_image(api, f"of-{owner}", owner)
        with api.db.transaction() as data:
            for name, of in (("me", role), ("sam", "student"), ("ines", "instructor"), ("adam", "admin")):
                data["users"][name] = {"username": name, "password_hash": "", "quota_vms": 9, "role": of}
        for kind, owner in OWNERS.items():
            slice_id = api.create_slice(owner, f"of {owner}")[1]["slice_id"]
            slices[kind] = slice_id
            with api.db.transaction() as data:
                one = vm(slice_id + 1, worker=HOSTS[0]) | {"status": "running", "owner": owner}
                data["slices"][str(slice_id)]["vms"].append(one)
                data["next_vm_id"] += 1
        return api, slices

    return make


def is_refused(answer: tuple[bool, Any]) -> bool:
    """For who acts; that the object itself does not allow it is another matter. A VM of others is as none."""
    done, payload = answer
    return not done and (payload == "Not authorized" or payload.code == "vm.unknown")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", POLICY)
def test_each_role_may_do_what_the_policy_says_to_whose_it_says(
    operation: str, role: str, scene: Callable[[str], tuple[OrchestratorAPI, dict[str, int]]]
) -> None:
    api, slices = scene(role)
    allowed = REACHES[POLICY[operation].split()[ROLES.index(role)]]
    about = permissions.RULES[operation].about
    for kind, owner in reversed(OWNERS.items()):  # one's own last: it may be oneself that goes
        if about in ("oneself", "anybody") and kind != "own":
            continue  # what it is about is one's own: there is nobody else to name
        args, options = arguments(slices[kind], owner)[operation]
        expected = kind not in allowed if about not in ("cluster",) else not allowed
        answer = getattr(api, operation)(*args, **options)
        assert is_refused(answer) is expected, (kind, answer)


@pytest.mark.parametrize(("kind", "reach"), [("deploy", "own"), ("stop", "students"), ("delete", "students")])
def test_who_hands_something_over_needs_the_right_to_do_it(
    kind: str, reach: str, scene: Callable[[str], tuple[OrchestratorAPI, dict[str, int]]]
) -> None:
    api, slices = scene("instructor")
    for owner, slice_id in slices.items():
        assert is_refused(api.hand_over("me", slice_id, kind)) is (owner not in REACHES[reach]), owner


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("call", rehearsal.CALLS)
def test_who_may_do_something_may_have_it_rehearsed(
    call: str, role: str, scene: Callable[[str], tuple[OrchestratorAPI, dict[str, int]]]
) -> None:
    api, slices = scene(role)
    allowed = REACHES[POLICY[call].split()[ROLES.index(role)]]
    about = permissions.RULES[call].about
    for kind, owner in OWNERS.items():
        if about == "oneself" and kind != "own":
            continue
        args, options = arguments(slices[kind], owner)[call]
        wish = dict(inspect.signature(getattr(OrchestratorAPI, call)).bind(api, *args, **options).arguments)
        for name in ("self", "username", "password", "new_password"):
            wish.pop(name, None)
        expected = kind not in allowed if about != "cluster" else not allowed
        answer = api.rehearse("me", call, wish)
        assert is_refused(answer) is expected, (kind, answer)
        assert answer[0] or answer[1].code != "internal", answer


def test_each_call_of_the_facade_has_a_line_of_the_policy_and_a_row_of_the_table() -> None:
    public = {name for part in OrchestratorAPI.__mro__[:-1] for name in vars(part) if not name.startswith("_")}
    assert public - NO_CALLS - PARTS == set(POLICY) == set(permissions.RULES)
    for name in POLICY:
        call = getattr(OrchestratorAPI, name)
        assert call.__code__.co_name == "answering", f"{name} is not guarded: mark it @_answers or @_changes"
        assert "username" in inspect.signature(call).parameters


def test_a_call_without_a_row_cannot_be_made() -> None:
    def a_new_call(self: object, username: str) -> None: ...
    def drift(self: object) -> None: ...

    for call in (a_new_call, drift):
        with pytest.raises(TypeError, match="needs a row"):
            answers(call)


def test_the_table_is_the_policy() -> None:
    """Also where a slip changes nothing yet: of what is one's own, and of what belongs to nobody."""
    for operation, rule in permissions.RULES.items():
        assert [rule.reach(role).name.lower() for role in ("student", "instructor", "admin")] == POLICY[
            operation
        ].split(), operation


def test_the_operator_may_do_what_belongs_to_no_user_and_nothing_else(
    scene: Callable[[str], tuple[OrchestratorAPI, dict[str, int]]],
) -> None:
    api, slices = scene("student")
    assert api.list_users(None)[0] and api.cluster_status()[0] and api.list_all_slices(None)[0]
    assert api.set_role(None, "sam", "instructor") == (True, "instructor")
    assert api.unfinished_operations() == (True, [])
    nobody: Any = None
    for answer in (
        api.get_slice(nobody, slices["own"]),
        api.list_slices(nobody),
        api.create_slice(nobody, "x"),
        api.console_target(nobody, slices["own"] + 1),
        api.set_password(nobody, PASSWORD),
    ):
        assert answer == (False, "User not found")


def test_after_the_login_nobody_acts_in_another_name(
    scene: Callable[[str], tuple[OrchestratorAPI, dict[str, int]]],
) -> None:
    api, slices = scene("student")
    api.session = Session("me")
    assert api.get_slice("me", slices["own"])[0]
    for answer in (
        api.get_slice("adam", slices["admin's"]),
        api.list_slices("sam"),
        api.set_password("adam", PASSWORD),
        api.cluster_status(username="adam"),
        api.list_users(None),  # who is not named is who logged in, not the operator
        api.cleanup(),
        api.set_role(None, "me", "admin"),
        api.state_rebuild(force=True),
    ):
        assert answer == (False, "Not authorized")
    assert api.unfinished_operations() == (True, []) and api.cluster_status()[0]


def test_who_still_has_the_first_password_can_only_change_it(
    scene: Callable[[str], tuple[OrchestratorAPI, dict[str, int]]],
) -> None:
    api, slices = scene("admin")
    assert api.reset_password(None, "me", PASSWORD)[0]
    api.session = Session("me")
    for answer in (api.get_slice("me", slices["own"]), api.list_users("me"), api.cleanup()):
        assert not answer[0] and answer[1].code == "password.first"
    assert api.set_password("me", "battery staple")[0]
    assert api.get_slice("me", slices["own"])[0]


def test_a_name_means_ones_own_vm_first_and_never_one_that_may_not_be_used(
    scene: Callable[[str], tuple[OrchestratorAPI, dict[str, int]]],
) -> None:
    api, slices = scene("instructor")
    with api.db.transaction() as data:
        for slice_id in slices.values():
            data["slices"][str(slice_id)]["vms"][0]["name"] = "web"
    assert api.console_target("me", "web")[1]["vm_id"] == slices["own"] + 1
    assert api.vnc_target("me", slices["student's"] + 1)[1]["vm_id"] == slices["student's"] + 1
    with api.db.transaction() as data:
        data["slices"].pop(str(slices["own"]))
    assert api.console_target("me", "web")[1]["vm_id"] == slices["student's"] + 1


def test_roles_of_earlier_files_and_of_none() -> None:
    assert permissions.role_of({"username": "admin"}) == "admin"
    assert permissions.role_of({"username": "ann"}) == "student"
    assert permissions.role_of({"username": "admin", "role": "student"}) == "student"
    assert permissions.role_of({"username": "ann", "role": "user"}) == "student"
    for word in ("root", "Admin", "", 1, ["admin"]):
        with pytest.raises(RefusedError, match="is no role"):
            permissions.role_of({"username": "admin", "role": word})


def test_slices_of_nobody_are_for_administrators() -> None:
    rule, gone = permissions.RULES["delete_slice"], None
    for role, expected in (("student", False), ("instructor", False), ("admin", True)):
        assert permissions.may(rule, {"username": "me", "role": role}, "gone", gone) is expected
