"""Runs plans on a host, each in a process of its own. Sent over SSH; nothing of it stays there.

One file, standard library only, Python 3.8 or newer. The bootstrap in `message.py` has read and verified the
whole message before this begins, so a cut message never gets here. It ends with the connection, or when no further plan
came for a while. While a plan runs:

* stdin carries control lines: `beat` (still here), `open GATE`, `close GATE REASON`, `stop`. End of file, or
  nothing heard for `lease_s` seconds, means that the orchestrator is gone.
* stdout carries one JSON object per line: `begin` and `end` of each step, `gate`, `refused`,
  `crashed`, and as the last line `done`.

Nothing new is begun once the orchestrator is gone or has said `stop`; a step that runs is let end. The acts
and their fields are those of `cloudrepo/plan.py`. Imports that are not always needed are made where they are.
"""

from __future__ import annotations

import errno
import json
import os
import select
import stat
import subprocess
import sys
import threading
import time

try:
    from _sha256 import sha256  # type: ignore[import-not-found]  # spares OpenSSL, which is slow to load
except ImportError:
    from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Json = dict[str, Any]
    Answer = tuple[int, str, str]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT = 4 << 20  # bytes kept of each stream of a step
FILE_LIMIT = 1 << 20
LARGEST = 256 << 20  # bytes of a message, unpacked
TAIL = 2000  # characters of a log that go into an error
OBSERVERS = 4  # observations asked at a time
PIPE_CHUNK = 4096  # PIPE_BUF: a write this small to a pipe that polls writable does not block
LONGEST_WAIT_S = 0.02  # between two looks at something that cannot be waited for
FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # where cgroup2 is: alone, or beside cgroup1
LIMITS = ("cpu.max", "memory.max", "pids.max")
IDLE_S = 30.0  # how long a runner waits for another plan
EVERYTHING = "*"  # the scope of a message that speaks for all others
NAMES = {EVERYTHING: "this installation", "shared": "what all slices share", "manual": "what was made by hand"}
SCOPES_KEPT = 64  # in the file of fences; those seen longest ago are forgotten, and all operations as old with them

DONE, OUT_OF_TIME, NOT_RUN = 0, 124, 255

environment = {"PATH": PATH, "LC_ALL": "C", "HOME": "/"}  # of every command; filled by main()
spawned = {}  # type: dict[str, subprocess.Popen[bytes]]  # by log: what this message started


# ── talking to the orchestrator ─────────────────────────────────────────────────────────────────────────


class Control:
    """The orchestrator's end of the line: what it says, whether it is still there."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.heard = time.monotonic()
        self.ending = ""
        self.is_gone = False
        self.gates = {}  # type: dict[str, str]  # "" = open, else why it was closed
        self.news = threading.Condition()
        self.writing = threading.Lock()

    def listen(self) -> None:
        """Read control lines until the end of stdin; runs in a thread of its own."""
        rest = b""
        while True:
            try:
                data = os.read(0, 65536)
            except OSError:
                data = b""
            *lines, rest = (rest + data).split(b"\n")
            with self.news:
                self.heard = time.monotonic()
                for line in lines:
                    self._obey(line.decode("utf-8", "replace"))
                if not data:
                    self._gone("connection lost")
                    return
                self.news.notify_all()

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "stop":
            self.ending = self.ending or "stopped"
        elif word == "open":
            self.gates.setdefault(rest, "")
        elif word == "close":
            name, _, reason = rest.partition(" ")
            self.gates.setdefault(name, reason or "closed")

    def _gone(self, why: str) -> None:
        with self.news:
            self.ending = self.ending or why
            self.is_gone = True
            self.news.notify_all()

    def why_stop(self) -> str:
        """Why no further step may begin, or an empty text."""
        if not self.ending and time.monotonic() - self.heard > self.lease_s:
            self._gone(f"nothing heard from the orchestrator for {self.lease_s:g} s")
        return self.ending

    def wait_gate(self, name: str) -> str:
        """Stand at a gate; empty when it was opened, else why the plan ends here."""
        self.say(event="gate", name=name)
        with self.news:
            while name not in self.gates and not self.why_stop():
                self.news.wait(min(1.0, self.lease_s))
            if name in self.gates:
                reason = self.gates[name]
                return f"gate {name} closed: {reason}" if reason else self.ending
            return self.ending

    def say(self, **event: Any) -> None:
        """Send one line. A peer that reads nothing for a whole lease counts as gone; nothing ever blocks for good."""
        data = memoryview(to_json(event).encode() + b"\n")
        with self.writing:
            if self.is_gone:
                return
            waiting = select.poll()
            waiting.register(1, select.POLLOUT)
            while data:
                try:
                    if not waiting.poll(self.lease_s * 1000):
                        return self._gone("the orchestrator reads nothing")
                    data = data[os.write(1, data[:PIPE_CHUNK]) :]
                except OSError:
                    return self._gone("connection lost")


def to_json(value: Any) -> str:
    """A value as JSON whose texts can be printed and stored: half a character is written out by its number."""
    text = json.dumps(value, separators=(",", ":"))
    return json.dumps(whole(value), separators=(",", ":")) if "\\ud" in text else text


def whole(value: Any) -> Any:
    """A plain value without half characters, which `os.listdir` makes of bytes of a name that are no UTF-8."""
    if isinstance(value, dict):
        return {whole(key): whole(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(entry) for entry in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


# ── whose turn it is ────────────────────────────────────────────────────────────────────────────────────


class Refused(Exception):
    """The message is not taken; nothing was changed."""

    def __init__(self, code: str, text: str, **facts: Any) -> None:
        super().__init__(text)
        self.event = dict(event="refused", code=code, text=text, **facts)  # `event` first: the reader looks for it


class Fence:
    """Whose turn it is on this host, for each scope of this installation: a slice, what all share, or everything.

    Two files. `lock` is empty: a byte of it is locked for each scope, so no file is left behind for each slice.
    `fences` is JSON: `changes` counts the beginnings and ends of all messages, `scopes` has for each scope the
    highest operation number seen and the count at its last beginning or end, and operations below `floor` are late
    for every scope. Who reads a scope's count before looking at the host can so have a message refused when the
    host may have changed since.
    """

    def __init__(self, plan: Json, control: Control) -> None:
        self.control = control
        self.number = plan["operation"]
        self.scopes = sorted(plan["scopes"])
        self.seen = plan["seen"]
        self.patience = time.monotonic() + plan["lock_wait_s"]
        self.path = os.path.join(plan["fence_dir"], "fences")
        os.makedirs(plan["fence_dir"], 0o700, exist_ok=True)
        self.lock = os.open(os.path.join(plan["fence_dir"], "lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def enter(self) -> None:
        """Take the locks, then let nobody older pass. A message that is late is refused without waiting."""
        for scope in self.scopes:
            while not self._lock(scope):
                holder = self._check(self._read(), scope)
                if self.control.why_stop():
                    raise Refused("gone", self.control.ending)
                if time.monotonic() > self.patience:
                    text = f"operation {holder} holds the lock of {NAMES.get(scope, 'slice ' + scope)} on this host"
                    raise Refused("lock", text, holder=str(holder))
                time.sleep(LONGEST_WAIT_S)
        self._note(is_beginning=True)

    def leave(self) -> None:
        """What was seen of the host until now is out of date; the next may enter."""
        self._note(is_beginning=False)
        os.close(self.lock)

    def _lock(self, scope: str) -> bool:
        import fcntl
        import zlib

        # byte 0 guards the file of fences; everything is all the other bytes
        first, length = (1, 0) if scope == EVERYTHING else (1 + zlib.crc32(scope.encode()), 1)
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB, length, first)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _read(self) -> Json:
        text = read_text(self.path) or '{"changes": 0, "floor": 0, "scopes": {}}'
        try:
            found = json.loads(text)
            for number, count in [(found["floor"], found["changes"]), *found["scopes"].values()]:
                int(number), int(count)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused("fence", f"{self.path} is damaged: {text[:40]!r}") from None
        return dict(found)

    def _check(self, found: Json, scope: str) -> int:
        """Refuse what is late for a scope; returns the highest number seen there."""
        number, count = found["scopes"].get(scope, (0, 0))
        if scope == EVERYTHING:
            number = max([number, *(each for each, _ in found["scopes"].values())])
            count = found["changes"]
        highest = max(number, found["floor"])
        if self.number < highest:
            text = f"operation {self.number} came too late: operation {highest} was already here"
            raise Refused("operation", text, seen=highest)
        if count != self.seen.get(scope, count):
            raise Refused("changed", f"operation {highest} was here since the host was looked at", seen=highest)
        return int(highest)

    def _note(self, is_beginning: bool) -> None:
        """Count a beginning, which is checked once more and durable, or an end."""
        import fcntl

        fcntl.lockf(self.lock, fcntl.LOCK_EX, 1, 0)
        try:
            found = self._read()
            scopes = found["scopes"]
            if is_beginning:
                for scope in self.scopes:
                    self._check(found, scope)
            found["changes"] += 1
            for scope in [*scopes] if EVERYTHING in self.scopes else self.scopes:
                scopes[scope] = [max(self.number, scopes.get(scope, (0, 0))[0]), found["changes"]]
            if EVERYTHING in self.scopes:
                found["floor"] = max(found["floor"], self.number)
            for scope in sorted(scopes, key=lambda each: scopes[each][0])[:-SCOPES_KEPT]:
                found["floor"] = max(found["floor"], scopes.pop(scope)[0])
            write_whole(self.path, json.dumps(found).encode() + b"\n", 0o600, "", is_beginning)
        finally:
            fcntl.lockf(self.lock, fcntl.LOCK_UN, 1, 0)


# ── running words ───────────────────────────────────────────────────────────────────────────────────────


def ids_of(user: str) -> tuple[int, int]:
    """The number of an account and of its group; a number alone is both, and need be no account's."""
    if user.isdigit():
        return int(user), int(user)
    import pwd

    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def groups_of(user: str, gid: int) -> list[int]:
    """The groups of an account. Who is a number alone may use KVM where a group may, and is in no other."""
    if not user.isdigit():
        return os.getgrouplist(user, gid)
    try:
        facts = os.stat("/dev/kvm")
    except OSError:
        return []
    is_for_group = facts.st_gid and stat.S_ISCHR(facts.st_mode) and facts.st_mode & 0o060 == 0o060
    return [facts.st_gid] if is_for_group else []


def account(user: str) -> Json:
    """Arguments of `Popen` that make the child run as this account or number, and its home."""
    uid, gid = ids_of(user)
    home = "/"
    if not user.isdigit():
        import pwd

        home = pwd.getpwnam(user).pw_dir
    known = {"env": dict(environment, HOME=home, USER=user, LOGNAME=user)}  # type: Json
    if uid == os.geteuid():
        return known
    groups = groups_of(user, gid)

    def become() -> None:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)

    if sys.version_info < (3, 9):  # noqa: UP036  hosts may be older than the orchestrator
        return dict(known, preexec_fn=become)
    return dict(known, user=uid, group=gid, extra_groups=groups)


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
        self.kept = {}  # type: dict[int, bytearray]
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
        lingering = None  # type: float | None  # a daemon may keep the streams open: not waited for
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


# ── processes: what they are, whether they are ours ─────────────────────────────────────────────────────


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


# ── QMP ─────────────────────────────────────────────────────────────────────────────────────────────────


class QmpError(Exception):
    """QEMU refused a command, or did not answer."""


class Qmp:
    """One conversation with a QMP socket (QEMU's qmp-spec): greeting, capabilities, commands."""

    def __init__(self, path: str, deadline: float, is_dead: Callable[[], bool] = lambda: False) -> None:
        import socket

        self.deadline = deadline
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.socket.settimeout(max(0.05, deadline - time.monotonic()))
                connect_to(self.socket, path)
                break
            except OSError as error:
                self.socket.close()
                if is_dead():
                    raise QmpError("QEMU has ended") from None
                if time.monotonic() >= deadline or error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                    raise QmpError(f"{path} does not answer: {explain(error)}") from None
                time.sleep(0.005)
        self.lines = self.socket.makefile("rb")
        try:
            self._next("QMP")
            self.ask({"execute": "qmp_capabilities"})
        except QmpError:
            self.close()
            raise

    def ask(self, command: Json) -> Any:
        """Run one command and return its `return` value; events in between are passed over."""
        try:
            self.socket.sendall(json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"the QMP socket broke: {explain(error)}") from None
        answer = self._next("return", "error")
        if "error" in answer:
            raise QmpError(f"{command.get('execute')}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    def _next(self, *keys: str) -> Json:
        while True:
            try:
                self.socket.settimeout(max(0.001, self.deadline - time.monotonic()))
                line = self.lines.readline()
                message = json.loads(line) if line else None
            except (OSError, ValueError) as error:
                raise QmpError(f"no answer from the QMP socket: {explain(error)}") from None
            if message is None:
                raise QmpError("QEMU closed the QMP socket")
            if any(key in message for key in keys):
                return dict(message)

    def close(self) -> None:
        """End the conversation."""
        self.lines.close()
        self.socket.close()


def connect_to(peer: Any, path: str) -> None:
    """Connect to the Unix socket at a path, never to what a symlink there leads to.

    Whoever QEMU runs as may put anything into its machine's directory, and this is root.
    """
    number = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), path)
        peer.connect(f"/proc/self/fd/{number}")
    finally:
        os.close(number)


def ask_qmp(path: str, within_s: float, *commands: Json) -> list[Any]:
    """Run commands on a socket that should answer at once."""
    qmp = Qmp(path, time.monotonic() + within_s)
    try:
        return [qmp.ask(command) for command in commands]
    finally:
        qmp.close()


def command(name: str) -> Json:
    """A QMP command without arguments."""
    return {"execute": name}


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────


def explain(error: BaseException) -> str:
    """What went wrong, in the system's words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def read_text(path: str) -> str | None:
    """The text of a file, at most 1 MiB; None when it is not there. A symlink is no file."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            return file.read(FILE_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def tail(path: str) -> str:
    """The last words of a log."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read(TAIL).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def give(number: int, user: str) -> None:
    """Make an open file the account's own."""
    if user:
        uid, gid = ids_of(user)
        if os.fstat(number).st_uid != uid:
            os.fchown(number, uid, gid)


def write_whole(path: str, data: bytes, mode: int, user: str, durable: bool) -> None:
    """Replace a file by another one; nobody ever sees half of it."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{os.getpid()}.{threading.get_ident()}.new")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(number, "wb") as file:
            file.write(data)
            give(number, user)
            os.fchmod(number, mode)
            file.flush()
            if durable:
                os.fsync(number)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(parent)
        os.close(parent)


def is_same_file(path: str, other: str) -> bool:
    """Whether two paths are names of one file; symlinks are not followed."""
    try:
        first, second = os.lstat(path), os.lstat(other)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def remove_tree(path: str) -> None:
    """Remove a directory and what is in it; symlinks are removed, never followed."""
    for _, directories, files, parent in os.fwalk(path, topdown=False, follow_symlinks=False):
        for name in files:
            os.unlink(name, dir_fd=parent)
        for name in directories:
            if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
            else:
                os.rmdir(name, dir_fd=parent)
    os.rmdir(path)


# ── the acts ────────────────────────────────────────────────────────────────────────────────────────────


def act_run(act: Json) -> Answer:
    """Run words."""
    return run_words(act["words"], act["stdin"], act["user"], act["timeout_s"])


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
    options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}  # type: Json
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


def act_write(act: Json) -> Answer:
    """Write a file whole."""
    write_whole(act["path"], act["text"].encode(), act["mode"], act["user"], act["durable"])
    return DONE, "", ""


def act_read(act: Json) -> Answer:
    """Read a text file."""
    text = read_text(act["path"])
    return (1, "", "") if text is None else (DONE, text, "")


def act_mkdir(act: Json) -> Answer:
    """Make a directory; mode and owner are those of the last one."""
    for patience in range(20, -1, -1):
        try:
            os.makedirs(act["path"], 0o755, exist_ok=True)
            number = os.open(act["path"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            break
        except FileNotFoundError:  # another slice's last machine here took the empty parent away meanwhile
            if not patience:
                raise
    try:
        give(number, act["user"])
        os.fchmod(number, act["mode"])
    finally:
        os.close(number)
    return DONE, "", ""


def act_remove(act: Json) -> Answer:
    """Remove exactly one thing, and only within a given directory."""
    name = os.path.basename(act["path"])
    path = os.path.join(os.path.realpath(os.path.dirname(act["path"])), name)
    within = os.path.realpath(act["within"])
    if name in ("", ".", "..") or within == "/" or not path.startswith(within + "/"):
        return 1, "", f"refused: {path} is not within {within}"
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return DONE, "", ""
    if act["same_as"] and not is_same_file(path, act["same_as"]):
        return DONE, "", ""
    if not is_directory:
        os.unlink(path)
    elif act["tree"]:
        remove_tree(path)
    else:
        return 1, "", f"refused: {path} is a directory"
    return DONE, "", ""


def act_remove_if_empty(act: Json) -> Answer:
    """Remove a directory that others use too: what they put into it meanwhile stays, and they may be first."""
    try:
        os.rmdir(act["path"])
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
    return DONE, "", ""


def act_require(act: Json) -> Answer:
    """See that a file is there."""
    return (DONE, "", "") if os.path.isfile(act["path"]) else (1, "", f"there is no file {act['path']}")


def act_publish(act: Json) -> Answer:
    """Give a file its owner and mode, then a second name."""
    number = os.open(act["draft"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        give(number, act["user"])
        os.fchmod(number, act["mode"])
    finally:
        os.close(number)
    try:
        os.link(act["draft"], act["path"], follow_symlinks=False)
    except FileExistsError:
        if not is_same_file(act["draft"], act["path"]):
            return 1, "", f"{act['path']} is there already"
    return DONE, "", ""


def act_adopt(act: Json) -> Answer:
    """Make a file of ours of a draft; what another account wrote is copied."""
    import pwd

    owner = pwd.getpwnam(act["owner"])
    draft = os.open(act["draft"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    temporary = ""
    number = draft
    try:
        facts = os.fstat(draft)
        if not stat.S_ISREG(facts.st_mode):
            return 1, "", f"{act['draft']} is no regular file"
        if facts.st_uid != owner.pw_uid:
            temporary = f"{act['path']}.{os.getpid()}.new"
            number = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            found = copy_file(draft, number, facts.st_size)
            if found != act["sha256"]:
                os.unlink(temporary)
                return 1, "", f"{act['draft']} was changed: SHA-256 {found}, wanted {act['sha256']}"
        if os.fstat(number).st_uid != owner.pw_uid:
            os.fchown(number, owner.pw_uid, owner.pw_gid)
        os.fchmod(number, act["mode"])
        os.utime(number, (act["mtime_s"], act["mtime_s"]))
        os.fsync(number)
        os.rename(temporary or act["draft"], act["path"])
        if temporary:
            os.unlink(act["draft"])
    finally:
        os.close(draft)
        if temporary:
            os.close(number)
    return DONE, "", ""


def copy_file(source: int, target: int, size: int) -> str:
    """Copy an open file, holes as holes, and return the SHA-256 of what was copied, in hex."""
    import fcntl
    import hashlib

    digest = hashlib.sha256()
    try:
        fcntl.ioctl(target, FICLONE, source)
        is_shared = True
    except OSError:  # another file system, or one that shares no blocks
        is_shared = False
        os.ftruncate(target, size)
    place = 0
    while place < size:
        data = os.pread(target if is_shared else source, 1 << 20, place)
        if not data:
            break
        digest.update(data)
        if not is_shared and data.count(0) != len(data):
            view, at = memoryview(data), place
            while view:
                written = os.pwrite(target, view, at)
                view, at = view[written:], at + written
        place += len(data)
    return digest.hexdigest()


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


def directories(root: str, prefix: str) -> list[str]:
    """The directories in `root` whose names begin with `prefix`."""
    try:
        names = sorted(os.listdir(root))
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [os.path.join(root, name) for name in names if name.startswith(prefix)]
    return [path for path in paths if os.path.isdir(path) and not os.path.islink(path)]


def machine(act: Json, path: str) -> Json:
    """What is known of the machine in one directory."""
    mark = read_text(os.path.join(path, "mark"))
    uuid = (mark or "").partition("\n")[2].partition("\n")[0].strip()
    pid, start = read_pid_file(os.path.join(path, act["pid_file"]))
    state, began = state_and_start(pid) if pid else ("", 0)
    alive = bool(uuid and proven(pid, start, uuid))
    facts = {"dir": path, "mark": mark, "pid": pid or None, "alive": alive, "start_time": began or None}  # type: Json
    facts.update(process_state=state or None, uuid=None, status=None, limits=held_by(act, path, pid))
    if alive and state not in ("T", "t"):
        try:
            socket_path = os.path.join(path, act["socket"])
            found, status = ask_qmp(socket_path, 1.0, command("query-uuid"), command("query-status"))
            facts.update(uuid=found.get("UUID"), status=status.get("status"))
        except QmpError:
            pass  # both stay null: the socket did not answer
    return facts


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


def act_machines(act: Json) -> Answer:
    """What lives in the machine directories."""
    found = in_parallel(lambda path: machine(act, path), directories(act["root"], "vm-"))
    return DONE, to_json(found), ""


def act_servers(act: Json) -> Answer:
    """What lives in the directories of servers."""
    found = []
    for path in directories(act["root"], act["prefix"]):
        pid, start = read_pid_file(os.path.join(path, act["pid_file"]))
        files = {name: read_text(os.path.join(path, name)) for name in act["files"]}
        alive = bool(pid and proven(pid, start, path))
        found.append({"dir": path, "files": files, "pid": pid or None, "alive": alive})
    return DONE, to_json(found), ""


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


def account_name(uid: int) -> str:
    """The name of an account, or its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def act_files(act: Json) -> Answer:
    """Facts of files."""
    paths = list(act["paths"])
    if act["directory"]:
        try:
            paths += [os.path.join(act["directory"], name) for name in sorted(os.listdir(act["directory"]))]
        except (FileNotFoundError, NotADirectoryError):
            pass  # no directory, no entries
    return DONE, to_json({path: file_facts(path) for path in paths}), ""


def disk(path: str, kept: str) -> Json:
    """What the directory of one disk says, and whether it is so."""
    text = read_text(os.path.join(path, "mark.json"))
    try:
        fields = json.loads(text or "")
        named = {"disk": fields.get("disk"), "base": fields.get("base", {}).get("path_on_host")}
    except (ValueError, AttributeError):
        named = {}
    facts = {name: file_facts(each) for name, each in named.items() if isinstance(each, str) and each[:1] == "/"}
    facts["kept"] = file_facts(os.path.join(path, kept))
    return dict(dict({"disk": None, "base": None}, **facts), dir=path, files={"mark.json": text})


def act_disks(act: Json) -> Answer:
    """What the directories of disks say."""
    return DONE, to_json([disk(path, act["kept"]) for path in directories(act["root"], "vm-")]), ""


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


# ── proof on the wire ───────────────────────────────────────────────────────────────────────────────────


def within(space: str, work: Callable[[], Any]) -> Any:
    """The answer of `work`, done in a named network namespace ("" = the host's own); setns(2) is for one thread."""
    if not space:
        return work()
    answers = []  # type: list[Any]
    failures = []  # type: list[BaseException]

    def enter() -> None:
        try:
            import ctypes

            number = os.open("/run/netns/" + space, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(number, 0x40000000):  # CLONE_NEWNET, linux/sched.h
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), space)
            finally:
                os.close(number)
            answers.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]


def act_devices(act: Json) -> Answer:
    """The network devices of the host and of its named namespaces."""
    try:
        spaces = ["", *sorted(os.listdir("/run/netns"))]
    except FileNotFoundError:
        spaces = [""]
    found = {}
    for space in spaces:
        try:
            found[space] = within(space, devices_here)
        except OSError:
            continue  # it went, or is no namespace
    return DONE, to_json(found), ""


def devices_here() -> Json:
    """Each device of the namespace this thread is in: MAC, MTU, flags and first address (netdevice(7))."""
    import fcntl
    import socket
    import struct

    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:

        def ask(number: int, name: str) -> bytes:
            return fcntl.ioctl(asking, number, struct.pack("16s24x", name.encode()))[16:]

        for _, name in socket.if_nameindex():
            try:
                flags, mtu, hardware = ask(0x8913, name), ask(0x8921, name), ask(0x8927, name)
            except OSError:
                continue  # it went
            try:
                address = socket.inet_ntoa(ask(0x8915, name)[4:8])
                mask = socket.inet_ntoa(ask(0x891B, name)[4:8])
            except OSError:
                address = mask = ""  # it has none
            found[name] = {
                "mac": ":".join("%02x" % byte for byte in hardware[2:8]),  # noqa: UP031
                "mtu": struct.unpack("i", mtu[:4])[0],
                "flags": struct.unpack("H", flags[:2])[0],
                "address": address,
                "mask": mask,
                "is_tap": os.path.exists("/sys/class/net/%s/tun_flags" % name),  # noqa: UP031
            }
    return found


class Ears:
    """A packet socket in each namespace, for all of its devices, read by one thread; packet(7).

    One for each device would cost the kernel its time at the end: 13 ms a socket.
    """

    ALL_FRAMES = 0x0003  # ETH_P_ALL, linux/if_ether.h
    OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h
    BUFFER = 33  # SO_RCVBUFFORCE, asm-generic/socket.h
    ENOUGH = 768  # bytes of a frame that are looked at
    AUXILIARY = (263, 8)  # SOL_PACKET and PACKET_AUXDATA, linux/if_packet.h
    HEAD = 42  # bytes of a frame that are told of: as far as an ARP packet or a UDP header goes

    def __init__(self, act: Json) -> None:
        self.run = bytes.fromhex(act["run"])
        self.questions = {bytes.fromhex(text): number for text, number in act["questions"].items()}
        self.devices = {space: set(names) for space, names in act["places"].items()}
        self.tags = act["tags"]
        self.heard = set()  # type: set[tuple[str, int, int, str]]
        self.answers = set()  # type: set[tuple[str, int, int, str]]
        self.last = time.monotonic()
        self.is_over = False
        self.sockets = {}  # type: dict[str, Any]
        self.poll = select.poll()
        for space in self.devices:
            self.sockets[space] = within(space, self._open)
            self.poll.register(self.sockets[space], select.POLLIN)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _open(self) -> Any:
        import socket

        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self.ALL_FRAMES))
        ear.setsockopt(socket.SOL_SOCKET, self.BUFFER, 32 << 20)
        if self.tags:
            ear.setsockopt(*self.AUXILIARY, 1)
        ear.setblocking(False)
        return ear

    def _listen(self) -> None:
        spaces = {ear.fileno(): space for space, ear in self.sockets.items()}
        while not self.is_over:
            for number, _ in self.poll.poll(50):
                space = spaces[number]
                self._read(self.sockets[space], self.devices[space])

    def _read(self, ear: Any, devices: set[str]) -> None:
        while True:
            try:
                frame, beside, _, address = ear.recvmsg(self.ENOUGH, 64 if self.tags else 0)
            except OSError:  # nothing more, or a device is gone
                return
            if beside:
                frame = with_tag(frame, beside[0][2])
            if address[0] not in devices:
                continue
            place = frame.find(self.run)
            if place >= 0:
                start = place + len(self.run)
                number = int.from_bytes(frame[start : start + 4], "big")
                self._note(self.heard, address, number, frame[: self.HEAD])
            else:
                self._answer(frame, address)

    def _answer(self, frame: bytes, address: Any) -> None:
        """Keep what answers us without our bytes: DHCP servers, by the question's number (RFC 2131), and ARP (-1)."""
        kind, body = frame[12:14], frame[14:]
        if kind == b"\x81\x00":
            kind, body = frame[16:18], frame[18:]
        if kind == b"\x08\x06" and body[6:8] == b"\x00\x02":
            self._note(self.answers, address, -1, frame[: self.HEAD + 4])
        elif kind == b"\x08\x00" and body[9:10] == b"\x11" and body[20:24] == b"\x00\x43\x00\x44":
            number = self.questions.get(body[32:36])
            if number is not None:
                self._note(self.answers, address, number, frame)

    def _note(self, where: set[tuple[str, int, int, str]], address: Any, number: int, data: bytes) -> None:
        self.last = time.monotonic()
        where.add((address[0], number, int(address[2] == self.OUTGOING), data.hex()))

    def send(self, space: str, device: str, frame: bytes) -> None:
        """Have a device send a frame."""
        self.sockets[space].sendto(frame, (device, 0))

    def end(self, settle_s: float, at_most_s: float) -> Json:
        """What was heard, once it has been quiet for a while."""
        until = time.monotonic() + at_most_s
        self.last = time.monotonic()
        while time.monotonic() < min(until, self.last + settle_s):
            time.sleep(LONGEST_WAIT_S)
        self.is_over = True
        self.thread.join()
        # the sockets go with this message's process: the kernel takes its time over each
        return {"heard": sorted(self.heard), "answers": sorted(self.answers)}


def with_tag(frame: bytes, beside: bytes) -> bytes:
    """A frame with the 802.1Q header that the kernel took out of it, as it says beside it (packet(7))."""
    import struct

    status, _, _, _, _, tag, kind = struct.unpack("IIIHHHH", beside[:20])
    if not status & 0x10:  # TP_STATUS_VLAN_VALID, linux/if_packet.h
        return frame
    return frame[:12] + struct.pack("!HH", kind if status & 0x40 else 0x8100, tag) + frame[12:]


ears = []  # type: list[Ears]  # of this message


def act_listen(act: Json) -> Answer:
    """Begin to listen; it ends with the message at the latest."""
    ears.append(Ears(act))
    return DONE, "", ""


def act_heard(act: Json) -> Answer:
    """What was heard since."""
    if not ears:
        return 1, "", "nobody listens"
    return DONE, json.dumps(ears.pop().end(act["settle_s"], act["at_most_s"]), separators=(",", ":")), ""


BURST_BYTES = 24 << 10  # a frame counts for BURST_LEAST at least: devices and sockets hold a few hundred frames
BURST_LEAST = 512
BURST_PAUSE_S = 0.002


class Pace:
    """Says after which frames to pause, so that no host on the way drops any."""

    def __init__(self) -> None:
        self.burst = 0

    def is_due(self, frame: bytes) -> bool:
        """Count a frame that was sent; whether so many came in a row that it is time for a pause."""
        self.burst += max(BURST_LEAST, len(frame))
        if self.burst < BURST_BYTES:
            return False
        self.burst = 0
        return True


def act_emit(act: Json) -> Answer:
    """Send frames by devices of this host, and packets by its own network stack (raw(7))."""
    import socket

    pace = Pace()
    for space, device, text in act["frames"]:
        frame = bytes.fromhex(text)
        try:
            ears[-1].send(space, device, frame)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # else it is lost on the way, as others are: its other end took none
                raise
        if pace.is_due(frame):
            time.sleep(BURST_PAUSE_S)
    if act["packets"]:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as stack:
            for target, text in act["packets"]:
                stack.sendto(bytes.fromhex(text), (target, 0))
    return DONE, "", ""


class Switch:
    """A conversation with a bridge in OpenFlow 1.0 (its specification, 5.3.6 and 5.3.7)."""

    HELLO, ERROR, PACKET_OUT, BARRIER, ANSWER = 0, 1, 13, 18, 19
    TO_THE_TABLES = 0xFFF9  # OFPP_TABLE

    def __init__(self, bridge: str, timeout_s: float) -> None:
        import socket

        self.rest = b""
        self.number = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(timeout_s)
            self.socket.connect(f"/var/run/openvswitch/{bridge}.mgmt")
            self._say(self.HELLO, b"")
        except OSError:
            self.socket.close()
            raise

    def send(self, port: int, frame: bytes) -> None:
        """Have the switch take a frame as if it had come in by a port: no buffer, one action of eight bytes."""
        import struct

        head = struct.pack("!IHH", 0xFFFFFFFF, port, 8) + struct.pack("!HHHH", 0, 8, self.TO_THE_TABLES, 0)
        self._say(self.PACKET_OUT, head + frame)

    def settle(self) -> None:
        """Wait until all that was said is done.

        Raises:
            ConnectionError: the switch refused a frame, or hung up.
        """
        import struct

        last = self._say(self.BARRIER, b"")
        while True:
            while len(self.rest) < 8 or len(self.rest) < struct.unpack("!H", self.rest[2:4])[0]:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionError("the switch hung up")
                self.rest += data
            _, kind, length, number = struct.unpack("!BBHI", self.rest[:8])
            if kind == self.ERROR:
                raise ConnectionError(f"the switch refused frame {number}: error {self.rest[8:12].hex()}")
            self.rest = self.rest[length:]
            if kind == self.ANSWER and number == last:
                return

    def _say(self, kind: int, body: bytes) -> int:
        import struct

        self.number += 1
        self.socket.sendall(struct.pack("!BBHI", 1, kind, 8 + len(body), self.number) + body)
        return self.number


def act_inject(act: Json) -> Answer:
    """Send frames to a switch, and wait for it to have done them: in bursts, so that no host on the way drops any."""
    switch = Switch(act["bridge"], act["timeout_s"])
    with switch.socket:
        pace = Pace()
        for port, text in act["frames"]:
            frame = bytes.fromhex(text)
            switch.send(port, frame)
            if pace.is_due(frame):
                switch.settle()
                time.sleep(BURST_PAUSE_S)
        switch.settle()
    return DONE, "", ""


ACTS = {
    "run": act_run,
    "spawn": act_spawn,
    "qmp": act_qmp,
    "write": act_write,
    "read": act_read,
    "mkdir": act_mkdir,
    "remove": act_remove,
    "remove if empty": act_remove_if_empty,
    "require": act_require,
    "publish": act_publish,
    "adopt": act_adopt,
    "stop": act_stop,
    "signal": act_signal,
    "machines": act_machines,
    "servers": act_servers,
    "files": act_files,
    "namespaces": act_namespaces,
    "disks": act_disks,
    "processes": act_processes,
    "checksum": act_checksum,
    "measure": act_measure,
    "listen": act_listen,
    "inject": act_inject,
    "heard": act_heard,
    "emit": act_emit,
    "confine": act_confine,
    "release": act_release,
    "devices": act_devices,
}


# ── the plan ────────────────────────────────────────────────────────────────────────────────────────────


def in_parallel(work: Callable[[Any], Any], items: list[Any], at_a_time: int = OBSERVERS) -> list[Any]:
    """The answers of `work` for each item, in order."""
    answers = [None] * len(items)  # type: list[Any]
    todo = iter(range(len(items)))
    turn = threading.Lock()
    failures = []  # type: list[BaseException]

    def worker() -> None:
        while True:
            with turn:
                index = next(todo, None)
            if index is None:
                return
            try:
                answers[index] = work(items[index])
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=worker) for _ in range(min(at_a_time, len(items)) - 1)]
    for thread in threads:
        thread.start()
    worker()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return answers


class PlanRun:
    """One plan on its way: which steps ran, what ended it."""

    def __init__(self, plan: Json, control: Control) -> None:
        self.plan = plan
        self.control = control
        self.failed = []  # type: list[int]  # numbers of failed steps
        self.numbers = {}  # type: dict[str, int]
        self.names = []  # type: list[str]
        for stage in plan["stages"]:
            for step in stage["steps"]:
                self.numbers[step["name"]] = len(self.names)
                self.names.append(step["name"])

    def run(self) -> Json:
        """Stages, then the observation; returns the last line."""
        ending = ""
        for stage in self.plan["stages"]:
            ending = (self.control.wait_gate(stage["gate"]) if stage["gate"] else "") or self.control.why_stop()
            if ending:
                break
            self.run_stage(stage)
            ending = self.control.why_stop() if self.is_unfinished(stage) else ""
            if self.failed or ending:
                break
        if not self.control.is_gone:
            in_parallel(lambda step: self.run_step(step, observe=True), self.plan["observe"])
        failed = self.names[min(self.failed)] if self.failed else None
        return {"event": "done", "failed": failed, "aborted": "" if failed else ending}

    def is_unfinished(self, stage: Json) -> bool:
        """Whether a later step than the last one of this stage exists, or one of it was not begun."""
        return not all(step.get("begun") for step in stage["steps"]) or stage is not self.plan["stages"][-1]

    def run_stage(self, stage: Json) -> None:
        """Lane by lane, `parallel` lanes at a time; in order when that is 1."""
        if stage["parallel"] <= 1:
            return self.run_lane(stage["steps"])
        lanes = {}  # type: dict[str, list[Json]]
        for step in stage["steps"]:
            lanes.setdefault(step["name"].partition(":")[0], []).append(step)
        in_parallel(self.run_lane, list(lanes.values()), stage["parallel"])

    def run_lane(self, steps: list[Json]) -> None:
        """Steps one after another, until one fails anywhere or the orchestrator is gone."""
        for step in steps:
            if self.failed or self.control.why_stop():
                return
            step["begun"] = True
            self.control.say(event="begin", name=step["name"], label=step["label"])
            self.run_step(step)

    def run_step(self, step: Json, observe: bool = False) -> None:
        """Do one act and say how it ended."""
        began = time.monotonic()
        try:
            for guard in guards:
                guard(step)
            status, out, err = ACTS[step["act"]](step)
        except (OSError, KeyError, ValueError, TypeError) as error:
            status, out, err = NOT_RUN, "", explain(error)
        accepted = status in step.get("ok", (0,))
        if not accepted and not observe:
            self.failed.append(self.numbers[step["name"]])
        seconds = round(time.monotonic() - began, 6)
        self.control.say(
            event="end", observe=observe, name=step["name"], label=step["label"], status=status,
            out=out, err=err.strip(), accepted=accepted, seconds=seconds,
        )  # fmt: skip


def check_acts(plan: Json) -> None:
    """Refuse the whole message when it holds an act that this runner does not know."""
    steps = [step for stage in plan["stages"] for step in stage["steps"]] + plan["observe"]
    unknown = sorted({step["act"] for step in steps} - set(ACTS))
    if unknown:
        raise Refused("plan", f"unknown acts: {', '.join(unknown)}")


checks = [check_acts]  # what a plan must pass before anything of it is done; an installed helper adds its own
guards = []  # type: list[Callable[[Json], None]]  # asked before each step, likewise


def run_plan(text: str, report: int) -> None:
    """Run the plan in `text` (JSON), write the last line to the pipe `report`, and end this process."""
    plan = json.loads(text)
    environment["HOME"] = os.path.expanduser("~")
    environment.update(plan.get("environment", {}))
    os.environ.clear()
    os.environ.update(environment)
    control = Control(plan["lease_s"])
    threading.Thread(target=control.listen, daemon=True).start()
    try:
        for check in checks:
            check(plan)
        fence = Fence(plan, control) if plan["operation"] else None
        if fence:
            fence.enter()
        last_line = PlanRun(plan, control).run()
        if fence:
            fence.leave()  # before the last line: who reads that may look at the host at once
    except Refused as refusal:
        last_line = refusal.event
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        last_line = {"event": "crashed", "text": f"{explain(error)} (line {where.lineno} of {where.name})"}
    if not control.is_gone:
        os.write(report, json.dumps(last_line).encode()[:PIPE_CHUNK])
    os._exit(0)  # at once: threads that wait for the orchestrator are not waited for


# ── one plan after another ──────────────────────────────────────────────────────────────────────────────


def run_apart(text: str) -> tuple[bytes, int]:
    """Run a plan in a process of its own: its last line, empty when nobody is there to read it, and its status.

    That process alone reads stdin while it lives, so what follows its last line is for us.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        run_plan(text, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        last_line = pipe.read()
    return last_line, os.waitpid(child, 0)[1]


def read_within(size: int, until: float) -> bytes:
    """Exactly so many bytes of stdin, or fewer at its end or when the time is over."""
    data = b""
    waiting = select.poll()
    waiting.register(0, select.POLLIN)
    while len(data) < size and waiting.poll(max(0.0, until - time.monotonic()) * 1000):
        part = os.read(0, size - len(data))
        if not part:
            break
        data += part
    return data


def next_plan() -> str | None:
    """The plan in the next message, which needs no program any more; None when there is none."""
    import zlib

    until = time.monotonic() + IDLE_S
    line = b""
    while True:
        letter = read_within(1, until)
        if not letter:
            return None
        if letter != b"\n":
            line += letter
            continue
        head, line = line.split(), b""
        if head == [b"ready"]:  # who asks has a plan to send: it must not meet our end
            until = time.monotonic() + IDLE_S
            Control(IDLE_S).say(event="ready")
        elif len(head) == 2 and head[0].isdigit():
            break  # anything else was meant for the plan that has ended
    if int(head[0]) > LARGEST:
        return None
    payload = read_within(int(head[0]), until)
    if len(payload) != int(head[0]) or sha256(payload).hexdigest().encode() != head[1]:
        return None
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(payload, LARGEST)
    return text.decode().partition("\0")[2] if unpacker.eof else None


def main(text: str) -> int:
    """Run the plan in `text`, then those that follow on the same stdin as long as the orchestrator stays.

    Loading this program costs a host more than most plans do. Each plan still has a process of its own; this
    one only waits, and ends with the connection or after `IDLE_S` seconds without a plan.
    """
    plan = text  # type: str | None
    while plan is not None:
        last_line, status = run_apart(plan)
        if status or not last_line:
            return 70 if status else 0
        control = Control(IDLE_S)
        control.say(**json.loads(last_line))
        plan = None if control.is_gone else next_plan()
    return 0
