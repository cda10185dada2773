"""What holds a machine within its limits: a cgroup of its own."""

from __future__ import annotations

import errno
import os
import time

from cloudrepo.host.runner.base import DONE, LONGEST_WAIT_S
from cloudrepo.host.runner.files import read_text
from cloudrepo.host.runner.processes import command_line, proven, read_pid_file, state_and_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloudrepo.host.runner.base import Answer, Json

CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # where cgroup2 is: alone, or beside cgroup1
LIMITS = ("cpu.max", "memory.max", "pids.max")


def cgroup_root() -> str:
    """Where cgroup2 is on this host, "" when it has none."""
    return next((path for path in CGROUPS if os.path.exists(path + "/cgroup.controllers")), "")


def held_by(act: Json, path: str, pid: int) -> Json | None:
    """What holds a machine: its group if the process is in there, and the group's limits; None without cgroup2."""
    root = cgroup_root()
    if not root:
        return None
    group = os.path.basename(act["root"]) + "/" + os.path.basename(path)
    is_in = str(pid) in (read_text(os.path.join(root, group, "cgroup.procs")) or "").split()
    texts = {name: read_text(os.path.join(root, group, name)) for name in LIMITS}
    return {"group": group if is_in else "", "values": {name: text.strip() for name, text in texts.items() if text}}


def write_into(path: str, text: str) -> None:
    """Write to a file of the kernel's, in one call and without making it."""
    number = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.write(number, text.encode())
    finally:
        os.close(number)


def act_confine(act: Json) -> Answer:
    """Put a process into a group of its own."""
    root = cgroup_root()
    if not root:
        return 1, "", "this host has no cgroup2"
    group = os.path.join(root, act["group"])
    above = os.path.dirname(group)
    for patience in range(20, -1, -1):
        try:
            os.makedirs(group, 0o755, exist_ok=True)
            break
        except FileNotFoundError:  # another machine's end took the empty directory above away meanwhile
            if not patience:
                raise
    there = (read_text(os.path.join(above, "cgroup.controllers")) or "").split()
    needed = {name.partition(".")[0] for name, _ in act["limits"]}
    for controller in sorted(needed.intersection(there)):
        write_into(os.path.join(above, "cgroup.subtree_control"), "+" + controller)
    for name, value in act["limits"]:
        write_into(os.path.join(group, name), value)
    pid, start = read_pid_file(act["pid_file"])
    until = time.monotonic() + 5.0
    while True:
        # who has just been started has no words for a moment: the kernel sets them after it closed what exec(2) closes
        has_words = bool(command_line(pid)[:-1])
        if proven(pid, start, act["token"]):
            break
        if pid <= 1 or has_words or not state_and_start(pid)[0] or time.monotonic() > until:
            return 1, "", f"no process of ours is named in {act['pid_file']}"
        time.sleep(LONGEST_WAIT_S)
    write_into(os.path.join(group, "cgroup.procs"), str(pid))
    return DONE, "", ""


def act_release(act: Json) -> Answer:
    """Remove a group in which nobody is any more; who is about to end is waited for."""
    root = cgroup_root()
    if not root:
        return DONE, "", ""
    group = os.path.join(root, act["group"])
    until = time.monotonic() + 5.0
    while True:
        try:
            os.rmdir(group)
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
            time.sleep(LONGEST_WAIT_S)
    try:
        os.rmdir(os.path.dirname(group))
    except OSError as error:  # others are in there, or it went already
        if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
            raise
    return DONE, "", ""
