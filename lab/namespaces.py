"""Rooms: sets of namespaces held by one process, and running commands in them."""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

from lab.errors import LabError
from lab.holder import STAY
from lab.processes import ProcessIdentity

CHECKOUT = Path(__file__).resolve().parent.parent
HOLDER_MODULE = "lab.holder"

_CLONE_NEWPID = 0x20000000
_CREDENTIALS = struct.Struct("3i")
_HELLO_SECONDS = 15.0
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def _children_in(pid: int | None) -> Iterator[None]:
    """Let processes started by this thread be born in another PID namespace.

    ``nsenter --pid`` would do it with one more process in between, which dies of
    the Ctrl-C that was meant for the command and outlives a time-out.  This way
    the command is our own child.  The setting belongs to the calling thread.
    """
    if pid is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_pid_namespace(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _set_pid_namespace(home)
    finally:
        os.close(home)


def _set_pid_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWPID) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True)
class Room:
    """The namespaces of one holder process.

    Attributes:
        name: What people call it, for messages.
        holder: The process that keeps the namespaces alive.
    """

    name: str
    holder: ProcessIdentity

    def pid(self) -> int:
        """Return the holder's process id as seen from here.

        Raises:
            LabError: If the holder ended.
        """
        pid = self.holder.find()
        if pid is None:
            raise LabError(f"{self.name} is not running.")
        return pid

    def popen(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/",
        net_only: bool = False,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        pass_fds: Sequence[int] = (),
        text: bool = True,
        start_new_session: bool = False,
    ) -> subprocess.Popen[Any]:
        """Start a command in this room, as a child of the caller.

        Args:
            argv: The command, never seen by a shell.
            cwd: Working directory in the room.
            net_only: Enter the network namespace alone: the caller's files and
                process ids stay valid, as ``ip link ... netns PID`` needs.
            env: Environment; the caller's when None.
            stdin: As in ``subprocess.Popen``; so are the arguments below.
            stdout: Standard output.
            stderr: Standard error.
            pass_fds: Descriptors the command inherits.
            text: Whether pipes carry text.
            start_new_session: Whether to leave the caller's terminal.
        """
        pid = self.pid()
        flags = ["--net"] if net_only else ["--mount", "--net", "--uts", "--ipc", f"--wdns={cwd}"]
        command = ["nsenter", f"--target={pid}", *flags, "--", *argv]
        with _children_in(None if net_only else pid):
            return subprocess.Popen(
                command,
                env=env,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                text=text,
                start_new_session=start_new_session,
            )

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/",
        net_only: bool = False,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this room and collect what it says.

        Raises:
            subprocess.CalledProcessError: If ``check`` and the command failed.
            subprocess.TimeoutExpired: After ``timeout`` seconds; the command is killed.
        """
        process = self.popen(
            argv,
            cwd=cwd,
            net_only=net_only,
            env=env,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    def foreground(self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> int:
        """Run a command on the caller's terminal and return its exit status.

        Ctrl-C and its like are the command's business: it decides whether to end.
        A terminating signal for us is handed on.  A command ended by a signal
        gives 128 plus its number, as a shell would say.
        """
        process: subprocess.Popen[Any] | None = None

        def hand_on(number: int, _frame: FrameType | None) -> None:
            if process is not None and number in (signal.SIGTERM, signal.SIGHUP):
                process.send_signal(number)

        signals = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
        # A handler, unlike SIG_IGN, is not inherited by the command.
        before = {number: signal.signal(number, hand_on) for number in signals}
        try:
            process = self.popen(argv, cwd=cwd, env=env)
            status = int(process.wait())
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return status if status >= 0 else 128 - status


@dataclass
class Opening:
    """A room being made: as a context it vanishes at its end, unless it was kept.

    Attributes:
        room: The new room.
    """

    room: Room
    _control: socket.socket

    def keep(self) -> None:
        """Let the room live on after this process."""
        self._control.send(STAY)
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        # The holder ends when the other end of its socket closes before the word.
        self._control.close()


def open_room(
    name: str,
    *,
    inside: Room | None,
    own_pids: bool,
    parent_pidfd: int | None = None,
    module: str = HOLDER_MODULE,
    word: str = "-",
    log: Path,
) -> Opening:
    """Make new namespaces and their holder.

    Args:
        name: What people call the room.
        inside: The room whose process tree and mounts it starts from; None for
            the lab itself, which starts from the machine's.
        own_pids: Whether it gets a PID namespace, so that its holder's end ends
            every process in it.
        parent_pidfd: Let the room end with this process.
        module: The Python module that holds it.
        word: A word of its command line, by which ``holders_of`` finds it.
        log: File for what the holder may have to say.

    Raises:
        LabError: If the holder does not report in time.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    descriptors = [theirs.fileno()] + ([] if parent_pidfd is None else [parent_pidfd])
    words = ["unshare", "--mount", "--propagation=private", "--net", "--uts", "--ipc"]
    if own_pids:
        words += ["--pid", "--fork", "--kill-child"]
    words += [sys.executable, "-S", "-m", module, word, *map(str, descriptors)]
    _start_detached(words, inside, descriptors, log)
    theirs.close()
    pid = _await_hello(ours, name, log)
    return Opening(Room(name, ProcessIdentity.of(pid)), ours)


def _start_detached(words: Sequence[str], inside: Room | None, descriptors: Sequence[int], log: Path) -> None:
    """Start a holder that no longer is our child when this returns."""
    argv = ["setsid", "--fork", *words]
    env = {"PATH": os.defpath + ":/usr/sbin:/sbin", "PYTHONPATH": str(CHECKOUT)}
    with log.open("ab") as out:
        if inside is None:
            process: subprocess.Popen[Any] = subprocess.Popen(
                argv,
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=descriptors,
            )
        else:
            process = inside.popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=descriptors,
            )
        process.wait()


def _await_hello(control: socket.socket, name: str, log: Path) -> int:
    control.settimeout(_HELLO_SECONDS)
    try:
        data, ancillary, _flags, _address = control.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    except TimeoutError:
        data, ancillary = b"", []
    if not data or not ancillary:
        control.close()
        said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        raise LabError(f"{name} could not be started.", evidence=said)
    control.settimeout(None)
    pid: int = _CREDENTIALS.unpack(ancillary[0][2])[0]
    return pid


def holders_of(word: str) -> list[ProcessIdentity]:
    """Find the rooms that were opened with this word, however their record was lost."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[1:5] == ["-S", "-m", HOLDER_MODULE, word]:
                found.append(ProcessIdentity.of(int(name)))
        except (OSError, ProcessLookupError):
            continue
    return found


def in_parallel(*tasks: Callable[[], None]) -> None:
    """Run callables in threads and raise the first error, when all have ended."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
