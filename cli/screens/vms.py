"""VMs and links: add and join, take away, start and stop one."""

from __future__ import annotations

from typing import Any

from cli.operation import run_work
from cli.screen import FAINT, GOOD
from cli.screens.context import RUNNING, Context, Record, find_vm, why_no_vm
from cli.text import count
from cloudrepo.errors import RefusedError
from cloudrepo.link_ends import ends_of
from cloudrepo.validation import MAX_DATA_INTERFACES, unused_vm_name, vm_name

POLICIES = ("never", "on-failure", "always", "default")


def add_vm_menu(context: Context) -> None:
    """Menu entry 3: slice, name, flavor, data interfaces, internet, in the documented order.

    Where images were added, which one is asked after the flavor.
    """
    from cli.screens.images import ask_image

    slice_id = context.ask_slice()
    ok, record = context.api.get_slice(context.username, slice_id)
    vms: list[Record] = record["vms"] if ok else []
    name = context.ask.text(
        "VM name", check=lambda typed: why_no_name(slice_id, vms, typed), suggestion=unused_name(vms)
    )
    flavor = ask_flavor(context, vms)
    image = ask_image(context, flavor)
    interfaces = context.ask.number("Data interfaces", least=0, most=MAX_DATA_INTERFACES, suggestion=1)
    internet = context.ask.yes("Internet access")

    def show(answer: Record) -> None:
        line = f"VM added! ID: {answer['vm_id']}, VNC: {answer['vnc_port']}, Flavor: {flavor}"
        context.screen.line((line, GOOD))
        if ok and record["status"] in RUNNING:
            context.screen.line(("The slice runs: 4 links the VM, 18 starts it.", FAINT))

    run_work(
        context,
        f"add VM {name} to slice {slice_id}",
        lambda _display: context.api.add_vm_to_slice(
            context.username, slice_id, name, flavor, interfaces, internet, image=image
        ),
        show,
        lambda answer: complain_of_quota(context, answer),
    )


def complain_of_quota(context: Context, answer: Any) -> None:
    """What failed; and where a quota is used up, how much of it."""
    context.screen.complain(answer)
    if getattr(answer, "code", "") == "quota":
        context.screen.line((f"  {answer.hint}", FAINT))


def ask_flavor(context: Context, vms: list[Record]) -> str:
    """One of the flavors, after listing them; that of the last VM is suggested."""
    from models import Flavor

    flavors = list(Flavor.FLAVORS)
    for number, flavor in enumerate(flavors, 1):
        spec = Flavor.FLAVORS[flavor]
        size = f"{spec['cores']:g} CPU, {spec['ram_gb']:g} GB RAM, {spec['disk_gb']:g} GB disk"
        context.screen.line(f"  {number}. {flavor} ", (f"({size})", FAINT))
    last = str(vms[-1]["flavor"]) if vms else ""
    return flavors[context.ask.choice("Flavor", flavors, suggestion=flavors.index(last) if last in flavors else 0)]


def unused_name(vms: list[Record]) -> str:
    """A name that no VM has."""
    taken = {str(vm["name"]) for vm in vms}
    return next(name for number in range(1, len(vms) + 2) if (name := f"vm{number}") not in taken)


def why_no_name(slice_id: int, vms: list[Record], typed: str) -> str:
    """Why a VM cannot have this name; an empty text when it can."""
    try:
        unused_vm_name({"slice_id": slice_id, "vms": vms}, vm_name(typed))
    except RefusedError as error:
        return str(error)
    return ""


def create_link_menu(context: Context) -> None:
    """Menu entry 4: two ends, each a VM and one of its free interfaces."""
    record = context.ask_slice_record()
    vms: list[Record] = record["vms"]
    for vm in vms:
        free = ", ".join(free_interfaces(vm)) or "no free interface"
        context.screen.line(f"  {vm['vm_id']} {vm['name']}: ", (free, FAINT))
    first, first_interface = _ask_end(context, vms, "First", "")
    taken = f"{first} {first_interface}"
    second, second_interface = _ask_end(context, vms, "Second", taken)
    slice_id = int(record["slice_id"])

    def show(answer: Record) -> None:
        context.screen.line((f"Link created! ID: {answer['link_id']}, VLAN: {answer['vlan_id']}", GOOD))

    run_work(
        context,
        f"new link in slice {slice_id}",
        lambda _display: context.api.create_link(
            context.username, slice_id, first, first_interface, second, second_interface
        ),
        show,
    )


def free_interfaces(vm: Record) -> list[str]:
    """The interfaces of a VM that a link may use."""
    return [str(item["name"]) for item in vm["interfaces"] if item.get("vlan_id") is None and item["name"] != "eth0"]


def _ask_end(context: Context, vms: list[Record], which: str, taken: str) -> tuple[int, str]:
    """One end of a link; a VM may be named by id or by name, and an id may be one that only the façade knows."""
    offered = [vm for vm in vms if _left(vm, taken)]
    words = context.ask.text(
        f"{which} VM (ID or name)",
        options=[(str(vm["vm_id"]), f"{vm['name']}: {', '.join(_left(vm, taken))}") for vm in offered],
        check=lambda typed: "" if typed.isdecimal() or find_vm(vms, typed) else _why_no_end(vms, typed),
    )
    vm = find_vm(vms, words)
    if vm is None:  # the façade has the documented answer to an unknown id
        return int(words), context.ask.text(f"Interface of {words}")
    free = _left(vm, taken)
    label = f"Interface of {vm['name']}"
    return int(vm["vm_id"]), context.ask.text(
        label,
        default=free[0] if len(free) == 1 else "",
        suggestion=free[0] if free else "",
        options=[(name, "free") for name in free],
        check=lambda typed: _why_no_interface(vm, free, typed),
    )


def _why_no_end(vms: list[Record], typed: str) -> str:
    several = [vm for vm in vms if vm["name"] == typed]
    return why_no_vm(vms, typed) if several else f"There is no VM {typed} in this slice."


def _left(vm: Record, taken: str) -> list[str]:
    """Free interfaces, without the one that the other end has."""
    return [name for name in free_interfaces(vm) if f"{vm['vm_id']} {name}" != taken]


def _why_no_interface(vm: Record, free: list[str], typed: str) -> str:
    """Said as a hint while it is typed; what is not free is refused by the façade in the documented words."""
    if typed in free or typed in [str(item["name"]) for item in vm["interfaces"]]:
        return ""
    return f"{vm['name']} has no {typed}; free: {', '.join(free) or 'none'}."


# ── taking away ─────────────────────────────────────────────────────────────────────────────────────────


def remove_vm_menu(context: Context) -> None:
    """Menu entry 16."""
    record = context.ask_slice_record()
    vm = context.ask_vm(record["vms"])
    links = [link for link in record["links"] if vm["vm_id"] in (number for number, _interface in ends_of(link))]
    with_it = f"its disk and {count(len(links), 'link')}" if links else "its disk"
    runs = ", which runs," if vm["status"] == "running" else ""
    if not context.ask.yes(f"Remove VM {vm['vm_id']} {vm['name']}{runs} with {with_it}", default=False):
        context.screen.line("Nothing was removed.")
        return
    slice_id, vm_id = int(record["slice_id"]), int(vm["vm_id"])
    run_work(
        context,
        f"removal of VM {vm_id} ({vm['name']})",
        lambda _display: context.api.remove_vm(context.username, slice_id, vm_id),
        lambda answer: _say(context, True, answer),
    )


def remove_link_menu(context: Context) -> None:
    """Menu entry 17."""
    from cli.screens.links import ask_link, described

    record = context.ask_slice_record()
    link = ask_link(context, record)
    if not context.ask.yes(f"Remove link {described(record, link)}", default=False):
        context.screen.line("Nothing was removed.")
        return
    slice_id, link_id = int(record["slice_id"]), int(link["link_id"])
    run_work(
        context,
        f"removal of link {link_id} of slice {slice_id}",
        lambda _display: context.api.remove_link(context.username, slice_id, link_id),
        lambda answer: _say(context, True, answer),
    )


# ── one VM of a running slice ───────────────────────────────────────────────────────────────────────────


def start_vm_menu(context: Context) -> None:
    """Menu entry 18."""
    _one_vm(context, "start_vm", ["stopped", "error", "design"])


def stop_vm_menu(context: Context) -> None:
    """Menu entry 19."""
    _one_vm(context, "stop_vm", list(RUNNING))


def _one_vm(context: Context, call: str, states: list[str]) -> None:
    record = context.ask_slice_record(RUNNING)
    fitting = [vm for vm in record["vms"] if vm["status"] in states]
    vm = context.ask_vm(fitting or record["vms"])
    slice_id, vm_id = int(record["slice_id"]), int(vm["vm_id"])
    run_work(
        context,
        f"{call.replace('_vm', '')} of VM {vm_id} ({vm['name']})",
        lambda display: getattr(context.api, call)(context.username, slice_id, vm_id, progress=display),
        lambda answer: _say(context, True, answer),
    )


def restart_policy_menu(context: Context) -> None:
    """Menu entry 20."""
    record = context.ask_slice_record()
    vm = context.ask_vm(record["vms"])
    for number, word in enumerate(POLICIES, 1):
        context.screen.line(f"  {number}. {word}")
    now = str(vm.get("restart") or "default")
    policy = POLICIES[context.ask.choice("Policy", POLICIES, suggestion=POLICIES.index(now))]
    ok, answer = context.api.set_restart_policy(
        context.username, int(record["slice_id"]), int(vm["vm_id"]), "" if policy == "default" else policy
    )
    _say(context, ok, answer)


def _say(context: Context, ok: bool, answer: object) -> None:
    context.screen.line((str(answer), GOOD)) if ok else context.screen.complain(answer)
