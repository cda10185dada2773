"""The monitor's one message to a host: few questions, cheap ones, and what their answers mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from cloudrepo import firewall
from cloudrepo.commands import coreutils, iptables, openflow
from cloudrepo.errors import HostError
from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import first_cookie, machine_dir, parse_cookie, run_root
from cloudrepo.plan import Act, ObserveMachines, ObserveServers, Plan, ReadFile, Run, Step, StepResult
from cloudrepo.probe import NOT_UNDERSTOOD, Host
from cloudrepo.worker_facts import BOOT_ID

GIB = 1024**3
LAST_WORDS = 2000  # characters of QEMU's log that are read


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """What is in one machine's directory.

    Attributes:
        is_alive: whether its process lives and is ours.
        pid: of the process, dead or alive.
        process_state: letter of proc(5), "" when it is dead.
        status: QEMU's own word for it, None when its QMP socket did not answer.
    """

    is_alive: bool
    pid: int | None = None
    process_state: str = ""
    status: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one host answered in one pass, or why it did not.

    Attributes:
        error: why there is no answer; "" when there is one, and then the rest holds.
        boot_id: another one after each boot.
        busy_ticks, all_ticks: of all processors since the boot; 0 = not said.
        ram_mib, ram_free_mib, disk_gib, disk_free_gib: None = not said.
        machines: by VM id.
        servers: VLANs whose DHCP server runs; the network node alone says so.
        has_rules: the rules of VLAN 400 are in force; None = not said. The network node alone says so.
        flows: scopes whose flows are on the bridge, such as `1000` and `shared`; None = not said.
        meters: numbers of the bridge's meters, where NICs have a rate; None = not said.
    """

    error: str = ""
    boot_id: str = ""
    busy_ticks: int = 0
    all_ticks: int = 0
    ram_mib: float | None = None
    ram_free_mib: float | None = None
    disk_gib: float | None = None
    disk_free_gib: float | None = None
    machines: Mapping[int, MachineReport] = field(default_factory=dict)
    servers: frozenset[int] = frozenset()
    has_rules: bool | None = None
    flows: frozenset[str] | None = None
    meters: frozenset[int] | None = None


def questions(host: Host) -> Plan:
    """One read-only message."""
    root = run_root(host.installation)
    acts: dict[str, Act] = {
        "boot": ReadFile(path=BOOT_ID),
        "processors": ReadFile(path="/proc/stat"),
        "memory": ReadFile(path="/proc/meminfo"),
        "space": Run(words=coreutils.disk_space(host.base_dir), ok=(0, 1), timeout_s=5),
        "machines": ObserveMachines(root=root, socket="qmp.sock"),
        "flows": Run(words=openflow.list_signs(host.bridge, first_cookie(host.installation)), timeout_s=5),
    }
    if host.is_limited:
        acts["meters"] = Run(words=openflow.list_meters(host.bridge), timeout_s=5)
    if host.is_network_node:
        acts["servers"] = ObserveServers(root=root, prefix="dhcp-")
        acts["rules"] = Run(words=iptables.save(), timeout_s=5)
    steps = tuple(Step(name=name, label=f"look at {name}", act=act) for name, act in acts.items())
    return Plan(installation=host.installation, observe=steps)


def read(host: Host, answers: Mapping[str, StepResult]) -> Report:
    """What the answers say. A figure that is missing is not known; without the machines nothing is.

    Raises:
        HostError: the host did not say which machines it has.
    """
    busy, total = _optional(answers, "processors", parse_processors) or (0, 0)
    ram, ram_free = _optional(answers, "memory", parse_memory) or (None, None)
    space = _optional(answers, "space", coreutils.parse_disk_space)
    return Report(
        boot_id=(_optional(answers, "boot", str.strip) or ""),
        busy_ticks=busy,
        all_ticks=total,
        ram_mib=ram,
        ram_free_mib=ram_free,
        disk_gib=space.size / GIB if space else None,
        disk_free_gib=space.free / GIB if space else None,
        machines=_needed(host, answers, "machines", _machines),
        flows=_optional(answers, "flows", _scopes, may_be_empty=True),
        meters=_optional(answers, "meters", lambda text: frozenset(openflow.parse_meters(text)), may_be_empty=True),
        has_rules=_optional(answers, "rules", lambda text: firewall.stands(text, host.installation), may_be_empty=True),
        servers=_needed(host, answers, "servers", _servers) if host.is_network_node else frozenset(),
    )


def ask_last_words(host: Host, vm_ids: Iterable[int]) -> Plan:
    """The ends of machines' logs, read as the account QEMU ran as: it may have put anything in their place."""
    steps = tuple(
        Step(
            name=str(vm_id),
            label=f"read the last words of VM {vm_id}",
            act=Run(
                words=("tail", "-c", str(LAST_WORDS), "--", f"{machine_dir(host.installation, vm_id)}/qemu.log"),
                user=host.user_of(vm_id),
                timeout_s=5,
            ),
        )
        for vm_id in vm_ids
    )
    return Plan(installation=host.installation, observe=steps)


def read_last_words(answers: Mapping[str, StepResult]) -> dict[int, str]:
    """By VM id; a log that is not there has none."""
    return {int(name): answer.out.strip() for name, answer in answers.items() if answer.accepted}


def parse_processors(text: str) -> tuple[int, int]:
    """Busy ticks and all ticks of all processors, from the first line of /proc/stat (proc(5)).

    Idle and waiting for a disk is not busy; a guest's time is part of `user` and `nice` already.

    Raises:
        ValueError: there is no such line.
    """
    name, *fields = text.partition("\n")[0].split()
    if name != "cpu" or len(fields) < 4:
        raise ValueError("no line cpu")
    ticks = [_counted(each) for each in fields[:8]]
    idle = sum(ticks[3:5])
    return sum(ticks) - idle, sum(ticks)


def parse_memory(text: str) -> tuple[float, float]:
    """MiB there are, and MiB that a new process can have without swapping, from /proc/meminfo.

    Raises:
        ValueError, KeyError: it does not say.
    """
    lines = (line.partition(":") for line in text.splitlines())
    sizes = {name: _counted(rest.split()[0]) for name, _, rest in lines if rest.split()[1:] == ["kB"]}
    return sizes["MemTotal"] / 1024, sizes["MemAvailable"] / 1024


def _counted(word: str) -> int:
    """A number of the kernel's own, which has 64 bits."""
    number = int(word)
    if not 0 <= number < 2**64:
        raise ValueError("no number of the kernel")
    return number


def _optional(answers: Mapping[str, StepResult], name: str, parser: Any, *, may_be_empty: bool = False) -> Any:
    answer = answers.get(name)
    if answer is None or not answer.accepted or not (answer.out or may_be_empty):
        return None
    try:
        return parser(answer.out)
    except NOT_UNDERSTOOD:
        return None


def _needed(host: Host, answers: Mapping[str, StepResult], name: str, parser: Any) -> Any:
    answer = answers.get(name)
    if answer is None or not answer.accepted:
        evidence = (answer.err or f"status {answer.status}") if answer else "no answer"
        raise HostError(host.ip, f"it did not say which {name} it has", evidence=evidence[-500:], code="host.probe")
    try:
        return parser(answer.out)
    except NOT_UNDERSTOOD as error:
        raise HostError(
            host.ip,
            f"its answer about {name} cannot be understood",
            evidence=f"{error!r} in {answer.out[:200]!r}",
            code="host.probe",
        ) from error


def _machines(text: str) -> dict[int, MachineReport]:
    return {
        _number(row["dir"]): MachineReport(
            is_alive=bool(row["alive"]),
            pid=json_text.whole_or_none(row["pid"]),
            process_state=str(row.get("process_state") or ""),
            status=json_text.text_or_none(row["status"]),
        )
        for row in json_text.loads(text)
    }


def _servers(text: str) -> frozenset[int]:
    return frozenset(_number(row["dir"]) for row in json_text.loads(text) if row["alive"])


def _scopes(text: str) -> frozenset[str]:
    """Of the signs that stand; a switch that was started anew has none."""
    marks = [parse_cookie(cookie) for cookie in openflow.parse_dump(text)]
    return frozenset(mark.scope for mark in marks if mark is not None)


def _number(path: str) -> int:
    return int(path.rpartition("-")[2])
