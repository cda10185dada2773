"""Deploy a slice, and say how its guests run; stop it, and start it again."""

from __future__ import annotations

from cli.operation import run_operation
from cli.screen import FAINT
from cli.screens.context import DEPLOYABLE, RUNNING, STOPPED, Context


def deploy_slice_menu(context: Context) -> None:
    """Menu entry 6."""
    slice_id = context.ask_slice(DEPLOYABLE)
    if run_operation(context, "deploy", slice_id):
        context.screen.line(("5 shows addresses, 8 opens a console.", FAINT))


def start_slice_menu(context: Context) -> None:
    """Menu entry 11."""
    run_operation(context, "start", context.ask_slice(STOPPED))


def stop_slice_menu(context: Context) -> None:
    """Menu entry 12; disks stay."""
    if run_operation(context, "stop", context.ask_slice(RUNNING)):
        context.screen.line(("11 starts it again with its disks as they are, 7 deletes it.", FAINT))
