"""What a VM's first boot gets, from files that a command names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.documents import NotDone

LARGEST = 256 * 1024  # bytes of a file that is read at all; what is taken of it has its own bound


def wish_of(
    users: Sequence[str] | None, key_files: Sequence[Path] | None, script: Path | None, document: Path | None
) -> Mapping[str, Any] | None:
    """The argument `first_boot` of `add_vm_to_slice`; None when nothing was named.

    A file of keys has one a line, as `authorized_keys`; blank lines and comments are passed over.

    Raises:
        OSError: a file cannot be read.
        NotDone: it is no text, or a file of keys has none.
    """
    wish = {
        "users": list(users or ()),
        "ssh_keys": [key for file in key_files or () for key in _keys(file)],
        "start_script": _text(script) if script else "",
        "cloud_init": _text(document) if document else "",
    }
    return wish if any((users, key_files, script, document)) else None


def _keys(file: Path) -> list[str]:
    lines = [line.strip() for line in _text(file).splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise NotDone(f"There is no key in {file}.", code="first_boot.key")
    # A private key has many lines, of which the first already says what it is.
    return found[:1] if "PRIVATE KEY" in found[0] else found


def _text(file: Path) -> str:
    from cloudrepo import regular_file

    try:
        return regular_file.read(file, LARGEST).decode()
    except UnicodeDecodeError:
        raise NotDone(f"{file} is not UTF-8 text.", code="first_boot.text") from None
