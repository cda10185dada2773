"""The serial console: bytes both ways, the detach key, and the terminal as it was afterwards."""

from __future__ import annotations

import os
import queue
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from cli import console


class Guest:
    """A serial port whose other end echoes in capitals; silent when told so."""

    def __init__(self, *, silent: bool = False) -> None:
        self.sent = b""
        self.silent = silent
        self._answers: queue.Queue[bytes | None] = queue.Queue()

    def send(self, data: bytes) -> None:
        self.sent += data
        if not self.silent:
            self._answers.put(data.upper())

    def receive(self, timeout_s: float) -> bytes | None:
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return b""

    def close(self) -> None:
        self._answers.put(None)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal: the person's and the program's."""
    person, program = os.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def read_until(descriptor: int, wanted: bytes, seconds: float = 5) -> bytes:
    """What the person sees until `wanted` is there."""
    seen, until = b"", time.monotonic() + seconds
    while wanted not in seen:
        assert time.monotonic() < until, f"{wanted!r} is not in {seen!r}"
        seen += os.read(descriptor, 4096)
    return seen


def attached(guest: Guest, program: int) -> tuple[threading.Thread, list[bool]]:
    """`attach` in a thread, and where its answer will be."""
    answers: list[bool] = []
    thread = threading.Thread(
        target=lambda: answers.append(console.attach(guest, program, program, "web")), daemon=True
    )
    thread.start()
    return thread, answers


def wait_until_raw(program: int) -> None:
    until = time.monotonic() + 30
    while termios.tcgetattr(program)[3] & termios.ICANON:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_keys_reach_the_guest_raw_and_the_detach_key_leaves(terminal: tuple[int, int]) -> None:
    person, program = terminal
    before = termios.tcgetattr(program)
    guest = Guest()
    thread, answers = attached(guest, program)
    wait_until_raw(program)
    os.write(person, b"ls\x03\r")  # Ctrl-C is the guest's
    read_until(person, b"LS\x03\r")
    os.write(person, b"exit\x1dnot sent")
    thread.join(30)
    assert guest.sent == b"ls\x03\rexit"
    assert answers == [False]
    assert termios.tcgetattr(program) == before


def test_the_end_of_the_connection_ends_it_and_restores_the_terminal(terminal: tuple[int, int]) -> None:
    _person, program = terminal
    before = termios.tcgetattr(program)
    guest = Guest()
    thread, answers = attached(guest, program)
    wait_until_raw(program)
    guest.close()
    thread.join(30)
    assert answers == [True]
    assert termios.tcgetattr(program) == before


def test_a_connection_that_breaks_while_typing_restores_the_terminal(terminal: tuple[int, int]) -> None:
    person, program = terminal
    before = termios.tcgetattr(program)

    class Broken(Guest):
        def send(self, data: bytes) -> None:
            raise ConnectionResetError("the host is gone")

    answers: list[str] = []

    def run() -> None:
        try:
            console.attach(Broken(), program, program, "web")
        except ConnectionResetError as error:
            answers.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until_raw(program)
    os.write(person, b"x")
    thread.join(30)
    assert answers == ["the host is gone"]
    assert termios.tcgetattr(program) == before


def test_a_silent_guest_is_said_once(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    person, program = terminal
    monkeypatch.setattr(console, "SILENCE_S", 0.2)
    thread, _answers = attached(Guest(silent=True), program)
    seen = read_until(person, b"Ctrl-] leaves.]\r\n")
    assert b"web has said nothing yet" in seen
    time.sleep(0.5)  # long enough for it to be said again
    os.write(person, b"\x1d")
    thread.join(30)
    os.write(program, b"end")
    assert read_until(person, b"end") == b"end"
