"""From differences to a plan: the order in which a host's objects are taken away and made.

Removals come first, from the machine outwards; then what is new, from the wires inwards. Objects of one
kind share one call where the tool can take many.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from cloudrepo import seed_image
from cloudrepo.aspects import RUNNING
from cloudrepo.commands import dnsmasq, iproute, iptables, openflow, ovs, python3, qemu
from cloudrepo.diff import Change
from cloudrepo.firewall import forwarding_for
from cloudrepo.first_boot import Seed
from cloudrepo.held_machines import hold, hold_again, release
from cloudrepo.mended_disks import mend_disk
from cloudrepo.naming import DRAFT, flow_cookie, machine_dir, run_root, server_dir
from cloudrepo.plan import (
    Act,
    MakeDir,
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
from cloudrepo.plugging import announcement, plug
from cloudrepo.probe import Host
from cloudrepo.resources import (
    Address,
    Closure,
    DhcpServer,
    Disk,
    Firewall,
    Flows,
    HostFacts,
    Machine,
    MachineSpec,
    Meter,
    Namespace,
    Port,
    Process,
    Resource,
    Tap,
)
from cloudrepo.sides import Split
from cloudrepo.sightings import FROZEN

NETWORK_GATE = "network"
SERVERS_AT_A_TIME = 4
STOPPED_AT_ONCE = 16  # a stop is waiting, not work


class StageBuilder:
    """Builds the stages for one host.

    Args:
        host: the host.
        facts: what the probe saw of it.
        parallel: how many machines, or namespaces, are worked on at a time.
        stop_grace_s: how long a guest may take to power off by ACPI before it is ended; 0 = at once.
        quit_grace_s: how long QEMU may take to quit before it is killed.
        gate: the name of the gate before machines start, or "" for none.
    """

    def __init__(
        self,
        host: Host,
        facts: HostFacts,
        *,
        parallel: int = 2,
        stop_grace_s: float = 0.0,
        quit_grace_s: float = 2.0,
        gate: str = "",
    ) -> None:
        self.host = host
        self.facts = facts
        self.parallel = parallel
        self.stop_grace_s = stop_grace_s
        self.quit_grace_s = quit_grace_s
        self.gate = gate

    def build(self, changes: Sequence[Change]) -> tuple[Stage, ...]:
        """All stages for these changes; stages without steps are left out, but for the gate's."""
        away, new = Split(changes, removing=True), Split(changes, removing=False)
        stages = (
            Stage(name="stop machines", steps=self._stop_machines(away), parallel=STOPPED_AT_ONCE),
            Stage(name="stop servers", steps=self._stop_servers(away), parallel=self.parallel),
            Stage(name="remove networks", steps=self._remove_networks(away, new)),
            Stage(name="remove files", steps=self._remove_files(away)),
            Stage(name="announce", steps=self._announce(new)),
            Stage(name="NAT", steps=self._nat(new)),
            Stage(name="devices", steps=self._devices(new)),
            Stage(name="servers", steps=self._servers(new), parallel=SERVERS_AT_A_TIME),
            Stage(name="forwarding", steps=self._forward(new)),
            Stage(name="machines", steps=self._start_machines(new), parallel=self.parallel, gate=self.gate),
        )
        return tuple(stage for stage in stages if stage.steps or stage.gate)

    # -- away ------------------------------------------------------------------------------------------

    def _stop_machines(self, away: Split) -> tuple[Step, ...]:
        steps: list[Step] = []
        for machine in away.of(Machine):
            directory = machine_dir(self.host.installation, machine.vm_id)
            lane, words = f"vm{machine.vm_id}", f"VM {machine.vm_id}"
            stop = StopProcess(
                pid_file=f"{directory}/pid" if machine.is_recorded else "",
                pid=machine.pid or 0,
                start=machine.start,
                token=machine.uuid,
                socket=f"{directory}/qmp.sock",
                grace_s=self.stop_grace_s,
                quit_s=self.quit_grace_s,
                timeout_s=self.stop_grace_s + self.quit_grace_s + 30,
            )
            steps.append(Step(name=f"{lane}:stop", label=f"stop {words}", act=stop, vm_id=machine.vm_id))
        for machine in away.with_strays(Machine):
            steps += self._end_strays(f"vm{machine.vm_id}", f"VM {machine.vm_id}", machine.strays)
        return tuple(steps)

    def _end_strays(self, lane: str, words: str, strays: Iterable[Process]) -> list[Step]:
        """Processes that no pid file names; what is proved of each is its start time and its own words."""
        return [
            Step(
                name=f"{lane}:end-{stray.pid}",
                label=f"end process {stray.pid}, which runs as {words}",
                act=StopProcess(
                    pid_file="", token=stray.token, pid=stray.pid, start=stray.start, quit_s=self.quit_grace_s
                ),
            )
            for stray in strays
        ]

    def _stop_servers(self, away: Split) -> tuple[Step, ...]:
        steps: list[Step] = []
        for server in away.of(DhcpServer):
            directory = server_dir(self.host.installation, server.vlan_id)
            stop = StopProcess(pid_file=f"{directory}/pid", token=f"--conf-file={directory}/dnsmasq.conf")
            label = f"stop DHCP server of VLAN {server.vlan_id}"
            steps.append(Step(name=f"dhcp{server.vlan_id}:stop", label=label, act=stop))
            words = f"DHCP server of VLAN {server.vlan_id}"
            steps += self._end_strays(f"dhcp{server.vlan_id}", words, server.strays)
        return tuple(steps)

    def _remove_networks(self, away: Split, new: Split) -> tuple[Step, ...]:
        steps: list[Step] = []
        firewalls = [firewall for firewall in away.of(Firewall) if firewall.key not in new.keys]
        for firewall in firewalls:
            steps += self._stop_forwarding("nat:no-forwarding", firewall)
        flows = [one for one in away.of(Flows) if one.key not in new.keys]
        if flows:  # before the ports they name: a number may be another's soon
            steps.append(self._change_flows("flows:remove", f"remove flows of {_owners(flows)}", remove=flows))
        steps += self._remove_meters(away)
        # Devices before their ports: those in a namespace, and TAPs of a group, go all at once, while Open
        # vSwitch would take them away one by one. A port without its device still carries its mark.
        lines = iproute.delete_links([tap.device for tap in away.of(Tap)], taken=self.facts.groups)
        lines += [iproute.delete_namespace(namespace.namespace) for namespace in away.of(Namespace)]
        if lines:
            label = f"remove {_named('device', [*away.of(Tap), *away.of(Namespace)])}"
            steps.append(self._run("devices:remove", label, iproute.batch(), iproute.batch_text(lines)))
        ports, closures = away.of(Port), [one for one in away.of(Closure) if one.key not in new.keys]
        if ports or closures:
            words = ovs.transaction(
                self.host.bridge,
                remove=[port.device for port in ports if not port.bridge],
                astray=[port.device for port in ports if port.bridge],
                open_=closures[0] if closures else None,
            )
            label = f"remove {_named('port', ports)}" if ports else f"open {self.host.bridge}"
            steps.append(self._run("ports:remove", label, words))
        for firewall in firewalls:  # when there is nothing left that they hold back
            text = iptables.restore_text(remove=firewall.rules)
            steps.append(self._run("nat:remove", f"remove NAT of VLAN {firewall.name}", iptables.restore(), text))
        return tuple(steps)

    def _remove_files(self, away: Split) -> tuple[Step, ...]:
        """Directories that announce other things go after those: what a failure leaves must not be a stranger's."""
        steps: list[Step] = []
        installation = self.host.installation
        for machine in away.of(Machine):
            if self.facts.controllers is not None:
                steps.append(release(installation, machine))
            steps.append(self._clear(f"vm{machine.vm_id}", machine, machine_dir(installation, machine.vm_id)))
        for server in away.of(DhcpServer):
            steps.append(self._clear(f"dhcp{server.vlan_id}", server, server_dir(installation, server.vlan_id)))
        for disk in away.of(Disk):
            if (disk.path or disk.candidate) and disk.file != "another":  # what took its place is not ours
                draft = "" if disk.path else f"{disk.directory}/{DRAFT}"
                overlay = Remove(path=disk.path or disk.candidate, within=disk.base_dir, same_as=draft)
                steps.append(
                    Step(name=f"disk{disk.vm_id}:remove", label=f"remove disk of VM {disk.vm_id}", act=overlay)
                )
            directory = Remove(path=disk.directory, within=self.host.disks_root, tree=True)
            steps.append(Step(name=f"disk{disk.vm_id}:forget", label=f"forget VM {disk.vm_id}", act=directory))
        if any(isinstance(gone, (Machine, DhcpServer)) for gone in away.resources):
            steps.append(_tidy("root:remove", installation))
        return tuple(steps)

    def _clear(self, lane: str, resource: Resource, directory: str) -> Step:
        act = Remove(path=directory, within=run_root(self.host.installation), tree=True)
        return Step(name=f"{lane}:clear", label=f"clear {resource}", act=act)

    # -- new -------------------------------------------------------------------------------------------

    def _announce(self, new: Split) -> tuple[Step, ...]:
        """Directories with marks first: what is made after them is ours even before it is marked itself."""
        steps: list[Step] = []
        machines, servers = new.of(Machine), [s for s in new.of(DhcpServer) if not new.only_hosts_differ(s)]
        for machine in machines:
            user = machine.spec.user if machine.spec else ""
            directory = machine_dir(self.host.installation, machine.vm_id)
            text = announcement(machine, new.seen.get(machine.key))
            steps += self._marked_dir(f"vm{machine.vm_id}", f"VM {machine.vm_id}", directory, text, user)
        for server in servers:
            directory = server_dir(self.host.installation, server.vlan_id)
            steps += self._marked_dir(
                f"dhcp{server.vlan_id}", f"VLAN {server.vlan_id}", directory, f"{server.mark}\n", ""
            )
        for disk in new.of(Disk):
            steps += mend_disk(self.host.installation, disk, new.seen.get(disk.key))
        return tuple(steps)

    def _marked_dir(self, lane: str, words: str, directory: str, text: str, user: str) -> list[Step]:
        mode = 0o700 if user else 0o755  # dnsmasq reads its own as nobody
        return [
            Step(name=f"{lane}:dir", label=f"prepare {words}", act=MakeDir(path=directory, mode=mode, user=user)),
            Step(name=f"{lane}:mark", label=f"mark {words}", act=WriteFile(path=f"{directory}/mark", text=text)),
        ]

    def _devices(self, new: Split) -> tuple[Step, ...]:
        steps: list[Step] = []
        taps, namespaces, ports = new.of(Tap), new.of(Namespace), new.of(Port)
        fresh = [namespace for namespace in namespaces if namespace.key not in new.seen]
        lines = [iproute.add_namespace(namespace.namespace) for namespace in fresh]
        for tap in taps:
            lines += iproute.add_tap(tap) if tap.key not in new.seen else iproute.add_tap(tap)[1:]
        if lines:
            label = f"add {_named('device', [*fresh, *taps])}"
            steps.append(self._run("devices:add", label, iproute.batch(), iproute.batch_text(lines)))
        if taps:  # up last of all: what a crash leaves between these steps is down, and set right again
            steps.append(self._without_ipv6("devices", [tap.device for tap in taps]))
            up = iproute.batch_text(iproute.set_up(tap.device) for tap in taps)
            steps.append(self._run("devices:up", f"set up {_named('device', taps)}", iproute.batch(), up))
        closures, flows = new.of(Closure), new.of(Flows)
        if ports or closures:
            label = f"add {_named('port', ports)}" if ports else f"close {self.host.bridge}"
            words = ovs.transaction(
                self.host.bridge, add=ports, untrunk=new.trunks(ports), close=closures[0] if closures else None
            )
            steps.append(self._run("ports:add", label, words))
        steps += self._set_meters(new, is_closing=bool(closures))
        if flows:
            steps.append(self._change_flows("flows:add", f"set flows of {_owners(flows)}", add=flows))
        return tuple(steps)

    def _remove_meters(self, away: Split) -> list[Step]:
        """Before the devices by which they are known to be ours."""
        return [
            self._run(f"meter{one.number}:remove", f"remove {one}", openflow.delete_meter(self.host.bridge, one.number))
            for one in away.of(Meter)
        ]

    def _set_meters(self, new: Split, *, is_closing: bool) -> list[Step]:
        """Before the flows that name them. A bridge that was closed just now has lost its meters, or had been."""
        steps, bridge = [] if not is_closing else self._remove_meters(new), self.host.bridge
        for one in new.of(Meter):
            is_new = one.key not in new.seen
            words = openflow.set_meter(bridge, one.number, one.flags, one.bands, is_new=is_new)
            steps.append(self._run(f"meter{one.number}:{'add' if is_new else 'change'}", f"set {one}", words))
        return steps

    def _change_flows(self, name: str, label: str, *, remove: Sequence[Flows] = (), add: Sequence[Flows] = ()) -> Step:
        """All or none; those that are there go with it, since a port's number may not be what it was."""
        by_cookie = {_cookie(one): one.flows for one in add}
        text = openflow.change_text(remove=[*map(_cookie, remove), *by_cookie], add=by_cookie)
        return self._run(name, label, openflow.change(self.host.bridge), text)

    def _servers(self, new: Split) -> tuple[Step, ...]:
        """One lane a namespace: its ports into it, their addresses, how it answers ARP, then its server."""
        steps: list[Step] = []
        spaces = dict.fromkeys(
            [namespace.namespace for namespace in new.of(Namespace)]
            + [address.namespace for address in new.of(Address)]
            + [server.namespace for server in new.of(DhcpServer)]
        )
        for space in spaces:
            lines = [
                line
                for namespace in new.of(Namespace)
                if namespace.namespace == space
                for line in iproute.mark_namespace(namespace.mark)
            ]
            for address in new.of(Address):
                if address.namespace == space:
                    lines += iproute.set_address(address, stale=new.stale_addresses(address))
            steps += self._moves(space, new)
            if lines and not space:
                steps.append(
                    self._without_ipv6("node", [address.device for address in new.of(Address) if not address.namespace])
                )
            if lines:
                label = f"set addresses of {space or 'the node'}"
                steps.append(
                    self._run(
                        f"{space or 'node'}:addresses", label, iproute.batch(namespace=space), iproute.batch_text(lines)
                    )
                )
            for server in new.of(DhcpServer):
                if server.namespace == space:
                    steps += self._serve(server, only_hosts=new.only_hosts_differ(server))
        return tuple(steps)

    def _moves(self, space: str, new: Split) -> list[Step]:
        """The kernel waits at each move: namespaces are made side by side, so that others use the time."""
        moves = [
            iproute.move_link(address.device, space)
            for address in new.of(Address)
            if space and address.namespace == space and new.place_of(address) != space
        ]
        if not moves:
            return []
        return [self._run(f"{space}:move", f"move ports to {space}", iproute.batch(), iproute.batch_text(moves))]

    def _without_ipv6(self, lane: str, devices: list[str]) -> Step:
        """Close the node's own gateway ports, or a worker's ends of TAPs, to IPv6, which no rule of ours filters.

        `-e`: a host without IPv6 has no such switch, and needs none.
        """
        words = ("sysctl", "-qew", *(f"net/ipv6/conf/{device}/disable_ipv6=1" for device in devices))
        return self._run(f"{lane}:no-ipv6", f"close {', '.join(devices)} to IPv6", words)

    def _serve(self, server: DhcpServer, *, only_hosts: bool) -> list[Step]:
        lane, directory = server.namespace, server_dir(self.host.installation, server.vlan_id)
        words = f"DHCP server of VLAN {server.vlan_id}"

        def write(name: str, text: str) -> Step:
            act = WriteFile(path=f"{directory}/{name}", text=text, mode=0o644)
            return Step(name=f"{lane}:{name}", label=f"write {name} of {words}", act=act)

        if only_hosts:
            signal = SignalProcess(pid_file=f"{directory}/pid", token=f"--conf-file={directory}/dnsmasq.conf")
            return [
                write("hosts", server.hosts),
                Step(name=f"{lane}:reload", label=f"reload {words}", act=signal),
            ]
        run = iproute.in_namespace(server.namespace, dnsmasq.serve(directory))
        quiet = iproute.in_namespace(server.namespace, _SPEAK_FOR_OWN_ADDRESS)
        return [
            write("hosts", server.hosts),
            write("dnsmasq.conf", server.config),
            self._run(f"{lane}:arp", f"set ARP of VLAN {server.vlan_id}", quiet),
            self._run(f"{lane}:serve", f"start {words}", run),
        ]

    def _nat(self, new: Split) -> tuple[Step, ...]:
        """The rules come before the port they are about. While they change, nothing is forwarded from there."""
        steps: list[Step] = []
        for firewall in new.of(Firewall):
            seen = new.seen.get(firewall.key)
            there = seen.rules if isinstance(seen, Firewall) else ()
            if isinstance(seen, Firewall):
                steps += self._stop_forwarding("nat:halt", seen, but=firewall.forwarding[1:])
            text = iptables.restore_text(remove=there, add=firewall.rules)
            steps.append(self._run("nat:add", f"set NAT of VLAN {firewall.name}", iptables.restore(), text))
        return tuple(steps)

    def _forward(self, new: Split) -> tuple[Step, ...]:
        """Switched on last and off first: forwarding is never on without the rules that hold it."""
        return tuple(self._forwarding("nat:forwarding", firewall.forwarding, on=True) for firewall in new.of(Firewall))

    def _stop_forwarding(self, name: str, seen: Firewall, *, but: Sequence[str] = ()) -> list[Step]:
        devices = [one for one in forwarding_for(seen, self.facts) if one not in but]
        return [self._forwarding(name, devices, on=False)] if devices else []

    def _forwarding(self, name: str, devices: Iterable[str], *, on: bool) -> Step:
        """By device, never for the whole node; one that is gone forwards nothing (`-e`)."""
        names = list(devices)
        switches = [f"net/ipv4/conf/{device}/forwarding={int(on)}" for device in names]
        label = f"{'allow' if on else 'stop'} forwarding by {', '.join(names)}"
        return self._run(name, label, ("sysctl", "-qw" if on else "-qew", *switches))

    def _start_machines(self, new: Split) -> tuple[Step, ...]:
        steps: list[Step] = []
        for machine in new.of(Machine):
            seen = new.seen.get(machine.key)
            if isinstance(seen, Machine):
                steps += self._continue(machine, seen)
            elif machine.spec:
                steps += self._start(machine, machine.spec)
        return tuple(steps)

    def _continue(self, machine: Machine, seen: Machine) -> list[Step]:
        """A machine that runs, and is only to be found again or to go on."""
        directory = machine_dir(self.host.installation, machine.vm_id)
        lane, name = f"vm{machine.vm_id}", f"VM {machine.vm_id}"
        steps = []
        if not seen.is_recorded:
            act: Act = WriteFile(path=f"{directory}/pid", text=f"{seen.pid} {seen.start}\n", mode=0o644)
            steps.append(Step(name=f"{lane}:pid", label=f"note the process of {name}", act=act, vm_id=machine.vm_id))
        steps += hold_again(self.host.installation, machine, seen)
        if seen.status == FROZEN:
            act = SignalProcess(pid_file=f"{directory}/pid", token=machine.uuid, signal="CONT")
            steps.append(Step(name=f"{lane}:thaw", label=f"let {name} go on", act=act, vm_id=machine.vm_id))
        if machine.spec is not None:
            steps += plug(self.host.installation, machine, machine.spec, seen.plugged)
        if seen.status not in RUNNING:
            # also of one that was frozen: it may have been paused before
            act = Qmp(socket=f"{directory}/qmp.sock", commands=qemu.start_commands(machine), expect_uuid=machine.uuid)
            steps.append(Step(name=f"{lane}:run", label=f"{name} runs", act=act, vm_id=machine.vm_id))
        return steps

    def _start(self, machine: Machine, spec: MachineSpec) -> list[Step]:
        directory = machine_dir(self.host.installation, machine.vm_id)
        lane, name = f"vm{machine.vm_id}", f"VM {machine.vm_id} ({spec.vm_name})"
        words, log = qemu.command(machine, directory), f"{directory}/qemu.log"
        act = (
            Run(words=words, user=spec.user)
            if spec.detach == "daemonize"
            else Spawn(words=words, log=log, user=spec.user, pid_file=f"{directory}/pid")
        )
        told = Qmp(
            socket=f"{directory}/qmp.sock",
            commands=qemu.start_commands(machine),
            expect_uuid=machine.uuid,
            log=log,
        )
        return [
            *(self._seed(machine, spec.user, directory, spec.seed) if spec.seed is not None else ()),
            Step(name=f"{lane}:start", label=f"start {name}", act=act, vm_id=machine.vm_id),
            *hold(self.host.installation, machine),  # before it runs: what its guest uses then counts
            Step(name=f"{lane}:run", label=f"{name} runs", act=told, vm_id=machine.vm_id),
        ]

    def _seed(self, machine: Machine, user: str, directory: str, seed: Seed) -> list[Step]:
        """Written by the account that QEMU runs as: what its guest reads is nobody else's."""
        label = f"write what VM {machine.vm_id} is told at its first boot"
        act = Run(
            words=python3.write_binary(f"{directory}/{seed.name}"),
            stdin=base64.b64encode(seed_image.volume(seed)).decode(),
            user=user,
        )
        return [Step(name=f"vm{machine.vm_id}:seed", label=label, act=act, vm_id=machine.vm_id)]

    def _run(self, name: str, label: str, words: tuple[str, ...], stdin: str = "") -> Step:
        return Step(name=name, label=label, act=Run(words=words, stdin=stdin))


def _owners(flows: Iterable[Flows]) -> str:
    return ", ".join(one.owner for one in flows)


def _cookie(flows: Flows) -> int:
    if flows.mark is None:
        raise ValueError(f"flows of nobody: {flows.owner}")
    return flow_cookie(flows.mark)


def tidy_stage(installation: str) -> Stage:
    """Remove our run directory if it is empty: an operation that was cut short may have left it so."""
    return Stage(name="tidy", steps=(_tidy("root:tidy", installation),))


def _tidy(name: str, installation: str) -> Step:
    """All slices on a host share the run directory: another's last machine may take it away at the same time."""
    return Step(name=name, label="remove directory", act=RemoveIfEmpty(path=run_root(installation)))


#: Both ports of a namespace are on one wire. Without this each answers ARP for the other's address, and
#: unicast DHCP renewals are lost (ip-sysctl.txt, arp_ignore and arp_announce). And nothing is routed there: a
#: namespace is born with the node's own switch.
_SPEAK_FOR_OWN_ADDRESS = (
    "sysctl",
    "-qw",
    "net.ipv4.ip_forward=0",
    "net.ipv4.conf.all.arp_ignore=1",
    "net.ipv4.conf.all.arp_announce=2",
    "net.ipv6.conf.all.disable_ipv6=1",
)


def _named(noun: str, resources: Sequence[Resource]) -> str:
    """`port a` or `3 ports: a, b, c`, cut after four names."""
    names = [resource.name for resource in resources]
    if len(names) == 1:
        return f"{noun} {names[0]}"
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{len(names)} {noun}s: {shown}"
