"""Consoles: a guest that nobody can open is not a guest."""

from __future__ import annotations

from cli.screen import FAINT
from cli.screens.context import Context
from cli.screens.vms import find_vm


def console_menu(context: Context) -> None:
    """Menu entry 8: the text console, or the address of the screen."""
    from cli.console import open_console
    from cli.vnc import open_vnc

    vms = [vm for record in context.slices() for vm in record["vms"] if vm.get("status") == "running"]
    if not vms:
        context.screen.line("None of your VMs is running. 6 deploys a slice.")
        return
    for vm in vms:
        context.screen.line(f"  {vm['vm_id']} {vm['name']} ", (f"on {vm['worker_ip']}", FAINT))
    words = context.ask.text("VM (ID or name)", default=str(vms[0]["vm_id"]) if len(vms) == 1 else "")
    vm = find_vm(vms, words)
    if vm is None:
        context.screen.line(f"None of your running VMs is {words}; a name used twice needs the ID.")
        return
    kinds = ("text", "screen")
    context.screen.line("  1. text    the serial console, here")
    context.screen.line("  2. screen  the address of its VNC screen")
    kind = context.ask.choice("Console", kinds)
    opener = (open_console, open_vnc)[kind]
    opener(context.api, context.username, int(vm["vm_id"]), context.screen)
