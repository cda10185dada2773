"""VMs and links: add and join."""

from __future__ import annotations

from cli.screen import FAINT, GOOD
from cli.screens.context import Context, Record

MAX_LISTED = 12


def add_vm_menu(context: Context) -> None:
    """Menu entry 3: slice, name, flavor, data interfaces, internet, in the documented order.

    Where images were added, which one is asked after the flavor.
    """
    from cli.screens.images import ask_image
    from models import Flavor

    slice_id = context.ask_slice()
    name = context.ask.text("VM name")
    flavors = list(Flavor.FLAVORS)
    for number, flavor in enumerate(flavors, 1):
        spec = Flavor.FLAVORS[flavor]
        size = f"{spec['cores']:g} CPU, {spec['ram_gb']:g} GB RAM, {spec['disk_gb']:g} GB disk"
        context.screen.line(f"  {number}. {flavor} ", (f"({size})", FAINT))
    flavor = flavors[context.ask.choice("Flavor", flavors)]
    image = ask_image(context, flavor)
    interfaces = context.ask.number("Data interfaces")
    internet = context.ask.yes("Internet access")
    ok, answer = context.api.add_vm_to_slice(
        context.username, slice_id, name, flavor, interfaces, internet, image=image
    )
    if not ok:
        context.screen.complain(answer)
        if getattr(answer, "code", "") == "quota":
            context.screen.line((f"  {answer.hint}", FAINT))
        return
    line = f"VM added! ID: {answer['vm_id']}, VNC: {answer['vnc_port']}, Flavor: {flavor}"
    context.screen.line((line, GOOD))


def create_link_menu(context: Context) -> None:
    """Menu entry 4: two ends, each a VM and one of its free interfaces."""
    slice_id = context.ask_slice()
    record = context.slice(slice_id)
    if record is None:
        return
    vms: list[Record] = record["vms"]
    for vm in vms:
        free = ", ".join(free_interfaces(vm)) or "no free interface"
        context.screen.line(f"  {vm['vm_id']} {vm['name']}: ", (free, FAINT))
    first, first_interface = _ask_end(context, vms, "First")
    second, second_interface = _ask_end(context, vms, "Second")
    ok, answer = context.api.create_link(context.username, slice_id, first, first_interface, second, second_interface)
    if not ok:
        context.screen.complain(answer)
        return
    context.screen.line((f"Link created! ID: {answer['link_id']}, VLAN: {answer['vlan_id']}", GOOD))


def free_interfaces(vm: Record) -> list[str]:
    """The interfaces of a VM that a link may use."""
    return [str(item["name"]) for item in vm["interfaces"] if item.get("vlan_id") is None and item["name"] != "eth0"]


def find_vm(vms: list[Record], words: str) -> Record | None:
    """The VM a person names by its id or its name; an id comes first."""
    by_id = [vm for vm in vms if str(vm["vm_id"]) == words]
    by_name = [vm for vm in vms if vm["name"] == words]
    found = by_id or by_name
    return found[0] if len(found) == 1 else None


def _ask_end(context: Context, vms: list[Record], which: str) -> tuple[int, str]:
    """One end of a link; a VM may be named by id or by name."""
    while True:
        words = context.ask.text(f"{which} VM (ID or name)")
        vm = find_vm(vms, words)
        if vm is not None:
            break
        if words.isdecimal():  # the façade has the documented answer to an unknown id
            return int(words), context.ask.text(f"Interface of {words}")
        context.screen.line(f"There is no VM {words} in this slice.")
    free = free_interfaces(vm)
    label = f"Interface of {vm['name']}"
    if len(free) == 1:
        return int(vm["vm_id"]), context.ask.text(label, default=free[0])
    return int(vm["vm_id"]), context.ask.text(label)
