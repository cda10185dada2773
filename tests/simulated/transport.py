"""Reaches simulated hosts: a transport whose messages run on a host of a `world.World`."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from cloudrepo.errors import HostUnreachable
from cloudrepo.transports.local import LocalFiles, drained

HOME = "/home/ubuntu"
BIN = Path(__file__).with_name("bin")  # the whole PATH of a host: a name for each tool, all of them `client.pl`


class Control:
    """What a process says to the simulator of a world; each process and thread may ask."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._line: socket.socket | None = None
        self._owner = 0
        self._turn = threading.Lock()

    def ask(self, do: str, *, descriptors: tuple[int, ...] = (), **request: Any) -> Any:
        """One request; the answer."""
        with self._turn:
            if self._line is None or self._owner != os.getpid():
                self._line, self._owner = socket.socket(socket.AF_UNIX), os.getpid()
                self._line.connect(str(self.path))
            text = json.dumps({"do": do, **request}).encode()
            socket.send_fds(self._line, [text], descriptors)
            heard = b""
            while not heard.endswith(b"\n"):
                data = self._line.recv(1 << 20)
                if not data:
                    raise ConnectionError("the simulator has ended")
                heard += data
        return json.loads(heard)

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        if self._line is not None:
            self._line.close()
            self._line = None


class SimulatedStream:
    """A message's connection to a runner on a simulated host. What is sent counts as points of the world."""

    def __init__(self, control: Control, host: str, line: socket.socket, errors: int, pid: int) -> None:
        self._control, self._host, self._line, self._errors, self.pid = control, host, line, errors, pid
        self._outputs = {line.fileno(): 0, errors: 1}

    def send(self, data: bytes) -> None:
        """Send all of it; raises OSError when the other side is gone."""
        what = "a plan" if data[:1].isdigit() else data.split(maxsplit=1)[0].decode()
        self._control.ask("point", site=f"to {self._host}", label=f"before sending {what}")
        self._line.sendall(data)
        self._control.ask("point", site=f"to {self._host}", label=f"after sending {what}")

    def finish(self) -> None:
        """The other side reads the end."""
        try:
            self._line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """What came on both streams, None at the end of both."""
        return drained(self._outputs, timeout_s)

    def status(self, timeout_s: float) -> int | None:
        """The runner's exit status, None when it runs on or was cut off."""
        status: int | None = self._control.ask("status", pid=self.pid)["status"]
        return status

    def close(self) -> None:
        """Hang up."""
        self._line.close()
        if self._errors >= 0:
            os.close(self._errors)
        self._errors = -1
        self._outputs = {}


class SimulatedFiles(LocalFiles):
    """Files of a simulated host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _real(self, path: str) -> str:
        return str(self.root) + path

    def size(self, path: str) -> int | None:
        """Bytes of a file, None when there is none."""
        return super().size(self._real(path))

    def make_parents(self, path: str) -> None:
        """Make the directories that `path` will be in."""
        super().make_parents(self._real(path))

    def write(self, path: str, offset: int, blocks: Iterator[bytes]) -> None:
        """Write blocks from `offset` on."""
        super().write(self._real(path), offset, blocks)

    def rename(self, path: str, target: str) -> None:
        """Put `path` in the place of `target`."""
        super().rename(self._real(path), self._real(target))


class SimulatedTransport:
    """Reaches the hosts of a world.

    Args:
        directory: of the world.
        names: of the hosts' directories, by address.
    """

    keeps_open = True
    has_helper = False

    def __init__(self, directory: Path, names: dict[str, str]) -> None:
        self.directory = directory
        self.names = names
        self.control = Control(directory / "control")

    def open_message(self, host: str, message: bytes) -> SimulatedStream:
        """Start the bootstrap on the host and send it a message."""
        ours, theirs = socket.socketpair()
        errors, their_errors = os.pipe()
        with theirs:
            reply = self.control.ask("message", host=host, descriptors=(theirs.fileno(), their_errors))
        os.close(their_errors)
        if "error" in reply:
            ours.close()
            os.close(errors)
            self._refuse(host, reply["error"])
        stream = SimulatedStream(self.control, host, ours, errors, reply["pid"])
        try:
            stream.send(message)
        except OSError:
            pass  # what comes back tells why
        return stream

    def _refuse(self, host: str, why: str) -> NoReturn:
        raise HostUnreachable(host, "no connection", evidence=why)

    def environment(self, host: str) -> dict[str, str]:
        """The tools of the host are its stand-ins, and nothing else."""
        folder = self.directory / self.names[host]
        return {"PATH": str(BIN), "SIMULATED_HOST": str(folder / "tools"), "HOME": HOME}

    def open_shell(self, host: str, line: str, timeout_s: float) -> NoReturn:
        """A simulated host has no shell."""
        self._refuse(host, "a simulated host has no shell")

    def files(self, host: str) -> AbstractContextManager[SimulatedFiles]:
        """The host's files."""
        return nullcontext(SimulatedFiles(self.directory / self.names[host] / "root"))

    def home(self, host: str) -> str:
        """The login account's home."""
        return HOME

    def connect_port(self, host: str, port: int) -> NoReturn:
        """Nothing of a simulated host listens on TCP."""
        self._refuse(host, "a simulated host has no ports")

    def close(self, host: str | None = None) -> None:
        """Nothing is kept but the line to the simulator."""
        self.control.close()
