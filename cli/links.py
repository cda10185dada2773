"""`./cloud link`: links of a slice and what they allow. An operator acts as the slice's owner."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.documents import NotDone
from cli.options import As, DryRun, Json, Slice
from cli.screen import GOOD
from cli.work import SliceWork
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
    links = work.view()["links"]
    work.show(links, none="It has no links.")
    return work.end({"links": links})


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
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Link two interfaces; those of machines that run are plugged in."""
    work = _Work(context, slice, user, as_json)
    (vm1, if1), (vm2, if2) = work.end_of(first), work.end_of(second)
    wishes: dict[str, Any] = {"spoofing": spoofing, "bridging": bridging, "vlans": vlans, "dhcp": dhcp}
    if dry_run:
        from cli.plans import show_allocation

        ends = {"vm1_id": vm1, "vm1_interface": if1, "vm2_id": vm2, "vm2_interface": if2}
        return show_allocation(work, work.acting, "add_link", ends | wishes, slice_id=work.slice_id)
    made = work.done(work.api.create_link(work.acting, work.slice_id, vm1, if1, vm2, if2, **wishes))
    link = next(one for one in work.view()["links"] if one["link_id"] == made["link_id"])
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
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Set what a link allows; the hosts of a running slice have it at once."""
    wishes: dict[str, Any] = {"spoofing": spoofing, "bridging": bridging, "vlans": vlans, "dhcp": dhcp}
    work = _Work(context, slice, user, as_json)
    if all(value is None for value in wishes.values()):
        raise typer.BadParameter(f"say what to set: {', '.join(f'--{name}' for name in NAMES)}")
    if dry_run:
        return work.plan("set_link", _number(link), wishes)
    changed = work.done(work.api.set_link(work.acting, work.slice_id, _number(link), **wishes))
    work.show([changed])
    return work.end({"link": changed})


@app.command()
def remove(
    context: typer.Context,
    slice: Slice,
    link: Number,
    user: As = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Take a link out of a slice; machines that run are unplugged."""
    work = _Work(context, slice, user, as_json)
    if dry_run:
        return work.plan("remove_link", _number(link), {})
    text = work.done(work.api.remove_link(work.acting, work.slice_id, _number(link)))
    work.ids(_number(link))
    work.screen.line((f"{text}.", GOOD))
    return work.end({"link_id": _number(link), "message": text})


def _number(words: str) -> Any:
    """A link's number; what is none is left for the façade to refuse."""
    return int(words) if words.isdecimal() else words


class _Work(SliceWork):
    """A command on the links of one slice."""

    def __init__(self, context: typer.Context, words: str, user: str, as_json: bool) -> None:
        super().__init__(context, "link", words, user, as_json=as_json)

    def end_of(self, words: str) -> tuple[int, str]:
        """The VM and interface that `VM:INTERFACE` means.

        Raises:
            NotDone: there is no such VM in the slice.
        """
        from cli.screens.context import find_vm

        name, _, interface = words.rpartition(":")
        vms = self.view()["vms"]
        vm = find_vm(vms, name)
        if vm is None:
            known = ", ".join(f"{one['vm_id']} ({one['name']})" for one in vms) or "none"
            text = f"{words} is no end of a link: slice {self.slice_id} has no such VM. Its VMs are {known}."
            raise NotDone(f"{text} Write VM:INTERFACE.", code="link.end")
        return int(vm["vm_id"]), interface

    def plan(self, call: str, link: Any, switches: dict[str, Any]) -> int:
        """Show what a change of a link would do; the exit status."""
        from cli.plans import show_plan

        return show_plan(self, self.acting, call, self.slice_id, link_id=link, switches=switches)

    def show(self, links: list[dict[str, Any]], *, none: str = "") -> None:
        """The links as a table."""
        from cli.screens.links import row

        view = self.view()
        headings = ("Link", "Ends", "VLAN", *NAMES)
        self.table(headings, [row(view, link) for link in links], [link["link_id"] for link in links], none=none)
