"""What a person should know of a slice that came up, beside that it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo import rules
from cloudrepo.errors import Message
from control.context import Context
from control.operation import Operation


def good_to_know(context: Context, operation: Operation, text: str) -> Message:
    """The answer of an operation that brought a slice up.

    Returns:
        The text; in its details by worker address `emulated` (a list), `images` (a worker's own image in place of the
        manager's) and `open` (why a bridge cannot be closed); in its hint the same in sentences.
    """
    record = context.db.get_slice(operation.intent.slice_id) or {"vms": []}
    workers = sorted({vm["worker_ip"] for vm in record["vms"]})
    emulated = [ip for ip in workers if context.site.accelerator_of(ip) == "tcg"]
    borrowed = {vm["worker_ip"]: vm["image_source"] for vm in record["vms"] if vm.get("image_source")}
    open_ = _open_bridges(record, operation)
    notes = [f"Emulated, since KVM does not work there: {', '.join(emulated)}."] if emulated else []
    notes += [f"{ip} uses its own {path}, since the manager has no such image." for ip, path in borrowed.items()]
    notes += [
        f"The bridge of {ip} is not closed, since {why}: after a restart of ovs-vswitchd guests there reach one "
        "another until the monitor's next look."
        for ip, why in open_.items()
    ]
    details = {"emulated": emulated, "images": borrowed, "open": open_}
    return Message(text, code="done", details=details, hint=" ".join(notes))


def _open_bridges(record: Mapping[str, Any], operation: Operation) -> dict[str, str]:
    """By host, why it cannot be closed; none of a slice that has nothing on a bridge."""
    if not any(one["vlan_id"] is not None for vm in record["vms"] for one in vm["interfaces"]):
        return {}
    reasons = {ip: rules.why_open(state.facts) for ip, state in operation.states.items()}
    return {ip: why for ip, why in reasons.items() if why}
