"""Makes a worker of a host: packages, accounts, the bridge with its uplink, the image folder, the rule of sudo.

Sent like the runner and run by root. Standard library only, Python 3.8 or newer. stdout is one JSON object: `changed`
(what was done, a line each), `warnings` (what a person should see to), and `refused` (why it ended before its end).
What is as it should be is not touched, so it can be repeated; what fails half-way is told, and repeating goes on there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIND = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
FULL_SIZE = 1500  # bytes that a guest's frame may carry
PATIENCE_S = 900.0  # for packages
UPDATE = ("apt-get", "-q", "update")
#: Another apt, such as that of unattended upgrades, is waited for; what was left half installed is mended.
INSTALL = ("apt-get", "-qy", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", "--fix-broken", "install")
HALF = ("half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")


class Refused(Exception):
    """Nothing further was done, and why."""


class Bootstrap:
    """One host.

    Args:
        asked: `account` (who logs in), `public_key` (of ours, or ""), `user` (whom QEMU runs as), `is_root_wanted` (the
            account gets a rule of sudo), `base_dir` (`~` is the account's home), `bridge`, `uplink` (a device, or ""),
            `datapath` (`system`, `netdev`, or ""), `packages` (by program, the package that brings it).
    """

    def __init__(self, asked: Any) -> None:
        self.asked = asked
        self.changed: list[str] = []
        self.warnings: list[str] = []
        if os.geteuid() != 0:
            raise Refused("this needs root")

    def apply(self) -> None:
        """All of it. The uplink is looked at first: a wrong one ends it before anything was changed."""
        self.look_at_uplink()
        self.packages()
        self.accounts()
        self.open_vswitch()
        self.bridge()
        self.uplink()
        self.folder()
        if self.asked["is_root_wanted"]:
            self.rule()

    # ── packages ────────────────────────────────────────────────────────────────────────────────────────

    def packages(self) -> None:
        """Install what is missing from the host's own sources, and end what an installation left that was cut off."""
        missing = {
            package for name, package in self.asked["packages"].items() if shutil.which(name, path=FIND["PATH"]) is None
        }
        missing |= self.half_installed(sorted(set(self.asked["packages"].values())))
        if not missing:
            return
        if shutil.which("apt-get", path=FIND["PATH"]) is None:
            names = ", ".join(sorted(missing))
            raise Refused(f"this is neither Debian nor Ubuntu; install what brings {names} here yourself")
        # What was unpacked and no more keeps apt from all else; where that needs what is not there yet, apt brings it.
        run("dpkg", "--configure", "-a", more=QUIET, patience_s=PATIENCE_S)
        for words in (UPDATE, (*INSTALL, *sorted(missing))):
            status, out, err = run(*words, more=QUIET, patience_s=PATIENCE_S)
            if status:
                raise Refused(f"`{' '.join(words)}` failed: {(err or out).strip()[-600:]}")
        self.changed.append(f"installed {', '.join(sorted(missing))}")

    def half_installed(self, packages: list[str]) -> set[str]:
        """Packages whose installation was begun and did not end: their programs may be there, and not work."""
        told = run("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", "--", *packages)[1]
        states = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
        return {package for package, state in states.items() if state in HALF}

    # ── accounts ────────────────────────────────────────────────────────────────────────────────────────

    def accounts(self) -> None:
        """The account that logs in, with our key, and the one that QEMU runs as."""
        account, user = self.asked["account"], self.asked["user"]
        if entry_of(account) is None:
            self.do(f"made the account {account}", "useradd", "--create-home", "--shell", "/bin/bash", "--", account)
        self.authorise(account)
        if entry_of(user) is None:
            self.do(
                f"made the account {user} for QEMU",
                *("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"),
                *("--shell", "/usr/sbin/nologin", "--", user),
            )
        groups = run("id", "-Gn", "--", user)[1].split()
        if (
            os.path.exists("/dev/kvm")
            and user != "root"
            and "kvm" not in groups
            and run("getent", "group", "kvm")[0] == 0
        ):
            self.do(f"added {user} to the group kvm", "usermod", "-aG", "kvm", user)

    def authorise(self, account: str) -> None:
        """Let our key in, where it is not."""
        key, entry = self.asked["public_key"].strip(), entry_of(account)
        if not key or entry is None:
            return
        folder = f"{entry.pw_dir}/.ssh"
        path = f"{folder}/authorized_keys"
        words = key.split()[:2]
        try:
            with open(path, encoding="utf-8") as file:
                if any(words == line.split()[:2] for line in file):
                    return
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            return  # not ours to judge: who got here has a way in
        if self.has_access(account):
            return
        os.makedirs(folder, 0o700, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(key + "\n")
        for one in (folder, path):
            os.chown(one, entry.pw_uid, entry.pw_gid)
        self.changed.append(f"added the orchestrator's key to {path}")

    def has_access(self, account: str) -> bool:
        """Whether it was this account that logged in to run this."""
        return os.environ.get("SUDO_USER") == account

    # ── Open vSwitch ────────────────────────────────────────────────────────────────────────────────────

    def open_vswitch(self) -> None:
        """Have it run, and have TAPs."""
        if not os.path.exists("/dev/net/tun"):
            self.do("loaded the module tun", "modprobe", "tun")
        if run("ovs-vsctl", "--timeout=5", "show")[0] == 0:
            return
        words = ["systemctl", "enable", "--now", "openvswitch-switch"]
        if not os.path.isdir("/run/systemd/system"):
            words = ["service", "openvswitch-switch", "start"]
        self.do("started Open vSwitch", *words)
        status, _, err = run("ovs-vsctl", "--timeout=20", "show")
        if status:
            raise Refused(f"Open vSwitch does not answer: {err.strip()[-300:]}")

    def bridge(self) -> None:
        """Make the bridge where there is none."""
        name = self.asked["bridge"]
        if run("ovs-vsctl", "--timeout=20", "br-exists", name)[0] == 0:
            return
        datapath = self.asked["datapath"]
        if not datapath:
            has_module = os.path.isdir("/sys/module/openvswitch") or run("modprobe", "openvswitch")[0] == 0
            datapath = "system" if has_module else "netdev"
        making = ("--may-exist", "add-br", name, "--", "set", "Bridge", name, f"datapath_type={datapath}")
        self.do(f"made {name} ({datapath} datapath)", "ovs-vsctl", "--timeout=20", "--", *making)

    def look_at_uplink(self) -> None:
        """Refuse a device that the host itself uses: as a port of the bridge it would cut the host off."""
        name = self.asked["uplink"]
        if not name:
            return
        if not os.path.isdir(f"/sys/class/net/{name}"):
            raise Refused(f"there is no device {name}; there are {', '.join(self.free_devices()) or 'none to choose'}")
        why = self.why_taken(name)
        if why:
            free = ", ".join(self.free_devices()) or "none"
            raise Refused(f"{name} {why}; devices that the host does not use itself: {free}")

    def why_taken(self, name: str) -> str:
        """What the host uses a device for; empty = for nothing, or as a port of the bridge already."""
        if self.owner_of(name) == self.asked["bridge"]:
            return ""
        if self.owner_of(name):
            return f"is a port of the bridge {self.owner_of(name)}"
        if os.path.exists(f"/sys/class/net/{name}/master"):
            return f"belongs to {os.path.basename(os.readlink(f'/sys/class/net/{name}/master'))}"
        rows = json.loads(run("ip", "-j", "address", "show", "dev", name)[1] or "[]")
        addresses = [one["local"] for row in rows for one in row.get("addr_info", ()) if one.get("scope") == "global"]
        return f"has the host's own address {addresses[0]}" if addresses else ""

    def owner_of(self, name: str) -> str:
        """The bridge of Open vSwitch that a device is a port of, or an empty text."""
        status, out, _ = run("ovs-vsctl", "--timeout=20", "port-to-br", name)
        return out.strip() if status == 0 else ""

    def free_devices(self) -> list[str]:
        """Devices that could be the uplink."""
        names = sorted(os.listdir("/sys/class/net"))
        is_device = re.compile("(?!lo$|tap|gw_vlan|dhcp_v|ovs-|br-)")
        return [name for name in names if is_device.match(name) and not self.why_taken(name)]

    def uplink(self) -> None:
        """Make a device a port of the bridge, switched on, and wide enough."""
        name, bridge = self.asked["uplink"], self.asked["bridge"]
        if not name:
            if not run("ovs-vsctl", "--timeout=20", "list-ports", bridge)[1].split():
                free = ", ".join(self.free_devices()) or "none was found"
                self.warnings.append(
                    f"{bridge} has no uplink; name the device to the other hosts: --uplink IF ({free})"
                )
            return
        if self.owner_of(name) != bridge:
            self.do(
                f"added {name} to {bridge}", "ovs-vsctl", "--timeout=20", "--", "--may-exist", "add-port", bridge, name
            )
        flags = int(read(f"/sys/class/net/{name}/flags") or "0", 16)
        if not flags & 1:  # IFF_UP
            self.do(f"switched {name} on", "ip", "link", "set", "dev", name, "up")
        if int(read(f"/sys/class/net/{name}/mtu") or FULL_SIZE) < FULL_SIZE:
            self.do(f"set the MTU of {name} to {FULL_SIZE}", "ip", "link", "set", "dev", name, "mtu", str(FULL_SIZE))

    # ── disks and rights ────────────────────────────────────────────────────────────────────────────────

    def folder(self) -> None:
        """The image folder, and a way to it for the account that QEMU runs as."""
        entry, user = entry_of(self.asked["account"]), self.asked["user"]
        path = self.asked["base_dir"]
        if entry is not None and (path == "~" or path.startswith("~/")):
            path = entry.pw_dir + path[1:]
        if not os.path.isabs(path):
            raise Refused(f"the image folder {path} cannot be made: there is no account {self.asked['account']}")
        missing = []
        above = path
        while not os.path.isdir(above):
            missing.append(above)
            above = os.path.dirname(above)
        for one in reversed(missing):
            os.mkdir(one, 0o755)
            if entry is not None and one.startswith(entry.pw_dir + "/"):
                os.chown(one, entry.pw_uid, entry.pw_gid)
            self.changed.append(f"made {one}")
        while path != "/":
            mode = os.stat(path).st_mode
            if user not in ("root", self.asked["account"]) and not mode & 0o001:
                os.chmod(path, (mode & 0o7777) | 0o001)
                self.changed.append(f"let {user} through {path} (o+x)")
            path = os.path.dirname(path)

    def rule(self) -> None:
        """Let the account be root, as documented, where it is not."""
        account = self.asked["account"]
        entry = entry_of(account)
        if entry is None or entry.pw_uid == 0:
            return
        become = ("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups", "--")
        if run(*become, "sudo", "-n", "python3", "--version")[0] == 0:
            return
        path = "/etc/sudoers.d/cloudrepo-" + re.sub("[^A-Za-z0-9_-]", "_", account)
        draft = "/run/cloudrepo-rule"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o440), "w") as file:
            file.write(f"{account} ALL=(ALL) NOPASSWD: ALL\n")
        try:
            status, out, err = run("visudo", "-c", "-f", draft)
            if status:
                raise Refused(f"sudo does not understand the rule: {(err or out).strip()}")
            shutil.copyfile(draft, f"{path}.new")
            os.chmod(f"{path}.new", 0o440)
            os.rename(f"{path}.new", path)
        finally:
            os.unlink(draft)
        self.changed.append(f"made {path}: {account} may be root by sudo")
        status, _, err = run(*become, "sudo", "-n", "python3", "--version")
        if status:
            self.warnings.append(f"{account} is still not let by sudo: {err.strip()[-300:]}")

    def do(self, done: str, *words: str) -> None:
        """Run a command, and say what it did."""
        status, out, err = run(*words)
        if status:
            raise Refused(f"`{' '.join(words)}` failed: {(err or out).strip()[-400:]}")
        self.changed.append(done)


def entry_of(account: str) -> Any:
    """The entry of an account, or None."""
    import pwd

    try:
        return pwd.getpwnam(account)
    except KeyError:
        return None


def read(path: str) -> str:
    """The text of a small file of the kernel's; empty when it cannot be read."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def run(*words: str, more: dict[str, str] | None = None, patience_s: float = 60.0) -> tuple[int, str, str]:
    """A command's exit status and both texts; 127 when there is none of this name."""
    try:
        done = subprocess.run(
            words, env=dict(FIND, **(more or {})), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=patience_s,
        )  # fmt: skip
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


def main(text: str) -> int:
    """Do what is asked."""
    os.umask(0o022)
    changed, warnings = [], []  # type: list[str], list[str]
    answer: dict[str, Any] = {}
    try:
        bootstrap = Bootstrap(json.loads(text))
        changed, warnings = bootstrap.changed, bootstrap.warnings
        bootstrap.apply()
    except (Refused, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        answer["refused"] = str(error) or type(error).__name__
    sys.stdout.write(json.dumps(dict(answer, changed=changed, warnings=warnings)) + "\n")
    return 0
