"""The lab's second image: Debian with FRR, iproute2, bridge tools, tcpdump and real cloud-init, for labs with routers.

A root file system made by `mmdebstrap` from the packages that the machine's own apt sources offer, on ext4, with the
distribution's kernel. What starts in it are the files under ``router/root``: busybox's init and a few programs instead
of systemd, which takes long under emulation. It is built when somebody first wants it.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab import image_cache
from lab.boot_disk import KERNEL_WORDS, write_disk
from lab.debs import kernel_packages, unpack
from lab.errors import LabError
from lab.initramfs import build_boot_archive, unsigned
from lab.packages import KERNEL_PACKAGES, distribution, release

PACKAGES = (
    *("frr", "iproute2", "bridge-utils", "tcpdump", "nftables", "traceroute", "iputils-ping"),
    *("cloud-init", "openssh-server", "sudo", "qemu-guest-agent", "busybox-static", "kmod", "procps"),
)
_HERE = Path(__file__).resolve().parent
_SOURCES = ("router_image.py", "boot_disk.py", "initramfs.py", "debs.py")
_ROOT_MIB = 640
_LIBRARY = "usr/local/lib/lab"
#: Of the kernel's modules: what networks and seeds need.
_MODULES = ("net", "lib", "crypto", "arch", "fs/isofs", "drivers/net", "drivers/cdrom", "drivers/virtio")
_MORE_MODULES = ("drivers/char", "drivers/acpi", "drivers/input")
_UNWANTED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists"),
    *("usr/share/i18n", "var/log"),
)
# On a host that is busy, FRR's watchman takes daemons that are slow to start for dead ones, and kills them.
# Nothing here starts it, but people may.
_PATIENCE = 'watchfrr_options="-T 300 -t 900"\n'


def ensure(cache: Path, *, say: Callable[[str], None] = lambda _text: None) -> Path:
    """Return the image, building it if needed.

    Args:
        cache: Folder shared by the labs of this machine.
        say: Takes a line for people when something takes long.

    Raises:
        LabError: If it cannot be built.
    """
    place = cache / f"router-{_key()}"
    image = place / "router.qcow2"
    image_cache.ensure(
        place,
        image,
        lock="lock",
        announce=lambda: say("Building the router image (once, a minute or two)..."),
        build=lambda: _build(place, image),
    )
    return image


def _key() -> str:
    files = [_HERE / name for name in _SOURCES]
    files += sorted(path for path in (_HERE / "router").rglob("*") if path.is_file())
    return image_cache.digest_of([*files, *_shared()])


def _shared() -> list[Path]:
    """Programs that it has in common with the small guest."""
    root = _HERE / "guest/root"
    return [root / "sbin/lab-net", root / "sbin/lab-agent", root / "etc/udhcpc.sh", root / "bin/fetch"]


def _build(place: Path, image: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=place, prefix="work-") as name:
        work = Path(name)
        work.chmod(0o755)  # apt fetches as an account of its own
        unpacked = unpack([*kernel_packages(KERNEL_PACKAGES[distribution()]), "mmdebstrap"], work)
        kernels = sorted(unpacked.glob("boot/vmlinuz-*"))
        if not kernels:
            raise LabError("The kernel package holds no kernel.")
        root = _debian(unpacked, work / "root")
        _add_modules(unpacked, root)
        _add_our_files(root)
        archive = build_boot_archive(work, _HERE / "router/boot", unpacked)
        raw = _file_system(root, work / "root.ext4")
        draft = work / "router.qcow2"
        write_disk(work, kernels[-1], archive, KERNEL_WORDS, draft, root=raw, is_packed=True)
        draft.replace(image)


def _debian(unpacked: Path, root: Path) -> Path:
    """A root file system of packages, by the machine's own sources."""
    tools = unpacked / "usr/bin"
    sources = [path for path in Path("/etc/apt/sources.list.d").glob("*") if path.suffix in (".list", ".sources")]
    sources += [path for path in (Path("/etc/apt/sources.list"),) if path.exists()]
    words = ["perl", str(tools / "mmdebstrap"), "--quiet", "--mode=root", "--variant=minbase", "--skip=check/empty"]
    words += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude=/{name}/*" for name in _UNWANTED[:4])]
    words += [f"--include={','.join(PACKAGES)}", release(), str(root), *map(str, sorted(sources))]
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"}
    done = subprocess.run(words, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(
            "The router image was not built: mmdebstrap failed.",
            evidence=done.stderr[-2000:],
            remedy="Its packages come by the machine's apt sources; see whether these work: sudo apt-get update",
        )
    return root


def _add_modules(unpacked: Path, root: Path) -> None:
    (source,) = unpacked.glob("lib/modules/*")
    target = root / "usr/lib/modules" / source.name
    for name in (*_MODULES, *_MORE_MODULES):
        if (source / "kernel" / name).exists():
            shutil.copytree(source / "kernel" / name, target / "kernel" / name)
    for path in target.rglob("*.ko"):  # a signature takes long to check; compressed ones keep theirs
        path.write_bytes(unsigned(path.read_bytes()))
    for path in source.glob("modules.*"):
        shutil.copy2(path, target / path.name)
    depmod = ["depmod", "-b", str(root / "usr"), source.name]
    subprocess.run(depmod, check=True, capture_output=True, env=os.environ | {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})


def _add_our_files(root: Path) -> None:
    shutil.rmtree(root / "etc/cloud/cloud.cfg.d", ignore_errors=True)  # ours says all
    shutil.copytree(_HERE / "router/root", root, dirs_exist_ok=True, copy_function=shutil.copy)
    for path in _shared():
        shutil.copy(path, root / _LIBRARY / path.name)
    (root / "etc/udhcpc.sh").symlink_to(f"/{_LIBRARY}/udhcpc.sh")
    (root / "usr/local/bin/fetch").symlink_to(f"/{_LIBRARY}/fetch")
    for name, target in (("sbin/init", "/bin/busybox"), ("bin/ash", "/bin/busybox"), ("bin/nc", "/bin/busybox")):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
    (root / "etc/hostname").write_text("router\n", encoding="ascii")
    daemons = root / "etc/frr/daemons"
    text = daemons.read_text(encoding="utf-8").replace("\nospfd=no", "\nospfd=yes")
    daemons.write_text(f"{text}\n{_PATIENCE}", encoding="utf-8")
    (root / "etc/frr/frr.conf").write_text("", encoding="ascii")  # it is there, so `write` of vtysh writes into it
    for path in root.glob("etc/ssh/ssh_host_*"):  # each router makes its own
        path.unlink()
    for name in _UNWANTED:
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "var/log").mkdir()


def _file_system(root: Path, file: Path) -> Path:
    with file.open("wb") as out:
        out.truncate(_ROOT_MIB * 1024 * 1024)
    words = ["mkfs.ext4", "-q", "-F", "-J", "size=8", "-d", str(root), str(file)]
    env = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(words, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError("The router image was not built: mkfs.ext4 failed.", evidence=done.stderr[-2000:])
    return file
