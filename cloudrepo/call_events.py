"""What the event log says of a call of the façade: the object it was about, and what may be told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPERATOR = "operator"  # who calls what needs no user: a shell as the account that owns the state
NOBODY = "nobody"  # who tried to log in under a name that no user has

#: Arguments and parts of an answer that may be told. A password never is: what is not here is left out.
_TOLD = (
    *("slice_name", "topology_type", "vm_name", "flavor_name", "data_interfaces_count", "internet_enabled", "image"),
    *("vm1_id", "vm1_interface", "vm2_id", "vm2_interface", "link_id", "vlan_id", "worker_ip"),
    *("spoofing", "bridging", "vlans", "dhcp"),
    *(
        "command",
        "status",
        "kind",
        "ended",
        "policy",
        "fix",
        "role",
        "quotas",
        "give_slices_to",
        "path",
        "format",
        "left",
    ),
)
REASON_LIMIT = 500
COMMAND_LIMIT = 200


def call_event(
    name: str, arguments: Mapping[str, Any], payload: Any, outcome: str, more: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The arguments of `EventLog.record`.

    Args:
        name: of the call.
        arguments: by parameter.
        payload: what it answered.
        outcome: `done`, `refused` or `failed`.
        more: `owner` of the object, told where that is not who acts; `operator`, the system account of whoever acts
            in a user's name.
    """
    more = more or {}
    answered = payload if isinstance(payload, Mapping) else {}
    told = {key: value for key, value in answered.items() if outcome == "done" and key != "role"}
    plan = arguments.get("plan")
    planned = {"kind": plan.get("kind")} if isinstance(plan, Mapping) else {}  # what is done, as of any operation
    known = {**told, **planned, **arguments}
    details = {key: known[key] for key in _TOLD if known.get(key) not in (None, "", {})}
    if known.get("command"):
        details["command"] = " ".join(map(str, known["command"]))[:COMMAND_LIMIT]
    if outcome != "done":
        details |= {"reason": str(payload)[:REASON_LIMIT], "code": getattr(payload, "code", "")}
    who = str(arguments.get("username") or OPERATOR)
    about = _about(known)
    if known.get("slice_id") is not None and not about.startswith("slice "):
        details["slice"] = known["slice_id"]
    details |= {key: value for key, value in more.items() if value and value != who and about != f"user {value}"}
    return {"what": name, "who": who, "about": about, "outcome": outcome, **details}


_OBJECTS = ("vm", "slice", "host", "image", "user")


def _about(known: Mapping[str, Any]) -> str:
    for kind in _OBJECTS:
        for key in (f"{kind}_id", kind):
            if known.get(key) not in (None, ""):
                return f"{kind} {known[key]}"
    return f"user {known['username']}" if known.get("username") else "cluster"
