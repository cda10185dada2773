"""An orchestrator host with a door: accounts of its own, a real sshd and sudo, and the lines of docs/access.md.

It is a mount and PID namespace of its own inside the lab's network: its /etc, /home and /opt are not the machine's, and
all of it ends with one process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect
import yaml

from cloudrepo.doctor.access import Facts, lines_for_sshd, lines_for_sudo
from lab.layout import ORCHESTRATOR_IP
from on_lab.cluster import Cluster, wait_until
from private_sshd import SSHD, make_key

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = ("cloud", "cli", "cloudrepo", "control", "lab", "requirements.txt", "database.yaml", "*.py")
OWNER, OWNER_UID, FIRST_UID = "cloud", 61000, 61001
STATE = f"/home/{OWNER}/cluster/database.yaml"
MENU = ("/opt/cloudrepo/cloud", "menu", "--state", STATE)
PYTHON = "/opt/cloudrepo/.venv/bin/python"
GUARDED, LAX, OPEN = 22, 2222, 2223
#: What an administrator may have been persuaded to accept. Not what the login shell itself goes by (BASH_ENV, LD_*).
ACCEPTED = "CLOUDREPO_* PYTHON* PATH LESS PAGER EDITOR VISUAL HOME PROMPT_TOOLKIT_* COLUMNS TERM*"

FACTS = Facts(owner=OWNER, owner_uid=OWNER_UID, menu=MENU)

# $1: the place. Every mount is in a namespace that ends with this script's process.
SCRIPT = r"""
set -eu
place=$1 base=$2 lib=$3 sshd=$4
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/sshd /run/python
mount --bind "$base" /run/python
mount -t tmpfs -o mode=755 log /var/log
for file in passwd group shadow; do mount --bind "$place/etc/$file" "/etc/$file"; done
mount -t tmpfs -o mode=750 sudoers /etc/sudoers.d
install -m 440 "$place/etc/sudoers" /etc/sudoers.d/cloudrepo
mount --bind "$place/opt" /opt
mount --bind "$place/home" /home
mount --bind "$lib" /opt/cloudrepo/.venv/lib
mount --bind "$place/state" /home/cloud/cluster
case $base in # a Python in somebody's home is in reach of all accounts here
    /root/*) mount -t tmpfs -o mode=755 root /root ;;
    /home/*) ;;
    *) exec "$sshd" -D -e -f /opt/sshd_config ;;
esac
mkdir -p "$base"
mount --move /run/python "$base"
exec "$sshd" -D -e -f /opt/sshd_config
"""


class Door:
    """The host, while it is there.

    Attributes:
        students: names of accounts that may run the menu by sudo, and have a shell.
        key: a private key that lets a test in as any account.
        pid: of the first process in its namespaces.
    """

    def __init__(self, cluster: Cluster, place: Path, students: Sequence[str]) -> None:
        self.cluster = cluster
        self.place = place
        self.students = tuple(students)
        self.key = place / "key"
        self.known_hosts = place / "known_hosts"
        self.pid = 0

    # -- making it -------------------------------------------------------------------------------------

    def furnish(self, disk: Path) -> None:
        """Write all its files; `disk` is the image of the only flavor."""
        for name in ("etc", "opt/cloudrepo", "home"):
            (self.place / name).mkdir(parents=True)
        make_key(self.key)
        self._accounts()
        self._program()
        self._state(disk)
        host_key = make_key(self.place / "opt/host_key")
        ports = (GUARDED, LAX, OPEN)
        names = (f"[{ORCHESTRATOR_IP}]:{port}" if port != 22 else ORCHESTRATOR_IP for port in ports)
        self.known_hosts.write_text("".join(f"{name} {host_key}" for name in names))
        (self.place / "opt/sshd_config").write_text(self._sshd_config(ports))
        (self.place / "etc/sudoers").write_text(lines_for_sudo(FACTS))

    def _sshd_config(self, ports: Sequence[int]) -> str:
        """By the port: the lines as documented; the same and every variable accepted; no boundary at all."""
        common = "".join(f"ListenAddress {ORCHESTRATOR_IP}:{port}\n" for port in ports)
        common += "HostKey /opt/host_key\nPidFile none\nUsePAM no\nSubsystem sftp internal-sftp\n"
        common += "PasswordAuthentication no\nAcceptEnv LANG LC_*\nX11Forwarding yes\nPermitTunnel yes\n"
        first, _, block = lines_for_sshd(FACTS).partition("\n")
        match, _, rest = block.partition("\n")
        return (
            f"{first}\n{common}"
            f"{match} LocalPort {GUARDED}\n{rest}"
            f"{match} LocalPort {LAX}\n{rest.replace('LANG LC_*', ACCEPTED)}"
            f"{match} LocalPort {OPEN}\n    AcceptEnv {ACCEPTED}\n"
        )

    def _accounts(self) -> None:
        people = {OWNER: OWNER_UID, **{name: FIRST_UID + number for number, name in enumerate(self.students)}}
        rows = {name: (self.place / "etc" / name) for name in ("passwd", "group", "shadow")}
        for name, path in rows.items():
            known = Path("/etc", name).read_text().splitlines()
            system = [row for row in known if name == "shadow" or int(row.split(":")[2]) not in range(1000, 65534)]
            path.write_text("".join(f"{row}\n" for row in system))
        rows["shadow"].chmod(0o640)
        with rows["passwd"].open("a") as passwd, rows["group"].open("a") as group, rows["shadow"].open("a") as shadow:
            for name, uid in people.items():
                passwd.write(f"{name}:x:{uid}:{uid}::/home/{name}:/bin/bash\n")
                group.write(f"{name}:x:{uid}:\n")
                shadow.write(f"{name}:*:19000:0:99999:7:::\n")
            group.write(f"students:x:{FIRST_UID + 1000}:{','.join(self.students)}\n")
        for name, uid in people.items():
            home = self.place / "home" / name
            (home / ".ssh").mkdir(parents=True)
            (home / ".ssh/authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
            home.chmod(0o700)
            chown_all(home, uid)

    def _program(self) -> None:
        """The checkout as an operator installs it: root's, readable by all, with its Python environment."""
        program = self.place / "opt/cloudrepo"
        for pattern in PROGRAM:
            for source in CHECKOUT.glob(pattern):
                if source.is_dir():
                    shutil.copytree(source, program / source.name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, program / source.name)
        parts = [str(path.relative_to(program)) for path in sorted(program.glob("*.py"))]
        words = (sys.executable, "-m", "compileall", "-q", *parts, "cli", "cloudrepo", "control")
        subprocess.run(words, cwd=program, check=True)
        python = Path(os.path.realpath(sys.executable))
        (program / ".venv/bin").mkdir(parents=True)
        (program / ".venv/lib").mkdir()
        (program / ".venv/bin/python").symlink_to(python)
        (program / ".venv/pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
        shutil.copy(CHECKOUT / "requirements.txt", program / ".venv/pins-requirements.txt")

    def _state(self, disk: Path) -> None:
        """The installation of the cluster, given to its own account, with its own copy of the key."""
        folder = self.cluster.folder
        shutil.copy(self.cluster.lab.folder.private_key, folder / "id_ed25519")
        shutil.copy(disk, folder / "disk.qcow2")
        home = Path(STATE).parent
        flavor = {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": str(home / "disk.qcow2")}
        settings = {
            "ssh": {"key": str(home / "id_ed25519")},
            "flavors": {"cirros": flavor},
            "host": {"privilege": self.cluster.api.settings.host.privilege},
        }
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        (self.place / "state").symlink_to(folder)
        (self.place / f"home/{OWNER}/cluster").mkdir()
        chown_all(folder, OWNER_UID)
        folder.chmod(0o700)

    # -- using it --------------------------------------------------------------------------------------

    def run(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run words as root on the host."""
        inside = ("nsenter", f"--target={self.pid}", "--mount", "--pid", "--")
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        return subprocess.run(
            (*inside, *words), env=environment, cwd="/", capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def ssh(self, account: str, *words: str, port: int = GUARDED, program: str = "ssh") -> tuple[str, ...]:
        """A command line of a client: `ssh ACCOUNT@HOST WORDS`, or options and words for `scp` and `sftp`."""
        options = {
            "UserKnownHostsFile": str(self.known_hosts),
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "30",
            "Port": str(port),
        }
        given = (word for name, value in options.items() for word in ("-o", f"{name}={value}"))
        target = (f"{account}@{ORCHESTRATOR_IP}",) if program == "ssh" else ()
        return (program, "-F", "none", "-i", str(self.key), *given, *target, *words)

    def client(
        self, *words: str, stdin: str = "", timeout_s: float = 60, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a client from another PC, to its end."""
        return subprocess.run(
            words,
            env={**os.environ, **(variables or {})},
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def terminal(
        self, words: Sequence[str], patience_s: float, variables: Mapping[str, str] | None = None
    ) -> pexpect.spawn[str]:
        """A client in a terminal of its own."""
        return pexpect.spawn(
            words[0],
            list(words[1:]),
            env={**os.environ, "TERM": "xterm", **(variables or {})},
            encoding="utf-8",
            dimensions=(50, 140),
            timeout=patience_s,
        )

    def menus(self) -> list[int]:
        """Processes that run a menu, by their ids on this machine."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = os.readlink(folder / "ns/pid") == os.readlink(f"/proc/{self.pid}/ns/pid")
                words = (folder / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if is_ours and words[:1] == [PYTHON] and "menu" in words:
                found.append(int(folder.name))
        return found


def chown_all(top: Path, uid: int) -> None:
    """Give a folder and all in it to an account; links as links."""
    os.chown(top, uid, uid)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            os.chown(Path(folder, name), uid, uid, follow_symlinks=False)


@contextmanager
def open_door(cluster: Cluster, place: Path, students: Sequence[str], disk: Path) -> Iterator[Door]:
    """The host with its sshd; everything in it ends with the context."""
    assert SSHD is not None
    door = Door(cluster, place, students)
    mask = os.umask(0o022)
    try:
        door.furnish(disk)
    finally:
        os.umask(mask)
    lib = str(Path(sysconfig.get_path("purelib")).parents[1])
    apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private")
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            (*apart, "--", "sh", "-c", SCRIPT, "door", str(place), sys.base_prefix, lib, SSHD),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
        )
    try:
        wait_until(lambda: "listening on" in (place / "log").read_text(), 30, "sshd of the orchestrator host")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        door.pid = int(children[0])
        yield door
    finally:
        process.kill()
        process.wait(30)
