"""What would be done, shown host by host: `./cloud plan`, and `--dry-run` of the commands that change something."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli import documents
from cli.documents import NotDone
from cli.screen import BAD, FAINT, GOOD, STRONG, Piece, Screen
from cli.text import count
from cli.work import Work

DONE, FAILED, DIFFERENCES = 0, 1, 2  # exit statuses
MOST_RECORDS = 40  # lines of what changes in the records
LARGEST = 64 * 1024 * 1024  # bytes of a plan
MADE_BY = "./cloud plan SLICE -o FILE makes one; ./cloud topology plan FILE -o PLAN one of a topology file."
_SIGNS = {"add": ("+", GOOD), "remove": ("-", BAD), "change": ("~", STRONG)}


def show_plan(work: Work, acting: str, kind: str, slice_id: int, *, file: str = "", **about: Any) -> int:
    """Show what an operation would do, and keep it in a file where one is named.

    Args:
        work: the command.
        acting: who acts.
        kind: which operation.
        slice_id: of which slice.
        file: where the plan is kept; "" = nowhere.
        about: `vm_id`, or `link_id` and `switches`, as the façade has them.

    Returns:
        The exit status: 0 nothing, 2 something, 1 it would not go well: a host does not answer, or has something
        foreign in the way.

    Raises:
        NotDone: the operation would be refused.
    """
    found = work.done(work.api.plan(acting, slice_id, kind, **about))
    if file and wrong_with(found) is None:
        save(Path(file), found)
    status = end_plan(work, found)
    if file and status != FAILED and not work.as_json:
        work.screen.line(f"The plan is in {file}: ./cloud apply {file}")
    return status


def end_plan(work: Work, found: Mapping[str, Any]) -> int:
    """Show a plan of a slice, or write its document; the exit status."""
    wrong = wrong_with(found)
    if work.as_json:
        documents.write({"command": work.name, "dry_run": True, "plan": found}, wrong=wrong)
    else:
        show(work.screen, found)
        if wrong is not None:
            work.screen.complain(wrong["message"])
    return status_of(found)


def status_of(found: Mapping[str, Any]) -> int:
    """The exit status of a plan."""
    if wrong_with(found) is not None:
        return FAILED
    return DIFFERENCES if found["differences"] else DONE


def wrong_with(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Why it would not go well, as documents have an error: a host does not answer, or has something in the way."""
    for host in found["hosts"]:
        if host["error"]:
            return documents.error(host["error"], code="plan.incomplete")
        if host["foreign"]:
            text = f"{host['host']}: {', '.join(host['foreign'])} is there and is not ours; it would be refused"
            return documents.error(text, code="host.foreign")
    return None


def show(screen: Screen, found: Mapping[str, Any]) -> None:
    """A plan of a slice."""
    about = f"VM {found['vm_id']} of slice" if found["vm_id"] is not None else "slice"
    screen.line((f"{found['kind']} {about} {found['slice_id']} “{found['name']}”", STRONG))
    for one in found.get("operations", ()):
        screen.line((one["text"], FAINT))
    if "link" in found:
        _show_link(screen, found["link"])
    show_changes(screen, found)
    for vm in found["allocations"]["vms"]:
        where = ", ".join([vm["worker_ip"], f"VNC {vm['vnc_port']}", *vm["addresses"]])
        screen.line((f"VM {vm['vm_id']} {vm['name']}: {where}", FAINT))
    for vlan in found["allocations"]["vlans"]:
        screen.line((f"VLAN {vlan['vlan_id']} for link {vlan['link_id']}, {vlan['cidr']}", FAINT))
    _show_quota(screen, found["quota"])
    unknown = [host["host"] for host in found["hosts"] if host["error"]]
    if unknown:
        elsewhere = f" Elsewhere {count(found['differences'], 'action')}." if found["differences"] else ""
        screen.line((f"What would be done on {count(len(unknown), 'host')} is not known.{elsewhere}", BAD))
        screen.line("Nothing was done.")
    elif found["differences"]:
        screen.line(f"{count(found['differences'], 'action')}; nothing was done.")
    else:
        screen.line(("Nothing would be done: all is as it wants it.", GOOD))


def show_changes(screen: Screen, found: Mapping[str, Any]) -> None:
    """What would be done on each host, and what of the records changes."""
    for host in found["hosts"]:
        seen = (f"  {count(len(host['actions']), 'action')}", FAINT)
        screen.line((host["host"], STRONG), ("  could not be looked at", BAD) if host["error"] else seen)
        for action in host["actions"]:
            sign, style = _SIGNS[action["verb"]]
            screen.line(f"  {sign} ", (f"{action['kind']} {action['name']}", style))
    records = found.get("records", ())
    if records and not found["hosts"]:
        screen.line(("No host is asked: the records change.", FAINT))
    for one in records[:MOST_RECORDS]:
        screen.line(*_changed(one))
    if len(records) > MOST_RECORDS:
        screen.line((f"  and {len(records) - MOST_RECORDS} more; --json has all", FAINT))


def _changed(one: Mapping[str, Any]) -> tuple[Piece, ...]:
    before, after = one["before"], one["after"]
    if one["key"]:
        return "  ~ ", (f"{one['what']}: {one['key']} {_said(before)} -> {_said(after)}", STRONG)
    sign, style = _SIGNS["add" if before is None else "remove"]
    values = ", ".join(f"{key} {_said(value)}" for key, value in (after or before).items())
    return f"  {sign} ", (one["what"], style), (f"  {values}", FAINT)


def show_rehearsal(work: Work, call: str, wish: Mapping[str, Any], *, acting: str | None = None) -> int:
    """Show what a call of the façade would change; the exit status: 0 nothing, 2 something, 1 a host did not answer.

    Args:
        work: the command.
        call: its name.
        wish: its arguments.
        acting: who acts; None = the operator.

    Raises:
        NotDone: it would be refused.
    """
    return end_rehearsal(work.screen, work.name, work.done(work.api.rehearse(acting, call, wish)), as_json=work.as_json)


def end_rehearsal(screen: Screen, name: str, found: Mapping[str, Any], *, as_json: bool) -> int:
    """Show what was rehearsed, or write its document; the exit status.

    Args:
        screen: for people.
        name: of the command.
        found: as `rehearsal.rehearse` has it.
        as_json: whether a document is written.
    """
    wrong = wrong_with(found)
    if as_json:
        documents.write({"command": name, "dry_run": True, "plan": found}, wrong=wrong)
        return status_of(found)
    show_changes(screen, found)
    for note in found["notes"]:
        screen.line((note, FAINT))
    if found["quota"] is not None:
        _show_quota(screen, found["quota"])
    if wrong is not None:
        screen.complain(wrong["message"])
    elif found["differences"]:
        screen.line(f"{count(found['differences'], 'change')}; nothing was done.")
    else:
        screen.line(("Nothing would be changed: all is so already.", GOOD))
    return status_of(found)


def _show_link(screen: Screen, link: Mapping[str, Any]) -> None:
    before, after = link["before"], link["after"]
    if after is None:
        freed = f"VLAN {before['vlan_id']} and its interfaces are free again"
        screen.line("  - ", (f"link {before['link_id']}; {freed}", BAD))
        return
    for name in before:
        if before[name] != after[name]:
            screen.line(
                "  ~ ", (f"link {before['link_id']}: {name} {_said(before[name])} -> {_said(after[name])}", STRONG)
            )


def _said(value: Any) -> str:
    return (
        {True: "yes", False: "no", None: "none"}.get(value, str(value)) if not isinstance(value, list) else str(value)
    )


def _show_quota(screen: Screen, quota: Mapping[str, Any]) -> None:
    amounts = [
        f"{amount['used']:g} {kind}" + (f" of {amount['limit']:g}" if amount["limit"] != "unlimited" else "")
        for kind, amount in quota.items()
        if kind != "user"
    ]
    screen.line((f"Quota of {quota['user']}: {', '.join(amounts)}", FAINT))


def show_allocation(work: Work, acting: str, kind: str, wish: Mapping[str, Any], *, slice_id: int | None = None) -> int:
    """Show what a change of a design would be given; the exit status, 2.

    Raises:
        NotDone: it would be refused.
    """
    found = work.done(work.api.allocate(acting, kind, wish, slice_id=slice_id))
    if work.as_json:
        documents.write({"command": work.name, "dry_run": True, "plan": found})
        return DIFFERENCES
    for key, value in found["allocations"].items():
        if key != "interfaces":
            work.screen.line(f"{key}: {value}")
    for nic in found["allocations"].get("interfaces", ()):
        work.screen.line(f"  {nic['name']}: {nic['mac']}")
    _show_quota(work.screen, found["quota"])
    work.screen.line("Nothing was done.")
    return DIFFERENCES


# ---------------------------------------------------------------------------------------- files


def save(path: Path, found: Mapping[str, Any]) -> None:
    """Keep a plan in a file of its owner's, or leave the file as it was.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.new")
    text = json.dumps({"schema_version": documents.SCHEMA_VERSION, "plan": found}, indent=1) + "\n"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    draft.replace(path)


def load(path: Path) -> dict[str, Any]:
    """A plan of an operation on a slice, from a file.

    Raises:
        NotDone: the file cannot be read, or holds no such plan.
    """
    plan = plan_in(path)
    slice_id = plan.get("slice_id")
    if plan.get("kind") == "topology":
        text = f"{path} is a plan of a topology file. ./cloud topology apply --plan {path} applies it."
        raise NotDone(text, code="plan.file")
    if not isinstance(slice_id, int) or isinstance(slice_id, bool):
        raise NotDone(f"{path} is no plan. {MADE_BY}", code="plan.file")
    return plan


def plan_in(path: Path) -> dict[str, Any]:
    """What stands in a file as a plan, of whatever kind.

    Raises:
        NotDone: the file cannot be read, or holds no plan.
    """
    from cloudrepo import regular_file
    from cloudrepo.host import json_text

    try:
        held = json_text.loads(regular_file.read(path, LARGEST))
    except OSError as error:
        raise NotDone(f"The plan {path} cannot be read: {error.strerror or error}.", code="plan.file") from error
    except ValueError as error:
        raise NotDone(f"{path} is no plan: {error}.", code="plan.file") from error
    plan = held.get("plan") if isinstance(held, dict) else None
    if not isinstance(plan, dict):
        raise NotDone(f"{path} is no plan. {MADE_BY}", code="plan.file")
    return plan
