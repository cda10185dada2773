"""The state folder of a fresh lab: the documented database, and few settings."""

import os
from collections.abc import Callable
from pathlib import Path

from lab.layout import IMAGE_FOLDER, IMAGE_NAMES, ROUTER_IMAGE_NAME, Folder, Options

# SHA-256 of the documented first passwords; the product makes a person change them.
_USERS = {
    "admin": (10, "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"),
    "student": (6, "264c8c381bf16c982a4e59b0dd4c6f7808c51a05f64c35db42cc78a2a72875bb"),
}

# The documented two, since flavors in settings replace these, and the router.
_SIZES = {
    "cirros": (0.5, 1, IMAGE_NAMES[0]),
    "ubuntu": (0.5, 2.2, IMAGE_NAMES[1]),
    "router": (0.25, 1, ROUTER_IMAGE_NAME),
}
_FLAVORS = "flavors:\n" + "".join(
    f"  {name}: {{cores: 1, ram_gb: {ram}, disk_gb: {disk}, image: {IMAGE_FOLDER / image}}}\n"
    for name, (ram, disk, image) in _SIZES.items()
)


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
    settings, path = _settings(options), folder.state / "settings.yaml"
    if settings:
        _create(path, settings)
    if options.router and "router:" not in path.read_text(encoding="utf-8", errors="replace"):
        say(f"{path} was made before and has no flavor router. Add it there:\n{_FLAVORS}")


def default_flavors() -> tuple[str, ...]:
    """Return the names of the flavors of a lab with routers."""
    return tuple(_SIZES)


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
    settings = "" if node.number == Options().network_node else f"network:\n  node: {node.ip}\n"
    return settings + (_FLAVORS if options.router else "")


def _create(path: Path, text: str) -> None:
    """Write a file that only its owner reads, unless it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
