"""Who may do what: one table of operation, role, and whose the object is. Pure; the façade asks it before every call.

To add an operation, add its row: the façade cannot be imported with a call that has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Literal

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.validation import shown

Role = Literal["admin", "instructor", "student"]
ROLES: tuple[Role, ...] = ("admin", "instructor", "student")
#: Words of state files that were written before there were roles.
EARLIER: dict[str, Role] = {"user": "student"}


class Reach(IntEnum):
    """Whose objects a role may use for an operation; each includes those before it."""

    NONE = 0
    OWN = 1
    STUDENTS = 2
    ALL = 3


NONE, OWN, STUDENTS, ALL = Reach


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        about: what the operation names, and so whose the object is: a `slice` or `vm` has an owner, an `image` is
            whose who added it, a `user` is his own; `oneself` = what belongs to whoever calls; `cluster` belongs to
            nobody, so that only `ALL` allows it; `anybody` = before there is a user.
        student: how far students reach.
        instructor: how far instructors reach.
        admin: how far administrators reach.
    """

    about: Literal["slice", "vm", "image", "user", "oneself", "cluster", "anybody"]
    student: Reach
    instructor: Reach
    admin: Reach

    def reach(self, role: Role) -> Reach:
        """How far a role reaches."""
        return {"student": self.student, "instructor": self.instructor, "admin": self.admin}[role]


RULES: dict[str, Rule] = {
    # operation                        about       student instructor admin
    "login": Rule("anybody", OWN, OWN, OWN),
    "set_password": Rule("oneself", OWN, OWN, OWN),
    # designing: what a slice is, its owner says
    "create_slice": Rule("oneself", OWN, OWN, OWN),
    "add_vm_to_slice": Rule("slice", OWN, OWN, ALL),
    "create_link": Rule("slice", OWN, OWN, ALL),
    "set_ends": Rule("slice", OWN, OWN, ALL),
    "remove_vm": Rule("slice", OWN, OWN, ALL),
    "remove_link": Rule("slice", OWN, OWN, ALL),
    "set_link": Rule("slice", OWN, STUDENTS, ALL),  # which switches a student may set is asked besides
    "set_restart_policy": Rule("slice", OWN, OWN, ALL),
    # running: an instructor may take a student's machines off the cluster, and put them back on
    "deploy_slice": Rule("slice", OWN, OWN, ALL),
    "delete_slice": Rule("slice", OWN, STUDENTS, ALL),
    "start_slice": Rule("slice", OWN, STUDENTS, ALL),
    "stop_slice": Rule("slice", OWN, STUDENTS, ALL),
    "start_vm": Rule("slice", OWN, STUDENTS, ALL),
    "stop_vm": Rule("slice", OWN, STUDENTS, ALL),
    "hand_over": Rule("slice", OWN, OWN, ALL),  # as the operation that is handed over, where that is known
    "resume": Rule("slice", OWN, STUDENTS, ALL),
    "rollback": Rule("slice", OWN, STUDENTS, ALL),
    # as the operation that is planned; see `rule_for`
    "plan": Rule("slice", OWN, OWN, ALL),
    "allocate": Rule("slice", OWN, OWN, ALL),
    "apply_plan": Rule("slice", OWN, OWN, ALL),
    "rehearse": Rule("cluster", NONE, NONE, ALL),  # as the call that is rehearsed; see `meant`
    # looking
    "list_slices": Rule("oneself", OWN, OWN, OWN),
    "list_events": Rule("oneself", OWN, OWN, OWN),  # of others' objects who may list their slices
    "list_all_slices": Rule("cluster", NONE, ALL, ALL),
    "get_slice": Rule("slice", OWN, ALL, ALL),
    "unfinished_operations": Rule("oneself", OWN, OWN, OWN),  # lists what the same person may resume
    "console_target": Rule("vm", OWN, STUDENTS, ALL),
    "vnc_target": Rule("vm", OWN, STUDENTS, ALL),
    "exec_in_vm": Rule("vm", OWN, STUDENTS, ALL),
    "cluster_status": Rule("cluster", ALL, ALL, ALL),
    "drift": Rule("cluster", NONE, ALL, ALL),
    "verify": Rule("cluster", NONE, ALL, ALL),
    "doctor": Rule("cluster", NONE, ALL, ALL),
    "path": Rule("vm", OWN, ALL, ALL),
    # images; that students may add some is a setting
    "add_image": Rule("oneself", OWN, OWN, OWN),
    "list_images": Rule("cluster", ALL, ALL, ALL),
    "remove_image": Rule("image", OWN, STUDENTS, ALL),
    # the installation as a whole
    "doctor_fix": Rule("cluster", NONE, NONE, ALL),
    "drift_fix": Rule("cluster", NONE, NONE, ALL),
    "state_rebuild": Rule("cluster", NONE, NONE, ALL),
    "harden_worker": Rule("cluster", NONE, NONE, ALL),
    "bootstrap_worker": Rule("cluster", NONE, NONE, ALL),
    "drain_worker": Rule("cluster", NONE, NONE, ALL),
    "remove_worker": Rule("cluster", NONE, NONE, ALL),
    "cleanup_plan": Rule("cluster", NONE, NONE, ALL),
    "cleanup": Rule("cluster", NONE, NONE, ALL),
    # people
    "list_users": Rule("cluster", NONE, ALL, ALL),
    "add_user": Rule("cluster", NONE, NONE, ALL),
    "remove_user": Rule("user", NONE, NONE, ALL),
    "reset_password": Rule("user", NONE, NONE, ALL),
    "set_role": Rule("user", NONE, NONE, ALL),
    "set_quota": Rule("user", NONE, NONE, ALL),
}

#: What the operator, at a shell of the account that owns the state, may do without being a user.
OPERATORS_OWN = ("cluster", "image", "user")


def role_of(user: Mapping[str, Any]) -> Role:
    """A user's role. Without a word about it only the documented `admin` is an administrator.

    Raises:
        RefusedError: the record names another role.
    """
    word = user.get("role")
    if word is None:
        return "admin" if user["username"] == "admin" else "student"
    return role_named(word)


def role_named(word: Any) -> Role:
    """The role that a word means.

    Raises:
        RefusedError: there is none.
    """
    known = EARLIER.get(word, word) if isinstance(word, str) else word
    for role in ROLES:
        if known == role:
            return role
    raise RefusedError(f"{shown(word)} is no role", evidence=f"there are {', '.join(ROLES)}", code="user.role")


def is_admin(user: Mapping[str, Any]) -> bool:
    """Whether a user is an administrator."""
    return role_of(user) == "admin"


#: Whose right it takes to plan something, by what is planned, where that is not the name of the call itself.
_PLANNED = {"add_vm": "add_vm_to_slice", "add_link": "create_link"}
_OF_OTHERS = ("hand_over", "plan", "allocate", "apply_plan")


def rule_for(operation: str, arguments: Mapping[str, Any]) -> Rule:
    """The row of an operation; to hand something over, or to plan it, one needs the right to do it."""
    if operation not in _OF_OTHERS:
        return RULES[operation]
    plan = arguments.get("plan")
    kind = str(plan.get("kind") if isinstance(plan, Mapping) else arguments.get("kind"))
    named = _PLANNED.get(kind, kind)
    return RULES.get(f"{named}_slice") or RULES.get(named) or RULES[operation]


def meant(operation: str, arguments: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The operation whose right it takes, and its arguments: of a rehearsal, those of the call that is rehearsed."""
    call, wish = arguments.get("call"), arguments.get("wish")
    if operation != "rehearse" or call not in RULES or not isinstance(wish, Mapping):
        return operation, arguments
    return str(call), {**wish, "username": arguments.get("username")}


def may(rule: Rule, actor: Mapping[str, Any], owner: str, owner_record: Mapping[str, Any] | None) -> bool:
    """Whether a user may do something to an object.

    Args:
        rule: the operation's.
        actor: the user's record.
        owner: the object's owner; empty for an object that belongs to nobody.
        owner_record: the owner's record; None when the owner is no user (any more).
    """
    reach = rule.reach(role_of(actor))
    if owner and owner == actor["username"]:
        return reach >= OWN
    if owner_record is not None and role_of(owner_record) == "student":
        return reach >= STUDENTS
    return reach >= ALL
