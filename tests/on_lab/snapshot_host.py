"""Run inside a host: prints, as JSON, everything there that a slice could leave behind.

Counters, timers and ids that change by themselves are left out, and so is the image store.
"""

from __future__ import annotations

import json
import os
import re
import subprocess

FOLDERS = ("/run", "/tmp", "/home", "/var/lib", "/etc/openvswitch")
UNINTERESTING = re.compile(
    r"/vm_images(/|$)|/run/(sudo|sshd|utmp|user|lock|shm)|/openvswitch/.*(db|lock|ctl|log)"
    r"|/var/lib/cloudrepo$|\.ssh|\.sudo_as_admin|/var/lib/(dpkg|apt)"
)
OUR_TOOLS = ("ovs-", "sshd", "sh", "bash", "python3", "helper", "sleep", "nsenter", "sudo")


def lines(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.strip()]


def processes() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
        except OSError:
            continue
        if words[0] and pid != "1" and not name.startswith(OUR_TOOLS):
            found.append(b" ".join(words).decode("utf-8", "replace").strip())
    return sorted(found)


def files() -> list[str]:
    found = []
    for top in FOLDERS:
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if not UNINTERESTING.search(os.path.join(folder, name))]
            found += [path for name in names + folders if not UNINTERESTING.search(path := os.path.join(folder, name))]
    return sorted(found)


def rules() -> list[str]:
    kept = [line for line in lines("iptables-save") if not line.startswith(("#", "COMMIT"))]
    # An empty table that was once looked at is no leftover.
    return sorted(line.split(" [")[0] for line in kept if not line.startswith(("*", ":")) or line.startswith(":CR-"))


def flows() -> list[str]:
    return sorted(lines("ovs-ofctl", "-O", "OpenFlow13", "--names", "--no-stats", "dump-flows", "br-int"))


def devices() -> list[str]:
    return sorted(row["ifname"] for row in json.loads("".join(lines("ip", "-j", "link")) or "[]"))


def forwarding() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/sys/net/ipv4/conf"):
        with open(f"/proc/sys/net/ipv4/conf/{name}/forwarding") as file:
            found[name] = file.read().strip()
    return found


print(
    json.dumps(
        {
            "ports": sorted(lines("ovs-vsctl", "list-ports", "br-int")),
            "devices": devices(),
            "namespaces": sorted(line.split()[0] for line in lines("ip", "netns", "list")),
            "processes": processes(),
            "rules": rules(),
            "flows": flows(),
            "bridge": lines("ovs-vsctl", "--columns=fail_mode,external_ids,other_config", "list", "Bridge", "br-int"),
            "forwarding": forwarding(),
            "files": files(),
        }
    )
)
