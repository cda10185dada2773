"""The acts that look at a host and change nothing."""

from __future__ import annotations

import os
import stat
import time

from cloudrepo.host.runner.accounts import account_name
from cloudrepo.host.runner.base import DONE, in_parallel, to_json
from cloudrepo.host.runner.processes import command_line, state_and_start
from cloudrepo.host.runner.words import run_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloudrepo.host.runner.base import Answer, Json


def file_facts(path: str) -> Json | None:
    """Size, time, mode, owner and kind of a file; None when it is not there."""
    try:
        facts = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = "dir" if stat.S_ISDIR(facts.st_mode) else "link" if stat.S_ISLNK(facts.st_mode) else "file"
    mode = stat.S_IMODE(facts.st_mode)
    return {
        "size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "mode": mode, "uid": facts.st_uid,
        "owner": account_name(facts.st_uid), "file": f"{facts.st_dev}:{facts.st_ino}", "kind": kind,
    }  # fmt: skip


def act_files(act: Json) -> Answer:
    """Facts of files."""
    paths = list(act["paths"])
    if act["directory"]:
        try:
            paths += [os.path.join(act["directory"], name) for name in sorted(os.listdir(act["directory"]))]
        except (FileNotFoundError, NotADirectoryError):
            pass  # no directory, no entries
    return DONE, to_json({path: file_facts(path) for path in paths}), ""


def network_of(path: str) -> int:
    """The network namespace that a file stands for; 0 when it cannot be seen."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def act_processes(act: Json) -> Answer:
    """The processes of some programs, wherever they are."""
    spaces = {0: "", network_of("/proc/self/ns/net"): ""}
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        spaces.setdefault(network_of(os.path.join("/run/netns", name)), name)
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        words = command_line(pid)[:-1]  # each word ends with a zero byte
        first = next((n for n, word in enumerate(words[:2]) if os.path.basename(word) in act["names"]), None)
        state, start = state_and_start(pid) if first is not None else ("", 0)
        if state:
            space = spaces.get(network_of(f"/proc/{pid}/ns/net"), "?")
            found.append({"pid": pid, "start": start, "state": state, "words": words[first:], "namespace": space})
    return DONE, to_json(found), ""


def act_namespaces(act: Json) -> Answer:
    """Run the words in each network namespace."""
    try:
        names = sorted(name for name in os.listdir("/run/netns") if name.startswith(act["prefix"]))
    except (FileNotFoundError, NotADirectoryError):
        names = []

    def ask(name: str) -> Json:
        # `ip -n` only enters the namespace; `ip netns exec` also mounts /sys anew, which costs twice as much
        enter = ["ip", "-n", name] if act["words"][0] == "ip" else ["ip", "netns", "exec", name, act["words"][0]]
        status, out, err = run_words(enter + act["words"][1:], timeout_s=act["timeout_s"])
        return {"status": status, "out": out, "err": err}

    return DONE, to_json(dict(zip(names, in_parallel(ask, names)))), ""  # noqa: B905  zip has no `strict` in 3.8


def act_checksum(act: Json) -> Answer:
    """SHA-256 of a file or of its beginning."""
    import hashlib

    digest = hashlib.sha256()
    try:
        with open(os.open(act["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            left = act["length"] or size
            while left > 0:
                data = file.read(min(left, 1 << 20))
                if not data:
                    break
                digest.update(data)
                left -= len(data)
    except FileNotFoundError:
        return 1, "", ""
    return DONE, to_json({"sha256": digest.hexdigest(), "size": size}), ""


def act_measure(act: Json) -> Answer:
    """How long it takes until so many bytes are on the disk of a folder: in a file without a name, open(2)."""
    path = act["path"]
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    block, left = os.urandom(1 << 20), act["size"]
    number = os.open(path, os.O_TMPFILE | os.O_WRONLY, 0o600)
    try:
        began = time.monotonic()
        while left > 0:
            left -= os.write(number, block[:left])
        os.fdatasync(number)
        seconds = time.monotonic() - began
    finally:
        os.close(number)
    return DONE, to_json({"bytes": act["size"], "seconds": seconds}), ""
