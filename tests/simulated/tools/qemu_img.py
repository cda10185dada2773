"""`qemu-img`: qcow2 headers, written and read for real (qemu-img(1), docs/interop/qcow2.txt of QEMU)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from simulated.state import Answer, Call, HostState, Refusal

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQ")  # magic, version, offset and length of the backing name, cluster bits, size
LENGTH = 104


@dataclass(frozen=True)
class Header:
    """What is read of an image."""

    size: int
    backing: str = ""


def write_header(path: Path, header: Header) -> None:
    """An image without data."""
    name = header.backing.encode()
    text = HEADER.pack(MAGIC, 3, LENGTH if name else 0, len(name), 16, header.size)
    path.write_bytes(text.ljust(LENGTH, b"\0") + name)


def read_header(path: Path) -> Header | None:
    """The header of a qcow2; None for any other file."""
    with path.open("rb") as file:
        text = file.read(4096)
    if len(text) < HEADER.size or text[:4] != MAGIC:
        return None
    _, _, offset, length, _, size = HEADER.unpack(text[: HEADER.size])
    return Header(size=size, backing=text[offset : offset + length].decode())


def answer(call: Call) -> Answer:
    """One call."""
    match call.words[1:]:
        case ("--version",):
            return Answer(out="qemu-img version 7.2.19 (Debian 1:7.2+dfsg-7)\n")
        case ("info", "--output=json", path):
            return Answer(out=json.dumps(_info(call.host, path), indent=4) + "\n")
        case ("info", "--output=json", "-f", "qcow2" | "raw" as told, path):
            return Answer(out=json.dumps(_info(call.host, path, told), indent=4) + "\n")
        case ("check", "--output=json", "-f", "qcow2", path):
            return _check(call.host, path)
        case ("create", "-q", "-f", "qcow2", "-u", "-b", base, "-F", _, path, size):
            return _create(call.host, base, path, size)
    raise Refusal(f"qemu-img: this stand-in does not know {' '.join(call.words[1:])}")


def _real(host: HostState, path: str) -> Path:
    real = host.real(path)
    if not real.is_file():
        raise Refusal(f"qemu-img: Could not open '{path}': Could not open '{path}': No such file or directory")
    return real


def _info(host: HostState, path: str, told: str = "") -> dict[str, object]:
    real = _real(host, path)
    header = read_header(real) if told != "raw" else None
    if told == "qcow2" and header is None:
        raise Refusal(f"qemu-img: Could not open '{path}': Image is not in qcow2 format")
    if header is None:
        size = -(-real.stat().st_size // 512) * 512
        return {"virtual-size": size, "filename": path, "format": "raw", "actual-size": size, "dirty-flag": False}
    facts: dict[str, object] = {"virtual-size": header.size, "filename": path, "format": "qcow2", "dirty-flag": False}
    if header.backing:
        facts |= {"backing-filename": header.backing, "full-backing-filename": header.backing}
    return facts | {"format-specific": {"type": "qcow2", "data": {"compat": "1.1", "corrupt": False}}}


def _check(host: HostState, path: str) -> Answer:
    if read_header(_real(host, path)) is None:
        raise Refusal(f"qemu-img: Could not open '{path}': Image is not in qcow2 format")
    return Answer(out=json.dumps({"filename": path, "format": "qcow2", "check-errors": 0}) + "\n")


def _create(host: HostState, base: str, path: str, size: str) -> Answer:
    target = host.real(path)
    if not target.parent.is_dir():
        raise Refusal(f"qemu-img: {path}: Could not create '{path}': No such file or directory")
    write_header(target, Header(size=int(size), backing=base))
    return Answer()
