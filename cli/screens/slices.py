"""Slices: create, view, delete."""

from __future__ import annotations

from collections.abc import Sequence

from cli.screen import BAD, FAINT, GOOD, STRONG, Piece, Screen
from cli.screens.context import Context, Record, summary
from cli.text import count
from cloudrepo.errors import RefusedError
from cloudrepo.link_ends import ends_of
from cloudrepo.link_switches import said
from cloudrepo.validation import slice_name

RULE = "=" * 70
INTERNET_VLAN = 400


def create_slice_menu(context: Context) -> None:
    """Menu entry 2."""
    name = context.ask.text("Slice name", check=why_no_slice_name)
    ok, answer = context.api.create_slice(context.username, name)
    if not ok:
        context.screen.complain(answer)
        return
    context.last_slice = int(answer["slice_id"])
    context.screen.line((f"Slice created! ID: {answer['slice_id']}", GOOD))


def why_no_slice_name(typed: str) -> str:
    """Why a slice cannot be called so; an empty text when it can."""
    try:
        slice_name(typed)
    except RefusedError as error:
        return str(error)
    return ""


def view_slices_menu(context: Context) -> None:
    """Menu entry 5."""
    slices = context.slices()
    if not slices:
        context.screen.line("You have no slices yet. 2 makes one, 9 a whole lab.")
    for record in slices:
        show_slice(context.screen, record)
    if context.role != "student":
        _list_others(context)


def _list_others(context: Context) -> None:
    """The slices of everybody else, for those who may act on them by their ids."""
    ok, answer = context.api.list_all_slices(context.username)
    if not ok:
        context.screen.complain(answer)
        return
    others = [record for record in answer if record["owner"] != context.username]
    if others:
        context.screen.line(RULE)
        context.screen.line("Slices of others:")
    for record in others:
        context.screen.line(f"  {record['owner']}: {summary(record)}")


def delete_slice_menu(context: Context) -> None:
    """Menu entry 7; asks before it begins, since disks are lost."""
    from cli.operation import run_operation

    record = context.ask_slice_record()
    disks = f" and {count(len(record['vms']), 'disk')}" if record["vms"] else ""
    if not context.ask.yes(f"Delete slice {summary(record)}{disks}", default=False):
        context.screen.line("Nothing was deleted.")
        return
    run_operation(context, "delete", int(record["slice_id"]))


def show_slice(screen: Screen, record: Record, *, names_of: Sequence[Record] | None = None) -> None:
    """A slice as the documented view has it: VMs, and under each its interfaces.

    Args:
        screen: where lines go.
        record: the slice as the façade shows it; of its VMs and links those that are to be shown.
        names_of: all its VMs, where these are not all.
    """
    screen.line(RULE)
    vms, links = record["vms"], record["links"]
    pool = f"VLAN pool: {record['vlan_pool_start']}-{record['vlan_pool_end']}"
    screen.line(f"Slice {record['slice_id']} [{record['status']}]: {len(vms)} VMs, {len(links)} Links, {pool}")
    if record.get("name"):
        screen.line((f"  {record['name']}", FAINT))
    names = {int(vm["vm_id"]): str(vm["name"]) for vm in names_of or vms}
    for vm in vms:
        facts = [f"VNC: {vm['vnc_port']}", f"Worker: {vm['worker_ip']}", f"Disk: {_gb(vm.get('disk_gb'))}"]
        if vm.get("status") not in (None, record["status"]):
            facts.append(str(vm["status"]))
        if vm.get("observed") not in (None, "off", vm.get("status")):
            facts.append(f"seen: {vm['observed']}")
        screen.line(f"  └─ VM {vm['vm_id']}: {vm['name']} ({', '.join(facts)})")
        why = vm.get("error") or (vm.get("observed_reason") if vm.get("observed") not in (None, "running") else "")
        if why:
            screen.line((f"       {why}", BAD))
        for interface in vm["interfaces"]:
            screen.line(*_interface(int(vm["vm_id"]), interface, links, names))
    if record.get("error"):
        screen.line(("  last error: ", FAINT), (str(record["error"]), BAD))
    if record.get("pending"):
        screen.line(("  waits for: ", FAINT), ", ".join(record["pending"]))
    _draw(screen, record)


def _draw(screen: Screen, record: Record) -> None:
    """The picture under the words; what its lines are was said above."""
    from cloudrepo.pictures import terminal
    from cloudrepo.pictures.graph import of_slice

    graph = of_slice(record)
    lines = terminal.draw(graph, screen.console.width, unicode=screen.unicode, legend=False)
    if len(graph.nodes) > 1 and lines:
        screen.line()
        for line in lines:
            screen.line(line)


def _interface(vm_id: int, interface: Record, links: list[Record], names: dict[int, str]) -> list[Piece]:
    """One interface: MAC, VLAN if any, link status, address."""
    pieces: list[Piece] = [f"       {interface['name']}: {interface['mac']}"]
    if interface.get("vlan_id"):
        pieces.append(f", VLAN {interface['vlan_id']}")
    link = next((link for link in links if link["link_id"] == interface.get("link_id")), None)
    if link is not None:
        others = [end for end in ends_of(link) if end != (vm_id, interface["name"])]
        peers = ", ".join(f"{names.get(peer, f'VM {peer}')} {name}" for peer, name in others)
        pieces.append(f", link {link['link_id']} to {peers}")
        if unusual := said(link):
            pieces.append((f" ({unusual})", STRONG))
    elif interface.get("vlan_id") == INTERNET_VLAN:
        pieces.append(", internet")
    else:
        pieces.append((", not linked", FAINT))
    address = (interface.get("ip_config") or {}).get("ip")
    if address:
        pieces.append(f", {address}")
    return pieces


def _gb(size: object) -> str:
    return f"{size:g} GB" if isinstance(size, int | float) else "?"
