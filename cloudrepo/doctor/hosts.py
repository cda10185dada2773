"""What is wrong with a host before a class, of what it said of itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

from cloudrepo import worker_facts
from cloudrepo.commands import sshd
from cloudrepo.doctor import vlans
from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.doctor.host_facts import HostFacts
from cloudrepo.doctor.trial import FULL_SIZE
from cloudrepo.errors import CloudError

#: The oldest versions that the documents promise: those of Debian 11 and Ubuntu 20.04.
OLDEST = {"python": (3, 8), "qemu": (4, 2), "ovs": (2, 13)}
NAMES = {"python": "Python", "qemu": "QEMU", "ovs": "Open vSwitch"}
SESSIONS = 10  # that one connection of ours holds: sshd's default, and transports/ssh.py
LOGINS = 10  # under way at once: sshd's default
SKEW_S = 5.0


def unasked(ip: str, error: CloudError, account: str) -> Finding:
    """Why a host could not be asked anything."""
    kind = {"host.key": "key", "host.sudo": "privilege", "host.helper": "privilege", "host.python": "program"}
    remedy = error.remedy
    if error.code == "host.sudo":
        rule = f"/etc/sudoers.d/{account}"
        remedy = (
            f"As root on {ip}: `echo '{account} ALL=(ALL) NOPASSWD: ALL' > {rule} && chmod 440 {rule}`; "
            f"or `./cloud worker add {ip} --bootstrap --admin USER`; or, where only the helper may be run, set "
            f"host.privilege to helper: `./cloud worker harden {ip}`"
        )
    return Finding(
        code=f"hosts.{kind.get(error.code, 'ssh')}",
        level=Level.WRONG,
        text=f"{ip}: {error.brief}",
        evidence=error.evidence,
        remedy=remedy or f"Try it: ssh {account}@{ip}",
        hosts=(ip,),
    )


def judge(facts: HostFacts, tried: Sequence[int], *, is_alone: bool = False) -> list[Finding]:
    """What is wrong with a host; a word where nothing is.

    Args:
        facts: what it said.
        tried: VLANs that its bridge must take to the other hosts.
        is_alone: there is no other host, so that its bridge needs no uplink.
    """
    found = [*_programs(facts, is_alone=is_alone), *_versions(facts), *_uplinks(facts, tried), *_sshd(facts)]
    found = [replace(one, text=f"{facts.ip}: {one.text}", hosts=(facts.ip,)) for one in found]
    if not found:
        text = f"{facts.ip}: SSH and its key, root, {_said(facts)}, {facts.question.bridge}, sshd"
        found.append(Finding(code="hosts.host", level=Level.OK, text=text, hosts=(facts.ip,)))
    return found


def _said(facts: HostFacts) -> str:
    worker = facts.worker
    versions = {"Python": worker.python, "QEMU": worker.qemu_version, "Open vSwitch": worker.ovs_version}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _programs(facts: HostFacts, *, is_alone: bool) -> Iterator[Finding]:
    """What discovery finds too, each with its remedy."""
    for problem in worker_facts.diagnose(facts.question, facts.worker):
        if problem.code == "uplink" and is_alone:
            continue
        level = Level.WARNING if problem.code == "ports" else Level.WRONG
        remedy = problem.remedy[:1].upper() + problem.remedy[1:]
        yield Finding(code=f"hosts.{problem.code}", level=level, text=problem.text, remedy=remedy)


def _versions(facts: HostFacts) -> Iterator[Finding]:
    worker = facts.worker
    told = {"python": worker.python, "qemu": worker.qemu_version, "ovs": worker.ovs_version}
    for program, version in told.items():
        numbers = tuple(int(part) for part in version.split(".")[:2])
        if numbers and numbers < OLDEST[program]:
            least = ".".join(map(str, OLDEST[program]))
            yield Finding(
                code="hosts.version",
                level=Level.WRONG,
                text=f"{NAMES[program]} is too old",
                evidence=f"{version}, {least} or newer is needed",
                remedy="Use a host with Debian 11, Ubuntu 20.04 or newer",
            )


def _uplinks(facts: HostFacts, tried: Sequence[int]) -> Iterator[Finding]:
    """The devices that lead to the other hosts: switched on, plugged in, wide enough, and for all VLANs."""
    for port in facts.ground.uplinks if facts.ground is not None else ():
        device = facts.ground.here[port.name] if facts.ground is not None else None
        if device is None or port.error:
            continue  # told of above
        name = f"the uplink {port.name} of {facts.question.bridge}"
        if not device.is_up:
            remedy = f"`sudo ip link set dev {port.name} up`, and in the host's network configuration for its next boot"
            yield Finding(code="hosts.uplink.down", level=Level.WRONG, text=f"{name} is switched off", remedy=remedy)
        elif not device.has_carrier:
            remedy = "Plug in its cable, or switch on the switch port at its other end"
            yield Finding(code="hosts.uplink.carrier", level=Level.WRONG, text=f"{name} has no carrier", remedy=remedy)
        if device.mtu < FULL_SIZE:
            yield Finding(
                code="hosts.mtu",
                level=Level.WRONG,
                text=f"{name} loses guests' frames of {FULL_SIZE} bytes",
                evidence=f"MTU {device.mtu}",
                remedy=f"`sudo ip link set dev {port.name} mtu {FULL_SIZE}`, and in the host's network configuration "
                "for its next boot",
            )
        missing = set(tried) - set(port.trunks)
        if port.trunks and missing:
            yield Finding(
                code="hosts.trunks",
                level=Level.WRONG,
                text=f"{name} does not carry VLANs {vlans.text(missing)}",
                evidence=f"its trunks are {vlans.text(port.trunks)}",
                remedy=f"`sudo ovs-vsctl clear port {port.name} trunks`",
            )


def _sshd(facts: HostFacts) -> Iterator[Finding]:
    """Limits that are lower than sshd's own defaults, which are enough for a class."""
    if facts.sshd is None:
        yield Finding(
            code="hosts.sshd",
            level=Level.UNKNOWN,
            text="sshd does not say what its limits are",
            evidence=facts.sshd_error,
            remedy=f"On {facts.ip} look at `sudo sshd -T | grep -i max`",
        )
        return
    for keyword, least, value, why in (
        ("MaxSessions", SESSIONS, str(SESSIONS), "work on this host waits in line, and may give up"),
        ("MaxStartups", LOGINS, "10:30:100", "people who log in at once are turned away"),
    ):
        told = sshd.value(facts.sshd, keyword.lower())
        figure = told.partition(":")[0]
        if figure.isdecimal() and int(figure) < least:
            yield Finding(
                code=f"hosts.sshd.{keyword.lower()}",
                level=Level.WRONG,
                text=f"sshd allows too little: {why}",
                evidence=f"{keyword} {told}",
                remedy=f"On {facts.ip} write `{keyword} {value}` in /etc/ssh/sshd_config before the first Match block, "
                "in place of the other line, and run `sudo systemctl reload ssh`",
            )


# -- clocks ------------------------------------------------------------------------------


def clocks(facts: Sequence[HostFacts]) -> list[Finding]:
    """Clocks that are off. Where most hosts agree with each other and not with this machine, it is this machine's."""
    told = {one.ip: one.clock for one in facts if one.clock is not None}
    off = {ip: one.ahead_s for ip, one in told.items() if abs(one.ahead_s) > SKEW_S + one.within_s}
    middle = median(one.ahead_s for one in told.values()) if told else 0.0
    here = len(off) > 1 and len(off) == len(told) and all(abs(ahead - middle) <= SKEW_S for ahead in off.values())
    found = [_silent(one.ip) for one in facts if one.clock is None]
    if here:
        text = f"the clock of this machine is {_apart(-middle)} that of all hosts"
        return [*found, Finding(code="hosts.clock", level=Level.WARNING, text=text, remedy=_SET_CLOCK)]
    for ip, ahead in off.items():
        text = f"{ip}: its clock is {_apart(ahead)} that of this machine"
        remedy = f"On {ip}: {_SET_CLOCK}"
        found.append(Finding(code="hosts.clock", level=Level.WARNING, text=text, remedy=remedy, hosts=(ip,)))
    return found


_SET_CLOCK = "`sudo timedatectl set-ntp true`, where there is no time service `sudo apt-get install systemd-timesyncd`"


def _apart(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"


def _silent(ip: str) -> Finding:
    text = f"{ip}: it does not say what time it is"
    return Finding(code="hosts.clock", level=Level.UNKNOWN, text=text, remedy=f"On {ip} run `date`", hosts=(ip,))


def without_uplink(facts: Mapping[str, HostFacts]) -> list[str]:
    """Hosts that cannot take part in a trial of frames: no bridge, or no uplink that works."""
    return [ip for ip, one in facts.items() if not working_uplinks(one)]


def working_uplinks(facts: HostFacts) -> list[str]:
    """Devices of a host that lead to the others and are switched on and plugged in."""
    if facts.ground is None:
        return []
    here = facts.ground.here
    ports = [port for port in facts.ground.uplinks if not port.error]
    return [port.name for port in ports if here[port.name].is_up and here[port.name].has_carrier]
