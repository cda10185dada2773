"""Prepares a host so that its SSH account may run one program as root, and takes that back. Sent like the runner.

Standard library only, Python 3.8 or newer. stdout is one JSON object: `changed` (what was done, a line each),
`warnings` (what a person should look at), and `refused` (why it ended before its end). What is as it should be is not
touched, so it can be repeated; what fails half-way is told, and repeating goes on from there.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELPER = "/usr/local/lib/cloudrepo/helper"
FOLDER = os.path.dirname(HELPER)
COMPILED = f"{FOLDER}/__pycache__"  # where Python looks
#: The program by its version, compiled or not, and drafts of both.
PROGRAM = re.compile(r"helper_([0-9a-f]{16})[.](?:py|cpython-[0-9]+[.]pyc)(?:[.]new(?:[.][0-9]+)?)?", re.ASCII)
#: Compiles a module, unless that was done and can be read: by the very Python that will look for it. Python's own way
#: of keeping what it compiled syncs nothing, and what was cut on its way to the disk it never makes anew.
COMPILE = """
import importlib.util, marshal, os, py_compile, sys
from importlib.util import MAGIC_NUMBER, source_hash
kept = importlib.util.cache_from_source(sys.argv[1])
with open(sys.argv[1], "rb") as file:
    head = MAGIC_NUMBER + (3).to_bytes(4, "little") + source_hash(file.read())
try:
    with open(kept, "rb") as file:
        data = file.read()
    if data[:16] == head and marshal.loads(data[16:]):
        sys.exit()
except (OSError, EOFError, ValueError, TypeError):
    pass
by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
py_compile.compile(sys.argv[1], cfile=kept + ".new", doraise=True, invalidation_mode=by_hash)
with open(kept + ".new", "rb+") as file:
    os.fsync(file.fileno())
os.rename(kept + ".new", kept)
print(kept)
"""
PYTHON = "/usr/bin/python3"  # the helper's
BOUNDS = "/etc/cloudrepo/helper.d"
SUDOERS = "/etc/sudoers.d"
FIND = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
#: Groups whose members are root by another way.
MIGHTY = ("docker", "lxd", "incus", "libvirt", "disk", "shadow", "kmem")


class Refused(Exception):
    """Nothing was done, and why."""


class Hardening:
    """One host, one installation.

    Args:
        asked: `do`, `helper` (texts by the names of files, the one that sudo starts last) and `bounds` (as in
            `judge.Bounds`, but for `home`).
    """

    def __init__(self, asked: Any) -> None:
        import pwd

        self.asked = asked
        self.changed: list[str] = []
        self.warnings: list[str] = []
        self.account = asked["bounds"]["account"]
        self.bounds_file = f"{BOUNDS}/{asked['bounds']['installation']}.json"
        self.sudoers_file = f"{SUDOERS}/zz-cloudrepo-" + re.sub("[^A-Za-z0-9_-]", "_", self.account)
        if os.geteuid() != 0:
            raise Refused("this needs root")
        try:
            self.entry = pwd.getpwnam(self.account)
        except KeyError:
            raise Refused(f"there is no account {self.account}") from None

    # ── making ──────────────────────────────────────────────────────────────────────────────────────────

    def apply(self) -> None:
        """Install the helper, its bounds and the rule of sudo, in this order; the last is what takes rights away."""
        self.look()
        bounds = dict(self.asked["bounds"], home=self.entry.pw_dir)
        bounds["trunks"] = self.uplinks(bounds["bridge"]) or self.known_uplinks()
        for path in (FOLDER, COMPILED, BOUNDS, bounds["base_dir"]):
            self.make_folders(path)
        for name, text in self.asked["helper"].items():
            path = f"{FOLDER}/{name}"
            self.write(path, text, 0o755 if path == HELPER else 0o644)
            if path != HELPER:
                self.compile(path)
        self.write(self.bounds_file, json.dumps(bounds, indent=1, sort_keys=True) + "\n", 0o644)
        self.limit()
        self.remove_programs()

    def look(self) -> None:
        """Refuse a host on which the rule would not hold."""
        if self.entry.pw_uid == 0:
            raise Refused(f"{self.account} is root itself: log in as another account (ssh.user)")
        if run("visudo", "-V")[0] != 0:
            raise Refused("there is no visudo; on the host run `apt-get install sudo`")
        with open("/proc/sys/fs/protected_hardlinks", encoding="ascii") as file:
            if file.read().strip() != "1":
                raise Refused("fs.protected_hardlinks is off; on the host run `sysctl -w fs.protected_hardlinks=1`")
        self.require_numbers()
        store = f"{self.entry.pw_dir}/vm_images/.cloudrepo-{self.asked['bounds']['installation']}"
        if os.path.isdir(store) and any(name[:3] in ("vm-", "man") for name in os.listdir(store)):
            raise Refused(
                f"VMs of this installation have their disks in {self.entry.pw_dir}: delete their slices first"
            )
        groups = [name for name in run("id", "-Gn", "--", self.account)[1].split() if name in MIGHTY]
        if groups:
            self.warnings.append(
                f"{self.account} is in {', '.join(groups)}, which is root by another way: `gpasswd -d {self.account} "
                f"{groups[0]}`"
            )

    def uplinks(self, bridge: str) -> list[str]:
        """The bridge's ports that lead out of this host: devices of it that no program holds and that bear no mark."""
        names = run("ovs-vsctl", "--timeout=10", "list-ports", bridge)[1].split()
        marked = run(
            *("ovs-vsctl", "--timeout=10", "--bare", "--columns=name", "find", "Port"), "external_ids:cloudrepo!=''"
        )[1].split()
        ours = re.compile("tap_|gw_vlan|dhcp_v")
        return sorted(
            name
            for name in names
            if name not in marked
            and not ours.match(name)
            and run("ovs-vsctl", "--timeout=10", "get", "Interface", name, "type")[1].strip() in ('""', "system")
            and not os.path.exists(f"/sys/class/net/{name}/tun_flags")
        )

    def known_uplinks(self) -> list[str]:
        """Those that were there before, where there is no bridge now."""
        try:
            with open(self.bounds_file, encoding="utf-8") as file:
                return list(json.load(file).get("trunks", ()))
        except (OSError, ValueError, AttributeError, TypeError):
            return []

    def require_numbers(self) -> None:
        """The numbers that VMs run under must be nobody's: no account's, and not set aside for another's containers."""
        import pwd

        if not self.asked["bounds"]["uids"]:
            return
        first, count = self.asked["bounds"]["uids"]
        taken = [(entry.pw_uid, 1, f"the account {entry.pw_name}") for entry in pwd.getpwall()]
        for path in ("/etc/subuid", "/etc/subgid"):
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    rows = [line.strip().split(":") for line in file if line.count(":") == 2]
                taken += [(int(row[1]), int(row[2]), f"{path} for {row[0]}") for row in rows if row[1].isdigit()]
        for start, length, whose in taken:
            if start < first + count and first < start + length:
                raise Refused(
                    f"VMs run under the numbers {first} to {first + count - 1}, and {start} is taken by {whose}: set "
                    "qemu.first_uid to others, or qemu.user to an account that all guests run as"
                )

    def make_folders(self, path: str) -> None:
        """A directory and its parents, all of them root's alone."""
        missing = []
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        while True:
            facts = os.lstat(path)
            if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != 0 or facts.st_mode & 0o022:
                raise Refused(f"{path} is not a directory that only root may write; the account could lead root astray")
            if path == "/":
                break
            path = os.path.dirname(path)
        for one in reversed(missing):
            os.mkdir(one, 0o755)
            self.changed.append(f"made {one}")

    def write(self, path: str, text: str, mode: int) -> None:
        """A file of root's, whole or not at all; content when it is there already."""
        facts = os.lstat(path) if os.path.lexists(path) else None
        if facts and stat.S_ISREG(facts.st_mode) and (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, mode):
            with open(path, encoding="utf-8") as file:
                if file.read() == text:
                    return
        draft = f"{path}.new"
        if os.path.lexists(draft):
            os.unlink(draft)
        number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(number, mode)
            os.fsync(number)
        os.rename(draft, path)
        sync_folder(os.path.dirname(path))
        self.changed.append(f"{'wrote' if facts else 'made'} {path}")

    def compile(self, path: str) -> None:
        """Have a module compiled, so that not each start has to; without that it is only slower."""
        status, out, err = run(PYTHON, "-IS", "-c", COMPILE, path)
        if status:
            self.warnings.append(f"{path} was not compiled, so that each start takes longer: {err.strip()[-300:]}")
        elif out.strip():
            sync_folder(COMPILED)
            self.changed.append(f"compiled {out.strip()}")

    def limit(self) -> None:
        """The rule of sudo; taken back when it turns out not to be the last word."""
        text = (
            "# Made by `./cloud worker harden`: the account may run this one program as root, and nothing else.\n"
            "# The last rule that fits is the one that counts, so this file's name puts it last.\n"
            f"Defaults!{HELPER} env_reset, !setenv\n"
            f"{self.account} ALL=(ALL:ALL) !ALL\n"
            f'{self.account} ALL=(root:root) NOPASSWD: {HELPER} ""\n'
        )
        draft = f"{BOUNDS}/sudoers.new"
        self.write(draft, text, 0o440)
        self.changed.pop()
        status, out, err = run("visudo", "-c", "-f", draft)
        os.unlink(draft)
        if status:
            raise Refused(f"sudo does not understand the rule: {(err or out).strip()}")
        before = None
        if os.path.exists(self.sudoers_file):
            with open(self.sudoers_file, encoding="utf-8") as file:
                before = file.read()
        self.write(self.sudoers_file, text, 0o440)
        wrong = self.what_does_not_hold()
        if wrong and before is None:
            os.unlink(self.sudoers_file)
            self.changed.pop()
        if wrong:
            raise Refused(f"{wrong}; look for rules behind `@includedir {SUDOERS}` in /etc/sudoers")

    def what_does_not_hold(self) -> str:
        """Try what the account may do; an empty text when it is the helper alone."""
        become = ("setpriv", f"--reuid={self.entry.pw_uid}", f"--regid={self.entry.pw_gid}", "--init-groups", "--")
        if run(*become, "sudo", "-n", "true")[0] == 0:
            return f"{self.account} may still run other programs as root"
        _, _, err = run(*become, "sudo", "-n", HELPER)
        return "" if "the message was cut" in err else f"{self.account} may not run the helper: {err.strip()[-300:]}"

    # ── taking back ─────────────────────────────────────────────────────────────────────────────────────

    def undo(self) -> None:
        """Remove this installation's bounds and, with the last ones, the rule and the helper. Images stay."""
        self.remove(self.bounds_file)
        left = os.listdir(BOUNDS) if os.path.isdir(BOUNDS) else []
        accounts = set()
        for name in left:
            with open(f"{BOUNDS}/{name}", encoding="utf-8") as file:
                accounts.add(json.load(file)["account"])
        if self.account not in accounts:
            self.remove(self.sudoers_file)
        if not left:
            for path in (HELPER, f"{HELPER}.new"):
                self.remove(path)
            self.remove_programs()
            for folder in (COMPILED, FOLDER, BOUNDS, os.path.dirname(BOUNDS)):
                if os.path.isdir(folder) and not os.listdir(folder):
                    os.rmdir(folder)
                    self.changed.append(f"removed {folder}")

    def remove_programs(self) -> None:
        """Remove programs that sudo does not start: another `worker harden` may have written meanwhile what it does."""
        started = ""
        if os.path.exists(HELPER):
            with open(HELPER, encoding="utf-8") as file:
                started = file.read()
        for folder in (FOLDER, COMPILED):
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                program = PROGRAM.fullmatch(name)
                if program and (program.group(1) not in started or ".new" in name):
                    self.remove(f"{folder}/{name}")

    def remove(self, path: str) -> None:
        """Remove a file; content when it is not there."""
        if os.path.lexists(path):
            os.unlink(path)
            self.changed.append(f"removed {path}")


def sync_folder(path: str) -> None:
    """Have the names in a folder on the disk before anything that counts on them."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def run(*words: str) -> tuple[int, str, str]:
    """A command's exit status and both texts; 127 when there is none of this name."""
    try:
        done = subprocess.run(
            words, env=FIND, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


def main(text: str) -> int:
    """Do what is asked: `do` is `apply` or `undo`."""
    os.umask(0o022)
    asked = json.loads(text)
    changed, warnings = [], []  # type: list[str], list[str]
    answer: dict[str, Any] = {}
    try:
        hardening = Hardening(asked)
        changed, warnings = hardening.changed, hardening.warnings
        hardening.undo() if asked["do"] == "undo" else hardening.apply()
    except (Refused, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        answer["refused"] = str(error) or type(error).__name__
    sys.stdout.write(json.dumps(dict(answer, changed=changed, warnings=warnings)) + "\n")
    return 0
