"""The state folder of a fresh lab: the documented database, and few settings."""

import os
from collections.abc import Callable
from pathlib import Path

from lab.layout import Folder, Options

# SHA-256 of the documented first passwords; the product makes a person change them.
_USERS = {
    "admin": (10, "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"),
    "student": (6, "264c8c381bf16c982a4e59b0dd4c6f7808c51a05f64c35db42cc78a2a72875bb"),
}


def write_missing(folder: Folder, options: Options, say: Callable[[str], None]) -> None:
    """Make the state folder, the database and the settings where they are missing.

    What is there is the orchestrator's and stays as it is; when it speaks of other
    hosts than this lab has, that is said.
    """
    folder.state.mkdir(parents=True, exist_ok=True)
    folder.state.chmod(0o700)
    database = folder.state / "database.yaml"
    _create(database, default_database(options))
    known = database.read_text(encoding="utf-8", errors="replace").split()
    unknown = [node.ip for node in options.nodes() if node.ip not in known]
    if unknown:
        say(
            f"{database} was made for a smaller lab and does not list {', '.join(unknown)}."
            " Add them there (./cloud worker add), or begin anew with: lab down --purge"
        )
    settings = _settings(options)
    if settings:
        _create(folder.state / "settings.yaml", settings)


def default_database(options: Options) -> str:
    """Return the database that the project ships, with the hosts of this lab."""
    lines = ["users:"]
    for name, (quota, password_hash) in _USERS.items():
        lines += [f"  {name}:", f"    username: {name}", f"    password_hash: {password_hash}"]
        lines += [f"    quota_vms: {quota}", "    used_vms: 0", "    slices: []"]
    lines += ["workers: {}", "workers_list:"]
    lines += [f"- {node.ip}" for node in options.nodes()]
    lines += ["slices: {}", "next_vm_id: 1000", "next_vlan_id: 100"]
    return "\n".join(lines) + "\n"


def _settings(options: Options) -> str:
    """Return settings only where a default does not fit this lab."""
    node = next(node for node in options.nodes() if node.is_network_node)
    if node.number == Options().network_node:
        return ""
    return f"network:\n  node: {node.ip}\n"


def _create(path: Path, text: str) -> None:
    """Write a file that only its owner reads, unless it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
