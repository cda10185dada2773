"""The images that `./cloud doctor` looks for on hosts: those of flavors, and those that people added."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudrepo import base_image_plans
from cloudrepo.doctor import images
from cloudrepo.doctor.findings import Finding
from cloudrepo.errors import RefusedError
from cloudrepo.image_library import Image, KnownImage, Library
from cloudrepo.images import ImageStore
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import all_slices
from control.context import Context


@dataclass(frozen=True, kw_only=True)
class WantedImage:
    """A file of this machine, and which hosts have to have a copy.

    Attributes:
        what: in words, such as `the base image of cirros`.
        path: on this machine.
        sha256: of its content; of an added one as it was recorded.
        size: bytes.
        known: of an added one: nothing but this is ever a copy of it.
        hosts: who has to have a copy; None = all. Where another one has it, it has to be right, too.
        is_here: whether this machine has this very content, so that it can be brought.
    """

    what: str
    path: str
    sha256: str
    size: int
    known: KnownImage | None = None
    hosts: frozenset[str] | None = None
    is_here: bool = True

    def must_be_on(self, ip: str) -> bool:
        """Whether a host has to have a copy."""
        return self.hosts is None or ip in self.hosts

    def place(self, store: ImageStore) -> str:
        """Where its copy is on a host, or would be."""
        return base_image_plans.base_path(store, self.sha256, os.path.basename(self.path))


@dataclass(frozen=True, kw_only=True)
class _Use:
    """The VMs on an added image."""

    vms: Sequence[str]  # in words
    hosts: frozenset[str]


_NOBODY = _Use(vms=(), hosts=frozenset())


def of_flavors(context: Context) -> dict[str, list[str]]:
    """Images on this machine by the flavors that are made of them: path → flavors."""
    found: dict[str, list[str]] = {}
    for name, flavor in context.settings.flavors.items():
        found.setdefault(os.path.expanduser(str(flavor["image"])), []).append(name)
    return found


def wanted(context: Context) -> tuple[list[WantedImage], list[Finding]]:
    """What hosts have to have, and what is wrong with it on this machine."""
    flavors, found = _flavors(context)
    added, more = _added(context)
    return _merged([*flavors, *added]), [*found, *more]


def _flavors(context: Context) -> tuple[list[WantedImage], list[Finding]]:
    """Whatever their content is, it is what VMs are made of."""
    paths = of_flavors(context)
    here = [path for path in paths if os.path.isfile(path)]
    wanted, found = [], images.not_here({path: names for path, names in paths.items() if path not in here})
    for path in here:
        what = f"the base image of {', '.join(paths[path])}"
        try:
            digest = context.deployment.qcow_manager.bases.digest(path)
        except RefusedError as error:
            found.append(images.unread(what, path, error))
        else:
            wanted.append(WantedImage(what=what, path=path, sha256=digest, size=os.path.getsize(path)))
    return wanted, found


def _added(context: Context) -> tuple[list[WantedImage], list[Finding]]:
    """Each as it was recorded when it was inspected, on the hosts of the VMs that are on it."""
    library, uses = context.library, _uses(context.db.data)
    wanted, found = [], []
    for image in library.images():
        use = uses.pop(image.name, _NOBODY)
        wrong = _on_this_machine(library, image, use.vms)
        found += wrong
        wanted.append(
            WantedImage(
                what=f"the added image {image.name}",
                path=str(library.path(image)),
                sha256=image.sha256,
                size=image.size,
                known=image.known,
                hosts=use.hosts,
                is_here=not wrong,
            )
        )
    for name, use in uses.items():
        folder = library.folder / name
        found.append(images.unknown(name, str(folder), use.vms, has_folder=folder.exists()))
    return wanted, found


def _on_this_machine(library: Library, image: Image, users: Sequence[str]) -> list[Finding]:
    """What is wrong with the file of an added image: its content is read."""
    path = str(library.path(image))
    try:
        digest = library.digest(image)
    except FileNotFoundError:
        return [images.gone(image.name, path, image.sha256, users)]
    except OSError as error:
        return [images.unread(f"the added image {image.name}", path, error)]
    if digest != image.sha256:
        return [images.changed(image.name, path, image.sha256, users, found=digest)]
    return []


def _uses(data: Mapping[str, Any]) -> dict[str, _Use]:
    """By the names of added images, who is on them."""
    found: dict[str, _Use] = {}
    for record in all_slices(data):
        for vm in record["vms"]:
            if vm.get("image"):
                before = found.get(vm["image"], _NOBODY)
                words = f"VM {vm['vm_id']} ({record['name']}/{vm['name']})"
                hosts = {vm["worker_ip"]} - {""}
                found[vm["image"]] = _Use(vms=[*before.vms, words], hosts=before.hosts | hosts)
    return found


def _merged(wanted: Sequence[WantedImage]) -> list[WantedImage]:
    """One for each place on hosts: a flavor's file may be that of an added image, or have its name and content."""
    found: dict[tuple[str, str], WantedImage] = {}
    for one in wanted:
        key = one.sha256, base_image_plans.plain_name(os.path.basename(one.path))
        first = found.get(key)
        found[key] = one if first is None else replace(first, what=f"{first.what}, {one.what},", known=one.known)
    return list(found.values())
