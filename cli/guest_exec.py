"""`./cloud exec`: a program in a guest, its output and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli import documents
from cli.screen import Screen

if TYPE_CHECKING:
    from cli.work import Work

#: The exit status where the guest's program gave none, by the code of the error; as `timeout`, a shell and `ssh` have
#: it. What is refused before a guest is asked is 1, as everywhere.
STATUSES = {"guest.slow": 124, "guest.program": 127, "guest.silent": 255, "guest.refused": 126}
HOST_STATUS = 255  # the worker cannot be reached


def run_in_guest(work: Work, vm: str, user: str, command: Sequence[str], *, timeout_s: float, reads: bool) -> int:
    """Run it, and hand on what it wrote.

    Args:
        work: the command.
        vm: the VM's id or name.
        user: who acts; empty = the owner.
        command: the program and its words.
        timeout_s: how long it may take.
        reads: give it this process's standard input.

    Returns:
        The program's exit status; 124 it took too long, 126 or 127 it could not be started, 255 nobody answers, 1 it
        was refused.

    Raises:
        NotDone: there is no such VM, or several are called that.
    """
    record, found = work.installation.one_vm(vm, user)
    stdin = sys.stdin.buffer.read() if reads else b""
    acting = user or str(record["owner"])
    ok, answer = work.api.exec_in_vm(acting, int(found["vm_id"]), list(command), stdin=stdin, timeout_s=timeout_s)
    if not ok:
        return _failed(work, answer)
    status = int(answer["status"])
    if work.as_json:
        wrong = documents.error(f"the program ended with status {status}", code="exec.status") if status else None
        texts = {"stdout": answer["out"], "stderr": answer["err"]}
        words = {key: data.decode("utf-8", "replace") for key, data in texts.items()}
        documents.write(_head(work, answer) | {"status": status, **words}, wrong=wrong)
        return status
    for stream, data in ((sys.stdout, answer["out"]), (sys.stderr, answer["err"])):
        _hand_on(stream, data)
    return status


def _head(work: Work, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"command": work.name, "vm_id": answer["vm_id"], "name": answer["name"]}


def _hand_on(stream: Any, data: bytes) -> None:
    """Write bytes as they are: they are the program's, not ours."""
    raw = getattr(stream, "buffer", None)
    if raw is None:  # none of the system's, as in a test
        stream.write(data.decode("utf-8", "replace"))
    else:
        stream.flush()
        raw.write(data)
    stream.flush()


def _failed(work: Work, answer: Any) -> int:
    Screen(sys.stderr).complain(answer)  # stdout is for what the program says
    code = str(getattr(answer, "code", ""))
    status = STATUSES.get(code, HOST_STATUS if code.startswith("host.") else 1)
    if work.as_json:
        documents.write({"command": work.name, "status": status}, wrong=documents.error(answer))
    return status
