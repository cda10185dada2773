"""What may be wrong with hosts before a class, each put wrong on the lab and taken back. No guests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from lab.cluster import Lab
from lab.guestless import FIRST_IN_PATH
from lab.namespaces import Room
from lab.record import LAB, Record
from on_lab.cluster import HOSTS, Cluster
from on_lab.seeds import ROGUE, ROGUE_ENDS

FIRST, SECOND, THIRD = HOSTS
DISK = "4g"  # of which nothing is taken before it is written to
VLAN_105 = ("-p", "802_1Q", "--vlan-id", "105")
UPLINK = ("ip", "link", "set", "dev", "eth1")


@dataclass(frozen=True, kw_only=True)
class Sickness:
    """A fault.

    Attributes:
        caught: seeds it, and takes it back.
        code: of the one finding that is expected.
        says: in its text or evidence.
        remedy: in its remedy.
        hosts: it is about these.
    """

    caught: Callable[[Cluster], AbstractContextManager[None]]
    code: str
    says: str
    remedy: str
    hosts: tuple[str, ...] = ()


def switch(lab: Lab) -> Room:
    """The room with the switches between the hosts."""
    record = Record.load(lab.folder.record)
    room = record.room(LAB) if record is not None else None
    assert room is not None
    return room


def _by(wrong: tuple[str, ...], right: tuple[str, ...], ip: str) -> Callable[[Cluster], AbstractContextManager[None]]:
    """A fault of one host: a command, and one that takes it back."""

    @contextmanager
    def caught(cluster: Cluster) -> Iterator[None]:
        cluster.host(ip, *wrong)
        try:
            yield
        finally:
            cluster.host(ip, *right)

    return caught


@contextmanager
def dropped(cluster: Cluster, *what: str) -> Iterator[None]:
    """The switch drops some of the frames that it should forward, by words for `ebtables`."""
    room, rule = switch(cluster.lab), ("FORWARD", *what, "-j", "DROP")
    room.run(["ebtables", "-A", *rule], net_only=True, check=True)
    try:
        yield
    finally:
        room.run(["ebtables", "-D", *rule], net_only=True, check=True)


@contextmanager
def narrow_switch(cluster: Cluster) -> Iterator[None]:
    """A port of the switch has a smaller MTU than the hosts."""
    port = ["ip", "link", "set", "dev", "trunk3", "mtu"]
    switch(cluster.lab).run([*port, "1400"], net_only=True, check=True)
    try:
        yield
    finally:
        switch(cluster.lab).run([*port, "1500"], net_only=True, check=True)


def _put(ip: str, path: str, text: str, mode: str) -> Callable[[Cluster], AbstractContextManager[None]]:
    """A file that is put on a host, and removed again; sshd reads its settings again before and after."""

    @contextmanager
    def caught(cluster: Cluster) -> Iterator[None]:
        words = 'mkdir -p "${1%/*}" && cat > "$1" && chmod "$2" "$1"'
        cluster.host(ip, "sh", "-ec", words, "sh", path, mode, input=text)
        _new_logins(cluster, ip)
        try:
            yield
        finally:
            cluster.host(ip, "rm", path)
            _new_logins(cluster, ip)

    return caught


def _new_logins(cluster: Cluster, ip: str) -> None:
    """sshd reads its settings again, and listens again: it writes the file with its number after that."""
    words = 'pid=$(cat "$1"); rm "$1"; kill -HUP "$pid"; until [ -s "$1" ]; do sleep 0.02; done'
    cluster.host(ip, "timeout", "60", "sh", "-ec", words, "sh", "/run/sshd.pid")
    cluster.api.executor.drop(ip)


def _without_rules(ip: str) -> Callable[[Cluster], AbstractContextManager[None]]:
    """No rule of sudo is left for the account."""

    @contextmanager
    def caught(cluster: Cluster) -> Iterator[None]:
        cluster.host(ip, "sh", "-ec", "mkdir /root/rules; mv /etc/sudoers.d/*ubuntu /root/rules")
        cluster.api.executor.drop(ip)
        try:
            yield
        finally:
            cluster.host(ip, "sh", "-ec", "mv /root/rules/* /etc/sudoers.d; rmdir /root/rules")
            cluster.api.executor.drop(ip)

    return caught


@contextmanager
def full_disk(cluster: Cluster) -> Iterator[None]:
    """The disk of the images is as small as what is in it."""
    used = cluster.host(SECOND, "df", "--output=used", "-B1", cluster.images).split()[-1]
    cluster.host(SECOND, "mount", "-o", f"remount,size={used}", cluster.images)
    try:
        yield
    finally:
        cluster.host(SECOND, "mount", "-o", f"remount,size={DISK}", cluster.images)


@contextmanager
def own_disks(cluster: Cluster) -> Iterator[None]:
    """The images of each host are on an empty disk of their own, which nothing is left of."""
    with ExitStack() as stack:
        for ip in HOSTS:
            cluster.host(ip, "mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "images", cluster.images)
            stack.callback(cluster.host, ip, "umount", cluster.images)
            stack.callback(cluster.api.executor.drop, ip)
        yield


@contextmanager
def second_server(cluster: Cluster) -> Iterator[None]:
    """Somebody's DHCP server on a VLAN of ours, behind a bridge that is closed, as it is where slices run."""
    closed = "ovs-vsctl set bridge br-int fail_mode=secure; "
    heard = "ovs-ofctl add-flow br-int cookie=0x77,priority=1,in_port=eth1,actions=NORMAL"
    cluster.host(THIRD, "sh", "-ec", closed + ROGUE + heard, "sh", "120", "10.77.0")
    try:
        yield
    finally:
        cluster.host(THIRD, "sh", "-ec", ROGUE_ENDS + "ovs-vsctl clear bridge br-int fail_mode")


@contextmanager
def damaged_image(cluster: Cluster, ip: str = FIRST, *, is_mended: bool = False) -> Iterator[None]:
    """One byte of a base image is another; its times are as they were, and again at the end unless it `is_mended`."""
    flip = (
        "import os, sys; f = open(sys.argv[1], 'r+b'); was = os.fstat(f.fileno()); f.seek(4096); b = f.read(1); "
        "f.seek(4096); f.write(bytes([b[0] ^ 1])); f.close(); "
        "os.utime(sys.argv[1], ns=(was.st_atime_ns, was.st_mtime_ns))"
    )
    (path,) = cluster.host(ip, "sh", "-c", f"ls {cluster.images}/base/*cirros*.img").split()
    cluster.host(ip, "/usr/bin/python3", "-c", flip, path)
    try:
        yield
    finally:
        if not is_mended:
            cluster.host(ip, "/usr/bin/python3", "-c", flip, path)


SICKNESSES: dict[str, Sickness] = {
    "VLAN 105 is dropped on the trunk": Sickness(
        caught=lambda cluster: dropped(cluster, *VLAN_105),
        code="hosts.vlan",
        says="frames in VLAN 105 are lost between all hosts",
        remedy="switchport trunk allowed vlan add 105",
        hosts=HOSTS,
    ),
    "VLAN 105 is dropped at one port": Sickness(
        caught=lambda cluster: dropped(cluster, "-i", "trunk2", *VLAN_105),
        code="hosts.vlan",
        says=f"frames in VLAN 105 are lost from {SECOND}",
        remedy=f"the switch port of {SECOND}",
        hosts=(SECOND,),
    ),
    "VLAN 105 is dropped between two hosts": Sickness(
        caught=lambda cluster: dropped(cluster, "-i", "trunk2", "-o", "trunk3", *VLAN_105),
        code="hosts.vlan",
        says=f"frames in VLAN 105 are lost from {SECOND} to {THIRD}",
        remedy="the switch ports of the hosts",
        hosts=(SECOND, THIRD),
    ),
    "bridges' own frames are dropped": Sickness(
        caught=lambda cluster: dropped(cluster, "-o", "trunk1", "-d", "03:43:52:00:00:00"),
        code="hosts.control",
        says=f"are lost to {FIRST}",
        remedy="forward multicast that nobody asked for",
        hosts=(FIRST,),
    ),
    "the switch has a smaller MTU": Sickness(
        caught=narrow_switch,
        code="hosts.mtu",
        says=f"frames of 1500 bytes are lost between {THIRD} and all others, shorter ones pass",
        remedy="1522 bytes",
        hosts=(THIRD,),
    ),
    "MTU 1400 on a host": Sickness(
        caught=_by(
            ("ip", "link", "set", "dev", "eth1", "mtu", "1400"),
            ("ip", "link", "set", "dev", "eth1", "mtu", "1500"),
            SECOND,
        ),
        code="hosts.mtu",
        says="MTU 1400",
        remedy="sudo ip link set dev eth1 mtu 1500",
        hosts=(SECOND,),
    ),
    "the uplink is switched off": Sickness(
        caught=_by((*UPLINK, "down"), (*UPLINK, "up"), FIRST),
        code="hosts.uplink.down",
        says="the uplink eth1 of br-int is switched off",
        remedy="sudo ip link set dev eth1 up",
        hosts=(FIRST,),
    ),
    "the uplink is no port of the bridge": Sickness(
        caught=_by(("ovs-vsctl", "del-port", "br-int", "eth1"), ("ovs-vsctl", "add-port", "br-int", "eth1"), THIRD),
        code="hosts.uplink",
        says="br-int has no uplink",
        remedy="sudo ovs-vsctl add-port br-int DEVICE",
        hosts=(THIRD,),
    ),
    "MaxSessions 1": Sickness(
        caught=_put(FIRST, "/etc/ssh/sshd_config.d/few.conf", "MaxSessions 1\n", "644"),
        code="hosts.sshd.maxsessions",
        says="MaxSessions 1",
        remedy="sudo systemctl reload ssh",
        hosts=(FIRST,),
    ),
    "MaxStartups 2": Sickness(
        caught=_put(SECOND, "/etc/ssh/sshd_config.d/few.conf", "MaxStartups 2\n", "644"),
        code="hosts.sshd.maxstartups",
        says="MaxStartups 2",
        remedy="MaxStartups 10:30:100",
        hosts=(SECOND,),
    ),
    "a clock 90 s off": Sickness(
        caught=_put(THIRD, f"{FIRST_IN_PATH}/date", "#!/bin/sh\nexec /usr/bin/date -d '+90 seconds' \"$@\"\n", "755"),
        code="hosts.clock",
        says=" s ahead of that of this machine",
        remedy="timedatectl set-ntp true",
        hosts=(THIRD,),
    ),
    "a second DHCP server": Sickness(
        caught=second_server,
        code="hosts.dhcp",
        says="answers on VLAN 120",
        remedy=f"it is {THIRD} rogue0 in namespace rogue",
        hosts=(THIRD,),
    ),
    "a full disk": Sickness(
        caught=full_disk,
        code="hosts.disk.space",
        says="is full",
        remedy="images.base_dir to a larger disk",
        hosts=(SECOND,),
    ),
    "no sudo": Sickness(
        caught=_without_rules(SECOND),
        code="hosts.privilege",
        says="sudo asks for a password",
        remedy="echo 'ubuntu ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ubuntu",
        hosts=(SECOND,),
    ),
    "a damaged base image": Sickness(
        caught=damaged_image,
        code="hosts.image.damaged",
        says="the base image of cirros, ubuntu is damaged",
        remedy="`./cloud doctor --fix` copies it again",
        hosts=(FIRST,),
    ),
}
