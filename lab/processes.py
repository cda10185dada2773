"""Which process is meant, said in a way that survives reuse of process ids.

A process id alone may belong to somebody else tomorrow, and it is a different
number inside the lab (where ``lab exec -- pytest`` may want to kill a host)
than outside.  A process is therefore known by its start time and by the
namespaces it lives in; the id is only where to look first.
"""

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

_STATE_FIELD = 0
_START_FIELD = 19
_DEAD_STATES = frozenset("ZX")


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, recognisable from any PID namespace that can see it.

    Attributes:
        pid: The id in the namespace of whoever recorded it.
        start: Start time in clock ticks since boot of the machine.
        pid_ns: Inode of its PID namespace.
        mnt_ns: Inode of its mount namespace.
    """

    pid: int
    start: int
    pid_ns: int
    mnt_ns: int

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """Describe the process that has this id now.

        Raises:
            ProcessLookupError: If there is none, or only its corpse.
        """
        identity = _identify(pid)
        if identity is None:
            raise ProcessLookupError(pid)
        return identity

    def find(self) -> int | None:
        """Return the id of this process as seen from here, None when it ended."""
        if self._matches(self.pid):
            return self.pid
        # Either it is gone or we are in another PID namespace than its recorder.
        candidates = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return next((pid for pid in candidates if self._matches(pid)), None)

    def _matches(self, pid: int) -> bool:
        if _start_time(pid) != self.start:
            return False
        found = _identify(pid)
        return found is not None and (found.pid_ns, found.mnt_ns) == (self.pid_ns, self.mnt_ns)

    def kill(self, timeout: float = 10.0) -> bool:
        """Kill it with SIGKILL and wait until it is gone.

        For the first process of a PID namespace this also ends, and waits for,
        every process of that namespace.

        Returns:
            Whether there was anything to kill.

        Raises:
            TimeoutError: If it is still there after ``timeout`` seconds.
        """
        pid = self.find()
        if pid is None:
            return False
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if not self._matches(pid):
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            waiting = select.poll()  # select() knows no descriptor above 1023
            waiting.register(descriptor, select.POLLIN)
            if not waiting.poll(timeout * 1000):
                raise TimeoutError(f"process {pid} did not end within {timeout:g} s")
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command name may hold spaces and brackets; the fields follow the last one.
    return text.rpartition(")")[2].split()


def _start_time(pid: int) -> int | None:
    """Start time of a living process; a zombie counts as gone."""
    fields = _stat_fields(pid)
    if not fields or fields[_STATE_FIELD] in _DEAD_STATES:
        return None
    return int(fields[_START_FIELD])


def _identify(pid: int) -> ProcessIdentity | None:
    start = _start_time(pid)
    if start is None:
        return None
    try:
        pid_ns = os.stat(f"/proc/{pid}/ns/pid").st_ino
        mnt_ns = os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return None
    return ProcessIdentity(pid=pid, start=start, pid_ns=pid_ns, mnt_ns=mnt_ns)
