"""A stand-in for QEMU's control side: a QMP socket and a manner of dying. Run as a program.

Words: manner (`obeys`, `ignores` powerdown but quits, `deaf`: ignores both and SIGTERM), socket path, uuid.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def main(manner: str, path: str, uuid: str) -> None:
    """Serve one client after another until told to end."""
    if manner == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    while True:
        peer, _ = listener.accept()
        with peer, peer.makefile("rwb") as file:
            say(file, {"QMP": {"version": {}, "capabilities": []}})
            for line in file:
                name = json.loads(line)["execute"]
                say(file, {"event": "NOISE", "data": {}})
                if name == "query-uuid":
                    say(file, {"return": {"UUID": uuid}})
                elif name == "query-status":
                    say(file, {"return": {"status": "running", "running": True}})
                elif name == "no-such":
                    say(file, {"error": {"class": "CommandNotFound", "desc": "not found"}})
                else:
                    say(file, {"return": {}})
                if (name == "system_powerdown" and manner == "obeys") or (name == "quit" and manner != "deaf"):
                    os._exit(0)


def say(file: object, value: dict[str, object]) -> None:
    """One line of JSON."""
    file.write(json.dumps(value).encode() + b"\n")  # type: ignore[attr-defined]
    file.flush()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:4])
