"""What the tests of the state share: small states, and what is acknowledged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from database import Database
from models import VM, Interface, Slice


def a_slice(slice_id: int = 1000, name: str = "s", vms: int = 2) -> dict[str, Any]:
    """A slice's record with a few VMs."""
    return Slice(
        slice_id,
        "admin",
        name=name,
        vms=[
            VM(
                slice_id + n,
                f"vm{n}",
                "admin",
                "10.0.10.1",
                interfaces=[Interface("eth0", f"52:54:00:00:{slice_id % 256:02x}:{n:02x}")],
            )
            for n in range(1, vms + 1)
        ],
    ).to_dict()


def content(path: Path) -> dict[str, Any]:
    """What a new process finds, as plain values."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in Database(path).data.items()}


def journal_of(path: Path) -> Path:
    """The journal beside a state file."""
    return path.with_name(path.name + ".journal")


CRASHING = ("fsync", "replace", "write", "ftruncate", "unlink", "open", "fchmod")


def in_child(work: Callable[[Callable[[str], None]], None], *, dies_at: int | None = None) -> tuple[list[str], bool]:
    """Run `work` in a process of its own that is killed before its n-th call of the kernel that writes.

    Args:
        work: gets a function that tells the parent a word at once.
        dies_at: the call it is killed before; None = it is not killed.

    Returns:
        What was told, and whether the process ended by itself.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _work(work, writer, dies_at)
    os.close(writer)
    with open(reader, encoding="ascii") as told:
        words = told.read().split()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "the process failed"
    return words, not os.WIFSIGNALED(status)


def _work(work: Callable[[Callable[[str], None]], None], writer: int, dies_at: int | None) -> None:
    """In the child; never returns."""
    genuine_write, left = os.write, dies_at
    try:
        for name in CRASHING:
            genuine = getattr(os, name)

            def counted(*args: Any, _genuine: Any = genuine, **kwargs: Any) -> Any:
                nonlocal left
                if left is not None:
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), 9)
                return _genuine(*args, **kwargs)

            setattr(os, name, counted)
        work(lambda word: void(genuine_write(writer, f"{word}\n".encode())))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def void(_value: object) -> None:
    """Nothing."""
