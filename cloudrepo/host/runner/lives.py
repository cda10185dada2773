"""The acts that begin the life of a process, talk to it, and end it."""

from __future__ import annotations

import os
import select
import stat
import subprocess
import sys
import time

from cloudrepo.host.runner.accounts import account, give
from cloudrepo.host.runner.base import DONE, LONGEST_WAIT_S, NOT_RUN, explain, to_json
from cloudrepo.host.runner.files import tail, write_whole
from cloudrepo.host.runner.processes import open_pidfd, proven, read_pid_file, send_signal, state_and_start
from cloudrepo.host.runner.qmp import Qmp, QmpError, ask_qmp, command
from cloudrepo.host.runner.words import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloudrepo.host.runner.base import Answer, Json

spawned: dict[str, subprocess.Popen[bytes]] = {}  # by log: what this message started


def act_spawn(act: Json) -> Answer:
    """Start a process that outlives the message."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    log = os.open(act["log"], flags, 0o600)
    facts = os.fstat(log)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:  # the account may have put it there
        os.close(log)
        return NOT_RUN, "", f"{act['log']} is no file of its own"
    os.ftruncate(log, 0)
    os.set_blocking(log, True)
    options: Json = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
    if sys.version_info < (3, 9):  # noqa: UP036  hosts may be older than the orchestrator
        become = account(act["user"]).get("preexec_fn") if act["user"] else None
        options["preexec_fn"] = lambda: (os.umask(0o077), become and become())
    else:
        options["umask"] = 0o077
    try:
        give(log, act["user"])
        process = launch(act["words"], act["user"], **options)
    except (OSError, KeyError, ValueError) as error:
        return NOT_RUN, "", f"could not run {act['words'][0]}: {explain(error)}"
    finally:
        os.close(log)
    spawned[act["log"]] = process
    if act["pid_file"]:
        _, start = state_and_start(process.pid)
        write_whole(act["pid_file"], b"%d %d\n" % (process.pid, start), 0o644, "", False)
    if act["settle_s"] > 0:
        try:
            status = process.wait(act["settle_s"])
            return status or 1, "", f"ended at once with status {status}. {tail(act['log'])}"
        except subprocess.TimeoutExpired:
            pass  # it lives: that is what was asked for
    return DONE, str(process.pid), ""


def act_qmp(act: Json) -> Answer:
    """Ask a QMP socket."""
    process = spawned.get(act["log"]) if act["log"] else None
    try:
        qmp = Qmp(
            act["socket"],
            time.monotonic() + act["timeout_s"],
            lambda: process is not None and process.poll() is not None,
        )
        try:
            if act["expect_uuid"]:
                found = qmp.ask(command("query-uuid")).get("UUID", "")
                if found.lower() != act["expect_uuid"].lower():
                    return 1, "", f"another machine answers on {act['socket']}: {found}"
            return DONE, to_json([qmp.ask(dict(each)) for each in act["commands"]]), ""
        finally:
            qmp.close()
    except QmpError as error:
        last_words = tail(act["log"]) if act["log"] else ""
        return 1, "", f"{error}. {last_words}" if last_words else str(error)


def act_stop(act: Json) -> Answer:
    """End one process that is provably ours."""
    pid, start = read_pid_file(act["pid_file"]) if act["pid_file"] else (act["pid"], act["start"])
    pidfd = open_pidfd(pid) if pid > 1 else -1  # opened before the proof: the proof then holds for it
    try:
        if not proven(pid, start, act["token"]):
            return DONE, "gone", ""
        return Stopping(act, pid, state_and_start(pid)[1], pidfd).run()
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def act_signal(act: Json) -> Answer:
    """Send one signal to a process that is provably ours."""
    import signal

    pid, start = read_pid_file(act["pid_file"])
    pidfd = open_pidfd(pid) if pid > 1 else -1
    try:
        if not proven(pid, start, act["token"]):
            return 1, "", f"no process of ours is named in {act['pid_file']}"
        send_signal(pid, getattr(signal, f"SIG{act['signal']}"), pidfd)
        return DONE, "", ""
    finally:
        if pidfd >= 0:
            os.close(pidfd)


class Stopping:
    """The stages that end one process, which is proven ours."""

    def __init__(self, act: Json, pid: int, start: int, pidfd: int) -> None:
        self.act, self.pid, self.start, self.pidfd = act, pid, start, pidfd

    def run(self) -> Answer:
        """Stage by stage until it is gone; the answer names the stage."""
        import signal

        quit_s = self.act["quit_s"]
        if self._is_stopped() and self._is_gone_in(quit_s, unless_it_continues=True):
            return DONE, "gone", ""
        if not self._is_stopped():
            if self.act["socket"]:
                for stage, word, patience in (
                    ("powerdown", "system_powerdown", self.act["grace_s"]),
                    ("quit", "quit", quit_s),
                ):
                    if patience > 0 and self._tell(word) and self._is_gone_in(patience):
                        return DONE, stage, ""
            else:
                self._signal(signal.SIGTERM)
                if self._is_gone_in(quit_s):
                    return DONE, "term", ""
        self._signal(signal.SIGKILL)
        if self._is_gone_in(5.0):
            return DONE, "kill", ""
        return 1, "", f"process {self.pid} does not end, even killed (state {state_and_start(self.pid)[0]})"

    def _is_stopped(self) -> bool:
        return state_and_start(self.pid)[0] in ("T", "t")

    def _tell(self, word: str) -> bool:
        """Whether the socket took the command; it may break at `quit`, since QEMU then goes."""
        try:
            ask_qmp(self.act["socket"], 1.0, command(word))
        except QmpError:
            return not self._lives() or word == "quit"
        return True

    def _signal(self, number: int) -> None:
        if self.pidfd >= 0 or proven(self.pid, self.start, self.act["token"]):
            send_signal(self.pid, number, self.pidfd)

    def _lives(self) -> bool:
        state, began = state_and_start(self.pid)
        return bool(state) and began == self.start

    def _is_gone_in(self, seconds: float, unless_it_continues: bool = False) -> bool:
        """Wait; True when the process has ended (a zombie has)."""
        until = time.monotonic() + seconds
        waiting = select.poll()
        if self.pidfd >= 0:
            waiting.register(self.pidfd, select.POLLIN)
        while self._lives():
            left = until - time.monotonic()
            if left <= 0 or (unless_it_continues and not self._is_stopped()):
                return False
            is_waitable = self.pidfd >= 0 and not unless_it_continues
            waiting.poll((left if is_waitable else min(left, LONGEST_WAIT_S)) * 1000 + 1)
        return True
