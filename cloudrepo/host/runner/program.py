"""One plan after another, each in a process of its own."""

from __future__ import annotations

import json
import os
import select
import time

from cloudrepo.host.runner.line import Control
from cloudrepo.host.runner.plans import run_plan

try:
    from _sha256 import sha256  # type: ignore[import-not-found]  # spares OpenSSL, which is slow to load
except ImportError:
    from hashlib import sha256
LARGEST = 256 << 20  # bytes of a message, unpacked
IDLE_S = 30.0  # how long a runner waits for another plan


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
    plan: str | None = text
    while plan is not None:
        last_line, status = run_apart(plan)
        if status or not last_line:
            return 70 if status else 0
        control = Control(IDLE_S)
        control.say(**json.loads(last_line))
        plan = None if control.is_gone else next_plan()
    return 0
