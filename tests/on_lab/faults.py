"""Faults on a host of the lab: tools that refuse, disks and ports that are of no use. Each ends with its block."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lab.cluster import Lab
from lab.guestless import FIRST_IN_PATH
from on_lab.cluster import wait_until

WORDS = "refused by the test"

# Stands before the real tool in the runner's PATH. It looks at its words, and at its stdin where the tool reads that.
_WRAPPER = """#!/usr/bin/python3 -IS
import os, sys, time
MARK, REAL, HANGS, SLOW_S = {mark!r}, {real!r}, {hangs!r}, {slow_s!r}
words = " ".join(sys.argv[1:])
text = sys.stdin.read() if "-batch" in sys.argv or REAL.endswith("-restore") else ""
if MARK in words or MARK in text:
    time.sleep(600 if HANGS else SLOW_S)
    if not SLOW_S:
        sys.exit({words!r})
if text:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.dup2(reader, 0)
os.execv(REAL, [REAL, *sys.argv[1:]])
"""


@contextmanager
def broken_tool(lab: Lab, ip: str, tool: str, mark: str, *, hangs: bool = False, slow_s: float = 0) -> Iterator[None]:
    """A tool that refuses all calls with `mark` in their words or their stdin; or hangs at them; or is slow."""
    find = ["sh", "-c", 'PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v "$1"', "sh", tool]
    real = lab.host(ip, find, check=True).stdout.strip()
    place = f"{FIRST_IN_PATH}/{tool}"
    text = _WRAPPER.format(mark=mark, real=real, hangs=hangs, slow_s=slow_s, words=WORDS)
    lab.host(ip, ["mkdir", "-p", FIRST_IN_PATH], check=True)
    lab.host(ip, ["sh", "-c", 'cat > "$1" && chmod 755 "$1"', "sh", place], input=text, check=True)
    try:
        yield
    finally:
        lab.host(ip, ["rm", place], check=True)


@contextmanager
def damaged_file(lab: Lab, ip: str, path: str) -> Iterator[None]:
    """A file cut to a few bytes, and whole again afterwards."""
    lab.host(ip, ["cp", "-p", path, "/root/kept"], check=True)
    lab.host(ip, ["truncate", "-s", "100", path], check=True)
    try:
        yield
    finally:
        lab.host(ip, ["cp", "-p", "/root/kept", path], check=True)  # into the same file: it has a second name
        lab.host(ip, ["rm", "/root/kept"], check=True)


@contextmanager
def occupied_port(lab: Lab, ip: str, port: int) -> Iterator[None]:
    """Somebody else listens on a port of a host's loopback."""
    code = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); print(flush=True); time.sleep(600)"
    process = lab.host_room(ip).popen(["/usr/bin/python3", "-c", code], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@contextmanager
def cut_off(lab: Lab, ip: str) -> Iterator[None]:
    """The management cable of a host is out."""
    lab.cut(ip)
    try:
        yield
    finally:
        lab.heal(ip)


def boot_again(lab: Lab, ip: str) -> None:
    """Boot a host that was killed, and wait until it can be used."""
    lab.boot(ip)
    wait_until(lambda: lab.host(ip, ["ovs-vsctl", "br-exists", "br-int"]).returncode == 0, 30, f"{ip} after its boot")
