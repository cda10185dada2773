"""Images that people add: into the library of the manager, onto workers with a VM's disk, and away again."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cloudrepo import image_library, permissions
from cloudrepo.call_events import OPERATOR
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.image_library import GIB, NO_COPY, REMOVED, Bounds, Image, KnownImage
from cloudrepo.state import all_slices
from cloudrepo.validation import shown
from control import authority, late
from control.context import Context, Record, user_record


def add(
    context: Context,
    username: str | None,
    name: str,
    path: str,
    told: str,
    *,
    at_a_shell: bool,
    looks_only: bool = False,
) -> Record:
    """Take a file into the library, after it was looked at.

    Args:
        context: the installation.
        username: who adds it; None = the operator.
        name: what it will be called.
        path: the file; of who is not at a shell, its plain name in the inbox.
        told: `qcow2`, `raw`, or empty for what the file's header says.
        at_a_shell: whether who asks could read the file himself; else the rights of this account are not lent to him.
        looks_only: look at the file where it is, and take nothing.

    Returns:
        As one of `listed`.

    Raises:
        RefusedError: it is no file or no image, too large, taken, or this person may not add any.
    """
    limits = context.settings.images
    if told not in ("", *image_library.FORMATS):
        raise RefusedError(
            f"{shown(told)} is no format of an image", evidence="there are qcow2 and raw", code="images.format"
        )
    name = image_library.require_name(name)
    if _is_student(context, username) and not limits.students:
        raise RefusedError(
            "students add no images here",
            remedy="Ask an instructor; the setting images.students allows it",
            code="images.students",
        )
    if not at_a_shell and not limits.inbox:
        raise RefusedError(
            "no image can be added here",
            evidence="there is no inbox",
            remedy="The operator adds one with `./cloud image add FILE`, or sets images.inbox",
            code="images.inbox",
        )
    bounds = Bounds(
        size=_bytes(limits.max_gb), virtual_size=_bytes(limits.max_virtual_gb), together=_bytes(limits.store_gb)
    )
    inbox = "" if at_a_shell else _inbox_folder(context)
    try:
        with image_library.opened(str(path), inbox) as number:
            take = context.library.examine if looks_only else context.library.add
            image = take(number, name, told=told, bounds=bounds, who=username or OPERATOR)
    except OSError as error:
        raise CloudError(
            "the image was not added",
            evidence=f"{error.filename or path}: {error.strerror or error}",
            remedy="Nothing of it is left; try again when that is set right",
            code="images.disk",
        ) from error
    return _view(context, _visible(context, username), image)


def _is_student(context: Context, username: str | None) -> bool:
    if username is None:
        return False
    with context.db.lock:
        return permissions.role_of(user_record(context.db.data, username)) == "student"


def _bytes(gib: float) -> int:
    return int(gib * GIB)


def listed(context: Context, username: str | None, *, look: bool) -> Record:
    """All images.

    Args:
        context: the installation.
        username: who asks; None = the operator.
        look: whether to ask the workers for copies.

    Returns:
        `images`: each with the fields of `image_library.Image`, `slices` (those that who asks may see: `slice_id`,
        `name` and `vms`, ids), `others` (how many more use it), `flavors` whose image it is, and `workers` that have
        a copy, None when nobody asked. `unreachable`: why, by worker. `inbox`: what lies there and may be added by who
        asks (`file`, `bytes`); None where they may add nothing from it.
    """
    visible = _visible(context, username)
    images = [_view(context, visible, image) for image in context.library.images()]
    copies, unreachable = _copies(context) if look and images else ({}, {})
    if look and images:
        manager = context.deployment.qcow_manager
        for image in images:
            image["workers"] = [
                ip
                for ip, paths in copies.items()
                if manager.bases.path_on(ip, manager.base_dir, image["sha256"], _file_name(image)) in paths
            ]
    return {"images": images, "unreachable": unreachable, "inbox": _inbox(context, username)}


def _inbox(context: Context, username: str | None) -> list[Record] | None:
    limits = context.settings.images
    if not limits.inbox or (_is_student(context, username) and not limits.students):
        return None
    return [{"file": name, "bytes": size} for name, size in image_library.waiting(_inbox_folder(context))]


def _inbox_folder(context: Context) -> str:
    return str(Path(context.settings.images.inbox).expanduser())


def _file_name(image: Mapping[str, Any]) -> str:
    return f"{image['name']}.{image['format']}"


def _copies(context: Context) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    manager = context.deployment.qcow_manager
    asks = {ip: functools.partial(manager.bases.copies, ip, manager.base_dir) for ip in late.drift.known_hosts(context)}
    answers = context.site.executor.gather(asks)
    failed = {ip: str(answer) for ip, answer in answers.items() if isinstance(answer, CloudError)}
    return {ip: answer for ip, answer in answers.items() if ip not in failed}, failed


def _visible(context: Context, username: str | None) -> set[int] | None:
    """The slices that a person may look at; None = all."""
    if username is None:
        context.db.refresh()
        return None
    return {int(record["slice_id"]) for record in authority.usable_slices(context, "get_slice", username)}


def _view(context: Context, visible: set[int] | None, image: Image) -> Record:
    with context.db.lock:
        using = _using(context.db.data, image.name)
    seen = [one for one in using if visible is None or one["slice_id"] in visible]
    return {
        **asdict(image),
        "slices": seen,
        "others": len(using) - len(seen),
        "flavors": _flavors(context, image),
        "workers": None,
    }


def _using(data: Mapping[str, Any], name: str) -> list[Record]:
    """The slices with a VM on an image."""
    found = []
    for record in all_slices(data):
        vms = [vm["vm_id"] for vm in record["vms"] if vm.get("image") == name]
        if vms:
            found.append({"slice_id": record["slice_id"], "name": record["name"], "vms": vms})
    return found


def _flavors(context: Context, image: Image) -> list[str]:
    """The flavors whose image is this one's file."""
    path = context.library.path(image).resolve()
    flavors = context.settings.flavors
    return [name for name, spec in flavors.items() if Path(spec["image"]).expanduser().resolve() == path]


def remove(context: Context, username: str | None, name: str) -> Record:
    """Take an image away: from the library at once, and its copies from workers that answer.

    Returns:
        `name`, `removed_from` (workers), and `left`: by worker, why a copy is still there or may be.

    Raises:
        RefusedError: there is none, or a slice or a flavor uses it.
    """
    library, visible = context.library, _visible(context, username)
    with context.db.transaction() as data:  # nobody chooses it from here on
        image = _unused(context, visible, name, data)
        hidden = library.hide(image)
    try:
        manager = context.deployment.qcow_manager
        asks = {
            ip: functools.partial(manager.bases.remove, ip, manager.base_dir, image.sha256, image.file_name)
            for ip in late.drift.known_hosts(context)
        }
        answers = context.site.executor.gather(asks)
    finally:
        library.discard(hidden)
    return {
        "name": image.name,
        "removed_from": [ip for ip, answer in answers.items() if answer == REMOVED],
        "left": {ip: str(answer) for ip, answer in answers.items() if answer not in (REMOVED, NO_COPY)},
    }


def look_before_removal(context: Context, username: str | None, name: str) -> tuple[Image, dict[str, str | CloudError]]:
    """The image that `remove` would take away, and by worker what it would say: empty where a copy would go.

    Raises:
        RefusedError: as `remove`.
    """
    visible = _visible(context, username)
    with context.db.lock:
        image = _unused(context, visible, name, context.db.data)
    manager = context.deployment.qcow_manager
    asks = {
        ip: functools.partial(manager.bases.why_stays, ip, manager.base_dir, image.sha256, image.file_name)
        for ip in late.drift.known_hosts(context)
    }
    return image, context.site.executor.gather(asks)


def _unused(context: Context, visible: set[int] | None, name: str, data: Mapping[str, Any]) -> Image:
    image = context.library.require(name)
    _refuse_used(context, visible, image, _using(data, image.name))
    return image


def _refuse_used(context: Context, visible: set[int] | None, image: Image, using: list[Record]) -> None:
    flavors = _flavors(context, image)
    if flavors:
        raise RefusedError(
            f"the image {image.name} is used and stays",
            evidence=f"it is the image of the flavor {', '.join(flavors)} in settings.yaml",
            remedy="Give the flavor another image first",
            code="images.used",
            details={"flavors": flavors},
        )
    if not using:
        return
    seen = [one for one in using if visible is None or one["slice_id"] in visible]
    words = [f"slice {one['slice_id']} ({one['name']})" for one in seen]
    if len(using) > len(seen):
        words.append(f"{len(using) - len(seen)} of others")
    raise RefusedError(
        f"the image {image.name} is used and stays",
        evidence=", ".join(words),
        remedy="Delete these slices, or their VMs that are on it, first",
        code="images.used",
        details={"slices": [one["slice_id"] for one in seen]},
    )


def disk_gb(context: Context, name: Any) -> float:
    """The disk in GiB that a VM needs for an image; 0 without one. A guest's disk is never smaller than what is on it.

    Raises:
        RefusedError: there is no such image.
    """
    return math.ceil(context.library.require(name).virtual_size / GIB * 1000) / 1000 if name else 0.0


def source_of(context: Context, vm: Mapping[str, Any]) -> tuple[str, KnownImage | None]:
    """The manager's file under a VM's disk: that of its image, or of its flavor.

    Returns:
        The path, empty when the flavor is not known any more; and what was found out of an image that was added.

    Raises:
        RefusedError: its image is gone.
    """
    if vm.get("image"):
        image = context.library.require(vm["image"])
        return str(context.library.path(image)), image.known
    flavor = context.settings.flavors.get(vm["flavor"], {})
    return str(flavor.get("image") or ""), None
