"""Framing of what is sent to a host: a constant command, a header line, a payload.

The command is the same text for every message, so nothing of a plan is ever in a process list or near a shell.
Its bootstrap reads `<length> <sha256>` and a newline, then exactly `length` bytes (unbuffered: the control
lines that follow stay readable), verifies the digest and only then runs the source inside. A message cut at
any byte is a header without its payload, or no header: it does nothing.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

from cloudrepo.errors import HostError, HostUnreachable
from cloudrepo.host.programs import helper_version, text as text_of

CUT = "cloudrepo: the message was cut"
TOO_OLD = "cloudrepo: Python 3.8 or newer is needed"

# One line without single quotes, `!` or backslashes other than \n: safe between single quotes in every shell.
BOOTSTRAP = (
    "import os,sys,zlib;"
    f'sys.version_info<(3,8) and sys.exit("{TOO_OLD}, this host has %s" % sys.version.split()[0]);'
    'f=open(0,"rb",0,closefd=False);h=f.readline(200).split();'
    "n=int(h[0]) if len(h)==2 and h[0].isdigit() else -1;b=bytearray();"
    'exec("while len(b)<n:\\n d=f.read(n-len(b))\\n if not d: break\\n b+=d");'
    'exec("try:\\n from _sha256 import sha256\\nexcept ImportError:\\n from hashlib import sha256");'
    f'len(b)==n and sha256(b).hexdigest().encode()==h[1] or sys.exit("{CUT}");'
    's,_,p=zlib.decompress(bytes(b)).decode().partition("\\0");'
    'g={"__name__":"cloudrepo_host"};exec(compile(s,"cloudrepo-host","exec"),g);sys.exit(g["main"](p))'
)

# where every Debian and Ubuntu has it, whatever PATH the account has made itself
PYTHON = ("/usr/bin/python3", "-I", "-S", "-c", BOOTSTRAP)


#: The installed helper: root's, and with `host.privilege: helper` all that the account may run as root.
HELPER = "/usr/local/lib/cloudrepo/helper"
#: Where images are on a host with it: in the account's own home that could put another directory in the place of ours.
HELPERS_HOME = "/var/lib/cloudrepo"


def remote_words(user: str, *, has_helper: bool = False) -> tuple[str, ...]:
    """The constant command that takes a message as root: by sudo, unless the account is root's."""
    words = (HELPER,) if has_helper else PYTHON
    return words if user == "root" else ("sudo", "-n", *words)


def encode(name: str, argument: Mapping[str, Any], *, has_helper: bool = False) -> bytes:
    """The whole message: header and payload.

    Args:
        name: the program, `runner` or `relay`.
        argument: what its `main` gets, as JSON.
        has_helper: whether the host has the program; then only its version is named.
    """
    return _framed(f"{name} {helper_version()}" if has_helper else text_of(name), argument)


def encode_next(argument: Mapping[str, Any]) -> bytes:
    """A further message to a program that runs already: the same frame without the program."""
    return _framed("", argument)


def _framed(program: str, argument: Mapping[str, Any]) -> bytes:
    text = f"{program}\0{json.dumps(argument, separators=(',', ':'))}"
    payload = zlib.compress(text.encode(), 1)
    return b"%d %s\n%s" % (len(payload), hashlib.sha256(payload).hexdigest().encode(), payload)


def diagnose(host: str, status: int | None, stderr: str, noise: str = "") -> HostError:
    """Why a host did not take a message, from what it said instead.

    Args:
        host: its address.
        status: exit status of the constant command; None when the connection ended without one.
        stderr: what the host wrote there.
        noise: what came on stdout that was no event.
    """
    words = (stderr.strip() or noise.strip())[-800:]
    if status is None:
        return HostUnreachable(
            host,
            "the connection was lost before the host answered",
            evidence=words,
            remedy="check the host's network and try again; what was begun is found by looking at the host",
            code="host.lost",
        )
    for mark, brief, remedy, code in _CAUSES:
        if mark in words:
            if code == "host.sudo":
                remedy += (
                    f". Where only the helper may be run, set host.privilege to helper: `./cloud worker harden {host}`"
                )
            remedy = remedy.replace("harden IP", f"harden {host}")
            return HostError(host, brief, evidence=words, remedy=remedy, code=code, details={"status": status})
    if status == 127:
        return HostError(
            host,
            "python3 or sudo is missing",
            evidence=words,
            remedy=_INSTALL,
            code="host.python",
            details={"status": 127},
        )
    return HostError(
        host,
        "the host did not run the message",
        evidence=words or f"exit status {status} and no words",
        remedy="log in to the host and run `sudo -n python3 --version`",
        code="host.runner",
        details={"status": status},
    )


_INSTALL = "on the host run `sudo apt-get install python3 sudo`"
_NOPASSWD = "on the host give the account a line `USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d"
_HARDEN = "run `./cloud worker harden IP` for this host, or set host.privilege to sudo if that is what it should be"
#: What Python says when a file of the helper is not there, or was damaged on its disk.
_BROKEN = ("No module named 'helper_", "marshal data", "EOF read where object expected")
_CAUSES = (
    (f"{HELPER}: command not found", "the helper is not installed", _HARDEN, "host.helper"),
    *((text, "the helper is not whole", _HARDEN, "host.helper") for text in _BROKEN),
    (f"{HELPER}: No such file", "the helper is not installed", _HARDEN, "host.helper"),
    ("a password is required", "sudo asks for a password", _NOPASSWD, "host.sudo"),
    ("a terminal is required", "sudo asks for a password", _NOPASSWD, "host.sudo"),
    ("is not in the sudoers file", "the account may not use sudo", _NOPASSWD, "host.sudo"),
    ("is not allowed to", "the account may not use sudo for python3", _NOPASSWD, "host.sudo"),
    ("sudo: not found", "sudo is missing", _INSTALL, "host.sudo"),
    ("sudo: command not found", "sudo is missing", _INSTALL, "host.sudo"),
    ("python3: command not found", "python3 is missing", _INSTALL, "host.python"),
    ("python3: not found", "python3 is missing", _INSTALL, "host.python"),
    ("python3: No such file", "python3 is missing", _INSTALL, "host.python"),
    (TOO_OLD, "python3 is too old", "use a host with Debian 11, Ubuntu 20.04 or newer", "host.python"),
    (CUT, "the message did not arrive whole", "try again; nothing was changed", "host.cut"),
)
