"""The guest's initramfs: busybox, perl, a few drivers, the guest agent and our scripts."""

import gzip
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError

_BUSYBOX = Path("/bin/busybox")
# Scripts run under dash: busybox's shell runs its own programs whatever PATH says, so no
# script of ours could stand in for one that is broken.
_SHELL = Path("/bin/dash")
# Without its library: a language in which a guest can send any frame and ask many ports at once.
_PERL = Path("/usr/bin/perl")
_AGENT = "usr/sbin/qemu-ga"

# In the order of their needs.  The power button is ``button``, heard through ``evdev``.
_MODULES = (
    "failover",
    "net_failover",
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "rng-core",
    "virtio-rng",
    "button",
    "evdev",
)

# Loaded when somebody first wants one: the kernel asks ``sbin/modprobe``, which has the same names.
_ON_DEMAND = ("cdrom", "isofs", "llc", "stp", "bridge", "mrp", "garp", "8021q")

# A signed module ends with the signature, twelve bytes about it (the last four are its size), and this.
_SIGNED, _SIGNATURE_FACTS = b"~Module signature appended~\n", 12

# Names under which the programs of busybox are found, beside those it installs itself.
_FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "etc", "lib/modules", "root", "tmp")


def build_initramfs(work: Path, scripts: Path, tree: Path) -> Path:
    """Make the archive.

    Args:
        work: Folder for it and for what it is made from.
        scripts: Our files, laid out as in the guest.
        tree: Unpacked kernel and agent packages.

    Returns:
        Path of the compressed archive.
    """
    root = work / "initramfs"
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    _add_busybox(root)
    shutil.copy2(_PERL, root / "usr/bin/perl")
    _copy_libraries(_PERL, root)
    _add_modules(root, tree, _MODULES, _ON_DEMAND)
    _add_agent(root, tree)
    # Our files last: they win over programs of the same name.
    for path in sorted(scripts.rglob("*")):
        target = root / path.relative_to(scripts)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.unlink(missing_ok=True)
            shutil.copy2(path, target)
            target.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    return _pack(root, work / "initrd")


def build_boot_archive(work: Path, scripts: Path, tree: Path) -> Path:
    """Make an archive that only finds a disk with the rest: busybox, drivers and our files.

    Args:
        work: Folder for it and for what it is made from.
        scripts: Our files, laid out as in the archive.
        tree: Unpacked kernel packages.

    Returns:
        Path of the compressed archive.
    """
    root = work / "boot-archive"
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    _add_busybox(root)
    _add_modules(root, tree, _MODULES)
    shutil.copytree(scripts, root, dirs_exist_ok=True, copy_function=shutil.copy)
    return _pack(root, work / "initrd")


def _add_busybox(root: Path) -> None:
    shutil.copy2(_BUSYBOX, root / "bin/busybox")
    listing = subprocess.run([str(_BUSYBOX), "--list"], check=True, capture_output=True, text=True).stdout
    for name in listing.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "bin/sh").unlink()
    shutil.copy2(_SHELL.resolve(), root / "bin/sh")
    _copy_libraries(_SHELL, root)


def _add_modules(root: Path, tree: Path, at_boot: Sequence[str], on_demand: Sequence[str] = ()) -> None:
    """Copy the drivers; one that is missing is built into this kernel."""
    found: dict[str, Path] = {}
    for path in tree.glob("**/lib/modules/**/*.ko*"):
        found.setdefault(path.name.partition(".ko")[0], path)
    order = []
    for name in (*at_boot, *on_demand):
        if name in found:
            order += [f"{name}.ko"] if name in at_boot else []
            _unpack_module(found[name], root / "lib/modules" / f"{name}.ko")
    (root / "lib/modules/order").write_text("\n".join(order) + "\n", encoding="ascii")


def _unpack_module(source: Path, target: Path) -> None:
    """Copy a module as the guest's insmod reads it: Ubuntu's are compressed. Its signature takes long to check."""
    tools = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"]}
    tool = tools.get(source.suffix, ["cat"])
    done = subprocess.run([*tool, str(source)], check=True, stdout=subprocess.PIPE)
    target.write_bytes(unsigned(done.stdout))


def unsigned(module: bytes) -> bytes:
    """A kernel module without the signature at its end (linux/module_signature.h); any other file as it is."""
    rest = module.removesuffix(_SIGNED)
    if rest == module:
        return module
    (size,) = struct.unpack(">I", rest[-4:])
    return rest[: -_SIGNATURE_FACTS - size]


def _add_agent(root: Path, tree: Path) -> None:
    """Copy the guest agent with the libraries that the machine would give it."""
    agent = tree / _AGENT
    if not agent.exists():
        raise LabError("The guest agent's package holds no agent.")
    shutil.copy2(agent, root / "usr/sbin/qemu-ga")
    _copy_libraries(agent, root)


def _copy_libraries(program: Path, root: Path) -> None:
    """Copy what a program is linked with, from the machine."""
    listing = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        if "not found" in line:
            raise LabError(f"The guest's {program.name} lacks a library: {line.strip()}")
        for word in line.replace("=>", " ").split():
            if word.startswith("/"):
                _copy_library(Path(word), root)


def _copy_library(library: Path, root: Path) -> None:
    target = root / library.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(library.resolve(), target)


def _pack(root: Path, archive: Path) -> Path:
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    packed = subprocess.run(
        ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"],
        cwd=root,
        input="\n".join(names).encode() + b"\n",
        check=True,
        capture_output=True,
    )
    archive.write_bytes(gzip.compress(packed.stdout, 9, mtime=0))
    return archive
