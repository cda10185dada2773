"""The serial console of a guest, over SSH: raw keys one way, raw bytes the other."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from cli.text import clean

if TYPE_CHECKING:
    from cli.screen import Screen
    from orchestrator_api import OrchestratorAPI

DETACH = b"\x1d"  # Ctrl-], as in telnet and virsh
SILENCE_S = 5.0
SILENT = "\r\n[{name} has said nothing yet: it may be booting, or hang. Enter asks for a prompt; Ctrl-] leaves.]\r\n"
CHUNK = 4096
LEAVE_S = 2.0
POLL_S = 0.1


class Channel(Protocol):
    """What is read from and written to: a connection to the guest's serial port."""

    def send(self, data: bytes, /) -> Any:
        """Send all bytes to the guest."""

    def receive(self, timeout_s: float, /) -> bytes | None:
        """Bytes from the guest; empty when none came in time, None at the end."""

    def close(self) -> None:
        """End the connection."""


def open_console(api: OrchestratorAPI, username: str, vm: int | str, screen: Screen) -> bool:
    """Connect the terminal to a guest until the detach key or the end of the connection.

    Returns:
        Whether the console could be opened.
    """
    from cloudrepo.errors import CloudError

    ok, target = api.console_target(username, vm)
    if not ok:
        screen.complain(target)
        return False
    screen.line(f"Console of {target['name']}. Enter asks for a prompt; Ctrl-] leaves.")
    try:
        channel = api.executor.open_serial(target["worker_ip"], target["socket"])
    except CloudError as error:
        screen.complain(error)
        return False
    try:
        ended_by_guest = attach(channel, sys.stdin.fileno(), sys.stdout.fileno(), str(target["name"]))
    finally:
        channel.close()
    screen.line()
    screen.line(f"The console of {target['name']} was closed by its host." if ended_by_guest else "Console left.")
    return True


def attach(channel: Channel, keys: int, display: int, name: str) -> bool:
    """Carry bytes between a terminal and a guest.

    Args:
        channel: the guest's serial port.
        keys: file descriptor that is read; put into raw mode while it is a terminal, and restored always.
        display: file descriptor that is written.
        name: the guest, for the word about its silence.

    Returns:
        True when the other side ended it, False on the detach key or the end of `keys`.
    """
    asked_at = time.monotonic()
    told = False
    with raw_terminal(keys), _Listener(channel, display) as listener:
        while listener.is_alive():
            readable, _, _ = select.select([keys], [], [], POLL_S)
            if readable:
                typed = os.read(keys, CHUNK)
                before, detach, _ = typed.partition(DETACH)
                if before:
                    channel.send(before)
                if detach or not typed:
                    return False
            if not told and not listener.heard and time.monotonic() - asked_at > SILENCE_S:
                told = True
                _write(display, SILENT.format(name=clean(name)).encode())
    return True


class _Listener(threading.Thread):
    """Writes what the guest says; notes whether it ever did."""

    def __init__(self, channel: Channel, display: int) -> None:
        super().__init__(name="console", daemon=True)
        self._channel = channel
        self._display = display
        self._left = threading.Event()
        self.heard = False

    def __enter__(self) -> _Listener:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is written to the terminal after the console was left."""
        self._left.set()
        self.join(LEAVE_S)

    def run(self) -> None:
        """Until the console is left, or the guest's side ends."""
        while not self._left.is_set():
            try:
                data = self._channel.receive(POLL_S)
            except OSError:
                return
            if data is None:
                return
            if data:
                self.heard = True
                _write(self._display, data)


def _write(display: int, data: bytes) -> None:
    while data:
        data = data[os.write(display, data) :]


@contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Hand every key through, Ctrl-C too; the terminal is as before afterwards, whatever happens."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)  # what was typed while it connected is for the guest
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
