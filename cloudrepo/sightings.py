"""What the answers about directories and processes mean: machines, DHCP servers and disks as they were seen. Pure.

A directory says whose something is and what it should be; a process says what runs. Where they disagree, the process
is believed about itself: a QEMU under one of our UUIDs is ours whatever became of its directory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cloudrepo import limits
from cloudrepo.commands import dnsmasq, qemu
from cloudrepo.host import json_text
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import (
    INTERNET_VLAN,
    SHARED,
    UNFINISHED,
    Mark,
    dhcp_namespace,
    machine_dir,
    machine_uuid,
    parse_mark,
    run_root,
    server_dir,
    tap_name,
)
from cloudrepo.plugging import parse_plugged
from cloudrepo.resources import Address, DhcpServer, Disk, Machine, Namespace, Process, Stranger, Tap

FROZEN = "frozen"
_RUN = run_root("")  # every installation's directory begins so


class _Place(Protocol):
    """What is asked of a host here."""

    @property
    def installation(self) -> str: ...

    @property
    def base_dir(self) -> str: ...


# -- processes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A process of one of our programs.

    Attributes:
        words: its command line, from the program on.
        state: the letter in /proc; T is stopped.
        namespace: the named network namespace it is in; "" = the host's own, "?" = one without a name.
    """

    pid: int
    start: int
    state: str
    words: tuple[str, ...]
    namespace: str

    @property
    def program(self) -> str:
        """The program, without its directory."""
        return self.words[0].rpartition("/")[2]


def parse_processes(text: str) -> list[Seen]:
    """Read the answer of `ObserveProcesses`.

    Raises:
        ValueError: it is none.
    """
    return [
        Seen(
            pid=int(row["pid"]),
            start=int(row["start"]),
            state=str(row["state"]),
            words=tuple(map(str, row["words"])) or ("",),
            namespace=str(row["namespace"]),
        )
        for row in _rows(text)
    ]


# -- machines --------------------------------------------------------------------------------------------


def parse_machines(text: str, installation: str) -> list[Machine]:
    """Read the answer of `ObserveMachines`: what the directories say.

    A directory whose mark is missing or another machine's is ours by its place; it is `unfinished`.

    Raises:
        ValueError: it is none.
    """
    machines = []
    for row in _rows(text):
        lines = [*str(row["mark"] or "").split("\n"), "", ""]
        mark_text, uuid = lines[:2]
        vm_id = _number(row["dir"], "vm-")
        mark, expected = parse_mark(mark_text), machine_uuid(installation, vm_id)
        is_marked = mark is not None and mark.vm_id == vm_id and mark.installation == installation
        machines.append(
            Machine(
                vm_id=vm_id,
                uuid=uuid.strip() if is_marked and uuid.strip() else expected,
                is_running=bool(row["alive"]) and is_marked,
                mark=mark if is_marked else Mark(installation, UNFINISHED, vm_id),
                is_marked=is_marked and bool(uuid.strip()),
                plugged=parse_plugged(lines[2]),
                pid=json_text.whole_or_none(row["pid"]),
                start=json_text.whole_or_none(row.get("start_time")) or 0,
                limits=limits.seen(row.get("limits")),
                status=FROZEN if row.get("process_state") in ("T", "t") else str(row["status"] or ""),
            )
        )
    return machines


def with_processes(
    machines: Iterable[Machine],
    processes: Iterable[Seen],
    taps: Iterable[Tap],
    *,
    installation: str,
    vm_ids: Iterable[int],
) -> list[Machine]:
    """Machines with what their processes say, and machines that only a process tells of.

    Args:
        machines: what the directories say.
        processes: all that were seen.
        taps: those in the host's own namespace.
        installation: ours.
        vm_ids: further machines that may run, since their disks are here.
    """
    by_id = {machine.vm_id: machine for machine in machines}
    uuids = {machine.uuid: vm_id for vm_id, machine in by_id.items()}
    uuids |= {machine_uuid(installation, vm_id): vm_id for vm_id in (*by_id, *vm_ids)}
    running: dict[int, list[tuple[Seen, qemu.Started]]] = {}
    for process in processes:
        started = qemu.parse_command(process.words)
        vm_id = _vm_of(started, uuids, installation) if process.program == qemu.BINARY else None
        if vm_id is not None:
            running.setdefault(vm_id, []).append((process, started))
    held = {tap.device for tap in taps if tap.is_held}
    return [
        _joined(by_id.get(vm_id), vm_id, running.get(vm_id, ()), held, installation)
        for vm_id in dict.fromkeys((*by_id, *running))
    ]


def _vm_of(started: qemu.Started, uuids: Mapping[str, int], installation: str) -> int | None:
    """The machine that a QEMU runs as: its UUID decides, and its directory helps to find the number."""
    if started.uuid in uuids:
        return uuids[started.uuid]
    number = started.directory.removeprefix(machine_dir(installation, 0)[:-1])
    is_ours = number.isdecimal() and started.uuid == machine_uuid(installation, int(number))
    return int(number) if is_ours else None


def _joined(
    machine: Machine | None,
    vm_id: int,
    running: Sequence[tuple[Seen, qemu.Started]],
    held: Collection[str],
    installation: str,
) -> Machine:
    if machine is None:  # its directory is gone, and its sockets with it: what runs can only be ended
        mark, uuid = Mark(installation, UNFINISHED, vm_id), machine_uuid(installation, vm_id)
        strays = _strays((process for process, _ in running), uuid)
        return Machine(vm_id=vm_id, uuid=uuid, mark=mark, is_running=False, is_marked=False, strays=strays)
    main = next((one for one in running if machine.pid == one[0].pid), None)
    is_recorded = main is not None or machine.is_running
    if main is None and not machine.is_running:
        main = next((one for one in running if one[1].directory == machine_dir(installation, vm_id)), None)
    strays = _strays((process for process, _ in running if main is None or process is not main[0]), machine.uuid)
    if main is None:
        return replace(machine, strays=strays, lost=_lost(machine, (), held))
    process, started = main
    devices = [device for device, _ in started.wiring.nics] if started.wiring else []
    seen = replace(
        machine,
        is_running=True,
        pid=process.pid,
        start=process.start,
        status=FROZEN if process.state in ("T", "t") else machine.status,
        wiring=started.wiring,
        strays=strays,
        is_recorded=is_recorded,
    )
    return replace(seen, lost=_lost(seen, devices, held))


def _lost(machine: Machine, devices: Iterable[str], held: Collection[str]) -> tuple[str, ...]:
    """The TAPs of a running machine that nobody holds open."""
    if not machine.is_running or machine.mark is None:
        return ()
    named = [tap_name(machine.vm_id, interface) for interface in machine.mark.detail.split(".") if interface]
    return tuple(device for device in dict.fromkeys([*named, *devices]) if device not in held)


def _strays(processes: Iterable[Seen], token: str) -> tuple[Process, ...]:
    return tuple(sorted(Process(pid=one.pid, start=one.start, token=token) for one in processes))


# -- DHCP servers ----------------------------------------------------------------------------------------


def parse_servers(text: str, installation: str) -> list[DhcpServer]:
    """Read the answer of `ObserveServers` about DHCP servers: what the directories say.

    Raises:
        ValueError: it is none.
    """
    servers = []
    for row in _rows(text):
        vlan, files = _number(row["dir"], "dhcp-"), row["files"]
        mark = parse_mark((files.get("mark") or "").strip())
        is_marked = mark is not None and mark.installation == installation and mark.detail == str(vlan)
        servers.append(
            DhcpServer(
                vlan_id=vlan,
                namespace=dhcp_namespace(vlan),
                config=files.get("dnsmasq.conf") or "",
                hosts=files.get("hosts") or "",
                is_running=bool(row["alive"]),
                mark=mark if is_marked else _unfinished_server(installation, vlan),
                is_marked=is_marked,
                pid=row["pid"],
            )
        )
    return servers


def _unfinished_server(installation: str, vlan: int) -> Mark:
    return Mark(installation, SHARED if vlan == INTERNET_VLAN else UNFINISHED, None, str(vlan))


def with_server_processes(
    servers: Iterable[DhcpServer], processes: Iterable[Seen], installation: str
) -> list[DhcpServer]:
    """Servers with what their processes say, and servers that only a process tells of."""
    by_vlan = {server.vlan_id: server for server in servers}
    running: dict[int, list[tuple[Seen, str]]] = {}
    for process in processes:
        directory, arguments = dnsmasq.parse_serve(process.words)
        number = directory.removeprefix(server_dir(installation, 0)[:-1])
        if process.program == dnsmasq.BINARY and number.isdecimal() and directory:
            running.setdefault(int(number), []).append((process, arguments))
    gone = {
        vlan: DhcpServer(
            vlan_id=vlan, namespace=dhcp_namespace(vlan), config="", hosts="", is_running=False,
            is_marked=False, mark=_unfinished_server(installation, vlan),
        )
        for vlan in running if vlan not in by_vlan
    }  # fmt: skip
    return [_served(server, running.get(vlan, ())) for vlan, server in {**by_vlan, **gone}.items()]


def _served(server: DhcpServer, running: Sequence[tuple[Seen, str]]) -> DhcpServer:
    main = next((one for one in running if server.is_running and one[0].pid == server.pid), None)
    strays = tuple(
        Process(pid=process.pid, start=process.start, token=process.words[1])
        for process, _ in running
        if main is None or process is not main[0]
    )
    if main is None:
        return replace(server, strays=strays)
    is_in_place = main[0].namespace in ("", server.namespace)
    return replace(server, strays=strays, arguments=main[1], is_in_place=is_in_place)


# -- disks -----------------------------------------------------------------------------------------------


def parse_disks(text: str, host: _Place) -> list[Disk]:
    """Read the answer of `ObserveDisks`.

    Raises:
        ValueError: it is none.
    """
    return [_disk(row, host) for row in _rows(text)]


def _disk(row: Mapping[str, Any], host: _Place) -> Disk:
    vm_id, fields = _number(row["dir"], "vm-"), json_object(row["files"].get("mark.json") or "")
    mark = parse_mark(str(fields.get("mark", "")))
    is_marked = mark is not None and mark.vm_id == vm_id and mark.installation == host.installation
    path = str(fields.get("disk", "")) if is_marked else ""
    base, record = fields.get("base"), fields.get("record")
    kept, found = row.get("kept"), row.get("disk") if path else None
    facts = found if found is not None else kept or {}
    return Disk(
        vm_id=vm_id,
        mark=mark if is_marked else Mark(host.installation, UNFINISHED, vm_id),
        is_marked=is_marked,
        path=path,
        directory=row["dir"],
        base_dir=host.base_dir,
        candidate=str(fields.get("candidate", "")) if is_marked else "",
        file=_file(found, kept) if path else "there",
        is_kept=kept is not None,
        owner=str(facts.get("owner", "")),
        mode=facts.get("mode"),
        has_base=row.get("base") is not None or not (isinstance(base, dict) and base.get("path_on_host")),
        base=base if isinstance(base, dict) else {},
        record=record if isinstance(record, dict) else {},
    )


def _file(found: Mapping[str, Any] | None, kept: Mapping[str, Any] | None) -> str:
    """What stands under a disk's name: the file with the same second name, another one, or none."""
    if found is None:
        return "gone"
    is_another = found.get("kind") != "file" or (kept is not None and kept.get("file") != found.get("file"))
    return "another" if is_another else "there"


# -- strangers -------------------------------------------------------------------------------------------


def strange_machines(processes: Iterable[Seen], installation: str) -> list[Stranger]:
    """Machines of other installations: those whose sockets are in the directory of one."""
    found = []
    for process in processes:
        directory = qemu.parse_command(process.words).directory if process.program == qemu.BINARY else ""
        whose = _whose(directory)
        if whose and whose != installation:
            found.append(Stranger(kind="VM", name=directory.rpartition("/")[2].removeprefix("vm-"), whose=whose))
    return found


def strange_servers(processes: Iterable[Seen], installation: str) -> list[Stranger]:
    """DHCP servers of other installations, and anybody's in a namespace of a VLAN."""
    found = []
    for process in processes:
        directory, _ = dnsmasq.parse_serve(process.words)
        whose = _whose(directory)
        is_here = process.namespace.startswith(dhcp_namespace(0)[:-1])
        if process.program == dnsmasq.BINARY and whose != installation and (whose or is_here):
            place = process.namespace or directory
            found.append(Stranger(kind="DHCP server", name=f"{place} (process {process.pid})", whose=whose))
    return found


def strange_devices(marks: Mapping[str, Mark], taps: Iterable[Tap], installation: str) -> list[Stranger]:
    """Devices that carry our mark and are of no kind that we make there."""
    known = {tap.device for tap in taps}
    return [
        Stranger(kind="device", name=device, note=f"it carries our mark {mark}, which belongs to another device")
        for device, mark in marks.items()
        if mark.installation == installation and device not in known and not device.startswith(_OUR_DEVICES)
    ]


def strange_inmates(inside: Iterable[Address], namespaces: Iterable[Namespace], installation: str) -> list[Stranger]:
    """Devices of others in namespaces of ours."""
    ours = {space.namespace for space in namespaces if space.mark and space.mark.installation == installation}
    return [
        Stranger(
            kind="device", name=f"{one.device} in {one.namespace}", whose=one.mark.installation if one.mark else ""
        )
        for one in inside
        if one.namespace in ours and not one.device.startswith(_OUR_DEVICES)
    ]


_OUR_DEVICES = ("tap_", "gw_vlan", "dhcp_v")


def _whose(directory: str) -> str:
    """The installation whose run directory this is in, or ""."""
    return directory.removeprefix(_RUN).split("/")[0] if directory.startswith(_RUN) else ""


def parse_directories(text: str) -> list[str]:
    """The paths in an answer of `ObserveServers`."""
    return [str(row["dir"]) for row in _rows(text)]


def switched_devices(text: str) -> tuple[str, ...]:
    """Devices from lines such as `/proc/sys/net/ipv4/conf/eth0/forwarding:1`; a name may hold a colon or a dot."""
    lines = (line.rpartition(":") for line in text.splitlines())
    return tuple(path.split("/")[-2] for path, _, value in lines if value in ("0", "1"))


# -- reading ---------------------------------------------------------------------------------------------


def _rows(text: str) -> list[dict[str, Any]]:
    """The objects of an observation; anything else than a list of them would count as nothing there."""
    rows = json_text.loads(text)
    if not isinstance(rows, list):
        raise ValueError("not a list")
    return rows


def _number(path: str, prefix: str) -> int:
    return int(path.rsplit("/", 1)[-1].removeprefix(prefix))


def json_object(text: str) -> dict[str, Any]:
    """A mark file's fields; a half-written one counts as empty: the directory itself says whose it is."""
    try:
        value = json_text.loads(text) if text.strip() else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
