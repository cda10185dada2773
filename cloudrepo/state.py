"""The shape of the state: the documented keys, what fills gaps, what is derived, and its sections.

The state is a mapping of plain values (`Database.data`). Its *sections* are the parts that change on their
own: each user, each worker, each slice, and every other top-level key. Sections are what is compared,
merged with other processes' changes, rendered and rolled back.
"""

from __future__ import annotations

import json
import marshal
import re
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from typing import Any

from cloudrepo import link_ends, link_switches, screen_password
from cloudrepo.permissions import EARLIER, ROLES
from cloudrepo.setting_values import UNLIMITED
from cloudrepo.totals import Totals

Record = dict[str, Any]
Key = tuple[str, str]  # ("slices", "1000"), ("users", "admin"), ("workers_list", "")

SCHEMA_VERSION = 1
DEFAULT_WORKERS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")
FIRST_ID = 1000
REVISION = "revision"  # of the state, in the file; no section of it
COLLECTIONS = ("users", "workers", "slices")
DOCUMENTED_KEYS = ("users", "workers", "workers_list", "slices", "next_vm_id", "next_vlan_id")
KEY_ORDER = (
    *("schema_version", REVISION, "installation", "operation", "placements", "next_vm_id", "next_vlan_id"),
    *("workers_list", "users", "workers"),
)

NOT_PLAIN = "a value is neither text, number, list nor mapping (a date needs quotes)"

_DEEPEST = 50  # that a place is said of
_MARSHAL_VERSION = 2  # later ones depend on which objects are shared, not only on values
_HALF = re.compile(rb"\xed[\xa0-\xbf]")  # half a character in a fingerprint; or a number, by chance
_USER: Record = {"password_hash": "", "quota_vms": 10, "used_vms": 0, "slices": []}
_WORKER: Record = {
    **{"max_vms": 10, "max_cores": 2, "max_ram_gb": 1, "max_disk_gb": 500},
    **{"used_cores": 0, "used_ram_gb": 0, "used_disk_gb": 0},
}
_SLICE: Record = {
    **{"name": "", "owner": "", "topology_type": "custom", "status": "design"},
    **{"vlan_pool_start": None, "vlan_pool_end": None, "vms": [], "links": []},
}
_VM: Record = {
    **{"owner": "", "worker_ip": "", "flavor": "", "cores": 1, "ram_gb": 0.5, "disk_gb": 1, "vnc_port": None},
    **{"interfaces": [], "qcow_image": None, "status": "design", "pid": None},
}
_INTERFACE: Record = {"vlan_id": None, "ip_config": None, "link_id": None}
_COUNTERS: Record = {
    **{"schema_version": SCHEMA_VERSION, "operation": 0, "placements": 0},
    **{"next_vm_id": FIRST_ID, "next_vlan_id": 100},
}
_PART = {"users": "user", "workers": "worker", "slices": "slice"}
_LINK_KEYS = ("link_id", "vlan_id", "vm1_id", "vm1_interface", "vm2_id", "vm2_interface")


class ShapeError(ValueError):
    """The values of a state file do not have the shape of one.

    Attributes:
        path: where, as keys and list positions from the top.
    """

    def __init__(self, path: Iterable[Any], problem: str) -> None:
        super().__init__(problem)
        self.path = tuple(path)


def fresh(users: Mapping[str, Record]) -> Record:
    """The documented content of a new installation with these users."""
    return normalise({"users": dict(users), "workers_list": list(DEFAULT_WORKERS)})


# ---------------------------------------------------------------------------------------- looking up


def all_slices(data: Mapping[str, Any]) -> ValuesView[Record]:
    """Every slice, only to be looked at: a change of one would not be noticed (`cloudrepo.tracking`)."""
    return dict.values(data["slices"])


def find_slice(data: Mapping[str, Any], slice_id: int | str) -> Record | None:
    """The record of a slice, or None."""
    found: Record | None = data["slices"].get(str(slice_id))
    return found


def find_vm(record: Mapping[str, Any], vm_id: int) -> Record | None:
    """The record of a VM of a slice, or None."""
    return next((vm for vm in record["vms"] if vm["vm_id"] == vm_id), None)


# ---------------------------------------------------------------------------------------- sections


def sections(data: Mapping[str, Any]) -> dict[Key, Any]:
    """The state cut into its sections, in the order they are written. Values are shared, not copied.

    Raises:
        ShapeError: users, workers or slices are not mappings.
    """
    rest = [key for key in data if key not in KEY_ORDER and key != "slices"]
    found: dict[Key, Any] = {}
    for top in (*(key for key in KEY_ORDER if key in data), *rest, "slices"):
        if top in COLLECTIONS:
            found.update({(top, key): value for key, value in _mapping(data.get(top), (top,)).items()})
        else:
            found[top, ""] = data[top]
    return found


def fingerprints(data: Mapping[str, Any]) -> dict[Key, bytes]:
    """Each section as bytes that are equal exactly when the values are; `restored` is the inverse.

    Raises:
        ShapeError: a value is not plain (text, number, truth value, None, list, mapping).
    """
    return {key: fingerprint(value, key) for key, value in sections(data).items()}


def state_of(prints: Mapping[Key, bytes]) -> Record:
    """The state that these sections make, as copies.

    Raises:
        ShapeError: they make none.
    """
    data: Record = {top: {} for top in COLLECTIONS}
    for (top, name), printed in prints.items():
        if top in COLLECTIONS:
            data[top][name] = restored(printed)
        else:
            data[top] = restored(printed)
    return normalise(data)


def key_text(key: Key) -> str:
    """A section's key in one word: `slices/1000`, `workers_list`; `/users/x` is a key of the file itself."""
    top, name = key
    if top in COLLECTIONS:
        return f"{top}/{name}"
    return f"/{top}" if top.partition("/")[0] in ("", *COLLECTIONS) and top else top


def text_key(text: str) -> Key:
    """The inverse of `key_text`."""
    top, slash, name = text.partition("/")
    if slash and top in COLLECTIONS:
        return top, name
    return text.removeprefix("/"), ""


def essence(key: Key, printed: bytes) -> bytes:
    """A section's fingerprint without what is derived from other sections."""
    derived = {"users": ("slices", "used_vms"), "workers": ("used_cores", "used_ram_gb", "used_disk_gb")}.get(key[0])
    if not derived:
        return printed
    return fingerprint({part: value for part, value in restored(printed).items() if part not in derived})


def fingerprint(value: Any, where: Iterable[Any] = ()) -> bytes:
    """A plain value as bytes.

    Raises:
        ShapeError: it is not plain.
    """
    try:
        return marshal.dumps(value, _MARSHAL_VERSION)
    except ValueError as error:
        raise ShapeError(_culprit(tuple(where), value), NOT_PLAIN) from error


def _culprit(path: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """Where in a value, which is not plain, that begins; of what contains itself, some place within."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for part, entry in pairs:
        for each in (part, entry):
            try:
                marshal.dumps(each, _MARSHAL_VERSION)
            except ValueError:
                return _culprit((*path, part), entry) if len(path) < _DEEPEST else path
    return path


def storable(value: Any, key: Key) -> bytes:
    """The fingerprint of a section that is to be acknowledged: UTF-8 can hold every text in it.

    Raises:
        ShapeError: it is not plain, or holds half a character, as undecodable bytes become by `surrogateescape`.
    """
    printed = fingerprint(value, key)
    if _HALF.search(printed) or not "".join(map(str, key)).isascii():
        for path, text in _texts(tuple(filter(None, key)), value):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                where = (shown(part) if isinstance(part, str) else part for part in path)
                found = ascii(text[error.start : error.end])
                raise ShapeError(where, f"a text holds {found}, which is no character") from error
    return printed


def shown(text: str) -> str:
    """A text as it can be printed anywhere: half a character as its number."""
    return text.encode(errors="backslashreplace").decode()


def _texts(path: tuple[Any, ...], value: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    """All texts of a plain value and of the keys that lead to it, with their places."""
    if path and isinstance(path[-1], str):
        yield path, path[-1]
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for part, entry in value.items():
            yield from _texts((*path, part), entry)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _texts((*path, index), entry)


def restored(printed: bytes) -> Any:
    """The value behind a fingerprint, as a copy of its own. Only ever given what this process printed."""
    return marshal.loads(printed)  # noqa: S302 - never read from a file


# ---------------------------------------------------------------------------------------- canonical form


def settle(data: Record, changed: Iterable[Key]) -> None:
    """Bring changed sections to canonical form, in place, but for what is derived (`cloudrepo.totals`).

    So whatever is written can be read: a record that could not is refused here.

    Args:
        data: the state.
        changed: keys of the sections that may not be in canonical form; those that are gone are no matter.

    Raises:
        ShapeError: a section is none.
    """
    for key in (key for key in DOCUMENTED_KEYS if key not in data):
        raise ShapeError((key,), "the state has lost this key")
    for top, name in changed:
        if top not in COLLECTIONS:
            _settle_top(data, top)
        elif name in data[top]:
            value = data[top][name]
            record = _entry(top, name, value, data["users"])
            if record != value or not isinstance(name, str):
                del data[top][name]
                if str(name) in data[top]:
                    raise ShapeError((top, name), f"{_PART[top]} {name} is there twice, as number and as text")
                data[top][str(record["slice_id"]) if top == "slices" else str(name)] = record
            if top == "slices":
                data["next_vm_id"] = max(data["next_vm_id"], *(number + 1 for number in _ids(record)))


def canonical(key: Key, value: Any) -> Any:
    """The value of one section in canonical form.

    Raises:
        ShapeError: it is none, or not plain.
    """
    top, name = key
    if top in COLLECTIONS:
        value = _entry(top, name, value, {})
    else:
        data = {top: value}
        _settle_top(data, top)
        value = data[top]
    fingerprint(value, key)
    return value


def _text_keys(raw: Mapping[Any, Any]) -> Record:
    """The top-level keys as text, in the form that nested ones get in a journal: `5` as `"5"`."""
    found: Record = {}
    for key, value in raw.items():
        try:
            name = key if isinstance(key, str) else json.dumps(key)
        except TypeError as error:
            raise ShapeError((key,), f"a key is a {_kind(key)}, which needs quotes") from error
        if name in found:
            raise ShapeError((key,), f"the key {name} is there twice, as text and as something else")
        found[name] = value
    return found


def _entry(top: str, name: Any, value: Any, users: Mapping[str, Record]) -> Record:
    return _slice(name, value, users) if top == "slices" else _ENTRY[top](str(name), value)


def _settle_top(data: Record, top: str) -> None:
    if not isinstance(top, str):
        raise ShapeError((top,), f"a key of the state is a text, found a {_kind(top)}")
    if top in ("workers_list", "drained"):
        data[top] = _addresses(top, data.get(top))
    elif top == REVISION and top in data:
        raise ShapeError((top,), "this key belongs to the store, which counts there by itself")
    elif top == "installation" and not _is_installation(data.get(top, "00000000")):
        raise ShapeError((top,), "eight hex digits in quotes are wanted")
    elif top == "schema_version" and _whole(data, top, (), SCHEMA_VERSION) > SCHEMA_VERSION:
        raise ShapeError((top,), f"schema {data[top]} was written by a newer version of this program")
    elif top in _COUNTERS:
        _whole(data, top, (), _COUNTERS[top])


# ---------------------------------------------------------------------------------------- reading


def normalise(raw: Any) -> Record:
    """The state in `raw`, in its one canonical form: gaps filled, keys as text, derived values recomputed.

    Unknown keys are kept. Integer and text keys of slices are both taken.

    Raises:
        ShapeError: `raw` is not a state.
    """
    if raw is None:
        raise ShapeError((), "the file is empty")
    if not isinstance(raw, dict):
        raise ShapeError((), f"the file holds a {_kind(raw)}, not the keys of a state file")
    raw = _text_keys(raw)
    if not any(key in raw for key in DOCUMENTED_KEYS):
        raise ShapeError((), f"none of the keys {', '.join(DOCUMENTED_KEYS)} is there: this is not a state file")
    data: Record = {**_COUNTERS, "workers_list": list(DEFAULT_WORKERS), **raw}
    for top in COLLECTIONS:
        data[top] = dict(_mapping({} if raw.get(top) is None else raw[top], (top,)))
    settle(data, list(sections(data)))
    Totals(data).fill(data)
    data["schema_version"] = SCHEMA_VERSION
    data["slices"] = dict(sorted(data["slices"].items(), key=lambda item: int(item[0])))
    fingerprints(data)  # says what is not plain
    return data


def _ids(record: Mapping[str, Any]) -> list[int]:
    return [record["slice_id"], *(vm["vm_id"] for vm in record["vms"])]


def _is_installation(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 8 and set(value) <= set("0123456789abcdef")


def _kind(value: Any) -> str:
    names = {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}
    return names.get(type(value), type(value).__name__)


def _mapping(value: Any, path: tuple[Any, ...]) -> Record:
    if not isinstance(value, dict):
        raise ShapeError(path, f"a mapping is wanted, found a {_kind(value)}")
    return value


def _list(record: Record, key: str, path: tuple[Any, ...]) -> list[Any]:
    value = record.get(key)
    if value is None:
        value = []
    if isinstance(value, dict):  # by id, as some write it
        value = list(value.values())
    if not isinstance(value, list):
        raise ShapeError((*path, key), f"a list is wanted, found a {_kind(value)}")
    record[key] = value
    return value


def _whole(record: Mapping[str, Any], key: str, path: tuple[Any, ...], default: int | None = None) -> int:
    value = record.get(key, default)
    if type(value) is not int or value < 0:
        found = "nothing" if value is None else repr(value)
        raise ShapeError((*path, key) if key in record else path, f"{key}: a whole number is wanted, found {found}")
    return value


def _number(record: Mapping[str, Any], key: str, path: tuple[Any, ...]) -> None:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ShapeError((*path, key) if key in record else path, f"{key}: a number is wanted, found {value!r}")


def _text(record: Mapping[str, Any], key: str, path: tuple[Any, ...]) -> None:
    value = record.get(key)
    if not isinstance(value, str):
        found = "nothing" if value is None else f"a {_kind(value)}"
        raise ShapeError((*path, key) if key in record else path, f"{key}: a text is wanted, found {found}")


def _addresses(key: str, value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ShapeError((key,), f"a list of addresses is wanted, found a {_kind(value)}")
    for index, worker in enumerate(value):
        if not isinstance(worker, str) or not worker:
            raise ShapeError((key, index), "an address is wanted")
    return list(dict.fromkeys(value))


def _user(name: str, value: Any) -> Record:
    path = ("users", name)
    user = {"username": name, **_USER, **_mapping(value, path)}
    _text(user, "username", path)
    _text(user, "password_hash", path)
    _whole(user, "quota_vms", path)
    if user.get("role") not in (None, *ROLES, *EARLIER):
        raise ShapeError((*path, "role"), f"role: one of {', '.join(ROLES)} is wanted, found {user['role']!r}")
    for key in ("quota_cores", "quota_ram_gb", "quota_disk_gb"):
        if user.get(key) not in (None, UNLIMITED):
            _number(user, key, path)
    if user["username"] != name:
        raise ShapeError((*path, "username"), f"the user is listed as {name} but named {user['username']}")
    user["slices"] = list(_list(user, "slices", path))
    return user


def _worker(ip: str, value: Any) -> Record:
    path = ("workers", ip)
    worker = {"ip": ip, **_WORKER, **_mapping(value, path)}
    for key in ("max_vms", "max_cores", "max_ram_gb", "max_disk_gb"):
        _number(worker, key, path)
    return worker


def _slice(key: Any, value: Any, users: Mapping[str, Record]) -> Record:
    path: tuple[Any, ...] = ("slices", key)
    if not (type(key) is int or (isinstance(key, str) and key.isascii() and key.isdigit())):
        raise ShapeError(path, f"a slice is listed under its number, found {key!r}")
    slice_id = int(key)
    record: Record = {"slice_id": slice_id, **_SLICE, **_mapping(value, path)}
    if _whole(record, "slice_id", path) != slice_id:
        raise ShapeError((*path, "slice_id"), f"the slice is listed as {slice_id} but numbered {record['slice_id']}")
    if not record["owner"]:
        listed = [name for name, user in users.items() if {slice_id, str(slice_id)} & set(user["slices"])]
        record["owner"] = listed[0] if listed else ""
    for key in ("name", "owner", "topology_type", "status"):
        _text(record, key, path)
    for key in ("vlan_pool_start", "vlan_pool_end"):
        if record[key] is not None:
            _whole(record, key, path)
    if (record["vlan_pool_start"] is None) != (record["vlan_pool_end"] is None):
        raise ShapeError(path, "vlan_pool_start and vlan_pool_end belong together: two numbers, or both null")
    vms = _list(record, "vms", path)
    record["vms"] = [_vm(vm, (*path, "vms", index), record["owner"]) for index, vm in enumerate(vms)]
    links = _list(record, "links", path)
    record["links"] = [_link(link, (*path, "links", index)) for index, link in enumerate(links)]
    return record


def _vm(value: Any, path: tuple[Any, ...], owner: str) -> Record:
    given = _mapping(value, path)
    vm: Record = {**dict.fromkeys(("vm_id", "name")), **_VM, "owner": owner, **given}
    if isinstance(vm["flavor"], dict):  # values in place of a name
        values = {key: vm["flavor"][key] for key in ("cores", "ram_gb", "disk_gb") if key in vm["flavor"]}
        vm.update({key: number for key, number in values.items() if key not in given}, flavor="")
    _whole(vm, "vm_id", path)
    for key in ("name", "owner", "worker_ip", "flavor", "status", *({screen_password.KEY} & vm.keys())):
        _text(vm, key, path)
    for key in ("cores", "ram_gb", "disk_gb"):
        _number(vm, key, path)
    for key in ("vnc_port", "pid"):
        if vm[key] is not None:
            _whole(vm, key, path)
    entries = _list(vm, "interfaces", path)
    vm["interfaces"] = [_interface(entry, (*path, "interfaces", index)) for index, entry in enumerate(entries)]
    return vm


def _interface(value: Any, path: tuple[Any, ...]) -> Record:
    interface: Record = {**dict.fromkeys(("name", "mac")), **_INTERFACE, **_mapping(value, path)}
    for key in ("name", "mac"):
        _text(interface, key, path)
    for key in ("vlan_id", "link_id"):
        if interface[key] is not None:
            _whole(interface, key, path)
    if interface["ip_config"] is not None:
        _text(_mapping(interface["ip_config"], (*path, "ip_config")), "ip", (*path, "ip_config"))
    return interface


def _link(value: Any, path: tuple[Any, ...]) -> Record:
    link = dict(_mapping(value, path))
    for key in _LINK_KEYS:
        if key.endswith("interface"):
            _text(link, key, path)
        else:
            _whole(link, key, path)
    for key, problem in (*link_switches.wrong(link), *link_ends.wrong(link)):
        raise ShapeError((*path, key), f"{problem}, found {link[key]!r}")
    return link


_ENTRY = {"users": _user, "workers": _worker}
