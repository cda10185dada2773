"""The lab's guest: a small bootable disk made from Debian's own packages.

The distribution's kernel and a busybox initramfs on a FAT disk with syslinux, as
qcow2.  It stands in for CirrOS and Ubuntu images, which cannot be downloaded
everywhere.  What runs in it are the files under ``guest/root``.

There are two: one that powers off on the ACPI button, and one that ignores it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.debs import fetch_and_unpack
from lab.errors import LabError
from lab.initramfs import build_initramfs
from lab.layout import DEAF_IMAGE_NAME, IMAGE_NAMES

_GUEST = Path(__file__).resolve().parent / "guest"
_SOURCES = ("guest_image.py", "initramfs.py", "debs.py")
_KEPT_VERSIONS = 3
_DISK_MIB = 40
_PARTITION_SECTOR = 2048
_SECTOR = 512
_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
_MBR_CODE = 440
_CONSOLES = "console=tty1 console=ttyS0"
# No fresh measuring of clocks, no waiting, no interrupt's way asked of ACPI: a guest under emulation boots in 2 s.
_HURRY = "quiet nokaslr lsm= audit=0 cryptomgr.notests mitigations=off no_timer_check acpi=noirq"
_KERNEL_WORDS = f"{_CONSOLES} {_HURRY} net.ifnames=0 panic=5"
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
        with _one_builder(cache):
            if not (place / "done").exists():
                say("Building the guest image (once, a few seconds)...")
                _build(place)
                _forget_old(cache)
    images = {name: place / "guest.qcow2" for name in IMAGE_NAMES}
    return images | {DEAF_IMAGE_NAME: place / "guest-noacpi.qcow2"}


def _forget_old(cache: Path) -> None:
    """Keep what the last few versions of the recipe made; labs have copies."""
    places = sorted(cache.glob("guest-*"), key=lambda place: place.stat().st_mtime)
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
    digest = hashlib.sha256()
    recipe = [Path(__file__).with_name(name) for name in _SOURCES]
    recipe += sorted(path for path in _GUEST.rglob("*") if path.is_file())
    for path in recipe:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextmanager
def _one_builder(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("wb") as file:
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
            _build_disk(work, kernels[-1], initramfs, words, place / image)
    (place / "done").touch()


def _build_disk(work: Path, kernel: Path, initramfs: Path, words: str, image: Path) -> None:
    """Make a disk with one bootable FAT partition; needs neither root nor loop devices."""
    config = work / "syslinux.cfg"
    config.write_text(
        "DEFAULT lab\nPROMPT 0\nTIMEOUT 0\nLABEL lab\n KERNEL vmlinuz\n"
        f" APPEND initrd=initrd {_KERNEL_WORDS} {words}\n",
        encoding="ascii",
    )
    disk = work / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(_DISK_MIB * 1024 * 1024)
    _run(["sfdisk", "--quiet", str(disk)], input=f"start={_PARTITION_SECTOR}, type=6, bootable\n")
    with disk.open("r+b") as file:
        file.write(_MBR.read_bytes()[:_MBR_CODE])
    kib = _DISK_MIB * 1024 - _PARTITION_SECTOR * _SECTOR // 1024
    _run(["mkfs.fat", "-F", "16", f"--offset={_PARTITION_SECTOR}", str(disk), str(kib)])
    offset = _PARTITION_SECTOR * _SECTOR
    target = f"{disk}@@{offset}"
    for source, name in ((kernel, "vmlinuz"), (initramfs, "initrd"), (config, "syslinux.cfg")):
        _run(["mcopy", "-i", target, str(source), f"::/{name}"])
    _run(["syslinux", "--install", "--offset", str(offset), str(disk)])
    _run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(image)])
    disk.unlink()


def _run(argv: Sequence[str], *, input: str | None = None) -> None:
    # mtools would refuse a disk whose geometry it does not like.
    env = os.environ | {"MTOOLS_SKIP_CHECK": "1", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(argv, input=input, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"The guest image was not built: {argv[0]} failed.", evidence=done.stderr)
