"""What stands around every call of the façade: who acts, whether they may, what is answered, logged and told."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from cloudrepo import permissions
from cloudrepo.call_events import NOBODY, OPERATOR, call_event
from cloudrepo.errors import CloudError, Message, RefusedError
from cloudrepo.events import EventLog
from control import authority

log = logging.getLogger("orchestrator_api")  # whose calls they are; documented lines of the log name it

P = ParamSpec("P")
T = TypeVar("T")


def answers(call: Callable[P, T]) -> Callable[P, tuple[bool, Any]]:
    """Turn a call that returns or raises into one that answers `(bool, payload)`, if the caller may make it."""
    return _guarded(call, leaves_event=False)


def changes(call: Callable[P, T]) -> Callable[P, tuple[bool, Any]]:
    """As `answers`, for a call that changes something or opens something: the event log has it too."""
    return _guarded(call, leaves_event=True)


def _guarded(call: Callable[P, T], *, leaves_event: bool) -> Callable[P, tuple[bool, Any]]:
    """What stands before and after each call: who acts, whether they may, what became of it."""
    signature, name = inspect.signature(call), call.__name__
    if name not in permissions.RULES or "username" not in signature.parameters:
        raise TypeError(f"{name} needs a row in cloudrepo/permissions.py and a parameter `username`")

    @functools.wraps(call)
    def answering(*args: P.args, **kwargs: P.kwargs) -> tuple[bool, Any]:
        bound = signature.bind(*args, **kwargs)
        self, owner = bound.arguments["self"], ""
        context, session = self.context, self.session

        def act() -> Any:
            nonlocal owner
            bound.arguments["username"] = session.acting(bound.arguments.get("username"))
            owner = authority.authorise(context, session, name, bound.arguments)
            return call(*bound.args, **bound.kwargs)

        outcome, payload = _outcome(call, act)
        told = bound.arguments
        if name == "login" and str(told["username"]) not in context.db.data["users"]:
            told = {**told, "username": NOBODY}  # what was typed as a name may be a password
        who = told.get("username") or OPERATOR
        if outcome == "done":
            log.info("%s by %s: done", name, who)
        else:
            log.warning("%s by %s %s: %s", name, who, outcome, payload)
        if leaves_event:
            events: EventLog = context.events
            if not owner and outcome == "done" and isinstance(payload, Mapping):  # of a VM, known once it is found
                owner = str(payload.get("owner") or "")
            more = {"owner": owner, "operator": session.operator}
            events.record(**call_event(name, told, payload, outcome, more))
        return outcome == "done", payload

    return answering


def _outcome(call: Callable[..., Any], act: Callable[[], Any]) -> tuple[str, Any]:
    """What became of a call (`done`, `refused` or `failed`), and its payload or message."""
    try:
        return "done", act()
    except RefusedError as error:
        return "refused", error.message()
    except CloudError as error:
        return "failed", error.message()
    except Exception:
        log.exception("%s failed", call.__name__)
        text = f"{call.__name__} failed unexpectedly. Please report it with the end of cloudrepo.log"
        return "failed", Message(text, code="internal")
