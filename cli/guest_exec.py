"""`./cloud exec`: a program in a guest, its output and its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli import documents
from cli.screen import Screen

if TYPE_CHECKING:
    from cli.work import Work

#: The exit status where the guest's program gave none, by the code of the error; as `timeout`, a shell and `ssh` have
#: it. What is refused before a guest is asked is 1, as everywhere.
STATUSES = {
    **{"guest.slow": 124, "guest.program": 127, "guest.refused": 126},
    **{"guest.silent": 255, "guest.auth": 255},
}
HOST_STATUS = 255  # the worker or the network node cannot be reached, or the guest shows another key


class Way:
    """How a guest is entered.

    Args:
        by: `agent`, `ssh`, or "" = as it comes.
        login: the account in the guest; "" = the usual one.
        identity: a private key file; "" = the usual ones.
        reads_password: whether the first line of the standard input is the password.

    Raises:
        typer.BadParameter: there is no such way, or a login is meant for the agent.
    """

    def __init__(self, by: str, login: str, identity: str, *, reads_password: bool) -> None:
        import typer

        if by not in ("", "agent", "ssh"):
            raise typer.BadParameter(f"agent or ssh is wanted; found {by!r}", param_hint="--by")
        if by == "agent" and (login or identity or reads_password):
            raise typer.BadParameter("they belong to SSH", param_hint="--user, --identity, --password-stdin")
        if identity and not os.access(identity, os.R_OK):
            raise typer.BadParameter(f"there is no key that can be read: {identity}", param_hint="--identity")
        self.by = by or ("ssh" if login or identity or reads_password else "")
        self.login = login
        self.identity = identity
        self.reads_password = reads_password

    def read(self) -> dict[str, Any]:
        """The login, as the façade has it; reads the password."""
        password = sys.stdin.buffer.readline().decode().rstrip("\r\n") if self.reads_password else ""
        return {"user": self.login, "key_file": self.identity, "password": password, "own_keys": not password}


def run_in_guest(
    work: Work, vm: str, user: str, command: Sequence[str], way: Way, *, timeout_s: float, reads: bool
) -> int:
    """Run it, and hand on what it wrote.

    Args:
        work: the command.
        vm: the VM's id or name.
        user: who acts; empty = the owner.
        command: the program and its words.
        way: how the guest is entered.
        timeout_s: how long it may take.
        reads: give it this process's standard input.

    Returns:
        The program's exit status; 124 it took too long, 126 or 127 it could not be started, 255 nobody answers, 1 it
        was refused.

    Raises:
        NotDone: there is no such VM, or several are called that.
    """
    record, found = work.installation.one_vm(vm, user)
    login = way.read()
    stdin = sys.stdin.buffer.read() if reads else b""
    acting, wish = user or str(record["owner"]), dict[str, Any](stdin=stdin, timeout_s=timeout_s)
    ok, answer = work.api.exec_in_vm(acting, int(found["vm_id"]), list(command), by=way.by, login=login, **wish)
    if not ok:
        return _failed(work, answer)
    status = int(answer["status"])
    if work.as_json:
        wrong = documents.error(f"the program ended with status {status}", code="exec.status") if status else None
        texts = {"stdout": answer["out"], "stderr": answer["err"]}
        words = {key: data.decode("utf-8", "replace") for key, data in texts.items()}
        documents.write(_head(work, answer) | {"by": answer["by"], "status": status, **words}, wrong=wrong)
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
