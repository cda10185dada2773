"""What links allow: shown, and set."""

from __future__ import annotations

from cli.ask import Back
from cli.operation import run_work
from cli.screen import FAINT, GOOD
from cli.screens.context import MOST_LISTED, Context, Record
from cloudrepo.link_ends import ends_of
from cloudrepo.link_switches import ALLOWED, DHCP, FORBIDDEN, NAMES, said, switches_of


def link_switches_menu(context: Context) -> None:
    """Menu entry 14: slice, link, switch, value."""
    record = context.ask_slice_record()
    link = ask_link(context, record)
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
    slice_id, link_id = int(record["slice_id"]), int(link["link_id"])
    run_work(
        context,
        f"switch {name} of link {link_id} of slice {slice_id}",
        lambda display: context.api.set_link(context.username, slice_id, link_id, progress=display, **wish),
        lambda answer: context.screen.line((f"Link {described(record, answer)}", GOOD)),
    )


def ask_link(context: Context, record: Record) -> Record:
    """Ask for a link of a slice, after listing them.

    Raises:
        Back: there is none.
    """
    links: list[Record] = record["links"]
    if not links:
        context.screen.line("This slice has no links yet. 4 makes one.")
        raise Back
    for link in links[:MOST_LISTED]:
        context.screen.line(f"  {described(record, link)}")
    known = {str(link["link_id"]): link for link in links}
    answer = context.ask.text(
        "Link ID",
        default=next(iter(known)) if len(known) == 1 else "",
        options=[(number, described(record, link).partition(": ")[2]) for number, link in known.items()],
        check=lambda typed: "" if typed in known else f"There is no link {typed}; there is {', '.join(known)}.",
    )
    return known[answer]


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
