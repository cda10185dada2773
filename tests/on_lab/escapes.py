"""What a thief of the key asks of the helper: tables of named cases. Each must be refused, and leave no trace."""

from __future__ import annotations

import json
from typing import Any

from cloudrepo.commands import iproute, iptables, openflow, ovs, qemu_img
from cloudrepo.naming import machine_uuid, run_root
from cloudrepo.plan import (
    Act,
    AdoptFile,
    Checksum,
    MakeDir,
    ObserveFiles,
    PublishFile,
    Qmp,
    ReadFile,
    Remove,
    RequireFile,
    Run,
    Spawn,
    StopProcess,
    WriteFile,
)
from cloudrepo.resources import Port
from cloudrepo.wire_acts import Listen
from on_lab.hardened import IMAGES
from on_lab.thief import (
    FOREIGN,
    HOST,
    OWNED,
    SECRET,
    STRANGE_METER,
    THEIR_DISK,
    THEIR_METER,
    THEIR_SPACE,
    THEIR_TAP,
    THEIR_UUID,
    THEIRS,
    Thief,
    machine,
    mark_of,
    words,
)

Cases = dict[str, list[Act | dict[str, Any]]]
TAGGED = f"push_vlan:0x8100,set_field:{0x1000 + 777}->vlan_vid"


def _batch(*lines: tuple[str, ...]) -> Run:
    return words("ip", "-batch", "-", stdin=iproute.batch_text(lines))


def _flows(text: str) -> Run:
    return words(*openflow.change("br-int"), stdin=text)


def _flow(thief: Thief, rest: str) -> Run:
    return _flows(f"add cookie=0x{thief.installation}00000001,priority=9,{rest}\n")


def _rules(*lines: str) -> Run:
    return words(*iptables.restore(), stdin="\n".join(("*filter", *lines, "COMMIT")) + "\n")


def programs(thief: Thief) -> Cases:
    """A program of one's own."""
    run = thief.run
    conf = f"{run}/dhcp-777/dnsmasq.conf"
    return {
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
        "a spawned shell": [
            Spawn(words=("sh", "-c", f"#!/bin/sh\ntouch {OWNED}\n"), log=f"{run}/vm-7/qemu.log", user="ubuntu")
        ],
    }


def emulators(thief: Thief) -> Cases:
    """A machine that is more than one."""
    run = thief.run
    return {
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
                expect_uuid=machine_uuid(thief.installation, 7),
            )
        ],
        "a disk of another installation": [
            Spawn(
                words=machine(thief, DRIVE=f"file={THEIR_DISK},format=qcow2,if=virtio").words,
                log=f"{run}/vm-7/qemu.log",
                user="ubuntu",
                pid_file=f"{run}/vm-7/pid",
            )
        ],
    }


def names(thief: Thief) -> Cases:
    """Names that are none."""
    tap = f"tap_7_eth1 type=internal -- add-port br-int {THEIR_TAP}"
    return {
        "a name with an option": [words(*ovs.transaction("br-int"), "--", "--if-exists", "del-port", "--all")],
        "a name with more words": [words(*ovs.transaction("br-int"), "--", "--may-exist", "add-port", "br-int", tap)],
        "a line break in a name": [
            words("ip", "-batch", "-", stdin="link set dev tap_7_eth1\nlink delete dev mgmt up\n")
        ],
        "a device that is not ours by name": [_batch(("link", "delete", "dev", "eth0"))],
        "a namespace that is listened in": [Listen(places={"elsewhere": ("lo",)}, run="00" * 8)],
    }


def files(thief: Thief) -> Cases:
    """Files of others, and elsewhere."""
    run = thief.run
    return {
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
    }


def links(thief: Thief) -> Cases:
    """Symlinks, where the account may make them."""
    run = thief.run
    store = thief.store
    return {
        "an upload that is a link, measured": [Checksum(path=f"{store}/upload/{'0' * 16}.part")],
        "an upload that is a link, adopted": [
            AdoptFile(
                draft=f"{store}/upload/{'0' * 16}.part",
                path=f"{IMAGES}/base/{'0' * 16}-x",
                owner="root",
                mode=0o444,
                mtime_s=1,
                sha256="0" * 64,
            )
        ],
        "an upload that is a link, inspected": [
            words(*qemu_img.info(f"{store}/upload/{'0' * 16}.part"), user="ubuntu"),
        ],
        "a socket that is a link": [
            Qmp(socket=f"{run}/vm-7/qmp.sock", expect_uuid=machine_uuid(thief.installation, 7), timeout_s=1)
        ],
    }


def strangers(thief: Thief) -> Cases:
    """What is another installation's."""
    store = thief.store
    return {
        "their device": [_batch(("link", "delete", "dev", THEIR_TAP))],
        "their device, renamed": [_batch(("link", "set", "dev", THEIR_TAP, "alias", str(mark_of(thief))))],
        "their port": [words(*ovs.transaction("br-int", remove=[THEIR_TAP]))],
        "their port's tag": [
            words(*ovs.transaction("br-int", add=[Port(device=THEIR_TAP, tag=700, mark=mark_of(thief))]))
        ],
        "their namespace": [_batch(("netns", "delete", THEIR_SPACE))],
        "into their namespace": [
            words("ip", "-n", THEIR_SPACE, "-batch", "-", stdin="link set dev lo up\n"),
        ],
        "their chain": [_rules(f"-X CR-{FOREIGN}-FORWARD")],
        "a rule outside of chains": [_rules("-A FORWARD -j ACCEPT")],
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
                pid_file="",
                token=THEIR_UUID,
                start=0,
                pid=int(thief.cluster.host(HOST, "cat", "/root/their-pid")),
            )
        ],
        "forwarding of another device": [words("sysctl", "-qw", "net/ipv4/conf/lo/forwarding=1")],
    }


def flows_and_meters(thief: Thief) -> Cases:
    """What frames do on the bridge."""
    return {
        "their flows": [_flows(f"delete cookie=0x{FOREIGN}00000001/-1\n")],
        "a flow at their port": [_flow(thief, f"in_port={THEIR_TAP},actions=drop")],
        "their meter": [words(*openflow.delete_meter("br-int", THEIR_METER))],
        "their meter's rate": [
            words(*openflow.set_meter("br-int", THEIR_METER, *openflow.limit(1), is_new=False)),
        ],
        "a meter that their flow names": [words(*openflow.delete_meter("br-int", STRANGE_METER))],
        "a meter of no device": [words(*openflow.set_meter("br-int", 6 * 256, *openflow.limit(1), is_new=True))],
        "a flow by their meter": [_flow(thief, f"in_port=tap_7_eth1,actions=meter:{THEIR_METER}")],
        "a flow for all": [_flow(thief, "ip,actions=drop")],
        "a flow to the network of the host itself": [
            _flow(thief, "in_port=tap_7_eth1,actions=output:eth1"),
        ],
        "a flow from a device beside the bridge": [_flow(thief, "in_port=eth0,dl_vlan=777,actions=drop")],
        "a flow to the host itself": [_flow(thief, f"in_port=tap_7_eth1,actions={TAGGED},output:br-int")],
        "a flow to a stranger's port": [_flow(thief, f"in_port=tap_7_eth1,actions={TAGGED},output:{THEIR_TAP}")],
    }


def acts(thief: Thief) -> Cases:
    """The acts themselves."""
    return {
        "an act that is none": [{"act": "exec", "timeout_s": 1, "words": ["sh"]}],
        "a field that is none": [{**words("nproc").to_json(), "preexec": "sh"}],
    }


SUBJECTS = (programs, emulators, names, files, links, strangers, flows_and_meters, acts)


def escapes(thief: Thief) -> Cases:
    """All of them."""
    return {name: acts for subject in SUBJECTS for name, acts in subject(thief).items()}
