"""The picture of a slice, alone."""

from __future__ import annotations

from cli.screens.context import Context


def draw_menu(context: Context) -> None:
    """Menu entry 10. No file is written: the menu may be all that a person may use of this machine."""
    from cli.draw import show
    from cloudrepo.pictures.graph import of_slice

    show(of_slice(context.ask_slice_record()), context.screen)
