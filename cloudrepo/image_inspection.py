"""A copy of a stranger's disk image, looked at by `qemu-img` in a process of its own that can do nothing else.

The process has the open file and no path to it: limits on CPU, memory and descriptors, no file it may write a byte
to, nobody's rights where root starts it, and a network with nothing in it where the system allows that.
"""

from __future__ import annotations

import functools
import logging
import os
import selectors
import subprocess
import time

from cloudrepo.commands import qemu_img
from cloudrepo.commands.confine import Limits, confined
from cloudrepo.errors import RefusedError
from cloudrepo.image_header import HEAD, TAIL, Header, read, unfit

log = logging.getLogger(__name__)

LONGEST_S = 90.0  # by the clock, for each question
MOST = 1024**2  # bytes of an answer that are read
_KILLED = "it took too long, or too much memory, to look at"


def inspect(number: int, told: str = "") -> Header:
    """Say what an open file is, if it may become an image.

    Args:
        number: descriptor of a regular file that nobody writes any more, readable for everybody.
        told: the format that a person says it has; empty = it has a header that says so.

    Raises:
        RefusedError: it may not; or `qemu-img` cannot be run here.
    """
    size = os.fstat(number).st_size
    header = read(os.pread(number, HEAD, 0), os.pread(number, TAIL, max(0, size - TAIL)), size, told=told)
    path = f"/dev/fd/{number}"
    # Of a raw file QEMU is asked what it takes it for: no disk of ours has a format that only QEMU knows.
    seen = "qcow2" if header.format == "qcow2" else ""
    status, words, err = _ask(qemu_img.plain_info(path, seen), number)
    if status != 0:
        raise unfit(_said(status, err))
    try:
        info = qemu_img.parse_info(words)
    except ValueError as error:
        raise unfit("qemu-img does not say what it is") from error
    if info.format != header.format:
        raise unfit(f"qemu-img takes it for {info.format}, and it is {header.format}")
    reason = qemu_img.refusal(info)
    if reason:
        raise unfit(reason)
    if header.format == "qcow2":
        status, _words, err = _ask(qemu_img.plain_check(path), number)
        if status not in qemu_img.CHECK_SOUND:
            what = "its tables do not agree with its content: it was cut or is damaged"
            raise unfit(what if status > 0 else _said(status, err))
    return Header(format=header.format, virtual_size=info.virtual_size)


def _said(status: int, err: str) -> str:
    lines = err.strip().splitlines()
    return _KILLED if status < 0 or not lines else f"qemu-img: {lines[-1].removeprefix('qemu-img: ')[:300]}"


def _ask(words: tuple[str, ...], number: int) -> tuple[int, str, str]:
    return run(confined(words, limits=Limits(), is_root=os.geteuid() == 0, has_namespaces=_has_namespaces()), number)


@functools.cache
def _has_namespaces() -> bool:
    """Whether a process can have an empty network of its own here: a container or a kernel may not allow it."""
    words = confined(("true",), limits=Limits(), is_root=os.geteuid() == 0, has_namespaces=True)
    found = run(words)[0] == 0
    if not found:
        log.info("images are inspected without a network namespace: this account cannot make one")
    return found


def run(words: tuple[str, ...], *numbers: int, longest_s: float = LONGEST_S) -> tuple[int, str, str]:
    """Run a confined program that has these descriptors; end it when it says or takes too much.

    Returns:
        Status (negative when it was ended), output and error output.

    Raises:
        RefusedError: the program, or one that confines it, is not installed.
    """
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=numbers,
            env=environment,
            cwd="/",
        )
    except OSError as error:
        raise _not_installed(words[0]) from error
    with process:
        texts = _collect(process, longest_s)
        if texts is None:
            process.kill()
            return -9, "", ""
        status = process.wait()
    if status == 127:
        raise _not_installed(texts[1].strip()[-200:] or words[-1])
    return status, *texts


def _collect(process: subprocess.Popen[bytes], longest_s: float) -> tuple[str, str] | None:
    """Both outputs until their end; None when that is too much, or takes too long."""
    deadline, found = time.monotonic() + longest_s, {"stdout": b"", "stderr": b""}
    with selectors.DefaultSelector() as selector:
        for name in found:
            selector.register(getattr(process, name), selectors.EVENT_READ, name)
        while selector.get_map():
            left = deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                return None
            for key, _events in ready:
                piece = os.read(key.fd, 65536)
                found[key.data] += piece
                if not piece:
                    selector.unregister(key.fileobj)
                elif len(found[key.data]) > MOST:
                    return None
    return found["stdout"].decode("utf-8", "replace"), found["stderr"].decode("utf-8", "replace")


def _not_installed(what: str) -> RefusedError:
    return RefusedError(
        "images cannot be inspected here",
        evidence=f"a program cannot be run: {what}",
        remedy="Install qemu-img and util-linux: apt-get install qemu-utils util-linux",
        code="images.tools",
    )
