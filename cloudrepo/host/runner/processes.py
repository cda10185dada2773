"""Processes: what they are, whether they are ours, and signals to exactly those."""

from __future__ import annotations

import os

from cloudrepo.host.runner.files import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def open_pidfd(pid: int) -> int:
    """A file that stands for exactly this process, or -1 where there is no such thing."""
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    except OSError:
        return -1


def send_signal(pid: int, number: int, pidfd: int = -1) -> None:
    """Send a signal; a process that is gone is content."""
    import signal

    try:
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5), field 3); empty when there is no process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (OSError, OverflowError):
        return []


def state_and_start(pid: int) -> tuple[str, int]:
    """The state letter and the start time in clock ticks; ("", 0) when nothing lives: a zombie is dead."""
    fields = stat_fields(pid)
    if len(fields) < 20 or fields[0] in "ZXx":
        return "", 0
    return fields[0], int(fields[19])


def processes() -> Iterator[tuple[int, int, int]]:
    """Pid, parent and session of every process."""
    for name in os.listdir("/proc"):
        fields = stat_fields(int(name)) if name.isdigit() else []
        if fields:
            yield int(name), int(fields[1]), int(fields[3])


def command_line(pid: int) -> list[str]:
    """The words of a process's command line; empty for kernel threads and the dead."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def holds(words: Iterable[str], token: str) -> bool:
    """Whether a word is the token, or has it between `=`, `,`, `:` and, after it, also `/`.

    So `/run/x/vm-1` is in `unix:/run/x/vm-1/qmp,server=on` and not in `/run/x/vm-10/qmp`.
    """
    for word in words:
        at = word.find(token) if token else -1
        while at >= 0:
            before, after = word[at - 1 : at] if at else "", word[at + len(token) :][:1]
            if before in ("", "=", ",", ":") and after in ("", ",", ":", "/"):
                return True
            at = word.find(token, at + 1)
    return False


def read_pid_file(path: str) -> tuple[int, int]:
    """Pid and start time (0 = not said) of a pid file; (0, 0) when there is none or it holds no number."""
    words = (read_text(path) or "").split()
    if not words or not all(word.isdigit() for word in words[:2]):
        return 0, 0
    return int(words[0]), int(words[1]) if len(words) > 1 else 0


def proven(pid: int, start: int, token: str) -> str:
    """The state letter of the process if it lives and is ours, else an empty text."""
    state, began = state_and_start(pid)
    if pid <= 1 or not state or (start and began != start) or not holds(command_line(pid), token):
        return ""
    return state
