"""A disk that boots: a FAT partition with kernel, first file system and syslinux, and what comes after it.

Needs neither root nor loop devices: every tool works on the file itself.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError

BOOT_MIB = 40
_PARTITION_SECTOR = 2048
_SECTOR = 512
BOOT_OFFSET = _PARTITION_SECTOR * _SECTOR  #: where the FAT partition begins, in bytes
_MIB = 1024 * 1024
_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
_MBR_CODE = 440
_CONSOLES = "console=tty1 console=ttyS0"
# No fresh measuring of clocks, no waiting, no interrupt's way asked of ACPI: a guest under emulation boots in 2 s.
_HURRY = "quiet nokaslr lsm= audit=0 cryptomgr.notests mitigations=off no_timer_check acpi=noirq"
KERNEL_WORDS = f"{_CONSOLES} {_HURRY} net.ifnames=0 panic=5"


def write_disk(
    work: Path,
    kernel: Path,
    initramfs: Path,
    words: str,
    image: Path,
    *,
    root: Path | None = None,
    is_packed: bool = False,
) -> None:
    """Make a qcow2 of a bootable disk.

    Args:
        work: Folder for what it is made from.
        kernel: The kernel.
        initramfs: Its first file system.
        words: What the kernel is told.
        image: Where the qcow2 goes.
        root: A file system that becomes the second partition.
        is_packed: Whether the qcow2 is compressed.

    Raises:
        LabError: If a tool fails.
    """
    config = work / "syslinux.cfg"
    config.write_text(
        f"DEFAULT lab\nPROMPT 0\nTIMEOUT 0\nLABEL lab\n KERNEL vmlinuz\n APPEND initrd=initrd {words}\n",
        encoding="ascii",
    )
    disk = work / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(BOOT_MIB * _MIB + (root.stat().st_size if root is not None else 0))
    boot_sectors = BOOT_MIB * _MIB // _SECTOR - _PARTITION_SECTOR
    table = f"start={_PARTITION_SECTOR}, size={boot_sectors}, type=6, bootable\n"
    if root is not None:
        table += f"start={BOOT_MIB * _MIB // _SECTOR}, type=83\n"
    _run(["sfdisk", "--quiet", str(disk)], input=table)
    with disk.open("r+b") as file:
        file.write(_MBR.read_bytes()[:_MBR_CODE])
    _run(["mkfs.fat", "-F", "16", f"--offset={_PARTITION_SECTOR}", str(disk), str(boot_sectors * _SECTOR // 1024)])
    target = f"{disk}@@{BOOT_OFFSET}"
    for source, name in ((kernel, "vmlinuz"), (initramfs, "initrd"), (config, "syslinux.cfg")):
        _run(["mcopy", "-i", target, str(source), f"::/{name}"])
    _run(["syslinux", "--install", "--offset", str(BOOT_OFFSET), str(disk)])
    if root is not None:
        place = [f"of={disk}", "conv=notrunc,sparse", "bs=1M", f"seek={BOOT_MIB}", "status=none"]
        _run(["dd", f"if={root}", *place])
    packed = ["-c", "-o", "compression_type=zstd"] if is_packed else []  # zlib takes four times as long
    _run(["qemu-img", "convert", *packed, "-f", "raw", "-O", "qcow2", str(disk), str(image)])
    disk.unlink()


def _run(argv: Sequence[str], *, input: str | None = None) -> None:
    # mtools would refuse a disk whose geometry it does not like.
    env = os.environ | {"MTOOLS_SKIP_CHECK": "1", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(argv, input=input, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"The image was not built: {argv[0]} failed.", evidence=done.stderr)
