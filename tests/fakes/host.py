"""Hosts in memory: they take the plans we send, refuse every word they do not know, and answer as the tools do."""

from __future__ import annotations

import copy
import ipaddress
import itertools
import json
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from cloudrepo import plan as acts
from cloudrepo.errors import CloudError, HostUnreachable, MessageRefused
from cloudrepo.plan import Plan, PlanResult, Step, StepEvent, StepResult
from fakes.bounds import require_allowed
from fakes.flow_table import METER_FEATURES, BadFlow, FlowTable

BUILT_IN = {"filter": ("INPUT", "FORWARD", "OUTPUT"), "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")}


class Refusal(Exception):
    """What the host says instead of doing it."""


@dataclass
class Device:
    """A network device: `kind` is `tap`, `internal` (a port of the bridge) or `other`."""

    kind: str
    namespace: str = ""
    user: str = ""
    is_up: bool = False
    is_silent: bool = False
    alias: str = ""
    addresses: list[str] = field(default_factory=list)
    group: str = ""


@dataclass
class Process:
    words: tuple[str, ...]
    state: str = "running"
    is_frozen: bool = False
    links_down: set[str] = field(default_factory=set)
    reloads: int = 0
    password: str = ""


class ModelHost:
    """One host. What it holds are plain dicts, for tests to fill and to look at.

    Args:
        ip: its address.
        datapath: of the bridge; "" = there is no bridge.
        uplink: whether a foreign device is on the bridge.
        next_hop: of the default route by `up0`; "" = no default route.
    """

    def __init__(
        self, ip: str, *, datapath: str = "system", uplink: bool = True, next_hop: str = "203.0.113.1"
    ) -> None:
        self.ip = ip
        self.datapath = datapath
        self.is_up = True
        self.next_hop = next_hop
        self.devices: dict[str, Device] = {"up0": Device("other", is_up=True, addresses=["203.0.113.2/24"])}
        self.ports: dict[str, dict[str, Any]] = {"trunk0": {"tag": None, "type": "", "ids": {}}} if uplink else {}
        self.elsewhere: dict[str, dict[str, Any]] = {}  # ports of another bridge
        self.bridge: dict[str, Any] = {"fail_mode": "", "ids": {}}
        self.flows = FlowTable()
        self.most_meters = 262144
        self.flows.set_ports(self.ports)
        self.namespaces: dict[str, str] = {}
        self.rules: dict[str, dict[str, list[tuple[str, ...]]]] = {
            table: {chain: [] for chain in chains} for table, chains in BUILT_IN.items()
        }
        self.files: dict[str, str] = {}
        self.directories: set[str] = set()
        self.processes: dict[int, Process] = {}
        self.switches: dict[str, str] = {"net/ipv4/ip_forward": "0"}
        self.inodes: dict[str, int] = {}
        self.owners: dict[int, tuple[str, int]] = {}
        self.numbers = iter(range(1, 10000))
        self.fences: dict[str, tuple[int, int]] = {}  # by scope: highest operation, count at its last change
        self.changes = 0
        self.fail_at: set[str] = set()
        self.done: list[str] = []
        self.pids = iter(range(4000, 5000))

    # -- plans -----------------------------------------------------------------------------------------

    def run(
        self, plan: Plan, on_event: Callable[[StepEvent], None], gates: Mapping[str, Any], stop: Any = None
    ) -> PlanResult:
        """Do what the plan says, or as much of it as is begun before the wish to stop, then look."""
        if plan.operation:
            self._fence(plan)
        result = PlanResult(host=self.ip)
        failed, aborted = None, ""
        for stage in plan.stages:
            if stage.gate:
                on_event(StepEvent(host=self.ip, kind="gate", name=stage.gate))
                if not gates[stage.gate].wait(10):
                    aborted = "gate closed"
                    break
            for step in stage.steps:
                if stop is not None and stop.is_set():
                    aborted = "it was told to stop"
                    break
                on_event(StepEvent(host=self.ip, kind="begin", name=step.name, label=step.label))
                answer = self._step(step)
                result.steps[step.name] = answer
                on_event(
                    StepEvent(host=self.ip, kind="end", name=step.name, label=step.label, accepted=answer.accepted)
                )
                if not answer.accepted:
                    failed = answer
                    break
            if failed or aborted:
                break
        observed = {step.name: self._step(step) for step in plan.observe}
        return PlanResult(host=self.ip, steps=result.steps, observed=observed, failed=failed, aborted=aborted)

    def _fence(self, plan: Plan) -> None:
        """As the runner: an older operation, or one made from an older look at the host, is refused."""
        for scope in plan.scopes:
            number, count = self.fences.get(scope, (0, 0))
            if scope == acts.EVERYTHING:
                number, count = max([number, *(each for each, _ in self.fences.values())]), self.changes
            if plan.operation < number:
                raise MessageRefused(
                    self.ip, "the message came too late", code="host.refused.operation", details={"seen": number}
                )
            if plan.seen.get(scope, count) != count:
                raise MessageRefused(
                    self.ip, "a newer operation was here", code="host.refused.changed", details={"seen": number}
                )
        self.changes += 1
        for scope in [*plan.scopes, *(self.fences if acts.EVERYTHING in plan.scopes else ())]:
            self.fences[scope] = (plan.operation, self.changes)

    def _step(self, step: Step) -> StepResult:
        act, status, out, err = step.act, 0, "", ""
        try:
            if step.name in self.fail_at:
                raise Refusal("broken on purpose")
            out = getattr(self, f"_{type(act).__name__}")(act)
        except FileNotFoundError:
            status = 1
        except Refusal as refusal:
            status, err = 1, str(refusal)
        accepted = status in getattr(act, "ok", (0,)) and not err
        self.done.append(step.name)
        return StepResult(name=step.name, label=step.label, status=status, out=out or "", err=err, accepted=accepted)

    # -- files -----------------------------------------------------------------------------------------

    def _MakeDir(self, act: acts.MakeDir) -> None:
        self.directories.add(act.path)

    def _WriteFile(self, act: acts.WriteFile) -> None:
        if act.path.rpartition("/")[0] not in self.directories:
            raise Refusal(f"{act.path}: No such file or directory")
        self.files[act.path] = act.text

    def _ReadFile(self, act: acts.ReadFile) -> str:
        if act.path.startswith("/proc/sys/"):
            return self.switches[act.path.removeprefix("/proc/sys/")] + "\n"
        if act.path.endswith("/fences") and self.changes:
            return json.dumps({"changes": self.changes, "floor": 0, "scopes": self.fences})
        if act.path not in self.files:
            raise FileNotFoundError
        return self.files[act.path]

    def _PublishFile(self, act: acts.PublishFile) -> str:
        if act.draft not in self.files:
            raise Refusal(f"{act.draft}: No such file or directory")
        number = self.inodes.setdefault(act.draft, next(self.numbers))
        self.owners[number] = (act.user, act.mode)
        if act.path in self.files:
            if 1 in act.ok:
                return ""
            raise Refusal(f"{act.path} is there already")
        self.files[act.path] = self.files[act.draft]
        self.inodes[act.path] = number
        return ""

    def facts(self, path: str) -> dict[str, Any] | None:
        """What is known of a file."""
        if path not in self.files:
            return None
        number = self.inodes.setdefault(path, next(self.numbers))
        owner, mode = self.owners.get(number, ("ubuntu", 0o600))
        return {"kind": "file", "file": f"1:{number}", "owner": owner, "mode": mode}

    def _Remove(self, act: acts.Remove) -> None:
        if not act.path.startswith(act.within + "/"):
            raise Refusal(f"{act.path} is not in {act.within}")
        if act.same_as:
            return  # no file has two names here
        inside = [path for path in (*self.files, *self.directories) if path.startswith(act.path + "/")]
        if inside and not act.tree:
            raise Refusal(f"{act.path}: Is a directory")
        for path in (*inside, act.path):
            self.files.pop(path, None)
            self.inodes.pop(path, None)
            self.directories.discard(path)

    def _RemoveIfEmpty(self, act: acts.RemoveIfEmpty) -> None:
        if not any(path.startswith(act.path + "/") for path in (*self.files, *self.directories)):
            self.directories.discard(act.path)

    # -- processes -------------------------------------------------------------------------------------

    def _process(self, pid_file: str, token: str) -> int | None:
        pid = int(self.files.get(pid_file, "0").split()[0])
        process = self.processes.get(pid)
        return pid if process is not None and token in process.words else None

    def _StopProcess(self, act: acts.StopProcess) -> str:
        pid = self._process(act.pid_file, act.token) if act.pid_file else act.pid
        if not act.pid_file and (act.pid not in self.processes or act.start != act.pid * 10):
            return "gone"
        if pid is None:
            return "gone"
        del self.processes[pid]
        return "powerdown" if act.grace_s else "quit" if act.socket else "term"

    def _SignalProcess(self, act: acts.SignalProcess) -> None:
        pid = self._process(act.pid_file, act.token)
        if pid is None or act.signal not in ("HUP", "CONT"):
            raise Refusal("there is no such process")
        if act.signal == "CONT":
            self.processes[pid].is_frozen = False
        else:
            self.processes[pid].reloads += 1

    def _start(self, words: tuple[str, ...], pid_file: str, state: str = "running") -> str:
        pid = next(self.pids)
        self.processes[pid] = Process(words, state)
        self.files[pid_file] = f"{pid}\n"
        return str(pid)

    def _Spawn(self, act: acts.Spawn) -> str:
        if act.words[0] != "qemu-system-x86_64" or "-S" not in act.words:
            raise Refusal(f"not to be started: {act.words}")
        for word in act.words:
            if word.startswith("tap,"):
                name = dict(part.split("=", 1) for part in word.split(",")[1:])["ifname"]
                tap = self.devices.get(name)
                if tap is None or tap.user != act.user:
                    raise Refusal(f"could not configure /dev/net/tun ({name}): Operation not permitted")
        for word in (after for before, after in itertools.pairwise(act.words) if before == "-drive"):
            disk = word.split(",")[0].removeprefix("file=")
            if disk not in self.files:
                raise Refusal(f"Could not open '{disk}': No such file or directory")
        return self._start(act.words, act.pid_file, "paused")

    def _Qmp(self, act: acts.Qmp) -> str:
        pid = self._process(act.socket.rpartition("/")[0] + "/pid", act.expect_uuid)
        if pid is None:
            raise Refusal("the socket did not answer")
        process = self.processes[pid]
        for command in act.commands:
            if command["execute"] == "cont":
                process.state = "running"
            elif command["execute"] == "set_password":
                if not any(",password=on" in word for word in process.words):
                    raise Refusal("Could not set password")
                process.password = command["arguments"]["password"]
            elif command["execute"] == "set_link":
                name = command["arguments"]["name"]
                if not any(f"id={name}," in word for word in process.words):
                    raise Refusal(f"Device '{name}' not found")
                (process.links_down.discard if command["arguments"]["up"] else process.links_down.add)(name)
            else:
                raise Refusal(f"The command {command['execute']} has not been found")
        return "[]"

    # -- commands --------------------------------------------------------------------------------------

    def _Run(self, act: acts.Run) -> str:
        words = act.words
        match words:
            case ("ovs-ofctl", *rest):
                return self._ofctl(tuple(rest), act.stdin)
            case ("ovs-vsctl", *rest):
                return self._ovs(tuple(rest))
            case ("ip", "-n", space, "-batch", "-"):
                return self._batch(act.stdin, space)
            case ("ip", "-batch", "-"):
                return self._batch(act.stdin, "")
            case ("ip", "-j", "-d", "address", "show"):
                return self._addresses("")
            case ("ip", "-j", "-4", "route", "show"):
                return self._routes()
            case ("nsenter", place, "--", *rest):
                return self._inside(place.removeprefix("--net=/run/netns/"), tuple(rest))
            case ("iptables-restore", "--noflush", "--wait", "10"):
                return self._restore(act.stdin)
            case ("grep", "-rs", "--include=forwarding", "1", "/proc/sys/net/ipv4/conf"):
                on = [key for key, value in self.switches.items() if key.endswith("/forwarding") and value == "1"]
                return "".join(f"/proc/sys/{key}:1\n" for key in on)
            case ("grep", "-rs", "--include=disable_ipv6", "0", "/proc/sys/net/ipv6/conf"):
                keys = [f"net/ipv6/conf/{name}/disable_ipv6" for name in self.devices]
                return "".join(f"/proc/sys/{key}:0\n" for key in keys if self.switches.get(key) != "1")
            case ("iptables-save",):
                return self._save()
            case ("df", "-B1", "--output=size,avail", "--", *_):
                return f"1B-blocks Avail\n{10 << 30} {4 << 30}\n"
            case ("tail", "-c", _, "--", path):
                if path not in self.files:
                    raise Refusal(f"tail: cannot open '{path}' for reading: No such file or directory")
                return self.files[path]
            case ("python3", "-c", _, path):  # `commands.python3.write_binary`
                if path in self.files or path.rpartition("/")[0] not in self.directories:
                    raise Refusal(f"FileExistsError, or no directory: '{path}'")
                self.files[path] = act.stdin
                return ""
            case ("sysctl", "-qw" | "-qew", *settings):
                self.switches.update(dict(one.split("=") for one in settings))
                for name, device in self.devices.items():
                    if f"net/ipv6/conf/{name}/disable_ipv6=1" in settings:
                        device.addresses = [one for one in device.addresses if ":" not in one]
                return ""
        raise Refusal(f"{words[0]}: not found")

    def _inside(self, space: str, words: tuple[str, ...]) -> str:
        if space not in self.namespaces:
            raise Refusal(f'Cannot open network namespace "{space}": No such file or directory')
        if words[:2] == ("sysctl", "-qw"):
            return ""
        if words[0] != "dnsmasq" or len(words) != 2:
            raise Refusal(f"not to be run: {words}")
        config = self.files[words[1].removeprefix("--conf-file=")]
        options = dict(line.partition("=")[::2] for line in config.splitlines())
        device = self.devices.get(options["interface"])
        if device is None or device.namespace != space or not device.is_up:
            raise Refusal(f"dnsmasq: unknown interface {options['interface']}")
        if options["dhcp-hostsfile"] not in self.files:
            raise Refusal("dnsmasq: cannot read the hosts file")
        return self._start(words, options["pid-file"])

    # -- Open vSwitch ----------------------------------------------------------------------------------

    def _ovs(self, words: tuple[str, ...]) -> str:
        if not self.datapath and "list" not in words:
            raise Refusal("ovs-vsctl: no bridge named br-int")
        groups: list[list[str]] = [[]]
        for word in words:
            if word == "--":
                groups.append([])
            else:
                groups[-1].append(word)
        if groups[0] == ["--timeout=20", "-f", "json"]:
            return self._list_ports()
        before = copy.deepcopy((self.ports, self.devices, self.bridge))
        try:
            for group in groups[1:]:
                self._ovs_command(tuple(group))
        except Refusal:
            self.ports, self.devices, self.bridge = before
            raise
        if self.bridge["fail_mode"] != before[2]["fail_mode"]:  # either way all flows are gone
            self.flows.flush(has_built_in=self.bridge["fail_mode"] != "secure")
        self.flows.set_ports(self.ports)
        return ""

    def _ofctl(self, words: tuple[str, ...], stdin: str) -> str:
        if not self.datapath:
            raise Refusal("ovs-ofctl: br-int is not a bridge or a socket")
        match words[3:]:
            case ("--bundle", "add-flows", "br-int", "-"):
                try:
                    self.flows.change(stdin)
                except BadFlow as error:
                    raise Refusal(str(error)) from None
                return ""
            case ("add-meter" | "mod-meter" as verb, "br-int", text):
                try:
                    self.flows.set_meter(text, is_new=verb == "add-meter")
                except BadFlow as error:
                    raise Refusal(str(error)) from None
                return ""
            case ("del-meter", "br-int", number):
                self.flows.delete_meter(int(number.removeprefix("meter=")))
                return ""
            case ("dump-meters", "br-int"):
                return self.flows.dump_meters()
            case ("meter-features", "br-int"):
                return METER_FEATURES.format(most=self.most_meters)
            case ("--names", "--no-stats", "dump-flows", "br-int"):
                return self.flows.dump()
            case ("--names", "--no-stats", "dump-flows", "br-int", metadata):
                return self.flows.dump(metadata)
        raise Refusal(f"ovs-ofctl: unknown command {words}")

    def _ovs_command(self, words: tuple[str, ...]) -> None:
        match words:
            case ("set", "Bridge", "br-int", "fail_mode=secure", mark):
                key, _, text = mark.removeprefix("external_ids:").partition("=")
                self.bridge["fail_mode"] = "secure"
                self.bridge["ids"][key] = json.loads(text)
            case ("remove", "Bridge", "br-int", "external_ids", key):
                self.bridge["ids"].pop(key, None)
            case ("clear", "Bridge", "br-int", "fail_mode"):
                self.bridge["fail_mode"] = ""
            case ("--if-exists", "del-port", "br-int", name):
                port = self.ports.pop(name, None)
                if port and port["type"] == "internal":
                    self.devices.pop(name, None)
            case ("--if-exists", "del-port", name):
                self.elsewhere.pop(name, None)
            case ("clear", "Port", name, "trunks", "vlan_mode", "cvlans"):
                for column in ("trunks", "vlan_mode", "cvlans"):
                    self.ports[name].pop(column, None)
            case ("remove", "Port", name, "other_config", "qinq-ethtype"):
                self.ports[name].pop("outer", None)
            case ("--may-exist", "add-port", "br-int", name):
                if name in self.elsewhere:
                    raise Refusal(f"cannot create a port named {name}: it already exists on bridge br-other")
                self.ports.setdefault(name, {"tag": None, "type": "", "ids": {}})
            case ("set", "Port", name, tag, *tunnel, mark):
                if tunnel:
                    mode, outer = tunnel
                    self.ports[name]["vlan_mode"] = mode.removeprefix("vlan_mode=")
                    self.ports[name]["outer"] = outer.removeprefix("other_config:qinq-ethtype=")
                key, _, text = mark.removeprefix("external_ids:").partition("=")
                self.ports[name]["tag"] = int(tag.removeprefix("tag="))
                self.ports[name]["ids"][key] = json.loads(text)
            case ("set", "Interface", name, "type=internal", *mac):
                self.ports[name]["mac"] = json.loads(mac[0].removeprefix("mac=")) if mac else ""
                if self.ports[name]["type"] != "internal":  # a device that went with its namespace does not come back
                    self.devices.setdefault(name, Device("internal"))
                self.ports[name]["type"] = "internal"
            case _:
                raise Refusal(f"ovs-vsctl: unknown command {words}")

    def _list_ports(self) -> str:
        uuids = {name: ["uuid", f"0000-{name}"] for name in ("br-int", *self.ports)}
        others = {name: ["uuid", f"0001-{name}"] for name in self.elsewhere}
        none: list[Any] = ["set", []]
        ids = ["map", [list(pair) for pair in self.bridge["ids"].items()]]
        mode = self.bridge["fail_mode"] or none
        bridges = [["br-int", ["set", list(uuids.values())], self.datapath, mode, ids]] if self.datapath else []
        bridges += [["br-other", ["set", list(others.values())], self.datapath, none, ["map", []]]]
        rows: list[list[Any]] = [[uuids["br-int"], "br-int", none, none, none, none, ["map", []], ["map", []]]]
        rows += [
            [
                {**uuids, **others}[name],
                name,
                ["set", []] if port["tag"] is None else port["tag"],
                ["set", port.get("trunks", [])],
                port.get("vlan_mode") or ["set", []],
                ["set", port.get("cvlans", [])],
                ["map", [["qinq-ethtype", port["outer"]]] if port.get("outer") else []],
                ["map", [list(pair) for pair in port["ids"].items()]],
            ]
            for name, port in {**self.ports, **self.elsewhere}.items()
        ]
        interfaces: list[list[Any]] = [["br-int", "internal", none, none]]
        interfaces += [
            [name, port["type"], none, port.get("mac") or none]
            for name, port in {**self.ports, **self.elsewhere}.items()
        ]
        tables = (
            {"headings": ["name", "ports", "datapath_type", "fail_mode", "external_ids"], "data": bridges},
            {
                "headings": [
                    *("_uuid", "name", "tag", "trunks", "vlan_mode", "cvlans"),
                    *("other_config", "external_ids"),
                ],
                "data": rows,
            },
            {"headings": ["name", "type", "error", "mac"], "data": interfaces},
        )
        return "\n".join(json.dumps(table) for table in tables)

    # -- ip --------------------------------------------------------------------------------------------

    def _batch(self, text: str, space: str) -> str:
        if space and space not in self.namespaces:
            raise Refusal(f'Cannot open network namespace "{space}"')
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                self._ip(tuple(line.split(" ")), space)
            except Refusal as refusal:
                raise Refusal(f"{refusal}\nCommand failed -:{number}") from None
        return ""

    def _ip(self, words: tuple[str, ...], space: str) -> None:
        match words:
            case ("netns", "add", name):
                if name in self.namespaces:
                    raise Refusal(f'Cannot create namespace file "/run/netns/{name}": File exists')
                self.namespaces[name] = ""
            case ("netns", "delete", name):
                if self.namespaces.pop(name, None) is None:
                    raise Refusal(f'Cannot remove namespace file "/run/netns/{name}"')
                self.devices = {key: one for key, one in self.devices.items() if one.namespace != name}
            case ("tuntap", "add", "dev", name, "mode", "tap", "user", user):
                if name in self.devices or len(name) > 15:
                    raise Refusal("ioctl(TUNSETIFF): Device or resource busy")
                self.devices[name] = Device("tap", user=user)
            case ("link", "delete", "dev", name):
                if self.devices.pop(name, None) is None:
                    raise Refusal(f'Cannot find device "{name}"')
            case ("link", "delete", "group", number):
                gone = [name for name, device in self.devices.items() if device.group == number]
                if not gone:
                    raise Refusal("RTNETLINK answers: No such device")
                for name in gone:
                    del self.devices[name]
            case ("link", "set", "dev", "lo", "alias", alias) if space:
                self.namespaces[space] = alias
            case ("link", "set", "dev", "lo", "up") if space:
                pass
            case ("link", "set", "dev", name, *rest):
                self._set_link(self._device(name, space), rest)
            case ("address", "delete", cidr, "dev", name):
                self._device(name, space).addresses.remove(cidr)
            case ("address", "replace", cidr, "dev", name):
                addresses = self._device(name, space).addresses
                addresses += [cidr] if cidr not in addresses else []
            case _:
                raise Refusal(f"Command {words} is unknown")

    def _device(self, name: str, space: str) -> Device:
        device = self.devices.get(name)
        if device is None or device.namespace != space:
            raise Refusal(f'Cannot find device "{name}"')
        return device

    def _set_link(self, device: Device, words: list[str]) -> None:
        match words:
            case ("alias", alias):
                device.alias = alias
            case ("up",):
                device.is_up = True
            case ("netns", space):
                if space not in self.namespaces:
                    raise Refusal(f'Invalid "netns" value "{space}"')
                device.namespace, device.is_up, device.addresses = space, False, []
            case ("group", number):
                device.group = number
            case ("arp", "off"):
                device.is_silent = True
            case ("addrgenmode", "none"):
                pass
            case _:
                raise Refusal(f"ip link set: {words}")

    def _addresses(self, space: str) -> str:
        alias = self.namespaces.get(space, "")
        rows: list[dict[str, Any]] = [{"ifname": "lo", "flags": ["LOOPBACK"], "addr_info": []}]
        rows[0] |= {"ifalias": alias} if alias else {}
        for name, device in self.devices.items():
            if device.namespace == space:
                held = any(f",ifname={name}," in f"{word}," for one in self.processes.values() for word in one.words)
                rows.append(_row(name, device, self.datapath, is_held=held))
        return json.dumps(rows)

    def _routes(self) -> str:
        rows: list[dict[str, Any]] = [{"dst": "203.0.113.0/24", "dev": "up0", "protocol": "kernel"}]
        for name, device in self.devices.items():
            if device.is_up and not device.namespace:
                networks = [str(ipaddress.IPv4Interface(one).network) for one in device.addresses if ":" not in one]
                rows += [{"dst": network, "dev": name, "protocol": "kernel"} for network in networks]
        if self.next_hop:
            rows.append({"dst": "default", "gateway": self.next_hop, "dev": "up0"})
        return json.dumps(rows)

    # -- iptables --------------------------------------------------------------------------------------

    def _restore(self, text: str) -> str:
        rules = copy.deepcopy(self.rules)
        table = ""
        for line in text.splitlines():
            words = tuple(shlex.split(line))
            if line.startswith("*"):
                table = line[1:]
            elif line == "COMMIT":
                known = {*rules[table], "ACCEPT", "DROP", "MASQUERADE"}
                for chain in rules[table].values():
                    for rule in chain:
                        if rule[rule.index("-j") + 1] not in known:
                            raise Refusal(f"iptables-restore: Chain {rule[-1]} does not exist")
                table = ""
            elif line.startswith(":"):
                rules[table][words[0][1:]] = []
            elif words[0] == "-X":
                del rules[table][words[1]]
            else:
                self._change_rule(rules[table][words[1]], words)
        if table:
            raise Refusal("iptables-restore: COMMIT expected")
        self.rules = rules
        return ""

    def _change_rule(self, chain: list[tuple[str, ...]], words: tuple[str, ...]) -> None:
        rule = ("-A", *words[1:])
        if words[0] == "-D" and rule in chain:
            chain.remove(rule)
        elif words[0] == "-A":
            chain.append(rule)
        elif words[0] == "-I":
            chain.insert(0, rule)
        else:
            raise Refusal(f"iptables-restore: {words}")

    def _save(self) -> str:
        lines = []
        for table, chains in self.rules.items():
            lines.append(f"*{table}")
            lines += [f":{name} {'ACCEPT' if name in BUILT_IN[table] else '-'} [0:0]" for name in chains]
            lines += [shlex.join(rule) for chain in chains.values() for rule in chain]
            lines.append("COMMIT")
        return "\n".join(lines) + "\n"

    # -- looking ---------------------------------------------------------------------------------------

    def _below(self, root: str, prefix: str) -> list[str]:
        inside = [
            path.removeprefix(f"{root}/").split("/")[0] for path in self.directories if path.startswith(f"{root}/")
        ]
        return sorted({f"{root}/{name}" for name in inside if name.startswith(prefix)})

    def _ObserveMachines(self, act: acts.ObserveMachines) -> str:
        rows = []
        for directory in self._below(act.root, "vm-"):
            mark = self.files.get(f"{directory}/mark")
            pid = self._process(f"{directory}/{act.pid_file}", (mark or "\n\n").split("\n")[1])
            state = self.processes[pid].state if pid else None
            is_frozen = pid is not None and self.processes[pid].is_frozen
            row = {"dir": directory, "mark": mark, "pid": pid, "alive": pid is not None, "status": state}
            rows.append(row | ({"process_state": "T", "status": None} if is_frozen else {}))
        return json.dumps(rows)

    def _ObserveProcesses(self, act: acts.ObserveProcesses) -> str:
        rows = [
            {"pid": pid, "start": pid * 10, "state": "T" if one.is_frozen else "S", "words": one.words, "namespace": ""}
            for pid, one in self.processes.items()
            if one.words[0] in act.names
        ]
        return json.dumps(rows)

    def _ObserveDisks(self, act: acts.ObserveDisks) -> str:
        rows = []
        for directory in self._below(act.root, "vm-"):
            text = self.files.get(f"{directory}/mark.json")
            try:
                fields = json.loads(text or "")
            except ValueError:
                fields = {}
            base = fields.get("base", {}).get("path_on_host", "")
            rows.append(
                {
                    "dir": directory,
                    "files": {"mark.json": text},
                    "disk": self.facts(fields.get("disk", "")),
                    "kept": self.facts(f"{directory}/{act.kept}"),
                    "base": self.facts(base),
                }
            )
        return json.dumps(rows)

    def _ObserveServers(self, act: acts.ObserveServers) -> str:
        rows = []
        for directory in self._below(act.root, act.prefix):
            files = {name: self.files.get(f"{directory}/{name}") for name in act.files}
            pid = self._process(f"{directory}/{act.pid_file}", f"--conf-file={directory}/dnsmasq.conf")
            rows.append({"dir": directory, "files": files, "pid": pid, "alive": pid is not None})
        return json.dumps(rows)

    def _ObserveFiles(self, act: acts.ObserveFiles) -> str:
        found = {path: {"size": len(self.files[path])} if path in self.files else None for path in act.paths}
        return json.dumps(found | {path: {"kind": "dir"} for path in self._below(act.directory, "") if act.directory})

    def _ObserveNamespaces(self, act: acts.ObserveNamespaces) -> str:
        return json.dumps(
            {
                name: {"status": 0, "out": self._addresses(name), "err": ""}
                for name in self.namespaces
                if name.startswith(act.prefix)
            }
        )

    def picture(self) -> dict[str, Any]:
        """All that can be left behind, to be compared."""
        return copy.deepcopy(
            {
                "ports": self.ports,
                "devices": self.devices,
                "namespaces": self.namespaces,
                "rules": self.rules,
                "files": sorted(path for path in self.files if "/base/" not in path),  # all VMs', and never removed
                "directories": sorted(self.directories),
                "processes": sorted(process.words for process in self.processes.values()),
            }
        )


def _row(name: str, device: Device, datapath: str, *, is_held: bool) -> dict[str, Any]:
    flags = {"UP": device.is_up, "NOARP": device.is_silent, "LOWER_UP": device.is_up and is_held}
    row: dict[str, Any] = {
        "ifname": name,
        "flags": ["BROADCAST", *(name for name, is_set in flags.items() if is_set)],
        "addr_info": [
            {
                "family": "inet6" if ":" in cidr else "inet",
                "local": cidr.split("/")[0],
                "prefixlen": int(cidr.split("/")[1]),
            }
            for cidr in device.addresses
        ],
    }
    if device.kind == "tap" or (device.kind == "internal" and datapath == "netdev"):
        row["linkinfo"] = {"info_kind": "tun", "info_data": {"type": "tap"}}
        if device.user:
            row["linkinfo"]["info_data"]["user"] = device.user
    if device.alias:
        row["ifalias"] = device.alias
    return row


class FakeExecutor:
    """Stands in for a `RemoteExecutor`: hosts in memory, each plan kept for tests to read."""

    def __init__(self, *hosts: ModelHost, remote_user: str = "ubuntu") -> None:
        self.hosts = {host.ip: host for host in hosts}
        self.remote_user = remote_user
        self.plans: list[tuple[str, Plan]] = []

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        """Run it, or be unreachable."""
        found = self.hosts.get(host)
        if found is None or not found.is_up:
            raise HostUnreachable(host, "no connection", evidence="No route to host")
        self.plans.append((host, plan))
        require_allowed(plan)  # a hardened host takes every plan that we make
        on_event = options.get("on_event") or (lambda event: None)
        return found.run(plan, on_event, options.get("gates") or {}, options.get("stop"))

    def images_home(self, host: str) -> str:
        """The same as the account's."""
        return self.home(host)

    def gather(self, work: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """All at once, as the gates need it."""

        def answer(call: Callable[[], Any]) -> Any:
            try:
                return call()
            except CloudError as error:
                return error

        with ThreadPoolExecutor(max_workers=max(1, len(work))) as pool:
            return dict(zip(work, pool.map(answer, work.values()), strict=True))

    def another(self) -> FakeExecutor:
        """The same: there are no connections."""
        return self

    def drop(self, host: str) -> None:
        """There is no connection."""

    def close(self) -> None:
        """There is none."""

    def home(self, host: str) -> str:
        """As on every host."""
        return f"/home/{self.remote_user}"
