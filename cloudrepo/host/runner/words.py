"""Commands: tuples of words that never meet a shell, under one deadline."""

from __future__ import annotations

import os
import select
import subprocess
import time

from cloudrepo.host.runner.accounts import account
from cloudrepo.host.runner.base import LONGEST_WAIT_S, NOT_RUN, OUT_OF_TIME, OUTPUT_LIMIT, environment, explain
from cloudrepo.host.runner.processes import open_pidfd, processes, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloudrepo.host.runner.base import Answer, Json


def launch(words: list[str], user: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start words in a session of their own; SIGPIPE is the default again and no other file is inherited."""
    options = dict({"env": environment, "cwd": "/", "start_new_session": True}, **options)
    if user:
        options.update(account(user))
    return subprocess.Popen(words, **options)


class Collector:
    """Feeds one stream and drains two, all at once, under one deadline."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes, deadline: float) -> None:
        self.process = process
        self.stdin = memoryview(stdin)
        self.deadline = deadline
        self.poll = select.poll()
        self.kept: dict[int, bytearray] = {}
        self.dropped = 0
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None  # noqa: S101  both were asked for
            self.kept[pipe.fileno()] = bytearray()
            self.poll.register(pipe.fileno(), select.POLLIN)
        self.open = set(self.kept)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self.poll.register(process.stdin.fileno(), select.POLLOUT)
        self.pidfd = open_pidfd(process.pid)
        if self.pidfd >= 0:
            self.poll.register(self.pidfd, select.POLLIN)

    def run(self) -> bool:
        """Until the process has ended and its streams too; False when the deadline came first."""
        lingering: float | None = None  # a daemon may keep the streams open: not waited for
        while self.open or self.process.poll() is None:
            now = time.monotonic()
            if lingering is None and self.process.poll() is not None:
                lingering = now + 0.2
            if lingering is not None and now >= lingering:
                return True
            if now >= self.deadline:
                return False
            left = (self.deadline if lingering is None else lingering) - now
            if self.pidfd < 0:
                left = min(left, LONGEST_WAIT_S)
            for number, _ in self.poll.poll(left * 1000 + 1):
                self._serve(number)
        return True

    def _serve(self, number: int) -> None:
        if number in self.kept:
            data = os.read(number, 1 << 16)
            room = OUTPUT_LIMIT - len(self.kept[number])
            self.kept[number] += data[:room]
            self.dropped += max(0, len(data) - room)
            if not data:
                self.poll.unregister(number)
                self.open.discard(number)
        elif number == self.pidfd:
            self.poll.unregister(number)  # the process has ended: process.poll() says so
        else:
            self._feed(number)

    def _feed(self, number: int) -> None:
        try:
            self.stdin = self.stdin[os.write(number, self.stdin[:65536]) :]
        except BrokenPipeError:
            self.stdin = self.stdin[:0]
        if not self.stdin:
            self.poll.unregister(number)
            self.process.stdin.close()  # type: ignore[union-attr]

    def close(self) -> None:
        """Give back every file of this process."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)


def run_words(words: list[str], stdin: str = "", user: str = "", timeout_s: float = 30.0) -> Answer:
    """Run words without a shell. 124 = out of time, 255 = could not be run, -N = ended by signal N."""
    data = stdin.encode()
    source = subprocess.PIPE if data else subprocess.DEVNULL
    try:
        process = launch(words, user, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except (OSError, KeyError, ValueError) as error:
        return NOT_RUN, "", f"could not run {words[0] if words else 'nothing'}: {explain(error)}"
    collector = Collector(process, data, time.monotonic() + timeout_s)
    try:
        in_time = collector.run()
        if not in_time:
            kill_tree(process.pid)
            process.wait()
        out, err = (bytes(kept).decode("utf-8", "replace") for kept in collector.kept.values())
    finally:
        collector.close()
    if collector.dropped:
        err += f"\n[{collector.dropped} bytes of output beyond {OUTPUT_LIMIT} were dropped]"
    if not in_time:
        return OUT_OF_TIME, out, err + f"\n[out of time after {timeout_s:g} s; killed with its children]"
    return process.returncode, out, err


def kill_tree(leader: int) -> None:
    """Kill a process we are the parent of, its session, and its descendants that left the session.

    The leader is not reaped yet, so neither its number nor that of its group can have been given away.
    """
    import signal

    family = {leader}
    for _ in range(20):  # a child born while we look is found in the next round
        grown = family | {pid for pid, parent, session in processes() if parent in family or session == leader}
        if grown == family:
            break
        family = grown
        for pid in family - {leader}:
            send_signal(pid, signal.SIGSTOP)
    for pid in family:
        send_signal(pid, signal.SIGKILL)


def act_run(act: Json) -> Answer:
    """Run words."""
    return run_words(act["words"], act["stdin"], act["user"], act["timeout_s"])
