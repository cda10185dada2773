"""`./cloud exec` by SSH: a real sshd stands for the guest's, and the way to it for the network node's relay."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import HostError, HostUnreachable
from cloudrepo.transports.ssh import SshStream
from crashing import SLICE, Installation
from guest_programs import PROGRAMS
from private_sshd import PrivateSshd, make_key, private_sshd
from test_cli_exec import Guest
from test_cli_recovery import installation, run
from test_cli_schemas import document

__all__ = ["installation"]  # the fixture


class Wire:
    """A connection to the guest's SSH port, as the executor gives it."""

    def __init__(self, port: int) -> None:
        self.peer = socket.create_connection(("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def receive(self, timeout_s: float) -> bytes | None:
        self.peer.settimeout(max(timeout_s, 0.001))
        try:
            return self.peer.recv(65536) or None
        except TimeoutError:
            return b""
        except OSError:
            return None

    def close(self) -> None:
        self.peer.close()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSshd]:
    with private_sshd(tmp_path_factory.mktemp("guest")) as found:
        yield found


class Node:
    """What the network node is asked for.

    Attributes:
        asked: node, installation, VLAN and address of each.
        error: what it answers in place of a connection.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def open_guest_ssh(self, *asked: Any) -> Wire:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return Wire(self.port)


@pytest.fixture
def agent(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """The agent of each guest, which is silent."""
    installation.ok("deploy_slice", "admin", SLICE)
    made = Guest(is_deaf=True)
    monkeypatch.setattr(installation.api.executor, "open_serial", lambda host, path: made, raising=False)
    return made


@pytest.fixture
def node(installation: Installation, agent: Guest, sshd: PrivateSshd, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(sshd.port)
    monkeypatch.setattr(installation.api.executor, "open_guest_ssh", made.open_guest_ssh, raising=False)
    monkeypatch.setenv("CLOUDREPO_CMD_EXEC_LOGIN", sshd.user)
    monkeypatch.setenv("CLOUDREPO_CMD_EXEC_IDENTITY", sshd.key_file)
    monkeypatch.setenv("HOME", str(sshd.directory))  # no keys of whoever runs the tests
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return made


@pytest.mark.parametrize(("command", "status", "out", "err"), PROGRAMS)
def test_the_status_and_the_output_are_the_programs_own(
    installation: Installation, node: Node, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], status: int,
    out: str, err: str,
) -> None:  # fmt: skip
    assert run("exec", "vm1", "--json", "--", *command) == status
    told = document("exec", capsys)
    assert (told["status"], told["stdout"], told["stderr"], told["by"]) == (status, out, err, "ssh")
    record = installation.record()
    (nic,) = [one for one in record["vms"][0]["interfaces"] if one["link_id"] == 1]
    place = record["links"][0]["vlan_id"], nic["ip_config"]["ip"]
    assert node.asked == [("10.0.10.3", installation.api.db.installation, *place)]


def test_a_megabyte_and_bytes_come_whole_both_ways(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(1 << 20)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))
    assert run("exec", "-i", "vm1", "--", "cat") == 0
    assert raw.getvalue() == data


def test_a_program_that_is_not_there_is_127_and_one_that_may_not_run_126(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("exec", "vm1", "--", "/no/such/program") == 127
    assert run("exec", "vm1", "--", "/etc/passwd") == 126
    assert "/no/such/program" in capsys.readouterr().err


def ends(pid_file: Path) -> None:
    """Wait for the end of what wrote its number there."""
    pid, until = int(pid_file.read_text()), time.monotonic() + 30
    status = Path(f"/proc/{pid}/status")
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < until, "it runs on"
        subprocess.run(("true",), check=True)


def sleeper(pid_file: Path) -> tuple[str, ...]:
    return ("sh", "-c", f"echo $$ > {pid_file}; echo begun; exec sleep 600")


def test_what_takes_too_long_is_ended_and_is_124(
    node: Node, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("exec", "--timeout", "3", "vm1", "--json", "--", *sleeper(tmp_path / "pid")) == 124
    told = document("exec", capsys)
    assert (told["status"], told["error"]["code"]) == (124, "guest.slow")
    ends(tmp_path / "pid")


def test_ctrl_c_ends_the_program_and_is_130(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    genuine, heard = SshStream.receive, bytearray()

    def receive(self: Any, timeout_s: float) -> Any:
        if b"begun" in heard:
            raise KeyboardInterrupt
        found = genuine(self, timeout_s)
        heard.extend(found[0] if found is not None else b"")
        return found

    monkeypatch.setattr(SshStream, "receive", receive)
    assert run("exec", "vm1", "--", *sleeper(tmp_path / "pid")) == 130
    ends(tmp_path / "pid")


def test_an_agent_that_answers_is_asked_first(
    agent: Guest, node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But where somebody said with what SSH is to log in."""
    agent.is_deaf = False
    assert run("exec", "vm1", "--json", "--", "true") == 0
    assert document("exec", capsys)["by"] == "ssh"
    for name in ("LOGIN", "IDENTITY"):
        monkeypatch.delenv(f"CLOUDREPO_CMD_EXEC_{name}")
    assert run("exec", "vm1", "--json", "--", "true") == 0
    assert document("exec", capsys)["by"] == "agent"
    assert len(node.asked) == 1


def test_a_silent_agent_leads_to_ssh_but_where_the_agent_is_wanted(
    installation: Installation, node: Node, sshd: PrivateSshd, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With the settings' login."""
    for name in ("LOGIN", "IDENTITY"):
        monkeypatch.delenv(f"CLOUDREPO_CMD_EXEC_{name}")
    context = installation.api.context
    ssh = replace(context.settings.ssh, guest_user=sshd.user, guest_key=sshd.key_file)
    monkeypatch.setattr(context, "settings", replace(context.settings, ssh=ssh))
    assert run("exec", "--timeout", "8", "vm1", "--json", "--", "true") == 0
    assert document("exec", capsys)["by"] == "ssh"
    assert run("exec", "--by", "agent", "--timeout", "0.3", "vm1", "--json", "--", "true") == 255
    assert document("exec", capsys)["error"]["code"] == "guest.silent"
    node.error = HostError("10.0.10.3", "nothing answers", code="host.socket", evidence="Connection refused")
    assert run("exec", "--timeout", "0.3", "vm1", "--json", "--", "true") == 255
    error = document("exec", capsys)["error"]
    assert "no guest agent that answers" in error["message"] and "Connection refused" in error["message"]


@pytest.mark.parametrize(
    ("error", "status", "code", "says"),
    [
        (HostError("10.0.10.3", "x", code="host.socket", evidence="Connection refused"), 255, "guest.silent", "no SSH"),
        (HostUnreachable("10.0.10.3", "no answer"), 255, "host.unreachable", "no answer"),
    ],
)
def test_a_guest_that_cannot_be_reached_is_255(
    node: Node, capsys: pytest.CaptureFixture[str], error: Exception, status: int, code: str, says: str
) -> None:
    node.error = error
    assert run("exec", "--by", "ssh", "vm1", "--json", "--", "true") == status
    told = document("exec", capsys)["error"]
    assert told["code"] == code and says in told["message"]


def test_who_is_not_let_in_is_told_with_what_to_try(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_key(tmp_path / "other")
    monkeypatch.setenv("CLOUDREPO_CMD_EXEC_IDENTITY", str(tmp_path / "other"))
    assert run("exec", "vm1", "--json", "--", "true") == 255
    error = document("exec", capsys)["error"]
    assert error["code"] == "guest.auth" and "--identity FILE" in error["message"]
    monkeypatch.delenv("CLOUDREPO_CMD_EXEC_IDENTITY")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a secret\nrest")))
    assert run("exec", "vm1", "--password-stdin", "--", "true") == 255
    shown = capsys.readouterr()
    assert "lets" in shown.err and "a secret" not in shown.err + shown.out


def test_a_password_is_no_part_of_the_event_log(
    installation: Installation, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a secret\n")))
    monkeypatch.delenv("CLOUDREPO_CMD_EXEC_IDENTITY")
    run("exec", "vm1", "--password-stdin", "--", "true")
    (event,) = [one for one in installation.api.context.events.read() if one.what == "exec_in_vm"]
    assert "a secret" not in str(event)


def test_the_key_of_a_guest_is_pinned_by_its_vm(
    installation: Installation, node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another VM at the same address is another guest; the same VM with another key is refused."""
    assert run("exec", "vm1", "--", "true") == 0
    assert run("exec", "vm2", "--", "true") == 0
    pins = installation.state.with_name("known_guests")
    assert [line.split()[0] for line in pins.read_text().splitlines()] == ["vm-1001", "vm-1002"]
    with private_sshd(tmp_path / "another") as other:
        (tmp_path / "another" / "authorized_keys").write_text(Path(f"{other.key_file}.pub").read_text())
        node.port = other.port
        capsys.readouterr()
        assert run("exec", "vm1", "--json", "--", "true") == 255
    error = document("exec", capsys)["error"]
    assert error["code"].startswith("host.key") and f"ssh-keygen -f {pins} -R 'vm-1001'" in error["message"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("vm1", "--as", "student", "--", "true"), 1, "you have no VM 1001"),
        (("vm1", "--by", "pigeon", "--", "true"), 64, "agent or ssh is wanted"),
        (("vm1", "--by", "agent", "--", "true"), 64, "they belong to SSH"),
        (("vm1", "--identity", "/no/such/key", "--", "true"), 64, "no key that can be read"),
    ],
)
def test_bad_input(
    node: Node, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, says: str
) -> None:
    assert run("exec", *words) == status
    assert says in " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert node.asked == []


def test_a_machine_without_an_address_on_a_link_is_told_so(
    installation: Installation, node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.ok("set_link", "admin", SLICE, 1, dhcp=False)
    assert run("exec", "vm1", "--json", "--", "true") == 1
    assert document("exec", capsys)["error"]["code"] == "exec.address"
    assert node.asked == []
