"""Joins stdin and stdout to a Unix socket of the host. Sent like the runner; for serial consoles.

Standard library only, Python 3.8 or newer. stdout begins with one line of JSON: `{"event": "open"}`, or
`{"event": "refused", "text": …}` when the socket does not answer; then bytes flow both ways.
"""

from __future__ import annotations

import json
import os
import select
import socket


def main(text: str) -> int:
    """Relay until either side ends; `text` is JSON with `socket`, a path."""
    return relay(json.loads(text)["socket"])


def relay(path: str) -> int:
    """Relay until either side ends. A symlink at the path is not followed: another account may have put it there."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    number = -1
    try:
        number = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        peer.connect(f"/proc/self/fd/{number}")
    except OSError as error:
        write_all(1, json.dumps({"event": "refused", "text": error.strerror or str(error)}).encode() + b"\n")
        return 1
    finally:
        if number >= 0:
            os.close(number)
    write_all(1, b'{"event": "open"}\n')
    sides = {0: peer.fileno(), peer.fileno(): 1}  # read from: write to
    waiting = select.poll()
    for side in sides:
        waiting.register(side, select.POLLIN)
    try:
        while True:
            for side, _ in waiting.poll():
                data = os.read(side, 65536)
                if not data:
                    return 0
                write_all(sides[side], data)
    except OSError:
        return 0  # a broken pipe: one side has gone


def write_all(number: int, data: bytes) -> None:
    """Write everything to a blocking file."""
    while data:
        data = data[os.write(number, data) :]
