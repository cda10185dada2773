"""Whose the things are that a step names: looked at on the host right before the step. Nothing foreign is changed.

Ours is what carries the mark of the installation, what it made itself in this plan, and what a directory of its own
announces. A name that nothing has is nobody's, and may be taken. Standard library only, Python 3.8 or newer: installed
on hosts as a part of one file, see `helper.py`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess

from cloudrepo.host.judge import NotAllowed, metered_device, tap_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cloudrepo.host.judge import Bounds, Named

NET = "/sys/class/net"
NETNS = "/run/netns"
FIND = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
DISK_NAMES = ("overlay.qcow2", "disk.qcow2")
OURS = re.compile(r"cloudrepo/([0-9a-f]{8})/")
TAP_OF_VM = re.compile(r"tap_([0-9]{1,9})_")


class Owners:
    """Answers for one plan; what was seen to be ours stays so until the plan ends."""

    def __init__(self, bounds: Bounds, plan_names: Named) -> None:
        self.bounds = bounds
        self.known: set[str] = set()
        self._ports: dict[str, str] | None = None
        self._trunks: set[str] = set()
        self._has_meters = any(kind == "meter" for kind, _ in plan_names)
        self._metered: dict[str, set[str]] | None = None

    def check(self, step: Any, named: Named) -> None:
        """Refuse a step that would change what is not ours.

        Raises:
            NotAllowed: naming the thing and whose it is.
        """
        words = step.get("words") or ()
        fresh = step.get("stdin", "") if words else ""
        if self._has_meters and words and words[0] == "ovs-ofctl":
            self._users_of_meters()  # before the flows that tell it may be gone
        for kind, name in dict.fromkeys(named):
            if kind in ("tap", "wire", "port"):
                self.require_device(name)
            elif kind == "namespace":
                self.require_namespace(name)
                if f"netns add {name}\n" in fresh:
                    self.known.add(name)
            elif kind == "image":
                self.require_image(f"{self.bounds.base}/{name}")
            elif kind == "group" and f"link delete group {name}\n" in fresh:
                self.require_group(name)
            elif kind == "meter":
                self.require_meter(name)
            elif kind == "trunk":
                self.require_trunk(name)
            elif kind == "beyond":
                self.require_beyond(name)
            elif kind == "astray" and name not in self._marks_of_ports():
                raise NotAllowed(f"{name} is no port of Open vSwitch")
            elif kind in ("forwarding", "outward") and name != "gw_vlan400":
                self.require_uplink(name)
        if "add-port" in words:
            self.known.update(name for kind, name in named if kind == "port")
        if any(word == "add-br" or word.startswith("datapath_type=") for word in words):
            self.require_no_bridge()
        if "fail_mode=secure" in words or "fail_mode" in words:
            self.require_bridge(is_closing="fail_mode=secure" in words)
        if step["act"] in ("stop", "signal", "confine"):
            self.require_uuids(named)
        elif step["act"] == "adopt" and _file(step["path"]) is None:
            self.known.add(step["path"])
        elif step["act"] == "inject":
            self.require_ports(step["frames"])
        elif step["act"] == "write" and step["path"].startswith(f"{self.bounds.base}/base/"):
            self.require_record(step)
        gone = words[4] if words and words[0] == "mv" else step["path"] if step["act"] == "remove" else ""
        if gone.startswith(f"{self.bounds.base}/base/"):
            self.require_brought(gone)

    # ── devices and namespaces ──────────────────────────────────────────────────────────────────────────

    def require_device(self, name: str) -> None:
        """A device or port of this name must be ours, or not be there."""
        if name in self.known:
            return
        whose = _whose(_first_line(f"{NET}/{name}/ifalias"))
        if not whose:
            ports = self._marks_of_ports()
            whose = ports.get(name, "")
            is_there = name in ports or os.path.lexists(f"{NET}/{name}")
            if not whose and (not is_there or self._announces(name)):
                return
        self._require_ours(whose, f"the device {name}")
        self.known.add(name)

    def _announces(self, name: str) -> bool:
        """Whether a directory of ours says that a device of this name was about to be made."""
        vlan = re.fullmatch("(?:gw_vlan|dhcp_v)([0-9]+)", name)
        if vlan:
            return os.path.isdir(f"{self.bounds.run}/dhcp-{vlan[1]}")
        vm = TAP_OF_VM.match(name)
        return os.path.isdir(f"{self.bounds.run}/vm-{vm[1]}") if vm else name in self._short_names()

    def _short_names(self) -> Iterator[str]:
        """The names of TAPs whose own ones are too long for Linux, as `cloudrepo/naming.py` makes them."""
        for directory in _names(self.bounds.run, "vm-"):
            mark = _first_line(f"{self.bounds.run}/{directory}/mark")
            for interface in mark.rpartition("/")[2].split("."):
                yield tap_name(directory[3:], interface)

    def _marks_of_ports(self) -> dict[str, str]:
        """By port of Open vSwitch, the installation in its mark, or "" without one."""
        if self._ports is None:
            rows = _table("--columns=name,external_ids", "list", "Port")
            self._ports = {name: _whose(dict(ids[1]).get("cloudrepo", "")) for name, ids in rows}
        return self._ports

    def require_namespace(self, name: str) -> None:
        """A network namespace of this name, and all in it, must be ours, or not be there."""
        if name in self.known or not os.path.lexists(f"{NETNS}/{name}"):
            return
        rows = json.loads(_answer("ip", "-n", name, "-j", "link", "show") or "[]")
        whose = {row["ifname"]: _whose(row.get("ifalias", "")) for row in rows if row}
        foreign = {one for one in whose.values() if one} - {self.bounds.installation}
        if not foreign and not whose.get("lo") and os.path.isdir(f"{self.bounds.run}/dhcp-{name[12:]}"):
            whose["lo"] = self.bounds.installation
        self._require_ours(min(foreign, default=whose.get("lo", "")), f"the namespace {name}")
        self.known.add(name)

    def require_group(self, group: str) -> None:
        """All devices that are in a group must be ours."""
        for name in os.listdir(NET):
            if _first_line(f"{NET}/{name}/netdev_group") == group:
                self.require_device(name)

    def require_meter(self, number: str) -> None:
        """A meter has no mark: it is ours by the device it is numbered for, or by a flow of ours that names it."""
        device, users = metered_device(number), self._users_of_meters().get(number, set())
        self.require_device(device)
        foreign = users - {self.bounds.installation}
        if foreign:
            self._require_ours(min(foreign), f"the meter {number}")
        if device not in self.known and not users and not self._announces(device):
            raise NotAllowed(f"the meter {number} is of no device on this host")

    def _users_of_meters(self) -> dict[str, set[str]]:
        """By number, whose flows named a meter when it was first asked, by the first half of their cookies."""
        if self._metered is None:
            found: dict[str, set[str]] = {}
            bridge = self.bounds.facts["bridge"]
            for line in _answer("ovs-ofctl", "--timeout=20", "-O", "OpenFlow13", "dump-flows", bridge).splitlines():
                cookie = re.search(r"cookie=0x([0-9a-f]{1,16})\b", line)
                whose = f"{int(cookie[1], 16) >> 32:08x}" if cookie and int(cookie[1], 16) >> 32 else ""
                for number in re.findall(r"\bmeter:([0-9]+)", line):
                    found.setdefault(number, set()).add(whose)
            self._metered = found
        return self._metered

    def require_uplink(self, name: str) -> None:
        """The way out is the device that is set, or that of the default route."""
        if self.bounds.facts["uplink"]:
            return  # the grammar has no other
        with open("/proc/net/route", encoding="ascii") as file:
            ways = [line.split()[0] for line in file if line.split()[1] == "00000000"]
        if name not in ways:
            raise NotAllowed(f"{name} is not the device of the default route")

    def require_trunk(self, name: str) -> None:
        """A port of the bridge without a mark of anybody, and a device that the host itself has no address on."""
        names = {port for _, port in self._ports_of_bridge()}
        if name not in names or self._marks_of_ports().get(name):
            raise NotAllowed(f"{name} is no uplink of the bridge {self.bounds.facts['bridge']}")
        rows = json.loads(_answer("ip", "-j", "address", "show", "dev", name) or "[]")
        if any(one.get("scope") == "global" for row in rows for one in row.get("addr_info", ())):
            raise NotAllowed(f"{name} has an address of the host's own")

    def require_beyond(self, name: str) -> None:
        """Flows lead to and from a port of the bridge that is a trunk of nobody's, and not the host itself."""
        if name not in self._trunks:
            bridge = self.bounds.facts["bridge"]
            names = {port for _, port in self._ports_of_bridge()} - {bridge}
            tagged = {port for port, tag in _table("--columns=name,tag", "list", "Port") if tag != ["set", []]}
            internal = {port for port, kind in _table("--columns=name,type", "list", "Interface") if kind == "internal"}
            marked = {port for port, whose in self._marks_of_ports().items() if whose}
            self._trunks = names - tagged - internal - marked
        if name not in self._trunks:
            raise NotAllowed(f"{name} is no port of the bridge that leads to other hosts")

    def _ports_of_bridge(self) -> list[tuple[str, str]]:
        """The ports of the bridge: by uuid, name."""
        rows = _table("--columns=ports", "find", "Bridge", f"name={self.bounds.facts['bridge']}")
        if not rows:
            return []
        ports = rows[0][0]
        here = {ports[1]} if ports[0] == "uuid" else {uuid for _, uuid in ports[1]}
        return [(uuid[1], name) for uuid, name in _table("--columns=_uuid,name", "list", "Port") if uuid[1] in here]

    # ── the bridge ──────────────────────────────────────────────────────────────────────────────────────

    def require_bridge(self, is_closing: bool) -> None:
        """A bridge is closed only where no stranger's port is on it, and opened only when no other wants it closed.

        Where it bears our mark it was closed by us before, and is closed again.
        """
        mode, ids, ports = _table(
            "--columns=fail_mode,external_ids,ports", "find", "Bridge", f"name={self.bounds.facts['bridge']}"
        )[0]
        keys = {key for key, _ in ids[1] if key.startswith("cloudrepo-")}
        others = keys - {"cloudrepo-" + self.bounds.installation}
        if not is_closing:
            if others:
                raise NotAllowed(f"the bridge is closed for others too: {', '.join(sorted(others))}")
            return
        here = {ports[1]} if ports[0] == "uuid" else {uuid for _, uuid in ports[1]}
        rows = _table("--columns=_uuid,name,external_ids", "list", "Port")
        bare = {name for uuid, name, ids in rows if uuid[1] in here and not dict(ids[1]).get("cloudrepo")}
        bare = {name for name in bare if not self._announces(name)} - {self.bounds.facts["bridge"]}
        if mode != "secure" and "cloudrepo-" + self.bounds.installation not in keys and len(bare) > 1:
            raise NotAllowed(f"the bridge has ports of others: {', '.join(sorted(bare))}")

    def require_no_bridge(self) -> None:
        """A bridge is made, and its datapath chosen, only where there is none."""
        if _table("--columns=name", "find", "Bridge", f"name={self.bounds.facts['bridge']}"):
            raise NotAllowed(f"the bridge {self.bounds.facts['bridge']} is there already")

    def require_ports(self, frames: list[Any]) -> None:
        """Frames are sent as if they came in by ports of ours."""
        names = {number: name for name, number in _table("--columns=name,ofport", "list", "Interface")}
        for number in {number for number, _ in frames}:
            if number not in names:
                raise NotAllowed(f"there is no port {number}")
            self.require_device(names[number])
            if names[number] not in self.known:
                raise NotAllowed(f"the port {names[number]} is not ours")

    # ── processes and files ─────────────────────────────────────────────────────────────────────────────

    def require_uuids(self, named: Named) -> None:
        """A process is one of ours when its command line holds the UUID of a VM of ours: see `naming.machine_uuid`."""
        import uuid

        ids = {text for kind, text in named if kind == "id"}
        for root in (self.bounds.run, self.bounds.store):
            ids.update(name[3:] for name in _names(root, "vm-"))
        text = "cloudrepo:" + self.bounds.installation + ":vm:"
        known = {str(uuid.uuid5(uuid.NAMESPACE_URL, text + vm)) for vm in ids}
        for kind, token in named:
            if kind == "uuid" and token not in known:
                raise NotAllowed(f"{token} is no VM of installation {self.bounds.installation} on this host")

    def require_image(self, path: str) -> None:
        """A disk in the image folder must be ours, or not be there: it has a second name in a directory of ours.

        Where that name was lost, a mark of ours must name the disk, no other installation have it, and an account that
        QEMU runs as must own it.
        """
        facts = _file(path)
        if facts is None:
            return
        whose = self._keepers(facts)
        if not whose and stat.S_ISREG(facts.st_mode) and self._is_named(path) and self._is_a_guests(facts):
            return
        foreign = whose - {self.bounds.installation}
        self._require_ours(min(foreign or whose, default=""), path)

    def _keepers(self, facts: os.stat_result) -> set[str]:
        """The installations in whose directories a file has another name."""
        found = set()
        for folder in _names(self.bounds.base, ".cloudrepo-"):
            for directory in _names(f"{self.bounds.base}/{folder}", ""):
                for name in DISK_NAMES:
                    other = _file(f"{self.bounds.base}/{folder}/{directory}/{name}")
                    if other and (other.st_dev, other.st_ino) == (facts.st_dev, facts.st_ino):
                        found.add(folder.rpartition("-")[2])
        return found

    def _is_named(self, path: str) -> bool:
        for directory in _names(self.bounds.store, ""):
            try:
                with open(f"{self.bounds.store}/{directory}/mark.json", encoding="utf-8") as file:
                    if path in (json.load(file).get("disk"), None):
                        return True
            except (OSError, ValueError, AttributeError):
                continue
        return False

    def _is_a_guests(self, facts: os.stat_result) -> bool:
        import pwd

        first, count = self.bounds.facts["uids"] or (0, 0)
        accounts = {pwd.getpwnam(user).pw_uid for user in self.bounds.facts["users"]}
        return facts.st_uid in accounts or first <= facts.st_uid < first + count

    def require_record(self, step: Any) -> None:
        """Base images are shared, and so are their records: that of another's image is not made another.

        Where the image itself was gone, and is brought anew in this plan, its old record is of nothing.
        """
        path = step["path"]
        if os.path.basename(path).startswith("from-") or _file(path) is None or path[: -len(".json")] in self.known:
            return
        with open(path, encoding="utf-8") as file:
            is_same = file.read(len(step["text"]) + 1) == step["text"]
        if not is_same and self._bringer(path) != self.bounds.installation:
            raise NotAllowed(f"{path} is there already and says something else")

    def require_brought(self, path: str) -> None:
        """A base image goes only where its record says that this installation brought it."""
        path = path if path.endswith(".json") else path + ".json"
        self._require_ours(self._bringer(path), path)

    @staticmethod
    def _bringer(record: str) -> str:
        """The installation that brought a base image, by its record; "" when it does not say."""
        try:
            with open(record, encoding="utf-8") as file:
                return str(json.load(file)["installation"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _require_ours(self, whose: str, what: str) -> None:
        if whose != self.bounds.installation:
            owner = f"installation {whose}" if whose else "nobody we know"
            raise NotAllowed(f"{what} belongs to {owner}, not to installation {self.bounds.installation}")


def _whose(mark: str) -> str:
    """The installation in a mark, or "" when there is none."""
    found = OURS.match(mark)
    return found[1] if found else ""


def _first_line(path: str) -> str:
    """The first line of a small file, "" when it cannot be read."""
    try:
        with open(
            os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8", errors="replace"
        ) as file:
            return file.readline(4096).rstrip("\n")
    except OSError:
        return ""


def _file(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _names(directory: str, prefix: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.startswith(prefix))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _answer(*words: str) -> str:
    """What a question says; one that fails is no answer, and then nothing is allowed."""
    try:
        done = subprocess.run(
            words, env=FIND, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotAllowed(f"{' '.join(words)}: {error}") from None
    if done.returncode:
        raise NotAllowed(f"{' '.join(words)}: {done.stderr.strip()[:200]}")
    return done.stdout


def _table(*words: str) -> list[Any]:
    """The rows of a table of Open vSwitch."""
    return list(json.loads(_answer("ovs-vsctl", "--timeout=20", "-f", "json", *words))["data"])
