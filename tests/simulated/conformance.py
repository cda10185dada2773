"""What a host does, as one story: every command our builders make, and what goes wrong with them, one after another.

Each `Trial` is one act on a host, with what it must answer and what must be seen of the host afterwards. A simulated
host and a host of the lab are held to the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cloudrepo import isolation, probe
from cloudrepo.commands import coreutils, dnsmasq, iproute, iptables, openflow, ovs, qemu, qemu_img
from cloudrepo.commands.dnsmasq import Lease, Range
from cloudrepo.naming import (
    Mark,
    first_cookie,
    flow_cookie,
    flow_owner,
    machine_dir,
    machine_uuid,
    meter_number,
    run_root,
    server_dir,
)
from cloudrepo.plan import (
    Act,
    MakeDir,
    Plan,
    PublishFile,
    Qmp,
    Remove,
    RemoveIfEmpty,
    Run,
    SignalProcess,
    Spawn,
    Stage,
    Step,
    StopProcess,
    WriteFile,
)
from cloudrepo.probe import Host
from cloudrepo.resources import (
    Address,
    Closure,
    Firewall,
    Flows,
    HostState,
    Machine,
    MachineSpec,
    Meter,
    Nic,
    Port,
    Resource,
    Tap,
)
from orchestrator_api import OrchestratorAPI
from remote_executor import RemoteExecutor

OURS = "c0ffee00"
VLAN, VM = 777, 9001
SPACE, GATEWAY, SERVER = f"ns-dhcp-vlan{VLAN}", f"gw_vlan{VLAN}", f"dhcp_v{VLAN}"
TAP, OTHER_TAP = f"tap_{VM}_eth0", f"tap_{VM}_eth1"
TOO_LONG = "tap_9001_eth0_of_a_slice"


@dataclass(frozen=True)
class Trial:
    """One act, and what comes of it.

    Attributes:
        name: for people.
        act: what is done.
        status: what it answers.
        says: a pattern in its stderr; empty = stderr is not looked at.
        seen: what the probe sees afterwards and did not before, or the other way round.
    """

    name: str
    act: Act
    status: int = 0
    says: str = ""
    seen: tuple[str, ...] = ()


class Bench:
    """A host on which trials are made.

    Args:
        executor: reaches it.
        ip: its address; it is asked as a network node.
    """

    def __init__(self, executor: RemoteExecutor, ip: str) -> None:
        self.executor = executor
        user = executor.remote_user
        folder = f"{executor.home(ip)}/vm_images"
        self.host = Host(ip=ip, installation=OURS, bridge="br-int", base_dir=folder, is_network_node=True, user=user)
        self.state = self._look()

    def _look(self) -> HostState:
        plan = Plan(installation=OURS, observe=probe.questions(self.host))
        return probe.read(self.host, self.executor.run_plan(self.host.ip, plan).observed)

    def difference(self, trial: Trial) -> str:
        """Do it; in what the host is another than the trial says, or an empty text."""
        step = Step(name="it", label=trial.name, act=trial.act)
        stage = Stage(name="trial", steps=(step,))
        plan = Plan(installation=OURS, stages=(stage,), observe=probe.questions(self.host))
        result = self.executor.run_plan(self.host.ip, plan)
        before, self.state = self.state, probe.read(self.host, result.observed)
        answer = result.steps["it"]
        seen = tuple(changes(before, self.state))
        wrong = []
        if answer.status != trial.status:
            wrong.append(f"status {answer.status} instead of {trial.status}")
        if trial.says and not re.search(trial.says, answer.err):
            wrong.append(f"says {answer.err!r} instead of {trial.says!r}")
        if seen != trial.seen:
            wrong.append(f"seen {seen} instead of {trial.seen}")
        return f"{trial.name}: {'; '.join(wrong)} ({answer.err!r}, {answer.out[:200]!r})" if wrong else ""


def told_to(executor: RemoteExecutor, ip: str) -> list[str]:
    """Tell a host the story; where it is another than the story says."""
    bench = Bench(executor, ip)
    before = dict(bench.state)
    found = [wrong for trial in story(bench.host) if (wrong := bench.difference(trial))]
    left = [str(key) for key in {*before} ^ {*bench.state}]
    return [*found, *(f"left behind, or gone: {name}" for name in left)]


def changes(before: HostState, after: HostState) -> Iterator[str]:
    """What came, what changed, what went; of our own and of what is nobody's, by name."""
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old is None:
            yield f"+{new}{_state(new)}"
        elif new is None:
            yield f"-{old}"
        elif old != new or _state(old) != _state(new):
            yield f"~{new}{_state(new)}"


def _state(resource: Resource | None) -> str:
    """The part of a resource that trials are about."""
    match resource:
        case Port():
            lost = "" if resource.has_device else " lost"
            tunnel = " ".join(["", resource.vlan_mode, resource.outer, *map(str, resource.cvlans)]).rstrip()
            return f" {resource.tag}{' internal' if resource.is_internal else ''}{tunnel}{lost}"
        case Address():
            return f" in {resource.namespace or 'root'} {' '.join(resource.addresses)}{' up' if resource.is_up else ''}"
        case Tap():
            return " up" if resource.is_up else ""
        case Machine():
            return f" {resource.status}" if resource.status else ""
        case Flows():
            return f" {len(resource.flows)}"
        case Meter():
            return f" {' '.join(resource.bands)}"
        case Closure():
            return " closed" if resource.is_closed else " open"
    return ""


def story(host: Host) -> Iterator[Trial]:
    """All trials, in order. The first ones make what later ones need; in the end the host is as it was."""
    yield from _namespaces()
    yield from _taps(host)
    yield from _ports()
    yield from _flows()
    yield from _addresses()
    yield from _servers()
    yield from _switches()
    yield from _rules()
    yield from _disks(host)
    yield from _machines(host)
    yield from _files(host)
    yield from _removals(host)


def _batch(*lines: tuple[str, ...], space: str = "") -> Run:
    return Run(words=iproute.batch(namespace=space), stdin=iproute.batch_text(lines))


def _mark(detail: str, vm_id: int | None = None) -> Mark:
    return Mark(OURS, "1000", vm_id, detail)


def _namespaces() -> Iterator[Trial]:
    add = _batch(iproute.add_namespace(SPACE))
    yield Trial("add a namespace", add, seen=(f"+namespace {SPACE}",))
    yield Trial("add it again", add, 1, "File exists")
    marked = iproute.mark_namespace(_mark(str(VLAN)))
    yield Trial("mark it", _batch(*marked, space=SPACE), seen=(f"~namespace {SPACE}",))
    yield Trial(
        "mark one that is not there", _batch(*marked, space="ns-dhcp-vlan778"), 255, "Cannot open network namesp"
    )
    yield Trial("delete one that is not there", _batch(iproute.delete_namespace("ns-dhcp-vlan778")), 1, "No such file")
    yield Trial("list devices in it", Run(words=iproute.list_addresses(namespace=SPACE)))
    yield Trial("list devices in none", Run(words=iproute.list_addresses(namespace="ns-none")), 255, "Cannot open netw")
    yield Trial("list routes", Run(words=iproute.list_routes()))
    yield Trial("version of ip", Run(words=("ip", "-V")))


def _taps(host: Host) -> Iterator[Trial]:
    tap = Tap(device=TAP, user=host.user, mark=_mark("eth0", VM))
    other = replace(tap, device=OTHER_TAP, mark=_mark("eth1", VM))
    yield Trial("add a TAP", _batch(*iproute.add_tap(tap), iproute.set_up(tap.device)), seen=(f"+TAP {TAP} up",))
    yield Trial("add it again", _batch(*iproute.add_tap(tap)), 1, "busy")
    yield Trial("set it right again", _batch(*iproute.add_tap(tap)[1:]))
    yield Trial(
        "add another", _batch(*iproute.add_tap(other), iproute.set_up(other.device)), seen=(f"+TAP {OTHER_TAP} up",)
    )
    long = ("tuntap", "add", "dev", TOO_LONG, "mode", "tap", "user", host.user)
    yield Trial("a name that is too long", _batch(long), 255, "not a valid ifname")
    yield Trial(
        "alias of a device that is not there", _batch(("link", "set", "dev", "none0", "alias", "a")), 1, "none0"
    )
    yield Trial(
        "a device that is not there, up", _batch(("link", "set", "dev", "none0", "up")), 1, "Cannot find device"
    )
    yield Trial("delete a device that is not there", _batch(iproute.delete_link("none0")), 1, "Cannot find device")
    yield Trial(
        "delete a group that nobody is in", _batch(("link", "delete", "group", "1234567")), 1, "RTNETLINK answers"
    )
    yield Trial("an object that ip does not know", _batch(("frob", "add")), 1, 'Object "frob" is unknown')
    yield Trial("a command that ip does not know", _batch(("netns", "frob")), 255, 'Command "frob" is unknown')
    half = (("link", "set", "dev", OTHER_TAP, "down"), ("link", "set", "dev", "none0", "up"))
    yield Trial("lines before one that fails are done", _batch(*half), 1, "Command failed -:2", (f"~TAP {OTHER_TAP}",))
    yield Trial("and undone by hand", _batch(("link", "set", "dev", OTHER_TAP, "up")), seen=(f"~TAP {OTHER_TAP} up",))


def _ports() -> Iterator[Trial]:
    mark = _mark(str(VLAN))
    inner = [Port(device=name, tag=VLAN, is_internal=True, mark=mark) for name in (GATEWAY, SERVER)]
    tap = Port(device=TAP, tag=VLAN, mark=_mark("eth0", VM))

    def do(*words: str) -> Run:
        return Run(words=("ovs-vsctl", "--timeout=20", *words))

    seen: tuple[str, ...] = (f"+address {SERVER} in root ", f"+address {GATEWAY} in root ")
    seen += (f"+port {SERVER} {VLAN} internal", f"+port {GATEWAY} {VLAN} internal", f"+port {TAP} {VLAN}")
    yield Trial("add ports", Run(words=ovs.transaction("br-int", add=[*inner, tap])), seen=seen)
    yield Trial("add them again", Run(words=ovs.transaction("br-int", add=[*inner, tap])))
    retagged = Run(words=ovs.transaction("br-int", add=[replace(tap, tag=778)]))
    yield Trial("another tag", retagged, seen=(f"~port {TAP} 778",))
    yield Trial("the tag it had", Run(words=ovs.transaction("br-int", add=[tap])), seen=(f"~port {TAP} {VLAN}",))
    carries = replace(tap, vlan_mode=Port.TUNNEL, outer=Port.OUTER)
    tunnel = Run(words=ovs.transaction("br-int", add=[carries]))
    yield Trial("tags in its tag", tunnel, seen=(f"~port {TAP} {VLAN} dot1q-tunnel 802.1q",))
    yield Trial(
        "some only", do("--", "set", "Port", TAP, "cvlans=7,8"), seen=(f"~port {TAP} {VLAN} dot1q-tunnel 802.1q 7 8",)
    )
    all_again = Run(words=ovs.transaction("br-int", untrunk=[TAP], add=[carries]))
    yield Trial("all of them", all_again, seen=(f"~port {TAP} {VLAN} dot1q-tunnel 802.1q",))
    bare = Run(words=ovs.transaction("br-int", untrunk=[TAP], add=[tap]))
    yield Trial("no tags", bare, seen=(f"~port {TAP} {VLAN}",))
    yield Trial("no tags, again", bare)
    yield Trial(
        "a mode there is not", do("--", "set", "Port", TAP, "vlan_mode=frob"), 1, "constraint violation|allowed"
    )
    yield Trial("a tag out of range", do("--", "set", "Port", TAP, "tag=5000"), 1, "constraint violation")
    yield Trial("a tag that is no number", do("--", "set", "Port", TAP, "tag=x"), 1, "not a valid integer|syntax")
    yield Trial("a port that is not there", do("--", "set", "Port", "none0", "tag=5"), 1, "no row")
    yield Trial("a column that is not there", do("--", "set", "Port", TAP, "frob=5"), 1, "does not contain a column")
    yield Trial("a bridge that is not there", do("--", "add-port", "br-none", "none0"), 1, "no bridge named")
    yield Trial("add one that is there", do("--", "add-port", "br-int", TAP), 1, "already exists")
    yield Trial("delete one that is not there", do("--", "del-port", "br-int", "none0"), 1, "no port named")
    yield Trial("delete one that may be missing", Run(words=ovs.transaction("br-int", remove=["none0"])))
    yield Trial("a command that ovs-vsctl does not know", do("--", "frob"), 1, "unknown command")
    nothing = do("--", "--if-exists", "del-port", "br-int", TAP, "--", "set", "Port", TAP, "tag=5000")
    yield Trial("all or nothing", nothing, 1)
    lost = ovs.transaction("br-int", add=[Port(device="none0", tag=5, mark=mark)])
    yield Trial(
        "a port without a device", Run(words=lost), says="could not open network device", seen=("+port none0 5",)
    )
    yield Trial("and away", Run(words=ovs.transaction("br-int", remove=["none0"])), seen=("-port none0",))
    yield Trial("list ports", Run(words=ovs.list_ports()))
    yield Trial("version of ovs-vsctl", Run(words=("ovs-vsctl", "--version")))


def _flows() -> Iterator[Trial]:
    cookie, other = flow_cookie(_mark("")), flow_cookie(Mark(OURS, "shared"))
    port, tap = f"in_port={GATEWAY}", f"in_port={TAP}"
    own = [
        openflow.sign(cookie),
        openflow.flow(10, [tap], "drop"),
        openflow.flow(200, ["arp", tap, "arp_spa=192.168.9.7"], "NORMAL"),
    ]
    tagged = "push_vlan:0x8100,set_field:4873->vlan_vid,output:"
    wide = [
        *(openflow.flow(20, [port], f"{tagged}{TAP}"), openflow.flow(300, [port, "vlan_tci=0x1000/0x1000"], "drop")),
        *(openflow.flow(7, [port, "dl_vlan=777"], f"pop_vlan,output:{TAP}"), openflow.flow(5, ["udp"], "NORMAL")),
        openflow.flow(8, [port, "icmp6", "icmp_type=136", "nd_tll=00:00:00:00:00:00"], "drop"),
        openflow.flow(9, [port, "ipv6", "ipv6_src=fe80::1"], "drop"),
        openflow.flow(9, ["udp", port, "tp_src=68", "tp_dst=67", "nw_src=0.0.0.0", "nw_dst=255.255.255.255"], "drop"),
        *isolation.bridged(777, [TAP], [GATEWAY]),
    ]

    def change(text: str, bridge: str = "br-int") -> Run:
        return Run(words=openflow.change(bridge), stdin=text)

    def line(rest: str) -> Run:
        return change(f"delete cookie=0x{cookie:x}/-1\nadd cookie=0x{cookie:x},priority=1,{rest}\n")

    set_ = change(openflow.change_text(remove=[cookie], add={cookie: own}))
    here, shared = f"flows {flow_owner(_mark(''))}", f"flows {flow_owner(Mark(OURS, 'shared'))}"
    yield Trial("set flows", set_, seen=(f"+{here} 3",))
    yield Trial("set them again", set_)
    both = openflow.change_text(remove=[cookie, other], add={cookie: own[:2], other: wide})
    yield Trial("fewer, and another's", change(both), seen=(f"+{shared} 9", f"~{here} 2"))
    yield Trial("no port of this name", line("in_port=none0,actions=drop"), 1, "-:2: none0: invalid or unknown port")
    yield Trial("to no port of this name", line("actions=output:none0"), 1, "-:2: none0: output to unknown port")
    yield Trial("a field that is not there", line("frob=1,actions=drop"), 1, "-:2: unknown keyword frob")
    yield Trial("flows of no bridge", change("", "br-none"), 1, "br-none is not a bridge or a socket")
    yield Trial("look at no bridge", Run(words=openflow.dump("br-none")), 1, "br-none is not a bridge or a socket")
    yield Trial("look at flows", Run(words=openflow.dump("br-int")))
    yield Trial("look at signs", Run(words=openflow.list_signs("br-int", first_cookie(OURS))))
    gone = change(openflow.change_text(remove=[other]))
    yield Trial("remove flows", gone, seen=(f"-{shared}",))
    yield Trial("remove them again", gone)
    away = Run(words=ovs.transaction("br-int", remove=[TAP]))
    yield Trial("flows of a port that goes name its number", away, seen=(f"~{here} 2", f"-port {TAP}"))
    back = Run(words=ovs.transaction("br-int", add=[Port(device=TAP, tag=VLAN, mark=_mark("eth0", VM))]))
    yield Trial("which it does not get again", back, seen=(f"+port {TAP} {VLAN}",))
    yield Trial("set anew", set_, seen=(f"~{here} 3",))
    yield from _meters(cookie, change)
    yield Trial("as they were", set_, seen=(f"~{here} 3",))
    closure = Closure(bridge="br-int", mark=Mark(OURS, "shared"))
    close = Run(words=ovs.transaction("br-int", close=closure))
    yield Trial("close the bridge", close, seen=("+closed bridge br-int closed", f"-{here}"))
    yield Trial("set flows on it", set_, seen=(f"+{here} 3",))
    yield Trial("close it again", close)
    unmark = Run(words=ovs.transaction("br-int", open_=replace(closure, is_needed=True)))
    yield Trial("no need of ours", unmark, seen=("-closed bridge br-int",))
    yield Trial("but again", close, seen=("+closed bridge br-int closed",))
    open_ = Run(words=ovs.transaction("br-int", open_=closure))
    yield Trial("open it", open_, seen=("-closed bridge br-int", f"-{here}"))
    yield Trial("open it again", open_)
    no_bridge = Run(words=ovs.transaction("br-none", close=closure))
    yield Trial("close one that is not there", no_bridge, 1, "no row")


def _meters(cookie: int, change: Callable[[str], Run]) -> Iterator[Trial]:
    """Of NIC 0 of our VM, whose TAP is there."""
    number = meter_number(VM, "eth0") or 0
    flags, bands = openflow.limit(10_000)
    here, meter = f"flows {flow_owner(_mark(''))}", f"meter {number}"

    def set_(kbps: int, *, is_new: bool, which: int = number, bridge: str = "br-int") -> Run:
        return Run(words=openflow.set_meter(bridge, which, flags, openflow.limit(kbps)[1], is_new=is_new))

    def flows(number: int) -> Run:
        held = openflow.flow(30, [f"in_port={TAP}"], f"meter:{number},NORMAL")
        return change(openflow.change_text(remove=[cookie], add={cookie: [openflow.sign(cookie), held]}))

    yield Trial("what meters there may be", Run(words=openflow.meter_features("br-int")))
    yield Trial("a meter", set_(10_000, is_new=True), seen=(f"+{meter} {bands[0]}",))
    yield Trial("it is there already", set_(10_000, is_new=True), 1, "OFPMMFC_METER_EXISTS")
    yield Trial("another rate", set_(20_000, is_new=False), seen=(f"~{meter} {openflow.limit(20_000)[1][0]}",))
    yield Trial("of none", set_(20_000, is_new=False, which=5), 1, "OFPMMFC_UNKNOWN_METER")
    yield Trial("a flow by it", flows(number), seen=(f"~{here} 2",))
    yield Trial("a flow by none", flows(5), 1, "OFPMMFC_INVALID_METER")
    yield Trial("look at meters", Run(words=openflow.list_meters("br-int")))
    yield Trial(
        "meters of no bridge", Run(words=openflow.list_meters("br-none")), 1, "br-none is not a bridge or a soc"
    )
    gone = Run(words=openflow.delete_meter("br-int", number))
    yield Trial("its flows go with it", gone, seen=(f"~{here} 1", f"-{meter}"))
    yield Trial("remove it again", gone)


def _addresses() -> Iterator[Trial]:
    gateway = Address(device=GATEWAY, namespace=SPACE, addresses=("192.168.9.1/24",), mark=_mark(str(VLAN)))
    server = replace(gateway, device=SERVER, addresses=("192.168.9.2/24",))
    yield Trial("move what is not there", _batch(iproute.move_link("none0", SPACE)), 1, "Cannot find device")
    yield Trial("move where nothing is", _batch(iproute.move_link(GATEWAY, "ns-none")), 255, 'Invalid "netns" value')
    for name in (GATEWAY, SERVER):
        yield Trial(f"move {name}", _batch(iproute.move_link(name, SPACE)), seen=(f"~address {name} in {SPACE} ",))
    yield Trial("move it again", _batch(iproute.move_link(GATEWAY, SPACE)), 1, "Cannot find device")
    for one in (gateway, server):
        seen = f"~address {one.device} in {SPACE} {one.addresses[0]} up"
        yield Trial(f"addresses of {one.device}", _batch(*iproute.set_address(one), space=SPACE), seen=(seen,))
    yield Trial("the same again", _batch(*iproute.set_address(gateway), space=SPACE))
    other = replace(gateway, addresses=("192.168.9.9/24",))
    changed = _batch(*iproute.set_address(other, stale=gateway.addresses), space=SPACE)
    yield Trial("another address", changed, seen=(f"~address {GATEWAY} in {SPACE} 192.168.9.9/24 up",))
    back = _batch(*iproute.set_address(gateway, stale=other.addresses), space=SPACE)
    yield Trial("and back", back, seen=(f"~address {GATEWAY} in {SPACE} 192.168.9.1/24 up",))

    def address(*words: str) -> Run:
        return _batch(("address", *words), space=SPACE)

    yield Trial("add one twice", address("add", "192.168.9.1/24", "dev", GATEWAY), 1, "File exists|already assigned")
    gone = address("delete", "192.168.9.77/24", "dev", GATEWAY)
    yield Trial("delete one that is not there", gone, 1, "Cannot assign|not found")
    yield Trial("what is no address", address("replace", "192.168.9.300/24", "dev", GATEWAY), 1, "expected rather than")
    nowhere = address("replace", "192.168.9.5/24", "dev", "none0")
    yield Trial("an address on no device", nowhere, 1, "Cannot find device")


def _servers() -> Iterator[Trial]:
    folder = server_dir(OURS, VLAN)
    mark = _mark(str(VLAN))
    offer = Range(cidr="192.168.9.0/24", first="192.168.9.100", last="192.168.9.250")
    text = dnsmasq.config(mark, folder, SERVER, offer)
    lease = Lease(mac="52:54:00:23:29:00", ip="192.168.9.10", hostname="vm")
    here = f"DHCP server {SPACE}"

    def write(name: str, content: str) -> WriteFile:
        return WriteFile(path=f"{folder}/{name}", text=content, mode=0o644)

    serve = Run(words=iproute.in_namespace(SPACE, dnsmasq.serve(folder)))
    yield Trial("a directory for a server", MakeDir(path=folder, mode=0o755), seen=(f"+{here}",))
    yield Trial("its mark", write("mark", f"{mark}\n"), seen=(f"~{here}",))
    yield Trial("serve without a configuration", serve, 3, "dnsmasq: cannot read")
    yield Trial("a configuration with an error", write("dnsmasq.conf", text + "frob=1\n"), seen=(f"~{here}",))
    yield Trial("serve it", serve, 1, "bad option at line")
    wrong = text.replace(f"interface={SERVER}", "interface=none0")
    yield Trial("a configuration for no device", write("dnsmasq.conf", wrong), seen=(f"~{here}",))
    yield Trial("serve that", serve, 2, "unknown interface none0")
    yield Trial("the right one", write("dnsmasq.conf", text), seen=(f"~{here}",))
    yield Trial("its hosts", write("hosts", dnsmasq.hosts([lease])), seen=(f"~{here}",))
    nowhere = Run(words=iproute.in_namespace("ns-none", dnsmasq.serve(folder)))
    yield Trial("serve in no namespace", nowhere, 1, "cannot open /run/netns/ns-none")
    yield Trial("serve", serve, seen=(f"~{here}",))
    token = f"--conf-file={folder}/dnsmasq.conf"
    yield Trial("read hosts again", SignalProcess(pid_file=f"{folder}/pid", token=token))
    yield Trial(
        "signal to a stranger", SignalProcess(pid_file=f"{folder}/pid", token="nobody"), 1, "no process of ours"
    )
    yield Trial("version of dnsmasq", Run(words=("dnsmasq", "--version")))


def _switches() -> Iterator[Trial]:
    quiet = ("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
    yield Trial("switches of a namespace", Run(words=iproute.in_namespace(SPACE, quiet)))
    yield Trial(
        "a switch that is not there", Run(words=("sysctl", "-qw", "net/ipv4/conf/none0/forwarding=1")), 1, "none0"
    )
    yield Trial("one that may be missing", Run(words=("sysctl", "-qew", "net/ipv6/conf/none0/disable_ipv6=1")))
    yield Trial("forwarding by a device", Run(words=("sysctl", "-qw", f"net/ipv4/conf/{TAP}/forwarding=1")))
    yield Trial("which devices forward", Run(words=probe.FORWARDING_DEVICES))


def _rules() -> Iterator[Trial]:
    mark = Mark(OURS, "shared", None, "400")
    forward = iptables.chain(OURS, "FORWARD")
    jump = iptables.jump("filter", "FORWARD", OURS, mark)
    drop = ("filter", ("-A", forward, "-i", "gw_none", "-j", "DROP"))
    out = (
        "nat",
        ("-A", iptables.chain(OURS, "POSTROUTING"), "-s", "192.168.9.0/24", "-o", "none0", "-j", "MASQUERADE"),
    )
    rules = [jump, drop, iptables.jump("nat", "POSTROUTING", OURS, mark), out]

    def restore(*lines: str) -> Run:
        return Run(words=iptables.restore(), stdin="\n".join(lines) + "\n")

    add = Run(words=iptables.restore(), stdin=iptables.restore_text(add=rules))
    yield Trial("add rules", add, seen=("+NAT rules 400",))
    replaced = iptables.restore_text(remove=rules, add=rules)
    yield Trial("replace them", Run(words=iptables.restore(), stdin=replaced))
    yield Trial("list rules", Run(words=iptables.save()))
    absent = restore("*filter", "-D FORWARD -i none0 -j DROP", "COMMIT")
    yield Trial("delete a rule that is not there", absent, 1, "iptables-restore")
    no_chain = restore("*filter", "-A CR-none -j DROP", "COMMIT")
    yield Trial("a rule in no chain", no_chain, 1, "iptables-restore")
    no_target = restore("*filter", "-A FORWARD -j CR-none", "COMMIT")
    yield Trial("a jump to no chain", no_target, 2, "does not exist")
    yield Trial("a table that is not there", restore("*frob", "COMMIT"), 2, "table name")
    yield Trial("no COMMIT", restore("*filter", f"-A {forward} -i gw_other -j DROP"), 1, "COMMIT")
    in_use = restore("*filter", f"-X {forward}", "COMMIT")
    yield Trial("delete a chain in use", in_use, 4, "line 2")
    half = restore("*nat", "-D POSTROUTING -o none0 -j ACCEPT", "COMMIT")
    yield Trial("a failure leaves the others", half, 1)
    away = Run(words=iptables.restore(), stdin=iptables.restore_text(remove=rules))
    yield Trial("remove rules", away, seen=("-NAT rules 400",))
    yield Trial("remove them again", away, 1)
    yield Trial("version of iptables", Run(words=("iptables", "--version")))


def _disks(host: Host) -> Iterator[Trial]:
    folder, base = host.disks_root, f"{host.disks_root}/base.raw"
    yield Trial("a directory for disks", MakeDir(path=folder, mode=0o755))
    yield Trial("a base image", WriteFile(path=base, text="x" * 512, mode=0o644, user=host.user))
    for name in ("one", "two"):
        words = qemu_img.create_overlay(f"{folder}/{name}.draft", base=base, base_format="raw", size_bytes=1 << 20)
        yield Trial(f"an overlay {name}", Run(words=words))
        act = PublishFile(draft=f"{folder}/{name}.draft", path=f"{folder}/{name}.qcow2", user=host.user)
        yield Trial(f"publish {name}", act)
    yield Trial("publish over another", replace(act, draft=f"{folder}/one.draft"), 1, "is there already")
    missing, deep = f"{folder}/none.raw", f"{folder}/none/disk.qcow2"
    words = qemu_img.create_overlay(f"{folder}/three", base=missing, base_format="raw", size_bytes=1 << 20)
    yield Trial("an overlay on what is not looked at", Run(words=words))
    words = qemu_img.create_overlay(deep, base=base, base_format="raw", size_bytes=1 << 20)
    yield Trial("an overlay nowhere", Run(words=words), 1, "No such file")
    yield Trial("what an overlay is", Run(words=qemu_img.info(f"{folder}/one.qcow2")))
    yield Trial("what a raw file is", Run(words=qemu_img.info(base)))
    yield Trial("what an overlay is, told", Run(words=qemu_img.info(f"{folder}/one.qcow2", "qcow2")))
    yield Trial("what an overlay is, told raw", Run(words=qemu_img.info(f"{folder}/one.qcow2", "raw")))
    yield Trial("what a raw file is as qcow2", Run(words=qemu_img.info(base, "qcow2")), 1, "not in qcow2 format")
    yield Trial("what nothing is", Run(words=qemu_img.info(missing)), 1, "No such file")
    yield Trial("check an overlay", Run(words=qemu_img.check(f"{folder}/one.qcow2")))
    yield Trial("check a raw file as qcow2", Run(words=qemu_img.check(base)), 1, "not in qcow2 format")
    yield Trial("version of qemu-img", Run(words=("qemu-img", "--version")))


def _machines(host: Host) -> Iterator[Trial]:
    folder, uuid, here = machine_dir(OURS, VM), machine_uuid(OURS, VM), f"VM {VM}"
    nic = Nic(interface="eth0", device=TAP, mac="52:54:00:23:29:00", has_carrier=True)
    spec = MachineSpec(
        vm_name="conf",
        cores=1,
        ram_mib=64,
        disk=f"{host.disks_root}/one.qcow2",
        vnc_bind="127.0.0.1",
        vnc_port=5990,
        nics=(nic, replace(nic, interface="eth1", device=OTHER_TAP, mac="52:54:00:23:29:01", has_carrier=False)),
        accelerator="tcg",
        vnet_hdr=False,
        user=host.user,
    )
    other_nic = replace(nic, interface="eth0", device=OTHER_TAP)
    machine = Machine(vm_id=VM, uuid=uuid, mark=_mark("eth0.eth1", VM), spec=spec)

    def starts(number: int, *more: str, **changed: object) -> Spawn:
        """A start that is to fail; another directory, so that nothing of the running machine is in its way."""
        there = replace(machine, spec=replace(spec, **changed))  # type: ignore[arg-type]
        words = qemu.command(there, f"{folder}/other")
        return Spawn(words=(*words, *more), log=f"{folder}/log{number}", user=host.user, settle_s=10.0)

    def told(*commands: Mapping[str, Any], uuid: str = uuid) -> Qmp:
        return Qmp(socket=f"{folder}/qmp.sock", commands=commands, expect_uuid=uuid)

    yield Trial("a directory for a machine", MakeDir(path=folder, user=host.user), seen=(f"+{here}",))
    yield Trial("its mark", WriteFile(path=f"{folder}/mark", text=f"{machine.mark}\n{uuid}\n"), seen=(f"~{here}",))
    yield Trial("a directory for others", MakeDir(path=f"{folder}/other", user=host.user))
    yield Trial("a disk that is not there", starts(1, disk=f"{host.disks_root}/none.qcow2"), 1, "No such file")
    yield Trial("a disk that is no qcow2", starts(2, disk=f"{host.disks_root}/base.raw"), 1, "not in qcow2 format")
    no_tap = replace(nic, device="none0")
    yield Trial(
        "a TAP that is not there", starts(3, nics=(no_tap,)), 1, "could not configure /dev/net/tun|not permitted"
    )
    yield Trial("an option that QEMU does not know", starts(4, "-frob"), 1, "invalid option")
    command = qemu.command(machine, folder)
    start = Spawn(words=command, log=f"{folder}/qemu.log", user=host.user, pid_file=f"{folder}/pid")
    yield Trial("start", replace(start), seen=(f"~{here} prelaunch",))
    yield Trial("told to run", told(*qemu.start_commands(machine)), seen=(f"~{here} running",))
    yield Trial("as another machine", told(uuid=machine_uuid(OURS, 1)), 1, "another machine answers")
    yield Trial("a QMP command that is not there", told({"execute": "frob"}), 1, "has not been found")
    yield Trial("a NIC is plugged in", told(qemu.set_link("eth1", is_up=True)))
    yield Trial("a NIC that is not there", told(qemu.set_link("eth7", is_up=True)), 1, "Device 'nic-eth7' not found")
    two = f"{host.disks_root}/two.qcow2"
    yield Trial("a disk in use", starts(5, nics=(), vnc_port=5991), 1, 'Failed to get "write" lock')
    yield Trial("a TAP in use", starts(6, nics=(other_nic,), disk=two, vnc_port=5991), 1, "Device or resource busy")
    yield Trial("a VNC port in use", starts(7, nics=(), disk=two), 1, "Address already in use")
    stop = StopProcess(pid_file=f"{folder}/pid", token=uuid, socket=f"{folder}/qmp.sock")
    yield Trial("stop a stranger", replace(stop, token="nobody"))
    yield Trial("stop", stop, seen=(f"~{here}",))
    yield Trial("stop it again", stop)
    yield Trial("ask a machine that is gone", replace(told(), timeout_s=0.5), 1, "does not answer|closed")
    yield Trial("version of QEMU", Run(words=("qemu-system-x86_64", "--version")))


def _files(host: Host) -> Iterator[Trial]:
    root = host.disks_root
    yield Trial("room", Run(words=coreutils.disk_space(root), ok=(0, 1)))
    yield Trial("room where nothing is", Run(words=coreutils.disk_space(f"{root}/none"), ok=(0, 1)), 1)
    yield Trial("whose a directory is", Run(words=coreutils.owner(root)))
    yield Trial("whose nothing is", Run(words=coreutils.owner(f"{root}/none")), 1, "No such file")
    yield Trial("grep in no file", Run(words=("grep", "-q", '^ "disk": ', "--", f"{root}/none")), 2, "No such file")
    yield Trial("grep without an answer", Run(words=("grep", "-q", '^ "disk": ', "--", f"{root}/base.raw")), 1)
    copy = ("cp", "--no-dereference", "--reflink=auto", "--sparse=auto", "-T", "--", f"{root}/none", f"{root}/copy")
    yield Trial("copy nothing", Run(words=copy), 1, "No such file")
    yield Trial("copy", Run(words=(*copy[:6], f"{root}/base.raw", f"{root}/copy")))
    for words in (("chmod", "0444", "--"), ("touch", "--date=@1000000000", "--"), ("chown", "--", host.user)):
        yield Trial(f"{words[0]}", Run(words=(*words, f"{root}/copy")))
    for words in (("chmod", "0444", "--"), ("chown", "--", host.user)):
        yield Trial(f"{words[0]} of nothing", Run(words=(*words, f"{root}/none")), 1, "No such file")
    yield Trial("move", Run(words=("mv", "-f", "-T", "--", f"{root}/copy", f"{root}/moved")))
    yield Trial("move nothing", Run(words=("mv", "-f", "-T", "--", f"{root}/copy", f"{root}/moved")), 1, "No such file")
    yield Trial("a full directory stays", RemoveIfEmpty(path=root))
    yield Trial("no directory", RemoveIfEmpty(path=f"{root}/none"))
    yield Trial("a tool that nobody has", Run(words=("frobnicate", "--all")), 255, "could not run frobnicate")
    for question in ("nproc", "uname -r", "id -u", f"id -Gn -- {host.user}", "python3 --version"):
        yield Trial(question, Run(words=tuple(question.split())))


def _removals(host: Host) -> Iterator[Trial]:
    folder = server_dir(OURS, VLAN)
    lost: tuple[str, ...] = (f"-address {SERVER}", f"-address {GATEWAY}", f"-namespace {SPACE}")
    lost += (f"~port {SERVER} {VLAN} internal lost", f"~port {GATEWAY} {VLAN} internal lost")
    stop = StopProcess(pid_file=f"{folder}/pid", token=f"--conf-file={folder}/dnsmasq.conf")
    yield Trial("stop the server", stop, seen=(f"~DHCP server {SPACE}",))
    yield Trial("delete the namespace", _batch(iproute.delete_namespace(SPACE)), seen=lost)
    taps = (f"-TAP {TAP}", f"-TAP {OTHER_TAP}")
    yield Trial("delete both TAPs", _batch(*iproute.delete_links([TAP, OTHER_TAP])), seen=taps)
    ports = [SERVER, GATEWAY, TAP]
    gone = tuple(f"-port {name}" for name in ports)
    yield Trial("delete ports", Run(words=ovs.transaction("br-int", remove=ports)), seen=gone)
    root = run_root(OURS)
    yield Trial("clear the server", Remove(path=folder, within=root, tree=True), seen=(f"-DHCP server {SPACE}",))
    clear = Remove(path=machine_dir(OURS, VM), within=root, tree=True)
    yield Trial("clear the machine", clear, seen=(f"-VM {VM}",))
    yield Trial("an empty directory", RemoveIfEmpty(path=root))
    yield Trial("clear the disks", Remove(path=host.disks_root, within=host.base_dir, tree=True))


# ── a slice's life ──────────────────────────────────────────────────────────────────────────────────────


def life(api: OrchestratorAPI) -> dict[str, dict[str, list[str]]]:
    """A slice's life and a VLAN made by hand; after each chapter, what is seen of each host."""
    user = "admin"
    slice_id = _ok(api.create_slice(user, "life"))["slice_id"]
    first = _ok(api.add_vm_to_slice(user, slice_id, "a", "cirros", 1, True))["vm_id"]
    second = _ok(api.add_vm_to_slice(user, slice_id, "b", "cirros", 2))["vm_id"]
    _ok(api.create_link(user, slice_id, first, "eth1", second, "eth1"))
    calls: dict[str, Callable[[], Any]] = {
        "designed": lambda: None,
        "deployed": lambda: _ok(api.deploy_slice(user, slice_id)),
        "stopped": lambda: _ok(api.stop_slice(user, slice_id)),
        "started": lambda: _ok(api.start_slice(user, slice_id)),
        "VM stopped": lambda: _ok(api.stop_vm(user, slice_id, second)),
        "deleted": lambda: _ok(api.delete_slice(user, slice_id)),
        "VLAN by hand": lambda: _true(api.vlan_manager.create_vlan_with_gateway(777, "192.168.7.0/24", "192.168.7.1")),
        "VLAN gone": lambda: _true(api.vlan_manager.delete_vlan(777)),
        "cleaned": lambda: _ok(api.cleanup()),
    }
    seen = {}
    for chapter, do in calls.items():
        do()
        seen[chapter] = {ip: sorted(_described(api, state)) for ip, state in _observed(api).items()}
    return seen


def _ok(answer: tuple[bool, Any]) -> Any:
    assert answer[0], answer[1]
    return answer[1]


def _true(done: bool) -> None:
    assert done


def _observed(api: OrchestratorAPI) -> dict[str, HostState]:
    found = api.site.reconciler.observe([api.site.host(ip) for ip in api.workers])
    return {ip: state for ip, state in found.items() if isinstance(state, HostState)}


def _described(api: OrchestratorAPI, state: HostState) -> Iterator[str]:
    """What is ours on a host, without what is another in each installation."""
    for resource in state.values():
        if resource.mark is not None and resource.mark.installation == api.site.installation:
            more = f" {len(resource.rules)} rules" if isinstance(resource, Firewall) else _state(resource)
            mark = str(resource.mark).replace(api.site.installation, "OURS")
            yield f"{resource}{more} [{mark}]"
