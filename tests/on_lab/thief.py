"""Somebody with the orchestrator's SSH key, on a host that has the helper; and another installation on that host."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from cloudrepo.host.message import HELPER, encode
from cloudrepo.naming import Mark, machine_uuid
from cloudrepo.plan import Act, Plan, Run
from on_lab.cluster import HOSTS, Cluster
from on_lab.hardened import IMAGES

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
