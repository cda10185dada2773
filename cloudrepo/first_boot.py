"""What a VM gets at its first boot, and the cloud-init NoCloud seed that brings it there. Pure.

A VM's record has it under `first_boot`, only where something is wanted: `users` (names), `ssh_keys` (public keys,
a line each), `start_script` and `cloud_init` (texts). A seed is three small files on a volume named `cidata`; see
`cloudrepo/seed_image.py`. It says nothing of links, so it is the same whatever is plugged in later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo import validation
from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.validation import excerpt, shown

KEY = "first_boot"
MOST_BYTES = 16 * 1024  # of a script or document: what clouds take as user data
MOST_KEYS = 32
MOST_USERS = 16
LONGEST_KEY = 4096
#: It runs at each start, after the network is up: what it sets up besides files would be lost at the next one.
START_SCRIPT = "/var/lib/cloud/scripts/per-boot/start-script"
CLOUD_CONFIG = "#cloud-config"
FIELDS = ("users", "ssh_keys", "start_script", "cloud_init")

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
_SSH_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+) +([A-Za-z0-9+/]+=*)(?: +([ !#-\[\]-~]*))?\Z")
_FIRST_METRIC = 100

Record = dict[str, Any]


@dataclass(frozen=True)
class Seed:
    """The files of a NoCloud seed, by name, in their order."""

    files: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The file name of its volume on a host: another content has another name."""
        digest = hashlib.sha256(json.dumps(self.files).encode()).hexdigest()[:16]
        return f"seed-{digest}.iso"


def checked(*, users: Any = (), ssh_keys: Any = (), start_script: Any = "", cloud_init: Any = "") -> Record:
    """What a person wants of a first boot, as the record keeps it: only what is not empty.

    Args:
        users: names of accounts to make; each may become root, by its keys only.
        ssh_keys: public keys as in `authorized_keys`, without options. The image's usual account takes them as well.
        start_script: what runs at each start; without `#!` it is for `/bin/sh`.
        cloud_init: a person's own user data: text that begins with `#cloud-config` or `#!`, or a mapping.

    Raises:
        RefusedError: something of it is not possible; says what.
    """
    found: Record = {
        "users": [_user(name) for name in _several("users", users, MOST_USERS)],
        "ssh_keys": [_ssh_key(line) for line in _several("SSH keys", ssh_keys, MOST_KEYS)],
        "start_script": _text("a start script", start_script),
        "cloud_init": _document(cloud_init),
    }
    found = {key: value for key, value in found.items() if value}
    twice = sorted({name for name in found.get("users", ()) if found["users"].count(name) > 1})
    if twice:
        raise RefusedError(f"the user {twice[0]} is named twice", code="first_boot.users")
    both = [name for name in ("users", "start_script") if name in found]
    if "cloud_init" in found and both:
        raise RefusedError(
            f"a VM cannot have a cloud-init document of its own and {' and '.join(both).replace('_', ' ')} besides",
            remedy="Say it in the document: `users`, `write_files`, `runcmd`",
            code="first_boot.both",
        )
    return found


def wanted(value: Any) -> Record:
    """As `checked`, of a mapping with these keys; None wants nothing.

    Raises:
        RefusedError: something of it is not possible, or it has another key.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not set(value) <= set(FIELDS):
        raise RefusedError(
            f"a first boot cannot be {shown(value)}",
            remedy=f"It is a mapping with the keys {', '.join(FIELDS)}",
            code="first_boot.keys",
        )
    return checked(**value)


def of(vm: Mapping[str, Any], uuid: str) -> Seed | None:
    """The seed of a VM; None when its record wants nothing of a first boot.

    Args:
        vm: its record.
        uuid: of its machine: by it a guest knows a first boot.

    Raises:
        RefusedError: the record, written by hand, holds what none of ours could.
    """
    wish = wanted(vm.get(KEY))
    if not wish:
        return None
    name = validation.host_name(validation.vm_name(vm["name"]))
    return Seed(
        files=(
            ("meta-data", _meta_data(uuid, name, wish.get("ssh_keys", ()))),
            ("user-data", wish.get("cloud_init") or _user_data(name, wish)),
            ("network-config", _network_config(vm["interfaces"])),
        )
    )


# ── the files ───────────────────────────────────────────────────────────────────────────────────────────
# YAML with each text in double quotes as in JSON, a key on a line of its own: the lab's guest reads it with sed.


def _meta_data(uuid: str, name: str, keys: Sequence[str]) -> str:
    lines = [f"instance-id: {uuid}", f"local-hostname: {json.dumps(name)}"]
    if keys:
        lines += ["public-keys:", *(f"- {json.dumps(key)}" for key in keys)]
    return _joined(lines)


def _user_data(name: str, wish: Mapping[str, Any]) -> str:
    lines = [CLOUD_CONFIG, f"hostname: {json.dumps(name)}", "manage_etc_hosts: localhost"]
    if "users" in wish:
        keys = json.dumps(wish.get("ssh_keys", []))
        lines += ["users:", "- default"]
        for user in wish["users"]:
            lines += [f"- name: {json.dumps(user)}", '  sudo: "ALL=(ALL) NOPASSWD:ALL"', "  shell: /bin/bash"]
            lines += ["  lock_passwd: true", *([f"  ssh_authorized_keys: {keys}"] if "ssh_keys" in wish else [])]
    if "start_script" in wish:
        script = wish["start_script"]
        script = script if script.startswith("#!") else f"#!/bin/sh\n{script}"
        lines += ["write_files:", f"- path: {START_SCRIPT}", '  permissions: "0755"', "  encoding: b64"]
        lines += [f"  content: {base64.b64encode(script.encode()).decode()}"]
    return _joined(lines)


def _network_config(interfaces: Sequence[Mapping[str, Any]]) -> str:
    """Every NIC has the name that its designer knows, and asks for an address as soon as it is plugged in."""
    lines = ["version: 2", "ethernets:"]
    for index, one in enumerate(interfaces):
        name, mac = validation.interface_name(one["name"]), validation.mac_address(one["mac"])
        lines += [f"  {name}:", f'    match: {{macaddress: "{mac}"}}', f"    set-name: {name}"]
        lines += ["    dhcp4: true", f"    dhcp4-overrides: {{route-metric: {_FIRST_METRIC + index}}}"]
        lines += ["    optional: true"]
    return _joined(lines)


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


# ── what people give ────────────────────────────────────────────────────────────────────────────────────


def _several(what: str, value: Any, most: int) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise RefusedError(f"{what} cannot be {shown(value)}", remedy="Give a list", code="first_boot.list")
    if len(value) > most:
        raise RefusedError(f"{len(value)} {what} are too many", remedy=f"Up to {most} are possible", code="first_boot")
    return list(value)


def _user(value: Any) -> str:
    if not isinstance(value, str) or not _USER.match(value) or value == "root":
        raise RefusedError(
            f"a guest's user cannot be named {shown(value)}",
            remedy="A small letter, then up to 31 small letters, digits, - or _; root is there already",
            code="first_boot.user",
        )
    return value


def _ssh_key(value: Any) -> str:
    """A public key, with one blank between its parts."""
    text = value.strip() if isinstance(value, str) else ""
    matched = _SSH_KEY.match(text)
    if "PRIVATE KEY" in text:
        raise RefusedError("that is a private key", remedy="Give the .pub file beside it", code="first_boot.private")
    if matched is None or len(text) > LONGEST_KEY or not _is_key_of(matched[1], matched[2]):
        raise RefusedError(
            f"{shown(value)} is no public SSH key",
            remedy="A line such as `ssh-ed25519 AAAA… name`, without options before it and quotes in its name",
            code="first_boot.key",
        )
    return " ".join(part for part in (matched[1], matched[2], (matched[3] or "").strip()) if part)


def _is_key_of(kind: str, blob: str) -> bool:
    """Whether the encoded part names the same kind of key (RFC 4253, 6.6)."""
    try:
        data = base64.b64decode(blob, validate=True)
    except ValueError:
        return False
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length] == kind.encode() and len(data) > 4 + length


def _text(what: str, value: Any) -> str:
    """A text of lines; "" stays, and None is that."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RefusedError(f"{what} cannot be {shown(value)}", remedy="Give its text", code="first_boot.text")
    text = value.replace("\r\n", "\n")
    odd = next((sign for sign in text if not (sign.isprintable() or sign in "\n\t")), "")
    if odd:
        raise RefusedError(f"{what} holds {shown(odd)}", remedy="Give plain text in UTF-8", code="first_boot.text")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise RefusedError(
            f"{what} of {size} bytes is too long",
            remedy=f"Up to {MOST_BYTES} bytes are possible; let it fetch the rest",
            code="first_boot.size",
        )
    return text if not text or text.endswith("\n") else f"{text}\n"


def _document(value: Any) -> str:
    """A person's own user data."""
    what = "a cloud-init document"
    if isinstance(value, Mapping):
        value = _written(what, value)
    text = _text(what, value)
    if not text or text.startswith("#!"):
        return text
    if text.split("\n", 1)[0].rstrip() != CLOUD_CONFIG:
        raise RefusedError(
            f"{what} cannot begin with {shown(text.split(chr(10), 1)[0])}",
            remedy=f"Its first line is `{CLOUD_CONFIG}`, or `#!` and an interpreter",
            code="first_boot.head",
        )
    return _parsed(what, text)


def _written(what: str, mapping: Mapping[str, Any]) -> str:
    """A mapping as a document; an empty one is none."""
    import yaml

    try:
        text = yaml.safe_dump(dict(mapping), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        problem = f"{what} holds what YAML cannot write: {excerpt(error)}"
        raise RefusedError(problem, code="first_boot.yaml") from None
    return f"{CLOUD_CONFIG}\n{text}" if mapping else ""


def _parsed(what: str, text: str) -> str:
    """The text, if it is YAML that says a mapping."""
    import yaml

    from cloudrepo.bounded_yaml import load, problem_of

    try:
        found = load(text)
    except yaml.YAMLError as error:
        raise RefusedError(f"{what} is no YAML: {problem_of(error)}", code="first_boot.yaml") from None
    if found is not None and not isinstance(found, dict):
        raise RefusedError(
            f"{what} says {shown(found)}",
            remedy="It is a mapping such as `packages: [tcpdump]`",
            code="first_boot.yaml",
        )
    return text
