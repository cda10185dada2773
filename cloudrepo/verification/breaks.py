"""At which hop a violated pair breaks, and what a person could type to see it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification import path
from cloudrepo.verification.cast import Ear, Nic, Wire
from cloudrepo.verification.ground import Ground
from cloudrepo.verification.matrix import Probe
from cloudrepo.verification.path import Question, Way
from cloudrepo.verification.sightings import Heard
from cloudrepo.verification.tracing import Trace, owner
from cloudrepo.verification.verdicts import Place, Violation

Pair = tuple[str, Ear, bool]  # sender, place, whether it was heard


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is known when it is asked where things break.

    Attributes:
        grounds: hosts that answered.
        wires: who is where.
        places: where was listened.
        probes: what was sent, by number.
        heard: where it came out.
        installation: whose flows are ours.
    """

    grounds: Mapping[str, Ground]
    wires: Sequence[Wire]
    places: Mapping[Ear, Place]
    probes: Mapping[int, Probe]
    heard: Heard
    installation: str

    def end(self, ear: Ear) -> Nic | None:
        """Whose a place is, if it is an end of a wire."""
        return next((nic for wire in self.wires for nic in (*wire.nics, *wire.services) if nic.ear == ear), None)


def pairs(violations: Iterable[Violation]) -> dict[Pair, Violation]:
    """One violation for each pair: small frames before full ones, which break at fewer hops."""
    found: dict[Pair, Violation] = {}
    for one in violations:
        if one.is_reach:
            found.setdefault((str(one.sender), one.ear, one.was_heard), one)
    return found


def ways(scene: Scene, violations: Iterable[Violation]) -> dict[Pair, Way]:
    """The way that each violated pair's frame should have taken, or took."""
    found = {}
    for pair, one in pairs(violations).items():
        probe = scene.probes.get(one.number)
        receiver = scene.end(one.ear) or one.sender
        if probe is not None and probe.shape.way == "switch" and one.sender.wire is not None:
            found[pair] = Way(
                sender=one.sender,
                receiver=receiver,
                frame=probe.frame,
                grounds=scene.grounds,
                installation=scene.installation,
            )
    return found


def explain(
    scene: Scene, violations: Iterable[Violation], found: Mapping[Pair, Way], traces: Mapping[Question, Trace]
) -> None:
    """Write into each violation at which hop it breaks, and commands."""
    for one in violations:
        pair = (str(one.sender), one.ear, one.was_heard)
        way = found.get(pair) if one.is_reach else None
        if way is None:
            one.hop, one.commands = _without_way(scene, one)
        elif one.was_heard:
            one.hop, one.commands = _leak(scene, one, way, traces)
        else:
            one.hop, one.commands = _gap(scene, one, way, traces)


def _gap(scene: Scene, one: Violation, way: Way, traces: Mapping[Question, Trace]) -> tuple[str, tuple[str, ...]]:
    """Where a frame that should arrive is lost: what is seen to be wrong, else between which two hops."""
    if scene.places.get(one.ear) is not None and scene.places[one.ear].role == "edge":
        return _forwarding(one.ear[0])
    hops = path.hops(way, traces)
    commands = tuple(hop.command for hop in hops if hop.command)
    broken = path.first_broken(hops) or path.first_stale(hops)
    if broken is not None:
        return str(broken), (broken.command, *(each for each in commands if each != broken.command))
    return _on_the_way(scene, one, way), commands


def _on_the_way(scene: Scene, one: Violation, way: Way) -> str:
    """Nothing is seen to be wrong: then what the wire itself said counts."""
    seen = {(each.ear, each.is_sent) for each in scene.heard.at(one.number)}
    left = any((ear, True) in seen for ear in _uplinks(way, way.sender.host))
    came = any((ear, False) in seen for ear in _uplinks(way, way.receiver.host))
    if way.is_local:
        return f"in the switch of {way.sender.host}"
    if not left:
        return f"in the switch of {way.sender.host}: it did not leave by an uplink"
    if not came:
        return f"between {way.sender.host} and {way.receiver.host}: it left the one and did not come to the other"
    return f"in the switch of {way.receiver.host}: it came in by an uplink"


def _uplinks(way: Way, host: str) -> list[Ear]:
    ground = way.grounds.get(host)
    return [(host, port.name) for port in ground.uplinks] if ground is not None else []


def _leak(scene: Scene, one: Violation, way: Way, traces: Mapping[Question, Trace]) -> tuple[str, tuple[str, ...]]:
    """What lets a frame through to where it must not come: a port that is not as recorded, else a flow."""
    place = scene.places.get(one.ear)
    if place is not None and place.role == "edge":
        return _forwarding(one.ear[0])
    hops = [hop for hop in path.hops(way, traces) if hop.name in ("port", "TAP") and hop.broken]
    receiver = scene.end(one.ear)
    mine = next((hop for hop in hops if receiver is not None and hop.device == receiver.device), None)
    broken = mine or next((hop for hop in hops if hop.device == way.sender.device), None)
    if broken is not None:
        return str(broken), (broken.command,)
    if place is not None and place.role == "stranger":
        command = f"sudo ovs-vsctl --columns=tag,trunks,external_ids list Port {one.ear[1]}"
        return f"port {one.ear[1]} on {one.ear[0]}: it is no slice's and hears VLAN {one.sender.wire}", (command,)
    return _by_a_flow(scene, way, traces)


def _by_a_flow(scene: Scene, way: Way, traces: Mapping[Question, Trace]) -> tuple[str, tuple[str, ...]]:
    for question in way.questions():
        trace = traces.get(question)
        if trace is not None and trace.rules:
            rule = trace.rules[-1]
            whose = owner(rule, scene.installation)
            command = f"sudo ovs-ofctl --names dump-flows {scene.grounds[question.host].bridge}"
            return f"flows on {question.host}: {rule} (of {whose}) lets it through", (command,)
    return "", ()


def _forwarding(host: str) -> tuple[str, tuple[str, ...]]:
    commands = ("sudo iptables -S FORWARD", "sudo iptables -t nat -S POSTROUTING", "ip route")
    return f"forwarding of {host}: by its routes and its rules", commands


def _without_way(scene: Scene, one: Violation) -> tuple[str, tuple[str, ...]]:
    """What is not about a frame between two ends."""
    if one.kind == "no DHCP offer":
        return _server(scene, one)
    if one.kind == "second DHCP server":
        return "; ".join(_owners(scene, one)) or "its MAC is that of no device of these hosts", ("ip -o link",)
    if one.kind in ("NAT too wide", "address is not translated"):
        return f"NAT rules of {one.ear[0]}", ("sudo iptables -t nat -S POSTROUTING",)
    if one.kind in ("no port", "swapped NIC", "duplicate MAC", "no service"):
        return f"{one.ear[1]} on {one.ear[0]}", (f"ip -d link show {one.ear[1]}", "sudo ovs-vsctl show")
    return f"{one.listener}", ("sudo iptables -S",)


def _server(scene: Scene, one: Violation) -> tuple[str, tuple[str, ...]]:
    """Why our own server is silent: no process, one that was stopped, or a way that breaks."""
    server = scene.end(one.ear)
    if server is None:
        return "", ()
    ground = scene.grounds.get(server.host)
    processes = [each for each in ground.servers if each.namespace == server.namespace] if ground is not None else []
    command = f"ps -o pid,stat,args -C dnsmasq; sudo ip netns pids {server.namespace}"
    if not processes:
        return f"no dnsmasq runs in {server.namespace} on {server.host}", (command,)
    stopped = [each for each in processes if each.state in ("T", "t")]
    if stopped:
        return f"dnsmasq in {server.namespace} on {server.host}, process {stopped[0].pid}, is stopped", (command,)
    return f"dnsmasq in {server.namespace} on {server.host}: it runs and does not answer", (command,)


def _owners(scene: Scene, one: Violation) -> Iterator[str]:
    """Devices that have the MAC of a second server."""
    macs = {offer.mac for offer in scene.heard.offers.get(one.number, [])}
    known = {nic.mac for wire in scene.wires for nic in wire.services}
    for host, ground in scene.grounds.items():
        for space, held in ground.devices.items():
            for name, device in held.items():
                if device.mac in macs - known:
                    yield f"{name} on {host}" + (f", in namespace {space}" if space else "")
