"""What people type, before anything is done with it. Each function returns the value or refuses it in a sentence."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from cloudrepo.errors import RefusedError

MAX_DATA_INTERFACES = 15  # with eth0 16 NICs: the upper half of the 32 slots of one PCI bus
MAX_SLICE_NAME = 64
SHOWN = 40  # characters of a refused value that an error repeats
QUOTED = 300  # characters of somebody's words that an error repeats

_VM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}\Z")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")
_USERNAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,30}\Z")
_INTERFACE = re.compile(r"eth(0|[1-9][0-9]{0,2})\Z")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_DIGITS = re.compile(r"[0-9]{1,15}\Z")


def shown(value: Any) -> str:
    """A refused value as an error repeats it: quoted, escaped, cut."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def excerpt(words: Any) -> str:
    """Somebody's words as an error repeats them: what is not printable escaped, cut, without quotes."""
    text = str(words)[: QUOTED + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…"


def vm_name(value: Any) -> str:
    """The name of a VM: a letter, then up to 30 letters, digits, `_` or `-`. ASCII only, for it names hosts and files.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, str) and _VM_NAME.match(value):
        return value
    raise RefusedError(
        f"a VM cannot be named {shown(value)}",
        remedy="A name is a letter, then up to 30 letters, digits, - or _",
        code="name.vm",
    )


def host_name(name: str) -> str:
    """The host name of a VM: its name with `-` for `_`, which host names do not allow, in small letters."""
    return name.replace("_", "-").rstrip("-").lower()


def unused_vm_name(record: Mapping[str, Any], name: str) -> str:
    """`name`, unless a VM of the slice has it, or one that makes the same host name.

    Raises:
        RefusedError: it is taken.
    """
    for vm in record["vms"]:
        if vm["name"] == name:
            raise RefusedError(f"slice {record['slice_id']} already has a VM named {name}", code="name.taken")
        if host_name(vm["name"]) == host_name(name):
            raise RefusedError(
                f"slice {record['slice_id']} already has VM {vm['name']}, whose host name would be the same",
                evidence=host_name(name),
                remedy="Choose a name that differs in more than case, - and _",
                code="name.taken",
            )
    return name


def slice_name(value: Any) -> str:
    """The label of a slice: 1 to 64 printable characters, not all digits, without spaces at the ends.

    The text is brought to Unicode's composed form (NFC), so that equal-looking names are equal.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value).strip(" ")
        if 1 <= len(text) <= MAX_SLICE_NAME and text.isprintable() and not text.isdecimal():
            return text
    raise RefusedError(
        f"a slice cannot be named {shown(value)}",
        remedy=f"A name has 1 to {MAX_SLICE_NAME} printable characters and is not a number",
        code="name.slice",
    )


def topology_type(value: Any) -> str:
    """The topology descriptor of a slice, such as `custom`, `linear` or `star`.

    Raises:
        RefusedError: not 1 to 32 letters, digits, `-` or `_`.
    """
    if isinstance(value, str) and _LABEL.match(value):
        return value
    raise RefusedError(
        f"a topology type cannot be {shown(value)}", remedy="Such as custom, linear or star", code="topology"
    )


def username(value: Any) -> str:
    """The name of a new user: a letter, then up to 30 letters, digits, `.`, `_` or `-`.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, str) and _USERNAME.match(value):
        return value
    raise RefusedError(
        f"a user cannot be named {shown(value)}",
        remedy="A name is a letter, then up to 30 letters, digits, dots, - or _",
        code="name.user",
    )


def interface_name(value: Any) -> str:
    """The name of an interface: `eth0`, `eth1` and so on.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, str) and _INTERFACE.match(value):
        return value
    raise RefusedError(
        f"there is no interface {shown(value)}", remedy="Interfaces are named eth0, eth1, …", code="interface"
    )


def mac_address(value: Any) -> str:
    """A hardware address: six bytes in small hex with colons.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, str) and _MAC.match(value):
        return value
    raise RefusedError(f"{shown(value)} is no MAC address", remedy="Such as 52:54:00:03:e9:00", code="mac")


def data_interfaces_count(value: Any) -> int:
    """How many interfaces a VM has beside eth0: 0 to 15.

    Raises:
        RefusedError: not a whole number, or out of bounds.
    """
    if type(value) is not int:
        raise RefusedError(
            f"the number of data interfaces cannot be {shown(value)}",
            remedy=f"Give a whole number from 0 to {MAX_DATA_INTERFACES}",
            code="interfaces.count",
        )
    if not 0 <= value <= MAX_DATA_INTERFACES:
        raise RefusedError(
            f"a VM cannot have {_number(value)} data interfaces",
            remedy=f"From 0 to {MAX_DATA_INTERFACES} are possible: with eth0 and the disk, no more fit one PCI bus",
            code="interfaces.count",
        )
    return value


def identifier(value: Any, what: str = "id") -> int:
    """The number of a slice or VM, as an int or as the digits a person typed.

    Args:
        value: what was given.
        what: what it should be, for the sentence: `slice id`.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, str) and _DIGITS.match(value.strip()):
        return int(value)
    if type(value) is int and 0 <= value < 10**15:
        return value
    text = _number(value) if type(value) is int else shown(value)
    raise RefusedError(f"{what} cannot be {text}", remedy="It is a whole number such as 1000", code="id")


def truth(value: Any, what: str) -> bool:
    """True or False, and nothing that merely counts as one.

    Raises:
        RefusedError: it is anything else.
    """
    if isinstance(value, bool):
        return value
    raise RefusedError(f"{what} cannot be {shown(value)}", remedy="It is True or False", code="truth")


def _number(value: int) -> str:
    # Beyond 4,300 digits Python refuses to print a number.
    return str(value) if abs(value) < 10**15 else f"a number of {value.bit_length()} bits"
