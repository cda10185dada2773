"""The first process of a namespace: holds it, reaps in it, ends with its maker.

Run as ``python -m lab.holder WORD CONTROL [PARENT]``.  WORD only marks the command
line; the others are numbers of inherited file descriptors:

* CONTROL is a socket.  The holder writes one byte to say that it is there (the
  kernel adds its process id, translated for the reader).  Until it reads the
  word ``stay`` from it, the end of the other side ends the holder, so a ``lab
  up`` that is killed half way leaves nothing behind.
* PARENT is a pidfd.  When that process ends, the holder ends too.

When the holder is the first process of a PID namespace, its end ends everything
in it.  It must reap: a QEMU that stays a zombie is called alive by many tools.
"""

import os
import select
import signal
import socket
import sys

STAY = b"stay"


def announce(control: socket.socket) -> None:
    """Tell the maker that this process exists; the kernel adds its id."""
    control.send(b"!")


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def hold(control: socket.socket, parent: int | None) -> None:
    """Reap until the maker gives up or the parent process ends."""
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_reader, False)
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    watched = [wake_reader, control.fileno()] + ([parent] if parent is not None else [])
    announce(control)
    while True:
        ready = select.select(watched, [], [])[0]
        if wake_reader in ready:
            os.read(wake_reader, 512)
            _reap()
        if parent is not None and parent in ready:
            return
        if control.fileno() in ready:
            if control.recv(16) != STAY:
                return
            watched.remove(control.fileno())


def main() -> None:
    """Take the descriptors from the command line and hold."""
    control = socket.socket(fileno=int(sys.argv[2]))
    parent = int(sys.argv[3]) if len(sys.argv) > 3 else None
    hold(control, parent)


if __name__ == "__main__":
    main()
