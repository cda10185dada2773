"""Whether a call may be made: the acting user, the object it names and its owner, held against the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo import permissions
from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import all_slices
from control.context import Context, Record, known_slice, user_record


@dataclass(frozen=True)
class Session:
    """Who is behind the calls of a façade.

    Attributes:
        username: the person who logged in; a call in any other name is refused. Empty = names are believed, as
            documented: a program, or the operator's commands.
        operator: the system account of an operator at a shell, for the event log.
    """

    username: str = ""
    operator: str = ""

    def acting(self, named: Any) -> Any:
        """Who acts: the name that was given, or the person who logged in.

        Raises:
            RefusedError: `Not authorized`, somebody else's name.
        """
        if self.username and named not in (None, self.username):
            raise RefusedError("Not authorized", code="session.user")
        return self.username or named


def authorise(context: Context, session: Session, operation: str, arguments: Mapping[str, Any]) -> str:
    """Refuse a call that the acting user may not make: user, object, owner, in this order.

    Args:
        context: the installation.
        session: who is behind the call.
        operation: the name of the call.
        arguments: by parameter; `username` is who acts, None the operator where the call belongs to no user.

    Returns:
        The object's owner, or an empty text where it has none.

    Raises:
        RefusedError: `User not found`, `Slice not found`, `Not authorized`, or a first password is to be changed.
    """
    operation, arguments = permissions.meant(operation, arguments)
    rule = permissions.rule_for(operation, arguments)
    username = arguments.get("username")
    if rule.about == "anybody":
        return ""
    context.db.refresh()
    with context.db.lock:
        data = context.db.data
        if username is None and _is_operators(rule, operation):
            return _owner(context, rule, arguments)
        actor = user_record(data, username)
        if session.username and operation != "set_password":
            _require_own_password(actor)
        if rule.about == "slice":
            known_slice(data, username, arguments["slice_id"])
        owner = _owner(context, rule, arguments)
        # of a VM by name nothing is told yet: it is looked for among those that may be used
        if rule.about != "vm" and not permissions.may(rule, actor, owner, data["users"].get(owner)):
            raise RefusedError("Not authorized", code="slice.owner" if rule.about == "slice" else "user.role")
        return owner


def _require_own_password(actor: Record) -> None:
    from cloudrepo import accounts  # of people who log in; a shell needs no passwords

    if accounts.must_change(actor):
        raise RefusedError(
            f"{actor['username']} still has the first password",
            remedy="Choose one of your own; it is asked for after the login",
            code="password.first",
        )


def _is_operators(rule: permissions.Rule, operation: str) -> bool:
    return rule.about in permissions.OPERATORS_OWN or operation in ("unfinished_operations", "add_image")


def _owner(context: Context, rule: permissions.Rule, arguments: Mapping[str, Any]) -> str:
    data = context.db.data
    if rule.about == "slice":
        return str(known_slice(data, arguments["username"], arguments["slice_id"])["owner"])
    if rule.about == "image":
        image = context.library.find(arguments["image"])
        return image.added_by if image is not None else str(arguments["username"] or "")
    if rule.about == "user":
        return str(user_record(data, arguments["user"])["username"])
    return str(arguments["username"]) if rule.about == "oneself" and arguments.get("username") else ""


def usable_slices(context: Context, operation: str, username: str) -> list[Record]:
    """Copies of the slices on which a user may do this.

    Raises:
        RefusedError: `User not found`.
    """
    rule = permissions.RULES[operation]
    context.db.refresh()
    with context.db.lock:
        data = context.db.data
        actor = user_record(data, username)
        owners = {str(record["owner"]) for record in all_slices(data)}
        usable = {owner for owner in owners if permissions.may(rule, actor, owner, data["users"].get(owner))}
        return [record for record in context.db.list_slices() if record["owner"] in usable]
