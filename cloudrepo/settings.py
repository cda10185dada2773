"""The settings: one table of every key with its type, default, unit and meaning.

They live in `settings.yaml` beside the state file. A `CLOUDREPO_*` variable overrides a key: dots become
underscores, so `ssh.host_keys` is `CLOUDREPO_SSH_HOST_KEYS`. To add a setting, add one line to its group.

Typical use::

    settings = Settings.load("database.yaml")
    settings.ssh.host_keys      # "accept-new"
"""

# No `from __future__ import annotations`: types are values here, since reading a hundred texts takes its time.

import copy
import os
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, dataclass_transform, get_type_hints

from cloudrepo.setting_values import Reader, Row, env_name

DEFAULT_FLAVORS: dict[str, dict[str, Any]] = {
    "cirros": {"cores": 1, "ram_gb": 0.5, "disk_gb": 1, "image": "/tmp/vm_images/cirros-0.6.2-x86_64-disk.img"},  # noqa: S108
    "ubuntu": {"cores": 1, "ram_gb": 0.5, "disk_gb": 2.2, "image": "/tmp/vm_images/focal-server-cloudimg-amd64.img"},  # noqa: S108
}


def _key(default: Any, text: str, unit: str = "", low: float | None = None, high: float | None = None) -> Any:
    """One line of the table: default, meaning, unit, and the bounds of a number."""
    return field(
        default_factory=lambda: copy.deepcopy(default), metadata={"text": text, "unit": unit, "low": low, "high": high}
    )


@dataclass_transform()
class Group:
    """What belongs together: a frozen dataclass, whose fields are all that is made for each.

    To generate the methods of twenty dataclasses takes as long as everything else of ours at the start of a command.

    Args:
        values: by name; the others are the defaults.
    """

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False)(cls)

    def __init__(self, **values: Any) -> None:
        known: Any = self
        for entry in fields(known):
            default: Any = entry.default_factory
            object.__setattr__(self, entry.name, values.pop(entry.name) if entry.name in values else default())
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def _values(self) -> dict[str, Any]:
        known: Any = self
        return {entry.name: getattr(self, entry.name) for entry in fields(known)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._values().items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and type(other) is type(self) and other._values() == self._values()

    def __hash__(self) -> int:
        return hash(tuple(self._values().values()))

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"{name} cannot be set: settings stay as they were read")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"{name} cannot be taken away")


class Ssh(Group):
    """How the hosts are reached."""

    user: str = _key("ubuntu", "account on the hosts; it needs sudo without a password")
    key: str = _key("", "private key file; empty = the agent and the user's default keys")
    known_hosts: str = _key("", "file of pinned host keys; empty = `known_hosts` beside the state file")
    host_keys: Literal["accept-new", "strict", "off"] = _key(
        "accept-new", "pin a new host's key at first contact, refuse unpinned hosts, or check nothing (as documented)"
    )
    connect_timeout: float = _key(5.0, "longest wait for a first sign of a host", "s", 0.1, 600)
    login_timeout: float = _key(30.0, "longest wait for the login, once the host was heard", "s", 0.1, 600)
    port: int = _key(22, "port of sshd on the hosts", "", 1, 65535)
    guest_user: str = _key(
        "", "account in guests, for `exec` by SSH; empty = the first that a VM's first boot made, or root"
    )
    guest_key: str = _key("", "private key file for guests; empty = the agent and the user's default keys")


class Host(Group):
    """What the SSH account may do on the hosts."""

    privilege: Literal["sudo", "helper"] = _key(
        "sudo",
        "sudo = the SSH account is root on the hosts (documented); helper = it may run one program of root's, "
        "which `./cloud worker harden` installs",
    )


class Vnc(Group):
    """The guests' screens."""

    bind: str = _key("127.0.0.1", "address on the worker that screens listen on; 0.0.0.0 = documented, open to all")
    first_port: int = _key(5901, "first port given to a VM", "", 5900, 65535)
    last_port: int = _key(6632, "last port; Open vSwitch's own ports begin at 6633", "", 5900, 65535)
    tunnels: str = _key(
        "", "ports of the orchestrator's loopback that tunnels to screens begin at, such as 7001-7060; empty = any"
    )


class Qemu(Group):
    """How machines are started and stopped."""

    detach: Literal["setsid", "daemonize"] = _key(
        "setsid", "how QEMU leaves the SSH session; daemonize = documented, with a weaker sandbox"
    )
    user: str = _key(
        "", "account QEMU runs as on the workers; empty = the SSH account, or with the helper a number for each VM"
    )
    first_uid: int = _key(
        2013265920, "account number of VM 0 where each VM has its own: that of VM n is n higher", "", 65536, 2013265920
    )
    limits: bool = _key(True, "bound what each machine uses of its host where there is cgroup2")
    stop_grace: float = _key(20.0, "time a guest has after ACPI power-down", "s", 0, 3600)
    quit_grace: float = _key(3.0, "time QEMU has after `quit`, before it is killed", "s", 0, 600)


class Links(Group):
    """What a link's VLAN has beside the two VMs."""

    gateway: bool = _key(True, "a gateway port (.1) on the network node, in the VLAN's own namespace")
    router: bool = _key(False, "DHCP on links offers .1 as default route (documented)")
    dns: str = _key("", "DNS server that DHCP on links offers; empty = none, 8.8.8.8 = documented")
    lease: int = _key(3600, "DHCP lease time", "s", 120, 31536000)
    student_switches: tuple[str, ...] = _key(
        ("spoofing", "vlans", "dhcp"), "switches of links that students may set; others only instructors and admins"
    )


class Internet(Group):
    """VLAN 400."""

    cidr: str = _key("10.60.7.0/24", "subnet of VMs with internet access; .1 is the gateway, .2 the DHCP server")
    dns: str = _key(
        "8.8.8.8", "DNS server that DHCP offers to VMs with internet access; they reach port 53 of it wherever it is"
    )


class Network(Group):
    """The network node and the bridges."""

    node: str = _key("10.0.10.3", "address of the network node: gateways, DHCP and NAT")
    uplink: str = _key("", "interface of the network node to the internet; empty = that of its default route")
    bridge: str = _key("br-int", "Open vSwitch bridge on every host")
    deny: tuple[str, ...] = _key(
        ("169.254.0.0/16",),
        "subnets that VMs with internet access never reach, beside those the network node is connected to; "
        "a cloud's metadata service is at 169.254.169.254",
    )
    rate_mbps: float = _key(0.0, "most that each NIC of a guest may send; 0 = no limit", "Mbit/s", 0, 100000)


class Vlan(Group):
    """Which VLANs slices may use."""

    first: int = _key(100, "first VLAN of the first pool", "", 1, 4094)
    last: int = _key(4094, "last VLAN", "", 1, 4094)
    reserved: tuple[int, ...] = _key((400,), "VLANs never given to a link; 400 always is one")


class Mac(Group):
    """The guests' hardware addresses."""

    prefix: str = _key("52:54:00", "first three bytes of every address; QEMU's own by default")


class Discovery(Group):
    """Asking the workers what they are."""

    wait: float = _key(3.0, "longest wait before the menu opens; 0 = none, `forever` = until all answered", "s", 0)


class Scheduler(Group):
    """Which worker a VM gets."""

    index: Literal["persistent", "memory"] = _key(
        "persistent", "where the round-robin index is kept; memory = documented, 0 at each start"
    )
    capacity: Literal["on", "off"] = _key("on", "skip workers without room; off = documented")
    max_vms: Literal["ignore", "enforce"] = _key("ignore", "whether `max_vms` of a worker is a limit")
    cores_overcommit: float = _key(8.0, "virtual CPUs promised per core", "", 0.1, 1000)
    ram_overcommit: float = _key(1.0, "memory promised per memory there is", "", 0.1, 1000)
    network_node: Literal["use", "exclude"] = _key("use", "whether the network node also gets VMs (documented: yes)")


class Deploy(Group):
    """How a slice is deployed."""

    order: Literal["documented", "parallel"] = _key(
        "documented", "start machines after the network node reported its VLANs, or beside it"
    )
    parallel_machines: int = _key(2, "machines started at once on one worker", "", 1, 64)


class Images(Group):
    """Disks on the workers."""

    base_dir: str = _key("~/vm_images", "directory on the workers for base images and VM disks")
    name: Literal["documented", "unique"] = _key(
        "documented", "file name of a disk: `{vm_name}_img.qcow2` while free, or always with slice and VM id"
    )
    store: str = _key(
        "", "directory of this machine for images that people add; empty = `images` beside the state file"
    )
    inbox: str = _key("", "directory whose files can be added as images in the menu; empty = the menu adds none")
    students: bool = _key(False, "students may add images from `images.inbox`, too")
    max_gb: float = _key(16.0, "largest file that becomes an image", "GiB", 0.001, 100000)
    max_virtual_gb: float = _key(64.0, "largest disk that a guest sees of an added image", "GiB", 0.001, 100000)
    store_gb: float = _key(100.0, "how much the files of all added images have together", "GiB", 0.001, 1000000)


class Monitor(Group):
    """The health monitor."""

    interval: float = _key(15.0, "pause between two passes", "s", 0.1, 86400)
    misses: int = _key(3, "passes in a row that a worker must miss before it counts as down", "", 1, 1000)
    restart: Literal["never", "on-failure", "always"] = _key(
        "on-failure",
        "what becomes of a VM that died, where its record does not say; a guest that powers off is no failure",
    )
    restart_pause: float = _key(
        10.0, "least pause before the second restart of a VM; it doubles with each", "s", 0, 3600
    )
    restart_limit: int = _key(
        5, "restarts of a VM within `monitor.restart_window`; one more and it is given up", "", 1, 1000
    )
    restart_window: float = _key(600.0, "how long a restart counts against the limit", "s", 1, 604800)
    recover: bool = _key(True, "give a host that rebooted its networks and machines back")
    auto_resume: bool = _key(False, "the monitor resumes operations whose process has ended")
    hook: tuple[str, ...] = _key((), "words of a command run for each notice, with the notice as JSON on stdin")
    hook_timeout: float = _key(10.0, "longest time that command may take", "s", 0.1, 3600)


class Smtp(Group):
    """Notices by mail."""

    host: str = _key("", "mail server that takes notices; empty = no mail")
    port: int = _key(25, "its port", "", 1, 65535)
    sender: str = _key("cloudrepo@localhost", "address that notices come from")
    to: tuple[str, ...] = _key((), "addresses that notices go to")
    starttls: bool = _key(
        False, "encrypt the connection, and refuse a server that cannot or whose certificate is wrong"
    )
    user: str = _key("", "account on the server; empty = none")
    password_file: str = _key("", "file that holds its password, readable by its owner only")
    timeout: float = _key(10.0, "longest wait for the server", "s", 0.1, 600)


class Events(Group):
    """The event log."""

    max_mb: int = _key(10, "size at which `events.jsonl` is put aside and a new one begun", "MiB", 1, 10000)
    keep: int = _key(20, "how many of those put aside are kept; the oldest goes", "", 0, 100000)


class History(Group):
    """The copies of the state file."""

    generations: int = _key(20, "copies kept in .cloudrepo/history; 0 = none", "", 0, 10000)
    pause: float = _key(30.0, "least time between two copies while a process runs", "min", 0, 525600)


class Quota(Group):
    """What a user may have in all slices together, where the user's record does not say."""

    vms: int = _key(10, "VMs of a user that is made by `./cloud user add` (documented: 10)", "", 0, 1000000)
    cores: float | str = _key("unlimited", "virtual CPUs of a user: a number, or `unlimited`")
    ram_gb: float | str = _key("unlimited", "memory of a user's VMs: a number, or `unlimited`", "GiB")
    disk_gb: float | str = _key("unlimited", "disks of a user's VMs: a number, or `unlimited`", "GiB")


class Log(Group):
    """The log file."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _key("INFO", "least severity written to cloudrepo.log")


class Settings(Group):
    """All settings. Attributes are the groups; each attribute of a group is one key."""

    accel: Literal["auto", "kvm", "tcg"] = _key(
        "auto", "how guests run: KVM where it is proved to work, KVM alone (documented), or emulation alone"
    )
    ssh: Ssh = field(default_factory=Ssh)
    host: Host = field(default_factory=Host)
    vnc: Vnc = field(default_factory=Vnc)
    qemu: Qemu = field(default_factory=Qemu)
    links: Links = field(default_factory=Links)
    internet: Internet = field(default_factory=Internet)
    network: Network = field(default_factory=Network)
    vlan: Vlan = field(default_factory=Vlan)
    mac: Mac = field(default_factory=Mac)
    discovery: Discovery = field(default_factory=Discovery)
    scheduler: Scheduler = field(default_factory=Scheduler)
    deploy: Deploy = field(default_factory=Deploy)
    images: Images = field(default_factory=Images)
    monitor: Monitor = field(default_factory=Monitor)
    smtp: Smtp = field(default_factory=Smtp)
    events: Events = field(default_factory=Events)
    history: History = field(default_factory=History)
    quota: Quota = field(default_factory=Quota)
    log: Log = field(default_factory=Log)
    flavors: Mapping[str, Mapping[str, Any]] = _key(
        DEFAULT_FLAVORS, "sizes by name: cores, ram_gb, disk_gb (GiB) and image; they replace the documented two"
    )

    @classmethod
    def load(cls, state_path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Self:
        """The settings beside a state file, overridden by the environment.

        Args:
            state_path: the state file; `settings.yaml` is looked up in its directory and may be missing.
            environ: variables to look at; the process's own by default.

        Raises:
            SettingsError: an unknown key, a value of the wrong type or out of bounds, or a damaged file.
        """
        path = Path(state_path).resolve().parent / "settings.yaml"
        reader = Reader(rows())
        reader.read_file(path)
        reader.read_environment(os.environ if environ is None else environ)
        return cls.of(reader.values)

    @classmethod
    def told(cls, state_path: str | os.PathLike[str], environ: Mapping[str, str]) -> dict[str, tuple[Any, str, str]]:
        """Each key's value, whether `environment`, `file` or `default` gave it, and where that stands.

        Raises:
            SettingsError: as `load`.
        """
        reader = Reader(rows())
        reader.read_file(Path(state_path).resolve().parent / "settings.yaml")
        in_file = set(reader.values)
        reader.read_environment(environ)
        return {
            row.key: (
                reader.values.get(row.key, row.default),
                *reader.origin_of(row.key, is_in_file=row.key in in_file),
            )
            for row in rows()
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The defaults with these values, by dotted key, such as `{"ssh.port": 2222}`.

        Raises:
            SettingsError: as `load`.
        """
        reader = Reader(rows())
        for key, value in values.items():
            reader.set(key, value, origin=key)
        groups: dict[str, dict[str, Any]] = {}
        top: dict[str, Any] = {}
        for key, value in reader.values.items():
            group, _, name = key.rpartition(".")
            (groups.setdefault(group, {}) if group else top)[name] = value
        hints = _hints(Settings)
        return cls(**top, **{group: hints[group](**part) for group, part in groups.items()})

    def get(self, key: str) -> Any:
        """The value of a dotted key, for programs that learn the key at run time."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value


@cache
def rows() -> tuple[Row, ...]:
    """Every key, in the order of the table; types are read once, since that takes as long as all else at a start."""
    found: list[Row] = []
    _collect(Settings, "", found)
    return tuple(found)


@cache
def _hints(owner: type) -> dict[str, Any]:
    return get_type_hints(owner)


def _collect(owner: Any, prefix: str, found: list[Row]) -> None:
    hints = _hints(owner)
    for entry in fields(owner):
        kind = hints[entry.name]
        if is_dataclass(kind):
            _collect(kind, f"{entry.name}.", found)
            continue
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        meta = entry.metadata
        found.append(Row(f"{prefix}{entry.name}", kind, default, meta["unit"], meta["text"], meta["low"], meta["high"]))


def settings_table() -> str:
    """The table as Markdown: key, default, meaning, variable."""
    lines = ["| key | default | unit | meaning | variable |", "|---|---|---|---|---|"]
    for row in rows():
        default = "the two documented" if row.key == "flavors" else _shown(row.default)
        lines.append(f"| `{row.key}` | {default} | {row.unit} | {row.text} | `{env_name(row.key)}` |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if value != "" else "(empty)"
