"""Who is at work on a record: a process that others can recognise as dead."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from typing import Any

_lock = threading.Lock()
_at_work: set[tuple[str, int]] = set()  # operations this process is at, by state file and number


def this_process() -> str:
    """This process as `host:pid:start:boot`, so that its end is recognised, also when its number is given again.

    `start` is in clock ticks since the boot, `boot` the kernel's name for this boot.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_start_ticks(os.getpid())}:{_boot()}"


def is_dead(process: str) -> bool:
    """Whether a process is known to be gone; one on another host is not known."""
    host, pid, ticks, boot = (*process.split(":"), "", "", "")[:4]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    if boot and boot != _boot():
        return True
    return _start_ticks(int(pid)) != ticks


def is_elsewhere(process: str) -> bool:
    """Whether a process is on another host, so that nobody here can know whether it lives."""
    return process.partition(":")[0] != socket.gethostname()


def described(process: str) -> str:
    """A process in a person's words: `process 4711 on manager`."""
    host, pid, *_ = (*process.split(":"), "")
    return f"process {pid} on {host}" if pid else "an unknown process"


def begin_work(state: str, number: int) -> None:
    """Note that this process is at an operation, before anybody can read of it."""
    with _lock:
        _at_work.add((state, number))


def end_work(state: str, number: int) -> None:
    """Note that it is not any more, however it ended."""
    with _lock:
        _at_work.discard((state, number))


def is_abandoned(state: str, operation: Mapping[str, Any]) -> bool:
    """Whether nobody is at an operation any more: its process is dead, or its thread in this process has ended.

    Args:
        state: the path of the state file.
        operation: as recorded.
    """
    process = str(operation.get("process", ""))
    if process == this_process():
        with _lock:
            return (state, operation.get("number")) not in _at_work
    return not process or is_dead(process)


def _boot() -> str:
    """The kernel's name for this boot, without dashes."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip().replace("-", "")


def _start_ticks(pid: int) -> str:
    """Start time of a process in clock ticks since boot (proc(5), stat field 22); empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
