"""A small process from which simulators are forked: what a test has loaded makes every fork of it slow.

`Nursery` is the side of the tests. The other side is this module run as a program, which knows nothing but the
simulator; it ends with the process that started it.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDERS = (str(HERE.parent.parent), str(HERE.parent))
PROGRAM = "import sys; sys.path[:0] = sys.argv[2:]; from simulated import nursery; nursery.main(int(sys.argv[1]))"


class Nursery:
    """Starts simulators; one for each process that wants any, since it ends with that process."""

    _mine: Nursery | None = None

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = (sys.executable, "-I", "-S", "-c", PROGRAM, str(theirs.fileno()), *FOLDERS)
        with theirs:
            # nothing of this environment is known on a host; each variable would be taken from each runner again
            self._process = subprocess.Popen(words, pass_fds=(theirs.fileno(),), start_new_session=True, env={})
        self._line = ours
        self.owner = os.getpid()
        atexit.register(self.close)

    @classmethod
    def mine(cls) -> Nursery:
        """That of this process."""
        if cls._mine is None or cls._mine.owner != os.getpid():
            cls._mine = Nursery()
        return cls._mine

    def close(self) -> None:
        """Let it end, with all that it started."""
        self._line.close()
        if self.owner == os.getpid():
            self._process.wait()

    def start(self, directory: Path, *arguments: Any, **options: Any) -> int:
        """A simulator with these arguments; all is there when this returns. Its process id."""
        order = directory / "order"
        order.write_bytes(pickle.dumps((directory, arguments, options)))
        begun, theirs = os.pipe()
        socket.send_fds(self._line, [str(order).encode()], [theirs])
        os.close(theirs)
        pid = int(self._line.recv(100))
        with open(begun, "rb") as pipe:
            if not pipe.read(1):
                raise RuntimeError(f"the simulator did not start: {(directory / 'simulator.log').read_text()}")
        return pid


def main(descriptor: int) -> None:
    """Fork a simulator for each order that comes, until the end of the line; then all of them end, and their files."""
    from simulated import runners, simulator

    runners.warm_up()
    gc.disable()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    line = socket.socket(fileno=descriptor)
    me = os.getpid()
    worlds: dict[int, Path] = {}
    while True:
        order, descriptors, _, _ = socket.recv_fds(line, 4096, 1)
        if not order:
            break
        pid = os.fork()
        if not pid:
            line.close()
            directory, arguments, options = pickle.loads(Path(order.decode()).read_bytes())  # noqa: S301  our own
            simulator.serve(me, descriptors[0], directory, *arguments, **options)
        os.close(descriptors[0])
        worlds = {one: path for one, path in worlds.items() if path.exists()} | {pid: Path(order.decode()).parent}
        line.send(str(pid).encode())
    for pid, directory in worlds.items():
        if directory.exists():  # its owner did not come to close it
            simulator.kill_and_wait(pid)
            shutil.rmtree(directory, ignore_errors=True)
