"""The lab's guest: a small bootable disk made from Debian's own packages.

The distribution's kernel and a busybox initramfs on a FAT disk with syslinux, as
qcow2.  It stands in for CirrOS and Ubuntu images, which cannot be downloaded
everywhere.  What runs in it are the files under ``guest/root``.

There are two: one that powers off on the ACPI button, and one that ignores it.
"""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.boot_disk import KERNEL_WORDS, write_disk
from lab.debs import fetch_and_unpack
from lab.errors import LabError
from lab.initramfs import build_initramfs
from lab.layout import DEAF_IMAGE_NAME, IMAGE_NAMES

_GUEST = Path(__file__).resolve().parent / "guest"
_SOURCES = ("guest_image.py", "boot_disk.py", "initramfs.py", "debs.py")
_KEPT_VERSIONS = 3
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
    if not (place / "done").exists():
        with one_builder(cache, "guest.lock"):  # whoever builds the router meanwhile takes long
            if not (place / "done").exists():
                say("Building the guest image (once, a few seconds)...")
                _build(place)
                forget_old(cache, "guest-*")
    images = {name: place / "guest.qcow2" for name in IMAGE_NAMES}
    return images | {DEAF_IMAGE_NAME: place / "guest-noacpi.qcow2"}


def forget_old(cache: Path, pattern: str) -> None:
    """Keep what the last few versions of the recipe made; labs have copies."""
    places = sorted(cache.glob(pattern), key=lambda place: place.stat().st_mtime)
    for place in places[:-_KEPT_VERSIONS]:
        shutil.rmtree(place, ignore_errors=True)


def place_copy(source: Path, target: Path) -> None:
    """Put an image at another path, unless the same is there already.

    A copy, not a link: whoever spoils an image of a lab (tests do) must not spoil the
    cache that other labs take theirs from.
    """
    if target.exists():
        there, wanted = target.stat(), source.stat()
        if (there.st_size, there.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
            return
    fresh = target.with_name(f".{target.name}.new")
    shutil.copy2(source, fresh)
    fresh.replace(target)


def _key() -> str:
    """Name the recipe: another recipe is another image."""
    recipe = [Path(__file__).with_name(name) for name in _SOURCES]
    return digest_of([*recipe, *sorted(path for path in _GUEST.rglob("*") if path.is_file())])


def digest_of(recipe: Iterable[Path]) -> str:
    """Name a recipe by its files."""
    digest = hashlib.sha256()
    for path in recipe:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextmanager
def one_builder(cache: Path, name: str = "lock") -> Iterator[None]:
    """Let one at a time build on this machine."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / name).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
