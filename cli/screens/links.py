"""What links allow: shown, and set."""

from __future__ import annotations

from cli.screen import FAINT, GOOD
from cli.screens.context import Context, Record
from cloudrepo.link_ends import ends_of
from cloudrepo.link_switches import ALLOWED, DHCP, FORBIDDEN, NAMES, said, switches_of


def link_switches_menu(context: Context) -> None:
    """Menu entry 14: slice, link, switch, value."""
    slice_id = context.ask_slice()
    record = context.slice(slice_id)
    if record is None:
        return
    links: list[Record] = record["links"]
    if not links:
        context.screen.line("This slice has no links yet. 4 makes one.")
        return
    for link in links:
        context.screen.line(f"  {described(record, link)}")
    only = int(links[0]["link_id"]) if len(links) == 1 else None
    link_id = context.ask.number("Link ID", default=only)
    for number, name in enumerate(NAMES, 1):
        context.screen.line(f"  {number}. {name} ", (f"({MEANINGS[name]})", FAINT))
    name = NAMES[context.ask.choice("Switch", NAMES)]
    value: str | bool
    if name == DHCP:
        value = context.ask.yes("DHCP server")
    else:
        values = (ALLOWED, FORBIDDEN)
        value = values[context.ask.choice(f"1 {ALLOWED}, 2 {FORBIDDEN}", values)]
    wish: Record = {name: value}
    ok, answer = context.api.set_link(context.username, slice_id, link_id, **wish)
    if not ok:
        context.screen.complain(answer)
        return
    context.screen.line((f"Link {described(record, answer)}", GOOD))


MEANINGS = {
    "spoofing": "claim others' addresses, for ARP attack labs",
    "bridging": "frames from any MAC, and spanning tree",
    "vlans": "the guests' own tags",
    DHCP: "a DHCP server; without one it is a plain wire",
}


def described(record: Record, link: Record) -> str:
    """A link with its ends and all its switches, on one line."""
    names = {int(vm["vm_id"]): str(vm["name"]) for vm in record["vms"]}
    ends = [f"{names.get(vm_id, vm_id)} {interface}" for vm_id, interface in ends_of(link)]
    return f"{link['link_id']}: {' to '.join(ends)}, VLAN {link['vlan_id']} ({said(link) or 'as usual'})"


def row(record: Record, link: Record) -> list[str]:
    """A link as a row: number, ends, VLAN, then each switch."""
    values = switches_of(link)
    words = [str(values[name]) if name != DHCP else ("yes" if values[name] else "no") for name in NAMES]
    number, _, rest = described(record, link).partition(": ")
    return [number, rest.rpartition(", VLAN ")[0], str(link["vlan_id"]), *words]
