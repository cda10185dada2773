"""`./cloud link`: links of a slice and what they allow. An operator acts as the slice's owner."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli import documents
from cli.documents import NotDone
from cli.installation import Installation
from cli.screen import GOOD, Screen
from cli.slice_commands import As, Json, Slice
from cloudrepo.link_switches import NAMES

app = typer.Typer(help="Links between VMs, and what they allow.", no_args_is_help=True)

End = Annotated[str, typer.Argument(metavar="VM:INTERFACE", help="One end: a VM's id or name, and its interface.")]
Number = Annotated[str, typer.Argument(metavar="LINK", help="Its number, as `./cloud link list` shows it.")]
_SWITCH = "allowed or forbidden"
Spoofing = Annotated[
    str | None, typer.Option(metavar="WORD", help=f"Claiming others' addresses: {_SWITCH}.", show_default=False)
]
Bridging = Annotated[str | None, typer.Option(metavar="WORD", help=f"Other MACs, and bridges' own frames: {_SWITCH}.")]
Vlans = Annotated[str | None, typer.Option(metavar="WORD", help=f"The guests' own VLAN tags: {_SWITCH}.")]
Dhcp = Annotated[bool | None, typer.Option("--dhcp/--no-dhcp", help="A DHCP server, or a plain wire.")]


@app.command("list")
def list_links(context: typer.Context, slice: Slice, user: As = "", as_json: Json = False) -> int:
    """Show the links of a slice with their switches."""
    work = _Work(context, slice, user, as_json)
    work.show(work.view["links"])
    return work.end({"links": work.view["links"]})


@app.command()
def add(
    context: typer.Context,
    slice: Slice,
    first: End,
    second: End,
    spoofing: Spoofing = None,
    bridging: Bridging = None,
    vlans: Vlans = None,
    dhcp: Dhcp = None,
    user: As = "",
    as_json: Json = False,
) -> int:
    """Link two interfaces of a slice in design."""
    work = _Work(context, slice, user, as_json)
    (vm1, if1), (vm2, if2) = work.end_of(first), work.end_of(second)
    wishes: dict[str, Any] = {"spoofing": spoofing, "bridging": bridging, "vlans": vlans, "dhcp": dhcp}
    made = work.done(work.api.create_link(work.acting, work.slice_id, vm1, if1, vm2, if2, **wishes))
    work.look()
    link = next(one for one in work.view["links"] if one["link_id"] == made["link_id"])
    work.show([link])
    return work.end({"link": link})


@app.command("set")
def set_link(
    context: typer.Context,
    slice: Slice,
    link: Number,
    spoofing: Spoofing = None,
    bridging: Bridging = None,
    vlans: Vlans = None,
    dhcp: Dhcp = None,
    user: As = "",
    as_json: Json = False,
) -> int:
    """Set what a link allows; the hosts of a running slice have it at once."""
    wishes: dict[str, Any] = {"spoofing": spoofing, "bridging": bridging, "vlans": vlans, "dhcp": dhcp}
    work = _Work(context, slice, user, as_json)
    if all(value is None for value in wishes.values()):
        raise typer.BadParameter(f"say what to set: {', '.join(f'--{name}' for name in NAMES)}")
    changed = work.done(work.api.set_link(work.acting, work.slice_id, _number(link), **wishes))
    work.show([changed])
    return work.end({"link": changed})


@app.command()
def remove(context: typer.Context, slice: Slice, link: Number, user: As = "", as_json: Json = False) -> int:
    """Take a link out of a slice in design."""
    work = _Work(context, slice, user, as_json)
    text = work.done(work.api.remove_link(work.acting, work.slice_id, _number(link)))
    work.screen.line((f"{text}.", GOOD))
    return work.end({"link_id": _number(link), "message": text})


def _number(words: str) -> Any:
    """A link's number; what is none is left for the façade to refuse."""
    return int(words) if words.isdecimal() else words


class _Work:
    """One command under way: its slice, who acts, and the document at the end."""

    def __init__(self, context: typer.Context, words: str, user: str, as_json: bool) -> None:
        from cli.recovery import remind

        installation = Installation.open(context.find_root().obj)
        remind(installation)
        record = installation.one_slice(words)
        self.api = installation.api
        self.as_json = as_json
        self.screen = Screen(sys.stderr if as_json else None)
        self.slice_id = int(record["slice_id"])
        self.acting = user or str(record["owner"])
        self.view: dict[str, Any] = {}
        self.look()

    def look(self) -> None:
        """Read the slice as the façade shows it."""
        self.view = self.done(self.api.get_slice(self.acting, self.slice_id))

    def done(self, answer: tuple[bool, Any]) -> Any:
        """The payload of a call.

        Raises:
            NotDone: it was refused or failed.
        """
        ok, payload = answer
        if not ok:
            raise NotDone(payload)
        return payload

    def end_of(self, words: str) -> tuple[int, str]:
        """The VM and interface that `VM:INTERFACE` means.

        Raises:
            NotDone: there is no such VM in the slice.
        """
        from cli.screens.vms import find_vm

        name, _, interface = words.rpartition(":")
        vm = find_vm(self.view["vms"], name)
        if vm is None:
            known = ", ".join(f"{one['vm_id']} ({one['name']})" for one in self.view["vms"]) or "none"
            text = f"{words} is no end of a link: slice {self.slice_id} has no such VM. Its VMs are {known}."
            raise NotDone(f"{text} Write VM:INTERFACE.", code="link.end")
        return int(vm["vm_id"]), interface

    def show(self, links: list[dict[str, Any]]) -> None:
        """The links as a table."""
        from cli.screens.links import row

        if not links:
            self.screen.line("It has no links.")
            return
        self.screen.table(("Link", "Ends", "VLAN", *NAMES), [row(self.view, link) for link in links])

    def end(self, document: dict[str, Any]) -> int:
        """Write the document where one is wanted; the exit status."""
        if self.as_json:
            documents.write({"command": "link", "slice_id": self.slice_id, **document})
        return 0
