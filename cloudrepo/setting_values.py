"""Reading settings: from YAML with line numbers, from the environment, each value checked against its row."""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from cloudrepo import bounded_yaml, regular_file
from cloudrepo.bounded_yaml import problem_of
from cloudrepo.errors import SettingsError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.link_switches import NAMES as SWITCHES
from cloudrepo.validation import excerpt, shown

UNLIMITED = "unlimited"

_PREFIX = "CLOUDREPO_"
_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_FLAVOR_KEYS = ("cores", "ram_gb", "disk_gb", "image")
_LINKS = ipaddress.IPv4Network("192.168.0.0/16")  # see `allocation.link_addresses`
_MAC_PREFIX = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){2}\Z")
_FLAVOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}\Z")
_MEND = "Mend that line; the file was only read"
_LARGEST = 1 << 20  # bytes of settings.yaml; one with a thousand flavors has a tenth


@dataclass(frozen=True)
class Row:
    """One key of the table: its dotted name, type, default, unit, meaning and the bounds of a number."""

    key: str
    kind: Any
    default: Any
    unit: str
    text: str
    low: float | None
    high: float | None


def env_name(key: str) -> str:
    """The variable that overrides a key."""
    return _PREFIX + key.replace(".", "_").upper()


class Reader:
    """Collects checked values by dotted key; later sources win."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {row.key: row for row in rows}
        self._groups = {key.partition(".")[0] for key in self._rows if "." in key}
        self.values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}

    def origin_of(self, key: str, *, is_in_file: bool) -> tuple[str, str]:
        """Who gave a key its value (`environment`, `file`, `default`), and where that stands."""
        where = self._origins.get(key, "")
        if where == env_name(key):
            return "environment", where
        return ("file", where) if is_in_file else ("default", "")

    def set(self, key: str, value: Any, *, origin: str) -> None:
        """Take one value.

        Raises:
            SettingsError: no such key, or the value does not fit; `origin` says where it stands.
        """
        row = self._rows.get(key)
        if row is None:
            raise self._unknown(key, origin)
        try:
            self.values[key] = _checked(row, value)
            self._origins[key] = origin
        except (ValueError, OverflowError) as error:
            raise SettingsError(
                f"{origin}: setting {key} cannot be {_repeated(value)}",
                evidence="it is too large a number" if isinstance(error, OverflowError) else excerpt(error),
                remedy=f"`{key}` in docs/settings.md says what can stand there",
                code="settings.value",
            ) from error

    def read_file(self, path: Path) -> None:
        """Take all values of a YAML file; a missing or empty one has none.

        Raises:
            SettingsError: not YAML, not a mapping, a key twice, or as `set`; with the line.
        """
        try:
            root = bounded_yaml.Bounded().compose(regular_file.read(path, _LARGEST).decode())
        except FileNotFoundError:
            return
        except OSError as error:
            remedy = f"Make {path} a file that this account may read, or move it away: without it all is as shipped"
            raise SettingsError(
                f"{path} cannot be read", evidence=error.strerror or str(error), remedy=remedy
            ) from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"{path} cannot be read", evidence=problem_of(error), remedy=_MEND) from error
        if root is None:
            return
        seen: set[str] = set()
        for key, node, line in self._walk(root, "", path):
            origin = f"{path} line {line}"
            if key in seen:
                raise SettingsError(
                    f"{origin}: setting {excerpt(key)} is given twice", remedy="Remove one of the two lines"
                )
            seen.add(key)
            self.set(key, self._value(key, node, origin), origin=origin)

    def _walk(self, node: yaml.Node, prefix: str, path: Path) -> Iterable[tuple[str, yaml.Node, int]]:
        if not isinstance(node, yaml.MappingNode):
            where = f"{path} line {node.start_mark.line + 1}"
            what = f"group {prefix.rstrip('.')}" if prefix else "the file"
            raise SettingsError(
                f"{where}: {what} must be keys with values",
                remedy="Such as `ssh:` and below it, indented, `user: ubuntu`; docs/settings.md lists all keys",
            )
        groups: set[str] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise SettingsError(f"{path} line {line}: a key is a list or a mapping, not a word", remedy=_MEND)
            key = f"{prefix}{key_node.value}"
            if key not in self._groups:
                yield key, value_node, line
                continue
            if key in groups:
                raise SettingsError(f"{path} line {line}: group {key} is given twice", remedy="Make one of the two")
            groups.add(key)
            if not (isinstance(value_node, yaml.ScalarNode) and value_node.value == ""):
                yield from self._walk(value_node, f"{key}.", path)

    def _value(self, key: str, node: yaml.Node, origin: str) -> Any:
        row = self._rows.get(key)
        if row is not None and isinstance(node, yaml.ScalarNode) and _is_text(row):
            return node.value  # as written: YAML would read 52:54:00 as a number, and on as true
        try:
            return bounded_yaml.value_of(node)
        except yaml.YAMLError as error:
            raise SettingsError(
                f"{origin}: the value cannot be read", evidence=problem_of(error), remedy=_MEND
            ) from error

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Take all `CLOUDREPO_*` variables that name a key; other variables of that prefix are not settings.

        Raises:
            SettingsError: a variable begins like a group of settings but names none, or as `set`.
        """
        names = {env_name(key): key for key in self._rows}
        for variable in sorted(environ):
            if not variable.startswith(_PREFIX):
                continue
            key = names.get(variable)
            if key is not None:
                self.set(key, _from_text(self._rows[key], environ[variable], variable), origin=variable)
            elif variable.removeprefix(_PREFIX).partition("_")[0].lower() in self._groups:
                near = difflib.get_close_matches(excerpt(variable), names, 1, 0.0)[0]
                raise SettingsError(
                    f"there is no setting for the variable {excerpt(variable)}", remedy=f"The nearest is {near}"
                )

    def _unknown(self, key: str, origin: str) -> SettingsError:
        near = difflib.get_close_matches(excerpt(key), self._rows, 1, 0.0)[0]
        return SettingsError(
            f"{origin}: there is no setting {excerpt(key)}",
            remedy=f"The nearest is {near}",
            code="settings.unknown",
            details={"key": excerpt(key), "nearest": near},
        )


def _repeated(value: Any) -> str:
    """A refused value, so long that it can be found again in the file."""
    return excerpt(repr(value)) if isinstance(value, str | float | bool | None) else shown(value)


def _is_text(row: Row) -> bool:
    return row.kind is str or get_origin(row.kind) is Literal


def _from_text(row: Row, text: str, variable: str) -> Any:
    """A variable's text as the YAML value it stands for; text stays text where text is wanted."""
    if _is_text(row):
        return text
    try:
        return bounded_yaml.load(text)
    except yaml.YAMLError as error:
        remedy = f"Set {variable} to a value as it would stand in settings.yaml, or unset it"
        raise SettingsError(f"{variable} cannot be read", evidence=problem_of(error), remedy=remedy) from error


def _checked(row: Row, value: Any) -> Any:
    """`value` in the type of its row.

    Raises:
        ValueError: it does not fit; the text says what would.
    """
    kind = row.kind
    if row.key in _SPECIAL:
        return _SPECIAL[row.key](value)
    if get_origin(kind) is Literal:
        return _choice(get_args(kind), value)
    if kind is bool:
        return _switch(value)
    if kind is str:
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError("a text on one line is wanted, of characters that can be seen")
        return value
    return _number(row, value)


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, bool):  # YAML reads on and off as true and false
        value = "on" if value else "off"
    if value in choices:
        return value
    near = difflib.get_close_matches(excerpt(value), choices, 1)
    hint = f"; {near[0]} is the nearest" if near else ""
    raise ValueError(f"one of {', '.join(choices)} is wanted{hint}")


def _switch(value: Any) -> bool:
    text = str(value).lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise ValueError("true or false is wanted")


def _number(row: Row, value: Any) -> Any:
    whole = row.kind is int
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not math.isfinite(value):
        raise ValueError("a whole number is wanted" if whole else "a number is wanted")
    if (row.low is not None and value < row.low) or (row.high is not None and value > row.high):
        if row.high is None:
            raise ValueError(f"at least {row.low:g} is wanted")
        raise ValueError(f"a number from {row.low:g} to {row.high:g} is wanted")
    return value if whole else float(value)


def _wait(value: Any) -> float:
    if value == "forever" or value == math.inf:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError("seconds (0 or more) or the word forever is wanted")
    return float(value)


def _quota(value: Any) -> float | str:
    if value == UNLIMITED:
        return UNLIMITED
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"a number from 0 on, or the word {UNLIMITED} is wanted")
    return value


def _subnet(value: Any) -> str:
    try:
        network = ipaddress.IPv4Network(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"an IPv4 subnet such as 10.60.7.0/24 is wanted ({error})") from error
    if not 8 <= network.prefixlen <= 28:
        raise ValueError("a subnet from /8 to /28 is wanted: gateway, DHCP server and guests must fit")
    if network.overlaps(_LINKS):
        raise ValueError(f"{_LINKS} holds the subnets of links; a VM with both would not know the way")
    return str(network)


def _denied(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("a list of IPv4 subnets is wanted, such as [10.0.0.0/8, 192.168.1.7]")
    try:
        networks = {ipaddress.IPv4Network(one if isinstance(one, str) else "") for one in value}
    except ValueError as error:
        raise ValueError(f"a list of IPv4 subnets is wanted, such as [10.0.0.0/8, 192.168.1.7] ({error})") from error
    if any(not network.prefixlen for network in networks):
        raise ValueError("0.0.0.0/0 is the whole internet; VMs without internet access reach none of it")
    return tuple(str(network) for network in sorted(networks))


def _address(value: Any, *, empty: bool = False) -> str:
    if empty and value == "":
        return ""
    try:
        return str(ipaddress.IPv4Address(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise ValueError("an IPv4 address is wanted" + (", or nothing" if empty else "")) from error


def _ports(value: Any) -> str:
    """A range of ports, or nothing."""
    first, _, last = str(value).partition("-")
    if value == "":
        return ""
    if not (first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) <= 65535):
        raise ValueError("two ports from 1024 on, such as 7001-7060, are wanted, or nothing")
    return f"{int(first)}-{int(last)}"


def ports_of(text: str) -> range:
    """The ports of a checked range; none of an empty one."""
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1) if text else range(0)


def _reserved(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(type(vlan) is int and 1 <= vlan <= 4094 for vlan in value):
        raise ValueError("a list of VLANs from 1 to 4094 is wanted")
    return tuple(sorted({*value, 400}))


def _words(value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, (list, tuple))
    if not is_list or not all(isinstance(word, str) and word and word.isprintable() for word in value):
        raise ValueError("a list of texts is wanted, such as [first, second]")
    return tuple(value)


def _link_switches(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(word in SWITCHES for word in value):
        raise ValueError(f"a list of {', '.join(SWITCHES)} is wanted, or [] for none")
    return tuple(name for name in SWITCHES if name in value)


def _mac_prefix(value: Any) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if not _MAC_PREFIX.match(text) or int(text[:2], 16) & 1:
        raise ValueError("three bytes such as 52:54:00 are wanted, the first one even (not multicast)")
    return text


def _flavors(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("at least one flavor is wanted, as name and values")
    return {_flavor_name(name): _flavor(name, spec) for name, spec in value.items()}


def _flavor_name(name: Any) -> str:
    if not isinstance(name, str) or not _FLAVOR_NAME.match(name):
        raise ValueError(f"flavor name {name!r}: letters, digits, dot, dash and underscore are allowed")
    return name


def _flavor(name: str, spec: Any) -> dict[str, Any]:
    if not isinstance(spec, Mapping) or set(spec) != set(_FLAVOR_KEYS):
        raise ValueError(f"flavor {name} needs exactly the keys {', '.join(_FLAVOR_KEYS)}")
    for key in _FLAVOR_KEYS[:3]:
        number = spec[key]
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1e6:
            raise ValueError(f"flavor {name}: {key} must be a number above 0 and below a million")
    if not isinstance(spec["cores"], int):
        raise ValueError(f"flavor {name}: cores must be a whole number")
    if not isinstance(spec["image"], str) or not spec["image"]:
        raise ValueError(f"flavor {name}: image must be the path of a file")
    return {key: spec[key] for key in _FLAVOR_KEYS}


_SPECIAL = {
    "discovery.wait": _wait,
    "quota.cores": _quota,
    "quota.ram_gb": _quota,
    "quota.disk_gb": _quota,
    "internet.cidr": _subnet,
    "internet.dns": _address,
    "network.deny": _denied,
    "links.dns": lambda value: _address(value, empty=True),
    "links.student_switches": _link_switches,
    "vnc.bind": _address,
    "vnc.tunnels": _ports,
    "vlan.reserved": _reserved,
    "mac.prefix": _mac_prefix,
    "monitor.hook": _words,
    "smtp.to": _words,
    "flavors": _flavors,
}
