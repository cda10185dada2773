"""The simulator: one process that keeps the hosts of a world, answers their tools and machines, and runs their runners.

One thread and one loop: each call of a tool is done before the next is looked at.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import selectors
import shutil
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from simulated import runners
from simulated.state import Answer, Call, HostState, Program
from simulated.tools import answer, qemu, system

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
READ = selectors.EVENT_READ
BIN = Path(__file__).with_name("bin")  # the whole PATH of a host: a name for each tool, all of them `client.pl`
GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 19}, "package": ""}, "capabilities": []}}
_SILENT = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
_libc = ctypes.CDLL(None, use_errno=True)

Programs = Mapping[str, Iterable[Program]]


def die_with_parent() -> None:
    """This process is killed when the one that made it ends, however that ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Client:
    """A tool that has connected: what it said so far, and the program it has become."""

    host: SimulatedHost
    line: socket.socket
    pid: int
    heard: bytearray = field(default_factory=bytearray)
    call: Call | None = None
    program: Program | None = None
    label: str = ""


@dataclass
class Talk:
    """A conversation with a machine's QMP socket."""

    machine: int
    line: socket.socket
    heard: bytearray = field(default_factory=bytearray)


@dataclass
class SimulatedHost:
    """A host in the simulator: its state and what is connected to it.

    Attributes:
        state: what it holds.
        name: of its directory.
        is_up: whether it answers.
        runners: by process id, the descriptor that keeps the host's side of a message's connection.
        sockets: QMP sockets, by the machine's process id.
        calls: processes of calls that are not answered yet.
    """

    state: HostState
    name: str
    is_up: bool = True
    runners: dict[int, socket.socket] = field(default_factory=dict)
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    clients: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Trap:
    """What happens at a point.

    Attributes:
        site: where it is counted: a host's name, or what an orchestrator says of itself.
        label: of the point.
        index: how many points of that label come first.
        action: `kill` a process, `cut` a host's connections, or take its `power`.
        pid: the process that is killed.
        host: the host that is cut or loses its power.
    """

    site: str
    label: str
    index: int
    action: str
    pid: int = 0
    host: str = ""


class Simulator:
    """Keeps hosts until its parent says `end`, or ends.

    Args:
        directory: of the world.
        states: the hosts, by name.
        programs: what runs on them from the beginning; it is started anew and becomes what it was.
        shortcut: runners ask tools without a process for each call.
    """

    def __init__(
        self, directory: Path, states: dict[str, HostState], programs: Programs, *, shortcut: bool = False
    ) -> None:
        self.directory = directory
        self.shortcut = shortcut
        self.returning = {name: list(there) for name, there in programs.items()}
        self.loop = selectors.DefaultSelector()
        self.hosts = {name: SimulatedHost(state, name) for name, state in states.items()}
        self.by_ip = {host.state.ip: host for host in self.hosts.values()}
        self.points: dict[str, list[str]] = {}
        self.trap: Trap | None = None
        self.sprung = ""
        self.ended: dict[int, int] = {}
        self._listen(directory / "control", self._control)
        for host in self.hosts.values():
            self._prepare(host)
            for program in self.returning.get(host.name, ()):
                self._start_again(host, program)

    # -- the loop --------------------------------------------------------------------------------------

    def run(self, begun: int) -> NoReturn:
        """Answer until told to end; `begun` is closed as soon as all is there that was there before."""
        waking, woken = os.pipe()
        for number in (waking, woken):
            os.set_blocking(number, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        os.write(woken, b".")  # the first round is now
        self.loop.register(waking, READ, lambda: os.read(waking, 4096))
        while True:
            for key, _ in self.loop.select():
                if self.loop.get_map().get(key.fd) is key:  # an earlier one of this round may have closed it
                    key.data()
            self._reap()
            if begun and not any(self.returning.values()):
                os.write(begun, b".")
                os.close(begun)
                begun = 0

    def _listen(self, path: Path, take: Callable[[socket.socket], None]) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(64)
        self.loop.register(listener, READ, lambda: take(listener.accept()[0]))
        return listener

    def _close(self, line: socket.socket) -> None:
        self.loop.unregister(line)
        line.close()

    def _reap(self) -> None:
        """Take note of processes that ended; a runner's connection ends with it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for host in self.hosts.values():
                if pid in host.runners:
                    host.runners.pop(pid).close()
                    self.ended[pid] = os.waitstatus_to_exitcode(status)

    # -- hosts -----------------------------------------------------------------------------------------

    def _prepare(self, host: SimulatedHost) -> None:
        folder = self.directory / host.name
        folder.mkdir(exist_ok=True)
        if not host.state.spaces:
            self._boot(host)
        self._listen(folder / "tools", lambda line: self._meet(host, line))

    def _start_again(self, host: SimulatedHost, program: Program) -> None:
        enter = ("nsenter", f"--net=/run/netns/{program.space}", "--") if program.space else ()
        words = (*enter, *program.words)
        folder = self.directory / host.name
        environment = {"SIMULATED_HOST": str(folder / "tools")}
        os.posix_spawn(str(BIN / words[0]), words, environment, setsid=True, file_actions=_SILENT)

    def _become(self, client: Client, program: Program) -> None:
        """A program that was started again is what it was before; the runner's pid file names the new process."""
        waited_for = self.returning.get(client.host.name, [])
        old = next((one for one in waited_for if one.words == program.words), None)
        if old is None:
            return
        waited_for.remove(old)
        program.status, program.links_down, program.hosts = old.status, old.links_down, old.hosts
        if program.is_machine and "pid" not in program.files:
            pid_file = client.host.state.real(program.files["qmp"]).with_name("pid")
            if pid_file.exists():  # else the runner's orchestrator was killed before it was written
                pid_file.write_text(f"{client.pid} {_start_time(client.pid)}\n")

    def _boot(self, host: SimulatedHost) -> None:
        host.state.boot()
        shutil.rmtree(host.state.root / "run", ignore_errors=True)
        for path in ("run", "home/ubuntu", "tmp"):
            (host.state.root / path).mkdir(parents=True, exist_ok=True)
        system.boot_files(host.state, f"{host.name}-{time.monotonic_ns()}")

    def _lose_power(self, host: SimulatedHost) -> None:
        """Nothing runs on; what is not on its disk is gone once it boots. It does not answer until then."""
        host.is_up = False
        for pid in host.runners:
            _kill(pid, group=True)
        self._cut(host)
        for key in [*self.loop.get_map().values()]:
            owner = getattr(key.data, "owner", None)
            if isinstance(owner, Client) and owner.host is host:
                _kill(owner.pid)
                self._forget(owner)

    def _cut(self, host: SimulatedHost) -> None:
        """End the connections of all its runners: both sides read the end."""
        for line in host.runners.values():
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first

    # -- points ----------------------------------------------------------------------------------------

    def _point(self, site: str, label: str) -> None:
        """Count a point, and do what is to happen there."""
        seen = self.points.setdefault(site, [])
        seen.append(label)
        trap = self.trap
        if trap is None or (trap.site, trap.label) != (site, label) or trap.index != seen.count(label) - 1:
            return
        self.trap, self.sprung = None, label
        if trap.action == "kill":
            kill_and_wait(trap.pid)
        elif trap.action == "cut":
            self._cut(self.hosts[trap.host])
        elif trap.action == "power":
            self._lose_power(self.hosts[trap.host])

    # -- tools -----------------------------------------------------------------------------------------

    def _meet(self, host: SimulatedHost, line: socket.socket) -> None:
        pid, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        client = Client(host, line, pid)

        def hear() -> None:
            self._hear(client)

        hear.owner = client  # type: ignore[attr-defined]
        self.loop.register(line, READ, hear)

    def _hear(self, client: Client) -> None:
        try:
            data = client.line.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._forget(client)
            return
        client.heard += data
        if client.call is None:
            self._take_call(client)
        else:
            self._take_news(client)

    def _take_call(self, client: Client) -> None:
        if len(client.heard) < 8:
            return
        words_size, stdin_size = struct.unpack(">II", client.heard[:8])
        if len(client.heard) < 8 + words_size + stdin_size:
            return
        text = bytes(client.heard[8:])
        client.heard.clear()
        words = text[:words_size].decode("utf-8", "replace").split("\0")
        client.call = Call(client.host.state, tuple(words), text[words_size:].decode("utf-8", "replace"))
        if words[0] == runners.ACT:
            self._note_act(client, *json.loads(words[1]))
            return
        if words[0] == runners.PROGRAMS:
            found = {pid: program.space for pid, program in client.host.state.programs.items()}
            self._end_call(client, ("O", json.dumps(found)), ("X", "0"))
            return
        client.label = " ".join(words)[:100]
        self._point(client.host.name, f"before {client.label}")
        if not client.host.is_up:
            return
        result = answer(client.call)
        if result.stays is not None:
            self._stay(client, result, result.stays)
            return
        self._point(client.host.name, f"after {client.label}")
        if client.host.is_up:
            self._end_call(client, ("O", result.out), ("E", result.err), ("X", str(result.status)))

    def _end_call(self, client: Client, *frames: tuple[str, str]) -> None:
        """Answer. A tool ends with it; a runner that asks without one may ask again."""
        client.call = None
        self._say(client, *frames)

    def _note_act(self, client: Client, when: str, name: str, step: str) -> None:
        self._point(client.host.name, f"{when} {name} of {step}")
        if client.host.is_up:
            self._end_call(client, ("X", "0"))

    def _say(self, client: Client, *frames: tuple[str, str]) -> None:
        data = b""
        for kind, text in frames:
            payload = text.encode()
            data += kind.encode() + struct.pack(">I", len(payload)) + payload
        try:
            client.line.sendall(data)
        except OSError:
            pass  # it was killed meanwhile: its end is heard next

    def _stay(self, client: Client, result: Answer, program: Program) -> None:
        """A program that runs on, in this process or in a child of it."""
        client.program = program
        if result.in_background:
            self._say(client, ("D", ""))
            return
        self._begin(client)
        self._say(client, ("S", ""))
        self._point(client.host.name, f"after {client.label}")

    def _take_news(self, client: Client) -> None:
        """`P` number: the child is there; `T`, `H`: a signal came."""
        while client.heard:
            kind = chr(client.heard[0])
            if kind == "P":
                if len(client.heard) < 5:
                    return
                client.pid = struct.unpack(">I", client.heard[1:5])[0]
                del client.heard[:5]
                self._begin(client)
                self._point(client.host.name, f"after {client.label}")
                if client.host.is_up:
                    self._say(client, ("X", "0"))
                continue
            del client.heard[:1]
            if kind == "T":
                self._end(client)
                return
            if kind == "H" and client.program is not None and "hosts" in client.program.files:
                client.program.reloads += 1
                client.program.hosts = client.host.state.real(client.program.files["hosts"]).read_text()

    def _begin(self, client: Client) -> None:
        host, program = client.host, client.program
        assert program is not None
        host.state.programs[client.pid] = program
        if "pid" in program.files:
            host.state.real(program.files["pid"]).write_text(f"{client.pid}\n")
        if program.is_machine:
            path = host.state.real(program.files["qmp"])
            path.unlink(missing_ok=True)
            host.sockets[client.pid] = self._listen(path, lambda line: self._greet(client, line))
        self._become(client, program)

    def _end(self, client: Client) -> None:
        """An orderly end: pid file and socket go with the process."""
        assert client.program is not None
        for name in ("pid", "qmp"):
            if name in client.program.files:
                client.host.state.real(client.program.files[name]).unlink(missing_ok=True)
        self._forget(client)

    def _forget(self, client: Client) -> None:
        """The process has ended, or ends now that its connection is closed."""
        self._close(client.line)
        if client.program is not None:
            client.host.state.programs.pop(client.pid, None)
            listener = client.host.sockets.pop(client.pid, None)
            if listener is not None:
                self._close(listener)

    # -- QMP -------------------------------------------------------------------------------------------

    def _greet(self, client: Client, line: socket.socket) -> None:
        talk = Talk(client.pid, line)
        self.loop.register(line, READ, lambda: self._converse(client, talk))
        _send_json(line, GREETING)

    def _converse(self, client: Client, talk: Talk) -> None:
        try:
            data = talk.line.recv(1 << 16)
        except OSError:
            data = b""
        if not data or client.pid not in client.host.state.programs:
            self._close(talk.line)
            return
        if _is_stopped(client.pid):
            return  # a stopped process answers nobody
        talk.heard += data
        while b"\n" in talk.heard:
            text, _, rest = bytes(talk.heard).partition(b"\n")
            talk.heard = bytearray(rest)
            assert client.program is not None
            reply, ending = qemu.command(client.program, json.loads(text))
            _send_json(talk.line, reply)
            if ending:
                self._close(talk.line)
                self._end(client)
                return

    # -- control ---------------------------------------------------------------------------------------

    def _control(self, line: socket.socket) -> None:
        self.loop.register(line, READ, lambda: self._obey(line))

    def _obey(self, line: socket.socket) -> None:
        """One request, one answer, both a line of JSON; a message brings its descriptors along."""
        try:
            data, descriptors, _, _ = socket.recv_fds(line, 1 << 16, 2)
        except ConnectionResetError:  # it was killed before it read its answer
            data, descriptors = b"", []
        if not data:
            self._close(line)
            return
        request = json.loads(data)
        reply = getattr(self, f"_do_{request.pop('do')}")(descriptors, **request)
        _send_json(line, reply)

    def _do_message(self, descriptors: list[int], host: str) -> Any:
        """Start a runner on a host."""
        there = self.by_ip.get(host)
        if there is None or not there.is_up:
            for number in descriptors:
                os.close(number)
            return {"error": "this simulated host is not there or down"}
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            die_with_parent()
            runners.run(
                there.state.root, str(self.directory / there.name / "tools"), *descriptors, shortcut=self.shortcut
            )
        there.runners[pid] = socket.socket(fileno=descriptors[0])
        os.close(descriptors[1])
        return {"pid": pid}

    def _do_status(self, descriptors: list[int], pid: int) -> Any:
        return {"status": self.ended.get(pid)}

    def _do_runners(self, descriptors: list[int]) -> Any:
        """Those that run, by host, but for hosts where none does."""
        return {name: sorted(host.runners) for name, host in self.hosts.items() if host.runners}

    def _do_point(self, descriptors: list[int], site: str, label: str) -> Any:
        self._point(site, label)
        return {}

    def _do_arm(self, descriptors: list[int], **trap: Any) -> Any:
        """Set a trap, and count from now on."""
        self.trap, self.sprung, self.points = Trap(**trap) if trap else None, "", {}
        return {}

    def _do_points(self, descriptors: list[int]) -> Any:
        return {"points": self.points, "sprung": self.sprung}

    def _do_power(self, descriptors: list[int], host: str, on: bool) -> Any:
        there = self.hosts[host]
        if not on:
            self._lose_power(there)
        elif not there.is_up:
            self._boot(there)
            there.is_up = True
        return {}

    def _do_ask(self, descriptors: list[int], host: str, words: list[str], stdin: str = "") -> Any:
        """A tool's answer, without a process."""
        result = answer(Call(self.hosts[host].state, tuple(words), stdin))
        return {"status": result.status, "out": result.out, "err": result.err}

    def _do_picture(self, descriptors: list[int]) -> Any:
        """Everything that can be left behind on all hosts."""
        return {name: _plain(host.state.picture()) for name, host in self.hosts.items()}

    def _do_violations(self, descriptors: list[int]) -> Any:
        return [text for host in self.hosts.values() for text in host.state.violations]

    def _do_states(self, descriptors: list[int]) -> Any:
        """All states, to be kept for later worlds: pickled, in a file whose name is answered."""
        path = self.directory / "states"
        path.write_bytes(pickle.dumps({name: host.state for name, host in self.hosts.items()}))
        return str(path)

    def _do_end(self, descriptors: list[int]) -> NoReturn:
        """End everything that was started here, by process id."""
        for host in self.hosts.values():
            for pid in host.runners:
                _kill(pid, group=True)
            for pid in host.state.programs:
                _kill(pid)
        os._exit(0)


def _send_json(line: socket.socket, value: Any) -> None:
    try:
        line.sendall(json.dumps(value).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda one: sorted(one) if isinstance(one, set) else vars(one)))


def _kill(pid: int, *, group: bool = False) -> None:
    try:
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was gone already


def kill_and_wait(pid: int) -> None:
    """Kill a process; when this returns it holds nothing any more."""
    _kill(pid)
    while _state(pid) not in ("", "Z", "X"):
        time.sleep(0.0002)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _is_stopped(pid: int) -> bool:
    return _state(pid) in ("T", "t")


def serve(parent: int, begun: int, directory: Path, *arguments: Any, **options: Any) -> NoReturn:
    """Become the simulator of a world: a byte in `begun` says that all is there, its end that nothing will be."""
    try:
        die_with_parent()
        if os.getppid() != parent:  # it had ended before that took hold
            os._exit(70)
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        Simulator(directory, *arguments, **options).run(begun)
    except BaseException:
        (directory / "simulator.log").write_text(traceback.format_exc())
    finally:
        os._exit(70)
