"""`./cloud exec` on a guest agent in memory that runs programs here: statuses, output, who may, what is logged."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from types import TracebackType
from typing import Any

import pytest

from cloudrepo.errors import HostError
from crashing import SLICE, Installation
from guest_programs import PROGRAMS
from test_cli_recovery import installation, run

__all__ = ["installation"]  # the fixture


class Guest:
    """A guest's agent socket; what it is told to run runs here.

    Attributes:
        words: what it was told to run, in order.
    """

    def __init__(self, *, is_deaf: bool = False) -> None:
        self.is_deaf = is_deaf
        self.words: list[list[str]] = []
        self._out = b""
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._running.values():
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def send(self, data: bytes) -> None:
        if self.is_deaf:
            return
        for line in data.splitlines():
            message = json.loads(line.lstrip(b"\xff"))
            answer = self._answer(message["execute"], message.get("arguments") or {})
            before = b"\xff" if message["execute"] == "guest-sync-delimited" else b""
            self._out += before + json.dumps(answer).encode() + b"\n"

    def receive(self, timeout_s: float) -> bytes | None:
        data, self._out = self._out[:65536], self._out[65536:]
        return data

    def _answer(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if command == "guest-sync-delimited":
            return {"return": arguments["id"]}
        if command == "guest-exec":
            return self._exec(arguments)
        process = self._running[arguments["pid"]]
        try:
            out, err = process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            return {"return": {"exited": False}}
        ended: dict[str, Any] = {"exited": True}
        ended |= {"exitcode": process.returncode} if process.returncode >= 0 else {"signal": -process.returncode}
        encoded = {key: base64.b64encode(data).decode() for key, data in (("out-data", out), ("err-data", err)) if data}
        return {"return": ended | encoded}

    def _exec(self, arguments: dict[str, Any]) -> dict[str, Any]:
        words = [arguments["path"], *arguments["arg"]]
        self.words.append(words)
        given = base64.b64decode(arguments.get("input-data", ""))
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            text = f"Guest agent command failed, error was 'Failed to execute child process ({error.strerror})'"
            return {"error": {"class": "GenericError", "desc": text}}
        assert process.stdin is not None
        process.stdin.write(given)
        self._running[process.pid] = process
        return {"return": {"pid": process.pid}}


@pytest.fixture
def guest(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """The agent of VM 1001, which runs."""
    installation.ok("deploy_slice", "admin", SLICE)
    made = Guest()
    opened = f"/run/cloudrepo-{installation.api.site.installation}/"

    def open_serial(host: str, socket: str) -> Guest:
        assert host in installation.hosts and socket.startswith(opened) and socket.endswith("1001/agent.sock"), socket
        return made

    def open_guest_ssh(host: str, *place: object) -> None:
        raise HostError(host, "nothing answers", code="host.socket")  # it has no sshd

    monkeypatch.setattr(installation.api.executor, "open_serial", open_serial, raising=False)
    monkeypatch.setattr(installation.api.executor, "open_guest_ssh", open_guest_ssh, raising=False)
    return made


@pytest.mark.parametrize(("command", "status", "out", "err"), PROGRAMS)
def test_the_status_and_the_output_are_the_programs_own(
    guest: Guest, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], status: int, out: str, err: str
) -> None:
    assert run("exec", "vm1", "--", *command) == status
    assert capsys.readouterr() == (out, err)
    assert guest.words == [list(command)]
    assert run("exec", "vm1", "--json", "--", *command) == status
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["stdout"], document["stderr"]) == (status, out, err)
    assert (document["ok"], document["vm_id"], document["name"]) == (status == 0, 1001, "vm1")


def test_a_megabyte_comes_whole(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exec", "1001", "--", "head", "-c", "1048576", "/dev/zero") == 0
    assert capsys.readouterr().out == "\0" * 1048576


def test_bytes_that_are_no_text_are_handed_on_as_they_are(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))
    assert run("exec", "vm1", "--", "printf", r"\377\000\n") == 0
    assert raw.getvalue() == b"\xff\x00\n"


def test_a_program_reads_what_the_command_is_given(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert run("exec", "-i", "vm1", "--", "wc", "-l") == 0
    assert capsys.readouterr().out.strip() == "2"


def test_what_takes_too_long_is_ended_and_is_124(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exec", "--timeout", "2", "vm1", "--json", "--", "sleep", "600") == 124
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["error"]["code"]) == (124, "guest.slow")
    assert [words[0] for words in guest.words] == ["sleep", "kill"]
    (process, _kill) = guest._running.values()
    assert process.wait(30) == -15


def test_a_program_that_is_not_there_is_127_and_silence_255(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exec", "vm1", "--", "/no/such/program") == 127
    assert run("exec", "vm1", "--", "/etc/passwd") == 126
    shown = capsys.readouterr()
    assert shown.out == "" and "/no/such/program was not started in VM 1001 (vm1)" in shown.err
    guest.is_deaf = True
    assert run("exec", "--timeout", "0.3", "vm1", "--json", "--", "true") == 255
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "guest.silent" and "install qemu-guest-agent" in error["message"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("vm9", "--", "true"), 1, "There is no VM vm9"),
        (("vm1", "--as", "student", "--", "true"), 1, "you have no VM 1001"),
        (("vm2", "--", "true"), 1, "VM 1002 (vm2) does not run"),
        (("vm1", "--", ""), 1, "no program was named"),
        (("vm1",), 64, "Missing argument"),
        (("vm1", "--timeout", "never", "--", "true"), 64, "a number from 0.1 to 86400 is needed"),
    ],
)
def test_bad_input(
    installation: Installation, guest: Guest, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int,
    says: str,
) -> None:  # fmt: skip
    installation.ok("stop_vm", "admin", SLICE, 1002)
    assert run("exec", *words) == status
    assert says in "".join(capsys.readouterr())
    assert guest.words == []


def test_who_ran_what_is_in_the_event_log(installation: Installation, guest: Guest) -> None:
    run("exec", "vm1", "--", "echo", "x" * 500)
    run("exec", "vm1", "--as", "student", "--", "id")
    first, second = [one for one in installation.api.context.events.read() if one.what == "exec_in_vm"]
    assert (first.who, first.about, first.outcome) == ("admin", "vm 1001", "done")
    assert first.details["command"].startswith("echo xxx") and len(first.details["command"]) == 200
    assert (second.who, second.outcome, second.details["command"]) == ("student", "refused", "id")
