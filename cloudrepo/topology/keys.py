"""Every key of a topology file: what may stand there, and what it means. The one table of checker and schema. Pure."""

from __future__ import annotations

from typing import Any

from cloudrepo import validation
from cloudrepo.late_dataclass import dataclass
from cloudrepo.link_switches import ALLOWED, DHCP, FORBIDDEN, POLICY
from cloudrepo.topology import shapes, subnets
from cloudrepo.topology.kinds import Kind, Nested, Text, Texts, Truth, Whole, Word, address

VERSION = 1
MOST_NODES = 254  # of one file

NAME = r"[A-Za-z][A-Za-z0-9_-]{0,30}"
#: A node's name with brackets; what they may hold says `patterns`.
NAME_OR_PATTERN = r"[A-Za-z][A-Za-z0-9_,\[\] -]*"
INTERFACE = r"eth[1-9][0-9]?"
_END = rf"{NAME_OR_PATTERN}(?::{INTERFACE})?"
END_TEXT = rf"\s*{_END}\s*"
LINK_TEXT = rf"\s*{_END}\s+--\s+{_END}\s*"
VARIABLE_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
RESTART = ("never", "on-failure", "always")
_KEY_TYPES = r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ +[A-Za-z0-9+/]+=*(?: .*)?"


@dataclass(frozen=True)
class Key:
    """One key: the kind of its value, and its meaning in a sentence."""

    kind: Kind
    text: str


_NODE: dict[str, Key] = {
    "flavor": Key(Text("the name of a flavor"), "Size and image of the machine: a flavor of the installation."),
    "image": Key(Text("the name of an image"), "An added image in place of the flavor's; `./cloud image list`."),
    "internet": Key(Truth(), "Whether eth0 leads to the internet."),
    "interfaces": Key(
        Whole(0, validation.MAX_DATA_INTERFACES),
        "How many data interfaces it has beside eth0; by default two more than its links need.",
    ),
    "worker": Key(Text("the address of a worker", r"[0-9.]+", address), "The worker it is placed on."),
    "restart": Key(Word(RESTART), "What the monitor does when it dies."),
    "users": Key(
        Texts(Text("a user's name", r"[a-z_][a-z0-9_-]{0,31}")), "Accounts to make in it; see docs/first-boot.md."
    ),
    "ssh_keys": Key(Texts(Text("a public SSH key", _KEY_TYPES)), "Public keys that let people in to its accounts."),
    "cloud_init": Key(
        Nested(("mapping", "value"), {"type": ["object", "string"], "minLength": 1}),
        "User data for cloud-init, as a mapping or as text.",
    ),
    "start": Key(Text("a script"), "A script that runs at each start. Variables of this file are not put into it."),
}
NODE: dict[str, Key] = {
    **_NODE,
    "count": Key(Whole(1, MOST_NODES), "That many of it, named with 1, 2, 3 … after the name."),
    "shape": Key(Word(shapes.NAMES), "The machines are joined in this shape; `size` says how many there are."),
    "size": Key(Whole(1, MOST_NODES), "How many machines a shape has."),
}
#: What holds for every node that does not say otherwise.
DEFAULTS = _NODE
LINK: dict[str, Key] = {
    "ends": Key(
        Nested(("list", "value"), {"$ref": "#/$defs/ends"}),
        "`a:eth1 -- b:eth1`, or a list of two or more ends.",
    ),
    DHCP: Key(Truth(), "Whether it has a DHCP server; without one it is a plain wire."),
    "subnet": Key(
        Text("a subnet such as 10.1.2.0/24", r"[0-9./]+", subnets.checked), "Its IPv4 subnet in place of the usual one."
    ),
    **{
        name: Key(Word((ALLOWED, FORBIDDEN)), text)
        for name, text in zip(
            POLICY,
            (
                "Whether guests may claim each other's addresses.",
                "Whether guests may send from other MACs, and bridges' own frames.",
                "Whether guests may send VLAN tags of their own.",
            ),
            strict=True,
        )
    },
}
TOP: dict[str, Key] = {
    "version": Key(Whole(VERSION, VERSION), "The version of this format."),
    "name": Key(
        Text("a name", r"[\s\S]{1,200}", validation.slice_name), "The slice's name; one of a user's has it at a time."
    ),
    "type": Key(Text("a word", r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"), "The slice's topology type; by default its shape."),
    "variables": Key(
        Nested(
            ("mapping",),
            {
                "type": "object",
                "propertyNames": {"pattern": f"^{VARIABLE_NAME}$"},
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            },
        ),
        "Values that `${NAME}` stands for; `--var NAME=VALUE` sets another one.",
    ),
    "defaults": Key(
        Nested(("mapping",), {"$ref": "#/$defs/defaults"}), "What holds for every node that does not say otherwise."
    ),
    "shape": Key(Word(shapes.NAMES), "Machines vm1, vm2 … in this shape; `size` says how many."),
    "size": Key(Whole(1, MOST_NODES), "How many machines the shape has."),
    "nodes": Key(
        Nested(
            ("mapping", "list"),
            {
                "type": ["object", "array"],
                "additionalProperties": {"$ref": "#/$defs/node"},
                "items": {"type": "string"},
            },
        ),
        "The machines, by name: `r1`, or `r[1-3]` for r1, r2 and r3.",
    ),
    "links": Key(Nested(("list",), {"type": "array", "items": {"$ref": "#/$defs/link"}}), "The networks between them."),
}
NEEDED = ("version", "name")


def schema() -> dict[str, Any]:
    """The JSON schema of topology files, as editors use it: docs/topology.schema.json."""
    end = {"type": "string", "pattern": rf"^{END_TEXT}$|\$\{{"}
    ends = {"pattern": rf"^{LINK_TEXT}$|\$\{{", "minItems": 1, "items": end}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Topology file of Cloud Repositorio",
        **_mapping(TOP),
        "required": list(NEEDED),
        "$defs": {
            "node": {**_mapping(NODE), "type": ["object", "null"]},
            "defaults": _mapping(DEFAULTS),
            "ends": {"type": ["string", "array"], **ends},
            "link": {**_mapping(LINK), "required": ["ends"], "type": ["string", "array", "object"], **ends},
        },
    }


def _mapping(table: dict[str, Key]) -> dict[str, Any]:
    properties = {name: {"description": key.text, **key.kind.schema()} for name, key in table.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}
