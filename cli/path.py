"""The way from one NIC to another, shown: its hops, where it breaks, and what a person can type on a host to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli import documents
from cli.documents import NotDone
from cli.screen import BAD, GOOD, STRONG, Screen

if TYPE_CHECKING:
    from cli.installation import Installation

WRONG, STALE = 1, 3  # exit statuses


def show_path(installation: Installation, start: str, end: str, screen: Screen, *, as_json: bool) -> int:
    """Look at the way on the hosts, and show it.

    Args:
        installation: where the records are.
        start: a NIC as `VM:INTERFACE`.
        end: another one, or `gateway` or `dhcp` of its wire.
        screen: where a person reads.
        as_json: write a document instead.

    Returns:
        The exit status: 0 the way is whole if it has to be, and else is not; 1 it is the other way round; 3 it will be
        whole by itself.

    Raises:
        NotDone: there is no such NIC, or the first host does not answer.
    """
    name, _, interface = start.rpartition(":")
    record, vm = installation.one_vm(name or start)
    there = end if ":" not in end else _end(installation, record, end)
    ok, found = installation.api.path(str(record["owner"]), f"{vm['vm_id']}:{interface}", there)
    if not ok:
        raise NotDone(found)
    wrong = _wrong(found)
    if as_json:
        documents.write(found, wrong=wrong)
    else:
        show_hops(screen, found)
    if wrong is None:
        return 0
    return STALE if wrong["code"] == _STALE else WRONG


def _end(installation: Installation, record: dict[str, Any], words: str) -> str:
    """The other NIC by its VM's id: of VMs with one name, that in the slice where the way begins.

    What is the name of none is left for the façade to refuse.

    Raises:
        NotDone: several VMs are called that.
    """
    name, _, interface = words.rpartition(":")
    near = [vm for vm in record["vms"] if vm["name"] == name]
    try:
        vm = near[0] if near else installation.one_vm(name)[1]
    except NotDone as error:
        if error.answer.code != "vm.unknown":
            raise
        return words
    return f"{vm['vm_id']}:{interface}"


_STALE = "path.stale"


def _wrong(found: dict[str, Any]) -> dict[str, Any] | None:
    broken, stale = found["broken"], found["stale"]
    if found["must_reach"] and broken is not None:
        return documents.error(_place(broken), code="path.broken")
    if found["must_reach"] and stale is not None:
        return documents.error(_place(stale), code=_STALE)
    if not found["must_reach"] and broken is None:
        text = f"{found['from']} must not reach {found['to']}, and nothing keeps it from it"
        return documents.error(text, code="path.open")
    return None


def _place(hop: dict[str, Any]) -> str:
    return f"{hop['name']} {hop['device']} on {hop['host']}: {hop['broken'] or hop['stale']}"


def show_hops(screen: Screen, found: dict[str, Any]) -> None:
    """The hops, and whether the way is as it should be."""
    for hop in found["hops"]:
        why = hop["broken"] or hop["stale"]
        mark = ("broken  " if hop["broken"] else "stale   ", BAD) if why else ("whole   ", GOOD)
        place = (f"{hop['name']} {hop['device']}".strip(), STRONG)
        screen.paragraph(mark, place, f" on {hop['host']}: {hop['found']}", indent=8)
        if why:
            screen.paragraph("        ", (why, BAD), indent=8)
        if hop["command"]:
            screen.command(hop["command"], indent=10)
    wrong, broken = _wrong(found), found["broken"]
    if wrong is not None:
        screen.paragraph((f"{wrong['message']}.", BAD))
    elif broken is None:
        screen.paragraph((f"The way from {found['from']} to {found['to']} is whole.", GOOD))
    else:
        screen.paragraph((f"{found['from']} must not reach {found['to']}, and does not.", GOOD))
