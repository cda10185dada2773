"""`./cloud image`: disk images that people add, for an operator at the shell of the account that owns the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.options import DryRun, Json, named
from cli.screen import FAINT, GOOD, Piece, Screen
from cli.text import count
from cli.work import Work

GIB = 1024**3

app = typer.Typer(help="Disk images that people add: inspected, kept here, brought to workers.", no_args_is_help=True)


File = Annotated[str, typer.Argument(metavar="FILE", help="A qcow2, or the plain content of a disk.", callback=named)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is called.", callback=named)]


@app.command()
def add(
    context: typer.Context,
    file: File,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What it will be called; the file's name if left out.")
    ] = "",
    format: Annotated[str, typer.Option(metavar="FORMAT", help="`raw` for a plain disk, which has no header.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Copy a file, look at the copy, and offer it for new VMs."""
    from cloudrepo.image_library import name_of_file

    work = Work(context, "image", as_json=as_json)
    if dry_run:
        from cli.plans import show_rehearsal

        wish = {"image": name or name_of_file(file), "path": file, "format": format}
        return show_rehearsal(work, "add_image", wish)
    image = work.done(work.api.add_image(None, name or name_of_file(file), file, format=format))
    work.ids(image["name"])
    work.screen.line((f"Image {image['name']} was added: {described(image)}.", GOOD))
    work.screen.line((f"  SHA-256 {image['sha256']}", FAINT))
    return work.end({"image": image})


@app.command("list")
def list_images(context: typer.Context, as_json: Json = False) -> int:
    """Show all images, who uses them, and which workers have copies."""
    work = Work(context, "image", as_json=as_json)
    answer = work.done(work.api.list_images(None, look=True))
    work.ids(*(image["name"] for image in answer["images"]))
    if not as_json:
        show_images(work.screen, answer)
    return work.end(answer)


@app.command()
def remove(context: typer.Context, name: Name, dry_run: DryRun = False, as_json: Json = False) -> int:
    """Remove an image that nothing uses, here and on the workers that answer."""
    work = Work(context, "image", as_json=as_json)
    if dry_run:
        from cli.plans import show_rehearsal

        return show_rehearsal(work, "remove_image", {"image": name})
    answer = work.done(work.api.remove_image(None, name))
    work.ids(answer["name"])
    show_removed(work.screen, answer)
    return work.end({"image": answer["name"], **{key: answer[key] for key in ("removed_from", "left")}})


# -- what is shown, also in the menu ---------------------------------------------------------------------


def described(image: Mapping[str, Any]) -> str:
    """`qcow2, 0.02 GiB, a disk of 2.20 GiB`."""
    return f"{image['format']}, {gib(image['size'])}, a disk of {gib(image['virtual_size'])}"


def show_images(screen: Screen, answer: Mapping[str, Any]) -> None:
    """A table of all images, and which workers did not answer."""
    if not answer["images"]:
        screen.line("No image has been added.")
        return
    headings = ("Image", "Format", "File", "Disk", "Added by", "On", "Used by", "SHA-256")
    screen.table(headings, [_row(image) for image in answer["images"]])
    for ip, why in answer["unreachable"].items():
        screen.line(f"  {ip} was not asked for copies: {why}")


def show_removed(screen: Screen, answer: Mapping[str, Any]) -> None:
    """What became of an image and of its copies."""
    copies = f", and its copies on {', '.join(answer['removed_from'])}" if answer["removed_from"] else ""
    screen.line((f"Image {answer['name']} was removed{copies}.", GOOD))
    for ip, why in answer["left"].items():
        screen.line(f"  A copy may still be on {ip}: {why}")


def _row(image: Mapping[str, Any]) -> list[Piece]:
    workers = image["workers"]
    on = "not asked" if workers is None else ", ".join(workers) or "no worker"
    used = [f"{one['name']} ({one['slice_id']})" for one in image["slices"]]
    used += [f"flavor {name}" for name in image["flavors"]]
    if image["others"]:
        used.append(count(image["others"], "slice of others", "slices of others"))
    sizes = (gib(image["size"]), gib(image["virtual_size"]))
    return [
        *(image["name"], image["format"], *sizes, image["added_by"], on, ", ".join(used) or "nobody"),
        (image["sha256"][:16], FAINT),
    ]


def gib(size: int) -> str:
    """A size in bytes, for people."""
    return f"{size / GIB:.2f} GiB" if size >= GIB // 100 else f"{size / 1024**2:.2f} MiB"
