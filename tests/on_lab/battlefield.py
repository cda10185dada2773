"""Five real guests of two tenants on three hosts; an attacker who is root in one; ears at everybody's door."""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from cloudrepo.guest_agent import GuestAgent, GuestResult
from cloudrepo.naming import gateway_port, machine_dir, service_mac, tap_name
from lab.layout import UPLINK_IP
from on_lab import attacks
from on_lab.attacks import Attack, End, Ground
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, network_of, wait_until

W1, W2, _ = HOSTS
#: Sends frames, given in hex a line, by a card; a hundredth of a second between two. It needs no module of Perl.
SEND = """
my ($card) = @ARGV; open(F, "/sys/class/net/$card/ifindex"); my $index = <F>;
socket(S, 17, 3, 0) or die "socket: $!";
my $to = pack("S n l S C C a8", 17, 3, $index, 0, 0, 6, "");
while (my $line = <STDIN>) {
    chomp $line; send(S, pack("H*", $line), 0, $to) or die "send: $!"; select(undef, undef, undef, 0.01);
}
"""
#: Sends one frame from as many MACs.
FLOOD = """
my ($card, $count, $rest) = @ARGV; open(F, "/sys/class/net/$card/ifindex"); my $index = <F>;
socket(S, 17, 3, 0) or die "socket: $!";
my $to = pack("S n l S C C a8", 17, 3, $index, 0, 0, 6, "");
for my $n (1 .. $count) {
    my $frame = pack("H12 C2 N H*", "ff" x 6, 2, 0x66, $n, $rest);
    send(S, $frame, 0, $to) or select(undef, undef, undef, 0.01);
}
"""
#: Prints those of `ADDRESS PORT` lines at which somebody takes a connection within three seconds.
SCAN = """
my (@open, %way); my $waits = "";
while (my $line = <STDIN>) {
    my ($ip, $port, $six) = split " ", $line; my $s; socket($s, $six ? 10 : 2, 1, 6) or die "socket: $!";
    fcntl($s, 4, 2048);
    connect($s, $six ? pack("S n N H32 N", 10, $port, 0, $six, 0) : pack("S n C4 x8", 2, $port, split(/[.]/, $ip)));
    $way{fileno $s} = [$s, "$ip $port"]; vec($waits, fileno($s), 1) = 1;
}
for (1 .. 30) {
    my $ready = $waits; select(undef, $ready, undef, 0.1) > 0 or next;
    for my $n (keys %way) {
        next unless vec($ready, $n, 1); vec($waits, $n, 1) = 0;
        push @open, $way{$n}[1] if unpack("i", getsockopt($way{$n}[0], 1, 4)) == 0; delete $way{$n};
    }
}
print "$_\\n" for @open;
"""


@dataclass(frozen=True, kw_only=True)
class Ear:
    """A device that is listened at: what goes out by it (to a guest, to a network), or what comes in."""

    place: str
    pid: int
    device: str
    is_outward: bool


@dataclass
class Battlefield:
    """The guests by name, and what an attacker can do.

    Attributes:
        vms: ids by name.
        vlans: of the attacker's links to `a2` and to `a3`, of that between these two, and of the other tenant's.
    """

    cluster: Cluster
    vms: dict[str, int]
    slices: list[int]
    vlans: tuple[int, int, int, int]
    _records: dict[str, Record] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """A VM's record, as it was first read."""
        return self._records.setdefault(name, self.cluster.vm(self.vms[name]))

    def end(self, name: str, interface: str) -> End:
        one = next(each for each in self.record(name)["interfaces"] if each["name"] == interface)
        return End(mac=one["mac"], ip=one["ip_config"]["ip"])

    def gateway(self, vlan: int) -> End:
        base = "10.60.7" if vlan == 400 else f"192.168.{vlan % 256}"
        return End(mac=service_mac(self.cluster.api.site.installation, gateway_port(vlan)), ip=f"{base}.1")

    def ground(self) -> Ground:
        """Who is there, as an attacker would know it."""
        near, far, _, _ = self.vlans
        return Ground(
            own=self.end("a1", "eth0"),
            near=self.end("a1", "eth1"),
            far=self.end("a1", "eth2"),
            same=self.end("a2", "eth0"),
            elsewhere=self.end("a3", "eth0"),
            tenant=self.end("b1", "eth0"),
            near_peer=self.end("a2", "eth1"),
            far_peer=self.end("a3", "eth1"),
            other_near=self.end("a2", "eth2"),
            other_far=self.end("b1", "eth1"),
            gateway=self.gateway(400),
            near_gateway=self.gateway(near),
            far_gateway=self.gateway(far),
            vlans=self.vlans,
        )

    # -- in a guest ------------------------------------------------------------------------------------

    def run(self, name: str, *words: str, stdin: str = "", timeout_s: float = 120) -> GuestResult:
        """Run a program in a guest."""
        worker, installation = str(self.record(name)["worker_ip"]), self.cluster.api.site.installation
        socket_path = f"{machine_dir(installation, self.vms[name])}/agent.sock"
        with self.cluster.api.executor.open_serial(worker, socket_path) as channel:
            agent = GuestAgent(channel)
            agent.wait(180)
            done = agent.run(words, stdin=stdin, timeout_s=timeout_s)
        assert done.status == 0, (words[:2], done.status, done.err)
        return done

    def perl(self, name: str, program: str, *words: str, stdin: str = "") -> str:
        return self.run(name, "/usr/bin/perl", "-e", program, *words, stdin=stdin).out

    def scan(self, name: str, targets: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
        """Where a guest can connect to."""
        text = "".join(
            f"{ip} {port} {socket.inet_pton(socket.AF_INET6, ip).hex() if ':' in ip else ''}\n" for ip, port in targets
        )
        lines = self.perl(name, SCAN, stdin=text).splitlines()
        return {(line.split()[0], int(line.split()[1])) for line in lines}

    def speak_ipv6(self, name: str, number: int) -> None:
        """A guest gives itself an address on VLAN 400 and a way to the node, as its root may."""
        lines = (
            "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0 >/dev/null 2>&1",
            "sysctl -w net.ipv6.conf.eth0.accept_dad=0 >/dev/null 2>&1",  # busybox's `ip` knows no `nodad`
            f"ip -6 addr add fd00:400::{number}/64 dev eth0",
            f"ip -6 route replace fd00:10::/64 via {attacks.GATEWAY_IP6} dev eth0",
        )
        self.run(name, "sh", "-c", "; ".join(lines))

    def flood(self, card: str, count: int) -> dict[str, int]:
        """By host, how many of so many made-up MACs its switch has learnt."""
        self.perl("a1", FLOOD, card, str(count), "88b5" + "00" * 46)
        tables = {ip: self.cluster.host(ip, "ovs-appctl", "fdb/show", "br-int") for ip in HOSTS}
        for ip in HOSTS:
            self.cluster.host(ip, "ovs-appctl", "fdb/flush", "br-int")
        return {ip: table.count(" 02:66:") for ip, table in tables.items()}

    # -- ears ------------------------------------------------------------------------------------------

    def ears(self) -> Iterator[Ear]:
        """At every machine's door but the attacker's own frames, at the gateway, hosts and networks."""
        pids = {ip: self.cluster.lab.host_room(ip).pid() for ip in HOSTS}
        places = {
            ("a1", "eth0"): attacks.BACK, ("a1", "eth1"): attacks.BACK, ("a1", "eth2"): attacks.BACK,
            ("a2", "eth0"): attacks.SAME, ("a2", "eth1"): attacks.NEAR, ("a2", "eth2"): attacks.OTHER_NEAR,
            ("a3", "eth0"): attacks.ELSEWHERE, ("a3", "eth1"): attacks.FAR, ("a3", "eth2"): attacks.OTHER_NEAR,
            ("b1", "eth0"): attacks.TENANT, ("b1", "eth1"): attacks.OTHER_FAR,
            ("b2", "eth0"): attacks.TENANT, ("b2", "eth1"): attacks.OTHER_FAR,
        }  # fmt: skip
        for (name, interface), place in places.items():
            pid = pids[str(self.record(name)["worker_ip"])]
            yield Ear(place=place, pid=pid, device=tap_name(self.vms[name], interface), is_outward=True)
        yield Ear(place=attacks.GATEWAY, pid=pids[NETWORK_NODE], device=gateway_port(400), is_outward=False)
        yield Ear(place=attacks.MANAGEMENT, pid=pids[NETWORK_NODE], device="eth0", is_outward=True)
        yield Ear(place=attacks.OUT, pid=pids[NETWORK_NODE], device="eth2", is_outward=True)
        yield Ear(place=attacks.WORKER, pid=pids[W2], device="eth0", is_outward=False)
        pid = self.cluster.lab.orchestrator_room().pid()
        yield Ear(place=attacks.ORCHESTRATOR, pid=pid, device="eth0", is_outward=False)

    def tried(self, rows: Sequence[Attack]) -> dict[str, frozenset[str]]:
        """Send all of them from the attacker; by name, where each was heard."""
        heard: dict[bytes, set[str]] = defaultdict(set)
        with ExitStack() as stack:
            opened = {stack.enter_context(_opened(ear)): ear for ear in self.ears()}
            for card in dict.fromkeys(row.card for row in rows):
                text = "".join(f"{row.frame.hex()}\n" for row in rows if row.card == card)
                self.perl("a1", SEND, card, stdin=text)
                _listen(opened, heard)
        return {f"{row.wire}: {row.name}": frozenset(heard[row.note]) for row in rows}

    # -- without protection ----------------------------------------------------------------------------

    def open(self) -> None:
        """As the documented system leaves it: switches that switch, a node that forwards, gateways in its namespace."""
        for ip in HOSTS:
            self.cluster.host(ip, "ovs-vsctl", "--timeout=20", "clear", "bridge", "br-int", "fail_mode")
        chain = f"CR-{self.cluster.api.site.installation}"
        lines = [
            f"iptables -F {chain}-FORWARD; iptables -F {chain}-INPUT",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.gw_vlan400.disable_ipv6=0",
            f"ip address add {attacks.GATEWAY_IP6}/64 dev gw_vlan400 nodad",
            self._neighbour("replace", "a2", "eth0", 400),
        ]
        for vlan in (self.vlans[1], self.vlans[3]):
            space, port = f"ns-dhcp-vlan{vlan}", gateway_port(vlan)
            lines += [
                f"nsenter --net=/run/netns/{space} ip link set {port} netns 1",
                f"ip address add {self.gateway(vlan).ip}/24 dev {port}; ip link set {port} up",
            ]
        lines.append(self._neighbour("replace", "b1", "eth1", self.vlans[3]))
        self.cluster.host(NETWORK_NODE, "sh", "-ec", "\n".join(lines))

    def _neighbour(self, what: str, name: str, interface: str, vlan: int) -> str:
        """A machine that need not have booted to be found."""
        end = self.end(name, interface)
        mac = f" lladdr {end.mac} nud permanent" if what == "replace" else ""
        return f"ip neigh {what} {end.ip}{mac} dev {gateway_port(vlan)}"

    def close(self) -> list[Record]:
        """Put right what was opened, by the product; what is not right then."""
        words = f"{self._neighbour('del', 'a2', 'eth0', 400)}; sysctl -qw net.ipv4.ip_forward=0"
        self.cluster.host(NETWORK_NODE, "sh", "-ec", words)
        answer = self.cluster.ok("drift_fix")
        left = [one for one in answer["after"]["objects"] if one["difference"]]
        for ip in HOSTS:
            self.cluster.host(ip, "ovs-appctl", "fdb/flush", "br-int")
        # where gateways are is learnt anew: a frame to a MAC that a switch has not heard yet goes to all of its link
        self.cluster.lab.host(NETWORK_NODE, ["ping", "-c", "1", "-W", "1", "10.60.7.250"])
        for vlan in self.vlans[:2]:
            by = ("-I", gateway_port(vlan))  # the DHCP server's device is in the same network
            words_inside = ["nsenter", f"--net=/run/netns/ns-dhcp-vlan{vlan}", "ping", *by, "-c", "1", "-W", "1"]
            self.cluster.lab.host(NETWORK_NODE, [*words_inside, f"{self.gateway(vlan).ip[:-1]}250"])
        return left

    @contextmanager
    def trunks(self) -> Iterator[None]:
        """The attacker's ports have lost their tags, by somebody's mistake."""
        ports = {tap_name(self.vms["a1"], "eth0"): 400, tap_name(self.vms["a1"], "eth1"): self.vlans[0]}
        for port in ports:
            self.cluster.host(W1, "ovs-vsctl", "--timeout=20", "clear", "port", port, "tag")
        try:
            yield
        finally:
            for port, vlan in ports.items():
                self.cluster.host(W1, "ovs-vsctl", "--timeout=20", "set", "port", port, f"tag={vlan}")


def _opened(ear: Ear) -> socket.socket:
    with network_of(ear.pid):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        opened.bind((ear.device, 0))
    opened.setblocking(False)
    return opened


def _listen(opened: Mapping[socket.socket, Ear], heard: dict[bytes, set[str]], *, quiet_s: float = 1.5) -> None:
    """Until nothing of the attacker's has come for so long."""
    last = time.monotonic()
    while time.monotonic() - last < quiet_s:
        for ready in select.select(list(opened), [], [], 0.2)[0]:
            frame, (_, _, kind, *_) = ready.recvfrom(4096)
            ear, at = opened[ready], frame.find(b"attack")
            if at >= 0 and (kind == socket.PACKET_OUTGOING) is ear.is_outward:
                last = time.monotonic()
                if ear.place == attacks.BACK and _is_error(frame):
                    continue  # by the gateway (a redirect to a neighbour) or by a peer with a closed port
                heard[frame[at : at + 8]].add(_place(ear, frame))


def _is_error(frame: bytes) -> bool:
    """Whether it is an ICMP or ICMPv6 error or redirect, which quotes what was sent and answers nothing."""
    if frame[12:14] == b"\x08\x00":
        return frame[23] == socket.IPPROTO_ICMP and frame[34] in (3, 5, 11)
    return frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_ICMPV6 and (frame[54] < 128 or frame[54] == 137)


def _place(ear: Ear, frame: bytes) -> str:
    if ear.place != attacks.OUT:
        return ear.place
    return attacks.OUT if frame[26:30] == socket.inet_aton(UPLINK_IP) else attacks.UNTRANSLATED


IPV6_ENDS = {W2: attacks.WORKER_IP6, "": attacks.ORCHESTRATOR_IP6}  # "" is the orchestrator


def _on(cluster: Cluster, ip: str, what: str, address: str) -> None:
    """Give an end of the management network an IPv6 address and a way back to guests, or take both away."""
    words = [
        ["ip", "address", what, f"{address}/64", "dev", "eth0", *(["nodad"] if what == "add" else [])],
        ["ip", "-6", "route", what, "fd00:400::/64", "via", attacks.NODE_IP6, "dev", "eth0"],
    ]
    for each in words if what == "add" else words[::-1]:
        if ip:
            cluster.host(ip, *each)
        else:  # this thread is in its network
            subprocess.run(each, check=True)


@contextmanager
def listening(cluster: Cluster, port: int) -> Iterator[None]:
    """Somebody takes connections by IPv6 at this port of the node, of a worker and of the orchestrator."""
    rooms = [cluster.lab.host_room(ip) for ip in (NETWORK_NODE, W2)] + [cluster.lab.orchestrator_room()]
    with ExitStack() as stack:
        for room in rooms:
            with network_of(room.pid()):
                door = stack.enter_context(socket.socket(socket.AF_INET6))
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(("::", port))
            door.listen(64)
        yield


@contextmanager
def battlefield(cluster: Cluster) -> Iterator[Battlefield]:
    """Deployed, and the attacker has booted; taken down afterwards. The node routes IPv6 as well, to a worker."""
    one = cluster.slice("a1", "a3", interfaces=2, internet=("a1", "a3"))
    two = cluster.slice("b1", interfaces=1, internet=("b1",))
    for made, name, cards in ((one, "a2", 2), (two, "b2", 1)):
        vm = cluster.ok("add_vm_to_slice", "admin", made["id"], name, "cirros", cards, True)
        made[name] = vm["vm_id"]
    ends = (
        (one, "a1", "eth1", "a2", "eth1"),
        (one, "a1", "eth2", "a3", "eth1"),
        (one, "a2", "eth2", "a3", "eth2"),
        (two, "b1", "eth1", "b2", "eth1"),
    )
    first, second, third, fourth = (int(cluster.link(*each)["vlan_id"]) for each in ends)
    ids = {name: made[name] for made, names in ((one, ("a1", "a2", "a3")), (two, ("b1", "b2"))) for name in names}
    places = {name: cluster.vm(ids[name])["worker_ip"] for name in ids}
    assert places == {"a1": W1, "a2": W1, "a3": W2, "b1": NETWORK_NODE, "b2": W2}, places
    for made in (one, two):
        cluster.ok("deploy_slice", "admin", made["id"])
    setup = f"sysctl -qw net.ipv6.conf.all.forwarding=1; ip address add {attacks.NODE_IP6}/64 dev eth0 nodad"
    cluster.host(NETWORK_NODE, "sh", "-ec", setup)
    for ip, address in IPV6_ENDS.items():
        _on(cluster, ip, "add", address)
    battle = Battlefield(cluster, ids, [one["id"], two["id"]], (first, second, third, fourth))
    try:
        for name in ("a1", "a2", "b1"):
            cluster.wait_for_address(ids[name], "eth0")
        wait_until(lambda: cluster.pings(ids["a1"], "10.60.7.1", count=1), 60, "the gateway answers")
        yield battle
    finally:
        for ip, address in IPV6_ENDS.items():
            _on(cluster, ip, "del", address)
        back = "sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv4.ip_forward=0"
        cluster.host(NETWORK_NODE, "sh", "-ec", f"{back}; ip address del {attacks.NODE_IP6}/64 dev eth0")
        for slice_id in battle.slices:
            cluster.ok("delete_slice", "admin", slice_id)
