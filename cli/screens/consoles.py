"""Consoles: a guest that nobody can open is not a guest."""

from __future__ import annotations

from cli.screens.context import Context


def console_menu(context: Context) -> None:
    """Menu entry 8: the text console, or the address of the screen."""
    from cli.console import open_console
    from cli.vnc import open_vnc

    vms = [vm for record in context.slices() for vm in record["vms"] if vm.get("status") == "running"]
    if not vms:
        context.screen.line("None of your VMs is running. 6 deploys a slice, 11 starts one that was stopped.")
        return
    vm = context.ask_vm(vms)
    kinds = ("text", "screen")
    context.screen.line("  1. text    the serial console, here")
    context.screen.line("  2. screen  the address of its VNC screen")
    kind = context.ask.choice("Console", kinds, suggestion=0)
    opener = (open_console, open_vnc)[kind]
    opener(context.api, context.username, int(vm["vm_id"]), context.screen)
