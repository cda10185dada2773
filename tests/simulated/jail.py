"""Makes a process see a host's own files: absolute paths mean its root, as after a chroot, which only root may do.

It holds for what Python code of this process does with paths, and the runner does everything by `os`, `open`
and one socket. `/proc/<number>` stays this machine's: processes are real.
"""

from __future__ import annotations

import builtins
import os
import re
import socket
from collections.abc import Callable
from typing import Any

NETWORK_OF = re.compile(r"/proc/(\d+)/ns/net\Z")
OUTSIDE = re.compile(r"/proc(/(\d+|self)(/.*)?)?\Z|/dev/null\Z")
ONE_PATH = ("open", "stat", "lstat", "unlink", "mkdir", "rmdir", "listdir", "readlink", "chmod")
TWO_PATHS = ("rename", "link")


def enter(root: str, programs: Callable[[], dict[int, str]]) -> None:
    """From now on, and for good, paths of this process are below `root`.

    Args:
        root: the host's files.
        programs: the processes that run on the host, each with the network namespace it is in.
    """
    _see_only(programs)

    def inside(path: Any) -> Any:
        is_ours = isinstance(path, str) and path.startswith("/") and not OUTSIDE.match(path)
        return root + path if is_ours else path

    def moved(function: Callable[..., Any], paths: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*map(inside, args[:paths]), *args[paths:], **kwargs)
            except OSError as error:  # what is told names the path that was given
                if isinstance(error.filename, str):
                    error.filename = error.filename.removeprefix(root)
                raise

        return call

    for names, paths in ((ONE_PATH, 1), (TWO_PATHS, 2)):
        for name in names:
            setattr(os, name, moved(getattr(os, name), paths))
    builtins.open = moved(builtins.open, 1)
    genuine = socket.socket.connect
    socket.socket.connect = lambda self, address: genuine(self, inside(address))  # type: ignore[method-assign]


def _see_only(programs: Callable[[], dict[int, str]]) -> None:
    """Of this machine's processes only the host's are listed; a namespace is the file that stands for it."""
    listdir, stat = os.listdir, os.stat

    def listed(path: Any = ".") -> Any:
        return [str(pid) for pid in programs()] if path == "/proc" else listdir(path)

    def facts(path: Any, *args: Any, **kwargs: Any) -> Any:
        asked = NETWORK_OF.match(path) if isinstance(path, str) else None
        space = programs().get(int(asked[1]), "") if asked else ""
        return os.stat(f"/run/netns/{space}") if space else stat(path, *args, **kwargs)

    os.listdir, os.stat = listed, facts
