"""`./cloud vm`: the machines of slices. An operator acts as the owner of the slice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.first_boot import wish_of
from cli.options import As, DryRun, Json, Slice, SliceOrAll, Vm
from cli.screen import BAD, GOOD, Piece
from cli.work import SliceWork, Work

app = typer.Typer(help="Virtual machines of slices.", no_args_is_help=True)

NAME = "vm"


@app.command()
def add(
    context: typer.Context,
    slice: Slice,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called; also its host name.")],
    flavor: Annotated[str, typer.Option("--flavor", "-f", metavar="FLAVOR", help="Its size.")] = "cirros",
    interfaces: Annotated[int, typer.Option("--interfaces", "-i", metavar="N", help="Data interfaces, from eth1.")] = 1,
    internet: Annotated[bool, typer.Option("--internet/--no-internet", help="Whether eth0 leads out.")] = False,
    image: Annotated[str, typer.Option(metavar="IMAGE", help="An added image instead of the flavor's.")] = "",
    guest_user: Annotated[
        list[str] | None, typer.Option("--guest-user", metavar="NAME", help="An account that its first boot makes.")
    ] = None,
    ssh_key: Annotated[
        list[Path] | None, typer.Option("--ssh-key", metavar="FILE", help="Public keys that are let in.")
    ] = None,
    start_script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What its guest runs at each start; see docs/first-boot.md.")
    ] = None,
    cloud_init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A cloud-init document of one's own for its first boot.")
    ] = None,
    user: As = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Add a VM to a slice in design: its disk is made on the next worker with room."""
    work = SliceWork(context, NAME, slice, user, as_json=as_json)
    told = wish_of(guest_user, ssh_key, start_script, cloud_init)
    if dry_run:
        from cli.plans import show_allocation

        wish = {"vm_name": name, "flavor_name": flavor, "data_interfaces_count": interfaces}
        wish |= {"internet_enabled": internet, "image": image, "first_boot": told}
        return show_allocation(work, work.acting, "add_vm", wish, slice_id=work.slice_id)
    made = work.done(
        work.api.add_vm_to_slice(
            work.acting, work.slice_id, name, flavor, interfaces, internet, image=image, first_boot=told
        )
    )
    vm = next(one for one in work.view()["vms"] if one["vm_id"] == made["vm_id"])
    work.ids(vm["vm_id"])
    work.screen.line((f"VM {vm['vm_id']} “{vm['name']}” was added on {vm['worker_ip']}.", GOOD))
    return work.end({"vm": vm})


@app.command("list")
def list_vms(context: typer.Context, slice: SliceOrAll = None, user: As = "", as_json: Json = False) -> int:
    """List the VMs of a slice, of a user, or of everybody."""
    work = Work(context, NAME, as_json=as_json)
    if slice is not None:
        record = work.installation.one_slice(slice, user)
        views = [work.done(work.api.get_slice(user or str(record["owner"]), int(record["slice_id"])))]
    else:
        views = work.done(work.api.list_slices(user) if user else work.api.list_all_slices(None))
    vms = [{"slice_id": view["slice_id"], **vm} for view in views for vm in view["vms"]]
    headings = ("VM", "Name", "Slice", "Owner", "State", "Worker", "Flavor", "VNC", "")
    work.table(headings, [_row(vm) for vm in vms], [vm["vm_id"] for vm in vms], none="There are no VMs.")
    return work.end({"vms": vms})


def _row(vm: dict[str, Any]) -> list[Piece]:
    state = vm["status"] if vm["observed"] in (None, "off", vm["status"]) else f"{vm['status']}, seen {vm['observed']}"
    return [
        *(str(vm["vm_id"]), vm["name"], str(vm["slice_id"]), vm["owner"], state),
        *(vm["worker_ip"], vm["flavor"], str(vm["vnc_port"])),
        (vm["error"] or vm["observed_reason"], BAD),
    ]


@app.command()
def show(context: typer.Context, vm: Vm, user: As = "", as_json: Json = False) -> int:
    """Show a VM: its NICs, addresses, links, worker and state."""
    from cli.screens.slices import show_slice

    work = _VmWork(context, vm, user, as_json=as_json)
    view = work.view()
    found = next(one for one in view["vms"] if one["vm_id"] == work.vm_id)
    work.ids(work.vm_id)
    if not as_json:
        ends = [link for link in view["links"] if work.vm_id in (link["vm1_id"], link["vm2_id"])]
        show_slice(work.screen, view | {"vms": [found], "links": ends}, names_of=view["vms"])
    return work.end({"vm": found})


@app.command()
def remove(context: typer.Context, vm: Vm, user: As = "", dry_run: DryRun = False, as_json: Json = False) -> int:
    """Take a VM, its links and its disk out of a slice in design."""
    return _change(context, "remove_vm", vm, user, dry_run, as_json)


@app.command()
def start(context: typer.Context, vm: Vm, user: As = "", dry_run: DryRun = False, as_json: Json = False) -> int:
    """Start one stopped VM of a running slice."""
    return _change(context, "start_vm", vm, user, dry_run, as_json)


@app.command()
def stop(context: typer.Context, vm: Vm, user: As = "", dry_run: DryRun = False, as_json: Json = False) -> int:
    """Stop one VM of a running slice; its disk stays, and the others run on."""
    return _change(context, "stop_vm", vm, user, dry_run, as_json)


def _change(context: typer.Context, call: str, words: str, user: str, dry_run: bool, as_json: bool) -> int:
    work = _VmWork(context, words, user, as_json=as_json)
    if dry_run:
        from cli.plans import show_plan

        return show_plan(work, work.acting, call, work.slice_id, vm_id=work.vm_id)
    text = work.done(getattr(work.api, call)(work.acting, work.slice_id, work.vm_id))
    work.ids(work.vm_id)
    work.screen.line((f"{text}: {work.vm_id} “{work.vm_name}”.", GOOD))
    return work.end({"vm_id": work.vm_id, "name": work.vm_name, "message": str(text)})


class _VmWork(SliceWork):
    """A command on one VM.

    Raises:
        NotDone: there is no such VM, or several are called that.
    """

    def __init__(self, context: typer.Context, words: str, user: str, *, as_json: bool) -> None:
        Work.__init__(self, context, NAME, as_json=as_json)
        record, vm = self.installation.one_vm(words, user)
        self.slice_id = int(record["slice_id"])
        self.acting = user or str(record["owner"])
        self.vm_id, self.vm_name = int(vm["vm_id"]), str(vm["name"])
