"""The files that make a host a machine of its own: its /etc, its disks, its facts.

A host sees the machine's programs read-only.  Everything a host can write is a
folder of its own under ``disk/``, so what an orchestrator does there never
reaches the machine, and survives a power failure like a disk does.
"""

import pwd
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from lab.layout import ADMIN_USER, WORKER_USER, Folder, Node, Options
from lab.switch import host_network

_UIDS = {WORKER_USER: 1000, ADMIN_USER: 1001}
_GIB_KB = 1024 * 1024
_SYSTEM_UIDS = range(1000)
_NOBODY_UIDS = range(65533, 65535)

# What the programs of a server read from /etc.  Not everything: the machine's own
# secrets and settings are none of the lab's business.
_FROM_MACHINE = (
    "adduser.conf",
    "alternatives",
    "bash.bashrc",
    "bindresvport.blacklist",
    "debconf.conf",
    "debian_version",
    "default",
    "deluser.conf",
    "dnsmasq.conf",
    "environment",
    "ethertypes",
    "gai.conf",
    "host.conf",
    "inputrc",
    "iproute2",
    "iptables",
    "issue",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libaudit.conf",
    "localtime",
    "login.defs",
    "lsb-release",
    "modprobe.d",
    "mke2fs.conf",
    "nftables.conf",
    "nsswitch.conf",
    "os-release",
    "pam.conf",
    "pam.d",
    "profile",
    "profile.d",
    "protocols",
    "python3",
    "python3.11",
    "python3.12",
    "qemu",
    "rpc",
    "security",
    "services",
    "shells",
    "skel",
    "ssh/moduli",
    "ssh/ssh_config",
    "ssh/sshd_config",
    "sudo.conf",
    "sudo_logsrvd.conf",
    "sudoers",
    "terminfo",
    "timezone",
    "xattr.conf",
)

# The disk's folders with their modes; scripts/host-boot.sh mounts the first words.
_DISK = {
    "etc": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "root": 0o700,
    "srv": 0o755,
    "tmp": 0o1777,
    "usr-local": 0o755,
    "usr-local/bin": 0o755,
    "var": 0o755,
    "var/backups": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/lib/dpkg": 0o755,
    "var/lib/misc": 0o755,
    "var/lib/openvswitch": 0o755,
    "var/log": 0o755,
    "var/log/openvswitch": 0o755,
    "var/mail": 0o2775,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
    "etc/openvswitch": 0o755,
    "etc/ssh": 0o755,
    "etc/ssh/sshd_config.d": 0o755,
    "etc/ssh/ssh_config.d": 0o755,
    "etc/sudoers.d": 0o750,
    "etc/dnsmasq.d": 0o755,
}

# ``nproc`` asks the scheduler, which knows the machine's processors only.
_NPROC = """#!/bin/sh
# The number of cores this host states. The options of the real one are kept.
[ $# -eq 0 ] && exec getconf _NPROCESSORS_ONLN
[ "$*" = --all ] && exec getconf _NPROCESSORS_CONF
exec /usr/bin/nproc "$@"
"""

# A host's disk is a folder of the machine, whose size is the machine's own affair.
_DF = """#!/bin/sh
# Sizes and free space in bytes, no larger than the disk this host states.
[ "$1 $2" = "-B1 --output=size,avail" ] || exec /usr/bin/df "$@"
table=$(/usr/bin/df "$@")
status=$?  # 1 when one of the paths is missing; the others are told all the same
[ -z "$table" ] || echo "$table" | awk -v most={most} '
    NR > 1 {{ for (i = 1; i <= NF; i++) if ($i + 0 > most) $i = most }}
    {{ print }}
'
exit $status
"""


def prepare_host(folder: Folder, node: Node, options: Options, mark: str) -> None:
    """Make a host's disk if it has none, and the facts of its next boot."""
    home = folder.host(node)
    if not (home / "disk").exists():
        _install(folder, node, home)
    _write(home / "disk/usr-local/bin/df", _DF.format(most=options.disk_gb * _GIB_KB * 1024), 0o755)
    allow_everything(home / "disk", options.privilege == "sudo")
    write_facts(folder, node, options, mark)


def allow_everything(disk: Path, is_allowed: bool) -> None:
    """Let the account that logs in to a host be root there, or not."""
    rule = disk / f"etc/sudoers.d/{WORKER_USER}"
    if is_allowed:
        _write(rule, f"{WORKER_USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    else:
        rule.unlink(missing_ok=True)


def _install(folder: Folder, node: Node, home: Path) -> None:
    """Make the disk under another name first: half a disk is never booted."""
    fresh = home / "disk.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for name, mode in _DISK.items():
        path = fresh / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    (fresh / "var/run").symlink_to("/run")
    (fresh / "var/lock").symlink_to("/run/lock")
    _copy_from_machine(fresh / "etc")
    _write_etc(folder, node, fresh / "etc")
    _write_users(folder, fresh)
    _write(fresh / "usr-local/bin/nproc", _NPROC, 0o755)
    fresh.rename(home / "disk")


def _copy_from_machine(etc: Path) -> None:
    for name in _FROM_MACHINE:
        source = Path("/etc", name)
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, etc / name, symlinks=True, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy2(source, etc / name, follow_symlinks=False)


def _write_etc(folder: Folder, node: Node, etc: Path) -> None:
    _write(etc / "hostname", f"{node.hostname}\n")
    _write(etc / "hosts", f"127.0.0.1 localhost\n{node.ip} {node.hostname}\n")
    _write(etc / "resolv.conf", "# The lab has no name server.\n")
    _write(etc / "machine-id", f"{uuid.uuid4().hex}\n")
    (etc / "mtab").symlink_to("../proc/self/mounts")
    _write(etc / f"sudoers.d/{ADMIN_USER}", f"{ADMIN_USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    key = host_key(folder, node)
    for source in (key, key.with_suffix(".pub")):
        shutil.copy2(source, etc / "ssh" / f"ssh_host_ed25519_key{source.suffix}")


def _write_users(folder: Folder, disk: Path) -> None:
    """Keep the machine's system users, leave its people out, and add those of a worker."""
    people = {
        entry.pw_name
        for entry in pwd.getpwall()
        if entry.pw_uid not in _SYSTEM_UIDS and entry.pw_uid not in _NOBODY_UIDS
    }
    passwd, shadow, group = [], [], []
    for entry in pwd.getpwall():
        if entry.pw_name not in people and entry.pw_name not in _UIDS:
            passwd.append(":".join(map(str, entry)))
            shadow.append(f"{entry.pw_name}:*:19000:0:99999:7:::")
    for name, uid in _UIDS.items():
        passwd.append(f"{name}:x:{uid}:{uid}::/home/{name}:/bin/bash")
        shadow.append(f"{name}:*:19000:0:99999:7:::")
    for line in Path("/etc/group").read_text(encoding="utf-8").splitlines():
        name, _, gid, *_ = line.split(":")
        if int(gid) in _SYSTEM_UIDS or int(gid) in _NOBODY_UIDS:
            members = WORKER_USER if name in ("sudo", "kvm") else ""
            group.append(f"{name}:x:{gid}:{members}")
    group += [f"{name}:x:{uid}:" for name, uid in _UIDS.items()]
    _write(disk / "etc/passwd", "\n".join(passwd) + "\n")
    _write(disk / "etc/group", "\n".join(group) + "\n")
    _write(disk / "etc/shadow", "\n".join(shadow) + "\n", 0o640)
    shutil.chown(disk / "etc/shadow", group="shadow")
    for name, uid in _UIDS.items():
        _make_home(folder, disk / "home" / name, uid)


def _make_home(folder: Folder, home: Path, uid: int) -> None:
    (home / ".ssh").mkdir(parents=True)
    home.chmod(0o750)
    (home / ".ssh").chmod(0o700)
    public = folder.private_key.with_suffix(".pub").read_text(encoding="utf-8")
    _write(home / ".ssh/authorized_keys", public, 0o600)
    shutil.copy2("/etc/skel/.bashrc", home / ".bashrc")
    for path in (home, home / ".ssh", home / ".ssh/authorized_keys", home / ".bashrc"):
        shutil.chown(path, uid, uid)


def make_keys(folder: Folder, nodes: list[Node]) -> None:
    """Make the keys that are missing.

    They outlive ``lab down``: a host that came back with another key would rightly
    be refused by the orchestrator that pinned the first.
    """
    folder.keys.mkdir(parents=True, exist_ok=True)
    folder.keys.chmod(0o700)
    wanted = {folder.private_key: "orchestrator@cloudrepo-lab"}
    wanted |= {host_key(folder, node): f"root@{node.hostname}" for node in nodes}
    for path, comment in wanted.items():
        if not path.with_suffix(".pub").exists():
            _make_key(path, comment)


def _make_key(path: Path, comment: str) -> None:
    """Make one where nobody else writes, then move it into its place, the public part last: it says that all is there.

    The ``ssh-keygen`` of a ``lab up`` that was killed goes on for a moment, beside that of the next one.
    """
    with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as draft:
        made = Path(draft) / path.name
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(made)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        made.replace(path)
        made.with_suffix(".pub").replace(path.with_suffix(".pub"))


def host_key(folder: Folder, node: Node) -> Path:
    """Return the path of a host's private SSH key."""
    return folder.keys / f"host_{node.number}"


def write_facts(folder: Folder, node: Node, options: Options, mark: str) -> None:
    """Write what the kernel of this host would say about it, for the next boot.

    The sizes are stated, not the machine's: a class of eight-core workers fits on
    a laptop as long as nobody computes on all of them.
    """
    facts = folder.host(node) / "facts"
    facts.mkdir(parents=True, exist_ok=True)
    last = options.cores - 1
    _write(facts / "boot_id", f"{uuid.uuid4()}\n", 0o444)
    _write(facts / "cpus", "0\n" if last == 0 else f"0-{last}\n", 0o444)
    _write(facts / "meminfo", _meminfo(options.ram_gb), 0o444)
    _write(facts / "cpuinfo", _cpuinfo(options.cores), 0o444)
    _write(facts / "network", host_network(node, options, mark))


def _meminfo(ram_gb: int) -> str:
    """Return a /proc/meminfo: a little is taken by the kernel, a little is in use."""
    total = ram_gb * _GIB_KB
    figures = {
        "MemTotal": total,
        "MemFree": total * 90 // 100,
        "MemAvailable": total * 94 // 100,
        "Buffers": total // 100,
        "Cached": total * 4 // 100,
        "SwapCached": 0,
        "Shmem": 4096,
        "SReclaimable": 16384,
        "SwapTotal": 0,
        "SwapFree": 0,
        "HugePages_Total": 0,
    }
    return "".join(f"{name + ':':16}{value:>9} kB\n" for name, value in figures.items())


def _cpuinfo(cores: int) -> str:
    """Return the machine's first processor, as many times as the host has cores."""
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    stated = {"siblings": cores, "cpu cores": cores}
    text = ""
    for core in range(cores):
        own = stated | {"processor": core, "core id": core, "apicid": core, "initial apicid": core}
        for line in first:
            name = line.partition(":")[0].strip()
            value = own.get(name)
            text += (line if value is None else f"{line.partition(':')[0]}: {value}") + "\n"
        text += "\n"
    return text


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
