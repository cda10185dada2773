"""What a worker is: the questions of one read-only message, what the answers mean, and the worker's record."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cloudrepo import guest_accounts, limits
from cloudrepo.accelerator import Proof
from cloudrepo.commands import coreutils, ovs, qemu, qemu_img
from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import Act, ObserveFiles, Plan, ReadFile, Run, Step, StepResult

T = TypeVar("T")
MIB = 1024**2
GIB = 1024**3

#: The documented figures of a worker that does not tell.
ASSUMED = {"max_cores": 2, "max_ram_gb": 1, "max_disk_gb": 500}
MAX_VMS = 10
BOOT_ID = "/proc/sys/kernel/random/boot_id"
OTHERS_MAY_ENTER = 0o001


@dataclass(frozen=True, kw_only=True)
class Question:
    """What must be known of a worker to ask it.

    Attributes:
        installation: eight hex digits.
        base_dir: the image folder, absolute on the worker.
        bridge: the integration bridge.
        user: account that QEMU runs as, or the first number where each VM has its own.
        is_network_node: whether DHCP and NAT live here.
    """

    installation: str
    base_dir: str
    bridge: str = "br-int"
    user: str = "ubuntu"
    is_network_node: bool = False

    def has_user(self, facts: WorkerFacts) -> bool:
        """Whether guests can run as whom they are to; a number needs no account."""
        return guest_accounts.is_number(self.user) or bool(facts.user_groups)


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """What a worker answered. None, or an empty text, means that it did not say.

    Attributes:
        ram_mib: memory in MiB.
        disk_bytes: size of the file system of the image folder.
        free_bytes: what is free there.
        boot_id: another one after each boot.
        has_kvm: whether /dev/kvm is there; not whether it works.
        bridge: the integration bridge, None when it is missing.
        missing: programs that are not there.
        user_groups: groups of the account QEMU runs as, empty when there is no such account.
        closed: directories above the image folder that this account may not enter.
        ran_as_root: whether the message had the rights it needs.
        unlimited: what is missing to limit what guests use of the host; see `limits.missing`.
    """

    cores: int | None
    ram_mib: int | None
    disk_bytes: int | None
    free_bytes: int | None
    boot_id: str
    kernel: str
    python: str
    qemu_version: str
    ovs_version: str
    has_kvm: bool
    has_tun: bool
    bridge: ovs.Bridge | None
    bridge_error: str
    missing: tuple[str, ...]
    user_groups: tuple[str, ...]
    closed: tuple[str, ...]
    ran_as_root: bool
    unlimited: tuple[str, ...] = ()


def probe(question: Question) -> Plan:
    """One read-only message; a question without an answer spoils no other."""
    parents = _parents(question.base_dir)
    acts: dict[str, tuple[str, Act]] = {
        "cores": ("processors", Run(words=("nproc",))),
        "memory": ("memory", ReadFile(path="/proc/meminfo")),
        "space": ("disk of the image folder", Run(words=coreutils.disk_space(question.base_dir), ok=(0, 1))),
        "boot": ("boot", ReadFile(path=BOOT_ID)),
        "kernel": ("kernel", Run(words=("uname", "-r"))),
        "python": ("Python", Run(words=("python3", "--version"))),
        "rights": ("rights", Run(words=("id", "-u"))),
        "devices": ("devices", ObserveFiles(paths=("/dev/kvm", "/dev/net/tun"))),
        "folders": ("folders", ObserveFiles(paths=parents)),
        "qemu": ("QEMU", Run(words=(qemu.BINARY, "--version"))),
        "qemu-img": ("qemu-img", Run(words=(qemu_img.BINARY, "--version"))),
        "ip": ("ip", Run(words=("ip", "-V"))),
        "ovs": ("Open vSwitch", Run(words=("ovs-vsctl", "--version"))),
        "bridge": ("bridge", Run(words=ovs.list_ports(), timeout_s=10)),
    }
    acts |= limits.questions()
    if not guest_accounts.is_number(question.user):
        acts["groups"] = ("groups", Run(words=("id", "-Gn", "--", question.user)))
    if question.is_network_node:
        acts |= {
            "dnsmasq": ("dnsmasq", Run(words=("dnsmasq", "--version"))),
            "iptables": ("iptables", Run(words=("iptables", "--version"))),
        }
    steps = tuple(Step(name=name, label=f"ask for {label}", act=act) for name, (label, act) in acts.items())
    return Plan(installation=question.installation, observe=steps)


#: Programs by the question that needs them, and the Debian and Ubuntu packages that bring them.
PACKAGES = {
    "qemu": (qemu.BINARY, "qemu-system-x86"),
    "qemu-img": (qemu_img.BINARY, "qemu-utils"),
    "ip": ("ip", "iproute2"),
    "ovs": ("ovs-vsctl", "openvswitch-switch"),
    "dnsmasq": ("dnsmasq", "dnsmasq-base"),
    "iptables": ("iptables", "iptables"),
}


def read(question: Question, observed: Mapping[str, StepResult]) -> WorkerFacts:
    """Read the answers to `probe`. An answer that is missing or makes no sense leaves its fact unknown."""
    answers = _Answers(observed)
    space = answers.parse("space", coreutils.parse_disk_space)
    devices = answers.parse("devices", json_text.loads) or {}
    folders = answers.parse("folders", json_text.loads) or {}
    bridge = answers.parse("bridge", lambda text: ovs.parse_ports(text, question.bridge))
    needed = [name for name in PACKAGES if question.is_network_node or name not in ("dnsmasq", "iptables")]
    groups = tuple((answers.text("groups") or "").split())
    return WorkerFacts(
        cores=answers.parse("cores", parse_cores),
        ram_mib=answers.parse("memory", parse_memory),
        disk_bytes=space.size if space else None,
        free_bytes=space.free if space else None,
        boot_id=answers.text("boot"),
        kernel=answers.text("kernel"),
        python=answers.parse("python", parse_version) or "",
        qemu_version=answers.parse("qemu", parse_version) or "",
        ovs_version=answers.parse("ovs", parse_version) or "",
        has_kvm=devices.get("/dev/kvm") is not None,
        has_tun=devices.get("/dev/net/tun") is not None,
        bridge=bridge,
        bridge_error=answers.error("bridge"),
        missing=tuple(name for name in needed if not answers.is_there(name)),
        user_groups=groups,
        closed=() if question.user == "root" else _closed(question.base_dir, question.user, folders),
        ran_as_root=answers.text("rights") == "0",
        unlimited=limits.missing(limits.controllers(observed, answers.parse)),
    )


class _Answers:
    """The answers by name; nothing is raised for a bad one."""

    def __init__(self, observed: Mapping[str, StepResult]) -> None:
        self.observed = observed

    def is_there(self, name: str) -> bool:
        answer = self.observed.get(name)
        return answer is not None and answer.accepted

    def text(self, name: str) -> str:
        answer = self.observed.get(name)
        return answer.out.strip() if answer is not None and answer.accepted else ""

    def error(self, name: str) -> str:
        answer = self.observed.get(name)
        if answer is None:
            return "no answer"
        lines = answer.err.strip().splitlines() or [f"status {answer.status}"]
        return "" if answer.accepted else lines[-1]

    def parse(self, name: str, parser: Callable[[str], T]) -> T | None:
        text = self.text(name)
        if not text:
            return None
        try:
            return parser(text)
        except json_text.NOT_UNDERSTOOD:
            return None


def _parents(path: str) -> tuple[str, ...]:
    """The path and all its parents but the root."""
    found = []
    while path not in ("/", ""):
        found.append(path)
        path = posixpath.dirname(path)
    return tuple(found)


def _closed(base_dir: str, user: str, folders: Mapping[str, Any]) -> tuple[str, ...]:
    """Directories on the way to the image folder that are closed to everybody but their owner and group.

    A home directory is open to its own account; `/home/ann` is taken to be that of `ann`.
    """
    return tuple(
        path
        for path in _parents(base_dir)
        if (facts := folders.get(path))
        and facts["kind"] == "dir"
        and not facts["mode"] & OTHERS_MAY_ENTER
        and not f"{base_dir}/".startswith(f"/home/{user}/")
    )


def parse_cores(text: str) -> int:
    """The answer of `nproc`.

    Raises:
        ValueError: no number above zero.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,5}\n?", text):
        raise ValueError(f"not a number of processors: {text[:80]!r}")
    return int(text)


def parse_memory(text: str) -> int:
    """MiB of memory in /proc/meminfo, whose unit `kB` is 1024 bytes (proc(5)).

    Raises:
        ValueError: there is no line `MemTotal` with a number above zero.
    """
    match = re.search(r"^MemTotal:\s+([1-9][0-9]{0,14}) kB$", text, re.MULTILINE)
    if match is None:
        raise ValueError("no line MemTotal")
    return int(match[1]) // 1024


def parse_version(text: str) -> str:
    """The first version number in what a program says of itself.

    Raises:
        ValueError: there is none.
    """
    match = re.search(r"\d+(\.\d+)+", text)
    if match is None:
        raise ValueError(f"no version in {text[:80]!r}")
    return match[0]


# -- what follows ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What keeps a worker from its work.

    Attributes:
        code: what it is about, such as `bridge` or `program`.
        text: what was found, in one sentence without a full stop.
        remedy: what to do.
    """

    code: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


def problems(question: Question, facts: WorkerFacts) -> list[str]:
    """What keeps this worker from its work: one sentence each, with the remedy."""
    return [str(problem) for problem in diagnose(question, facts)]


def diagnose(question: Question, facts: WorkerFacts) -> list[Problem]:
    """What keeps this worker from its work."""
    found = []
    if not facts.ran_as_root:
        text = "commands do not run as root"
        found.append(Problem(code="privilege", text=text, remedy="allow the account sudo without a password"))
    for name in facts.missing:
        program, package = PACKAGES[name]
        remedy = f"install it with: sudo apt-get install {package}"
        found.append(Problem(code="program", text=f"{program} is missing", remedy=remedy))
    if not facts.has_tun:
        text = "/dev/net/tun is missing, so guests get no network"
        found.append(Problem(code="tun", text=text, remedy="load it with: sudo modprobe tun"))
    if not question.has_user(facts):
        text = f"there is no account {question.user} for QEMU"
        found.append(Problem(code="account", text=text, remedy="make it, or set qemu.user to one that exists"))
    for path in facts.closed:
        text = f"{question.user} may not enter {path}, where disks are"
        found.append(Problem(code="folder", text=text, remedy=f"allow it with: sudo chmod o+x {path}"))
    if "ovs" not in facts.missing:
        found += _bridge_problems(question, facts)
    return found


def _bridge_problems(question: Question, facts: WorkerFacts) -> list[Problem]:
    name = question.bridge
    if facts.bridge is None:
        if facts.bridge_error:
            text = f"Open vSwitch does not answer ({facts.bridge_error})"
            return [Problem(code="ovs", text=text, remedy="start it with: sudo systemctl start openvswitch-switch")]
        remedy = f"make it with: sudo ovs-vsctl add-br {name}"
        return [Problem(code="bridge", text=f"the bridge {name} is missing", remedy=remedy)]
    if facts.bridge.uplinks:
        return _openness(facts.bridge)
    strange = [port for port in facts.bridge.ports if port.mark is None and not port.is_internal]
    for port in strange:
        if port.device in facts.bridge.errors:
            text = f"the uplink {port.device} of {name} does not work ({facts.bridge.errors[port.device]})"
            return [Problem(code="uplink", text=text, remedy="plug in or rename the device")]
    for port in strange:
        if port.tag is not None:
            text = f"the only uplink of {name}, {port.device}, carries VLAN {port.tag} alone"
            remedy = f"make it a trunk with: sudo ovs-vsctl clear port {port.device} tag"
            return [Problem(code="uplink", text=text, remedy=remedy)]
    text = f"{name} has no uplink, so links to VMs on other hosts do not work"
    remedy = f"add the device to the other hosts with: sudo ovs-vsctl add-port {name} DEVICE"
    return [Problem(code="uplink", text=text, remedy=remedy)]


def _openness(bridge: ovs.Bridge) -> list[Problem]:
    """What keeps us from closing the bridge (docs/decisions/0011), as far as its ports tell."""
    if bridge.is_closed or (len(bridge.uplinks) == 1 and not bridge.others):
        return []
    ports = ", ".join([*bridge.uplinks, *bridge.others])
    text = (
        f"{bridge.name} has more ports of others than one uplink ({ports}), so it is not closed: after a restart of "
        "ovs-vswitchd guests reach one another until the monitor's next look"
    )
    return [Problem(code="ports", text=text, remedy="leave it one uplink alone")]


def record(ip: str, question: Question, facts: WorkerFacts, proof: Proof, max_vms: int = MAX_VMS) -> dict[str, Any]:
    """The worker's record without its `used_*`, which follow from the slices. Sizes in GiB."""
    known = {
        "max_cores": facts.cores,
        "max_ram_gb": None if facts.ram_mib is None else _tenths(facts.ram_mib / 1024),
        "max_disk_gb": None if facts.disk_bytes is None else _tenths(facts.disk_bytes / GIB),
    }
    assumed = [name for name, value in known.items() if value is None]
    found: dict[str, Any] = {
        "ip": ip,
        "max_vms": max_vms,
        **{name: ASSUMED[name] if value is None else value for name, value in known.items()},
        "assumed": assumed,
        "accel": proof.accelerator,
        "accel_reason": proof.reason,
        "accel_user": question.user,
        "unlimited": list(facts.unlimited),
        "boot_id": facts.boot_id,
        "datapath": facts.bridge.datapath if facts.bridge else "",
        "uplinks": list(facts.bridge.uplinks) if facts.bridge else [],
        "kernel": facts.kernel,
        "python": facts.python,
        "qemu": facts.qemu_version,
        "ovs": facts.ovs_version,
        "problems": problems(question, facts),
    }
    if facts.free_bytes is not None:
        found["free_disk_gb"] = _tenths(facts.free_bytes / GIB)
    return found


def _tenths(gib: float) -> float | int:
    """Rounded to tenths, so that a machine sold as 1 GB, of which the kernel keeps a little, reads 1."""
    value = round(gib, 1)
    return int(value) if value == int(value) else value
