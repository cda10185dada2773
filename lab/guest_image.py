"""The lab's guest: a small bootable disk made from Debian's own packages.

The distribution's kernel and a busybox initramfs on a FAT disk with syslinux, as
qcow2.  It stands in for CirrOS and Ubuntu images, which cannot be downloaded
everywhere.  What runs in it are the files under ``guest/root``.

There are two: one that powers off on the ACPI button, and one that ignores it.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab import image_cache
from lab.boot_disk import KERNEL_WORDS, write_disk
from lab.debs import fetch_and_unpack
from lab.errors import LabError
from lab.initramfs import build_initramfs
from lab.layout import DEAF_IMAGE_NAME, IMAGE_NAMES

_GUEST = Path(__file__).resolve().parent / "guest"
_SOURCES = ("guest_image.py", "boot_disk.py", "initramfs.py", "debs.py")
_VARIANTS = {"guest.qcow2": "", "guest-noacpi.qcow2": "lab.acpi=ignore"}


def ensure(cache: Path, *, say: Callable[[str], None] = lambda _text: None) -> dict[str, Path]:
    """Return the images by the names the orchestrator sees, building them if needed.

    Args:
        cache: Folder shared by the labs of this machine.
        say: Takes a line for people when something takes long.

    Raises:
        LabError: If they cannot be built.
    """
    place = cache / f"guest-{_key()}"
    image_cache.ensure(
        place,
        place / "done",
        lock="guest.lock",  # whoever builds the router meanwhile takes long
        announce=lambda: say("Building the guest image (once, a few seconds)..."),
        build=lambda: _build(place),
    )
    images = {name: place / "guest.qcow2" for name in IMAGE_NAMES}
    return images | {DEAF_IMAGE_NAME: place / "guest-noacpi.qcow2"}


def _key() -> str:
    """Name the recipe: another recipe is another image."""
    recipe = [Path(__file__).with_name(name) for name in _SOURCES]
    return image_cache.digest_of([*recipe, *sorted(path for path in _GUEST.rglob("*") if path.is_file())])


def _build(place: Path) -> None:
    """Build both images beside their place, and mark it done last."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=place, prefix="work-") as name:
        work = Path(name)
        tree = fetch_and_unpack(work)
        kernels = sorted(tree.glob("boot/vmlinuz-*"))
        if not kernels:
            raise LabError("The kernel package holds no kernel.")
        initramfs = build_initramfs(work, _GUEST / "root", tree)
        for image, words in _VARIANTS.items():
            write_disk(work, kernels[-1], initramfs, f"{KERNEL_WORDS} {words}", place / image)
    (place / "done").touch()
