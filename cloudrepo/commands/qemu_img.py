"""`qemu-img`: questions about an image file, and overlays on top of one (qemu-img(1))."""

from __future__ import annotations

from typing import Any

from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass

BINARY = "qemu-img"
GIB = 1024**3
MIB = 1024**2

#: An image may be crafted; reading its header needs neither much memory nor much time.
LIMITS = ("prlimit", "--as=2147483648", "--cpu=60", "--")

#: Formats a base image may have. Others bring further files with them, or are slow under an overlay.
BASE_FORMATS = ("qcow2", "raw")


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What `qemu-img info` says of a file. Sizes in bytes.

    Attributes:
        format: `qcow2`, `raw`, …; a file that is no known image is called raw.
        virtual_size: what a guest sees.
        backing_file: the file under it, "" without one.
        data_file: the file that holds its data, "" when it is the file itself.
    """

    format: str
    virtual_size: int
    backing_file: str = ""
    data_file: str = ""
    is_encrypted: bool = False
    is_corrupt: bool = False


def info(path: str, image_format: str = "") -> tuple[str, ...]:
    """Ask what a file is, within limits. Neither a backing file nor a data file is opened for writing.

    Args:
        path: the file, absolute.
        image_format: what it is known to be; empty = QEMU looks for itself.
    """
    return (*LIMITS, *plain_info(path, image_format))


def plain_info(path: str, image_format: str = "") -> tuple[str, ...]:
    """As `info`, without limits: for whoever sets stricter ones."""
    told = ("-f", image_format) if image_format else ()
    return (BINARY, "info", "--output=json", *told, require_plain_path(path))


def parse_info(text: str) -> ImageInfo:
    """Read the answer of `info`.

    Raises:
        ValueError: the text is not what `qemu-img info --output=json` prints.
    """
    try:
        answer: dict[str, Any] = json_text.loads(text)
        specific: dict[str, Any] = answer.get("format-specific", {}).get("data", {})
        return ImageInfo(
            format=str(answer["format"]),
            virtual_size=int(answer["virtual-size"]),
            backing_file=str(answer.get("full-backing-filename") or answer.get("backing-filename") or ""),
            data_file=str(specific.get("data-file") or ""),
            is_encrypted=bool(answer.get("encrypted")) or "encrypt" in specific,
            is_corrupt=bool(specific.get("corrupt")),
        )
    except json_text.NOT_UNDERSTOOD as error:
        raise ValueError(f"not an answer of qemu-img info: {text[:200]!r}") from error


def refusal(image: ImageInfo) -> str:
    """Why this file may not become a base image, or an empty text."""
    if image.format not in BASE_FORMATS:
        return f"its format is {image.format}; a base image is {' or '.join(BASE_FORMATS)}"
    if image.backing_file:
        return f"it has a backing file ({image.backing_file})"
    if image.data_file:
        return f"it keeps its data in another file ({image.data_file})"
    if image.is_encrypted:
        return "it is encrypted"
    if image.is_corrupt:
        return "it is marked corrupt"
    if image.virtual_size <= 0:
        return "it is empty"
    return ""


def check(path: str) -> tuple[str, ...]:
    """Ask whether a qcow2's tables agree with its length: a copy that was cut does not pass."""
    return (*LIMITS, *plain_check(path))


def plain_check(path: str) -> tuple[str, ...]:
    """As `check`, without limits: for whoever sets stricter ones."""
    return (BINARY, "check", "--output=json", "-f", "qcow2", require_plain_path(path))


#: Exit statuses of `check`: 0 = sound, 3 = only leaked clusters, which waste room and lose nothing.
CHECK_SOUND = (0, 3)


def create_overlay(path: str, *, base: str, base_format: str, size_bytes: int) -> tuple[str, ...]:
    """Make a qcow2 that holds only what differs from `base`. An existing `path` would be overwritten.

    `-u`: the base is not opened. Its name, format and size are known, and what a crafted one names is no business of
    root's.

    Args:
        path: the overlay, absolute.
        base: the image under it, absolute, so that the overlay works from every directory.
        base_format: said outright, since a guessed format lets a guest name files of the host.
        size_bytes: what the guest sees.
    """
    return (
        *(BINARY, "create", "-q", "-f", "qcow2", "-u"),
        *("-b", require_plain_path(base), "-F", base_format),
        *(require_plain_path(path), str(size_bytes)),
    )


def overlay_size(disk_gb: float, base_virtual_size: int) -> int:
    """The larger of a flavor's disk (GiB, may be fractional) and its base, in bytes, whole MiB upwards."""
    wanted = max(round(disk_gb * GIB), base_virtual_size)
    return -(-wanted // MIB) * MIB


def require_plain_path(path: str) -> str:
    """The path, if QEMU and a text listing read it as nothing but a path.

    Raises:
        ValueError: it is not absolute (`json:` and `nbd:` are protocols), or holds a comma, a backslash or a
            control character.
    """
    if not path.startswith("/") or "," in path or "\\" in path or not path.isprintable():
        raise ValueError(f"not a plain absolute path: {path!r}")
    return path
