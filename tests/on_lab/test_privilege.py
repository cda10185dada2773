"""With the SSH key but only the helper: what a thief of the key tries on a real host, and what it gets.

The thief has a shell as the login account and may send the helper any message. Another installation is on that host.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cloudrepo.commands import iproute, iptables, openflow, ovs, qemu_img
from cloudrepo.host.message import HELPER, PYTHON, encode
from cloudrepo.host.programs import helper_version
from cloudrepo.naming import Mark, machine_uuid, run_root
from cloudrepo.plan import (
    Act,
    AdoptFile,
    Checksum,
    MakeDir,
    ObserveFiles,
    ObserveMachines,
    Plan,
    PublishFile,
    Qmp,
    ReadFile,
    Remove,
    RequireFile,
    Run,
    Spawn,
    Stage,
    Step,
    StopProcess,
    WriteFile,
)
from cloudrepo.resources import Port
from cloudrepo.wire_acts import Listen
from on_lab.cluster import HOSTS, Cluster
from on_lab.hardened import IMAGES

pytestmark = pytest.mark.lab

HOST = HOSTS[0]
FOREIGN = "feedface"
THEIRS = Mark(FOREIGN, "1000", 9, "eth1")
THEIR_TAP, THEIR_SPACE, THEIR_DISK = "tap_9_eth1", "ns-dhcp-vlan777", f"{IMAGES}/theirs_img.qcow2"
THEIR_UUID = machine_uuid(FOREIGN, 9)
THEIR_METER, STRANGE_METER = 9 * 256 + 1, 8 * 256 + 1  # of their device; of none, and a flow of theirs names it
SECRET = "/root/secret"
OWNED = "/root/owned"

MAKE_THEM = f"""
set -eu
echo s3cret-of-root > {SECRET}
ip tuntap add dev {THEIR_TAP} mode tap
ip link set dev {THEIR_TAP} alias {THEIRS}
ovs-vsctl add-port br-int {THEIR_TAP} -- set Port {THEIR_TAP} tag=777 'external_ids:cloudrepo="{THEIRS}"'
ip netns add {THEIR_SPACE}
ip -n {THEIR_SPACE} link set dev lo alias cloudrepo/{FOREIGN}/1000/-/777
iptables -N CR-{FOREIGN}-FORWARD
iptables -A FORWARD -j CR-{FOREIGN}-FORWARD
ovs-ofctl -O OpenFlow13 add-flow br-int cookie=0x{FOREIGN}00000001,priority=7,in_port={THEIR_TAP},actions=drop
ovs-ofctl -O OpenFlow13 add-meter br-int meter={THEIR_METER},kbps,bands=type=drop,rate=7000
ovs-ofctl -O OpenFlow13 add-meter br-int meter={STRANGE_METER},kbps,bands=type=drop,rate=8000
ovs-ofctl -O OpenFlow13 add-flow br-int \
  cookie=0x{FOREIGN}00000002,priority=8,in_port={THEIR_TAP},actions=meter:{STRANGE_METER},NORMAL
mkdir -p {IMAGES}/.cloudrepo-{FOREIGN}/vm-9
echo theirs > {THEIR_DISK}
ln {THEIR_DISK} {IMAGES}/.cloudrepo-{FOREIGN}/vm-9/overlay.qcow2
chown ubuntu {THEIR_DISK}
setsid python3 -c 'import time; time.sleep(1000)' {THEIR_UUID} >/dev/null 2>&1 < /dev/null &
echo $! > /root/their-pid
"""
TAKE_THEM = f"""
kill "$(cat /root/their-pid)"
ovs-vsctl del-port br-int {THEIR_TAP}
ovs-ofctl -O OpenFlow13 del-flows br-int cookie=0x{FOREIGN}00000001/-1
ovs-ofctl -O OpenFlow13 del-flows br-int cookie=0x{FOREIGN}00000002/-1
ovs-ofctl -O OpenFlow13 del-meter br-int meter={THEIR_METER}
ovs-ofctl -O OpenFlow13 del-meter br-int meter={STRANGE_METER}
ip link delete dev {THEIR_TAP}
ip netns delete {THEIR_SPACE}
iptables -D FORWARD -j CR-{FOREIGN}-FORWARD
iptables -X CR-{FOREIGN}-FORWARD
rm -r {THEIR_DISK} {IMAGES}/.cloudrepo-{FOREIGN} {SECRET} /root/their-pid
"""
PICTURE = f"""
cat {SECRET}; stat -c '%a %U %Y %s %i' {SECRET} /etc/shadow /etc/passwd {HELPER} {THEIR_DISK} /etc/cloudrepo/helper.d/*
ls -a /root /etc/sudoers.d /etc/cloudrepo/helper.d {IMAGES}/.cloudrepo-{FOREIGN}/vm-9
ip -d link show dev {THEIR_TAP}; ip -n {THEIR_SPACE} link; ip -br address
ovs-vsctl --columns=name,tag,external_ids,trunks list Port {THEIR_TAP} mgmt 2>/dev/null || true
ovs-vsctl --columns=name,tag,external_ids,trunks list Port {THEIR_TAP}
ovs-ofctl -O OpenFlow13 --no-stats dump-flows br-int cookie=0x{FOREIGN}00000000/0xffffffff00000000
ovs-ofctl -O OpenFlow13 dump-meters br-int
iptables-save | grep -v '^[#:]' ; kill -0 "$(cat /root/their-pid)" && echo lives
"""


@dataclass
class Thief:
    """What somebody with the key has: a shell as the account, and the helper."""

    cluster: Cluster
    installation: str
    run: str
    store: str
    said: list[dict[str, Any]] = field(default_factory=list)

    def shell(self, line: str) -> str:
        """Both outputs of a shell line as the account, and its status."""
        done = self.cluster.api.executor.execute_direct(HOST, line)
        return f"{done.stdout}{done.stderr}[{done.returncode}]"

    def send(self, message: bytes) -> list[dict[str, Any]]:
        """What the helper says to a message."""
        stream = self.cluster.api.executor.transport.open_message(HOST, message)
        out = b""
        try:
            while (parts := stream.receive(30)) is not None:
                out += parts[0]
                if b'"event":"done"' in out.replace(b" ", b"") or b'"refused"' in out or b'"crashed"' in out:
                    break
        finally:
            stream.close()
        return [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]

    def ask(self, *acts: Act | dict[str, Any], **more: Any) -> str:
        """Have the helper do acts one after another: everything it says, as one text."""
        plan: dict[str, Any] = {**Plan(installation=self.installation).to_json(), "environment": {}, **more}
        steps = [
            {"name": str(n), "label": f"try {n}", **(act if isinstance(act, dict) else act.to_json())}
            for n, act in enumerate(acts)
        ]
        plan["stages"] = [{"name": "s", "parallel": 1, "gate": "", "steps": steps}]
        return json.dumps(self.send(encode("runner", plan, has_helper=True)))


@pytest.fixture(scope="module")
def thief(module_clusters: Callable[..., Cluster]) -> Iterator[Thief]:
    cluster = module_clusters(host={"privilege": "helper"})
    cluster.host(HOST, "sh", "-c", MAKE_THEM)
    installation = cluster.api.site.installation
    one = Thief(cluster, installation, run_root(installation), f"{IMAGES}/.cloudrepo-{installation}")
    made = one.ask(
        MakeDir(path=one.store, mode=0o755),
        MakeDir(path=f"{one.store}/upload", mode=0o700, user="ubuntu"),
        MakeDir(path=f"{IMAGES}/base", mode=0o755),
        MakeDir(path=f"{one.store}/vm-7"),
        MakeDir(path=f"{one.run}/vm-7", mode=0o700, user="ubuntu"),
        MakeDir(path=f"{one.run}/dhcp-777", mode=0o755),
        WriteFile(path=f"{one.run}/vm-7/mark", text=f"{mark_of(one)}\n{machine_uuid(installation, 7)}\n"),
    )
    assert '"failed": null' in made, made  # the way that all the others take is open
    yield one
    one.ask(Remove(path=f"{one.run}/vm-7", within=one.run, tree=True))
    cluster.host(HOST, "sh", "-c", f"{TAKE_THEM} rm -rf {one.store} {one.run}")


def mark_of(thief: Thief) -> Mark:
    return Mark(thief.installation, "1000", 7, "eth1")


def words(*given: str, stdin: str = "", user: str = "") -> Run:
    return Run(words=given, stdin=stdin, user=user)


def machine(thief: Thief, **swapped: str) -> Run:
    """A machine's command line with words of it swapped, run as root unless said otherwise."""
    given = "qemu-system-x86_64 -S -nodefaults -no-user-config -sandbox SANDBOX -uuid UUID -drive DRIVE MORE MORE2"
    known = {
        "SANDBOX": "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "UUID": machine_uuid(thief.installation, 7),
        "DRIVE": f"file={IMAGES}/x_img.qcow2,format=qcow2,if=virtio",
        "MORE": "-vga",
        "MORE2": "std",
        "user": "ubuntu",
        **swapped,
    }
    return words(*(known.get(word, word) for word in given.split()), user=known["user"])


def escapes(thief: Thief) -> dict[str, list[Act | dict[str, Any]]]:
    """What is asked of the helper; each must be refused, and leave everything as it was."""
    run, store, installation = thief.run, thief.store, thief.installation
    conf = f"{run}/dhcp-777/dnsmasq.conf"
    owned = f"#!/bin/sh\ntouch {OWNED}\n"
    tap = f"tap_7_eth1 type=internal -- add-port br-int {THEIR_TAP}"

    def batch(*lines: tuple[str, ...]) -> Run:
        return words("ip", "-batch", "-", stdin=iproute.batch_text(lines))

    def flows(text: str) -> Run:
        return words(*openflow.change("br-int"), stdin=text)

    def rules(*lines: str) -> Run:
        return words(*iptables.restore(), stdin="\n".join(("*filter", *lines, "COMMIT")) + "\n")

    return {
        # a program of one's own
        "a shell": [words("sh", "-c", f"touch {OWNED}")],
        "ip netns exec": [words("ip", "netns", "exec", "ns-dhcp-vlan777", "touch", OWNED)],
        "nsenter with another program": [words("nsenter", "--net=/run/netns/ns-dhcp-vlan777", "--", "touch", OWNED)],
        "dnsmasq --dhcp-script": [words("dnsmasq", f"--conf-file={conf}", f"--dhcp-script={OWNED}")],
        "dnsmasq --conf-script": [
            words("nsenter", "--net=/run/netns/ns-dhcp-vlan777", "--", "dnsmasq", f"--conf-script=touch {OWNED}")
        ],
        "dhcp-script in the file": [WriteFile(path=conf, text=f"port=0\ndhcp-script={OWNED}\n", mode=0o644)],
        "conf-file elsewhere": [words("dnsmasq", f"--conf-file={run}/vm-7/dnsmasq.conf")],
        "iptables --modprobe": [words("iptables", f"--modprobe={OWNED}", "-t", "raw", "-L")],
        "iptables-restore --modprobe": [
            words("iptables-restore", f"--modprobe={OWNED}", "--noflush", "--wait", "10", stdin="*raw\nCOMMIT\n")
        ],
        "tcpdump -z": [words("tcpdump", "-z", OWNED, "-G", "1", "-w", "/root/x", "-i", "lo")],
        "ovs-vsctl to another database": [words("ovs-vsctl", "--db=exec:touch", "--timeout=20", "--", "show")],
        "python as root": [words("python3", "-c", f"open({OWNED!r}, 'w')")],
        "grep of a secret": [words("grep", "-q", "s3cr.t", "--", SECRET)],
        "a spawned shell": [Spawn(words=("sh", "-c", owned), log=f"{run}/vm-7/qemu.log", user="ubuntu")],
        # the emulator
        "qemu as root": [machine(thief, user="root")],
        "qemu -monitor exec": [machine(thief, MORE="-monitor", MORE2=f"exec:touch {OWNED}")],
        "qemu -drive of a secret": [machine(thief, DRIVE=f"file={SECRET},format=raw,if=virtio")],
        "qemu -device of the host": [machine(thief, MORE="-device", MORE2="vfio-pci,host=00:01.0")],
        "qemu -netdev with a script": [
            machine(thief, MORE="-netdev", MORE2=f"tap,id=eth1,ifname=tap_7_eth1,script={OWNED},downscript=no")
        ],
        "qemu without its sandbox": [machine(thief, SANDBOX="off")],
        "qemu -runas": [machine(thief, MORE="-runas", MORE2="root")],
        "QMP migrate exec:": [
            Qmp(
                socket=f"{run}/vm-7/qmp.sock",
                commands=({"execute": "migrate", "arguments": {"uri": f"exec:touch {OWNED}"}},),
                expect_uuid=machine_uuid(installation, 7),
            )
        ],
        "a disk of another installation": [
            Spawn(
                words=machine(thief, DRIVE=f"file={THEIR_DISK},format=qcow2,if=virtio").words,
                log=f"{run}/vm-7/qemu.log", user="ubuntu", pid_file=f"{run}/vm-7/pid",
            )
        ],
        # names that are none
        "a name with an option": [words(*ovs.transaction("br-int"), "--", "--if-exists", "del-port", "--all")],
        "a name with more words": [words(*ovs.transaction("br-int"), "--", "--may-exist", "add-port", "br-int", tap)],
        "a line break in a name": [
            words("ip", "-batch", "-", stdin="link set dev tap_7_eth1\nlink delete dev mgmt up\n")
        ],
        "a device that is not ours by name": [batch(("link", "delete", "dev", "eth0"))],
        "..": [Remove(path=f"{run}/vm-7/../../sudo", within=run, tree=True)],
        ".. in a file's name": [WriteFile(path=f"{IMAGES}/base/../../../etc/cron.d/x.json", text="{}", mode=0o644)],
        "another place": [MakeDir(path="/etc/cron.d/vm-7", mode=0o700, user="ubuntu")],
        "a mark file elsewhere": [WriteFile(path="/root/mark", text=f"{mark_of(thief)}\n")],
        "a mark of another installation": [
            WriteFile(path=f"{run}/vm-7/mark", text=f"{THEIRS}\n{THEIR_UUID}\n"),
        ],
        "a directory of another installation": [MakeDir(path=f"{run_root(FOREIGN)}/vm-1", mode=0o700, user="ubuntu")],
        "a file given away": [PublishFile(draft=SECRET, path=f"{IMAGES}/x_img.qcow2", user="ubuntu")],
        "a file as somebody else": [words("tail", "-c", "100", "--", f"{run}/vm-7/qemu.log", user="root")],
        "a file that is read": [ReadFile(path="/etc/shadow")],
        "a file that is measured": [Checksum(path="/etc/shadow", length=1)],
        "a file that is looked for": [RequireFile(path="/root/.ssh/id_ed25519")],
        "a file that is looked at": [ObserveFiles(paths=(SECRET,))],
        "a namespace that is listened in": [Listen(places={"elsewhere": ("lo",)}, run="00" * 8)],
        # symlinks, where the account may make them
        "an upload that is a link, measured": [Checksum(path=f"{store}/upload/{'0' * 16}.part")],
        "an upload that is a link, adopted": [
            AdoptFile(
                draft=f"{store}/upload/{'0' * 16}.part", path=f"{IMAGES}/base/{'0' * 16}-x", owner="root",
                mode=0o444, mtime_s=1, sha256="0" * 64,
            )
        ],
        "an upload that is a link, inspected": [
            words(*qemu_img.info(f"{store}/upload/{'0' * 16}.part"), user="ubuntu"),
        ],
        "a socket that is a link": [
            Qmp(socket=f"{run}/vm-7/qmp.sock", expect_uuid=machine_uuid(installation, 7), timeout_s=1)
        ],
        # what is foreign
        "their device": [batch(("link", "delete", "dev", THEIR_TAP))],
        "their device, renamed": [batch(("link", "set", "dev", THEIR_TAP, "alias", str(mark_of(thief))))],
        "their port": [words(*ovs.transaction("br-int", remove=[THEIR_TAP]))],
        "their port's tag": [
            words(*ovs.transaction("br-int", add=[Port(device=THEIR_TAP, tag=700, mark=mark_of(thief))]))
        ],
        "their namespace": [batch(("netns", "delete", THEIR_SPACE))],
        "into their namespace": [
            words("ip", "-n", THEIR_SPACE, "-batch", "-", stdin="link set dev lo up\n"),
        ],
        "their flows": [flows(f"delete cookie=0x{FOREIGN}00000001/-1\n")],
        "a flow at their port": [
            flows(f"add cookie=0x{installation}00000001,priority=9,in_port={THEIR_TAP},actions=drop\n")
        ],
        "their meter": [words(*openflow.delete_meter("br-int", THEIR_METER))],
        "their meter's rate": [
            words(*openflow.set_meter("br-int", THEIR_METER, *openflow.limit(1), is_new=False)),
        ],
        "a meter that their flow names": [words(*openflow.delete_meter("br-int", STRANGE_METER))],
        "a meter of no device": [words(*openflow.set_meter("br-int", 6 * 256, *openflow.limit(1), is_new=True))],
        "a flow by their meter": [
            flows(f"add cookie=0x{installation}00000001,priority=9,in_port=tap_7_eth1,actions=meter:{THEIR_METER}\n")
        ],
        "a flow for all": [flows(f"add cookie=0x{installation}00000001,priority=9,ip,actions=drop\n")],
        "their chain": [rules(f"-X CR-{FOREIGN}-FORWARD")],
        "a rule outside of chains": [rules("-A FORWARD -j ACCEPT")],
        "all rules": [words("iptables-restore", "--wait", "10", stdin="*filter\nCOMMIT\n")],
        "their disk": [Remove(path=THEIR_DISK, within=IMAGES)],
        "their disk, adopted by a mark": [
            WriteFile(
                path=f"{store}/vm-7/mark.json", text=json.dumps({"mark": str(mark_of(thief)), "disk": THEIR_DISK})
            ),
            PublishFile(draft=THEIR_DISK, path=f"{store}/vm-7/overlay.qcow2", user="ubuntu"),
        ],
        "their process": [
            StopProcess(
                pid_file="", token=THEIR_UUID, start=0,
                pid=int(thief.cluster.host(HOST, "cat", "/root/their-pid")),
            )
        ],
        "forwarding of another device": [words("sysctl", "-qw", "net/ipv4/conf/lo/forwarding=1")],
        # the acts themselves
        "an act that is none": [{"act": "exec", "timeout_s": 1, "words": ["sh"]}],
        "a field that is none": [{**words("nproc").to_json(), "preexec": "sh"}],
    }  # fmt: skip


LINKS = """
ln -sfn /etc/shadow {store}/upload/0000000000000000.part
ln -sfn /run/openvswitch/db.sock {run}/vm-7/qmp.sock
ln -sfn /run/openvswitch/db.sock {run}/vm-7/serial.sock
rm -f {run}/vm-7/mark; ln -s /etc/shadow {run}/vm-7/mark
ln -sfn {secret} {run}/vm-7/qemu.log
ln -sfn {secret} {run}/vm-7/pid
"""


@pytest.mark.cost(seconds=45)
def test_every_listed_escape_fails_and_changes_nothing(thief: Thief) -> None:
    thief.shell(LINKS.format(run=thief.run, store=thief.store, secret=SECRET))
    assert "shadow" in thief.shell(f"readlink {thief.run}/vm-7/mark")  # else nothing is tried
    before = thief.cluster.host(HOST, "sh", "-c", PICTURE)
    tried = escapes(thief)
    assert len(tried) >= 20
    worked = {}
    for name, acts in tried.items():
        said = thief.ask(*acts)
        is_refused = '"event": "refused"' in said or ('"failed": "' in said and '"event": "done"' in said)
        if not is_refused or "root:" in said or "s3cret" in said:
            worked[name] = said
    assert worked == {}
    assert thief.cluster.host(HOST, "sh", "-c", PICTURE) == before


@pytest.mark.cost(seconds=8)
def test_what_is_looked_at_as_root_follows_no_link(thief: Thief) -> None:
    """The account owns the directory of its machine, and may put anything there."""
    said = thief.ask(
        ObserveMachines(root=thief.run, socket="qmp.sock"),
        words("ip", "-V"),
        words("qemu-system-x86_64", "--version"),
    )
    assert '"failed": null' in said and '\\"mark\\":null' in said, said
    assert "root:" not in said
    socket = {"socket": f"{thief.run}/vm-7/serial.sock"}
    assert thief.send(encode("relay", socket, has_helper=True))[0]["event"] == "refused"
    for path in (
        "/run/openvswitch/db.sock",
        f"{thief.run}/vm-7/../vm-7/serial.sock",
        f"{run_root(FOREIGN)}/vm-9/agent.sock",
    ):
        assert thief.send(encode("relay", {"socket": path}, has_helper=True))[0]["event"] == "refused"


@pytest.mark.cost(seconds=10)
def test_sudo_runs_the_helper_alone_and_the_helper_runs_no_program(thief: Thief) -> None:
    listed = thief.shell("sudo -n -l")
    assert listed.index("NOPASSWD: ALL") < listed.index("!ALL") < listed.rindex(HELPER)  # the last that fits counts
    message = base64.b64encode(encode("runner", {**Plan(installation=thief.installation).to_json(), "environment": {}}))
    for line in (
        "sudo -n true",
        "sudo -n -u admin true",
        f"sudo -n {HELPER} --help",
        f"sudo -n {shlex.join(PYTHON[:3])} -c pass",
        f"sudo -n PYTHONPATH=/tmp {HELPER} < /dev/null",
        f"sudo -n -E {HELPER} < /dev/null; false",
        f"echo x >> {HELPER}",
        f"mv {HELPER} {HELPER}.old",
        "echo x > /etc/cloudrepo/helper.d/x.json",
        f"cd {IMAGES} && mkdir x",
    ):
        assert not thief.shell(line).endswith("[0]"), line
    # the runner of the documented way, in the place of a plan
    said = thief.shell(f"echo {message.decode()} | base64 -d | sudo -n {HELPER}")
    assert "takes plans, not programs" in said
    # variables, whether sudo lets them through or a plan brings them
    spy = "/tmp/spy"
    module = f"open('{OWNED}', 'w')"
    thief.shell(f'mkdir -p {spy}; echo "{module}" > {spy}/json.py; cp {spy}/json.py {spy}/sitecustomize.py')
    thief.shell(
        f"cd {spy} && PYTHONPATH={spy} PYTHONSTARTUP={spy}/json.py PYTHONHOME={spy} sudo -n {HELPER} < /dev/null"
    )
    assert "a plan brings no variables" in thief.ask(words("nproc"), environment={"PATH": spy})
    assert "is not" in thief.ask(words("nproc"), installation=FOREIGN) or "not prepared" in thief.ask(
        words("nproc"), installation=FOREIGN
    )
    assert "fence directory" in thief.ask(words("nproc"), operation=1, fence_dir="/root")
    thief.shell(f"rm -r {spy}")
    assert thief.cluster.lab.host(HOST, ["test", "-e", OWNED]).returncode != 0


@pytest.mark.cost(seconds=6)
def test_another_version_and_an_unprepared_host_say_what_to_do(thief: Thief) -> None:
    """The orchestrator was updated and the host was not; the host was never prepared for this installation."""
    host = thief.cluster.host
    text = host(HOST, "cat", HELPER)
    assert helper_version() in text
    host(HOST, "sh", "-c", f"sed -i s/{helper_version()}/{'0' * 16}/ {HELPER}")
    try:
        plan = Plan(installation=thief.installation, observe=(Step(name="n", label="n", act=words("nproc")),))
        thief.cluster.api.executor.close()
        with pytest.raises(Exception, match="orchestrator's is") as caught:
            thief.cluster.api.executor.run_plan(HOST, plan)
        assert f"`./cloud worker harden {HOST}` again" in caught.value.remedy  # type: ignore[attr-defined]
        done, answer = thief.cluster.api.harden_worker(HOST, admin="admin")
        assert (done, answer["changed"]) == (True, [f"wrote {HELPER}"])
    finally:
        host(HOST, "sh", "-c", f"sed -i s/{'0' * 16}/{helper_version()}/ {HELPER}")
    assert thief.cluster.api.executor.run_plan(HOST, plan).observed["n"].status == 0
    with pytest.raises(Exception, match="not prepared") as caught:
        thief.cluster.api.executor.run_plan(HOST, Plan(installation="0badc0de"))
    assert "worker harden" in caught.value.remedy  # type: ignore[attr-defined]


@pytest.mark.cost(seconds=8)
def test_hardening_says_what_it_changed_and_can_be_repeated_and_undone(thief: Thief) -> None:
    api, host = thief.cluster.api, thief.cluster.host
    other = HOSTS[1]
    everything = ("sh", "-c", "cd /etc; find cloudrepo sudoers.d /usr/local/lib -type f | sort | xargs sha256sum")
    before = host(other, *everything)
    assert api.harden_worker(other, admin="admin") == (True, {"changed": [], "warnings": []})
    assert host(other, *everything) == before
    done, message = api.harden_worker(other)  # the account itself is root no more
    assert not done and f"`./cloud worker harden {other} --admin USER`" in message.hint
    done, answer = api.harden_worker(other, admin="admin", undo=True)
    assert done and f"removed /etc/cloudrepo/helper.d/{thief.installation}.json" in answer["changed"]
    assert "cloudrepo" not in host(other, "sh", "-c", "ls /etc /etc/sudoers.d /usr/local/lib")
    assert thief.cluster.api.executor.execute_direct(other, "sudo -n true").returncode == 0  # as it was before
    done, answer = api.harden_worker(other, admin="admin")
    assert done and f"made /etc/cloudrepo/helper.d/{thief.installation}.json" in answer["changed"]
    assert host(other, *everything) == before


@pytest.mark.cost(seconds=2)
def test_the_thief_still_has_what_the_orchestrator_has(thief: Thief) -> None:
    """So that the refusals above are not those of a helper that refuses everything."""
    stage = Stage(name="s", steps=(Step(name="n", label="n", act=words("nproc")),))
    assert thief.cluster.api.executor.run_plan(HOST, Plan(installation=thief.installation, stages=(stage,))).ok
