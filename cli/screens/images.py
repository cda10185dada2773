"""Images: see them, add one from the inbox, remove one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.images import described, gib, show_images, show_removed
from cli.operation import run_work
from cli.screen import FAINT, GOOD
from cli.screens.context import Context

LISTED = ("Add an image from the inbox", "Remove an image", "Back")


def images_menu(context: Context) -> None:
    """Menu entry 15."""
    ok, answer = context.api.list_images(context.username, look=True)
    if not ok:
        context.screen.complain(answer)
        return
    show_images(context.screen, answer)
    for number, words in enumerate(LISTED, 1):
        context.screen.line(f"  {number}. {words}")
    chosen = context.ask.choice("What", LISTED, suggestion=LISTED.index("Back"))
    if chosen == 0:
        _add(context, answer["inbox"])
    elif chosen == 1:
        _remove(context, answer["images"])


def _add(context: Context, inbox: Sequence[Mapping[str, Any]] | None) -> None:
    from cloudrepo.image_library import name_of_file

    if not inbox:
        why = "The inbox is empty: put a file there first." if inbox is not None else "You add no images here."
        context.screen.line(why, (" An operator adds any file with `./cloud image add FILE`.", FAINT))
        return
    for one in inbox:
        context.screen.line(f"  {one['file']} ", (f"({gib(one['bytes'])})", FAINT))
    file = context.ask.text(
        "File in the inbox",
        options=[(str(one["file"]), gib(one["bytes"])) for one in inbox],
        suggestion=str(inbox[0]["file"]) if len(inbox) == 1 else "",
    )
    name = context.ask.text("Name", default=name_of_file(file))
    is_raw = context.ask.yes("Is it a plain (raw) disk, not qcow2", default=False)
    run_work(
        context,
        f"add image {name}",
        lambda _display: context.api.add_image(context.username, name, file, format="raw" if is_raw else ""),
        lambda image: context.screen.line((f"Image {image['name']} was added: {described(image)}.", GOOD)),
    )


def _remove(context: Context, images: Sequence[Mapping[str, Any]]) -> None:
    if not images:
        context.screen.line("There is none to remove.")
        return
    names = [str(image["name"]) for image in images]
    name = context.ask.text(
        "Image",
        options=[(str(image["name"]), described(image)) for image in images],
        check=lambda typed: "" if typed in names else f"There is no image {typed}; there is {', '.join(names[:8])}.",
    )
    if not context.ask.yes(f"Remove the image {name}", default=False):
        context.screen.line("Nothing was removed.")
        return
    run_work(
        context,
        f"removal of image {name}",
        lambda _display: context.api.remove_image(context.username, name),
        lambda answer: show_removed(context.screen, answer),
    )


def ask_image(context: Context, flavor: str) -> str:
    """The image of a new VM: "" for the flavor's own, which is what is meant where none was added."""
    ok, answer = context.api.list_images(context.username)
    images = answer["images"] if ok else []
    if not images:
        return ""
    names = [str(image["name"]) for image in images]
    context.screen.line("  1. the flavor's own ", (f"({flavor})", FAINT))
    for number, image in enumerate(images, 2):
        by = f"({described(image)}, added by {image['added_by']})"
        context.screen.line(f"  {number}. {image['name']} ", (by, FAINT))
    chosen = context.ask.choice("Image", ["", *names])
    return names[chosen - 1] if chosen else ""
