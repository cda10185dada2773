"""What a file that is to become a disk image says of itself, read by us before QEMU opens it. Pure.

QEMU follows what a header names: a file under the image, a file that holds its data, the extents of a VMware disk.
So nothing that names another file comes as far as `qemu-img`. The layout of qcow2 is docs/interop/qcow2.txt of QEMU.
"""

from __future__ import annotations

import re
import struct

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass

HEAD = 64 * 1024  # bytes from the start of a file that are looked at
TAIL = 512  # bytes from its end
SECTOR = 512

_VMDK = "vmdk (VMware), which may name further files"
#: Formats that are none of ours, by bytes at an offset of the head.
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"KDMV", _VMDK),
    (0, b"COWD", _VMDK),
    (0, b"# Disk DescriptorFile", _VMDK),
    (0, b"LUKS\xba\xbe", "luks: it is encrypted"),
    (0, b"QED\0", "qed"),
    (0, b"vhdxfile", "vhdx (Hyper-V)"),
    (0, b"conectix", "vpc (Virtual PC)"),
    (64, b"\x7f\x10\xda\xbe", "vdi (VirtualBox)"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
)
_TAILS: tuple[tuple[bytes, str], ...] = ((b"conectix", "vpc (Virtual PC)"), (b"koly", "dmg (macOS)"))
_PACKED: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
)
_VMDK_TEXT = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*version=[0-9]")  # a list of extents may begin so
_QCOW = b"QFI\xfb"
_DIRTY, _CORRUPT, _DATA_FILE = 1, 2, 4
_KNOWN_FEATURES = 0b11111  # those three, compression type, extended L2 entries
_DATA_FILE_NAME, _END = 0x44415441, 0
_V2_LENGTH, _SMALLEST_V3 = 72, 104  # bytes of a header
_SHOWN = 200  # characters of a name that an error repeats


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a fit file is.

    Attributes:
        format: `qcow2` or `raw`.
        virtual_size: what a guest sees, in bytes.
    """

    format: str
    virtual_size: int


def unfit(what: str, remedy: str = "") -> RefusedError:
    """The refusal of a file that may not become an image."""
    return RefusedError("this file cannot become an image", evidence=what, remedy=remedy, code="images.unfit")


def read(head: bytes, tail: bytes, size: int, *, told: str = "") -> Header:
    """Say what a file is, if a guest may have it as a disk.

    Args:
        head: its first `HEAD` bytes, or all.
        tail: its last `TAIL` bytes, or all.
        size: its length in bytes.
        told: the format that a person says it has; a disk without a header is believed only when it is called `raw`.

    Raises:
        RefusedError: it names another file, is encrypted, has snapshots, is damaged, packed, of another format, or
            not of the format that it is said to have.
    """
    if size == 0:
        raise unfit("it is empty")
    if head.startswith(_QCOW):
        found = _qcow2(head)
        if told not in ("", "qcow2"):
            raise unfit(f"its content is qcow2, and it is said to be {told}", "Leave the format out")
        return found
    _refuse_others(head, tail)
    if told != "raw":
        evidence = "it is no qcow2" if told == "qcow2" else "it has no header that says what it is"
        raise unfit(evidence, "If it is the plain content of a disk, say so: --format raw")
    if size % SECTOR:
        raise unfit(f"a raw disk has whole sectors of {SECTOR} bytes; it has {size} bytes, so it was cut or is no disk")
    return Header(format="raw", virtual_size=size)


def _refuse_others(head: bytes, tail: bytes) -> None:
    convert = "Convert it where it was made: qemu-img convert -O qcow2 FILE NEW"
    for offset, magic, name in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            raise unfit(f"its format is {name}; an image is qcow2 or raw", convert)
    if _VMDK_TEXT.match(head):
        raise unfit(f"its format is {_VMDK}; an image is qcow2 or raw", convert)
    for magic, name in _TAILS:
        if tail[-TAIL:].startswith(magic):
            raise unfit(f"its format is {name}; an image is qcow2 or raw", convert)
    for magic, name in _PACKED:
        if head.startswith(magic):
            raise unfit(f"it is packed ({name})", "Unpack it first")


def _qcow2(head: bytes) -> Header:
    version, backing, backing_length, _bits, size, encryption, *_tables, snapshots, _where = _fields(
        head, ">IQIIQIIQQIIQ", 4
    )
    if version not in (2, 3):
        raise unfit(f"its format is qcow version {version}; only 2 and 3 are taken")
    features, length = 0, _V2_LENGTH
    if version == 3:
        features, _compatible, _autoclear, _order, length = _fields(head, ">QQQII", _V2_LENGTH)
    if version == 3 and length < _SMALLEST_V3:
        raise unfit("its header is damaged")
    if backing:
        raise unfit(f"it has a backing file ({_text(head[backing : backing + backing_length])})", _STANDALONE)
    name = _data_file(head, length)
    if features & _DATA_FILE or name is not None:
        raise unfit(f"it keeps its data in another file ({_text(name or b'')})", _STANDALONE)
    if encryption:
        raise unfit("it is encrypted")
    if snapshots:
        raise unfit(f"it holds {snapshots} internal snapshots", _STANDALONE)
    if features & _CORRUPT:
        raise unfit("it is marked corrupt", "qemu-img check -r all FILE may repair it")
    if features & _DIRTY:
        raise unfit("it was not closed: a machine still uses it, or did when it ended", "Shut that machine down first")
    if features & ~_KNOWN_FEATURES:
        raise unfit(f"it needs features of qcow2 that are not known here ({features:#x})")
    if size == 0:
        raise unfit("a guest would see no bytes of it")
    return Header(format="qcow2", virtual_size=size)


_STANDALONE = "Make one that stands alone, where it was made: qemu-img convert -O qcow2 FILE NEW"


def _data_file(head: bytes, offset: int) -> bytes | None:
    """The name of an external data file in the header's extensions; None without one."""
    while True:
        kind, length = _fields(head, ">II", offset)
        if kind == _END:
            return None
        if kind == _DATA_FILE_NAME:
            return head[offset + 8 : offset + 8 + length]
        offset += 8 + -(-length // 8) * 8


def _fields(head: bytes, layout: str, offset: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, head, offset)
    except struct.error as error:
        raise unfit("it ends within its header, or the header is damaged") from error


def _text(name: bytes) -> str:
    return name[:_SHOWN].decode("utf-8", "replace")
