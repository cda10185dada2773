"""The way from one NIC to another, hop by hop: TAP, port, flows, uplink, and where it breaks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification import tracing
from cloudrepo.verification.cast import Nic
from cloudrepo.verification.ground import Device, Ground, Port
from cloudrepo.verification.shapes import MTU
from cloudrepo.verification.tracing import Trace

FORGOTTEN_S = 300  # after which a switch forgets a MAC that it does not hear again: its mac-aging-time, by default
TUNNEL = "dot1q-tunnel"  # the mode of a port that takes its guest's own tags


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One place on the way.

    Attributes:
        name: what it is: `TAP`, `port`, `flows`, `uplink`, `device`, `NIC`.
        host: where.
        device: of which device.
        found: what was seen there.
        broken: why nothing gets any further; "" = it is as it should be.
        command: what a person could type on that host to see it.
        is_astray: frames go on from here, but not where they should: a hop behind it on this host may be why.
        stale: why nothing gets any further for now, which ends by itself; "" = it is not so.
    """

    name: str
    host: str
    device: str
    found: str
    broken: str = ""
    command: str = ""
    is_astray: bool = False
    stale: str = ""

    def to_json(self) -> dict[str, Any]:
        """As programs are given it."""
        return {
            "name": self.name,
            "host": self.host,
            "device": self.device,
            "found": self.found,
            "broken": self.broken,
            "stale": self.stale,
            "command": self.command,
        }

    def __str__(self) -> str:
        return f"{self.name} {self.device} on {self.host}: {self.broken or self.stale or self.found}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a switch is asked: what it does with this frame, if it comes in by this port."""

    host: str
    port: str
    frame: bytes


@dataclass(frozen=True, kw_only=True)
class Way:
    """Two ends and a frame that goes from one to the other.

    Attributes:
        sender, receiver: the ends.
        frame: its bytes, without a tag.
        grounds: the hosts that answered.
        installation: whose flows are ours.
    """

    sender: Nic
    receiver: Nic
    frame: bytes
    grounds: Mapping[str, Ground]
    installation: str

    @property
    def is_local(self) -> bool:
        """Whether it stays on one host."""
        return self.sender.host == self.receiver.host

    def questions(self) -> list[Question]:
        """What the switches on the way are asked."""
        asked = [Question(host=self.sender.host, port=self.sender.device, frame=self.frame)]
        wire = self.sender.wire
        if not self.is_local and wire is not None and self.receiver.host in self.grounds:
            uplinks = self.grounds[self.receiver.host].uplinks
            tagged = tracing.tagged(self.frame, wire)
            asked += [Question(host=self.receiver.host, port=one.name, frame=tagged) for one in uplinks[:1]]
        return [one for one in asked if one.host in self.grounds and one.port in self.grounds[one.host].ports]


def hops(way: Way, traces: Mapping[Question, Trace]) -> list[Hop]:
    """All places on the way, in order; also those behind one that is broken.

    Args:
        way: from where to where.
        traces: answers to the way's questions.
    """
    return list(_hops(way, traces))


def first_broken(found: Sequence[Hop]) -> Hop | None:
    """Where it breaks first: a switch that sends frames astray does so because of its ports, if one is wrong."""
    broken = [hop for hop in found if hop.broken]
    if not broken or not broken[0].is_astray:
        return broken[0] if broken else None
    return next((hop for hop in broken[1:] if hop.host == broken[0].host), broken[0])


def first_stale(found: Sequence[Hop]) -> Hop | None:
    """Where a switch believes what is not so any more; None = nowhere."""
    return next((hop for hop in found if hop.stale), None)


def _hops(way: Way, traces: Mapping[Question, Trace]) -> Iterator[Hop]:
    sender, receiver = way.sender, way.receiver
    if sender.wire is None or sender.wire != receiver.wire:
        yield _apart(way)
    yield from _end(sender, way.grounds)
    if sender.host in way.grounds:
        uplinks = [port.name for port in way.grounds[sender.host].uplinks]
        yield _flows(way, sender.host, traces, [receiver.device] if way.is_local else uplinks)
    if not way.is_local:
        for host in (sender.host, receiver.host):
            if host in way.grounds:
                yield from _uplink(host, way.grounds[host], sender.wire)
            if host == receiver.host and host in way.grounds:
                yield _flows(way, host, traces, [receiver.device])
    yield from reversed(list(_end(receiver, way.grounds)))


def _apart(way: Way) -> Hop:
    def words(nic: Nic) -> str:
        return f"VLAN {nic.wire}" if nic.wire is not None else "no wire"

    text = f"{way.sender} is on {words(way.sender)}, {way.receiver} on {words(way.receiver)}"
    return Hop(name="records", host=way.sender.host, device=way.sender.device, found=text, broken=text)


def _end(nic: Nic, grounds: Mapping[str, Ground]) -> Iterator[Hop]:
    """One end: the device behind the port, then the port."""
    ground = grounds.get(nic.host)
    if ground is None:
        yield Hop(name="host", host=nic.host, device="", found="", broken="the host did not answer")
        return
    yield _device(nic, ground) if not nic.is_guest else _tap(nic, ground)
    yield _port(nic, ground)


def _tap(nic: Nic, ground: Ground) -> Hop:
    device = ground.here.get(nic.device)
    machine = next((one for one in ground.machines if nic.device in one.nics), None)
    broken = _why_dead(device, "no process holds it")
    if not broken and machine is not None and machine.nics[nic.device] != nic.mac.lower():
        broken = f"its machine has MAC {machine.nics[nic.device]} there, and {nic} has {nic.mac}"
    held = f"held by QEMU, process {machine.pid}" if machine is not None else "held"
    return Hop(
        name="TAP",
        host=nic.host,
        device=nic.device,
        found=f"up, {held}, MAC {nic.mac}, MTU {device.mtu}" if device is not None else "not there",
        broken=broken,
        command=f"ip -s link show {nic.device}",
    )


def _device(nic: Nic, ground: Ground) -> Hop:
    device = ground.devices.get(nic.namespace, {}).get(nic.device)
    where = f"-n {nic.namespace} " if nic.namespace else ""
    broken = _why_dead(device, "it has no carrier")
    return Hop(
        name="device",
        host=nic.host,
        device=nic.device,
        found=f"up, {device.address or 'no address'}, MTU {device.mtu}" if device is not None else "not there",
        broken=broken,
        command=f"sudo ip {where}-s address show {nic.device}",
    )


def _why_dead(device: Device | None, no_carrier: str) -> str:
    if device is None:
        return "there is no such device"
    if not device.is_up:
        return "it is switched off"
    if not device.has_carrier:
        return no_carrier
    return f"its MTU is {device.mtu}, and a full frame needs {MTU}" if device.mtu < MTU else ""


def _port(nic: Nic, ground: Ground) -> Hop:
    port = ground.ports.get(nic.device)
    if port is None:
        found, broken = "not there", f"it is no port of {ground.bridge}"
    else:
        found, broken = f"tag {port.tag}, {_counted(port)}", _why_wrong(port, nic)
    return Hop(
        name="port",
        host=nic.host,
        device=nic.device,
        found=found,
        broken=broken,
        command=f"sudo ovs-vsctl --columns=tag,trunks,vlan_mode list Port {nic.device}",
    )


def _why_wrong(port: Port, nic: Nic) -> str:
    if not port.number:
        return f"the switch cannot use it: {port.error or 'it has no number'}"
    if port.tag is None:
        return f"it has no tag and hears every VLAN; its tag should be {nic.wire}"
    if port.tag != nic.wire:
        return f"its tag is {port.tag}, and should be {nic.wire}"
    if port.mode not in ("", "access") and not (port.mode == TUNNEL and "vlans" in nic.switches):
        return f"its mode is {port.mode}"
    extra = [str(one) for one in port.trunks]
    return f"it carries the VLANs {', '.join(extra)} besides" if extra else ""


def _counted(port: Port) -> str:
    count = port.counters
    text = f"{count.get('rx_packets', 0)} frames in, {count.get('tx_packets', 0)} out"
    dropped = count.get("rx_dropped", 0) + count.get("tx_dropped", 0)
    return f"{text}, {dropped} dropped" if dropped else text


def _uplink(host: str, ground: Ground, vlan: int | None) -> Iterator[Hop]:
    command = f"sudo ovs-vsctl --columns=trunks,tag list Port; ip -s link; sudo ovs-vsctl list-ports {ground.bridge}"
    if not ground.uplinks:
        broken = f"no port of {ground.bridge} leads to other hosts"
        yield Hop(name="uplink", host=host, device="", found="not there", broken=broken, command=command)
    for port in ground.uplinks:
        device = ground.here.get(port.name)
        broken = _why_dead(device, "its cable is out: it has no carrier")
        if not broken and not port.number:
            broken = f"the switch cannot use it: {port.error}"
        if port.trunks and vlan not in port.trunks:
            carried = ", ".join(map(str, port.trunks))
            broken = f"it does not carry VLAN {vlan}: its trunks are {carried}"
        carries = f"the VLANs {', '.join(map(str, port.trunks))}" if port.trunks else "all VLANs"
        mtu = device.mtu if device is not None else 0
        yield Hop(
            name="uplink",
            host=host,
            device=port.name,
            found=f"up, carries {carries}, MTU {mtu}, {_counted(port)}",
            broken=broken,
            command=f"sudo ovs-vsctl --columns=trunks,tag list Port {port.name}; ip -s link show {port.name}",
        )


def _flows(way: Way, host: str, traces: Mapping[Question, Trace], wanted: Sequence[str]) -> Hop:
    ground = way.grounds[host]
    is_first = host == way.sender.host
    question = next((one for one in way.questions() if one.host == host), None)
    port = way.sender.device if is_first else (question.port if question is not None else "")
    trace = traces.get(question) if question is not None else None
    command = tracing.ask_by_hand(
        ground.bridge, port, way.sender.mac, way.receiver.mac, None if is_first else way.sender.wire
    )
    if trace is None:
        broken = "the switch could not be asked"
        return Hop(name="flows", host=host, device=ground.bridge, found="", broken=broken, command=command)
    broken = _why_stopped(trace, wanted, way.installation)
    stale = _why_for_now(way, ground, port, trace) if broken else ""
    return Hop(
        name="flows",
        host=host,
        device=ground.bridge,
        found=described(trace, way.installation),
        broken="" if stale else broken,
        is_astray=bool(trace.ports),
        command=tracing.ask_learned_by_hand(ground.bridge) if stale else command,
        stale=stale,
    )


def described(trace: Trace, installation: str) -> str:
    """The flows that a frame meets, and where it goes."""
    met = "; ".join(f"{rule} (of {tracing.owner(rule, installation)})" for rule in trace.rules) or "no flow"
    return f"{met} → {', '.join(trace.ports) or 'nowhere'}"


def _why_stopped(trace: Trace, wanted: Sequence[str], installation: str) -> str:
    if any(port in trace.ports for port in wanted):
        return ""
    if not trace.rules:
        return "no flow is for it, so it is dropped"
    last = trace.rules[-1]
    if not trace.ports:
        return f"it is dropped by the flow {last} (of {tracing.owner(last, installation)})"
    return f"it leaves by {', '.join(trace.ports)} and not by {' or '.join(wanted) or 'an uplink'}"


def _why_for_now(way: Way, ground: Ground, came_by: str, trace: Trace) -> str:
    """Why a frame that the flows let through goes astray until the switch hears from its destination; "" = it does not.

    A switch sends a frame where it heard the frame's destination last, and by the port it came by to nobody.
    """
    mac = way.receiver.mac.lower()
    heard = next((one for one in trace.learned if (one.vlan, one.mac) == (way.sender.wire, mac)), None)
    if heard is None or heard.age_s is None or not trace.rules or "NORMAL" not in trace.rules[-1].actions:
        return ""
    behind = next((port.name for port in ground.ports.values() if port.number == heard.port), "")
    if not behind or (trace.ports or (came_by,)) != (behind,):
        return ""
    return (
        f"the switch has {mac} behind {behind}, where it heard it {heard.age_s} s ago; that goes by itself at the next "
        f"frame of {way.receiver}, at most {FORGOTTEN_S} s after it was heard there, or at once by `sudo ovs-appctl "
        f"fdb/flush {ground.bridge}`; where it comes back, something else there has this MAC"
    )
